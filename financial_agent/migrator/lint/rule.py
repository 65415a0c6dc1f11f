"""What a rule is, and what it is given to judge: frozen values, all of them, so that a rule is a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from financial_agent.migrator.databases import Effects, SchemaObject
from financial_agent.migrator.finding import Severity
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.lint.words import Target, Word
from financial_agent.migrator.script import Migration, Script

Version = tuple[int, ...]


@dataclass(frozen=True)
class Objects:
    """What a schema holds, each by its name in lower case."""

    tables: dict[str, SchemaObject] = field(default_factory=dict)
    views: dict[str, SchemaObject] = field(default_factory=dict)
    indexes: dict[str, SchemaObject] = field(default_factory=dict)
    triggers: dict[str, SchemaObject] = field(default_factory=dict)

    def columns(self, name: str) -> set[str]:
        """The names of a table's or view's columns, in lower case; none when there is no such table."""
        found = self.tables.get(name) or self.views.get(name)
        return {column.name.lower() for column in found.columns} if found else set()

    def readable(self) -> set[str]:
        """The names of what can be read: tables and views."""
        return {*self.tables, *self.views}


@dataclass(frozen=True)
class Moment:
    """One statement, the schema just before it and just after it, and what SQLite says of it."""

    script: Script
    statement: Statement
    words: tuple[Word, ...]
    target: Target
    before: Objects
    after: Objects
    effects: Effects
    refusal: str = ""
    """Why it would be refused if the table that it alters had a row."""
    double_quoted: tuple[int, ...] = ()
    """Where it holds double quotes that name nothing, so that SQLite takes what is in them for a string."""

    @property
    def is_up(self) -> bool:
        return self.script.direction == "up"

    @property
    def defines(self) -> bool:
        """It changes the schema that stays."""
        return self.target.verb in ("CREATE", "DROP", "ALTER") and not self.target.is_temporary


@dataclass(frozen=True)
class Broken:
    """A view or trigger that cannot be used any more."""

    type: str
    name: str
    why: str
    moment: Moment
    """The last statement that could have been the reason."""


@dataclass(frozen=True)
class File:
    """One migration. Of many statements that only insert rows, the first ones stand for all."""

    migration: Migration
    head: str
    """What stands above the first statement."""
    up: tuple[Moment, ...]
    down: tuple[Moment, ...]
    before: Objects
    after: Objects
    """The schema that its up section leaves."""
    broken: tuple[Broken, ...]
    """What its up section broke."""

    @property
    def moments(self) -> tuple[Moment, ...]:
        return self.up + self.down


@dataclass(frozen=True)
class Place:
    """Where in a migration: a statement, or the file as a whole."""

    migration: Migration
    statement: Statement | None = None


@dataclass(frozen=True)
class Key:
    """A foreign key of the schema that all migrations together make."""

    table: str
    columns: tuple[str, ...]
    parent: str
    unindexed: Place | None
    """What made it, or took its index away; None when it has one."""
    mismatched: Place | None
    """What made it, or changed its parent, so that it cannot work; None when it can."""
    mismatch: str
    """Why it cannot."""


@dataclass(frozen=True)
class Folder:
    """All migrations together."""

    migrations: tuple[Migration, ...]
    keys: tuple[Key, ...]
    skipped: frozenset[int]
    """The numbers of those that are for other environments."""


@dataclass(frozen=True)
class Found:
    """One place where a rule is broken; `at` is the character of the statement."""

    message: str
    place: Place
    at: int = 0
    severity: Severity | None = None
    """Where it is not the rule's own."""


Files = tuple[tuple[str, str], ...]
"""The names of files, and what is in them."""


BASE = (
    "001_create_orders.sql",
    """\
-- Customers and what they order: the tables of the examples.

-- migrate:up
CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT);
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    total INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS orders_by_customer ON orders (customer_id);

-- migrate:down
DROP TABLE IF EXISTS orders;
DROP TABLE IF EXISTS customers;
""",
)


@dataclass(frozen=True)
class Rule:
    """One house rule. `wrong` and `right` are what a folder holds behind the file of `BASE`."""

    code: str
    severity: Severity
    title: str
    why: str
    advice: str
    """What to do instead."""
    wrong: Files
    right: Files
    source: str
    """Where more about the reason can be read."""
    of_file: Callable[[File, Version | None], Iterator[Found]] | None = None
    of_folder: Callable[[Folder], Iterator[Found]] | None = None


def written(
    name: str, comment: str, up: str, down: str = "", *, transaction: bool = True, foreign_keys: bool = True
) -> tuple[str, str]:
    """A file of an example."""
    comment += "" if foreign_keys else "\n-- migrate:foreign_keys off"
    how = "" if transaction else " transaction:false"
    back = f"\n-- migrate:down{how}\n{down.strip()}\n" if down else ""
    return f"{name}.sql", f"-- {comment}\n\n-- migrate:up{how}\n{up.strip()}\n{back}"


def within(file: File, moment: Moment, message: str, at: int = 0, severity: Severity | None = None) -> Found:
    """Something found in a statement."""
    return Found(message, Place(file.migration, moment.statement), at, severity)
