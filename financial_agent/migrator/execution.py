"""Runs one step: its statements, its record, the checks between them, and the explanation when it fails."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from financial_agent.migrator import ledger, progress, python_run, rebuild
from financial_agent.migrator.assertions import is_assertion, objection
from financial_agent.migrator.backfill import Backfill, accept_first
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Busy,
    CommitLost,
    ConnectionLost,
    Database,
    Orphan,
    OrphansLeft,
    OutOfSpace,
    StatementError,
    Stopped,
)
from financial_agent.migrator.databases.rebuild import Rebuild
from financial_agent.migrator.errors import (
    CascadeRefused,
    CascadeTakesAlong,
    LedgerUnusable,
    LockHeld,
    MigratorError,
)
from financial_agent.migrator.errors_files import FileChanged
from financial_agent.migrator.errors_run import (
    AssertionFailed,
    BatchFailed,
    CommitUnknown,
    DiskFull,
    ForeignKeysViolated,
    Interrupted,
    MigrationFailed,
    MigrationFailedHalfway,
    ServerLost,
    TransactionEnded,
)
from financial_agent.migrator.events import Done, Warned, Working
from financial_agent.migrator.guard import EndedTransaction, in_transaction
from financial_agent.migrator.journal import Journal
from financial_agent.migrator.ledger import Progress
from financial_agent.migrator.lexer import Statement, locate, place, tokens
from financial_agent.migrator.plan import Step, version_of
from financial_agent.migrator.retry import patiently

log = logging.getLogger("financial_agent.migrator")

_REPORT_EVERY = 0.1  # seconds between two Working events


class Execution:
    """The run of one step on one database. It knows at each moment which statement is being run."""

    def __init__(
        self,
        db: Database,
        step: Step,
        control: Control,
        git_commit: str | None = None,
        observe: Callable[[Statement], None] | None = None,
    ) -> None:
        self._db = db
        self._step = step
        self._script = step.script
        self._control = control
        self._git_commit = git_commit
        self._observe = observe
        self._started_at = ledger.now()
        self._clock = time.perf_counter()
        self._statement: Statement | None = None
        self._begun = 0  # statements begun
        self._open = 0  # statements begun in a transaction of the script's own
        self._settled = 0  # statements whose effect stays whatever follows
        self._rows = 0
        self._reverses: list[Rebuild | None] = []
        self._blocked = 0.0  # seconds that other writers were kept waiting at a stretch
        self._reported = time.monotonic()
        self._backfill: Backfill | None = None
        self._journal: Journal | None = None

    def run(self) -> Done:
        """Run the script and record it. After an error neither its changes nor its record remain, except for what
        a script without a transaction had already done. Raises the FA3xx errors and CascadeRefused."""
        try:
            if self._script.in_batches:
                done = self._in_batches()
            elif self.is_atomic:
                done = patiently(self._atomically, self._control)
            elif self._db.resumes:
                done = self._journalled()
            else:
                self._without_transaction()
                # The record is written as safely as any, whatever the script has set (synchronous, journal_mode).
                self._db.reset(settings=True)
                done = self._recorded()
        except (StatementError, OrphansLeft, Stopped, FileChanged, EndedTransaction) as error:
            raise self._explained(error) from error
        log.info("%s %s: %d statements, %d ms", done.direction, done.filename, done.statements, done.duration_ms)
        return replace(done, blocked_ms=round(self._blocked * 1000))

    def _atomically(self) -> Done:
        self._begun, self._rows, self._reverses = 0, 0, []
        with self._db.transaction(foreign_keys=self._script.foreign_keys) as orphans:
            begun = time.perf_counter()
            self._warn_of(orphans)
            self.statements()
            self._statement = None
            self._db.settle()
            done = self._record()
        self._blocked = time.perf_counter() - begun
        return done

    @property
    def is_atomic(self) -> bool:
        """Whether the script and its record are one transaction."""
        undoes_all = self._db.has_transactional_ddl or self._script.only_rows
        return self._script.transaction and undoes_all

    @property
    def so_far(self) -> Progress | None:
        """What the finished batches or statements of a script did, which stays, and behind which the next run goes
        on."""
        begun = self._backfill.progress if self._backfill else self._journal.progress if self._journal else None
        return begun if begun and (begun.batches or (self._journal and begun.statements)) else None

    @property
    def is_unsettled(self) -> bool:
        """Whether the statement that was run last took effect could not be written down."""
        return bool(self._journal and self._journal.unsettled)

    @property
    def lasting(self) -> int:
        """How many statements are in effect although the script failed: none of one that ran in a transaction."""
        return 0 if self.is_atomic else self._settled

    def statements(self) -> None:
        """Run the statements in the transaction that is open."""
        for statement in self._script.statements():
            self._begin(statement)
            if is_assertion(statement):
                self._assert(statement)
                continue
            self._rows += in_transaction(self._db, partial(self._effect, statement))
        self._check_count()

    def _effect(self, statement: Statement) -> int:
        if not (statement.directives or self._script.is_python):  # a file may hold millions of these
            return self._db.execute(statement.text, (statement.data,) if statement.data else ())
        then = what_then(self._step)
        if self._script.is_python:
            return python_run.run(self._db, self._script, self._step.filename, then, self._control.stop)
        ran = rebuild.execute(self._db, self._step, statement, then)
        self._reverses.append(ran.reverse)
        return ran.rows

    def _in_batches(self) -> Done:
        # At once, as the file may be edited during the hours that they take.
        statements = list(self._script.statements())
        backfill = self._backfill = Backfill(self._db, self._step, statements, self._control)
        for at, statement in enumerate(statements):
            if at < backfill.progress.statements:  # an earlier run did it
                self._begun += 1
                continue
            self._begin(statement)
            if is_assertion(statement):
                self._assert(statement)
            else:
                backfill.run(statement, at)
        self._check_count()
        self._blocked = backfill.longest
        return patiently(self._recorded, self._control)

    def _journalled(self) -> Done:
        statements = list(self._script.statements())
        journal = self._journal = Journal(self._db, self._step, statements, self._control)
        with self._ending_its_own():
            for at, statement in enumerate(statements):
                if journal.is_done(at):
                    self._begun += 1
                    continue
                self._begin(statement)
                if is_assertion(statement):
                    self._assert(statement)
                    continue
                begun = time.perf_counter()
                patiently(partial(journal.run, at, partial(self._effect, statement)), self._control)
                self._blocked = max(self._blocked, time.perf_counter() - begun)
            self._check_count()
        # Its record is written with the engine's own settings, whatever the script has set.
        self._db.reset(settings=True)
        return patiently(self._recorded, self._control)

    def _without_transaction(self) -> None:
        if not self._script.foreign_keys:
            self._db.enforce_foreign_keys(False)
        before = Counter[Orphan]() if self._script.foreign_keys else self._db.orphans()
        with self._ending_its_own():
            for statement in self._script.statements():
                if not self._db.in_transaction:
                    begun = time.perf_counter()
                self._begin(statement)
                if is_assertion(statement):
                    self._assert(statement)
                    continue
                if statement.keyword in ("COMMIT", "END"):
                    self._check_orphans(before)
                self._rows += self._db.execute(statement.text)
                self._open += 1
                self._blocked = max(self._blocked, time.perf_counter() - begun)
                if not self._db.in_transaction:
                    self._settled += 0 if statement.keyword == "ROLLBACK" else self._open
                    self._open = 0
            self._check_count()
            if not self._db.in_transaction:
                self._check_orphans(before)

    @contextmanager
    def _ending_its_own(self) -> Iterator[None]:
        """Leave no transaction open that the script itself began: whoever leaves one to the end has forgotten it."""
        try:
            yield
            if self._db.in_transaction:
                raise StatementError("the section ends inside a transaction that it began")
        finally:
            if self._db.in_transaction:
                with suppress(StatementError):  # closing the connection does the same, and must not hide the failure
                    self._db.execute("ROLLBACK")

    def _begin(self, statement: Statement) -> None:
        self._statement = statement
        self._begun += 1
        if log.isEnabledFor(logging.DEBUG):  # the place and never the text, which may hold data
            log.debug("%s:%d:%d %s", self._script.source.name, statement.line, statement.column, statement.keyword)
        if self._control.stop() is not None:
            raise Stopped
        now = time.monotonic()
        if now - self._reported > _REPORT_EVERY:
            self._reported = now
            self._control.report(Working(self._step.filename, self._begun - 1))
        refuse_cascade(self._db, self._step, statement)
        if self._observe:
            self._observe(statement)

    def _assert(self, query: Statement) -> None:
        found = objection(query, self._db.answer(query.text))  # an error of the query counts in any case
        if found and self._control.asserts:
            where = place(self._script.source.name, query.directives[0])
            then = accept_first(self._step) if self.so_far else what_then(self._step)
            raise AssertionFailed(location=where, name=self._step.filename, found=found, then=then)

    def _check_count(self) -> None:
        if self._begun != self._script.count:
            raise FileChanged(name=self._script.source.name)

    def _check_orphans(self, before: Counter[Orphan]) -> None:
        if not self._script.foreign_keys and (new := self._db.orphans() - before):
            raise OrphansLeft(new)

    def _warn_of(self, orphans: Counter[Orphan]) -> None:
        if orphans:
            message = f"rows without their parent were there before and stay as they are: {summary(orphans)}"
            self._control.report(Warned(self._step.filename, message))

    def _recorded(self) -> Done:
        with self._db.transaction():
            return self._record()

    def _record(self) -> Done:
        try:
            return self._write_record()
        except StatementError as error:
            if not error.constraint:
                raise
            look = self._db.look_hint("_migrations")
            raise LedgerUnusable(table="_migrations", why=str(error), look=look) from error

    def _write_record(self) -> Done:
        ledger.prepare(self._db)
        progress.forget(self._db, self._step.filename)
        migration = self._step.migration
        fingerprint = self._db.fingerprint()
        duration_ms = self._duration_ms()
        if migration:
            record = ledger.record_of(migration, duration_ms=duration_ms, schema_fingerprint=fingerprint)
            if not migration.down and self._script.only_rebuilds:
                record = replace(record, down_text=rebuild.down_text(self._reverses))
            ledger.add(self._db, record)
        else:
            ledger.remove(self._db, self._step.filename)
        event = self._event("apply" if migration else "rollback", duration_ms)
        ledger.append(self._db, event)
        batches = self.so_far.batches if self.so_far else 0
        rows = event.rows_changed or 0
        return Done(self._step.filename, self._script.direction, duration_ms, self._begun, rows, 0, batches)

    def failure(self, error: MigratorError) -> ledger.Event:
        """What the history tells of a run that failed."""
        place = f" ({Path(error.location.path).name}:{error.location.line})" if error.location else ""
        event = self._event("failure", self._duration_ms())
        return replace(event, error=f"{error.code} {error.message}{place}", exit_code=error.exit_code)

    def _event(self, event: str, duration_ms: int) -> ledger.Event:
        return ledger.Event(
            event=event,
            filename=self._step.filename,
            started_at=self._started_at,
            duration_ms=duration_ms,
            statements=self._begun,
            rows_changed=self.so_far.rows_changed if self.so_far else self._rows,
            checksum=self._step.migration.checksum if self._step.migration else None,
            git_commit=self._git_commit,
        )

    def _duration_ms(self) -> int:
        return round((time.perf_counter() - self._clock) * 1000)

    def _explained(self, error: Exception) -> MigratorError:
        """The same failure in the words of the person who wrote the file."""
        name = self._step.filename
        then = what_then(self._step)
        offset = error.offset or 0 if isinstance(error, StatementError) else 0
        source = self._script.source.name
        location = locate(source, self._statement, offset) if self._statement else None
        halfway = self.lasting > 0
        again = "migrate" if self._step.migration else "rollback"
        match error:
            case Stopped():
                signal = self._control.stop() or 2
                return Interrupted(location=location, signal=signal, what=f"while {name} was running")
            case CommitLost():
                return CommitUnknown(name=name, again=again)
            case ConnectionLost():
                return ServerLost(location=location, name=name, cause=error, again=again)
            case Busy():
                return LockHeld(location=location, name=name, cause=error, then=then)
            case _ if self.so_far:
                cause = summary(error.orphans) if isinstance(error, OrphansLeft) else error
                fix = f"The next run goes on: flask db {again}"
                if isinstance(error, OutOfSpace):
                    fix = f"Free some space: {self._db.space_hint}\n{fix}"
                if self._journal:
                    fix = f"Correct this statement and leave those above it as they are\n{fix}{self._or_else(error)}"
                else:
                    fix = f"{fix}\nIf its SQL must change: {accept_first(self._step)}"
                return BatchFailed(
                    location=location, name=name, how=f"failed: {cause}", cause=cause, so_far=self.so_far, fix=fix
                )
            case OutOfSpace() if not halfway:
                return DiskFull(location=location, name=name, cause=error, look=self._db.space_hint)
            case EndedTransaction():
                return TransactionEnded(location=location, name=name, cause=error, then=then)
            case OrphansLeft() if not halfway:
                return ForeignKeysViolated(name=name, summary=summary(error.orphans), then=then)
            case FileChanged() if not halfway:
                return error
            case _ if halfway:
                cause = summary(error.orphans) if isinstance(error, OrphansLeft) else error
                return MigrationFailedHalfway(
                    location=location,
                    name=name,
                    cause=cause,
                    done=self.lasting,
                    total=self._script.count,
                    then=then,
                )
            case _:
                return MigrationFailed(location=location, name=name, cause=error, then=then + self._or_else(error))

    def _or_else(self, error: Exception) -> str:
        """What may be wrong with SQL that runs on every engine, beside itself."""
        file = self._step.migration.file if self._step.migration else None
        if not (file and file.own_name and isinstance(error, StatementError)) or error.constraint:
            return ""
        return f"\nIf it is right on another engine, leave it, and write this one's own beside it: {file.own_name}"


def what_then(step: Step) -> str:
    """What is to be done once a script is corrected. An applied migration's file runs again only when accepted."""
    if step.migration:
        return "then: flask db migrate"
    back = "" if step.has_file else "put the file back into the folder, "
    return f"{back}accept it (flask db repair {version_of(step.filename)} --reason …), then: flask db rollback"


def refuse_cascade(db: Database, step: Step, statement: Statement) -> None:
    """Raise CascadeRefused when a DROP would delete or change rows of other tables through foreign keys, or a DROP or
    TRUNCATE that says CASCADE would take others along.

    While the connection does not enforce foreign keys, there is nothing to find.
    """
    if statement.keyword not in ("DROP", "TRUNCATE") or "cascade" in step.script.allow:
        return
    table, children = db.cascades(statement.text)
    if children:
        location = locate(step.script.source.name, statement, 0)
        then = what_then(step)
        then = then[0].upper() + then[1:]
        is_said = "CASCADE" in map(str.upper, tokens(statement.text, statement.dialect))
        refusal = CascadeTakesAlong if is_said else CascadeRefused
        raise refusal(location=location, table=table, children=", ".join(children), then=then)


def summary(orphans: Counter[Orphan]) -> str:
    """Rows without their parent, counted by table; empty for none."""
    counts: Counter[tuple[str, str]] = Counter()
    for orphan, count in orphans.items():
        counts[orphan.table, orphan.parent] += count
    return ", ".join(
        f"{count} {'row' if count == 1 else 'rows'} of {table} without {parent}"
        for (table, parent), count in sorted(counts.items())
    )
