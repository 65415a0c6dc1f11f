"""What values a column may hold, guessed from what its table's definition says of it.

The guesses need not be right: whoever uses them tries them out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from financial_agent.migrator.databases import Column
from financial_agent.migrator.lexer import tokens

Value = str | int | float | bytes | None
Evaluate = Callable[[str], Value]
"""The value of an SQL expression; None also for one that fails."""

_LONGEST = 10_000  # characters of a text that a CHECK on its length asks for
_DATES = {
    "strftime": "2024-03-{day:02} 10:{number:02}:00.123",
    "datetime": "2024-03-{day:02} 10:{number:02}:00",
    "date": "2024-03-{day:02}",
    "time": "10:{number:02}:00",
}
_NOW = re.compile(
    r"'now'|\bcurrent_(timestamp|date|time)\b(?:\(\d*\))?"
    r"|\b(?:now|(?:statement|clock|transaction|utc|local)_?timestamp)\(\d*\)",
    re.IGNORECASE,
)
_number = re.compile(r"\d+(\.\d+)?")
# What stands in a CHECK beside the values that it allows.
_TYPES = {"text", "integer", "real", "blob", "null", "object", "array"}


@dataclass(frozen=True)
class Check:
    """A CHECK of a table: its name, if it has one, and its tokens."""

    name: str
    words: tuple[str, ...]

    def concerns(self, column: str) -> bool:
        return column.lower() in {unquoted(word).lower() for word in self.words}


def checks_of(sql: str, dialect: str = "sqlite") -> Iterator[Check]:
    """The CHECKs of a table, from its CREATE TABLE."""
    words = tokens(sql, dialect)
    for at, word in enumerate(words[:-1]):
        if word.upper() == "CHECK" and words[at + 1] == "(":
            name = unquoted(words[at - 1]) if words[at - 2].upper() == "CONSTRAINT" else ""
            yield Check(name, tuple(_in_parentheses(words[at + 1 :])))


def _in_parentheses(words: Sequence[str]) -> Iterator[str]:
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth == 0:
            return
        yield word


def candidates(column: Column, checks: Sequence[Check], number: int, evaluate: Evaluate) -> list[Value]:
    """Values for a column of the row with that number (from 1), the most promising first. Those of other numbers differ
    where they can. A column that may be NULL is so in every other row, if that fits."""
    about = [check for check in checks if check.concerns(column.name)]
    allowed = [value for check in about for value in _from_check(check, column.name, number, evaluate)]
    default = [] if column.default is None else [evaluate(_NOW.sub(lambda now: _then(now, number), column.default))]
    usual = list(_of_type(column, number))
    # In the first row a default is what most rows have; the others show that it is not the only value.
    found = [*default, *allowed, *usual] if number % 2 else [*allowed, *usual, *default]
    nothing: list[Value] = [] if column.not_null or column.key else [None]
    found = [*nothing, *found] if number % 2 == 0 else [*found, *nothing]
    return list({(type(value), value): value for value in found}.values())


def _then(now: re.Match[str], number: int) -> str:
    """A moment that is always the same: what the clock gives would differ from run to run."""
    form = {None: "strftime", "timestamp": "datetime", "date": "date", "time": "time"}[now[1] and now[1].lower()]
    return f"'{_moment(form, number)}'"


def _moment(form: str, number: int) -> str:
    return _DATES[form].format(day=1 + number % 28, number=number % 60)


def _from_check(check: Check, column: str, number: int, evaluate: Evaluate) -> Iterator[Value]:
    words = check.words
    functions = {word.lower() for word in words}
    texts = [word[1:-1].replace("''", "'") for word in words if word.startswith("'")]
    numbers = [float(word) if "." in word else int(word) for word in words if _number.fullmatch(word)]
    yield from _dates(words, number, evaluate)
    if any(name.startswith("json") for name in functions):
        yield from ("[]", "{}") if "array" in texts else ("{}", "[]")
        yield from (f'{{"number": {number}}}', "1")
    if functions & {"glob", "like"}:
        yield from (_matching(text, number) for text in texts)
        yield from (str(number), f"ABC{number}", f"abc{number}")
    elif "length" in functions:
        lengths = [int(each) for each in numbers if 0 < each <= _LONGEST]
        yield from (f"{number:0{length}x}" for length in lengths)
        yield from (f"{number:0{length + 1}x}" for length in lengths)
    else:
        literals = [text for text in texts if text not in _TYPES and "%" not in text and text]
        turn = number % len(literals) if literals else 0
        yield from (*literals[turn:], *literals[:turn])
        yield from (value for each in numbers for value in (each, each + number, each + 1, each - 1))
    if "upper" in functions:
        yield f"{column} {number}".upper()


def _dates(words: Sequence[str], number: int, evaluate: Evaluate) -> Iterator[Value]:
    """What a date function of a CHECK makes of a moment."""
    for at, word in enumerate(words[:-2]):
        name = word.lower()
        if name not in _DATES or words[at + 1] != "(":
            continue
        if name == "strftime" and words[at + 2].startswith("'"):
            yield evaluate(f"strftime({words[at + 2]}, '{_moment(name, number)}')")
            yield evaluate(f"strftime({words[at + 2]}, '{_moment(name, number + 1)}')")
        else:
            yield _moment(name, number)
            yield _moment(name, number + 1)


def _matching(pattern: str, number: int) -> str:
    """A text that a simple pattern of LIKE or GLOB matches."""
    text = re.sub(r"\[\^?([^\]-])[^\]]*\]", r"\1", pattern)
    for wildcard, stand_in in (("%", f"x{number}"), ("*", f"x{number}"), ("_", "x"), ("?", "x")):
        text = text.replace(wildcard, stand_in)
    return text


def _of_type(column: Column, number: int) -> Iterator[Value]:
    """What its declared type says, and its name where that is the custom of many schemas."""
    name, type_ = column.name.lower(), column.type.upper()
    text = f"{column.name} {number}"
    # What a type lists, or how many characters it holds, and no more.
    listed = [word.replace("''", "'") for word in re.findall(r"'((?:[^']|'')*)'", column.type)]
    longest = re.search(r"CHAR[A-Z ]*\((\d+)\)", type_)
    if longest:
        text = text if len(text) <= int(longest[1]) else str(number)[: int(longest[1])]
    if listed:
        yield from (listed[number % len(listed)], *listed)
    elif type_.endswith("[]"):
        yield "{}"
    elif "UUID" in type_:
        yield f"00000000-0000-4000-8000-{number:012}"
    elif type_ in ("INET", "CIDR"):
        yield f"10.0.0.{number % 256}"
    elif "INTERVAL" in type_:
        yield f"{number} days"
    elif "BOOL" in type_:
        yield from (number % 2, (number + 1) % 2)
    elif "INT" in type_:
        yield from (number, 0, 1, number + 1000, -number)
    elif "JSON" in type_ or name.endswith("json"):
        yield from ("{}", "[]")
    elif "DATE" in type_ or "TIME" in type_ or name.endswith(("_at", "_on", "date", "time")):
        yield from (_moment("date" if "DATE" in type_ and "TIME" not in type_ else "datetime", number), number)
    elif "BLOB" in type_:
        yield from (text.encode(), b"")
    elif any(word in type_ for word in ("REAL", "FLOA", "DOUB")):
        yield from (number + 0.5, 0.0, 1.0)
    elif any(word in type_ for word in ("NUM", "DEC", "MONEY")):
        yield from (number, number + 0.25, 0)
    yield from (text, str(number), "{}", _moment("datetime", number), number, number + 0.5, text.encode(), "")


def unquoted(word: str) -> str:
    return word[1:-1] if word[:1] in ('"', "`", "[") else word
