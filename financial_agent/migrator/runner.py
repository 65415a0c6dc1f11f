"""Executes plans: reads and parses everything, plans, verifies the plan, and only then touches the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from financial_agent.migrator import adoption, attempt, backup, history, ledger, plan, session
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    Effect,
    Patience,
    StatementError,
    connect,
    display_name,
    exists,
)
from financial_agent.migrator.effects import foresee
from financial_agent.migrator.errors import FileRefused, MigratorError
from financial_agent.migrator.events import BackedUp, Done, Started, Warned
from financial_agent.migrator.execution import Execution
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Item, Step
from financial_agent.migrator.script import Migration, MigrationFile, read
from financial_agent.migrator.source import checksum

log = logging.getLogger("financial_agent.migrator")

_RECORDING = 1.0  # seconds that a failed run waits for a lock before it gives up recording its failure


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


def migrate(
    database: str,
    directory: Path,
    *,
    target: str | None = None,
    out_of_order: bool = False,
    backups: Policy | None = None,
    control: Control | None = None,
) -> Outcome:
    """Apply what is pending, up to a target. Each migration and its record are one atomic unit.

    What is pending below an applied migration runs only with `out_of_order`. Without `backups` none is made. Raises the
    errors of `errors`: after one the migrations before the failing one are applied and recorded.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    once = cache(read)
    steps = plan_up(files, entries, target, out_of_order, once)
    warn_of_edited(files, entries, control)
    if not exists(database):  # a refusal leaves no empty database behind
        foresee(None, steps, control.patience())
    done: list[Done] = []
    if steps:
        with session.exclusive(database, control) as db:
            git_commit = commit_of(directory)
            adoption.recover(db, files, control, git_commit)
            entries = ledger.entries(db)  # others may have run while we waited
            steps = plan_up(files, entries, target, out_of_order, once)
            refuse_forgotten(db, steps)
            destroyed = foresee(database, steps, control.patience())
            back_up(db, database, steps, destroyed, backups, control)
            take_over(db, files, entries)
            done = execute(db, steps, control, git_commit)
    return outcome_of(database, files, entries, done)


def plan_up(
    files: Sequence[MigrationFile],
    entries: Sequence[Entry],
    target: str | None,
    out_of_order: bool,
    parse: Callable[[MigrationFile], Migration] = read,
) -> list[Step]:
    """The steps of a run. Raises what the plan and the files are refused for."""
    migrations = [parse(file) for file in plan.up_to(files, plan.pending(files, entries), target)]
    plan.refuse_renumbered(migrations, files, entries)
    if not out_of_order:
        plan.refuse_out_of_order(migrations, entries)
    return [Step(migration.file.filename, migration.up, migration) for migration in migrations]


def refuse_forgotten(db: Database, steps: Sequence[Step]) -> None:
    """Raise EntryMissing when the history has one of the steps as applied."""
    plan.refuse_forgotten([step.migration for step in steps if step.migration], history.applied(ledger.history(db)))


def is_backup_due(db: Database, steps: Sequence[Step], destroyed: Sequence[Effect], backups: Policy) -> bool:
    """Whether the policy asks for a backup before such a run; of a database without tables there is none."""
    return bool(steps and backups.asks(is_destructive=bool(destroyed)) and db.tables())


def back_up(
    db: Database,
    database: str,
    steps: Sequence[Step],
    destroyed: Sequence[Effect],
    backups: Policy | None,
    control: Control,
) -> None:
    """Make the backup that the policy asks for before such a run. Raises BackupFailed and what else `backup.make`
    raises; then nothing was changed."""
    if not (backups and is_backup_due(db, steps, destroyed, backups)):
        return
    made = backup.make(database, backups, "migrate" if steps[0].migration else "rollback", control)
    control.report(BackedUp(str(made.path), made.size))


def execute(
    db: Database,
    steps: Sequence[Step],
    control: Control,
    git_commit: str | None,
    observe: Callable[[Statement], None] | None = None,
) -> list[Done]:
    """Run the steps one after the other. An error carries what was done before it, and the database's state; the
    history tells of it. `observe` is called just before each statement."""
    done: list[Done] = []
    try:
        for step in steps:
            attempt.mark(db, step, git_commit)
            execution = Execution(db, step, control, git_commit, observe)
            _run_step(db, execution, step, control, done)
            if step is not steps[-1]:
                with session.explained(db.name, control, what=f"behind {step.filename}"):
                    db.reset(settings=step.script.leaves_settings)
    except MigratorError as error:
        error.done = done
        error.state = error.state or _verified_state(db.name)
        raise
    finally:
        db.note_attempt(None)
    return done


def _run_step(db: Database, execution: Execution, step: Step, control: Control, done: list[Done]) -> None:
    try:
        control.report(Started(step.filename, step.script.direction, step.script.count))
        done.append(execution.run())
    except MigratorError as error:
        _record_failure(db.name, execution.failure(error))
        if state := _verified_state(db.name):
            error.state = state + _what_remains(step, execution.lasting)
        raise
    control.report(done[-1])


def _record_failure(database: str, failure: ledger.Event) -> None:
    """Tell the history, on a connection of its own, as the run's was perhaps asked to stop. The failure that is told
    of matters more than that it cannot be told, so that is only logged."""
    try:
        with closing(connect(database, patience=Patience(_RECORDING))) as db, db.transaction():
            ledger.prepare(db)
            ledger.append(db, failure)
    except (MigratorError, StatementError) as error:
        log.warning("%s: the failure could not be recorded: %s", failure.filename, error)


def _verified_state(database: str) -> str:
    """Where the database stands after a failure, read anew; empty when that cannot be told."""
    try:
        with closing(connect(database, readonly=True, patience=session.ASKING.patience())) as db:
            entries = ledger.entries(db)
    except (MigratorError, StatementError):
        return ""
    newest = max((entry.filename for entry in entries), key=plan.version_of, default=None)
    return f"The database is at {newest}" if newest else "The database has no migration applied"


def _what_remains(step: Step, lasting: int) -> str:
    if lasting:
        return f", and of {step.filename} {lasting} of {step.script.count} statements took effect"
    what = "run" if step.migration else "rollback"
    return f"; nothing of the failed {what} of {step.filename} remains"


def take_over(db: Database, files: Sequence[MigrationFile], entries: Sequence[Entry]) -> None:
    """Give the rows of an older runner's ledger their checksums."""
    lacking = {entry.filename for entry in entries if entry.checksum is None}
    if lacking:
        with db.transaction():
            ledger.prepare(db)
            ledger.take_over(db, {f.filename: checksum(f.path) for f in files if f.filename in lacking})


def warn_of_edited(files: Sequence[MigrationFile], entries: Sequence[Entry], control: Control) -> None:
    """Report the files whose checksum is no longer the one that was applied."""
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


def outcome_of(database: str, files: Sequence[MigrationFile], entries: Sequence[Entry], done: list[Done]) -> Outcome:
    undone = {each.filename for each in done if each.direction == "down"}
    names = {entry.filename for entry in entries} | {each.filename for each in done}
    newest = max(names - undone, key=plan.version_of, default=None)
    left = {file.filename for file in files} - (names - undone)
    return Outcome(display_name(database), done, newest, len(left))
