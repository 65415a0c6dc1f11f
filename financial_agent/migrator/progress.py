"""How far the migrations have come that run in batches and are not done: the table `_migration_progress`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice

from financial_agent.migrator import ledger
from financial_agent.migrator.batches import batch_of
from financial_agent.migrator.databases import Database
from financial_agent.migrator.errors import LedgerUnusable, RepairRefused
from financial_agent.migrator.errors_run import BatchesUnfinished
from financial_agent.migrator.ledger import Progress
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Item, Step, version_of
from financial_agent.migrator.script import Script

TABLE = "_migration_progress"
_COLUMNS = {
    "filename": "key",
    "direction": "required",
    "checksum": "required",
    "started_at": "required",
    "statements": "count",
    "finished": "required",
    "batches": "count",
    "rows_changed": "count",
    "running": "text",
    "fingerprint": "text",
}
_REQUIRED = [name for name, kind in _COLUMNS.items() if kind != "text"]


def checksum_of(statements: Iterable[Statement], count: int | None = None) -> str:
    """SHA-256, in hexadecimal, of a script's statements and the sizes of their batches: of the first, or of all."""
    digest = hashlib.sha256()
    for statement in islice(statements, count):
        directive = batch_of(statement)
        text = statement.text + statement.data
        digest.update(repr((directive and directive.text, text)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read(db: Database) -> list[Progress]:
    """What was begun and is not done. Writes nothing. Raises LedgerUnusable."""
    present = db.columns(TABLE)
    if lacking := [name for name in _REQUIRED if present and name not in present]:
        raise LedgerUnusable(table=TABLE, why=f"it has no column {lacking[0]!r}", look=db.look_hint(TABLE))
    names = [name for name in _COLUMNS if name in present]
    rows = db.query(f"SELECT {', '.join(names)} FROM {db.ledger(TABLE)}") if present else []
    return [Progress(**dict(zip(names, row, strict=True))) for row in rows]


def first(step: Step, statements: Sequence[Statement], started_at: str) -> Progress:
    """The progress of what begins."""
    checksum, finished = checksum_of(statements), checksum_of(())
    return Progress(step.filename, step.script.direction, checksum, started_at, finished=finished)


def find(db: Database, filename: str) -> Progress | None:
    """How far a migration has come; None when it was not begun. Writes nothing."""
    return next((begun for begun in read(db) if begun.filename == filename), None)


def save(db: Database, progress: Progress) -> None:
    """Record how far a migration has come; to be called in the transaction that brings it there."""
    prepare(db)
    values = {name: value for name, value in asdict(progress).items() if value is not None}
    forget(db, progress.filename)
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {db.ledger(TABLE)} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def prepare(db: Database) -> None:
    """Create the table, or add the columns that it lacks."""
    ledger.define(db, TABLE, _COLUMNS)


def forget(db: Database, filename: str) -> None:
    """It is done, or given up; to be called in the transaction that records that."""
    if db.columns(TABLE):
        db.execute(f"DELETE FROM {db.ledger(TABLE)} WHERE filename = ?", (filename,))


def refuse_unfinished(db: Database, steps: Sequence[Step]) -> None:
    """Raise BatchesUnfinished when a run would leave out what was begun, or go on with other statements."""
    scripts = {(step.filename, step.script.direction): step.script for step in steps}
    for begun in read(db):
        script = scripts.get((begun.filename, begun.direction))
        version = version_of(begun.filename)
        if script is None:
            go_on = f"Go on with it: flask db {'migrate' if begun.direction == 'up' else 'rollback'}"
            fix = f"{go_on}\nTo give it up: remove its file, then: flask db repair {version} --reason WHY"
            raise BatchesUnfinished(name=begun.filename, how="was begun and is not done", so_far=begun, fix=fix)
        kept = (
            None if script.in_batches else begun.statements
        )  # what failed elsewhere was not done, and may be corrected
        if checksum_of(script.statements(), kept) != (begun.checksum if script.in_batches else begun.finished):
            fix = f"Put its statements back as they were\nIf they are right: flask db repair {version} --reason WHY"
            how = "was begun with other statements than it has now"
            raise BatchesUnfinished(name=begun.filename, how=how, so_far=begun, fix=fix)


def not_begun(db: Database, steps: Sequence[Step]) -> list[Step]:
    """The steps of which nothing is done: what one that was begun destroys is in the backup from before its beginning,
    which further ones, of a database half way, would push out."""
    begun = {each.filename for each in read(db)}
    return [step for step in steps if step.filename not in begun]


def accepted(begun: Progress, script: Script | None) -> Progress:
    """The same with the statements that a script has now. Raises RepairRefused unless those that are finished stand
    there as they were."""
    if script is None or checksum_of(script.statements(), begun.statements) != begun.finished:
        raise RepairRefused(name=begun.filename, why="it was begun, and the statements that are finished were changed")
    return replace(begun, checksum=checksum_of(script.statements()), running=None, fingerprint=None)


def overlaid(items: Sequence[Item], begun: Sequence[Progress]) -> list[Item]:
    """The items, of which some were begun, also such whose file is gone."""
    by_name = {each.filename: each for each in begun}
    found = []
    for item in items:
        so_far = by_name.pop(item.filename, None)
        is_started = so_far and item.state == "pending"
        found.append(replace(item, state="started" if is_started else item.state, so_far=so_far) if so_far else item)
    found += [Item(version_of(name), name, "started", None, None, so_far=each) for name, each in by_name.items()]
    return sorted(found, key=lambda item: (item.version, item.filename))
