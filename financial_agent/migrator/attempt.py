"""What is being run, kept outside the database, so that the next run can tell the history of one that was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

from financial_agent.migrator import ledger
from financial_agent.migrator.databases import Database
from financial_agent.migrator.errors_server import RestoreUnfinished
from financial_agent.migrator.plan import Step


def mark(db: Database, step: Step, git_commit: str | None) -> None:
    """Note that a step is about to be run."""
    attempt = {
        "filename": step.filename,
        "direction": step.script.direction,
        "started_at": ledger.now(),
        "git_commit": git_commit,
        "process": os.getpid(),
        **ledger.whoami(),
    }
    db.note_attempt(json.dumps(attempt))


def of_restore(backup: Path) -> str:
    """The note of a restore that is not one transaction."""
    return json.dumps({"restore": str(backup.absolute())})


def settle(db: Database) -> None:
    """Record as failed what a killed process had begun; to be called by who holds the lock. Raises RestoreUnfinished
    for a restore, which only another one ends."""
    text = db.attempt()
    if text is None:
        return
    if backup := _restored_from(text):
        why = "its tables may be exchanged, and its triggers, views, routines and events may be missing"
        raise RestoreUnfinished(database=db.name, backup=Path(backup), why=why)
    if failure := _failure(text, {entry.filename for entry in ledger.entries(db)}):
        with db.transaction():
            ledger.prepare(db)
            ledger.append(db, failure)
    db.note_attempt(None)


def _restored_from(text: str) -> str | None:
    try:
        return str(json.loads(text)["restore"])
    except (ValueError, KeyError, TypeError):
        return None


def _failure(text: str, applied: set[str]) -> ledger.Event | None:
    """The event of an attempt; None when it came to its end all the same, or when a power cut left no legible note."""
    try:
        attempt = json.loads(text)
        filename, is_up = attempt["filename"], attempt["direction"] == "up"
        error = (
            f"process {attempt['process']} of {attempt['os_user']} on {attempt['host']} was killed "
            f"while the {'migration' if is_up else 'rollback'} was running"
        )
        event = ledger.Event("failure", filename, attempt["started_at"], error=error, git_commit=attempt["git_commit"])
    except (ValueError, KeyError, TypeError):
        return None
    return None if (filename in applied) == is_up else event
