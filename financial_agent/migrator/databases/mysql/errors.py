"""What the errors of MySQL and MariaDB mean, and the place in a statement that they speak of."""

from __future__ import annotations

import re

from financial_agent.migrator.databases.database import Busy, ConnectionLost, OutOfSpace, StatementError

# https://mariadb.com/kb/en/mariadb-error-codes/, https://dev.mysql.com/doc/mysql-errors/8.4/en/
ACCESS_DENIED, ACCESS_DENIED_NO_PASSWORD, DATABASE_ACCESS_DENIED, DATABASE_UNKNOWN = 1045, 1698, 1044, 1049
SYNTAX, PARSE = 1064, 1149
NODE_UNREADY = 1047  # all that a Galera node without a majority answers
INTERRUPTED, SIGNALLED = 1317, 1644
DUPLICATE = frozenset({1062, 1586})
# Another transaction was in the way: a lock's timeout, a deadlock (also Galera's certification, group replication's),
# a row or a table that changed meanwhile.
BUSY = frozenset({1205, 1213, 1020, 1412, 1614, 3058, 3101, 3572})
LOST = frozenset({0, 1053, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2055, 4031})
FULL = frozenset({1021, 1114})
CONSTRAINT = frozenset({1048, 1062, 1169, 1216, 1217, 1364, 1369, 1451, 1452, 1557, 1586, 1644, 1761, 1762, 3819, 4025})

_duplicate = re.compile(r"Duplicate entry '.*' for key '([^']*)'", re.DOTALL)
# What is quoted behind such a word is a name, and no row's content.
_names = re.compile(
    r"\b(?:column|field|table|view|index|key|key name|constraint|trigger|function|procedure|routine|event|engine"
    r"|database|collation|character set|user|definer|partition|variable|sequence|clause|DROP|in)"
    r" '[\w$.*@% -]*'(?:@'[\w.%:-]*')?",
    re.IGNORECASE,
)
_apostrophe = re.compile(r"\b\w+n't\b")
_quoted = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_near = re.compile(r"near '(.*)' at line (\d+)$", re.DOTALL)
_manual = re.compile(r";? ?check the manual that corresponds to your \w+ server version for the right syntax to use")
_named = re.compile(
    r"(?:Unknown (?:column|table|storage engine|collation)|Table|Can't DROP(?: \w+)?|Key column|Duplicate column name"
    r"|Duplicate key name|Column|FUNCTION|PROCEDURE|Trigger|View|Event) ['`]([^']+?)['`]",
    re.IGNORECASE,
)
_SHOWN = 80  # characters of the statement that a syntax error quotes


def code_of(error: BaseException) -> int:
    """The number of an error of the driver's; 0 when it has none: there is no connection any more."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) and type(error).__module__.startswith("pymysql") else 0


def text_of(error: BaseException) -> str:
    """What the server said."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def failure(error: Exception, sql: str) -> StatementError:
    """An error of the driver's in the engine's own terms, without the content of a row."""
    code, text = code_of(error), text_of(error)
    if code in LOST:
        return ConnectionLost("the connection to the server was lost")
    if code == NODE_UNREADY:
        return ConnectionLost(f"the server takes no part in its cluster any more: {text}")
    if code in FULL or "No space left on device" in text:
        return OutOfSpace(text)
    message = without_values(code, text, sql)
    if code in BUSY:
        return Busy(message)
    return StatementError(message, find_offset(sql, code, text), constraint=code in CONSTRAINT)


def without_values(code: int, text: str, sql: str) -> str:
    """A message as it may be shown: what it quotes is a name, or a part of the statement, or left out."""
    if code in DUPLICATE and (match := _duplicate.search(text)):
        return f"Duplicate entry for key '{match[1]}'"
    text = _manual.sub("", text)
    if code == SIGNALLED:  # the words of whoever wrote the trigger
        return text
    if near := _near.search(text):
        quote = re.sub(r"\s+", " ", near[1])
        return text[: near.start()] + f"near '{quote}'" if near[1] in sql else text[: near.start()].rstrip()
    text = re.sub(r"(?<=partition for value ).+", "…", text)
    # A value may hold quotes itself: from the first that is not known to be a name to the last, all goes.
    known = [match.span() for pattern in (_names, _apostrophe) for match in pattern.finditer(text)]
    known += [match.span() for match in _quoted.finditer(text) if (match[1] or match[2] or "") in sql]
    quotes = [at for at, character in enumerate(text) if character in "'\""]
    unknown = [at for at in quotes if not any(start <= at < end for start, end in known)]
    return f"{text[: unknown[0]]}…{text[quotes[-1] + 1 :]}" if unknown else text


def find_offset(sql: str, code: int, text: str) -> int | None:
    """The character of a statement at which its error is; None when that cannot be told."""
    if code in (SYNTAX, PARSE) and (near := _near.search(text)):
        return _find_near(sql, near[1], int(near[2]))
    if named := _named.search(text):
        return _find_name(sql, named[1].split(".")[-1])
    return None


def _find_near(sql: str, quoted: str, line: int) -> int | None:
    """Where the quoted text stands: the parser tells the line that it has read, which may be the one behind."""
    if not quoted:
        return max(len(sql.rstrip("; \t\r\n")) - 1, 0)
    places = [match.start() for match in re.finditer(re.escape(quoted), sql)]
    if len(quoted) < _SHOWN:  # it is all that is left
        places = [place for place in places if place + len(quoted) >= len(sql.rstrip())] or places
    return min(places, key=lambda place: abs(sql.count("\n", 0, place) + 1 - line), default=None)


def _find_name(sql: str, name: str) -> int | None:
    """The one place where a name stands; None when there are several, of which any may be meant."""
    for flags in (re.NOFLAG, re.IGNORECASE):
        places = [match.start() for match in re.finditer(rf"(?<![\w$]){re.escape(name)}(?![\w$])", sql, flags)]
        if len(places) == 1:
            return places[0]
    return None
