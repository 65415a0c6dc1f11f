"""MySQL and MariaDB through PyMySQL, in autocommit mode: every START TRANSACTION and COMMIT is the engine's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from financial_agent.migrator.databases import (
    Answer,
    Borrowing,
    CommitLost,
    ConnectionLost,
    ForeignKey,
    Orphan,
    OrphansLeft,
    Patience,
    Row,
    SchemaObject,
    StatementError,
)
from financial_agent.migrator.databases.mysql import errors, schema
from financial_agent.migrator.databases.mysql.dial import Connection, change, dial, is_node, usual_decoders
from financial_agent.migrator.databases.mysql.foreign_keys import find_orphans
from financial_agent.migrator.databases.mysql.lock import SessionLock
from financial_agent.migrator.databases.reach import reach as find_reach
from financial_agent.migrator.databases.server import LEDGER_TABLES, ServerDatabase, with_marks
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import DatabaseUnusable, MigratorError

_LEASES = "_migration_lock"
_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS, which the server sends with the end of each statement
# What leaves nothing on the connection: neither a setting, nor a variable, nor a temporary table.
_LEAVES_NOTHING = re.compile(
    r"(?:INSERT|UPDATE|DELETE|REPLACE|ALTER|RENAME|TRUNCATE|DROP|GRANT|REVOKE"
    r"|CREATE\s+(?:TABLE|(?:UNIQUE\s+)?INDEX|VIEW))\b[^@]*$",
    re.IGNORECASE,
)

_CHANGES = re.compile(r"(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH)\b", re.IGNORECASE)
# What commits by itself all that is open before it begins (https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/).
_COMMITS = re.compile(r"(?:ALTER|CREATE|DROP|RENAME|TRUNCATE|GRANT|REVOKE)\b", re.IGNORECASE)

if TYPE_CHECKING:
    from financial_agent.migrator.databases.mysql.lease import Lease

Result = TypeVar("Result")


class _Walked(NamedTuple):
    """What came of a statement whose rows were not kept."""

    answer: Answer
    changed: int


class MysqlDatabase(ServerDatabase):
    """One connection to one database of a server."""

    dialect = "mysql"
    has_transactional_ddl = False
    default_row = "() VALUES ()"
    ledger_types: Mapping[str, str] = {
        "id": "BIGINT PRIMARY KEY AUTO_INCREMENT",
        "name": "VARCHAR(255) UNIQUE NOT NULL",
        "key": "VARCHAR(255) PRIMARY KEY NOT NULL",
        "moment": "DATETIME DEFAULT (utc_timestamp())",
        "text": "LONGTEXT",
        "required": "LONGTEXT NOT NULL",
        "number": "BIGINT",
        "count": "BIGINT NOT NULL",
        "bytes": "LONGBLOB",
    }
    # MyISAM undoes nothing, and names differ by case.
    ledger_options = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"

    def __init__(self, address: str, url: Url, *, readonly: bool = False, patience: Patience) -> None:
        super().__init__(address, url, readonly=readonly, patience=patience)
        self._leaves_something = False
        self._without_undo: Mapping[str, str] | None = None  # what schema.without_undo told, until a definition
        self._lock: SessionLock | Lease | None = None
        self._connection: Connection = None
        try:
            self._connection = self._dial()
        except BaseException:
            self._worker.close()
            raise

    # Opening and closing.

    def _dial(self) -> Connection:
        return self._worker.run(partial(dial, self.url, readonly=self._readonly), "for the server to answer")

    def reset(self, *, settings: bool) -> None:
        """A new session is the only one that is sure to be as it was."""
        if self._leaves_something or settings:
            self._hang_up()
            try:
                self._connection = self._dial()
            except DatabaseUnusable as error:  # it was there until now
                raise ConnectionLost(f"the connection to the server was lost: {error.fields['cause']}") from error
            self._leaves_something = False
            if self._lock:
                self._lock.renew()

    def close(self) -> None:
        self._hang_up()
        self._worker.close()

    def _hang_up(self) -> None:
        if self._connection:
            connection, self._connection = self._connection, None
            with suppress(Exception):  # PyMySQL refuses to close what is closed
                connection.close()

    def _cancel(self) -> None:
        """KILL QUERY, from another session: closing this one would leave the server working."""
        if self._connection is None:
            return
        identity = self._connection.thread_id()
        with suppress(MigratorError, StatementError), closing(dial(self.url)) as other:
            change(other, f"KILL QUERY {identity}")

    # Asking.

    @property
    def space_hint(self) -> str:
        return "SELECT @@datadir; and there, on the server: df -h"

    def about(self) -> str:
        ((version,),) = self.query("SELECT version()")
        return f"{'MariaDB' if 'MariaDB' in version else 'MySQL'} {version.partition('-')[0]}"

    def look_hint(self, table: str) -> str:
        return f"SHOW CREATE TABLE {self.ledger(table)};"

    @property
    def home(self) -> str:
        return self.url.name

    @property
    def in_transaction(self) -> bool:
        return self._connection is not None and bool(self._connection.server_status & _IN_TRANSACTION)

    def _ask(self, sql: str, parameters: Sequence[object]) -> tuple[tuple[str, ...], list[Row], int]:
        return self._call(partial(_fetch, sql=sql, parameters=parameters), sql)

    def answer(self, sql: str) -> Answer:
        return self._call(partial(_walk, sql=sql), sql).answer

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        if parameters:
            return super().execute(sql, parameters)
        self._leaves_something = self._leaves_something or not _LEAVES_NOTHING.match(sql)
        self._refuse_undoable(sql)
        if _COMMITS.match(sql):
            self._without_undo = None
            if self._lock and self.in_transaction:
                self._lock.fence()  # in what it commits before it begins
        return self._call(partial(_walk, sql=sql), sql).changed

    def change(self, sql: str) -> int:
        self._refuse_undoable(sql)
        return super().change(sql)

    def _refuse_undoable(self, sql: str) -> None:
        """Raise StatementError for a change of rows that a ROLLBACK would leave as it is."""
        if not self.in_transaction or not _CHANGES.match(sql):
            return
        if self._without_undo is None:
            self._without_undo = schema.without_undo(self.query)
        for table in self.effects(sql).written & self._without_undo.keys() if self._without_undo else ():
            engine = self._without_undo[table]
            fix = f"ALTER TABLE {self.quoted(table)} ENGINE=InnoDB"
            raise StatementError(f"{table} is a table of {engine}, which undoes nothing when a migration fails: {fix}")

    def _call(self, use: Callable[[Connection], Result], sql: str = "") -> Result:
        """Use the connection in the worker's thread. Raises StatementError and what comes of it, and Stopped."""
        connection = self._connection
        if connection is None or not connection.open:
            raise ConnectionLost("the connection to the server was lost")
        import pymysql  # it is there: there is a connection

        try:
            return self._worker.run(partial(use, connection))
        except pymysql.Error as error:
            raise self._failure(error, sql) from None  # its own text may quote a row
        except UnicodeEncodeError:
            raise StatementError("it holds characters that are no Unicode text") from None

    def _failure(self, error: Exception, sql: str) -> StatementError:
        found = errors.failure(error, sql)
        if not isinstance(found, ConnectionLost):
            self._look()
        return found

    def _look(self) -> None:
        """Learn whether a transaction is open: an error, which may have rolled it back, does not tell."""
        with suppress(Exception):  # the next statement will tell
            if self._connection:
                self._connection.ping(reconnect=False)

    def columns(self, table: str) -> list[str]:
        return schema.columns(self.query, table, self._home_of(table))

    def tables(self) -> dict[str, list[str]]:
        return schema.tables(self.query)

    def foreign_keys(self, table: str) -> list[ForeignKey]:
        return schema.foreign_keys(self.query, table)

    def counts(self, table: str, columns: Sequence[str]) -> list[int]:
        wanted = ", ".join(["count(*)", *(f"count({self.quoted(column)})" for column in columns)])
        return [int(count) for count in self.query(f"SELECT {wanted} FROM {self.quoted(table)}")[0]]

    def size(self, table: str) -> int:
        # A consistent read locks nobody out.
        return int(self.query(f"SELECT count(*) FROM {self.quoted(table)}")[0][0])

    def objects(self) -> list[SchemaObject]:
        return schema.objects(self.query, self.url.name)

    def script(self) -> str:
        from financial_agent.migrator.databases.mysql import dump

        return dump.text(self.objects(), self.query)

    def fingerprint(self) -> str:
        return schema.fingerprint(self.query)

    def triggers(self, table: str) -> list[str]:
        return schema.triggers(self.query, table, self._home_of(table))

    def problems(self, *, quick: bool = False) -> list[str]:
        return schema.problems(self.query, self.tables(), quick=quick)

    def orphans(self) -> Counter[Orphan]:
        return find_orphans(self.query)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            yield
        finally:
            self._rollback()

    @cached_property
    def other_databases(self) -> frozenset[str]:
        # What an administrator's views tell is read by many a statement, and written by none.
        found = {name.lower() for (name,) in self.query("SHOW DATABASES")} - {self.url.name.lower()}
        return frozenset(found - {"information_schema", "performance_schema", "sys"})

    def reach(self, sql: str) -> str:
        return find_reach(sql, self.dialect, self.other_databases)

    # Changing.

    def quoted(self, name: str) -> str:
        return schema.quoted(name)

    def ledger(self, table: str) -> str:
        home = self.url.ledger_schema
        return f"{self.quoted(home)}.{self.quoted(table)}" if home else self.quoted(table)

    def _home_of(self, table: str) -> str:
        """The database that a table is in."""
        return (self.url.ledger_schema if table in LEDGER_TABLES else None) or self.home

    def enforce_foreign_keys(self, enforce: bool) -> None:
        self.query(f"SET SESSION foreign_key_checks = {int(enforce)}")

    def forgo_durability(self) -> None:
        """Durability is the server's, not a session's."""

    @contextmanager
    def transaction(self, *, foreign_keys: bool = True) -> Iterator[Counter[Orphan]]:
        if not foreign_keys:
            self.enforce_foreign_keys(False)
        try:
            if self._lock:
                self._lock.ensure()
            self.query("START TRANSACTION")
            before = Counter[Orphan]() if foreign_keys else self.orphans()
            yield before
            if not foreign_keys and (new := self.orphans() - before):
                raise OrphansLeft(new)
            self._commit()
        finally:
            self._rollback()
            if not foreign_keys:
                with suppress(ConnectionLost):  # it must not hide what led to it
                    self.enforce_foreign_keys(True)

    def _commit(self) -> None:
        if self._lock and self.in_transaction:
            self._lock.fence()
        try:
            with self._to_the_end():  # who is asked to stop meanwhile could not tell what became of it
                self.query("COMMIT")
        except ConnectionLost as error:
            raise CommitLost(str(error)) from error

    def _rollback(self) -> None:
        """Leave no transaction open. A ROLLBACK that fails must not hide the error that led to it: the server does the
        same when the connection ends."""
        if self.in_transaction:
            with suppress(StatementError), self._to_the_end():
                self.query("ROLLBACK")

    def settle(self) -> None:
        """What a script sets is undone behind its transaction. But whoever has taken the lock over meanwhile may have
        written the record that comes next."""
        if self._lock:
            self._lock.fence()

    def lend(self, use: Callable[[Any], object], rules: Borrowing) -> int:
        from financial_agent.migrator.databases.mysql import guard  # few migrations are written in Python

        connection = self._connection
        guarded = guard.Guard(connection, rules, self._patience.stop, self._worker.run, lambda: self.in_transaction)
        decoders, connection.decoders = connection.decoders, dict(usual_decoders())
        self._leaves_something = True
        try:
            return guard.lend(guarded, use)
        finally:
            connection.decoders = decoders
            self._look()

    def define(self, sql: str) -> None:
        is_inside = self.in_transaction
        self.query(sql)
        if is_inside:  # it was committed
            self.query("START TRANSACTION")

    @contextmanager
    def lock(self) -> Iterator[None]:
        # An administrator may write there all the same, and a replica would then differ from what it follows.
        if self.query("SELECT @@global.read_only") == [(1,)]:
            fix = "Give the address of the server that it follows, or see who set it: SHOW REPLICA STATUS;"
            raise DatabaseUnusable(database=self.name, cause="the server is read-only, as replicas are", fix=fix)
        lock: SessionLock | Lease = SessionLock(self.url, self._patience, self.query)
        if self._worker.run(partial(is_node, self._connection)):
            from financial_agent.migrator.databases.mysql.lease import Lease  # few servers are nodes

            is_there = bool(self.columns(_LEASES))
            lock = Lease(self.url, self._patience, self.query, self.ledger(_LEASES), is_there=is_there)
        with lock.held():
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None


def _fetch(connection: Connection, *, sql: str, parameters: Sequence[object]) -> tuple[tuple[str, ...], list[Row], int]:
    with connection.cursor() as cursor:
        cursor.execute(with_marks(sql, parameters), tuple(parameters) or None)
        if cursor.description is None:
            return (), [], max(cursor.rowcount, 0)
        return tuple(name for name, *_ in cursor.description), [tuple(row) for row in cursor.fetchall()], 0


def _walk(connection: Connection, *, sql: str) -> _Walked:
    """Run a statement to the end of its last result (CALL has several), whose rows are not kept."""
    from pymysql.cursors import SSCursor

    columns: tuple[str, ...] = ()
    first: Row | None = None
    rows = changed = 0
    with connection.cursor(SSCursor) as cursor:
        cursor.execute(sql)
        while True:
            if cursor.description is None:
                changed += max(cursor.rowcount, 0)
            else:
                columns = columns or tuple(name for name, *_ in cursor.description)
                for row in cursor:
                    rows += 1
                    first = tuple(row) if first is None else first
            if not cursor.nextset():
                break
    if columns:
        connection.ping(reconnect=False)  # what is streamed does not tell whether a transaction is open
    return _Walked(Answer(columns, rows, first), changed)
