"""SQLite's rules."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cache

from financial_agent.migrator.dialects.rules import Control, Rules
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.lexer.sqlite import TRIVIA

_CONTROLS = {
    "BEGIN": Control("BEGIN", "opens"),
    "COMMIT": Control("COMMIT", "closes"),
    "END": Control("END", "closes"),
    **{word: Control(word, "other") for word in ("ROLLBACK", "SAVEPOINT", "RELEASE")},
}
# What SQLite refuses inside a transaction, or silently ignores there (https://sqlite.org/pragma.html).
_PRAGMAS_OUTSIDE_TRANSACTION = {"journal_mode", "synchronous", "temp_store", "wal_checkpoint"}

_QUOTE = r"['\"`\[\]]?"
_pragma = re.compile(
    rf"(?i:PRAGMA){TRIVIA}(?:{_QUOTE}\w+{_QUOTE}{TRIVIA}\.{TRIVIA})?{_QUOTE}(\w+){_QUOTE}{TRIVIA}([=(])?"
)


def _control(statement: Statement) -> Control | None:
    return _CONTROLS.get(statement.keyword)


def _needs_no_transaction(statement: Statement) -> str:
    if statement.keyword in ("VACUUM", "DETACH"):
        return statement.keyword
    pragma = _pragma.match(statement.text)
    name = pragma[1].lower() if pragma else ""
    asks = pragma is not None and not pragma[2] and name != "wal_checkpoint"
    return f"PRAGMA {name}" if name in _PRAGMAS_OUTSIDE_TRANSACTION and not asks else ""


def _switches_foreign_keys(statement: Statement) -> bool | None:
    """What a `PRAGMA foreign_keys = …` switches to, in SQLite's own judgement."""
    pragma = _pragma.match(statement.text)
    return _switched_to(statement.text) if pragma and pragma[1].lower() == "foreign_keys" else None


@cache
def _switched_to(pragma: str) -> bool | None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as scratch:
        switched = set()
        for before in ("ON", "OFF"):
            scratch.execute(f"PRAGMA foreign_keys = {before}")
            try:
                scratch.execute(pragma)
            except sqlite3.Error:
                return False  # it names a database that is attached by then: the stricter reading
            switched |= set(scratch.execute("PRAGMA foreign_keys").fetchall())
    return switched == {(1,)} if len(switched) == 1 else None


RULES = Rules(
    control=_control,
    settings=frozenset({"PRAGMA"}),
    attaching=frozenset({"ATTACH", "DETACH"}),
    needs_no_transaction=_needs_no_transaction,
    switches_foreign_keys=_switches_foreign_keys,
    changes_in_place=False,
    parameters=frozenset(":@?$"),
)
