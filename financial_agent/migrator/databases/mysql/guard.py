"""The engine's own connection, as a Python migration gets it: everything of PyMySQL's works, but for what would end the
transaction, reach the ledger or another database, or take this guard away.

A definition commits what was done before it, and so may not be run: it belongs into an SQL file, which is journalled.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from financial_agent.migrator.databases.database import Borrowing, Forbidden, Stopped
from financial_agent.migrator.databases.mysql.dial import Connection
from financial_agent.migrator.lexer import placed_tokens

_IT_COMMITS = "Remove it: the engine commits when the function returns, and undoes everything when it raises"
_METHODS = {
    "commit": ("connection.commit() would end the transaction of the migration", _IT_COMMITS),
    "rollback": ("connection.rollback() would end the transaction of the migration", "Raise an exception to undo all"),
    "begin": ("connection.begin() would commit the transaction of the migration", _IT_COMMITS),
    "autocommit": ("autocommit would change how transactions begin and end", _IT_COMMITS),
    "close": ("connection.close() would end the transaction of the migration", "Remove it: the engine closes it"),
    "with": ("`with connection:` would close it at its end", "Remove it, and keep `with connection.cursor()`"),
    "connect": ("connection.connect() would end the transaction of the migration", "Remove it"),
    "ping": ("connection.ping() could connect anew, and end the transaction of the migration", "Remove it"),
    "select_db": (
        "connection.select_db() would leave the database of the ledger",
        "Write the database before the name",
    ),
    "kill": ("connection.kill() would end another connection", "Remove it"),
}
_WORDS = re.compile(r"(?:\s|#[^\n]*\n|--\s[^\n]*\n|/\*(?!M?!).*?\*/|/\*M?!\d*|\()*(\w+)(?:\s+(\w+))?", re.DOTALL)
_CONTROL = {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "XA", "LOCK", "UNLOCK"}
_DEFINITIONS = {"ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "GRANT", "REVOKE", "ANALYZE", "OPTIMIZE", "REPAIR"}
_CHANGES = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH"}

Result = TypeVar("Result")


class Guard:
    """Stands where the connection would, also for the cursors that it makes."""

    def __init__(
        self,
        connection: Connection,
        rules: Borrowing,
        stop: Callable[[str], bool],
        call: Callable[[Callable[[], Any]], Any],
        in_transaction: Callable[[], bool],
    ) -> None:
        self.__dict__.update(
            _connection=connection, _rules=rules, _stop=stop, _call=call, _in_transaction=in_transaction,
            _refusal=None, _changed=0,
        )  # fmt: skip

    def cursor(self, cursor: Any = None) -> Any:
        return (cursor or self._connection.cursorclass)(self)

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """What every cursor sends its statements through."""
        text = sql.decode("utf-8", "replace") if isinstance(sql, bytes | bytearray) else str(sql)
        word = self._before(text)
        found: int = self._call(lambda: self._connection.query(sql, unbuffered))
        if word in _CHANGES:
            self.__dict__["_changed"] += max(found, 0)
        return found

    def __enter__(self) -> NoReturn:
        self._refuse(*_METHODS["with"])

    def __exit__(self, *_: object) -> None:
        """Python wants it to be there before it calls `__enter__`."""

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return lambda *_, **__: self._refuse(*_METHODS[name])
        return getattr(self._connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._connection, name, value)  # PyMySQL's cursors set some

    def _before(self, sql: str) -> str:
        """The first word of a statement. Raises Forbidden and Stopped."""
        if self._stop(""):
            raise Stopped
        if not self._in_transaction():  # a statement would commit by itself
            raise Forbidden("the transaction of the migration has ended", "Look for a procedure that commits")
        match = _WORDS.match(sql)
        first, second = ((match[1] or "").upper(), (match[2] or "").upper()) if match else ("", "")
        if first in _CONTROL or (first, second) in (("START", "TRANSACTION"), ("SET", "AUTOCOMMIT")):
            self._refuse(f"{first} would end or split the transaction of the migration", _IT_COMMITS)
        if first in _DEFINITIONS and second != "TEMPORARY":
            fix = "Put it into an SQL file of its own, before or behind this one"
            self._refuse(f"{first} would commit what the migration has done so far", fix)
        if first == "USE":
            self._refuse(*_METHODS["select_db"])
        if "_migration" in sql.lower():
            self._refuse_ledger(sql)
        return first

    def _refuse_ledger(self, sql: str) -> None:
        named = {word.strip("`").lower() for _, word in placed_tokens(sql, "mysql")}
        for table in self._rules.protected:
            if table in named:
                self._refuse(f"it would change {table}, which records the migrations", "Remove that")

    def _refuse(self, what: str, fix: str) -> NoReturn:
        frames = tuple((frame.filename, frame.lineno or 1) for frame in traceback.extract_stack())
        refusal = Forbidden(what, fix, frames)
        self.__dict__["_refusal"] = self._refusal or refusal
        raise refusal


def lend(guard: Guard, use: Callable[[Any], object]) -> int:
    """Call a function with the guarded connection; the number of rows that it changed.

    Raises Forbidden when anything was refused, whatever the function made of it, else what the function raises.
    """
    failure: BaseException | None = None
    try:
        use(guard)
    except BaseException as error:
        failure = error
    if guard._stop(""):
        raise Stopped from failure
    if guard._refusal:
        raise guard._refusal from None
    if failure:
        raise failure
    return int(guard._changed)
