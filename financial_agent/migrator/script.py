"""One migration file, read: its checksum, and its two scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from financial_agent.migrator import directives, heads, python_script, python_text
from financial_agent.migrator.dialects import rules_of
from financial_agent.migrator.directives import Direction, section_of
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import SectionEmpty
from financial_agent.migrator.heads import Requirement
from financial_agent.migrator.lexer import Directive, Statement
from financial_agent.migrator.sections import Section, parse
from financial_agent.migrator.source import FileSource, Source, StoredSource, decode, hashed, normalised

KEPT_UP_LIMIT = 1 << 20  # characters; of a longer up side the ledger keeps the checksum alone


@dataclass(frozen=True)
class MigrationFile:
    """What a file's name tells. `filename` is the ledger's name for it: the plain one, whichever variant it is."""

    version: int
    name: str
    filename: str
    path: Path
    dialect: str
    """The engine that it is read for, whose variant it is if there is one."""
    own_name: str | None = None
    """What this engine's variant would be called, where others of the folder have one, and this is the plain file."""


@dataclass(frozen=True)
class Script:
    """One direction of a migration. Its text stays where it is and streams when it runs."""

    source: Source
    dialect: str
    direction: Direction
    start: int
    """Where its section begins and ends, in characters of the source."""
    end: int
    line: int
    transaction: bool
    foreign_keys: bool
    """False when they are switched off around the transaction, and checked before its commit."""
    allow: frozenset[str]
    wrapped: bool
    """The section is one BEGIN … COMMIT, which the runner's own transaction replaces."""
    count: int
    keywords: frozenset[str]
    """The first words of its statements."""
    leaves_settings: bool
    """It holds a PRAGMA or ATTACH, whose effect would outlive it on the connection."""
    out_of_order: bool
    """It may run although a migration with a higher number is applied."""
    is_python: bool
    """It is a function of a Python file; what its `statements` give is no SQL."""
    rebuilds: int
    """How many of its statements rebuild a table."""
    only_rebuilds: bool
    """Beside assertions there is nothing else: what undoes it can be told from the tables as they are before."""
    in_batches: bool
    """Its statements run in batches, each of which is a transaction of its own."""

    @property
    def only_rows(self) -> bool:
        """Nothing in it defines or controls anything: no database commits in the middle of it."""
        return self.keywords <= {"INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH", "VALUES", ""}

    def statements(self) -> Iterator[Statement]:
        """The statements to run, in order. Raises FileChanged when the file is no longer the one that was parsed."""
        if self.is_python:
            yield python_script.statement("".join(self.source.chunks()), self.source.name, self.direction, self.dialect)
            return
        direction: Direction = "up"
        for item in directives.parse(self.source.chunks(), self.source.name, self.dialect):
            if isinstance(item, Directive):
                direction = section_of(item) or direction
            elif direction == self.direction and not (self.transaction and self._is_replaced(item)):
                yield item

    def text(self) -> str:
        """A down section as a text of its own that `parse_stored` takes, its lines numbered as in the file."""
        if self.start == 0:  # nothing stands above it
            return _slice(self.source.chunks(), 0, self.end)
        directives = [f"-- migrate:allow {' '.join(sorted(self.allow))}\n"] if self.allow else []
        if not self.foreign_keys:
            directives.append("-- migrate:foreign_keys off\n")
        padding = "\n" * (self.line - 1 - len(directives))
        return "".join([*directives, padding, _slice(self.source.chunks(), self.start, self.end)])

    def _is_replaced(self, statement: Statement) -> bool:
        rules = rules_of(self.dialect)
        return (self.wrapped and rules.control(statement) is not None) or (
            rules.switches_foreign_keys(statement) is not None
        )


@dataclass(frozen=True)
class Migration:
    """One numbered file, read and found fit to run."""

    file: MigrationFile
    checksum: str
    up: Script
    down: Script | None
    requires: tuple[Requirement, ...] = ()
    environments: frozenset[str] = frozenset()
    """Those that it is for; none means every one."""

    def up_text(self) -> str | None:
        """What the ledger keeps of the up side: everything before the down section, or None when that is too long."""
        return None if self.up.end > KEPT_UP_LIMIT else _slice(self.up.source.chunks(), 0, self.up.end)


def read(file: MigrationFile) -> Migration:
    """Parse one file. Raises the FA2xx errors; the statements themselves are only SQLite's to judge."""
    digest = hashlib.sha256()
    name = str(file.path)
    sections = _sections(decode(hashed(normalised(file.path), digest), name), name, file.filename, file.dialect)
    source = FileSource(file.path, digest.hexdigest())
    up, down = sections["up"], sections["down"]
    if not up.has_work:
        raise SectionEmpty(location=Location(name, up.line))
    head = heads.of(up.head, name)
    return Migration(
        file,
        source.checksum,
        _script(up, source, file.dialect),
        # `flask db new` writes an empty down section: left empty, it means that there is no way back.
        _script(down, source, file.dialect) if down.has_work else None,
        head.requires,
        head.environments,
    )


def parse_stored(text: str, filename: str, direction: Direction, note: str = "", dialect: str = "sqlite") -> Script:
    """The script that `Script.text` wrote; `note` follows the filename in messages. Raises the FA2xx errors when it was
    tampered with."""
    name = filename + note
    source = StoredSource(name, text)
    section = _sections(source.chunks(), name, filename, dialect, stored=True)[direction]
    if not section.has_work:
        raise SectionEmpty(location=Location(name, section.line))
    return _script(section, source, dialect)


def _sections(
    chunks: Iterable[str], name: str, filename: str, dialect: str, stored: bool = False
) -> dict[str, Section]:
    if filename.endswith(python_text.SUFFIX):
        return python_script.parse("".join(chunks), name, dialect)
    return parse(chunks, name, dialect, stored)


def _script(section: Section, source: Source, dialect: str) -> Script:
    return Script(
        source=source,
        dialect=dialect,
        direction=section.direction,
        start=section.start,
        end=section.end,
        line=section.line,
        transaction=section.transaction,
        foreign_keys=section.foreign_keys,
        allow=frozenset(section.allow),
        wrapped=section.wrapped,
        count=section.count,
        keywords=frozenset(section.keywords),
        leaves_settings=section.leaves_settings,
        out_of_order=section.out_of_order,
        is_python=section.is_python,
        rebuilds=section.rebuilds,
        only_rebuilds=section.rebuilds == section.count - section.assertions,
        in_batches=section.batch is not None,
    )


def _slice(chunks: Iterable[str], start: int, end: int) -> str:
    parts, offset = [], 0
    for chunk in chunks:
        parts.append(chunk[max(start - offset, 0) : max(end - offset, 0)])
        offset += len(chunk)
    return "".join(parts)
