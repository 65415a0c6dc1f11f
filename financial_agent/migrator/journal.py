"""Runs a script statement by statement where a transaction does not hold them together, and journals each of them
before and after, so that the next run goes on at the one that failed or was being run.

What changes rows alone is one transaction with its line in the journal. A definition commits by itself: whether one
took effect, when nothing could be written down any more, is told by the schema: the journal has its fingerprint from
just before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from financial_agent.migrator import ledger, progress
from financial_agent.migrator.databases import Database, StatementError
from financial_agent.migrator.errors_run import StatementUncertain
from financial_agent.migrator.ledger import Progress
from financial_agent.migrator.lexer import Statement, locate
from financial_agent.migrator.plan import Step, version_of

ROWS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH", "VALUES", "MERGE"})
"""The first words of what changes rows alone."""
_SESSION = frozenset({"SET", "RESET"})
"""The first words of what lasts as long as the connection: an earlier run's is gone."""
_SHOWN_BY_SCHEMA = frozenset({"CREATE", "ALTER", "DROP", "RENAME", "COMMENT"})
"""The first words of what cannot take effect, and be of any use, without a trace in the schema."""


class Journal:
    """The journal of one script. `progress` is what is done, also by earlier runs."""

    def __init__(self, db: Database, step: Step, statements: Sequence[Statement]) -> None:
        self._db = db
        self._step = step
        self._statements = statements
        begun = progress.find(db, step.filename)
        self.progress: Progress = begun or progress.first(step, statements, ledger.now())
        if self.progress.running:
            self._settle(self.progress.running)

    def is_done(self, at: int) -> bool:
        """Whether the statement at that place need not be run: an earlier run did it."""
        return at < self.progress.statements and self._statements[at].keyword not in _SESSION

    def run(self, at: int, execute: Callable[[], int]) -> int:
        """Run the statement at that place. After an error the journal says that it is still to be run, unless it could
        not be told that any more. Returns the number of rows that it changed."""
        statement = self._statements[at]
        if at < self.progress.statements:  # of the session alone
            return execute()
        if statement.keyword in ROWS and not self._db.in_transaction:
            with self._db.transaction():
                rows = execute()
                done = self._behind(at, rows)
                progress.save(self._db, done)
            self.progress = done
            return rows
        finished = progress.checksum_of(self._statements, at)  # assertions above it were not written down
        before = replace(self.progress, statements=at, finished=finished)
        self._save(replace(before, running=_checksum(statement), fingerprint=self._db.fingerprint()))
        try:
            rows = execute()
        except StatementError:
            if at:
                self._save(before)
            else:
                self._forget()
            raise
        self._save(self._behind(at, rows))
        return rows

    def _behind(self, at: int, rows: int) -> Progress:
        return replace(
            self.progress,
            statements=at + 1,
            finished=progress.checksum_of(self._statements, at + 1),
            rows_changed=self.progress.rows_changed + rows,
            running=None,
            fingerprint=None,
        )

    def _forget(self) -> None:
        with self._db.transaction():
            progress.forget(self._db, self._step.filename)

    def _save(self, now: Progress) -> None:
        with self._db.transaction():
            progress.save(self._db, now)
        self.progress = now

    def _settle(self, running: str) -> None:
        """Find out whether the statement that was being run took effect. Raises StatementUncertain."""
        at = self.progress.statements
        statement = self._statements[at] if at < len(self._statements) else None
        took_effect = self._db.fingerprint() != self.progress.fingerprint
        is_same = statement is not None and _checksum(statement) == running
        if took_effect and is_same:
            self._save(self._behind(at, 0))
        elif took_effect or not (statement and is_same and statement.keyword in _SHOWN_BY_SCHEMA):
            location = locate(self._step.script.source.name, statement, 0) if statement else None
            raise StatementUncertain(
                location=location,
                name=self._step.filename,
                number=at + 1,
                version=version_of(self._step.filename),
                again="migrate" if self._step.migration else "rollback",
            )
        else:
            self._save(replace(self.progress, running=None, fingerprint=None))


def _checksum(statement: Statement) -> str:
    return hashlib.sha256(statement.text.encode("utf-8", "surrogateescape")).hexdigest()
