"""Fills tables with a few rows that fit them: a migration may work on empty tables alone.

The rows are the same in each run.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from financial_agent.migrator.databases import (
    Database,
    ForeignKey,
    OrphansLeft,
    Row,
    SchemaObject,
    StatementError,
)
from financial_agent.migrator.sample_values import Check, Value, candidates, checks_of

ROWS = 4  # that a table is given; every other one has NULL where that fits
_TRIES = 100  # for one row

Values = tuple[Value, ...]

_refused_columns = re.compile(r"\.([^.,]+)(?=,|$)")
_quoted_names = re.compile(r"[\"'`.]([^\"'`.]+)[\"'`]")


@dataclass(frozen=True)
class _Slot:
    """Columns that get their values together: those of one foreign key, or a single one."""

    columns: tuple[str, ...]
    choices: Sequence[Values]
    is_key: bool = False


class _Refused(Exception):
    """No row was found that fits."""


def fill(db: Database, tables: Collection[str]) -> list[str]:
    """Add rows to tables, parents first. Returns the names of those that remain empty. Raises Stopped."""
    objects = [each for each in db.objects() if each.type == "table" and each.name in tables]
    keys = {each.name: db.foreign_keys(each.name) for each in objects}
    for each in _parents_first(objects, keys):
        # A deferred key, or a trigger that ends the transaction, shows only at the end.
        try:
            with db.transaction():
                _fill_table(db, each, keys[each.name])
        except (_Refused, StatementError, OrphansLeft):
            continue
    return [each.name for each in objects if db.counts(each.name, []) == [0]]


def _parents_first(objects: Sequence[SchemaObject], keys: dict[str, list[ForeignKey]]) -> list[SchemaObject]:
    """Each table behind those that it refers to; where they refer to each other, by name."""
    waiting, found = list(objects), list[SchemaObject]()
    while waiting:
        names = {each.name.lower() for each in waiting}

        def is_ready(each: SchemaObject, names: set[str] = names) -> bool:
            return not (({key.parent.lower() for key in keys[each.name]} & names) - {each.name.lower()})

        ready = [each for each in waiting if is_ready(each)] or waiting[:1]
        found += ready
        waiting = [each for each in waiting if each not in ready]
    return found


def _fill_table(db: Database, table: SchemaObject, keys: Sequence[ForeignKey]) -> None:
    """Raises _Refused when not even one row fits."""
    (before,) = db.counts(table.name, [])
    checks = list(checks_of(table.sql, db.dialect))
    filled = 0
    for number in range(before + 1, before + ROWS + 1):
        filled += _add_row(db, table, checks, _slots(db, table, checks, keys, number), number)
    if not filled:
        raise _Refused


def _slots(
    db: Database, table: SchemaObject, checks: Sequence[Check], keys: Sequence[ForeignKey], number: int
) -> list[_Slot]:
    slots: list[_Slot] = []
    left = {column.name: column for column in table.columns if not column.generated and not db.counts_up(table, column)}
    for key in keys:
        if left.keys() >= set(key.columns):
            nullable = any(not left[name].not_null for name in key.columns)
            slots.append(_Slot(key.columns, _parents(db, key, number, nullable), is_key=True))
            left = {name: column for name, column in left.items() if name not in key.columns}

    def evaluate(expression: str) -> Value:
        rows = _asked(db, f"SELECT {expression}")
        value: Value = rows[0][0] if rows else None
        return value

    for name, column in left.items():
        column = column._replace(type=db.spelled_out(column.type))
        slots.append(_Slot((name,), [(value,) for value in candidates(column, checks, number, evaluate)]))
    return slots


def _parents(db: Database, key: ForeignKey, number: int, nullable: bool) -> list[Values]:
    """Rows that a foreign key may refer to, another one first for each row; NULL for every other one that may."""
    columns = key.parent_columns or _primary_key(db, key.parent)
    rows = _asked(db, f"SELECT {', '.join(map(db.quoted, columns))} FROM {db.written(key.parent)} LIMIT 50")
    turn = number % len(rows) if rows else 0
    found = [row for row in (*rows[turn:], *rows[:turn]) if None not in row]
    # The row itself, in the hope that it will have that number.
    found += [(number,) * len(key.columns)]
    nothing = [(None,) * len(key.columns)] if nullable else []
    return [*nothing, *found] if number % 2 == 0 else [*found, *nothing]


def _asked(db: Database, sql: str) -> list[Row]:
    """What a query in the middle of a transaction finds; nothing, if there is no such table, or no such column."""
    db.execute("SAVEPOINT sample")
    try:
        return db.query(sql)
    except StatementError:
        db.execute("ROLLBACK TO SAVEPOINT sample")
        return []
    finally:
        db.execute("RELEASE SAVEPOINT sample")


def _primary_key(db: Database, table: str) -> tuple[str, ...]:
    columns = next((each.columns for each in db.objects() if each.name.lower() == table.lower()), ())
    keys = sorted((column.key, column.name) for column in columns if column.key)
    return tuple(name for _, name in keys) or ("rowid",)


def _add_row(db: Database, table: SchemaObject, checks: Sequence[Check], slots: Sequence[_Slot], number: int) -> bool:
    """Try values until a row fits; after each refusal others for the columns that it names."""
    chance = random.Random(f"{table.name} {number}")
    chosen = [0] * len(slots)
    names = ", ".join(db.quoted(name) for slot in slots for name in slot.columns)
    marks = ", ".join("?" for slot in slots for _ in slot.columns)
    values = f"({names}) VALUES ({marks})" if slots else db.default_row
    sql = f"INSERT INTO {db.written(table.name)} {values}"
    for _ in range(_TRIES):
        row = [value for slot, at in zip(slots, chosen, strict=True) for value in slot.choices[at]]
        refusal = _insert(db, sql, [_as_text(value) for value in row] if db.reads_text else row)
        if refusal is None:
            return True
        suspects = _suspects(refusal, slots, checks)
        for at in suspects:
            many = len(slots[at].choices)
            chosen[at] = (chosen[at] + 1) % many if len(suspects) == 1 else chance.randrange(many)
    return False


def _as_text(value: Value) -> Value:
    return value if value is None or isinstance(value, bytes) else str(value)


def _insert(db: Database, sql: str, row: Sequence[Value]) -> str | None:
    """Why a row was refused; None for one that was taken. Raises StatementError when that ended the transaction."""
    db.execute("SAVEPOINT sample")
    try:
        db.execute(sql, row)
    except StatementError as error:
        if not db.in_transaction:
            raise
        db.execute("ROLLBACK TO SAVEPOINT sample")
        return str(error)
    finally:
        if db.in_transaction:
            db.execute("RELEASE SAVEPOINT sample")
    return None


def _suspects(refusal: str, slots: Sequence[_Slot], checks: Sequence[Check]) -> list[int]:
    """The slots whose values may be at fault."""
    what, _, detail = refusal.partition(" constraint failed")
    detail = detail.removeprefix(": ")
    quoted = set(_quoted_names.findall(refusal))  # as the servers write them
    broken = [check for check in checks if check.name and check.name in {detail, *quoted}]
    if what == "CHECK" or broken:
        guilty = broken or list(checks)
        found = [at for at, slot in enumerate(slots) if any(c.concerns(n) for c in guilty for n in slot.columns)]
    elif what == "FOREIGN KEY":
        found = [at for at, slot in enumerate(slots) if slot.is_key]
    else:
        named = {name.lower() for name in (*_refused_columns.findall(refusal), *quoted)}
        found = [at for at, slot in enumerate(slots) if named & {name.lower() for name in slot.columns}]
    return found or list(range(len(slots)))
