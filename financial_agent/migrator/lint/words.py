"""A statement as its words: which object it is about, and what it does to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from financial_agent.migrator.lexer import placed_tokens

_QUOTES = {'"': '"', "`": "`", "[": "]"}
_KINDS = {"TABLE", "INDEX", "TRIGGER", "VIEW"}


class Word(NamedTuple):
    """A word, a quoted name, a string, a number or a sign, and where in its statement it begins."""

    text: str
    at: int

    @property
    def upper(self) -> str:
        """In capitals; what is quoted keeps its quotes, so that it is never taken for a keyword."""
        return self.text.upper()

    @property
    def name(self) -> str:
        """What it names, in lower case; empty for strings, numbers and signs."""
        first = self.text[0]
        if closer := _QUOTES.get(first):
            return self.text[1:-1].replace(closer * 2, closer).lower()
        return self.text.lower() if first.isalpha() or first == "_" or first > "\x7f" else ""


@dataclass(frozen=True)
class Target:
    """What a statement is about. Names are in lower case; of what is neither a definition nor a change of rows all are
    empty."""

    verb: str = ""
    """CREATE, DROP, ALTER, INSERT, UPDATE or DELETE."""
    kind: str = ""
    """TABLE, INDEX, TRIGGER or VIEW."""
    name: str = ""
    table: str = ""
    """The table that an index or a trigger is made on; else the same as the name."""
    is_guarded: bool = False
    """It says IF EXISTS, IF NOT EXISTS or OR REPLACE."""
    is_temporary: bool = False
    end: int = 0
    """The place, among the words, of the first one behind the name."""


def words_of(sql: str, dialect: str = "sqlite") -> tuple[Word, ...]:
    return tuple(Word(text, at) for at, text in placed_tokens(sql, dialect))


def names_in(words: Sequence[Word]) -> set[str]:
    """Every name that stands somewhere in a statement, keywords included."""
    return {word.name for word in words}


def depths(words: Sequence[Word]) -> list[int]:
    """For each word, in how many parentheses it stands; those themselves count as outside."""
    found, depth = [], 0
    for word in words:
        depth -= word.text == ")"
        found.append(depth)
        depth += word.text == "("
    return found


def phrase(words: Sequence[Word], at: int, *wanted: str) -> bool:
    """Whether these keywords stand at a place, one behind the other."""
    return [word.upper for word in words[at : at + len(wanted)]] == list(wanted)


def target_of(words: Sequence[Word]) -> Target:
    if not words:
        return Target()
    match words[0].upper:
        case "CREATE" | "DROP" | "ALTER":
            return _definition(words)
        case "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "WITH":
            return _change(words)
    return Target()


def _definition(words: Sequence[Word]) -> Target:
    at = next((at for at in range(1, min(len(words), 4)) if words[at].upper in _KINDS), None)
    if at is None:
        return Target()
    verb, kind = words[0].upper, words[at].upper
    is_temporary = any(word.upper in ("TEMP", "TEMPORARY") for word in words[1:at])
    at += 1
    has_if = phrase(words, at, "IF")
    is_guarded = has_if or phrase(words, 1, "OR", "REPLACE")
    if has_if:
        at += 3 if phrase(words, at + 1, "NOT") else 2
    name, at, schema = _name(words, at)
    table = name
    if verb == "CREATE" and kind in ("INDEX", "TRIGGER"):
        on = next((place for place in range(at, len(words)) if words[place].upper == "ON"), len(words))
        table = _name(words, on + 1)[0]
    return Target(verb, kind, name, table, is_guarded, is_temporary or schema == "temp", at)


def _change(words: Sequence[Word]) -> Target:
    """Of a change of rows; common table expressions may stand before it."""
    verbs = {"INSERT", "REPLACE", "UPDATE", "DELETE"}
    inside = depths(words)
    at = next((at for at, word in enumerate(words) if word.upper in verbs and inside[at] == 0), None)
    if at is None:
        return Target()
    verb = words[at].upper
    at += 3 if phrase(words, at + 1, "OR") else 1
    if verb != "UPDATE":
        at += 1  # INTO or FROM
    name, at, schema = _name(words, at)
    return Target("INSERT" if verb == "REPLACE" else verb, "", name, name, False, schema == "temp", at)


def _name(words: Sequence[Word], at: int) -> tuple[str, int, str]:
    """A name that stands at a place, the place behind it, and the schema before it."""
    if at + 2 < len(words) and words[at + 1].text == ".":
        return words[at + 2].name, at + 3, words[at].name
    return (words[at].name if at < len(words) else ""), at + 1, ""
