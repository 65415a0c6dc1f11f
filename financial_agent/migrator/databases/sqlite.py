"""SQLite through the standard library's sqlite3, in autocommit mode: every BEGIN and COMMIT is the engine's own."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from financial_agent.migrator.databases import (
    Orphan,
    OrphansLeft,
    OutOfSpace,
    Patience,
    Row,
    StatementError,
    Stopped,
)
from financial_agent.migrator.errors import (
    DatabaseFolderMissing,
    DatabaseLocked,
    DatabaseReadOnly,
    DatabaseUnsupported,
    DatabaseUnusable,
    MigratorError,
    RunLocked,
)

# Primary result codes (https://sqlite.org/rescode.html).
_PERM, _BUSY, _READONLY, _INTERRUPT, _IOERR, _CORRUPT = 3, 5, 8, 9, 10, 11
_FULL, _CANTOPEN, _PROTOCOL, _CONSTRAINT, _NOTADB = 13, 14, 15, 19, 26

_POLL = 0.05  # seconds between two tries for a lock
_TICK = 20_000  # virtual machine instructions between two questions whether to stop: well under 100 ms

# Everything that is not the ledger's, SQLite's, or Litestream's (which adds two tables to what it replicates).
_USER_OBJECTS = """\
FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'
AND tbl_name NOT IN ('_migrations', '_migration_history', '_litestream_seq', '_litestream_lock')"""

_near = re.compile(r'near "(.*)": |unrecognized token: "(.*)"', re.DOTALL)
_named = re.compile(
    r"(?:no such \w+(?: \w+)?|duplicate column name|no column named|table|index|view|trigger)[: ]+(\S+)"
)

Result = TypeVar("Result")


def path_of(database: str) -> Path:
    """The file that a path or a `sqlite:///path` URL names. Raises DatabaseUnsupported."""
    path = database.removeprefix("sqlite:///")
    if path == database and re.match(r"[a-z][a-z0-9+.-]*:/", database):
        from financial_agent.migrator.databases import display_name

        raise DatabaseUnsupported(database=display_name(database), why="this version runs on SQLite only")
    if path in ("", ":memory:") or path.startswith("file:"):
        why = "every connection to it would be a new, empty one" if path != "" else "it is empty"
        raise DatabaseUnsupported(database=database, why=why if not path.startswith("file:") else "it is a URI")
    if "\0" in path:
        raise DatabaseUnsupported(database=database, why="it holds a NUL byte")
    return Path(path)


class SqliteDatabase:
    """One connection to one file."""

    dialect = "sqlite"

    def __init__(self, path: Path, *, readonly: bool = False, patience: Patience) -> None:
        self.path = path
        self.name = str(path)
        self.folder = str(path.parent)
        self._readonly = readonly
        self._patience = patience
        self._connection = self._connect()

    # Opening and closing.

    def _connect(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise DatabaseUnusable(database=self.name, cause="it is a folder", fix="Name a file with --database")
        if not self.path.parent.is_dir():
            raise DatabaseFolderMissing(database=self.name, folder=self.path.parent)
        connection = self._open("ro" if self._readonly else "rwc")
        try:
            if self._readonly:
                self._wait(lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall(), "reading")
            else:
                self._wait(lambda: self._configure(connection), "reading")
        except sqlite3.OperationalError as error:
            connection.close()
            if self._readonly and _primary(error) in (_READONLY, _CANTOPEN):
                # A killed run left its journal, which only a connection that may write can roll back.
                connection = self._open("rw")
                self._configure(connection)
                connection.execute("PRAGMA query_only = ON")
                return connection
            raise self._unusable(error) from error
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._unusable(error) from error
            raise
        return connection

    def _open(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            # No statement cache: a cached statement of megabytes would stay in memory.
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_POLL, cached_statements=0)
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        connection.set_progress_handler(lambda: self._patience.stop(""), _TICK)
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        connection.execute("PRAGMA foreign_keys = ON")
        # FULL does not sync the unlinking of the journal: after a power loss a commit that was
        # reported as done could be rolled back (https://sqlite.org/pragma.html#pragma_synchronous).
        connection.execute("PRAGMA synchronous = EXTRA")

    def _unusable(self, error: sqlite3.Error) -> MigratorError:
        match _primary(error):
            case code if code == _NOTADB:
                cause, fix = "it is not a SQLite database", f"Look at it with: file {self.name}"
            case code if code == _CORRUPT:
                cause, fix = str(error), f"Restore a backup, or try: sqlite3 {self.name} .recover"
            case code if code == _READONLY:
                return DatabaseReadOnly(database=self.name, folder=self.path.parent, cause=str(error))
            case _:
                cause, fix = str(error), f"ls -ld {self.name} {self.path.parent}"
        return DatabaseUnusable(database=self.name, cause=cause, fix=fix)

    def reset(self, *, settings: bool) -> None:
        if settings or self.query("SELECT 1 FROM temp.sqlite_schema LIMIT 1"):
            self._connection.close()
            self._connection = self._connect()

    def close(self) -> None:
        self._connection.close()

    def scratch(self) -> SqliteDatabase:
        return _Scratch(self)

    # Asking.

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        return self._patiently(lambda: self._connection.execute(sql, parameters).fetchall(), "reading", sql)

    def columns(self, table: str) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM pragma_table_info(?)", (table,))]

    def tables(self) -> dict[str, list[str]]:
        names = self.query(f"SELECT name {_USER_OBJECTS} AND type = 'table' ORDER BY name")
        return {name: self.columns(name) for (name,) in names}

    def count(self, table: str, column: str = "") -> int:
        return int(self.query(f"SELECT count({_quoted(column) if column else '*'}) FROM {_quoted(table)}")[0][0])

    def fingerprint(self) -> str:
        rows = self.query(f"SELECT type, name, tbl_name, sql {_USER_OBJECTS} ORDER BY type, name")
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def orphans(self) -> Counter[Orphan]:
        found: Counter[Orphan] = Counter()
        for (table,) in self.query("SELECT name FROM sqlite_schema WHERE type = 'table'"):
            try:
                rows = self.query("SELECT rowid, parent, fkid FROM pragma_foreign_key_check(?)", (table,))
            except StatementError:  # "foreign key mismatch": the parent has no unique key that fits
                found[Orphan(table, "a parent without the referenced key", None)] += 1
                continue
            keys = {fkid: self._key_query(table, fkid) for fkid in {fkid for _, _, fkid in rows}}
            for rowid, parent, fkid in rows:
                # A rebuild may renumber rows, so the key's values tell them apart; WITHOUT ROWID tables are counted.
                key = None if rowid is None else self.query(keys[fkid], (rowid,))[0]
                found[Orphan(table, parent, key)] += 1
        return found

    def _key_query(self, table: str, fkid: int) -> str:
        sql = 'SELECT "from" FROM pragma_foreign_key_list(?) WHERE id = ? ORDER BY seq'
        columns = ", ".join(_quoted(name) for (name,) in self.query(sql, (table, fkid)))
        return f"SELECT {columns} FROM {_quoted(table)} WHERE rowid = ?"

    def cascades(self, drop_table: str) -> tuple[str, list[str]]:
        dropped, changed = "", set[str]()

        def note(action: int, name: str | None, _column: str | None, _schema: str | None, _by: str | None) -> int:
            nonlocal dropped
            if action in (sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_TEMP_TABLE):
                dropped = name or ""
            elif action in (sqlite3.SQLITE_DELETE, sqlite3.SQLITE_UPDATE) and name:
                changed.add(name)
            return sqlite3.SQLITE_OK

        # While it prepares a DROP TABLE, SQLite asks leave for each table that foreign key actions would change.
        self._connection.set_authorizer(note)
        try:
            self._connection.execute(f"EXPLAIN {drop_table}").fetchall()
        except sqlite3.Error:
            return "", []  # running it will tell why
        finally:
            self._connection.set_authorizer(None)
        return dropped, sorted(name for name in changed - {dropped} if not name.startswith("sqlite_"))

    # Changing.

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        before = self._connection.total_changes
        try:
            # An error can come with any row, so all are fetched.
            deque(self._connection.execute(sql, parameters), maxlen=0)
        except sqlite3.Error as error:
            if _primary(error) not in (_BUSY, _PROTOCOL):
                raise self._failure(error, sql) from error
            self._patiently(lambda: deque(self._connection.execute(sql, parameters), maxlen=0), "writing", sql)
        return self._connection.total_changes - before

    @contextmanager
    def transaction(self, *, foreign_keys: bool = True) -> Iterator[Counter[Orphan]]:
        # PRAGMA foreign_keys is a no-op inside a transaction (https://sqlite.org/pragma.html#pragma_foreign_keys),
        # so it is switched before BEGIN, and checked before COMMIT.
        if not foreign_keys:
            self._connection.execute("PRAGMA foreign_keys = OFF")
        try:
            # IMMEDIATE takes the write lock at once: a deferred transaction fails when another wrote in between.
            self._patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"), "writing", "BEGIN")
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
            self._patiently(lambda: self._connection.execute("COMMIT"), "committing", "COMMIT")
        except StatementError:
            # A deferred foreign key fails only here, and leaves the transaction open.
            if self._connection.in_transaction and (orphans := self.orphans()):
                raise OrphansLeft(orphans) from None
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
        path = self.path.resolve()
        path = path.with_name(f"{path.name}-migrate-lock")
        self._create_lock_file(path)
        holder = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            busy = RunLocked(lock=path, seconds=self._patience.seconds)
            try:
                self._wait(lambda: holder.execute("BEGIN EXCLUSIVE"), "the other migration run", busy)
            except sqlite3.Error as error:
                raise DatabaseReadOnly(database=path, folder=path.parent, cause=str(error)) from error
            yield
        finally:
            holder.close()

    def _create_lock_file(self, path: Path) -> None:
        """As SQLite does with its journal: whoever may write to the database may lock it, whoever came first."""
        owner = os.stat(self.path)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, owner.st_mode & 0o777))
        except FileExistsError:
            return
        except OSError as error:
            cause = f"{error.strerror}: {path.name}"
            raise DatabaseReadOnly(database=self.name, folder=path.parent, cause=cause) from error
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)

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
                if _primary(error) not in (_BUSY, _PROTOCOL):
                    raise
            if time.monotonic() > deadline:
                raise busy or DatabaseLocked(database=self.name, seconds=self._patience.seconds, purpose=purpose)
            if self._patience.stop(purpose):
                raise Stopped
            time.sleep(_POLL)

    def _failure(self, error: sqlite3.Error, sql: str) -> Exception:
        match _primary(error):
            case code if code == _INTERRUPT:
                return Stopped()
            case code if code == _FULL:
                return OutOfSpace(str(error))
            case code if code in (_READONLY, _CANTOPEN, _NOTADB, _CORRUPT) and not self._connection.in_transaction:
                return self._unusable(error)
        if isinstance(error, sqlite3.ProgrammingError) and "binding" in str(error):
            return StatementError("a parameter (?, :name, @name or $name) has no value in a migration")
        return StatementError(str(error), self._offset(sql, str(error)))

    def _offset(self, sql: str, message: str) -> int | None:
        """Where in a statement its error is. Python tells only the token. A parser that stops at the first error stops
        there for every longer prefix too, so the token's guilty occurrence is found by bisection."""
        if near := _near.search(message):
            token = near[1] or near[2] or ""
            places = [match.start() for match in re.finditer(_whole(token), sql)] if token else []
            low, high = 0, len(places)
            while low < high:
                middle = (low + high) // 2
                if self._fails_alike(sql[: places[middle] + len(token)], message):
                    high = middle
                else:
                    low = middle + 1
            return places[low] if low < len(places) else None
        if message == "incomplete input":
            return max(len(sql.rstrip("; \t\r\n")) - 1, 0)
        if named := _named.search(message):
            places = [match.start() for match in re.finditer(_whole(named[1].split(".")[-1]), sql, re.IGNORECASE)]
            return places[0] if len(places) == 1 else None
        return None

    def _fails_alike(self, prefix: str, message: str) -> bool:
        try:
            self._connection.execute(f"EXPLAIN {prefix}").close()
        except sqlite3.Error as error:
            return str(error) == message
        return False


class _Scratch(SqliteDatabase):
    """The schema of another database, without its rows, in memory."""

    def __init__(self, original: SqliteDatabase) -> None:
        self._objects = original.query("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
        super().__init__(original.path, patience=original._patience)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        for (sql,) in self._objects:
            try:
                connection.execute(sql)
            except sqlite3.Error:
                # A virtual table makes its own shadow tables, and its module may be missing here: what cannot be
                # copied is left to the real run.
                continue
        connection.execute("PRAGMA foreign_keys = ON")
        return connection


def _primary(error: BaseException) -> int:
    """An error's primary result code; 0 when it is Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _whole(token: str) -> str:
    """A pattern for a token that is not part of a longer word."""
    head = r"(?<![\w$])" if re.match(r"\w", token) else ""
    tail = r"(?![\w$])" if re.search(r"\w$", token) else ""
    return head + re.escape(token) + tail
