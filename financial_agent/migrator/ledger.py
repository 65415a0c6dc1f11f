"""The ledger: `_migrations` tells what is applied, `_migration_history` what ever happened.

Databases made by the first runner have a `_migrations` of three columns; the first write adds the others.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from financial_agent.migrator.databases import Database, Row
from financial_agent.migrator.errors import LedgerUnusable

_MIGRATIONS = {
    "id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "filename": "TEXT UNIQUE NOT NULL",
    "applied_at": "DATETIME DEFAULT (datetime('now'))",
    "checksum": "TEXT",
    "duration_ms": "INTEGER",
    "up_sql": "BLOB",
    "down_sql": "BLOB",
    "schema_fingerprint": "TEXT",
}
_HISTORY = {
    "id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "event": "TEXT NOT NULL",
    "filename": "TEXT NOT NULL",
    "started_at": "TEXT NOT NULL",
    "duration_ms": "INTEGER",
    "statements": "INTEGER",
    "rows_changed": "INTEGER",
    "os_user": "TEXT",
    "host": "TEXT",
    "tool_version": "TEXT",
    "checksum": "TEXT",
    "previous_sha256": "TEXT NOT NULL",
}


@dataclass(frozen=True)
class Entry:
    """One applied migration, as `_migrations` records it. Times are UTC; the checksum is None for what the first
    runner applied."""

    filename: str
    applied_at: str
    checksum: str | None
    duration_ms: int | None
    keeps_down: bool
    """The ledger has the SQL of its down section."""


@dataclass(frozen=True)
class Record:
    """What is kept of a migration that was applied."""

    filename: str
    checksum: str
    duration_ms: int
    up_text: str | None
    down_text: str | None
    schema_fingerprint: str


@dataclass(frozen=True)
class Event:
    """One line of the history. `started_at` is UTC in ISO 8601."""

    event: str
    filename: str
    started_at: str
    duration_ms: int
    statements: int
    rows_changed: int
    os_user: str
    host: str
    tool_version: str
    checksum: str | None


def entries(db: Database) -> list[Entry]:
    """What is applied, in the order in which it was. Writes nothing. Raises LedgerUnusable."""
    columns = db.columns("_migrations")
    if not columns:
        return []
    for name in ("id", "filename", "applied_at"):
        if name not in columns:
            raise LedgerUnusable(table="_migrations", column=name, database=db.name)
    wanted = [name if name in columns else "NULL" for name in ("checksum", "duration_ms")]
    keeps_down = "down_sql IS NOT NULL" if "down_sql" in columns else "0"
    rows = db.query(f"SELECT filename, applied_at, {', '.join(wanted)}, {keeps_down} FROM _migrations ORDER BY id")
    return [Entry(filename, str(at), checksum, ms, bool(kept)) for filename, at, checksum, ms, kept in rows]


def down_text(db: Database, filename: str) -> str | None:
    """The down section that was kept when the migration was applied. Writes nothing."""
    if "down_sql" not in db.columns("_migrations"):
        return None
    rows = db.query("SELECT down_sql FROM _migrations WHERE filename = ?", (filename,))
    return zlib.decompress(rows[0][0]).decode() if rows and rows[0][0] is not None else None


def prepare(db: Database) -> None:
    """Create the two tables, or add the columns that they lack."""
    for table, definition in (("_migrations", _MIGRATIONS), ("_migration_history", _HISTORY)):
        present = db.columns(table)
        if not present:
            columns = ",\n  ".join(f"{name} {kind}" for name, kind in definition.items())
            db.execute(f"CREATE TABLE {table} (\n  {columns}\n)")
        else:
            for name, kind in definition.items():
                if name not in present:
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def add_checksums(db: Database, checksums: Mapping[str, str]) -> None:
    """Record the checksums of files that an older runner applied without one."""
    for filename, checksum in checksums.items():
        db.execute(
            "UPDATE _migrations SET checksum = ? WHERE filename = ? AND checksum IS NULL",
            (checksum, filename),
        )


def add(db: Database, record: Record) -> None:
    """Record a migration as applied; to be called in the transaction that applies it."""
    db.execute(
        "INSERT INTO _migrations (filename, checksum, duration_ms, up_sql, down_sql, schema_fingerprint)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            record.filename,
            record.checksum,
            record.duration_ms,
            _compressed(record.up_text),
            _compressed(record.down_text),
            record.schema_fingerprint,
        ),
    )


def remove(db: Database, filename: str) -> None:
    """Record a migration as rolled back; to be called in the transaction that rolls it back."""
    db.execute("DELETE FROM _migrations WHERE filename = ?", (filename,))


def append(db: Database, event: Event) -> None:
    """Add a line to the history, chained to the one before it."""
    names = ["id", *asdict(event), "previous_sha256"]
    last = db.query(f"SELECT {', '.join(names)} FROM _migration_history ORDER BY id DESC LIMIT 1")
    values = [*asdict(event).values(), row_hash(names, last[0]) if last else ""]
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO _migration_history ({', '.join(names[1:])}) VALUES ({marks})", values)


def row_hash(names: Sequence[str], row: Row) -> str:
    """SHA-256, in hexadecimal, of a history row. Columns without a value do not count, so that a column which a later
    version adds leaves the hashes of old rows as they are."""
    values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _compressed(text: str | None) -> bytes | None:
    return None if text is None else zlib.compress(text.encode())
