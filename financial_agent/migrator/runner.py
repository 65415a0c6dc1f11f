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
from financial_agent.migrator.errors import (
    Irreversible,
    MigratorError,
    PlanChanged,
    StoredScriptInvalid,
)
from financial_agent.migrator.events import Done, Started, Warned
from financial_agent.migrator.execution import Execution, refuse_cascades
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.plan import Item, Step
from financial_agent.migrator.script import Migration, MigrationFile, Script, parse_stored, read
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


@dataclass(frozen=True)
class Losses:
    """What a rollback takes away: rows by table, and values by `table.column`."""

    filenames: list[str]
    rows: dict[str, int]
    values: dict[str, int]
    complete: bool = True
    """False when a script that runs outside a transaction could not be tried."""


def status(database: str, directory: Path) -> Status:
    """Every migration's state. Writes nothing, not even the ledger's tables."""
    files, entries = session.look(database, directory, session.ASKING)
    by_name = {entry.filename: entry for entry in entries}
    recorded = [file for file in files if file.filename in by_name]
    plan.pending(files, entries)
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
    if not exists(database):  # a refusal leaves no empty database behind
        refuse_cascades(None, [_up_step(migration) for migration in parsed.values()], control.patience())
    done: list[Done] = []
    if todo:
        with session.exclusive(database, control) as db:
            entries = ledger.entries(db)  # others may have run while we waited
            todo = plan.up_to(files, plan.pending(files, entries), target)
            steps = [_up_step(parsed.get(file.filename) or read(file)) for file in todo]
            refuse_cascades(database, steps, control.patience())
            _take_over(db, files, entries)
            done = _execute(db, steps, control)
    return _outcome(database, files, entries, done)


def rollback(
    database: str,
    directory: Path,
    *,
    steps: int = 1,
    to: str | None = None,
    expected: Sequence[str] | None = None,
    control: Control | None = None,
) -> Outcome:
    """Undo the migrations applied last: `steps` of them, or all that are newer than `to`.

    With `expected`, the filenames that a person has agreed to, raises PlanChanged when it would be others by now.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    done: list[Done] = []
    if plan.to_roll_back(entries, steps=steps, to=to):
        with session.exclusive(database, control) as db:
            entries = ledger.entries(db)
            todo = _down_steps(db, files, plan.to_roll_back(entries, steps=steps, to=to))
            if expected is not None and list(expected) != [step.filename for step in todo]:
                raise PlanChanged(expected=", ".join(expected))
            refuse_cascades(database, todo, control.patience())
            _take_over(db, files, entries)
            done = _execute(db, todo, control)
    return _outcome(database, files, entries, done)


def preview_rollback(
    database: str, directory: Path, *, steps: int = 1, to: str | None = None, control: Control | None = None
) -> Losses:
    """What a rollback would take away: it is run in a transaction that is then undone.

    Raises Irreversible and whatever the rollback itself would raise.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    if not plan.to_roll_back(entries, steps=steps, to=to):
        return Losses([], {}, {})
    with session.exclusive(database, control) as db:
        todo = _down_steps(db, files, plan.to_roll_back(ledger.entries(db), steps=steps, to=to))
        refuse_cascades(database, todo, control.patience())
        return _try_out(db, todo, control)


def _execute(db: Database, steps: Sequence[Step], control: Control) -> list[Done]:
    done: list[Done] = []
    for step in steps:
        execution = Execution(db, step, control)
        try:
            control.report(Started(step.filename, step.script.direction, step.script.count))
            done.append(execution.run())
            control.report(done[-1])
            if step is not steps[-1]:
                db.reset(settings=step.script.leaves_settings or not step.script.transaction)
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


def _take_over(db: Database, files: Sequence[MigrationFile], entries: Sequence[Entry]) -> None:
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


def _is_reversible(item: Item) -> bool:
    if item.entry and item.entry.keeps_down:
        return True
    # The file counts while it is pending, or still is what was applied.
    return item.file is not None and item.state in ("pending", "applied") and read(item.file).down is not None


def _up_step(migration: Migration) -> Step:
    return Step(migration.file.filename, migration.up, migration)


def _down_steps(db: Database, files: Sequence[MigrationFile], entries: Sequence[Entry]) -> list[Step]:
    """The down script of each entry: the file's while that is the one that was applied, else the ledger's copy.

    Raises Irreversible for all that have neither.
    """
    by_name = {file.filename: file for file in files}
    scripts = {entry.filename: _down_script(db, by_name.get(entry.filename), entry) for entry in entries}
    without = [name for name, script in scripts.items() if script is None]
    if without:
        gone = [name for name in without if name not in by_name]
        why = "its file is gone and the ledger keeps no copy" if gone else "there is no down section"
        fix = "Undo it with a new migration: flask db new undo_" + without[0].partition("_")[2].removesuffix(".sql")
        raise Irreversible(names=", ".join(without), why=why, fix=fix)
    return [Step(name, script, has_file=name in by_name) for name, script in scripts.items() if script]


def _down_script(db: Database, file: MigrationFile | None, entry: Entry) -> Script | None:
    if file and entry.checksum in (None, checksum(file.path)):
        return read(file).down
    try:
        text = ledger.down_text(db, entry.filename)
    except ValueError as error:
        raise StoredScriptInvalid(name=entry.filename, cause=error) from error
    if text is None:
        return None
    try:
        return parse_stored(text, f"{entry.filename} (as the ledger keeps it)", "down")
    except MigratorError as error:
        raise StoredScriptInvalid(name=entry.filename, cause=error.message, location=error.location) from error


class _Undo(Exception):
    """Leaves a transaction so that it is rolled back."""


def _try_out(db: Database, steps: Sequence[Step], control: Control) -> Losses:
    names = [step.filename for step in steps]
    if not all(step.script.transaction for step in steps):
        return Losses(names, {}, {}, complete=False)
    before, left, left_rows = db.tables(), dict[str, list[str]](), dict[str, int]()
    try:
        with db.transaction(foreign_keys=all(step.script.foreign_keys for step in steps)):
            changed = sum(Execution(db, step, control).try_out() for step in steps)
            left = db.tables()
            if changed:
                left_rows = {table: db.count(table) for table in before.keys() & left.keys()}
            raise _Undo
    except _Undo:
        pass
    gone = {table: db.count(table) for table in before.keys() - left.keys()}
    fewer = {table: db.count(table) - rows for table, rows in left_rows.items()}
    values = {
        f"{table}.{column}": db.count(table, column)
        for table in before.keys() & left.keys()
        for column in before[table]
        if column not in left[table]
    }
    return Losses(names, _positive(gone | fewer), _positive(values))


def _positive(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count > 0}


def _outcome(database: str, files: Sequence[MigrationFile], entries: Sequence[Entry], done: list[Done]) -> Outcome:
    undone = {each.filename for each in done if each.direction == "down"}
    names = {entry.filename for entry in entries} | {each.filename for each in done}
    newest = max(names - undone, key=plan.version_of, default=None)
    left = {file.filename for file in files} - (names - undone)
    return Outcome(display_name(database), done, newest, len(left))
