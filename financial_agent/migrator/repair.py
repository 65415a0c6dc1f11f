"""Changes what the ledger says without running anything: adopt a database, accept an edited file."""

from __future__ import annotations

from pathlib import Path

from financial_agent.migrator import ledger, plan, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import display_name, exists
from financial_agent.migrator.errors import BaselineRefused, RepairRefused
from financial_agent.migrator.git import commit_of
from financial_agent.migrator.script import Migration, read


def baseline(database: str, directory: Path, target: str | None, control: Control) -> list[str]:
    """Record every migration up to the target, or all, as applied on a database that has their tables but no ledger.

    Returns their filenames. Raises BaselineRefused when the ledger has entries, or there is nothing to adopt.
    """
    files, _ = session.look(database, directory, control)
    adopted = [read(file) for file in plan.up_to(files, files, target)]
    if not exists(database):
        raise BaselineRefused(database=display_name(database), why="it is not there", fix="flask db migrate")
    with session.exclusive(database, control) as db, db.transaction():
        if not db.tables():
            raise BaselineRefused(database=display_name(database), why="it has no tables", fix="flask db migrate")
        if entries := ledger.entries(db):
            why = f"it has {len(entries)} migrations recorded"
            raise BaselineRefused(database=display_name(database), why=why, fix="flask db status")
        ledger.prepare(db)
        fingerprint = db.fingerprint()
        for migration in adopted:
            ledger.add(db, ledger.record_of(migration, duration_ms=0, schema_fingerprint=fingerprint))
            ledger.append(db, _event("baseline", migration))
    return [migration.file.filename for migration in adopted]


def repair(database: str, directory: Path, target: str, reason: str, control: Control) -> str:
    """Accept the file of an applied migration as it is now: its checksum and its SQL replace the recorded ones.

    Returns its filename. Raises RepairRefused when it is not applied, or its file is gone.
    """
    files, entries = session.look(database, directory, control)
    filename = plan.resolve(target, [entry.filename for entry in entries])
    file = next((file for file in files if file.filename == filename), None)
    if file is None:
        raise RepairRefused(name=filename, why=f"its file is not in {directory}")
    migration = read(file)
    with session.exclusive(database, control) as db, db.transaction():
        if filename not in {entry.filename for entry in ledger.entries(db)}:
            raise RepairRefused(name=filename, why="another run has rolled it back meanwhile")
        ledger.prepare(db)
        ledger.replace(db, migration)
        ledger.append(db, _event("repair", migration, note=reason))
    return filename


def _event(event: str, migration: Migration, note: str | None = None) -> ledger.Event:
    commit = commit_of(migration.file.path.parent)
    return ledger.Event(
        event, migration.file.filename, ledger.now(), git_commit=commit, checksum=migration.checksum, note=note
    )
