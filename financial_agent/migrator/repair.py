"""Changes what the ledger says without running anything: adopt a database, accept an edited file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from financial_agent.migrator import history, ledger, plan, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, display_name, exists
from financial_agent.migrator.errors import BaselineRefused, RepairRefused
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.script import Migration, read


def baseline(database: str, directory: Path, target: str | None, control: Control) -> list[str]:
    """Record every migration up to the target, or all, as applied on a database that has their tables but no ledger;
    with the target `0`, record that none is.

    Returns their filenames. Raises BaselineRefused when the ledger has entries, or there is nothing to adopt.
    """
    files, _ = session.look(database, directory, control)
    is_none = target is not None and plan.is_before_first(target, [file.filename for file in files])
    adopted = [] if is_none else [read(file) for file in plan.up_to(files, files, target)]
    if not exists(database):
        raise BaselineRefused(database=display_name(database), why="it is not there", fix="flask db migrate")
    with session.exclusive(database, control) as db, db.transaction():
        if not db.tables():
            raise BaselineRefused(database=display_name(database), why="it has no tables", fix="flask db migrate")
        if entries := ledger.entries(db):
            why = f"it has {len(entries)} migrations recorded"
            raise BaselineRefused(database=display_name(database), why=why, fix="flask db status")
        commit = commit_of(directory)
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
        ledger.add(db, ledger.record_of(migration, duration_ms=0, schema_fingerprint=fingerprint))
        ledger.append(db, _event(event, migration, git_commit, note))


def repair(database: str, directory: Path, target: str, reason: str, control: Control) -> str:
    """Accept the file of an applied migration as it is now: its checksum and its SQL replace the recorded ones. What
    only the history has as applied, as its row in the ledger was lost, is recorded again.

    Returns its filename. Raises RepairRefused when it is not applied, its file is gone, or nothing is to be accepted.
    """
    files, entries = session.look(database, directory, control)
    applied = [entry.filename for entry in entries]
    filename = plan.resolve(target, list(dict.fromkeys([*applied, *(file.filename for file in files)])))
    file = next((file for file in files if file.filename == filename), None)
    if file is None:
        raise RepairRefused(name=filename, why=f"its file is not in {directory}")
    migration = read(file)
    with session.exclusive(database, control) as db, db.transaction():
        entry = next((entry for entry in ledger.entries(db) if entry.filename == filename), None)
        if entry is None and filename not in history.applied(ledger.history(db)):
            raise RepairRefused(name=filename, why="it is not applied")
        if entry and entry.checksum == migration.checksum:
            raise RepairRefused(name=filename, why="its file is as it was applied")
        commit = commit_of(directory)
        if entry:
            ledger.prepare(db)
            ledger.replace(db, migration)
            ledger.append(db, _event("repair", migration, commit, reason))
        else:
            record(db, [migration], "repair", commit, reason)
    return filename


def _event(event: str, migration: Migration, git_commit: str | None, note: str | None) -> ledger.Event:
    filename, checksum = migration.file.filename, migration.checksum
    return ledger.Event(event, filename, ledger.now(), git_commit=git_commit, checksum=checksum, note=note)
