"""SQLite through the standard library's sqlite3, in autocommit mode: every BEGIN and COMMIT is the engine's own."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from financial_agent.migrator.databases import (
    Answer,
    Borrowing,
    Column,
    Effects,
    Orphan,
    OrphansLeft,
    OutOfSpace,
    Patience,
    Row,
    SchemaObject,
    StatementError,
    Stopped,
)
from financial_agent.migrator.databases.rebuild import Rebuild
from financial_agent.migrator.databases.sqlite import attempt as attempts
from financial_agent.migrator.databases.sqlite import definitions
from financial_agent.migrator.databases.sqlite import errors as codes
from financial_agent.migrator.databases.sqlite import lock as run_lock
from financial_agent.migrator.databases.sqlite.count import count, last_id
from financial_agent.migrator.databases.sqlite.effects import find_effects, find_reach
from financial_agent.migrator.databases.sqlite.foreign_keys import find_cascades, find_orphans, quoted
from financial_agent.migrator.databases.sqlite.hints import Hints, holders, locked
from financial_agent.migrator.databases.sqlite.problems import find_problems
from financial_agent.migrator.databases.sqlite.rebuild import SqliteRebuilding
from financial_agent.migrator.databases.sqlite.samples import Samples
from financial_agent.migrator.databases.sqlite.unusable import unusable
from financial_agent.migrator.errors import (
    DatabaseFolderMissing,
    DatabaseReadOnly,
    DatabaseUnusable,
    MigratorError,
    RunLocked,
)

_POLL = 0.05  # seconds between two tries for a lock
TICK = 20_000  # virtual machine instructions between two questions whether to stop: well under 100 ms

# Everything that is not the ledger's, SQLite's, or Litestream's (which adds two tables to what it replicates). But a
# trigger on the ledger counts, as it may do anything.
_USER_OBJECTS = """\
FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*' AND (type = 'trigger'
OR tbl_name NOT IN ('_migrations', '_migration_history', '_migration_progress',
'_litestream_seq', '_litestream_lock'))"""

Result = TypeVar("Result")


class SqliteDatabase(Hints, Samples):
    """One connection to one file."""

    dialect = "sqlite"
    has_transactional_ddl = True
    resumes = False
    knows_effects_by_words = False
    ledger_types: Mapping[str, str] = {
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "name": "TEXT UNIQUE NOT NULL",
        "key": "TEXT PRIMARY KEY NOT NULL",
        "moment": "DATETIME DEFAULT (datetime('now'))",
        "text": "TEXT",
        "required": "TEXT NOT NULL",
        "number": "INTEGER",
        "count": "INTEGER NOT NULL",
        "bytes": "BLOB",
    }
    ledger_options = ""

    def __init__(self, path: Path, *, readonly: bool = False, patience: Patience) -> None:
        self.path = path
        self.name = str(path)
        self.address = str(path)
        self._readonly = readonly
        self._patience = patience
        self._known_columns: dict[tuple[str, str], tuple[Column, ...]] = {}
        self._mode = "mode=rw" if readonly else "mode=rwc"
        self._connection = self._connect()
        self._mode = "mode=rw"  # a file that was moved away meanwhile must not be made anew

    # Opening and closing.

    def _connect(self) -> sqlite3.Connection:
        if os.path.isdir(self.path):
            raise DatabaseUnusable(database=self.path, cause="it is a folder", fix="Name a file with --database")
        if not os.path.isdir(self.path.parent):
            raise DatabaseFolderMissing(database=self.path, folder=self.path.parent)
        try:
            return self._open(self._mode)
        except sqlite3.Error as error:
            # Only what cannot be written is opened as immutable, and only while the whole of it is in the one file.
            # In WAL mode SQLite could not read it otherwise (https://sqlite.org/wal.html#read_only_databases).
            is_whole = not any(os.path.exists(f"{self.path}{suffix}") for suffix in ("-wal", "-journal"))
            if self._readonly and codes.primary_code(error) in (codes.CANTOPEN, codes.READONLY) and is_whole:
                with suppress(sqlite3.Error):
                    return self._open("immutable=1")
            raise unusable(error, self.path) from error

    def _open(self, mode: str) -> sqlite3.Connection:
        """Open, and see that the file can be read.

        A connection that only asks is opened for writing, too, though no statement of it writes: no other can roll back
        the journal of a killed process, and no other removes the files that reading makes in WAL mode. But where a -wal
        holds something, closing the last connection would write that into the database, unless it may not write.
        """
        if self._readonly and mode == "mode=rw" and self._is_waiting_in_wal():
            mode = "mode=ro"
        # No statement cache: a cached statement of megabytes would stay in memory.
        uri = f"{self.path.absolute().as_uri()}?{mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_POLL, cached_statements=0)
        try:
            # Text that is not UTF-8 is no failure, and the message of one would hold a row's content.
            connection.text_factory = _decoded
            connection.set_progress_handler(lambda: self._patience.stop(""), TICK)
            self._wait(lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall(), "to read")
            connection.execute("PRAGMA foreign_keys = ON")
            # FULL does not sync the unlinking of the journal: after a power loss a commit that was
            # reported as done could be rolled back (https://sqlite.org/pragma.html#pragma_synchronous).
            connection.execute("PRAGMA synchronous = EXTRA")
            if self._readonly:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_waiting_in_wal(self) -> bool:
        try:
            return self._beside("wal").stat().st_size > 0
        except OSError:
            return False

    def reset(self, *, settings: bool) -> None:
        if settings or self.query("SELECT 1 FROM temp.sqlite_schema LIMIT 1"):
            self._connection.close()
            self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()

    # Asking.

    @property
    def blocks_writers(self) -> bool:
        return self.query("PRAGMA journal_mode") != [("wal",)]

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        return self._patiently(lambda: self._connection.execute(sql, parameters).fetchall(), "to read", sql)

    def answer(self, sql: str) -> Answer:
        def ask() -> Answer:
            cursor = self._connection.execute(sql)
            first = cursor.fetchone()
            rows = 0 if first is None else 1 + sum(1 for _ in cursor)
            return Answer(tuple(name for name, *_ in cursor.description), rows, first)

        return self._patiently(ask, "to read", sql)

    def columns(self, table: str) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM pragma_table_info(?, 'main')", (table,))]

    def tables(self) -> dict[str, list[str]]:
        names = self.query(f"SELECT name {_USER_OBJECTS} AND type = 'table' ORDER BY name")
        return {name: self.columns(name) for (name,) in names}

    def counts(self, table: str, columns: Sequence[str]) -> list[int]:
        wanted = ", ".join(["count(*)", *(f"count({quoted(column)})" for column in columns)])
        return list(self.query(f"SELECT {wanted} FROM main.{quoted(table)}")[0])

    def size(self, table: str) -> int:
        return count(self.query, table, self.columns(table))

    def objects(self) -> list[SchemaObject]:
        # A virtual table has no root page, and its module, which alone knows its columns, may be missing here.
        rows = self.query(f"SELECT type, name, tbl_name, coalesce(sql, ''), rootpage {_USER_OBJECTS} ORDER BY 1, 2")
        return [
            SchemaObject(type_, name, table, sql, self._columns(name, sql) if type_ == "table" and root else ())
            for type_, name, table, sql, root in rows
        ]

    def _columns(self, table: str, definition: str) -> tuple[Column, ...]:
        # A replay asks after each migration, and few tables have changed since.
        if (table, definition) not in self._known_columns:
            sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main')"
            self._known_columns[table, definition] = tuple(
                Column(name, type_, bool(not_null), default, key, bool(hidden))
                for name, type_, not_null, default, key, hidden in self.query(sql, (table,))
            )
        return self._known_columns[table, definition]

    def script(self) -> str:
        return definitions.text(self.objects(), self.query)

    def fingerprint(self) -> str:
        rows = self.query(f"SELECT type, name, tbl_name, sql {_USER_OBJECTS} ORDER BY type, name")
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def triggers(self, table: str) -> list[str]:
        sql = "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = ?"
        return [name for (name,) in self.query(sql, (table.lower(),))]

    def problems(self, *, quick: bool = False) -> list[str]:
        return find_problems(self.query, self.tables, quick=quick)

    def last_id(self, table: str) -> int:
        return last_id(self.query, table)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.query("BEGIN")
        try:
            yield
        finally:
            self._rollback()

    def orphans(self) -> Counter[Orphan]:
        return find_orphans(self.query)

    def cascades(self, drop_table: str) -> tuple[str, list[str]]:
        return find_cascades(self._connection, drop_table)

    def effects(self, sql: str) -> Effects:
        return find_effects(self._connection, sql)

    reach = staticmethod(find_reach)

    def rebuild(self, rebuild: Rebuild) -> SqliteRebuilding:
        return SqliteRebuilding(self, rebuild)

    # Changing.

    def ledger(self, table: str) -> str:
        return table

    def about(self) -> str:
        ((mode,),) = self.query("PRAGMA journal_mode")
        return f"journal mode {mode}"

    def settle(self) -> None:
        """What a script sets is of no consequence to what is written in its transaction."""

    def enforce_foreign_keys(self, enforce: bool) -> None:
        self._connection.execute(f"PRAGMA foreign_keys = {'ON' if enforce else 'OFF'}")

    def forgo_durability(self) -> None:
        self._connection.execute("PRAGMA synchronous = OFF")

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        before = self._connection.total_changes
        try:
            # An error can come with any row, so all are fetched.
            deque(self._connection.execute(sql, parameters), maxlen=0)
        except sqlite3.Error as error:
            if not codes.is_busy(error):
                raise self._failure(error, sql) from error
            self._patiently(lambda: deque(self._connection.execute(sql, parameters), maxlen=0), "to write", sql)
        return self._connection.total_changes - before

    def lend(self, use: Callable[[Any], object], rules: Borrowing) -> int:
        from financial_agent.migrator.databases.sqlite import guard  # few migrations are written in Python

        before = self._connection.total_changes
        try:
            guard.lend(self._connection, use, rules, self._patience.stop)
        except sqlite3.Error as error:
            if codes.primary_code(error) == codes.FULL:
                raise OutOfSpace(str(error)) from error
            raise
        return self._connection.total_changes - before

    define = execute

    def change(self, sql: str) -> int:
        self.execute(sql)
        return int(self.query("SELECT changes()")[0][0])

    @contextmanager
    def transaction(self, *, foreign_keys: bool = True) -> Iterator[Counter[Orphan]]:
        # PRAGMA foreign_keys is a no-op inside a transaction (https://sqlite.org/pragma.html#pragma_foreign_keys),
        # so it is switched before BEGIN, and checked before COMMIT.
        if not foreign_keys:
            self._connection.execute("PRAGMA foreign_keys = OFF")
        try:
            # IMMEDIATE takes the write lock at once: a deferred transaction fails when another wrote in between.
            self._patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"), "to write", "BEGIN")
            before = Counter[Orphan]() if foreign_keys else self.orphans()
            yield before
            if not foreign_keys and (new := self.orphans() - before):
                raise OrphansLeft(new)
            self._commit()
        finally:
            self._rollback()
            if not foreign_keys:
                self._connection.execute("PRAGMA foreign_keys = ON")

    def _commit(self) -> None:
        try:
            self._patiently(lambda: self._connection.execute("COMMIT"), "to commit", "COMMIT")
        except StatementError:
            # A deferred foreign key fails only here, and leaves the transaction open.
            if self.in_transaction:
                after = self.orphans()
                self._rollback()
                if new := after - self.orphans():
                    raise OrphansLeft(new) from None
            raise

    def _rollback(self) -> None:
        """Leave no transaction open. A failing ROLLBACK must not hide the error that led to it: closing does the same,
        and what the file then still lacks is undone from its journal by the next connection."""
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._connection = self._connect()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """SQLite's own exclusive lock, on an empty file beside the database: it dies with its process, and works on
        every system and file system on which the database itself does. The file stays, as unlinking it would race."""
        if os.path.exists(self.path) and not os.access(
            self.path, os.W_OK
        ):  # a script without a transaction may not meet that before its record
            raise DatabaseReadOnly(database=self.path, folder=self.path.parent, cause=os.strerror(errno.EACCES))
        path = self._beside("migrate-lock")
        run_lock.create(path, self.path)
        with closing(self._take_lock(path)):
            yield

    def _take_lock(self, path: Path) -> sqlite3.Connection:
        holder = None
        busy = RunLocked(lock=path, seconds=self._patience.seconds, look=holders(path))
        try:
            holder = sqlite3.connect(path, isolation_level=None, timeout=0)
            self._wait(partial(run_lock.take, holder), "for the other migration run to end", busy)
        except BaseException as error:
            if holder:
                holder.close()
            if isinstance(error, sqlite3.Error):
                raise DatabaseReadOnly(database=path, folder=path.parent, cause=str(error)) from error
            raise
        return holder

    def note_attempt(self, text: str | None) -> None:
        path = self._beside("migrate-attempt")
        # The history loses a line when this fails; a migration must not fail for it.
        with suppress(OSError):
            if text is None:
                attempts.remove(path)
            else:
                attempts.write(path, text, self.path.stat().st_mode & 0o666)

    def attempt(self) -> str | None:
        return attempts.read(self._beside("migrate-attempt"))

    def _beside(self, suffix: str) -> Path:
        path = self.path.resolve()
        return path.with_name(f"{path.name}-{suffix}")

    # Waiting and failing.

    def _patiently(self, attempt: Callable[[], Result], purpose: str, sql: str) -> Result:
        try:
            return self._wait(attempt, purpose)
        except sqlite3.Error as error:
            raise self._failure(error, sql) from error

    def _wait(self, attempt: Callable[[], Result], purpose: str, busy: MigratorError | None = None) -> Result:
        """Try until it works or patience ends. Every lock is polled: SQLite's own busy handler would not let
        Ctrl-C through, and is passed over where waiting might deadlock."""
        deadline = time.monotonic() + self._patience.seconds
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not codes.is_busy(error):
                    raise
            if time.monotonic() > deadline:
                raise busy or locked(self.path, self._patience.seconds, purpose)
            if self._patience.stop(purpose):
                raise Stopped
            time.sleep(_POLL)

    def _failure(self, error: sqlite3.Error, sql: str) -> Exception:
        match codes.primary_code(error):
            case codes.INTERRUPT:
                return Stopped()
            case codes.FULL:
                return OutOfSpace(str(error))
            case codes.READONLY:  # a file that may not be written is told only by the first write
                return unusable(error, self.path)
            case codes.CANTOPEN | codes.NOTADB | codes.CORRUPT if not self.in_transaction:
                return unusable(error, self.path)
        if isinstance(error, sqlite3.ProgrammingError) and "binding" in str(error):
            message = "a parameter (?, :name, @name or $name) has no value in a migration"
            return StatementError(message, codes.find_parameter(sql))
        offset = codes.find_offset(self._connection, sql, str(error))
        message = codes.without_values(self._connection, sql, error)
        return StatementError(message, offset, constraint=codes.primary_code(error) == codes.CONSTRAINT)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
