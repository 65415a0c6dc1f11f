"""Undoes migrations: with which scripts, and the run."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from financial_agent.migrator import graph, heads, ledger, plan, progress, rebuild, runner, session
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database
from financial_agent.migrator.effects import foresee
from financial_agent.migrator.environment import Environment, stamp_first
from financial_agent.migrator.errors import Irreversible, MigratorError, PlanChanged, StoredScriptInvalid
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.events import Done, Warned
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.heads import Head
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
    environment: Environment | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> runner.Outcome:
    """Undo the migrations applied last: `steps` of them, or all that are newer than `to`.

    With `expected`, the filenames that a person has agreed to, raises PlanChanged when it would be others by now.
    Without `backups` none is made.
    """
    control, environment = control or Control(), environment or Environment()
    files, records = session.look(database, directory, control, environment)
    entries = records.entries
    done: list[Done] = []
    if plan.to_roll_back(entries, steps=steps, to=to, files=files) or records.begun:
        with session.exclusive(database, control, environment) as db:
            entries = ledger.entries(db)
            todo = plan_down(db, files, steps, to, control)
            if expected is not None and list(expected) != [step.filename for step in todo]:
                raise PlanChanged(expected=", ".join(expected))
            destroyed = foresee(database, progress.not_begun(db, todo), control.patience())
            runner.back_up(db, database, todo, destroyed, backups, control)
            commit = commit_of(directory)
            stamp_first(db, environment, commit)
            runner.take_over(db, files, entries)
            done = runner.execute(db, todo, control, commit)
    return runner.outcome_of(database, files, entries, done, environment.name)


def plan_down(db: Database, files: Sequence[MigrationFile], steps: int, to: str | None, control: Control) -> list[Step]:
    """The steps of a rollback, by what the database's ledger says: each with the down section that was kept when its
    migration was applied, or, for what an older runner applied, with the file's.

    Reports a file whose section is another by now. Raises Irreversible for all that have none, BatchesUnfinished, and
    DependentsStay when one that stays requires one of them.
    """
    applied = ledger.entries(db)
    entries = plan.to_roll_back(applied, steps=steps, to=to, files=files)
    by_name = {file.filename: file for file in files}
    if entries:
        needs = graph.needs_of(_applied_heads(db, by_name, applied, control))
        graph.refuse_to_strand([entry.filename for entry in entries], [entry.filename for entry in applied], needs)
    scripts = {entry.filename: _down_script(db, by_name.get(entry.filename), entry, control) for entry in entries}
    without = [name for name, script in scripts.items() if script is None]
    if without:
        gone = [name for name in without if name not in by_name]
        why = "its file is gone and the ledger keeps no copy" if gone else "there is no down section"
        name = without[0].partition("_")[2].rpartition(".")[0]
        fix = f"Undo it with a new migration: flask db new {shlex.quote(f'undo_{name}')}"
        raise Irreversible(names=", ".join(without), why=why, fix=fix)
    found = [Step(name, script, has_file=name in by_name) for name, script in scripts.items() if script]
    progress.refuse_unfinished(db, found)
    return found


def _applied_heads(
    db: Database, files: Mapping[str, MigrationFile], entries: Sequence[Entry], control: Control
) -> dict[str, Head]:
    """What the applied migrations require, by what the ledger keeps of them, else by their files."""
    found = {}
    for name in [entry.filename for entry in entries]:
        try:
            if (text := ledger.kept_text(db, name, "up")) is not None:
                found[name] = heads.parse([text], name, db.dialect, " (as the ledger keeps it)")
                continue
        except (ValueError, FileRefused) as error:
            control.report(Warned(name, f"what it requires, as the ledger keeps it, cannot be read: {error}"))
        found[name] = heads.peek(files[name]) if name in files else Head()
    return found


def _down_script(db: Database, file: MigrationFile | None, entry: Entry, control: Control) -> Script | None:
    is_unchanged = file is not None and entry.checksum in (None, checksum(file.path))
    if file and is_unchanged and (down := read(file).down):
        return down  # the same text, and its errors have a place in a file
    text = _stored_text(db, entry.filename)
    if file and not is_unchanged and not (rebuild.is_generated(text) and _down_of(file) is None):
        _report_difference(file, text, control)
    if text is None:
        return None
    return _stored_script(entry.filename, text, db.dialect)


def made_down(db: Database, filename: str) -> Script | None:
    """The down section that was made as a migration of rebuilds ran. Raises StoredScriptInvalid."""
    text = _stored_text(db, filename)
    return _stored_script(filename, text, db.dialect) if text and rebuild.is_generated(text) else None


def _stored_script(filename: str, text: str, dialect: str) -> Script:
    """The down section that the ledger keeps of a migration. Raises StoredScriptInvalid."""
    try:
        return parse_stored(text, filename, "down", note=" (as the ledger keeps it)", dialect=dialect)
    except MigratorError as error:
        raise StoredScriptInvalid(name=filename, cause=error.message, location=error.location) from error


def _stored_text(db: Database, filename: str) -> str | None:
    try:
        return ledger.kept_text(db, filename, "down")
    except ValueError as error:
        raise StoredScriptInvalid(name=filename, cause=error) from error


def _report_difference(file: MigrationFile, stored: str | None, control: Control) -> None:
    """Say that the file has another down section than the one that will run, and which."""
    down = _down_of(file)
    now = down.text() if down else ""
    if now != (stored or ""):
        lines = difflib.unified_diff(
            (stored or "").splitlines(), now.splitlines(), "as it was applied", "as the file is now", lineterm=""
        )
        message = "the file's down section was edited; the one that was applied is used"
        control.report(Warned(file.filename, message, tuple(lines)))


def _down_of(file: MigrationFile) -> Script | None:
    try:
        return read(file).down
    except FileRefused:  # what cannot be read is not what was applied
        return None
