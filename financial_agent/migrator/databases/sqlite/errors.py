"""SQLite's result codes, and the place in a statement that an error message speaks of."""

from __future__ import annotations

import re
import sqlite3

# Primary result codes (https://sqlite.org/rescode.html), as names that `match` can compare with.
BUSY = sqlite3.SQLITE_BUSY
CONSTRAINT = sqlite3.SQLITE_CONSTRAINT
CANTOPEN = sqlite3.SQLITE_CANTOPEN
CORRUPT = sqlite3.SQLITE_CORRUPT
FULL = sqlite3.SQLITE_FULL
INTERRUPT = sqlite3.SQLITE_INTERRUPT
NOTADB = sqlite3.SQLITE_NOTADB
PROTOCOL = sqlite3.SQLITE_PROTOCOL  # a race for a lock in WAL mode
READONLY = sqlite3.SQLITE_READONLY
READONLY_ROLLBACK = sqlite3.SQLITE_READONLY_ROLLBACK

_near = re.compile(r'near "(.*)": |unrecognized token: "(.*)"', re.DOTALL)
_names_schema = re.compile(r"(?i:ALTER|DROP|EXPLAIN|CREATE\s+VIRTUAL)\b")
_quotes = re.compile(r"(?<=: ).+|['\"].*", re.DOTALL)
_LONGEST = 1_000_000  # characters of a statement that is parsed again and again to find its error

_named = (
    re.compile(r"no column named (\S+)"),
    re.compile(r"(?:no such \w+(?: \w+)?|duplicate column name|table|index|view|trigger)[: ]+(\S+)"),
)
_parameter = re.compile(r"--[^\n]*|/\*.*?\*/|'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|(\?\d*|[:@$]\w+)", re.DOTALL)


def primary_code(error: BaseException) -> int:
    """An error's primary result code; 0 when it is Python's own."""
    return extended_code(error) & 0xFF


def extended_code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))


def is_busy(error: BaseException) -> bool:
    return primary_code(error) in (BUSY, PROTOCOL)


def find_offset(connection: sqlite3.Connection, sql: str, message: str) -> int | None:
    """The character of a statement at which its error is; None when that cannot be told.

    Python tells only the token (`near "FORM"`). A parser that stops at the first error stops there for every longer
    beginning of the statement, too, so bisection finds the guilty occurrence. EXPLAIN parses and runs nothing.
    """
    if len(sql) > _LONGEST:
        return None
    if near := _near.search(message):
        return _find_token(connection, sql, near[1] or near[2] or "", message)
    if message == "incomplete input":
        return max(len(sql.rstrip("; \t\r\n")) - 1, 0)
    named = next((match for pattern in _named if (match := pattern.search(message))), None)
    return _find_name(sql, named[1].split(".")[-1]) if named else None


def without_values(connection: sqlite3.Connection, sql: str, error: sqlite3.Error) -> str:
    """An error's message. One that comes while a statement runs, not while it is prepared, may quote a row's content
    (`JSON path error near 'secret'`): whatever it quotes is left out, but for the names in a constraint's."""
    message = str(error)
    names_only = primary_code(error) == CONSTRAINT or _names_schema.match(sql) or _fails_alike(connection, sql, message)
    return message if names_only else _quotes.sub("…", message)


def find_parameter(sql: str) -> int | None:
    """The first parameter of a statement."""
    return next((match.start() for match in _parameter.finditer(sql) if match[1]), None)


def _find_name(sql: str, name: str) -> int | None:
    """The one place where a name stands; None when there are several, of which any may be meant."""
    for flags in (re.NOFLAG, re.IGNORECASE):
        places = [match.start() for match in re.finditer(_whole(name), sql, flags)]
        if len(places) == 1:
            return places[0]
    return None


def _find_token(connection: sqlite3.Connection, sql: str, token: str, message: str) -> int | None:
    places = [match.start() for match in re.finditer(_whole(token), sql)] if token else []
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if _fails_alike(connection, sql[: places[middle] + len(token)], message):
            high = middle
        else:
            low = middle + 1
    return places[low] if low < len(places) else None


def _fails_alike(connection: sqlite3.Connection, beginning: str, message: str) -> bool:
    try:
        connection.execute(beginning if beginning.startswith("EXPLAIN ") else f"EXPLAIN {beginning}").close()
    except sqlite3.Error as error:
        return str(error) == message
    return False


def _whole(token: str) -> str:
    """A pattern for a token that is not part of a longer word."""
    head = r"(?<![\w$])" if re.match(r"\w", token) else ""
    tail = r"(?![\w$])" if re.search(r"\w$", token) else ""
    return head + re.escape(token) + tail
