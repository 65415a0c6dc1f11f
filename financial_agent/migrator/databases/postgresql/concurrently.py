"""What is built without keeping others waiting (CREATE INDEX CONCURRENTLY and its like) leaves an invalid index behind
when it fails or is cut off, and with IF NOT EXISTS would be taken for done the next time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from financial_agent.migrator.databases.database import StatementError
from financial_agent.migrator.lexer import tokens

_word = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
# One that somebody is working on is none.
_INVALID = """\
SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i'
AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"""
_OF_THAT_NAME = f"{_INVALID} AND i.indrelid = to_regclass(?) AND c.relname = (parse_ident(?))[1]"

Names = Callable[..., list[tuple[str]]]


class Index(NamedTuple):
    """An index that a statement makes, and its table, as they are written there."""

    name: str
    table: str


def says(sql: str) -> bool:
    """Whether a statement may be one of these."""
    return bool(_word.search(sql))


def index_made(sql: str) -> Index | None:
    """The index that a CREATE INDEX CONCURRENTLY makes, if it gives it a name."""
    words = [word for word in tokens(sql, "postgresql") if word.upper() != "UNIQUE"]
    capitals = [word.upper() for word in words]
    if capitals[:3] != ["CREATE", "INDEX", "CONCURRENTLY"]:
        return None
    at = 6 if capitals[3:6] == ["IF", "NOT", "EXISTS"] else 3
    if "ON" not in capitals[at + 1 :]:
        return None
    on = capitals.index("ON", at + 1)
    table = on + 2 if capitals[on + 1 : on + 2] == ["ONLY"] else on + 1
    end = next((place for place in range(table, len(words)) if capitals[place] in ("(", "USING")), len(words))
    return Index(words[at], "".join(words[table:end]))


def run(query: Names, execute: Callable[[str], int], sql: str) -> int:
    """Run such a statement outside a transaction.

    An invalid index of the name that it gives, on its table, is what an earlier try left: it is dropped before, and if
    the statement fails, behind it. Any other that a failure leaves is named.
    """
    made = index_made(sql)
    if made:
        _drop(query, execute, made)
    before = query(_INVALID)
    try:
        return execute(sql)
    except StatementError as error:
        failure = error
    if made:
        _drop(query, execute, made)
    left = [name for (name,) in query(_INVALID) if (name,) not in before]
    if left:
        commands = "; ".join(f"DROP INDEX CONCURRENTLY {name}" for name in left)
        message = f"{failure}; it left an invalid index: {commands}"
        raise type(failure)(message, failure.offset, constraint=failure.constraint) from None
    raise failure


def _drop(query: Names, execute: Callable[[str], int], index: Index) -> None:
    for (name,) in query(_OF_THAT_NAME, (index.table, index.name)):
        execute(f"DROP INDEX CONCURRENTLY {name}")
