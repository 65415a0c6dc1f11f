"""Undoes migrations: with which scripts, and the run."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path

from financial_agent.migrator import ledger, plan, runner, session
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database
from financial_agent.migrator.effects import foresee
from financial_agent.migrator.errors import FileRefused, Irreversible, MigratorError, PlanChanged, StoredScriptInvalid
from financial_agent.migrator.events import Done, Warned
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.plan import Step
from financial_agent.migrator.script import MigrationFile, Script, parse_stored, read
from financial_agent.migrator.source import checksum


def rollback(
    database: str,
    directory: Path,
    *,
    steps: int = 1,
    to: str | None = None,
    expected: Sequence[str] | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> runner.Outcome:
    """Undo the migrations applied last: `steps` of them, or all that are newer than `to`.

    With `expected`, the filenames that a person has agreed to, raises PlanChanged when it would be others by now.
    Without `backups` none is made.
    """
    control = control or Control()
    files, entries = session.look(database, directory, control)
    done: list[Done] = []
    if plan.to_roll_back(entries, steps=steps, to=to, files=files):
        with session.exclusive(database, control) as db:
            entries = ledger.entries(db)
            todo = plan_down(db, files, steps, to, control)
            if expected is not None and list(expected) != [step.filename for step in todo]:
                raise PlanChanged(expected=", ".join(expected))
            destroyed = foresee(database, todo, control.patience())
            runner.back_up(db, database, todo, destroyed, backups, control)
            runner.take_over(db, files, entries)
            done = runner.execute(db, todo, control, commit_of(directory))
    return runner.outcome_of(database, files, entries, done)


def plan_down(db: Database, files: Sequence[MigrationFile], steps: int, to: str | None, control: Control) -> list[Step]:
    """The steps of a rollback, by what the database's ledger says: each with the down section that was kept when its
    migration was applied, or, for what an older runner applied, with the file's.

    Reports a file whose section is another by now. Raises Irreversible for all that have none.
    """
    entries = plan.to_roll_back(ledger.entries(db), steps=steps, to=to, files=files)
    by_name = {file.filename: file for file in files}
    scripts = {entry.filename: _down_script(db, by_name.get(entry.filename), entry, control) for entry in entries}
    without = [name for name, script in scripts.items() if script is None]
    if without:
        gone = [name for name in without if name not in by_name]
        why = "its file is gone and the ledger keeps no copy" if gone else "there is no down section"
        name = without[0].partition("_")[2].removesuffix(".sql")
        fix = f"Undo it with a new migration: flask db new {shlex.quote(f'undo_{name}')}"
        raise Irreversible(names=", ".join(without), why=why, fix=fix)
    return [Step(name, script, has_file=name in by_name) for name, script in scripts.items() if script]


def _down_script(db: Database, file: MigrationFile | None, entry: Entry, control: Control) -> Script | None:
    if file and entry.checksum in (None, checksum(file.path)):
        return read(file).down  # the same text, and its errors have a place in a file
    text = _stored_text(db, entry)
    if file:
        _report_difference(file, text, control)
    if text is None:
        return None
    try:
        return parse_stored(text, f"{entry.filename} (as the ledger keeps it)", "down")
    except MigratorError as error:
        raise StoredScriptInvalid(name=entry.filename, cause=error.message, location=error.location) from error


def _stored_text(db: Database, entry: Entry) -> str | None:
    try:
        return ledger.kept_text(db, entry.filename, "down")
    except ValueError as error:
        raise StoredScriptInvalid(name=entry.filename, cause=error) from error


def _report_difference(file: MigrationFile, stored: str | None, control: Control) -> None:
    """Say that the file has another down section than the one that will run, and which."""
    try:
        down = read(file).down
    except FileRefused:  # what cannot be read is not what was applied
        down = None
    now = down.text() if down else ""
    if now != (stored or ""):
        lines = difflib.unified_diff(
            (stored or "").splitlines(), now.splitlines(), "as it was applied", "as the file is now", lineterm=""
        )
        message = "the file's down section was edited; the one that was applied is used"
        control.report(Warned(file.filename, message, tuple(lines)))
