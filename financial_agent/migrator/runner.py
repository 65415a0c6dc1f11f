"""Executes plans: reads and parses everything, plans, verifies the plan, and only then touches the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from financial_agent.migrator import (
    adoption,
    attempt,
    backup,
    graph,
    heads,
    history,
    ledger,
    plan,
    progress,
    replay,
    session,
)
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
from financial_agent.migrator.environment import Environment, stamp_first
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import FileChanged, FileRefused
from financial_agent.migrator.errors_run import CommitUnknown
from financial_agent.migrator.events import BackedUp, Done, Started, Warned
from financial_agent.migrator.execution import Execution
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.heads import Head
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Item, Step
from financial_agent.migrator.script import Migration, MigrationFile, read
from financial_agent.migrator.source import checksum
from financial_agent.migrator.survey import survey

log = logging.getLogger("financial_agent.migrator")

_RECORDING = 1.0  # seconds that a failed run waits for a lock before it gives up recording its failure


@dataclass(frozen=True)
class Status:
    """What a database and a folder hold. `exists` is false for a database that the first run will make."""

    database: str
    exists: bool
    items: list[Item]
    environment: str | None
    """The one that the database belongs to."""
    configured: str | None
    """The one that the configuration names."""

    @property
    def pending(self) -> list[Item]:
        return [item for item in self.items if item.state in ("pending", "started")]

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


def status(database: str, directory: Path, environment: str | None = None) -> Status:
    """Every migration's state. Writes nothing, not even the ledger's tables."""
    files, records = session.look(database, directory, session.ASKING)
    items = [replace(item, reversible=_is_reversible(item)) for item in overview(files, records.entries, environment)]
    items = _with_rebuilds(database, progress.overlaid(items, records.begun))
    return Status(display_name(database), exists(database), items, records.stamp, environment)


def overview(files: Sequence[MigrationFile], entries: Sequence[Entry], environment: str | None) -> list[Item]:
    """Every migration of the folder and of the ledger with its state, as the files are now."""
    recorded = {entry.filename for entry in entries}
    checksums = {file.filename: checksum(file.path) for file in files if file.filename in recorded}
    found = graph.build(files, recorded, environment, heads.peek)
    return plan.overview(files, entries, checksums, found.heights(), found.skipped)


def pending(database: str, directory: Path, environment: str | None = None) -> list[MigrationFile]:
    """The files that a run would apply, from their names and heads alone: the cheapest question. Writes nothing."""
    files, records = session.look(database, directory, session.ASKING)
    return [file for file in plan.pending(files, records.entries) if not heads.peek(file).is_excluded(environment)]


def migrate(
    database: str,
    directory: Path,
    *,
    target: str | None = None,
    out_of_order: bool = False,
    environment: Environment | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> Outcome:
    """Apply what is pending, up to a target and what that requires. Each migration and its record are one atomic unit.

    What is pending below an applied migration runs only with `out_of_order`. Without `backups` none is made. Raises the
    errors of `errors`: after one the migrations before the failing one are applied and recorded.
    """
    control, environment = control or Control(), environment or Environment()
    files, records = session.look(database, directory, control, environment)
    entries = records.entries
    once = cache(read)
    steps = plan_up(files, entries, target, out_of_order, environment.name, once)
    warn_of_edited(files, entries, control)
    if not exists(database):  # a refusal leaves no empty database behind
        foresee(database, steps, control.patience())
    done: list[Done] = []
    if steps or records.begun or (environment.change and exists(database)):
        with session.exclusive(database, control, environment) as db:
            git_commit = commit_of(directory)
            adoption.recover(database, db, files, environment.name, control, git_commit)
            entries = ledger.entries(db)  # others may have run while we waited
            steps = plan_up(files, entries, target, out_of_order, environment.name, once)
            refuse_forgotten(db, steps)
            progress.refuse_unfinished(db, steps)
            destroyed = foresee(database, progress.not_begun(db, steps), control.patience())
            back_up(db, database, steps, destroyed, backups, control)
            if steps or environment.change:
                stamp_first(db, environment, git_commit)
            take_over(db, files, entries)
            done = execute(db, steps, control, git_commit)
    return outcome_of(database, files, entries, done, environment.name)


def plan_up(
    files: Sequence[MigrationFile],
    entries: Sequence[Entry],
    target: str | None,
    out_of_order: bool,
    environment: str | None,
    parse: Callable[[MigrationFile], Migration] = read,
) -> list[Step]:
    """The steps of a run. Raises what the plan and the files are refused for."""
    plan.pending(files, entries)
    head_of = cache(heads.peek)
    found = survey(files, [entry.filename for entry in entries], environment, head_of)
    migrations = [parse(file) for file in found.to_run(plan.up_to(files, found.pending, target))]
    for migration in migrations:
        if head_of(migration.file) != Head(migration.requires, migration.environments):
            raise FileChanged(name=migration.file.path)
    plan.refuse_renumbered(migrations, files, entries)
    if not out_of_order:
        plan.refuse_out_of_order(migrations, entries, found.heights())
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
    _prepare(db, steps)
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
        error.state = error.state or _verified_state(db.address)
        raise
    finally:
        db.note_attempt(None)
    return done


def _prepare(db: Database, steps: Sequence[Step]) -> None:
    """Make the ledger's tables beforehand where a definition would end the transaction that a step is recorded in."""
    if steps and not db.has_transactional_ddl:
        ledger.prepare(db)
        progress.prepare(db)


def _run_step(db: Database, execution: Execution, step: Step, control: Control, done: list[Done]) -> None:
    try:
        control.report(Started(step.filename, step.script.direction, step.script.count))
        done.append(execution.run())
    except CommitUnknown as error:
        error.state = _state_behind_commit(db.address, step, execution)
        raise
    except MigratorError as error:
        _record_failure(db.address, execution.failure(error))
        if state := _verified_state(db.address):
            error.state = state + _what_remains(step, execution)
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
        entries = _entries(database)
    except (MigratorError, StatementError):
        return ""
    newest = max((entry.filename for entry in entries), key=plan.version_of, default=None)
    return f"The database is at {newest}" if newest else "The database has no migration applied"


def _entries(database: str) -> list[Entry]:
    with closing(connect(database, readonly=True, patience=session.ASKING.patience())) as db:
        return ledger.entries(db)


def _state_behind_commit(database: str, step: Step, execution: Execution) -> str:
    """Whether the record is there decides whether the whole is."""
    try:
        is_there = step.filename in {entry.filename for entry in _entries(database)}
    except (MigratorError, StatementError):
        return ""
    what = "run" if step.migration else "rollback"
    if is_there == bool(step.migration):
        return f"The {what} of {step.filename} was committed"
    if execution.so_far or execution.is_unsettled:
        return f"The {what} of {step.filename} was not committed{_what_remains(step, execution)}"
    return f"The {what} of {step.filename} left nothing"


def _what_remains(step: Step, execution: Execution) -> str:
    if execution.so_far or execution.is_unsettled:
        done = f", and of {step.filename} {execution.so_far.in_effect}" if execution.so_far else ""
        unsettled = "; the next run finds out whether the statement that was being run took effect"
        return done + (unsettled if execution.is_unsettled else "; the next run goes on behind them")
    if execution.lasting:
        return f", and of {step.filename} {execution.lasting} of {step.script.count} statements took effect"
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
        migration = read(item.file)
    except FileRefused:  # a run will tell, should it ever run
        return None
    if item.state == "pending" and not migration.down and migration.up.only_rebuilds:
        return None  # the tables will tell
    return migration.down is not None


def _with_rebuilds(database: str, items: list[Item]) -> list[Item]:
    """Of what is pending and only rebuilds tables, whether they can be brought back."""
    unknown = {item.filename for item in items if item.state == "pending" and item.reversible is None}
    if not unknown:
        return items
    try:
        steps = [Step(item.filename, read(item.file).up) for item in items if item.file and item.state == "pending"]
    except FileRefused:
        return items
    undoable = replay.undoable(database, steps, session.ASKING.patience())
    return [
        replace(item, reversible=undoable.get(item.filename)) if item.filename in unknown else item for item in items
    ]


def outcome_of(
    database: str,
    files: Sequence[MigrationFile],
    entries: Sequence[Entry],
    done: list[Done],
    environment: str | None,
) -> Outcome:
    undone = {each.filename for each in done if each.direction == "down"}
    names = {entry.filename for entry in entries} | {each.filename for each in done}
    newest = max(names - undone, key=plan.version_of, default=None)
    left = [file for file in files if file.filename not in names - undone]
    left = [file for file in left if not heads.peek(file).is_excluded(environment)]
    return Outcome(display_name(database), done, newest, len(left))
