"""Proves that each migration can be applied, rolled back and applied again, from nothing, on a scratch database whose
tables hold rows, with the code of the real run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from financial_agent.migrator import proof_findings as findings
from financial_agent.migrator import rollback, runner, sample_rows, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import TableChange, Workspace, compare, connect, workspace
from financial_agent.migrator.errors import MigratorError, RehearsalRefused
from financial_agent.migrator.errors_run import DiskFull, Interrupted
from financial_agent.migrator.events import Checking, Event, Ticked
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.plan import Step
from financial_agent.migrator.rehearsed import Notes, differences_that_count
from financial_agent.migrator.schema import Difference, read
from financial_agent.migrator.script import Migration

_WHEN = "while the migrations were being proven"


def prove(migrations: Sequence[Migration], control: Control, beside: str = "sqlite:") -> list[Finding]:
    """What is wrong with the way there and back of each of the migrations, which begin with no database; on a server,
    in databases beside the one that is there.

    Raises NoSpace, ScratchRefused, DiskFull and Interrupted.
    """
    with (
        session.explained("the scratch database", control, _WHEN),
        workspace(beside, control.patience(), empty=True) as copies,
    ):
        stage = _Stage(copies, control)
        found: list[Finding] = []
        for at, migration in enumerate(migrations):
            control.report(Checking(migration.file.filename, at, len(migrations)))
            try:
                found += stage.prove(migration)
            except _CannotGoOn as end:
                return [*found, end.finding, *findings.unproven(migrations[at + 1 :])]
        return found


class _CannotGoOn(Exception):
    """What comes behind a migration cannot be proven without it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class _Failed(Exception):
    """A script did not run on a copy."""

    def __init__(self, error: MigratorError) -> None:
        super().__init__(error.message)
        self.error = error


class _Stage:
    """Where one migration after the other is performed. The database at `_work` is the one that they make, with rows;
    the one at `_bare` has none but those that migrations write, and lags behind until it is needed."""

    def __init__(self, copies: Workspace, control: Control) -> None:
        self._copies = copies
        self._control = replace(control, report=_only_ticks(control), pauses=False, asserts=False)
        self._patience = control.patience()
        self._work = copies.original(lambda done, total: None)
        self._bare = copies.clone(self._work)
        self._behind: list[Migration] = []
        """What the bare database lacks."""
        self._filled: dict[str, str] = {}
        """The tables that were given rows, or could not be, with their definition at that time."""

    def prove(self, migration: Migration) -> Iterator[Finding]:
        """Apply a migration, roll it back, and apply it again. Leaves the database as the migration makes it, with rows
        in all tables. Raises _CannotGoOn."""
        before = self._copies.clone(self._work)
        try:
            written = self._run(_up(migration), self._work)
        except _Failed as failed:
            before, written, finding = self._without_rows(migration, failed.error)
            yield finding
        self._behind.append(migration)
        first = self._copies.clone(self._work)
        can_go_back = False
        if not migration.down and migration.up.only_rebuilds:
            with closing(connect(self._work, patience=self._patience)) as db:
                migration = replace(migration, down=rollback.made_down(db, migration.file.filename))
        if migration.down:
            can_go_back = yield from self._there_and_back(migration, before, first, written)
        else:
            yield findings.irreversible(migration)
        self._copies.remove(first)
        self._copies.remove(before)
        yield from self._fill(migration)
        if can_go_back:
            yield from self._back_with_rows(migration)

    def _without_rows(self, migration: Migration, error: MigratorError) -> tuple[str, set[str] | None, Finding]:
        """Go on without the rows that a migration failed on. Returns the database as it was before."""
        self._copies.remove(self._work)
        self._work, self._bare = self._bare, ""
        try:
            for each in self._behind:
                self._run(_up(each), self._work)
            before = self._copies.clone(self._work)
            written = self._run(_up(migration), self._work)
        except _Failed as failed:
            raise _CannotGoOn(findings.not_applied(migration, failed.error)) from None
        self._bare, self._behind, self._filled = self._copies.clone(before), [], {}
        return before, written, findings.not_applied_to_rows(migration, error)

    def _there_and_back(
        self, migration: Migration, before: str, first: str, written: set[str] | None
    ) -> Generator[Finding, None, bool]:
        """Leaves the database as it was after the migration. Returns whether the down section runs."""
        try:
            undone = self._run(_down(migration), self._work)
        except _Failed as failed:
            yield findings.not_rolled_back(migration, failed.error)
            self._begin_anew(first)
            return False
        touched = None if written is None or undone is None else written | undone
        if differences := self._differences(before):
            yield findings.schema_not_restored(migration, differences)
            self._begin_anew(first)
            return True
        there, back = self._compare(before, first, touched), self._compare(before, self._work, touched)
        yield from findings.rows_not_restored(migration, there, self._without_stamps(before, back))
        try:
            self._run(_up(migration), self._work)
        except _Failed as failed:
            yield findings.not_applied_again(migration, failed.error)
            self._begin_anew(first)
            return True
        if differences := self._differences(first):
            yield findings.applied_differently(migration, differences)
        again = self._compare(first, self._work, touched)
        # What the way back did not restore differs because of that.
        yield from findings.rows_applied_differently(migration, {name: again[name] for name in again.keys() - back})
        return True

    def _back_with_rows(self, migration: Migration) -> Iterator[Finding]:
        """The way back once there are rows in what the migration made."""
        copy = self._copies.clone(self._work)
        try:
            self._run(_down(migration), copy)
        except _Failed as failed:
            yield findings.not_rolled_back_with_rows(migration, failed.error)
        self._copies.remove(copy)

    def _begin_anew(self, state: str) -> None:
        """Go on with another state of the database."""
        self._copies.remove(self._work)
        self._work = self._copies.clone(state)

    def _run(self, step: Step, database: str) -> set[str] | None:
        """Run a script. Returns the tables that it may have written to, in lower case; None for all. Raises _Failed."""
        notes = Notes(step)
        try:
            with closing(connect(database, patience=self._patience)) as db:
                db.forgo_durability()
                runner.execute(db, [step], self._control, None, notes.of(db))
        except RehearsalRefused as error:
            raise _CannotGoOn(findings.unprovable(step, error)) from None
        except (Interrupted, DiskFull):
            raise
        except MigratorError as error:
            raise _Failed(error) from error
        return notes.written

    def _fill(self, migration: Migration) -> Iterator[Finding]:
        """Add rows to the tables that are new, or have become others."""
        with closing(connect(self._work, patience=self._patience)) as db:
            db.forgo_durability()
            definitions = db.fillable()
            changed = {name for name, sql in definitions.items() if self._filled.get(name) != sql}
            empty = sample_rows.fill(db, changed) if changed else []
        self._filled = definitions
        if empty:
            yield findings.not_filled(migration, empty)

    def _differences(self, before: str) -> list[Difference]:
        """How the schema differs from the one of another state."""
        with (
            closing(connect(before, readonly=True, patience=self._patience)) as old,
            closing(connect(self._work, readonly=True, patience=self._patience)) as new,
        ):
            if old.fingerprint() == new.fingerprint():  # which takes a fraction of the time
                return []
            return differences_that_count(read(old), read(new))

    def _compare(self, before: str, after: str, tables: Collection[str] | None) -> dict[str, TableChange]:
        if tables is not None and not tables:
            return {}
        return {change.table.lower(): change for change in compare(before, after, tables, self._patience)}

    def _without_stamps(self, before: str, changes: dict[str, TableChange]) -> dict[str, TableChange]:
        """Without the columns that a trigger filled with the time of day: the clock does not go back."""
        if not changes:
            return changes
        with closing(connect(before, readonly=True, patience=self._patience)) as db:
            return {
                table: change._replace(
                    values=tuple(each for each in change.values if not db.is_recent(change.table, each[0]))
                )
                for table, change in changes.items()
            }


def _up(migration: Migration) -> Step:
    return Step(migration.file.filename, migration.up, migration)


def _down(migration: Migration) -> Step:
    assert migration.down
    return Step(migration.file.filename, migration.down)


def _only_ticks(control: Control) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, Ticked):
            control.report(event)

    return report
