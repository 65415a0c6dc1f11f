"""The rules of MySQL and MariaDB."""

from __future__ import annotations

import re

from financial_agent.migrator.dialects.rules import Control, Rules, first_words
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import DatabaseSwitched, ReadingChanged, TablesLocked
from financial_agent.migrator.lexer import Statement, tokens

_OTHERS = {"RELEASE", "ROLLBACK", "SAVEPOINT", "XA"}
# Of the modes that change where strings end, some stand for several (https://mariadb.com/kb/en/sql-mode/).
_mode = re.compile(r"\b(ANSI_QUOTES|NO_BACKSLASH_ESCAPES|ANSI|DB2|MAXDB|MSSQL|ORACLE|POSTGRESQL)\b", re.IGNORECASE)


def _control(statement: Statement) -> Control | None:
    word = statement.keyword
    if word in _OTHERS:
        return Control(word, "other")
    if word == "COMMIT":
        return Control(word, "closes")
    if word == "SET" and _sets(statement, "AUTOCOMMIT"):
        return Control("SET autocommit", "other")
    match first_words(statement, 2):
        case ["BEGIN", behind, *_] if behind == "NOT":  # a compound statement
            return None
        case ["BEGIN", *_]:
            return Control("BEGIN", "opens")
        case ["START", "TRANSACTION"]:
            return Control("START TRANSACTION", "opens")
    return None


def _refuse(statement: Statement, location: Location) -> None:
    match statement.keyword:
        case "USE":
            raise DatabaseSwitched(location=location)
        case "LOCK" | "UNLOCK" as keyword if first_words(statement, 2)[1:] in (["TABLE"], ["TABLES"]):
            raise TablesLocked(location=location, keyword=f"{keyword} TABLES")
        case "SET" if (mode := _mode.search(statement.text)) and _sets(statement, "SQL_MODE"):
            fix = "Remove it: what it is for can be written as in the server's own mode"
            raise ReadingChanged(location=location, setting=f"sql_mode {mode[1].upper()}", fix=fix)


def _sets(statement: Statement, variable: str) -> bool:
    """Whether a SET is of this variable of the server, and not of the user's own with its name."""
    if variable.lower() not in statement.text.lower():
        return False
    words = ["", "", *(word.upper().strip("`") for word in tokens(statement.text, statement.dialect)), ""]
    return any(
        word == variable and words[at + 1] in ("=", ":=") and (words[at - 1] != "@" or words[at - 2] == "@")
        for at, word in enumerate(words)
    )


RULES = Rules(
    control=_control,
    settings=frozenset({"SET"}),
    refuse=_refuse,
    parameters=frozenset(":?"),
    batch_limit="… WHERE … LIMIT :batch",
)
