"""Undoes migrations: which script, what it would take away, and the run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from financial_agent.migrator import ledger, plan, runner, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database
from financial_agent.migrator.errors import (
    Irreversible,
    MigrationFailed,
    MigratorError,
    PlanChanged,
    StoredScriptInvalid,
)
from financial_agent.migrator.events import Done
from financial_agent.migrator.execution import Execution, refuse_cascades
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.plan import Step
from financial_agent.migrator.script import MigrationFile, Script, parse_stored, read
from financial_agent.migrator.source import checksum


@dataclass(frozen=True)
class Losses:
    """What a rollback takes away: rows by table, and values by `table.column`."""

    filenames: list[str]
    rows: dict[str, int]
    values: dict[str, int]
    complete: bool = True
    """False when the scripts could not be tried: they run outside a transaction, or differ in their foreign keys."""


def rollback(
    database: str,
    directory: Path,
    *,
    steps: int = 1,
    to: str | None = None,
    expected: Sequence[str] | None = None,
    control: Control | None = None,
) -> runner.Outcome:
    """Undo the migrations applied last: `steps` of them, or all that are newer than `to`.

    With `expected`, the filenames that a person has agreed to, raises PlanChanged when it would be others by now.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    done: list[Done] = []
    if plan.to_roll_back(entries, steps=steps, to=to, files=files):
        with session.exclusive(database, control) as db:
            entries = ledger.entries(db)
            todo = _down_steps(db, files, plan.to_roll_back(entries, steps=steps, to=to, files=files))
            if expected is not None and list(expected) != [step.filename for step in todo]:
                raise PlanChanged(expected=", ".join(expected))
            refuse_cascades(database, todo, control.patience())
            runner.take_over(db, files, entries)
            done = runner.execute(db, todo, control, commit_of(directory))
    return runner.outcome_of(database, files, entries, done)


def preview(
    database: str, directory: Path, *, steps: int = 1, to: str | None = None, control: Control | None = None
) -> Losses:
    """What a rollback would take away: it is run in a transaction that is then undone.

    Raises Irreversible and whatever the rollback itself would raise.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    if not plan.to_roll_back(entries, steps=steps, to=to, files=files):
        return Losses([], {}, {})
    with session.exclusive(database, control) as db:
        todo = _down_steps(db, files, plan.to_roll_back(ledger.entries(db), steps=steps, to=to, files=files))
        refuse_cascades(database, todo, control.patience())
        return _try_out(db, todo, control)


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
        name = without[0].partition("_")[2].removesuffix(".sql")
        fix = f"Undo it with a new migration: flask db new {shlex.quote(f'undo_{name}')}"
        raise Irreversible(names=", ".join(without), why=why, fix=fix)
    return [Step(name, script, has_file=name in by_name) for name, script in scripts.items() if script]


def _down_script(db: Database, file: MigrationFile | None, entry: Entry) -> Script | None:
    if file and entry.checksum in (None, checksum(file.path)):
        return read(file).down
    try:
        text = ledger.kept_text(db, entry.filename, "down")
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
    if not all(step.script.transaction for step in steps) or len({step.script.foreign_keys for step in steps}) > 1:
        return Losses(names, {}, {}, complete=False)
    try:
        with db.transaction(foreign_keys=steps[0].script.foreign_keys):
            before = _counts(db)
            for step in steps:
                Execution(db, step, control).try_out()
            after = _counts(db)
            raise _Undo
    except _Undo:
        pass
    except MigrationFailed:
        if len(steps) == 1:
            raise
        return Losses(names, {}, {}, complete=False)  # one step may be in the way of another on one connection
    rows = {table: count[""] - after.get(table, {"": 0})[""] for table, count in before.items()}
    values = {
        f"{table}.{column}": count - after[table].get(column, 0)
        for table, counts in before.items()
        if table in after
        for column, count in counts.items()
        if column and count - after[table].get(column, 0) > max(rows[table], 0)
    }
    return Losses(names, _positive(rows), _positive(values))


def _counts(db: Database) -> dict[str, dict[str, int]]:
    """For each table the number of its rows, under "", and of the values in each column."""
    return {
        table: dict(zip(["", *columns], db.counts(table, columns), strict=True))
        for table, columns in db.tables().items()
    }


def _positive(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count > 0}
