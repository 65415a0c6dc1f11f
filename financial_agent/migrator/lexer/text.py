"""The text of a file as it streams through, and what a grammar is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from financial_agent.migrator.errors import Location

DIRECTIVE = r"--[ \t]*+(?i:migrate)[ \t]*+:"
directive = re.compile(rf"{DIRECTIVE}[ \t]*+([^\n]*+)")

# Groups are repeated greedily, not possessively, because Python 3.11.2 (Debian 12) leaves the position wrong where a
# possessive group fails (https://github.com/python/cpython/issues/106052); and a bounded number of times at once,
# because a greedy group remembers each of its turns.
TURNS = 1000


class Text:
    """The part of the text that is being looked at, and where in the file it stands."""

    def __init__(self, chunks: Iterable[str], path: str) -> None:
        self.path = path
        self.buffer = ""
        self.at = 0
        self.line, self.column, self.offset = 1, 1, 0
        self._line_head = ""
        self._chunks = iter(chunks)
        self.complete = False

    def more(self) -> bool:
        """Read on, at least as much as is pending: a long statement is scanned a logarithmic number of times."""
        if self.complete:
            return False
        pending = self.buffer[self.at :]
        parts, size = [pending], 0
        for chunk in self._chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > len(pending):
                break
        else:
            self.complete = True
        self._line_head = self.head()
        self.buffer, self.at = "".join(parts), 0
        return True

    def head(self) -> str:
        """The current line, up to here (bounded, for excerpts)."""
        start = self.buffer.rfind("\n", 0, self.at)
        return (self.buffer[start + 1 : self.at] if start >= 0 else self._line_head + self.buffer[: self.at])[-2000:]

    def advance(self, end: int) -> str:
        text = self.buffer[self.at : end]
        lines = text.count("\n")
        if lines:
            self.line += lines
            self.column = end - self.buffer.rfind("\n", self.at, end)
        else:
            self.column += end - self.at
        self.offset += end - self.at
        self.at = end
        return text

    def location(self) -> Location:
        rest = self.buffer[self.at : self.at + 2000].partition("\n")[0]
        return Location(self.path, self.line, self.column, self.head() + rest)


class Body:
    """What tells where a statement ends that may hold separators. This one holds none."""

    def ends_behind(self, part: str) -> bool:
        """Whether the statement ends at the separator behind this part of it; each part is shown once, in order."""
        return True

    def unclosed(self) -> tuple[str, str]:
        """What is not closed behind the parts that were shown, and what would close it."""
        raise NotImplementedError


PLAIN = Body()


class Run(NamedTuple):
    """A pattern that is matched again and again, and what follows quotes and comments that no pattern can."""

    pattern: re.Pattern[str]
    over: Callable[[str, int], int] = lambda buffer, at: at
    """Where that ends which begins at a place; the same place when nothing does, or its end is not at hand."""


def to_line_end(text: Text) -> int:
    """Where the line ends, which is then at hand as a whole."""
    while (end := text.buffer.find("\n", text.at)) < 0 and text.more():
        pass
    return end if end >= 0 else len(text.buffer)


@dataclass(frozen=True)
class Grammar:
    """How one engine reads a text."""

    skip: Run
    """White space and comments."""
    piece: Run
    """Everything up to a separator, a directive, a command of the engine's client, or a quote or comment that is not
    closed in the text at hand."""
    undecided: re.Pattern[str]
    """What stands behind white space and may be the beginning of a comment: the text at hand does not tell."""
    comment: re.Pattern[str]
    word: re.Pattern[str]
    """The first word of a statement is its group."""
    openers: Mapping[str, tuple[str, str]]
    """By the character at which a piece stops, what is not closed there, and what would close it."""
    placed_tokens: Callable[[str], Iterator[tuple[int, str]]]
    """What counts of a statement, each with the offset at which it begins."""
    body: Callable[[str, int], Body]
    """For the statement that begins at an offset of the text, of which the part before the first separator is there."""
    space: str
    """What ends a file without a separator."""
    separator: str = ";"
    command: Callable[[Text], Grammar | None] = lambda text: None
    """Takes what the engine's client would take for itself where a statement might begin, and returns the grammar of
    what follows; None when a statement follows. Raises ClientCommand for what only that client can do."""
    is_command: re.Pattern[str] = re.compile(r"(?!)")
    """What is such a command wherever it stands."""
    data: Callable[[Text, str], str] = lambda text, sql: ""
    """Takes the rows that stand behind a statement."""
