"""`-- migrate:ignore`: which findings a file says not to count, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from financial_agent.migrator.errors import Location
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.lexer import Directive, Statement, place
from financial_agent.migrator.lint.walk import file_directives
from financial_agent.migrator.script import Migration

Position = tuple[int, int]
"""Line and column."""


@dataclass(frozen=True)
class Ignore:
    """One directive: for a whole file, or, from its start to its end, for one statement."""

    filename: str
    code: str
    reason: str
    location: Location
    extent: tuple[Position, Position] | None = None

    def covers(self, found: Finding) -> bool:
        if (self.code, self.filename) != (found.code, found.filename):
            return False
        if self.extent is None:
            return True
        start, end = self.extent
        where = found.location
        return where is not None and start <= (where.line or 0, where.column or 0) < end


@dataclass(frozen=True)
class Silenced:
    finding: Finding
    reason: str
    is_in_file: bool = True
    """The file itself says so."""


@dataclass(frozen=True)
class Sifted:
    """What counts, and what does not."""

    findings: tuple[Finding, ...]
    silenced: tuple[Silenced, ...]


def ignores(migration: Migration) -> Iterator[Ignore]:
    """Every `ignore` of a migration."""
    for directive in file_directives(migration):
        if directive.word == "ignore":
            yield _ignore(migration, directive, None)
    for script in (migration.up, migration.down):
        for statement in script.statements() if script else ():
            for directive in statement.directives:
                if directive.word == "ignore":
                    yield _ignore(migration, directive, statement)


def sift(findings: Sequence[Finding], ignores: Sequence[Ignore], known: Collection[str]) -> Sifted:
    """Part what counts from what does not, and find the ignores that silence nothing, also such as name none of the
    known codes."""
    counted, silenced, used = [], [], set[Ignore]()
    for found in findings:
        covering = [each for each in ignores if each.covers(found)]
        used |= set(covering)
        if covering:
            silenced.append(Silenced(found, covering[0].reason))
        else:
            counted.append(found)
    needless = [_needless(each, known) for each in ignores if each not in used]
    return Sifted((*counted, *needless), tuple(silenced))


def _needless(ignore: Ignore, known: Collection[str]) -> Finding:
    message, hint = f"nothing breaks {ignore.code} here, so there is nothing to ignore", "Remove the line"
    if ignore.code not in known:
        message = f"there is no rule {ignore.code}, so nothing is ignored"
        hint = f"Did you mean {_near(ignore.code, known)}? All rules: flask db explain"
    return Finding("FA618", "warning", message, ignore.filename, ignore.location, hint)


def _ignore(migration: Migration, directive: Directive, statement: Statement | None) -> Ignore:
    code = directive.arguments[0]
    name = migration.up.source.name
    reason = directive.text.removeprefix(code).strip()
    extent = _extent(statement) if statement else None
    return Ignore(migration.file.filename, code, reason, place(name, directive, behind=code), extent)


def _extent(statement: Statement) -> tuple[Position, Position]:
    lines = statement.text.split("\n")
    last = len(lines[-1]) + (statement.column if len(lines) == 1 else 1)
    return (statement.line, statement.column), (statement.line + len(lines) - 1, last)


def _near(code: str, known: Collection[str]) -> str:
    import difflib  # only for this message

    return difflib.get_close_matches(code, known, n=1, cutoff=0)[0]
