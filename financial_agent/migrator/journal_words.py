"""What the words of a statement tell of running it anew: after a run that was cut off, what can be repeated, and what
needs something that went with the connection."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from financial_agent.migrator.lexer import Statement, tokens

Kind = Literal["rows", "session", "definition", "harmless", "unseen", "program"]
"""What a statement changes: rows alone; the session, and is gone with it; the schema, and is seen there; nothing that
a second time would change further; what the schema does not show; or whatever the program does that it calls, which may
commit in the middle."""

_ROWS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH", "VALUES", "MERGE", "LOAD"})
_SESSION = frozenset({"SET", "RESET", "PREPARE", "DEALLOCATE", "BEGIN", "START", "COMMIT", "END", "ROLLBACK"})
_DEFINITION = frozenset({"CREATE", "ALTER", "DROP", "RENAME", "COMMENT"})
_PROGRAM = frozenset({"CALL", "DO", "EXECUTE", "BEGIN", "IF", "CASE", "LOOP", "REPEAT", "WHILE", "FOR"})
_HARMLESS = frozenset({"ANALYZE", "CHECK", "CHECKSUM", "FLUSH", "OPTIMIZE", "REPAIR", "VACUUM"})
# What a definition may be of, or do, without a trace in the schema.
_UNSEEN = frozenset(
    {"USER", "ROLE", "DATABASE", "SERVER", "TABLESPACE", "LOGFILE", "RESOURCE", "SYSTEM", "SUBSCRIPTION", "PUBLICATION"}
)
_UNSEEN_CHANGES = frozenset({"EXCHANGE", "TRUNCATE", "DISCARD", "IMPORT"})
_TEMPORARY = frozenset({"TEMPORARY", "TEMP"})
_BEFORE_NAME = frozenset({"TABLE", "SEQUENCE", "VIEW", "IF", "NOT", "EXISTS"})


def kind_of(statement: Statement) -> Kind:
    """What a statement changes."""
    words = _words(statement)
    keyword = words[0] if words else ""
    if keyword in _PROGRAM and not (keyword == "BEGIN" and words[1:2] != ["NOT"]):
        return "program"
    if keyword in _ROWS:
        return "session" if _variables(words) else "rows"
    if keyword in _SESSION:
        return "session"
    if keyword in _HARMLESS:
        return "harmless"
    if keyword not in _DEFINITION:
        return "unseen"
    if _TEMPORARY & {*words[1:4]}:
        return "session"
    is_unseen = _UNSEEN & {*words[1:3]} or (keyword == "ALTER" and _UNSEEN_CHANGES & {*words[3:5]})
    return "unseen" if is_unseen else "definition"


def lost(done: Sequence[Statement], rest: Sequence[Statement]) -> list[str]:
    """What statements that are done made for the session alone, and others that are to be run need: temporary tables,
    and variables that got their value from the data."""
    made: dict[str, None] = {}
    for statement in done:
        words = _words(statement)
        for name in [*_dropped(words), *_assigned(words)]:
            made.pop(name, None)
        made |= dict.fromkeys(_made(words))
    found = []
    for statement in rest:
        words = _words(statement)
        for name in [name for name in made if name in words]:
            del made[name]
            if name not in [*_dropped(words), *_made(words), *_assigned(words)]:
                found.append(name.lower())
    return found


def is_repeatable(statement: Statement) -> bool:
    """Whether a statement is run anew when a run goes on behind it: a setting of the session's that is the same each
    time."""
    words = _words(statement)
    return bool(words) and words[0] in ("SET", "RESET", "PREPARE", "DEALLOCATE") and not _variables(words)


def dropped_tables(statement: Statement) -> list[str]:
    """The tables or views that a DROP of several names; one at a time they go, not all at once."""
    words = _words(statement)
    if words[:2] not in (["DROP", "TABLE"], ["DROP", "VIEW"]) or "," not in words:
        return []
    names = tokens(statement.text, statement.dialect)[2:]
    return [_bare(word) for word in names if word not in (",", ";") and word.upper() not in _BEFORE_NAME]


def _words(statement: Statement) -> list[str]:
    """In capitals, names without their quotes, variables with their @; without the marks of `/*!50003 … */`."""
    found: list[str] = []
    for word in tokens(statement.text, statement.dialect):
        if found and found[-1] in ("@", "@@"):
            found[-1] += _bare(word).upper()
        elif not word.startswith(("/*", "*/")):
            found.append(_bare(word).upper())
    return found


def _bare(word: str) -> str:
    return word[1:-1] if word[:1] in ("`", '"') else word


def _made(words: Sequence[str]) -> list[str]:
    """The temporary tables and variables that a statement makes."""
    if words[:1] == ["CREATE"] and _TEMPORARY & {*words[1:4]}:
        at = next(at for at, word in enumerate(words) if word in _TEMPORARY)
        return [word for word in words[at + 1 :] if word not in _BEFORE_NAME][:1]
    return _variables(words)


def _dropped(words: Sequence[str]) -> list[str]:
    return [word for word in words[2:] if word != ","] if words[:1] == ["DROP"] else []


def _variables(words: Sequence[str]) -> list[str]:
    """The variables to which a statement gives a value that need not be the same each time: that of a query or of a
    function."""
    return [] if words[:1] == ["SET"] and "(" not in words else _assigned(words)


def _assigned(words: Sequence[str]) -> list[str]:
    """The variables (`@name`) to which a statement gives a value."""
    assigning = {":=", "="} if words[:1] == ["SET"] else {":="}
    found, is_into = [], False
    for word, behind in pairwise([*words, ""]):
        is_into = word == "INTO" or (is_into and (word == "," or word.startswith("@")))
        if word.startswith("@") and not word.startswith("@@") and (is_into or behind in assigning):
            found.append(word)
    return found
