"""PostgreSQL's rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from financial_agent.migrator.dialects.rules import Control, Rules, first_words
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import ReadingChanged
from financial_agent.migrator.lexer import Statement, placed_tokens
from financial_agent.migrator.names import unquoted

_OTHERS = {"ABORT", "RELEASE", "ROLLBACK", "SAVEPOINT"}
_MAY_NEED_NONE = {"ALTER", "CLUSTER", "CREATE", "DISCARD", "DROP", "REINDEX", "VACUUM"}
_ENOUGH = 16  # words, to tell what kind of statement it is
_ON = {"on", "true", "yes", "1", "default"}
_WHOLE = {"DATABASE", "SCHEMA", "SYSTEM"}

_strings = re.compile(r"standard_conforming_strings\s*(?:=|\bTO\b)\s*'?(\w+)", re.IGNORECASE)
_dollars = re.compile(r"\$\w*\$")
_escape = re.compile(r"\\(?:\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4}))")


def _control(statement: Statement) -> Control | None:
    word = statement.keyword
    if word in _OTHERS:
        return Control(word, "other")
    if word not in ("BEGIN", "START", "COMMIT", "END", "PREPARE"):
        return None
    match first_words(statement, 2):
        case ["START" | "PREPARE", "TRANSACTION"]:
            return Control(f"{word} TRANSACTION", "opens" if word == "START" else "other")
        case ["START" | "PREPARE", *_]:
            return None
        case ["COMMIT", "PREPARED"]:
            return Control("COMMIT PREPARED", "other")
    return Control(word, "opens" if word == "BEGIN" else "closes")


def _needs_no_transaction(statement: Statement) -> str:
    """As https://www.postgresql.org/docs/current/sql-commands.html has it on the page of each command."""
    verb = statement.keyword
    if verb not in _MAY_NEED_NONE:
        return ""
    words = first_words(statement, _ENOUGH)
    match words:
        case ["VACUUM", *_] | ["CLUSTER"] | ["CLUSTER", ";"]:
            return verb
        case ["CREATE" | "DROP", "DATABASE" | "TABLESPACE" as what, *_] | [_, "SYSTEM" as what, *_]:
            return f"{verb} {what}"
        case ["ALTER", "DATABASE", _, "SET", "TABLESPACE", *_]:
            return "ALTER DATABASE … SET TABLESPACE"
        case ["CREATE", "SUBSCRIPTION", *_] if not re.search("create_slot|connect *=", statement.text, re.IGNORECASE):
            return "CREATE SUBSCRIPTION"
        case ["DISCARD", "ALL", *_]:
            return "DISCARD ALL"
        case ["REINDEX", *rest] if whole := next((word for word in rest if word in _WHOLE), ""):
            return f"REINDEX {whole}"
        case ["REINDEX", *rest] if "CONCURRENTLY" in rest:
            return "REINDEX CONCURRENTLY"
        case ["CREATE", "UNIQUE" | "INDEX", *rest] | ["DROP", "INDEX", *rest] if "CONCURRENTLY" in rest[:2]:
            return f"{verb} INDEX CONCURRENTLY"
        case ["ALTER", "TABLE", *rest] if "DETACH" in rest and "CONCURRENTLY" in rest:
            return "DETACH PARTITION CONCURRENTLY"
    return ""


def _refuse(statement: Statement, location: Location) -> None:
    if statement.keyword == "SET" and (found := _strings.search(statement.text)) and found[1].lower() not in _ON:
        fix = "Remove it, and write strings with backslashes as E'…'"
        raise ReadingChanged(location=location, setting=f"standard_conforming_strings = {found[1]}", fix=fix)


def _names(statement: Statement) -> Iterator[tuple[int, str]]:
    return _names_in(statement.text, 0)


def _names_in(sql: str, start: int) -> Iterator[tuple[int, str]]:
    """What stands in dollar quotes counts, too: the body of a function names tables."""
    for at, token in placed_tokens(sql, "postgresql"):
        if quotes := _dollars.match(token):
            yield from _names_in(token[quotes.end() : -quotes.end()], start + at + quotes.end())
        elif token[:2].upper() == "U&":
            yield start + at, _escape.sub(lambda found: chr(int(found[1] or found[2], 16)), unquoted(token[2:]))
        else:
            yield start + at, unquoted(token)


RULES = Rules(
    control=_control,
    settings=frozenset({"SET", "RESET"}),
    needs_no_transaction=_needs_no_transaction,
    refuse=_refuse,
    names=_names,
)
