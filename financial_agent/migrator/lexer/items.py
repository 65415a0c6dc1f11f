"""What a text is split into."""

from __future__ import annotations

from typing import NamedTuple


class Directive(NamedTuple):
    """One `-- migrate:…` comment. `start` and `end` are character offsets of its line's text in the file."""

    word: str
    arguments: tuple[str, ...]
    text: str
    """What follows the word, as it is written."""
    line: int
    column: int
    start: int
    end: int
    excerpt: str


class Statement(NamedTuple):
    """One SQL statement, without the comments before it. `line` and `column` are those of its first character."""

    text: str
    keyword: str
    """Its first word in capitals; empty when it does not begin with one."""
    line: int
    column: int
    directives: tuple[Directive, ...] = ()
    """Those that say how it is run."""
    dialect: str = "sqlite"
    data: str = ""
    """The lines of a `COPY … FROM stdin`, each with its line feed, without the `\\.` behind them."""
