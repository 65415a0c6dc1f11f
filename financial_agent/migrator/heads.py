"""What a file says of itself above its first statement: what it requires, and in which environments it is for.

Nothing behind that is read, so that asking what is pending stays cheap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from financial_agent.migrator import directives, python_text
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import DirectiveInvalid, FileRefused
from financial_agent.migrator.lexer import Directive, Statement, place
from financial_agent.migrator.source import decode, normalised

if TYPE_CHECKING:
    from financial_agent.migrator.script import MigrationFile

WORDS = ("requires", "environments")
ENVIRONMENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Requirement:
    """A migration that must be applied before: `word` is its number or its full name, as it is written."""

    word: str
    location: Location


@dataclass(frozen=True)
class Head:
    """What a migration requires, and the environments that it is for; none means every one."""

    requires: tuple[Requirement, ...] = ()
    environments: frozenset[str] = frozenset()

    def is_excluded(self, environment: str | None) -> bool:
        return bool(self.environments) and environment not in self.environments


def read(file: MigrationFile) -> Head:
    """A file's head. Raises the FA2xx errors of what stands in it."""
    name = str(file.path)
    return parse(decode(normalised(file.path), name), name, file.dialect)


def peek(file: MigrationFile) -> Head:
    """The same; of a file whose head cannot be read nothing is known until a run refuses it."""
    try:
        return read(file)
    except FileRefused:
        return Head()


def parse(chunks: Iterable[str], filename: str, dialect: str, note: str = "") -> Head:
    """The head of a text; `note` follows the filename in messages. Raises the FA2xx errors of what stands in it."""
    name = filename + note
    if filename.endswith(python_text.SUFFIX):
        chunks = [python_text.directives_as_sql("".join(chunks), name)]
    found = []
    for item in directives.parse(chunks, name, dialect):
        if isinstance(item, Statement) or directives.section_of(item) == "down":
            break
        if item.word in WORDS:
            found.append(item)
    return of(found, name)


def of(found: Iterable[Directive], name: str) -> Head:
    """What these directives say together. Raises DirectiveInvalid for what cannot be an environment's name."""
    if name.endswith(python_text.SUFFIX):
        found = map(python_text.as_written, found)
    requires: list[Requirement] = []
    environments: set[str] = set()
    for directive in found:
        if directive.word == "requires":
            requires += [Requirement(word, place(name, directive, behind=word)) for word in directive.arguments]
            continue
        for word in directive.arguments:
            if not ENVIRONMENT.fullmatch(word):
                where = place(name, directive, behind=word)
                problem = f"{word!r} cannot be an environment's name"
                fix = "Write names of letters, digits, _ and -, with spaces between them"
                raise DirectiveInvalid(location=where, problem=problem, fix=fix)
        environments.update(directive.arguments)
    return Head(tuple(requires), frozenset(environments))
