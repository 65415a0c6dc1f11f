"""Opens the database, for a question or for a run, and turns what goes wrong around a run into the engine's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from financial_agent.migrator import attempt, ledger
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, StatementError, Stopped, connect, display_name, exists
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors import DatabaseUnusable, Interrupted
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.script import MigrationFile

ASKING = Control(wait=5.0)


def look(database: str, directory: Path, control: Control) -> tuple[list[MigrationFile], list[Entry]]:
    """The folder's files and the ledger's entries. Writes nothing. Raises the FA1xx and FA2xx errors."""
    files = discover(directory, "sqlite")
    if not exists(database):
        return files, []
    with (
        explained(database, control),
        closing(connect(database, readonly=True, patience=control.patience())) as db,
    ):
        return files, ledger.entries(db)


@contextmanager
def exclusive(database: str, control: Control) -> Iterator[Database]:
    """A connection that is the only one to run migrations, for as long as the context lasts. What a run that was killed
    had begun is recorded first."""
    with (
        explained(database, control),
        closing(connect(database, patience=control.patience())) as db,
        db.lock(),
    ):
        attempt.settle(db)
        yield db


@contextmanager
def explained(database: str, control: Control, what: str = "before anything was changed") -> Iterator[None]:
    """Failures outside a migration's own statements are the database's. `what` says when an interruption came."""
    try:
        yield
    except Stopped:
        raise Interrupted(signal=control.stop() or 2, what=what) from None
    except StatementError as error:
        fix = "Look for what is wrong with: flask db doctor"
        raise DatabaseUnusable(database=display_name(database), cause=error, fix=fix) from error
