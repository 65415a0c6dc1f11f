"""Runs a script statement by statement where a transaction does not hold them together, and journals each of them, so
that the next run goes on at the one that failed or was being run.

What changes rows alone is one transaction with its line in the journal. Of everything else the journal has a note that
it is being run. Where a definition commits by itself, the note is written in the transaction that it commits, and
stays exactly when something of it may stay, too. Whether a definition took effect, when nothing could be written down
any more, is told by the schema: the note has its fingerprint from just before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from financial_agent.migrator import ledger, progress
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Busy, CommitLost, ConnectionLost, Database, StatementError
from financial_agent.migrator.errors_run import SessionLost, StatementUncertain
from financial_agent.migrator.journal_words import Kind, dropped_tables, is_repeatable, kind_of, lost
from financial_agent.migrator.ledger import Progress
from financial_agent.migrator.lexer import Statement, locate
from financial_agent.migrator.plan import Step, version_of
from financial_agent.migrator.retry import patiently

_COMMITS = ("COMMIT", "END")


class Journal:
    """The journal of one script. `progress` is what is done, also by earlier runs.

    Raises StatementUncertain when nobody can tell whether the statement that an earlier run was cut off in took effect,
    and SessionLost when what is to be run needs what went with that run's connection.
    """

    def __init__(self, db: Database, step: Step, statements: Sequence[Statement], control: Control) -> None:
        self._db = db
        self._control = control
        self._step = step
        self._statements = statements
        self._rows_within = 0  # changed in a transaction of the script's own that is open
        self.unsettled = False
        """Whether the statement that was run last took effect is for the next run to find out."""
        begun = progress.find(db, step.filename)
        self.progress: Progress = begun or progress.first(step, statements, ledger.now())
        if self.progress.running:
            self._settle(self.progress.running)
        done, rest = statements[: self.progress.statements], statements[self.progress.statements :]
        if names := lost(done, rest):
            raise SessionLost(name=step.filename, names=", ".join(names), number=len(done) + 1, again=self._again)

    def is_done(self, at: int) -> bool:
        """Whether the statement at that place need not be run: an earlier run did it."""
        return at < self.progress.statements and not is_repeatable(self._statements[at])

    def run(self, at: int, execute: Callable[[], int]) -> int:
        """Run the statement at that place. After an error the journal says that it is still to be run, unless it could
        not be told that any more. Returns the number of rows that it changed."""
        if at < self.progress.statements:  # a setting of the session's
            return execute()
        statement = self._statements[at]
        kind = kind_of(statement)
        if self._db.in_transaction:
            return self._within(at, kind, execute)
        match kind:
            case "rows":
                return self._together(at, execute)[0]
            case "session" | "harmless":  # to be repeated when nothing can be written down behind it
                rows = execute()
                if not self._db.in_transaction:
                    self._save(self._behind(at, rows))
                return rows
            case _:
                return self._noted(at, kind, execute)

    def _together(self, at: int, execute: Callable[[], int], note: Progress | None = None) -> tuple[int, bool]:
        """Run a statement and write it down in one transaction; whether it is, as the statement may have ended that."""
        try:
            with self._db.transaction():
                if note:
                    progress.save(self._db, note)
                rows = execute()
                done = self._behind(at, rows)
                if is_one := self._db.in_transaction:
                    progress.save(self._db, done)
        except CommitLost:
            self.unsettled = True
            raise
        if is_one:
            self.progress = done
        return rows, is_one

    def _noted(self, at: int, kind: Kind, execute: Callable[[], int]) -> int:
        self.unsettled = True
        note, is_written = self._note(at, kind), False
        try:
            if self._db.has_transactional_ddl:  # and some of what changes it cannot run in a transaction
                self._save(note)
                rows = execute()
            else:
                rows, is_written = self._together(at, execute, note)
        except ConnectionLost:
            raise
        except StatementError as error:
            if kind == "program" and self._is_noted():
                raise StatementError(f"{error}; what it had committed before stays", error.offset) from error
            self._take_back(at)
            self.unsettled = False
            if note.fingerprint not in (None, self._db.fingerprint()):
                raise StatementError(f"{error}; a part of it took effect", error.offset) from error
            raise
        if not is_written:
            self._save(self._behind(at, rows))
        self.unsettled = False
        return rows

    def _within(self, at: int, kind: Kind, execute: Callable[[], int]) -> int:
        """Run a statement in a transaction that the script itself began: that is written down as a whole, just before
        it is committed, by itself or by a definition."""
        commits = self._statements[at].keyword in _COMMITS
        commits_itself = not self._db.has_transactional_ddl and kind not in ("rows", "session")
        try:
            if commits:
                progress.save(self._db, self._behind(at, self._rows_within))
            elif commits_itself:
                progress.save(self._db, self._note(at, kind))
            rows = execute()
        except Busy as error:
            raise StatementError(str(error), error.offset) from error  # all of it would have to be tried again
        self._rows_within += rows
        if not self._db.in_transaction:
            done = self._behind(at, 0 if self._statements[at].keyword == "ROLLBACK" else self._rows_within)
            self._rows_within = 0
            if not commits:
                self._save(done)
            self.progress = done
        return rows

    def _note(self, at: int, kind: Kind) -> Progress:
        fingerprint = self._db.fingerprint() if kind == "definition" else None
        return replace(self._before(at), running=_checksum(self._statements[at]), fingerprint=fingerprint)

    def _is_noted(self) -> bool:
        """Whether the note, and what else was open with it, was committed."""
        begun = progress.find(self._db, self._step.filename)
        return begun is not None and begun.running is not None and not self._db.has_transactional_ddl

    def _before(self, at: int) -> Progress:
        # Assertions above it were not written down.
        return replace(self.progress, statements=at, finished=progress.checksum_of(self._statements, at))

    def _behind(self, at: int, rows: int) -> Progress:
        return replace(
            self.progress,
            statements=at + 1,
            finished=progress.checksum_of(self._statements, at + 1),
            rows_changed=self.progress.rows_changed + rows,
            running=None,
            fingerprint=None,
        )

    def _take_back(self, at: int) -> None:
        """Write down that a statement failed, and is still to be run."""
        if at:
            self._save(self._before(at))
            return
        with self._db.transaction():
            progress.forget(self._db, self._step.filename)

    def _save(self, now: Progress) -> None:
        try:
            patiently(partial(self._write, now), self._control)
        except Busy as error:
            raise StatementError(str(error)) from error  # what was run must not be tried again with it
        self.progress = now

    def _write(self, now: Progress) -> None:
        with self._db.transaction():
            progress.save(self._db, now)

    def _settle(self, running: str) -> None:
        """Find out whether the statement that was being run took effect."""
        at = self.progress.statements
        statement = self._statements[at] if at < len(self._statements) else None
        is_shown = self.progress.fingerprint is not None
        if is_shown and self._db.fingerprint() == self.progress.fingerprint:
            self._save(replace(self.progress, running=None, fingerprint=None))
        elif is_shown and statement and _checksum(statement) == running and self._is_whole(statement):
            self._save(self._behind(at, 0))
        else:
            raise StatementUncertain(
                location=locate(self._step.script.source.name, statement, 0) if statement else None,
                name=self._step.filename,
                number=at + 1,
                version=version_of(self._step.filename),
                again=self._again,
            )

    def _is_whole(self, statement: Statement) -> bool:
        """Whether a statement that changed the schema did all that it says."""
        return not any(self._db.columns(table) for table in dropped_tables(statement))

    @property
    def _again(self) -> str:
        return "migrate" if self._step.migration else "rollback"


def _checksum(statement: Statement) -> str:
    return hashlib.sha256((statement.text + statement.data).encode("utf-8", "surrogateescape")).hexdigest()
