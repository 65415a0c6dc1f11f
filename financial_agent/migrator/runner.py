"""Executes plans: reads and parses everything, plans, verifies the plan, and only then touches the database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from financial_agent.migrator import ledger, plan, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    StatementError,
    connect,
    display_name,
    exists,
)
from financial_agent.migrator.errors import FileRefused, MigratorError
from financial_agent.migrator.events import Done, Started, Warned
from financial_agent.migrator.execution import Execution, refuse_cascades
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.plan import Item, Step
from financial_agent.migrator.script import Migration, MigrationFile, read
from financial_agent.migrator.source import checksum


@dataclass(frozen=True)
class Status:
    """What a database and a folder hold. `exists` is false for a database that the first run will make."""

    database: str
    exists: bool
    items: list[Item]

    @property
    def pending(self) -> list[Item]:
        return [item for item in self.items if item.state == "pending"]

    @property
    def current(self) -> str | None:
        """The newest applied migration."""
        recorded = [item.filename for item in self.items if item.entry]
        return recorded[-1] if recorded else None


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    database: str
    done: list[Done]
    current: str | None
    """The newest applied migration."""
    pending: int
    """How many are left, when a target stopped the run before the end."""


def status(database: str, directory: Path) -> Status:
    """Every migration's state. Writes nothing, not even the ledger's tables."""
    files, entries = session.look(database, directory, session.ASKING)
    by_name = {entry.filename: entry for entry in entries}
    recorded = [file for file in files if file.filename in by_name]
    checksums = {file.filename: checksum(file.path) for file in recorded}
    items = [replace(item, reversible=_is_reversible(item)) for item in plan.overview(files, entries, checksums)]
    return Status(display_name(database), exists(database), items)


def pending(database: str, directory: Path) -> list[MigrationFile]:
    """The files that a run would apply, from their names alone: the cheapest question. Writes nothing."""
    return plan.pending(*session.look(database, directory, session.ASKING))


def migrate(database: str, directory: Path, *, target: str | None = None, control: Control | None = None) -> Outcome:
    """Apply what is pending, up to a target. Each migration and its record are one atomic unit.

    Raises the errors of `errors`: after one the migrations before the failing one are applied and recorded.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    todo = plan.up_to(files, plan.pending(files, entries), target)
    _warn_of_edited(files, entries, control)
    parsed = {file.filename: read(file) for file in todo}
    plan.refuse_renumbered(list(parsed.values()), files, entries)
    if not exists(database):  # a refusal leaves no empty database behind
        refuse_cascades(None, [_up_step(migration) for migration in parsed.values()], control.patience())
    done: list[Done] = []
    if todo:
        with session.exclusive(database, control) as db:
            entries = ledger.entries(db)  # others may have run while we waited
            todo = plan.up_to(files, plan.pending(files, entries), target)
            steps = [_up_step(parsed.get(file.filename) or read(file)) for file in todo]
            refuse_cascades(database, steps, control.patience())
            take_over(db, files, entries)
            done = execute(db, steps, control)
    return outcome_of(database, files, entries, done)


def execute(db: Database, steps: Sequence[Step], control: Control) -> list[Done]:
    """Run the steps one after the other. An error carries what was done before it, and the database's state."""
    done: list[Done] = []
    for step in steps:
        execution = Execution(db, step, control)
        try:
            control.report(Started(step.filename, step.script.direction, step.script.count))
            done.append(execution.run())
            control.report(done[-1])
            if step is not steps[-1]:
                with session.explained(db.name, control, what=f"behind {step.filename}"):
                    db.reset(settings=step.script.leaves_settings)
        except MigratorError as error:
            error.done = done
            error.state = _verified_state(db.name, step, execution.lasting, is_recorded=len(done) > steps.index(step))
            raise
    return done


def _verified_state(database: str, step: Step, lasting: int, is_recorded: bool) -> str:
    """Where the database stands, read anew; empty when that cannot be told."""
    try:
        with closing(connect(database, readonly=True, patience=session.ASKING.patience())) as db:
            entries = ledger.entries(db)
    except (MigratorError, StatementError):
        return ""
    newest = max((entry.filename for entry in entries), key=plan.version_of, default=None)
    state = f"The database is at {newest}" if newest else "The database has no migration applied"
    if is_recorded:
        return state
    if lasting:
        return f"{state}, and of {step.filename} {lasting} of {step.script.count} statements took effect"
    what = "run" if step.migration else "rollback"
    return f"{state}; nothing of the failed {what} of {step.filename} remains"


def take_over(db: Database, files: Sequence[MigrationFile], entries: Sequence[Entry]) -> None:
    """Give the rows of an older runner's ledger their checksums."""
    lacking = {entry.filename for entry in entries if entry.checksum is None}
    if lacking:
        with db.transaction():
            ledger.prepare(db)
            ledger.add_checksums(db, {f.filename: checksum(f.path) for f in files if f.filename in lacking})


def _warn_of_edited(files: Sequence[MigrationFile], entries: Sequence[Entry], control: Control) -> None:
    recorded = {entry.filename: entry.checksum for entry in entries}
    for file in files:
        if (applied := recorded.get(file.filename)) and checksum(file.path) != applied:
            message = "the file was edited after it was applied; what it says now has not run"
            control.report(Warned(file.filename, message))


def _is_reversible(item: Item) -> bool | None:
    if item.entry and item.entry.keeps_down:
        return True
    if item.file is None or item.state not in ("pending", "applied"):  # the file is not what was applied
        return False
    try:
        return read(item.file).down is not None
    except FileRefused:  # a run will tell, should it ever run
        return None


def _up_step(migration: Migration) -> Step:
    return Step(migration.file.filename, migration.up, migration)


def outcome_of(database: str, files: Sequence[MigrationFile], entries: Sequence[Entry], done: list[Done]) -> Outcome:
    undone = {each.filename for each in done if each.direction == "down"}
    names = {entry.filename for entry in entries} | {each.filename for each in done}
    newest = max(names - undone, key=plan.version_of, default=None)
    left = {file.filename for file in files} - (names - undone)
    return Outcome(display_name(database), done, newest, len(left))
