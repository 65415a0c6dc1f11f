"""Notices when a statement ends the transaction that it runs in."""

from __future__ import annotations

from collections.abc import Callable

from financial_agent.migrator.databases import Database, StatementError


class EndedTransaction(Exception):
    """A statement ended the transaction that it ran in."""


def in_transaction(db: Database, run: Callable[[], int]) -> int:
    """Run a statement in the transaction that is open. Raises EndedTransaction."""
    try:
        changed = run()
    except StatementError as error:
        # OR ROLLBACK and RAISE(ROLLBACK) undo everything, not only their own statement.
        if error.constraint and not db.in_transaction:
            raise EndedTransaction(str(error)) from error
        raise
    if not db.in_transaction:  # what follows would commit by itself
        raise EndedTransaction("it was committed before its record")
    return changed
