"""The ledger: `_migrations` tells what is applied, `_migration_history` what ever happened.

Databases made by the first runner have a `_migrations` of three columns; the first write adds the others.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise

from financial_agent import __version__
from financial_agent.migrator.databases import Busy, ConnectionLost, Database, Row, StatementError
from financial_agent.migrator.directives import Direction
from financial_agent.migrator.errors import LedgerUnusable
from financial_agent.migrator.script import Migration

MIGRATIONS = "_migrations"
HISTORY = "_migration_history"

_LONGEST_NAME = 1000  # characters

# Each column with its kind, which every database defines in its own words (`Database.ledger_types`).
_MIGRATIONS = {
    "id": "id",
    "filename": "name",
    "applied_at": "moment",
    "checksum": "text",
    "duration_ms": "number",
    "up_sql": "bytes",
    "down_sql": "bytes",
    "schema_fingerprint": "text",
}
_HISTORY = {
    "id": "id",
    "event": "required",
    "filename": "required",
    "started_at": "required",
    "duration_ms": "number",
    "statements": "number",
    "rows_changed": "number",
    "os_user": "text",
    "host": "text",
    "tool_version": "text",
    "checksum": "text",
    "note": "text",
    "error": "text",
    "exit_code": "number",
    "git_commit": "text",
    "environment": "text",
    "entry_sha256": "text",
    "previous_sha256": "required",
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
class Progress:
    """A script that runs in batches, or statement by statement, was begun, and is not done. `started_at` is UTC in ISO
    8601."""

    filename: str
    direction: Direction
    checksum: str
    """That of its statements."""
    started_at: str
    statements: int = 0
    """How many are behind it."""
    finished: str = ""
    """Their checksum."""
    batches: int = 0
    rows_changed: int = 0
    running: str | None = None
    """The checksum of the statement that was being run, outside a transaction; whether it took effect is not known."""
    fingerprint: str | None = None
    """That of the schema before it."""

    def __str__(self) -> str:
        if not self.batches:
            return f"{self.statements:,} {'statement' if self.statements == 1 else 'statements'}"
        rows, batches = self.rows_changed, self.batches
        return f"{rows:,} {'row' if rows == 1 else 'rows'} in {batches:,} {'batch' if batches == 1 else 'batches'}"

    @property
    def in_effect(self) -> str:
        """The same as a sentence."""
        is_one = self.rows_changed == 1 if self.batches else self.statements == 1
        return f"{self} {'is' if is_one else 'are'} in effect"


@dataclass(frozen=True)
class Event:
    """What happened to a migration. `started_at` is UTC in ISO 8601; the history adds who and where.

    The names: apply, rollback, failure, baseline, repair, restore, recover (adopted after the ledger was lost),
    takeover (of what an older runner recorded), environment (from here on the database belongs to that one); and, of
    what was begun in batches, amend and abandon.
    """

    event: str
    filename: str
    started_at: str
    duration_ms: int | None = None
    statements: int | None = None
    rows_changed: int | None = None
    checksum: str | None = None
    note: str | None = None
    error: str | None = None
    exit_code: int | None = None
    git_commit: str | None = None


def now() -> str:
    """The time as the history has it: UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def entries(db: Database) -> list[Entry]:
    """What is applied, in the order in which it was. Writes nothing. Raises LedgerUnusable."""
    columns = db.columns(MIGRATIONS)
    if not columns:
        return []
    for name in ("id", "filename", "applied_at"):
        if name not in columns:
            raise LedgerUnusable(table=MIGRATIONS, why=f"it has no column {name!r}", look=db.look_hint(MIGRATIONS))
    wanted = [name if name in columns else "NULL" for name in ("checksum", "duration_ms")]
    keeps_down = "down_sql IS NOT NULL" if "down_sql" in columns else "0"
    rows = db.query(
        f"SELECT filename, applied_at, {', '.join(wanted)}, {keeps_down} FROM {db.ledger(MIGRATIONS)} ORDER BY id"
    )
    if not all(_is_name(row[0]) for row in rows):
        why = "it has a filename that no file can have"
        raise LedgerUnusable(table=MIGRATIONS, why=why, look=db.look_hint(MIGRATIONS))
    return [
        Entry(filename, str(at or ""), _as_text(checksum), ms if isinstance(ms, int) else None, bool(kept))
        for filename, at, checksum, ms, kept in rows
    ]


def history(db: Database) -> list[dict[str, object]]:
    """The history's rows, the oldest first, with as many of the columns as the table has; none without a table. Writes
    nothing. Raises LedgerUnusable."""
    present = db.columns(HISTORY)
    names = [name for name in _HISTORY if name in present]
    for name in ("id", "event", "filename", "started_at", "previous_sha256"):
        if present and name not in names:
            raise LedgerUnusable(table=HISTORY, why=f"it has no column {name!r}", look=db.look_hint(HISTORY))
    rows = db.query(f"SELECT {', '.join(names)} FROM {db.ledger(HISTORY)} ORDER BY id") if present else []
    return [dict(zip(names, row, strict=True)) for row in rows]


def environment(db: Database) -> str | None:
    """The environment that the database belongs to: that of the history's newest row that has one. Writes nothing."""
    if "environment" not in db.columns(HISTORY):
        return None
    rows = db.query(
        f"SELECT environment FROM {db.ledger(HISTORY)} WHERE environment IS NOT NULL ORDER BY id DESC LIMIT 1"
    )
    return _as_text(rows[0][0]) if rows else None


def kept_text(db: Database, filename: str, direction: Direction) -> str | None:
    """The side of a migration that was kept when it was applied, for `parse_stored`. Writes nothing. Raises ValueError
    when what is kept is no compressed text."""
    column = f"{direction}_sql"
    if column not in db.columns(MIGRATIONS):
        return None
    rows = db.query(f"SELECT {column} FROM {db.ledger(MIGRATIONS)} WHERE filename = ?", (filename,))
    if not rows or rows[0][0] is None:
        return None
    try:
        return zlib.decompress(rows[0][0]).decode()
    except (zlib.error, TypeError) as error:
        raise ValueError(str(error)) from error


def last_fingerprint(db: Database) -> str | None:
    """The schema's fingerprint behind the newest entry, as it was recorded then; None when there is none."""
    if "schema_fingerprint" not in db.columns(MIGRATIONS):
        return None
    rows = db.query(f"SELECT schema_fingerprint FROM {db.ledger(MIGRATIONS)} ORDER BY id DESC LIMIT 1")
    return rows[0][0] if rows else None


def schema_kept(db: Database) -> set[str]:
    """The entries behind which the schema's fingerprint was recorded as the one behind the entry before."""
    if "schema_fingerprint" not in db.columns(MIGRATIONS):
        return set()
    rows = db.query(f"SELECT filename, schema_fingerprint FROM {db.ledger(MIGRATIONS)} ORDER BY id")
    return {name for (_, before), (name, after) in pairwise(rows) if before == after and after}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable()


def _as_text(value: object) -> str | None:
    """SQLite keeps whatever is put into a column: what is no text is shown as what it is, and equals no checksum."""
    return value if value is None or isinstance(value, str) else repr(value)


def prepare(db: Database) -> None:
    """Create the two tables, or add the columns that they lack. Raises LedgerUnusable when they are not its own, or a
    trigger would do something else with what is recorded."""
    for table, definition in ((MIGRATIONS, _MIGRATIONS), (HISTORY, _HISTORY)):
        if triggers := db.triggers(table):
            raise LedgerUnusable(table=table, why=f"it has the trigger {triggers[0]}", look=db.look_hint(table))
        try:
            define(db, table, definition)
        except (Busy, ConnectionLost):
            raise
        except StatementError as error:
            raise LedgerUnusable(table=table, why=str(error), look=db.look_hint(table)) from error


def define(db: Database, table: str, definition: Mapping[str, str]) -> None:
    """Create a table of the ledger's, or add the columns that it lacks."""
    present = db.columns(table)
    if not present:
        db.define(_creation(db, table, definition))
    for name, kind in definition.items():
        if present and name not in present:
            db.define(f"ALTER TABLE {db.ledger(table)} ADD COLUMN {name} {db.ledger_types[kind]}")


def _creation(db: Database, table: str, definition: Mapping[str, str]) -> str:
    columns = ",\n  ".join(f"{name} {db.ledger_types[kind]}" for name, kind in definition.items())
    return f"CREATE TABLE {db.ledger(table)} (\n  {columns}\n){db.ledger_options}"


def first_creation(db: Database) -> str:
    """The statement that makes `_migrations` as the first runner had it: the first run adds the columns, and takes the
    rows over."""
    return _creation(db, MIGRATIONS, {name: _MIGRATIONS[name] for name in ("id", "filename", "applied_at")})


def take_over(db: Database, checksums: Mapping[str, str]) -> None:
    """Record the checksums of files that an older runner applied without one."""
    for filename, checksum in checksums.items():
        db.execute(f"UPDATE {db.ledger(MIGRATIONS)} SET checksum = ? WHERE filename = ?", (checksum, filename))
        append(db, Event("takeover", filename, now(), checksum=checksum))


def record_of(migration: Migration, *, duration_ms: int, schema_fingerprint: str) -> Record:
    """What the ledger keeps of a migration."""
    down_text = migration.down.text() if migration.down else None
    name = migration.file.filename
    return Record(name, migration.checksum, duration_ms, migration.up_text(), down_text, schema_fingerprint)


def add(db: Database, record: Record) -> None:
    """Record a migration as applied; to be called in the transaction that applies it."""
    db.execute(
        f"INSERT INTO {db.ledger(MIGRATIONS)}"
        " (id, filename, checksum, duration_ms, up_sql, down_sql, schema_fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            _next_id(db, MIGRATIONS),
            record.filename,
            record.checksum,
            record.duration_ms,
            _compressed(record.up_text),
            _compressed(record.down_text),
            record.schema_fingerprint,
        ),
    )


def replace(db: Database, migration: Migration, made: str | None) -> None:
    """Record a migration's file as it is now in the place of what was recorded when it was applied. A down section that
    was `made` then stays, unless the file has one by now."""
    record = record_of(migration, duration_ms=0, schema_fingerprint="")
    db.execute(
        f"UPDATE {db.ledger(MIGRATIONS)} SET checksum = ?, up_sql = ?, down_sql = ? WHERE filename = ?",
        (record.checksum, _compressed(record.up_text), _compressed(record.down_text or made), record.filename),
    )


def remove(db: Database, filename: str) -> None:
    """Record a migration as rolled back; to be called in the transaction that rolls it back."""
    db.execute(f"DELETE FROM {db.ledger(MIGRATIONS)} WHERE filename = ?", (filename,))


def append(db: Database, event: Event, environment: str | None = None) -> None:
    """Add a line to the history, chained to the one before it. An event that wrote an entry keeps that one's hash. The
    environment is that of the line before, unless it changes here."""
    row = {
        **asdict(event),
        **whoami(),
        "tool_version": __version__,
        "environment": environment or _last_environment(db),
        "entry_sha256": None if event.event == "failure" else entry_hash(db, event.filename),
        "previous_sha256": head(db),
    }
    _insert(db, row)


def append_restore(db: Database, event: Event, restored_head: str, environment: str | None) -> None:
    """Add a line that tells of a restore. In the place of one entry's hash it keeps that of the history's newest row in
    the backup: the entries are again as they were then."""
    row = {**asdict(event), **whoami(), "tool_version": __version__, "environment": environment}
    _insert(db, {**row, "entry_sha256": restored_head, "previous_sha256": head(db)})


def head(db: Database) -> str:
    """SHA-256, in hexadecimal, of the history's newest row; empty when there is none. The table must be complete."""
    names = list(_HISTORY)
    last = db.query(f"SELECT {', '.join(names)} FROM {db.ledger(HISTORY)} ORDER BY id DESC LIMIT 1")
    return row_hash(names, last[0]) if last else ""


def _last_environment(db: Database) -> str | None:
    rows = db.query(f"SELECT environment FROM {db.ledger(HISTORY)} ORDER BY id DESC LIMIT 1")
    return _as_text(rows[0][0]) if rows else None


def _insert(db: Database, row: Mapping[str, object]) -> None:
    row = {"id": _next_id(db, HISTORY), **row}
    marks = ", ".join("?" * len(row))
    values = [_storable(value) for value in row.values()]
    db.execute(f"INSERT INTO {db.ledger(HISTORY)} ({', '.join(row)}) VALUES ({marks})", values)


def _next_id(db: Database, table: str) -> int:
    """The key of the next row. A server's own numbers have gaps where a transaction was rolled back, and in the history
    a gap tells of rows that were removed; and a ledger that others made need not count by itself."""
    highest = db.query(f"SELECT max(id) FROM {db.ledger(table)}")[0][0]
    return max(db.last_id(table), highest if isinstance(highest, int) else 0) + 1


def carry_over(old: Database, new: Database) -> bool:
    """Add to the history of `new`, which must be there, what the one of `old` tells beyond it.

    False, and nothing is added, when the one does not continue the other.
    """
    names = old.columns(HISTORY)
    if not names:
        return True
    if not set(names) <= set(_HISTORY):  # a later version's
        return False
    known, rows = (db.query(f"SELECT {', '.join(names)} FROM {db.ledger(HISTORY)} ORDER BY id") for db in (new, old))
    if [row_hash(names, row) for row in known] != [row_hash(names, row) for row in rows[: len(known)]]:
        return False
    marks = ", ".join("?" * len(names))
    for row in rows[len(known) :]:
        new.execute(f"INSERT INTO {new.ledger(HISTORY)} ({', '.join(names)}) VALUES ({marks})", row)
    return True


def entry_hash(db: Database, filename: str) -> str | None:
    """SHA-256, in hexadecimal, of a migration's row in the ledger as it is now; None when there is no row."""
    names = [name for name in _MIGRATIONS if name in db.columns(MIGRATIONS)]
    rows = db.query(f"SELECT {', '.join(names)} FROM {db.ledger(MIGRATIONS)} WHERE filename = ?", (filename,))
    return row_hash(names, rows[0]) if rows else None


def row_hash(names: Sequence[str], row: Row) -> str:
    """SHA-256, in hexadecimal, of a row of either table. Columns without a value do not count, so that a column which a
    later version adds leaves the hashes of old rows as they are."""
    values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _compressed(text: str | None) -> bytes | None:
    return None if text is None else zlib.compress(text.encode())


def _storable(value: object) -> object:
    """The environment's text need not be UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


@cache
def whoami() -> dict[str, str]:
    """The operating system's user and the host that this process runs as and on."""
    import getpass  # needed only by a run that changes something: a question should start fast
    import platform

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user need not have a name
        user = "unknown"
    return {"os_user": user, "host": platform.node()}
