"""Pages of the documentation whose commands are run: what they are to print, and what of that is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# What differs from one run to the next.
MASKS = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?", "<when>"),
    (r"\d{8}T\d{6}\.\d{3}Z", "<when>"),
    (r"\b[0-9a-f]{7,64}\b", "<hash>"),
    (r"\b[\d.,]+ (ms|s)\b", "<time>"),
    (r"\b[\d.,]+ (bytes|KB|MB)\b", "<size>"),
    (r"\b[\w.-]+@[\w.-]+\b", "<who>"),
    (r"\s+", " "),
)


@dataclass(frozen=True)
class Command:
    line: int
    text: str
    shown: list[str]
    """What the page shows of its output. The line `…`, which stands for any lines, is not in it; at a line's end, `…`
    stands for the rest of it."""


@dataclass(frozen=True)
class Ran:
    exit_code: int
    output: str


def commands(page: str) -> Iterator[Command]:
    """The commands of all ```console blocks, also of those that a comment keeps from being shown."""
    for block in re.finditer(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        line = page.count("\n", 0, block.start(1)) + 1
        parts = re.split(r"^\$ ", block[1], flags=re.MULTILINE)
        assert not parts[0], f"line {line}: a block begins with a command"
        for part in parts[1:]:
            text, *shown = part.rstrip("\n").split("\n")
            yield Command(line, text, [each for each in shown if each.strip() not in ("", "…")])
            line += part.count("\n")


def masked(line: str) -> str:
    for pattern, mask in MASKS:
        line = re.sub(pattern, mask, line)
    return line.strip()


def missing(command: Command, ran: Ran) -> str | None:
    """The first line that the page shows and the output does not have, behind the one before."""
    lines = iter([masked(line) for line in ran.output.splitlines()])
    return next((shown for shown in command.shown if not any(fits(masked(shown), line) for line in lines)), None)


def fits(shown: str, line: str) -> bool:
    return line.startswith(shown[:-1]) if shown.endswith("…") else line == shown
