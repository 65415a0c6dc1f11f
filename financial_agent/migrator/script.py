"""One migration file: its sections, its directives, and what may not stand in it."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from financial_agent.migrator.errors import (
    AttachRefused,
    DirectiveInvalid,
    DirectiveUnknown,
    LedgerTouched,
    Location,
    NeedsNoTransaction,
    SectionEmpty,
    SectionsInvalid,
    TransactionControl,
)
from financial_agent.migrator.lexer import COMMENT, TRIVIA, WORD, Directive, Statement, lex
from financial_agent.migrator.source import FileSource, Source, StoredSource, decode, hashed, normalised

Direction = Literal["up", "down"]

LEDGER_TABLES = ("_migrations", "_migration_history")
KEPT_UP_LIMIT = 1 << 20  # characters; of a longer up side the ledger keeps the checksum alone

_TRANSACTION_WORDS = {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"}
# What SQLite refuses inside a transaction, or silently ignores there (https://sqlite.org/pragma.html).
_PRAGMAS_OUTSIDE_TRANSACTION = {"journal_mode", "synchronous", "temp_store", "wal_checkpoint"}
_ARGUMENTS = {
    "up": {"transaction:false", "transaction:true"},
    "down": {"transaction:false", "transaction:true"},
    "foreign_keys": {"off"},
    "allow": {"attach", "cascade"},
    "out-of-order": {"allow"},
}

_QUOTE = r"['\"`\[\]]?"
_pragma = re.compile(
    rf"PRAGMA{TRIVIA}(?:{_QUOTE}\w+{_QUOTE}{TRIVIA}\.{TRIVIA})?{_QUOTE}(\w+){_QUOTE}{TRIVIA}([=(])?", re.IGNORECASE
)
_name = re.compile(rf"{COMMENT}|'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"|`([^`]*)`|\[([^\]]*)\]|({WORD}+)")


@dataclass(frozen=True)
class MigrationFile:
    """What a file's name tells. `filename` is the ledger's name for it: the plain one, whichever variant it is."""

    version: int
    name: str
    filename: str
    path: Path


@dataclass(frozen=True)
class Script:
    """One direction of a migration. Its text stays where it is and streams when it runs."""

    source: Source
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

    def statements(self) -> Iterator[Statement]:
        """The statements to run, in order. Raises FileChanged when the file is no longer the one that was parsed."""
        direction: Direction = "up"
        for item in lex(self.source.chunks(), self.source.name):
            if isinstance(item, Directive):
                direction = _section(item) or direction
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
        return (self.wrapped and statement.keyword in _TRANSACTION_WORDS) or _foreign_keys_pragma(statement) is not None


@dataclass(frozen=True)
class Migration:
    """One numbered file, read and found fit to run."""

    file: MigrationFile
    checksum: str
    up: Script
    down: Script | None

    def up_text(self) -> str | None:
        """What the ledger keeps of the up side: everything before the down section, or None when that is too long."""
        return None if self.up.end > KEPT_UP_LIMIT else _slice(self.up.source.chunks(), 0, self.up.end)


def read(file: MigrationFile) -> Migration:
    """Parse one file. Raises the FA2xx errors; the statements themselves are only SQLite's to judge."""
    digest = hashlib.sha256()
    name = str(file.path)
    sections = _parse(decode(hashed(normalised(file.path), digest), name), name)
    source = FileSource(file.path, digest.hexdigest())
    up, down = sections["up"], sections["down"]
    if up.count == 0:
        raise SectionEmpty(location=Location(name, up.line))
    # `flask db new` writes an empty down section: left empty, it means that there is no way back.
    return Migration(
        file, source.checksum, up.script(source, "up"), down.script(source, "down") if down.count else None
    )


def parse_stored(text: str, name: str, direction: Direction) -> Script:
    """The script that `Script.text` wrote. Raises the FA2xx errors when it was tampered with."""
    source = StoredSource(name, text)
    section = _parse(source.chunks(), name, stored=True)[direction]
    if section.count == 0:
        raise SectionEmpty(location=Location(name, section.line))
    return section.script(source, direction)


class _Section:
    """What is known of a section while it is being read."""

    def __init__(self, direction: Direction, name: str) -> None:
        self.direction = direction
        self.name = name
        self.marked = False
        self.start = self.end = 0
        self.line = 1
        self.transaction = True
        self.foreign_keys = True
        self.allow: set[str] = set()
        self.empty = True
        self.count = 0
        self.keywords: set[str] = set()
        self.leaves_settings = False
        self.out_of_order = False
        self._first: Statement | None = None
        self._begin: Statement | None = None
        self._commit: Statement | None = None

    def script(self, source: Source, direction: Direction) -> Script:
        return Script(
            source=source,
            direction=direction,
            start=self.start,
            end=self.end,
            line=self.line,
            transaction=self.transaction,
            foreign_keys=self.foreign_keys,
            allow=frozenset(self.allow),
            wrapped=self._commit is not None,
            count=self.count,
            keywords=frozenset(self.keywords),
            leaves_settings=self.leaves_settings,
            out_of_order=self.out_of_order,
        )

    def open(self, marker: Directive) -> None:
        if self.marked:
            self._refuse_sections(marker, f"there is a second {marker.word} section", "Keep one of them")
        self.marked = True
        self.start, self.line = marker.start, marker.line
        self.transaction = "transaction:false" not in marker.arguments

    def configure(self, directive: Directive) -> None:
        match directive.word:
            case "foreign_keys":
                self.foreign_keys = False
            case "out-of-order":
                self.out_of_order = True
            case _:
                self.allow.update(directive.arguments)

    def add(self, statement: Statement) -> None:
        """Take a statement in, or refuse it."""
        self.empty = False
        keyword = statement.keyword
        if "_migration" in statement.text.lower():
            self._refuse_ledger(statement)
        if keyword in _TRANSACTION_WORDS:
            if self.transaction:
                self._wrap(statement)
                return
        elif keyword == "PRAGMA":
            self._pragma(statement)
            if self.transaction and _foreign_keys_pragma(statement) is not None:
                return
        else:
            self._refuse_behind_commit()
            self._first = self._first or statement
        if keyword in ("ATTACH", "DETACH"):
            if "attach" not in self.allow:
                raise AttachRefused(location=self._at(statement), keyword=keyword)
            self.leaves_settings = True
        if self.transaction and keyword in ("VACUUM", "DETACH"):
            raise NeedsNoTransaction(location=self._at(statement), what=keyword, section=self.direction)
        self.keywords.add(keyword)
        self.count += 1

    def close(self, end: int) -> None:
        self.end = end
        if self._begin and not self._commit:
            self._refuse_control(self._begin)

    def _wrap(self, statement: Statement) -> None:
        if statement.keyword == "BEGIN" and not self._first and not self._begin:
            self._begin = statement
        elif statement.keyword in ("COMMIT", "END") and self._begin and not self._commit:
            self._commit = statement
        else:
            self._refuse_control(statement)

    def _refuse_behind_commit(self) -> None:
        if self._commit:
            self._refuse_control(self._commit)

    def _refuse_control(self, statement: Statement) -> None:
        raise TransactionControl(location=self._at(statement), keyword=statement.keyword, section=self.direction)

    def _pragma(self, statement: Statement) -> None:
        switched = _foreign_keys_pragma(statement)
        if switched is not None:
            self.foreign_keys = self.foreign_keys and switched
        if switched is None or not self.transaction:
            self.leaves_settings = True
        pragma = _pragma.match(statement.text)
        name = pragma[1].lower() if pragma else ""
        asks = pragma is not None and not pragma[2] and name != "wal_checkpoint"
        if self.transaction and name in _PRAGMAS_OUTSIDE_TRANSACTION and not asks:
            what = f"PRAGMA {name}"
            raise NeedsNoTransaction(location=self._at(statement), what=what, section=self.direction)

    def _refuse_ledger(self, statement: Statement) -> None:
        for token in _name.finditer(statement.text):
            word = next((group for group in token.groups() if group), "").lower()
            if word in LEDGER_TABLES:
                raise LedgerTouched(location=locate(self.name, statement, token.start()), table=word)

    def _refuse_sections(self, marker: Directive, problem: str, fix: str) -> None:
        raise SectionsInvalid(location=_place(self.name, marker), problem=problem, fix=fix)

    def _at(self, statement: Statement) -> Location:
        return locate(self.name, statement, 0)


def _parse(chunks: Iterable[str], name: str, stored: bool = False) -> dict[str, _Section]:
    up, down = _Section("up", name), _Section("down", name)
    current, length = up, 0

    def measured() -> Iterator[str]:
        nonlocal length
        for chunk in chunks:
            length += len(chunk)
            yield chunk

    for item in lex(measured(), name):
        if isinstance(item, Statement):
            current.add(item)
            continue
        _check(item, name)
        section = _section(item)
        if section is None:
            for each in (current,) if up.marked or down.marked else (up, down):
                each.configure(item)
            continue
        if section == "up" and not up.marked and not up.empty:
            problem = "the up section must come first, with no statement before it"
            raise SectionsInvalid(location=_place(name, item), problem=problem, fix="Move -- migrate:up to the top")
        if section == "down" and not up.marked and not stored:
            problem = "the down section stands before any up section"
            fix = "Begin what applies the migration with a line: -- migrate:up"
            raise SectionsInvalid(location=_place(name, item), problem=problem, fix=fix)
        current.close(item.start)
        current = up if section == "up" else down
        current.open(item)
    current.close(length)
    return {"up": up, "down": down}


def _check(directive: Directive, name: str) -> None:
    known = _ARGUMENTS.get(directive.word)
    if known is None:
        import difflib  # only for this message: it would cost every start-up

        near = difflib.get_close_matches(directive.word.lower(), _ARGUMENTS, n=1, cutoff=0.5)
        problem = f"unknown directive {directive.word!r}" if directive.word else "this directive has no word"
        fix = f"Did you mean -- migrate:{near[0]}?" if near else f"The directives are: {', '.join(_ARGUMENTS)}"
        raise DirectiveUnknown(location=_place(name, directive), problem=problem, fix=fix)
    needs_argument = _section(directive) is None
    wrong = [argument for argument in directive.arguments if argument not in known]
    if wrong or (needs_argument and not directive.arguments):
        problem = f"migrate:{directive.word} does not take {wrong[0]!r}" if wrong else "a word is missing here"
        fix = " or ".join(f"-- migrate:{directive.word} {word}" for word in sorted(known))
        place = _place(name, directive, behind=wrong[0] if wrong else "")
        raise DirectiveInvalid(location=place, problem=problem, fix=f"Write: {fix}")


def _section(directive: Directive) -> Direction | None:
    match directive.word:
        case "up":
            return "up"
        case "down":
            return "down"
        case _:
            return None


def _foreign_keys_pragma(statement: Statement) -> bool | None:
    """What a `PRAGMA foreign_keys = …` switches to, in SQLite's own judgement; None for every other statement."""
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


def _place(name: str, directive: Directive, behind: str = "") -> Location:
    """Where a directive's word stands, or one of its arguments."""
    column = directive.column
    if behind and (found := re.compile(rf"(?<=\s){re.escape(behind)}(?!\S)").search(directive.excerpt, column)):
        column = found.start() + 1
    return Location(name, directive.line, column, directive.excerpt)


def locate(name: str, statement: Statement, offset: int) -> Location:
    """The place `offset` characters into a statement."""
    before = statement.text[:offset]
    start = before.rfind("\n") + 1
    column = offset - start + (1 if start else statement.column)
    line_text = statement.text[start:].split("\n", 1)[0]
    # What stands before the statement on its line is not kept: blanks hold the caret's place.
    excerpt = line_text if start else " " * (statement.column - 1) + line_text
    return Location(name, statement.line + before.count("\n"), column, excerpt)


def _slice(chunks: Iterable[str], start: int, end: int) -> str:
    parts, offset = [], 0
    for chunk in chunks:
        parts.append(chunk[max(start - offset, 0) : max(end - offset, 0)])
        offset += len(chunk)
    return "".join(parts)
