"""The engine's own connection, as a Python migration gets it: everything of a DB-API connection works, but for what
would end the transaction, reach the ledger or another database, or take this guard away.

The methods refuse with a clear word. SQLite's authorizer, which is asked while each statement is prepared
(https://sqlite.org/c3ref/set_authorizer.html), refuses the same in SQL, and `commit()` of a connection that was got at
otherwise, which is SQL, too.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn
from weakref import WeakSet

from financial_agent.migrator.databases import Borrowing, Forbidden, Stopped
from financial_agent.migrator.databases.sqlite.foreign_keys import find_cascades

_IT_COMMITS = "Remove it: the engine commits when the function returns, and undoes everything when it raises"
_REFUSED = {
    "commit": ("connection.commit() would end the transaction of the migration", _IT_COMMITS),
    "rollback": ("connection.rollback() would end the transaction of the migration", "Raise an exception to undo all"),
    "close": ("connection.close() would end the transaction of the migration", "Remove it: the engine closes it"),
    "executescript": ("executescript() would commit first", "Call execute() for each statement"),
    "isolation_level": ("isolation_level would change how transactions begin and end", _IT_COMMITS),
    "autocommit": ("autocommit would change how transactions begin and end", _IT_COMMITS),
    "with": ("`with connection:` would commit at its end", "Remove it: the whole function is one transaction already"),
    "set_authorizer": ("set_authorizer() would take the engine's guard away", "Remove it"),
    "set_progress_handler": ("set_progress_handler() would keep Ctrl-C from stopping the run", "Remove it"),
    "setconfig": ("setconfig() would change what the engine relies on", "Remove it"),
    "backup": ("backup() would wait for the end of the migration's own transaction for ever", "Use: flask db backup"),
    "deserialize": ("deserialize() would replace the database", "Remove it"),
}
# What SQLite refuses in a transaction, or silently ignores there (https://sqlite.org/pragma.html).
_OUTSIDE_TRANSACTION = ("journal_mode", "synchronous", "temp_store", "wal_checkpoint")
# The actions that change a table or what belongs to it, with the place of its name among the arguments.
_CHANGES = {
    sqlite3.SQLITE_INSERT: 0,
    sqlite3.SQLITE_UPDATE: 0,
    sqlite3.SQLITE_DELETE: 0,
    sqlite3.SQLITE_CREATE_TABLE: 0,
    sqlite3.SQLITE_CREATE_VIEW: 0,
    sqlite3.SQLITE_CREATE_VTABLE: 0,
    sqlite3.SQLITE_DROP_TABLE: 0,
    sqlite3.SQLITE_ALTER_TABLE: 1,
    sqlite3.SQLITE_CREATE_INDEX: 1,
    sqlite3.SQLITE_CREATE_TRIGGER: 1,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: 1,
    sqlite3.SQLITE_DROP_INDEX: 1,
    sqlite3.SQLITE_DROP_TRIGGER: 1,
}


class Watch:
    """What may not be done with a connection, and the first thing of that kind that was tried."""

    def __init__(self, connection: sqlite3.Connection, rules: Borrowing, stop: Callable[[str], bool]) -> None:
        self.connection = connection
        self.refusal: Forbidden | None = None
        self.opened = WeakSet[sqlite3.Cursor | sqlite3.Blob]()
        self._rules = rules
        self._stop = stop

    def refuse(self, what: str, fix: str) -> NoReturn:
        raise self._remember(what, fix)

    def refuse_method(self, name: str) -> NoReturn:
        self.refuse(*_REFUSED[name])

    def before(self, sql: str) -> None:
        """To be called before each statement. Raises Forbidden and Stopped."""
        if self._stop(""):
            raise Stopped
        if not self.connection.in_transaction:  # a statement would commit by itself
            raise Forbidden("the transaction of the migration has ended", "Look for OR ROLLBACK and RAISE(ROLLBACK)")
        if "drop" in sql.lower() and "cascade" not in self._rules.allow:
            self._refuse_cascade(sql)

    def explained(self, work: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """What the authorizer refuses is "not authorized" to SQLite; here it says why."""
        try:
            return work()
        except sqlite3.DatabaseError:
            if self.refusal:
                raise self.refusal from None
            raise

    def authorize(
        self, action: int, first: str | None, second: str | None, _schema: str | None, _by: str | None
    ) -> int:
        if reason := self._forbidden(action, first, second):
            self._remember(*reason)
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK if self.connection.in_transaction else sqlite3.SQLITE_DENY

    def _forbidden(self, action: int, first: str | None, second: str | None) -> tuple[str, str] | None:
        match action:
            case sqlite3.SQLITE_TRANSACTION | sqlite3.SQLITE_SAVEPOINT:
                word = first if action == sqlite3.SQLITE_TRANSACTION else "SAVEPOINT"
                return f"{word} would end or split the transaction of the migration", _IT_COMMITS
            case sqlite3.SQLITE_ATTACH | sqlite3.SQLITE_DETACH if "attach" not in self._rules.allow:
                word = "ATTACH" if action == sqlite3.SQLITE_ATTACH else "DETACH"
                what = f"{word} reaches another database, which this migration's transaction does not cover"
                return what, "If it is meant, add the line: # migrate:allow attach"
            case sqlite3.SQLITE_PRAGMA if second is not None and first in _OUTSIDE_TRANSACTION:
                fix = "Put it into an SQL file of its own whose section begins with: -- migrate:up transaction:false"
                return f"PRAGMA {first} does nothing inside a transaction", fix
            case sqlite3.SQLITE_PRAGMA if second is not None and first == "foreign_keys":
                fix = "To switch foreign keys off, add the line: # migrate:foreign_keys off"
                return "PRAGMA foreign_keys does nothing inside a transaction", fix
        if action in _CHANGES:
            table = ((first, second)[_CHANGES[action]] or "").lower()
            return self._protected(table)
        return None

    def refuse_protected(self, table: str) -> None:
        if reason := self._protected(table.lower()):
            self.refuse(*reason)

    def _protected(self, table: str) -> tuple[str, str] | None:
        if table not in self._rules.protected:
            return None
        return f"it would change {table}, which records the migrations", "Remove that"

    def _refuse_cascade(self, sql: str) -> None:
        try:
            table, children = find_cascades(self.connection, sql)
        finally:
            self.connection.set_authorizer(self.authorize)  # finding them takes another's place
        if children:
            what = f"DROP TABLE {table} would delete or clear rows of {', '.join(children)} through ON DELETE"
            fix = (
                "To rebuild the table and keep those rows, add the line: # migrate:foreign_keys off\n"
                "If the rows should go, add the line: # migrate:allow cascade"
            )
            self.refuse(what, fix)

    def _remember(self, what: str, fix: str) -> Forbidden:
        refusal = Forbidden(
            what, fix, tuple((frame.filename, frame.lineno or 1) for frame in traceback.extract_stack())
        )
        self.refusal = self.refusal or refusal
        return refusal


class GuardedCursor(sqlite3.Cursor):
    """A cursor whose connection is the guarded one."""

    def __init__(self, guard: GuardedConnection, watch: Watch) -> None:
        super().__init__(watch.connection)
        self._guard = guard
        self._watch = watch
        watch.opened.add(self)

    @property
    def connection(self) -> Any:
        return self._guard

    def execute(self, sql: str, parameters: Any = (), /) -> GuardedCursor:
        self._watch.before(sql)
        self._watch.explained(lambda: super(GuardedCursor, self).execute(sql, parameters))
        return self

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> GuardedCursor:
        self._watch.before(sql)
        self._watch.explained(lambda: super(GuardedCursor, self).executemany(sql, parameters))
        return self

    def executescript(self, sql_script: str, /) -> NoReturn:
        self._watch.refuse_method("executescript")


class GuardedConnection:
    """Stands where the connection would. What is not named here is the connection's own."""

    __slots__ = ("_watch",)
    _watch: Watch

    def __init__(self, watch: Watch) -> None:
        object.__setattr__(self, "_watch", watch)

    def cursor(self) -> GuardedCursor:
        return self._watch.connection.cursor(lambda _: GuardedCursor(self, self._watch))

    def execute(self, sql: str, parameters: Any = (), /) -> GuardedCursor:
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> GuardedCursor:
        return self.cursor().executemany(sql, parameters)

    def blobopen(self, table: str, column: str, row: int, /, **options: Any) -> sqlite3.Blob:
        self._watch.refuse_protected(table)  # the authorizer is not asked
        blob = self._watch.connection.blobopen(table, column, row, **options)
        self._watch.opened.add(blob)
        return blob

    def __enter__(self) -> NoReturn:
        self._watch.refuse_method("with")

    def __exit__(self, *_: object) -> None:
        """Python wants it to be there before it calls `__enter__`."""

    def __getattr__(self, name: str) -> Any:
        if name in _REFUSED and callable(getattr(self._watch.connection, name, None)):
            return lambda *_, **__: self._watch.refuse_method(name)
        return getattr(self._watch.connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _REFUSED:
            self._watch.refuse_method(name)
        if name not in ("row_factory", "text_factory"):
            raise AttributeError(f"a connection's attribute {name!r} cannot be set")
        setattr(self._watch.connection, name, value)


def lend(
    connection: sqlite3.Connection,
    use: Callable[[Any], object],
    rules: Borrowing,
    stop: Callable[[str], bool],
) -> None:
    """Call a function with the guarded connection. What it has set on it does not outlive the call, but for functions
    and collations.

    Raises Stopped when the caller asked to stop, Forbidden when anything was refused, whatever the function made of
    it, else what the function raises.
    """
    watch = Watch(connection, rules, stop)
    factories = connection.row_factory, connection.text_factory
    connection.set_authorizer(watch.authorize)
    failure: BaseException | None = None
    try:
        use(GuardedConnection(watch))
    except BaseException as error:
        failure = error
    finally:
        for each in watch.opened:
            with suppress(sqlite3.Error):  # it was never used, or used in another thread
                each.close()  # an INSERT … RETURNING of which not all was fetched would keep the commit waiting
        connection.set_authorizer(None)
        connection.set_trace_callback(None)
        connection.row_factory, connection.text_factory = factories
    if stop(""):
        raise Stopped from failure
    if watch.refusal:
        raise watch.refusal from None
    if failure:
        raise failure
