"""What a database's schema is, and how two of them differ: object by object, tables column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from financial_agent.migrator.databases import Column, Database, SchemaObject
from financial_agent.migrator.lexer import tokens


@dataclass(frozen=True, eq=False)
class Schema:
    """The user's objects, by type and name. Two are equal when they differ in comments and white space at most."""

    objects: tuple[SchemaObject, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(tuple(self._meaning()))

    def _meaning(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        return [(each.type, each.name, each.table, tokens(each.sql)) for each in self.objects]


@dataclass(frozen=True)
class Difference:
    """One object that two schemas do not share. Of a changed one, `columns` says what became of them, in words, and
    `diff` has the lines of its SQL that were removed (-) and added (+)."""

    change: Literal["added", "changed", "removed"]
    type: str
    name: str
    table: str
    columns: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()


def read(db: Database) -> Schema:
    """A database's schema, without the ledger's own tables. Writes nothing."""
    return Schema(tuple(db.objects()))


def outline(schema: Schema) -> Schema:
    """What schemas of two engines have in common: tables, and of their columns the names, which may be NULL, and the
    primary key."""
    return Schema(tuple(_outlined(each) for each in schema.objects if each.type == "table"))


def _outlined(table: SchemaObject) -> SchemaObject:
    columns = tuple(
        Column(each.name.lower(), "", each.not_null or each.key > 0, None, each.key, False)
        for each in sorted(table.columns, key=lambda each: each.name.lower())
    )
    lines = "\n".join(f'"{column.name}" {_definition(column)}'.rstrip() for column in columns)
    return SchemaObject("table", table.name.lower(), table.name.lower(), lines, columns)


def differences(before: Schema, after: Schema) -> list[Difference]:
    """What became of each object, by type and name; none when the schemas are equal."""
    old = {(each.type, each.name): each for each in before.objects}
    new = {(each.type, each.name): each for each in after.objects}
    found = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was and now:
            if (was.table, tokens(was.sql)) != (now.table, tokens(now.sql)):
                found.append(_changed(was, now))
        elif each := was or now:
            found.append(Difference("removed" if was else "added", each.type, each.name, each.table))
    return found


def _changed(was: SchemaObject, now: SchemaObject) -> Difference:
    import difflib  # only for what differs: it would cost every start-up

    lines = difflib.unified_diff(was.sql.splitlines(), now.sql.splitlines(), lineterm="", n=0)
    changed = [line for line in list(lines)[2:] if not line.startswith("@@")]
    return Difference(
        "changed", now.type, now.name, now.table, tuple(_column_changes(was.columns, now.columns)), tuple(changed)
    )


def _column_changes(before: Sequence[Column], after: Sequence[Column]) -> Iterator[str]:
    old, new = ({column.name: column for column in columns} for columns in (before, after))
    for name, column in new.items():
        if name not in old:
            yield f"column {name} {_definition(column)}".rstrip() + " was added"
        else:
            aspects = zip(_aspects(old[name]), _aspects(column), strict=True)
            changes = [f"{was} became {now}" for was, now in aspects if was != now]
            if changes:
                yield f"column {name}: {', '.join(changes)}"
    yield from (f"column {name} is gone" for name in old if name not in new)
    kept = [name for name in new if name in old]
    if kept != [name for name in old if name in new]:
        yield f"the order of the columns became {', '.join(new)}"


def _definition(column: Column) -> str:
    parts = [
        column.type,
        "PRIMARY KEY" if column.key else "",
        "NOT NULL" if column.not_null else "",
        f"DEFAULT {column.default}" if column.default is not None else "",
        "GENERATED" if column.generated else "",
    ]
    return " ".join(part for part in parts if part)


def _aspects(column: Column) -> tuple[str, ...]:
    """What is told of a column when it changes, in words that stand on both sides of "became"."""
    return (
        f"type {column.type or 'none'}",
        "NOT NULL" if column.not_null else "nullable",
        "no default" if column.default is None else f"default {' '.join(tokens(column.default))}",
        f"place {column.key} of the primary key" if column.key else "no part of the primary key",
        "generated" if column.generated else "not generated",
    )
