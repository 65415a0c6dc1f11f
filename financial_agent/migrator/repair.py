"""Changes what the ledger says without running anything: adopt a database, accept an edited file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from financial_agent.migrator import history, ledger, plan, progress, rebuild, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, display_name, exists
from financial_agent.migrator.environment import Environment, stamp
from financial_agent.migrator.errors import BaselineRefused, RepairRefused
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.script import Migration, read
from financial_agent.migrator.survey import survey


def baseline(
    database: str, directory: Path, target: str | None, control: Control, environment: Environment | None = None
) -> list[str]:
    """Record every migration up to the target, or all, as applied on a database that has their tables but no ledger;
    with the target `0`, record that none is. Those for other environments are not recorded.

    Returns their filenames. Raises BaselineRefused when the ledger has entries, or there is nothing to adopt.
    """
    environment = environment or Environment()
    files, _ = session.look(database, directory, control, environment)
    is_none = target is not None and plan.is_before_first(target, [file.filename for file in files])
    found = survey(files, (), environment.name)
    chosen = [] if is_none else found.to_run(plan.up_to(files, found.pending, target))
    adopted = [read(file) for file in chosen]
    if not exists(database):
        raise BaselineRefused(database=display_name(database), why="it is not there", fix="flask db migrate")
    with session.exclusive(database, control, environment) as db, db.transaction():
        if not db.tables():
            raise BaselineRefused(database=display_name(database), why="it has no tables", fix="flask db migrate")
        if entries := ledger.entries(db):
            why = f"it has {len(entries)} migrations recorded"
            raise BaselineRefused(database=display_name(database), why=why, fix="flask db status")
        commit = commit_of(directory)
        stamp(db, environment, commit)
        record(db, adopted, "baseline", commit)
        if is_none:
            note = "none of the migrations has run"
            ledger.append(db, ledger.Event("baseline", "", ledger.now(), git_commit=commit, note=note))
    return [migration.file.filename for migration in adopted]


def record(
    db: Database, migrations: Sequence[Migration], event: str, git_commit: str | None, note: str | None = None
) -> None:
    """Record migrations as applied that did not run now; to be called in a transaction."""
    ledger.prepare(db)
    fingerprint = db.fingerprint()
    for migration in migrations:
        progress.forget(db, migration.file.filename)
        ledger.add(db, ledger.record_of(migration, duration_ms=0, schema_fingerprint=fingerprint))
        ledger.append(db, _event(event, migration, git_commit, note))


def repair(
    database: str,
    directory: Path,
    target: str,
    reason: str,
    control: Control,
    environment: Environment | None = None,
) -> ledger.Event:
    """Accept the file of an applied migration as it is now: its checksum and its SQL replace the recorded ones. What
    only the history has as applied, as its row in the ledger was lost, is recorded again.

    Returns what the history tells of it. Raises RepairRefused when it is not applied, its file is gone, or nothing is
    to be accepted.
    """
    environment = environment or Environment()
    files, records = session.look(database, directory, control, environment)
    entries = records.entries
    applied = [entry.filename for entry in entries]
    begun = {each.filename: each for each in records.begun}
    filename = plan.resolve(target, list(dict.fromkeys([*applied, *(file.filename for file in files), *begun])))
    file = next((file for file in files if file.filename == filename), None)
    if filename in begun and (file is None or filename not in applied):
        note = ledger.Event(
            "amend" if file else "abandon", filename, ledger.now(), git_commit=commit_of(directory), note=reason
        )
        _repair_begun(database, filename, read(file) if file else None, control, environment, note)
        return note
    if file is None:
        raise RepairRefused(name=filename, why=f"its file is not in {directory}")
    migration = read(file)
    with session.exclusive(database, control, environment) as db, db.transaction():
        entry = next((entry for entry in ledger.entries(db) if entry.filename == filename), None)
        if entry is None and filename not in history.applied(ledger.history(db)):
            raise RepairRefused(name=filename, why="it is not applied")
        if entry and entry.checksum == migration.checksum:
            raise RepairRefused(name=filename, why="its file is as it was applied")
        commit = commit_of(directory)
        stamp(db, environment, commit)
        event = _event("repair", migration, commit, reason)
        if entry:
            ledger.prepare(db)
            ledger.replace(db, migration, _made_down(db, filename))
            if undoing := progress.find(db, filename):
                progress.save(db, progress.accepted(undoing, migration.down))
            ledger.append(db, event)
        else:
            record(db, [migration], "repair", commit, reason)
    return event


def _made_down(db: Database, filename: str) -> str | None:
    """The down section that was made when a migration of rebuilds ran: no file has it."""
    try:
        text = ledger.kept_text(db, filename, "down")
    except ValueError:  # it was tampered with: what the file says replaces it
        return None
    return text if rebuild.is_generated(text) else None


def _repair_begun(
    database: str,
    filename: str,
    migration: Migration | None,
    control: Control,
    environment: Environment,
    note: ledger.Event,
) -> None:
    """Go on with the statements that the file has now; without a file, leave the finished batches as they are, and
    forget that it was begun. Raises RepairRefused when what is finished was changed, or there is nothing to accept."""
    with session.exclusive(database, control, environment) as db, db.transaction():
        begun = progress.find(db, filename)
        if begun is None:
            raise RepairRefused(name=filename, why="it is no longer begun")
        if migration:
            accepted = progress.accepted(begun, migration.up)
            if accepted == begun:
                raise RepairRefused(name=filename, why="it was begun with the statements that it has now")
            progress.save(db, accepted)
        else:
            progress.forget(db, filename)
        ledger.prepare(db)
        ledger.append(db, replace(note, rows_changed=begun.rows_changed))


def _event(event: str, migration: Migration, git_commit: str | None, note: str | None) -> ledger.Event:
    filename, checksum = migration.file.filename, migration.checksum
    return ledger.Event(event, filename, ledger.now(), git_commit=git_commit, checksum=checksum, note=note)
