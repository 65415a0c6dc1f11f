"""Lends the connection to code of the user's that must not end the transaction, or reach the ledger.

The methods refuse with a clear word, and statements are refused by their words. What goes past both, such as a function
in the database that writes to the ledger, is found behind the code, and undone.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from financial_agent.migrator.databases.database import Borrowing, Forbidden, StatementError, Stopped
from financial_agent.migrator.databases.postgresql import dial, errors, results
from financial_agent.migrator.databases.server import Worker
from financial_agent.migrator.lexer import tokens

_IT_COMMITS = "Remove it: the engine commits when the function returns, and undoes everything when it raises"
_REFUSED = {
    "commit": ("connection.commit() would end the transaction of the migration", _IT_COMMITS),
    "rollback": ("connection.rollback() would end the transaction of the migration", "Raise an exception to undo all"),
    "close": ("connection.close() would end the transaction of the migration", "Remove it: the engine closes it"),
    "transaction": ("connection.transaction() would split the transaction of the migration", _IT_COMMITS),
    "pipeline": ("connection.pipeline() would tell of errors only later", "Use executemany() for many rows"),
    "autocommit": ("autocommit would change how transactions begin and end", _IT_COMMITS),
    "isolation_level": ("isolation_level would change how transactions begin and end", _IT_COMMITS),
    "with": ("`with connection:` would commit at its end", "Remove it: the whole function is one transaction already"),
    "cancel": ("connection.cancel() is how the engine stops a run", "Remove it"),
    "cancel_safe": ("connection.cancel_safe() is how the engine stops a run", "Remove it"),
    "tpc_begin": ("a two-phase commit would end the transaction of the migration", _IT_COMMITS),
    "tpc_prepare": ("a two-phase commit would end the transaction of the migration", _IT_COMMITS),
    "tpc_commit": ("a two-phase commit would end the transaction of the migration", _IT_COMMITS),
}
_SETTABLE = ("row_factory",)
_CONTROL = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"}
_STATE = """\
SELECT txid_current(), (SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_xact_all_tables
WHERE relname IN ({names}))"""

Result = TypeVar("Result")


class Watch:
    """What may not be done with a connection, and the first thing of that kind that was tried."""

    def __init__(self, connection: dial.Connection, worker: Worker, rules: Borrowing) -> None:
        self.connection = connection
        self.refusal: Forbidden | None = None
        self.changed = 0
        self._worker = worker
        self._rules = rules

    def refuse(self, what: str, fix: str) -> NoReturn:
        frames = tuple((frame.filename, frame.lineno or 1) for frame in traceback.extract_stack())
        refusal = Forbidden(what, fix, frames)
        self.refusal = self.refusal or refusal
        raise refusal

    def refuse_method(self, name: str) -> NoReturn:
        self.refuse(*_REFUSED[name])

    def run(self, query: Any, work: Callable[[], Result]) -> Result:
        """Do what sends a query, unless that is refused. Raises Forbidden and Stopped."""
        self._examine(_text(query, self.connection))
        return self._worker.run(work)

    def count(self, cursor: psycopg.Cursor[Any]) -> None:
        self.changed += results.changed(cursor.pgresult) if cursor.pgresult else 0

    def _examine(self, sql: str) -> None:
        previous = ";"
        for word in tokens(sql, "postgresql"):
            begins = previous == ";"
            previous, name = word, word.strip('"').upper()
            if begins and (name in _CONTROL):
                self.refuse(f"{name} would end or split the transaction of the migration", _IT_COMMITS)
            if name.lower() in self._rules.protected:
                self.refuse(f"it would reach {name.lower()}, which records the migrations", "Remove that")


class GuardedCursor(psycopg.Cursor[Any]):
    """A cursor whose connection is the guarded one."""

    def __init__(self, guard: GuardedConnection, watch: Watch) -> None:
        super().__init__(watch.connection)
        self._guard = guard
        self._watch = watch

    @property
    def connection(self) -> Any:
        return self._guard

    def execute(self, query: Any, params: Any = None, **options: Any) -> GuardedCursor:
        self._watch.run(query, lambda: super(GuardedCursor, self).execute(query, params, **options))
        self._watch.count(self)
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        self._watch.run(query, lambda: super(GuardedCursor, self).executemany(query, params_seq, **options))
        self._watch.changed += max(self.rowcount, 0)

    def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
        self._watch.run(statement, lambda: None)
        return super().copy(statement, params, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Any:
        self._watch.run(query, lambda: None)
        return super().stream(query, params, **options)


class GuardedConnection:
    """Stands where the connection would. What is not named here is the connection's own."""

    __slots__ = ("_watch",)
    _watch: Watch

    def __init__(self, watch: Watch) -> None:
        object.__setattr__(self, "_watch", watch)

    def cursor(self, *, row_factory: Any = None, **options: Any) -> Any:
        if options:  # a cursor on the server, which only reads
            return self._watch.connection.cursor(row_factory=row_factory, **options)
        cursor = GuardedCursor(self, self._watch)
        if row_factory:
            cursor.row_factory = row_factory
        return cursor

    def execute(self, query: Any, params: Any = None, **options: Any) -> GuardedCursor:
        cursor: GuardedCursor = self.cursor()
        return cursor.execute(query, params, **options)

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
        if name not in _SETTABLE:
            raise AttributeError(f"a connection's attribute {name!r} cannot be set")
        setattr(self._watch.connection, name, value)


def lend(
    connection: dial.Connection,
    worker: Worker,
    use: Callable[[Any], object],
    rules: Borrowing,
    stop: Callable[[str], bool],
) -> int:
    """Call a function with the guarded connection; the number of rows that it changed.

    Raises Stopped when the caller asked to stop, Forbidden when anything was refused, whatever the function made of
    it, Busy, OutOfSpace and ConnectionLost, else what the function raises.
    """
    watch = Watch(connection, worker, rules)
    factory = connection.row_factory
    before = _state(connection, rules)
    failure: BaseException | None = None
    try:
        use(GuardedConnection(watch))
    except BaseException as error:
        failure = error
    finally:
        connection.row_factory = factory
    if stop(""):
        raise Stopped from failure
    if watch.refusal:
        raise watch.refusal from None
    if isinstance(failure, psycopg.Error) and errors.is_environmental(failure, is_lost=connection.closed):
        raise errors.explained(failure, is_lost=connection.closed) from None
    if failure:
        raise failure
    if connection.info.transaction_status == TransactionStatus.INERROR:
        message = "it caught an error of a statement, behind which PostgreSQL takes no other in the transaction"
        raise StatementError(message)
    if _state(connection, rules) != before:
        raise Forbidden("it ended the transaction, or wrote to the tables that record the migrations", _IT_COMMITS)
    return watch.changed


def _state(connection: dial.Connection, rules: Borrowing) -> object:
    """Which transaction this is, and how often the protected tables were written to in it."""
    names = ", ".join(f"'{name}'" for name in rules.protected)
    return connection.execute(_STATE.format(names=names)).fetchone()


def _text(query: Any, connection: dial.Connection) -> str:
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    return query if isinstance(query, str) else str(query.as_string(connection))
