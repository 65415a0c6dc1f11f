"""Whatever a schema holds: a rebuild that changes one thing changes nothing else, and the way back brings it back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from financial_agent.migrator import repair, rollback, runner
from financial_agent.migrator.control import Control
from tests.helpers import Site
from tests.test_rebuild import contents

TABLE_NAMES = ["t", "T two", 'a "quoted"', "[x]", "select", "tabelle_ä", "rebuild of t", "o"]
COLUMN_NAMES = ["a", "B", "c d", 'e"f', "order", "rowid", "oid", "ü"]
VALUES = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.sampled_from(["", "x", "X", "1", "1.50", "ß\n"]),
    st.just(0.5),
    st.binary(max_size=2),
)


def q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Plain:
    """An ordinary column. In a STRICT table its type is ANY, so that all values fit."""

    name: str
    type: str = ""
    constraints: str = ""

    def sql(self) -> str:
        return f"{q(self.name)} {self.type} {self.constraints}".rstrip()


@dataclass(frozen=True)
class Shape:
    """The table that is rebuilt: how its key is declared, its columns, and what stands behind them."""

    name: str
    key: str
    columns: tuple[Plain, ...]
    generated: tuple[str, ...]
    constraints: tuple[str, ...]
    options: str

    def sql(self) -> str:
        parts = [part for part in (self.key, *(column.sql() for column in self.columns)) if part]
        return f"CREATE TABLE {q(self.name)} ({', '.join([*parts, *self.generated, *self.constraints])}){self.options}"


@dataclass(frozen=True)
class World:
    """A table, what surrounds it, its rows, and the change. `copies` are lines of the rebuild."""

    shape: Shape
    before: tuple[str, ...]
    after: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    deleted: tuple[int, ...]
    new: Shape
    copies: tuple[str, ...]
    legacy: bool


KEYS = {
    "none": "",
    "alias": '"id" INTEGER PRIMARY KEY',
    "counting": '"id" INTEGER PRIMARY KEY AUTOINCREMENT',
    "descending": '"id" INTEGER PRIMARY KEY DESC',
    "plain": '"id" INT NOT NULL PRIMARY KEY',
}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    name = draw(st.sampled_from(TABLE_NAMES[:-2]))
    kind = draw(st.sampled_from([*KEYS, "without rowid"]))
    strict = draw(st.booleans())
    names = draw(st.lists(st.sampled_from(COLUMN_NAMES), min_size=2, max_size=4, unique=True))
    types = ["ANY"] if strict else ["", "TEXT", "INT", "REAL", "BLOB", "VARCHAR(9)", "DECIMAL"]
    aspects = [
        "",
        "",
        "DEFAULT 7",
        "DEFAULT (1 + 1)",
        "COLLATE NOCASE",
        "CHECK (1)",
        "NOT NULL ON CONFLICT REPLACE DEFAULT 'd'",
    ]
    columns = tuple(Plain(each, draw(st.sampled_from(types)), draw(st.sampled_from(aspects))) for each in names)
    first, last = q(names[0]), q(names[-1])
    any_ = " ANY" if strict else ""
    generated = draw(
        st.lists(
            st.sampled_from([f'"g1"{any_} AS (typeof({first}))', f'"g2"{any_} AS (coalesce({last}, 0)) STORED']),
            unique=True,
            max_size=2,
        )
    )
    constraints = draw(
        st.lists(
            st.sampled_from(
                [
                    f"CHECK ({q(name)}.{first} IS NOT 'never')",
                    f"CONSTRAINT {q(name)} CHECK (length({last}) < 99)",
                    f'FOREIGN KEY ({first}) REFERENCES {q(name)} ("id") ON DELETE CASCADE'
                    if kind != "none"
                    else "CHECK (3)",
                    f'FOREIGN KEY ({last}) REFERENCES "o" ("k") ON UPDATE SET NULL',
                    f'UNIQUE ({first}, {last}, "id")' if kind != "none" else "CHECK (2)",
                ]
            ),
            unique=True,
            max_size=3,
        )
    )
    is_keyless = kind == "without rowid"
    options = ", ".join([*(["STRICT"] if strict else []), *(["WITHOUT ROWID"] if is_keyless else [])])
    shape = Shape(
        name,
        KEYS["plain" if is_keyless else kind],
        columns,
        tuple(generated),
        tuple(constraints),
        f" {options}" if options else "",
    )
    new, copies = draw(changes(shape, any_.strip()))
    before, after = _surroundings(name, first, last, kind != "none")
    ids = draw(st.lists(st.integers(1, 60), unique=True, max_size=6))
    rows = tuple((id_, *(draw(VALUES) for _ in columns)) for id_ in ids)
    deleted = tuple(draw(st.lists(st.sampled_from(ids), unique=True))) if ids else ()
    chosen = draw(st.lists(st.sampled_from(after), unique=True, max_size=6)) if after else []
    return World(shape, before, tuple(chosen), rows, deleted, new, copies, draw(st.booleans()))


def _surroundings(name: str, first: str, last: str, has_id: bool) -> tuple[tuple[str, ...], list[str]]:
    table = q(name)
    before = ('CREATE TABLE "o" ("k" PRIMARY KEY, "n" DEFAULT 0)', "INSERT INTO \"o\" VALUES (1, 1), ('x', 2)")
    after = [
        f'CREATE INDEX "i1" ON {table} ({first} COLLATE RTRIM DESC)',
        f'CREATE INDEX "i2" ON {table} ({last}) WHERE {first} IS NOT NULL',
        f'CREATE INDEX "i3" ON {table} (typeof({last}), {first})',
        f'CREATE INDEX "i4" ON {table} ({last}) WHERE {table}.{first} > 0',
        f'CREATE VIEW "v1" AS SELECT count(*) AS n, max({first}) AS m FROM {table}',
        f'CREATE VIEW "v2" AS SELECT x.{last} AS z FROM {table} AS x JOIN "v1"',
        f'CREATE TRIGGER "z1" AFTER INSERT ON {table} BEGIN UPDATE "o" SET "n" = "n" + 1; END',
        f'CREATE TRIGGER "a1" AFTER INSERT ON {table} BEGIN DELETE FROM "o" WHERE "k" = new.{first}; END',
        f"CREATE TRIGGER \"m1\" BEFORE UPDATE OF {first} ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END",
        f'CREATE TRIGGER "d1" AFTER DELETE ON {table} BEGIN INSERT INTO "o" VALUES (random(), 0); END',
        f'CREATE TRIGGER "o1" AFTER UPDATE ON "o" BEGIN UPDATE {table} SET {last} = {last} WHERE 0; END',
        f'CREATE TABLE "child" ("r" REFERENCES {table} ON DELETE CASCADE, "p" REFERENCES "o")' if has_id else "ANALYZE",
        f"CREATE TABLE {q(name + '_more')} ({first}, {last})",
        "ANALYZE",
    ]
    return before, after


@st.composite
def changes(draw: st.DrawFn, shape: Shape, any_: str) -> tuple[Shape, tuple[str, ...]]:
    """One thing that becomes another."""
    columns = shape.columns
    middle = columns[1] if len(columns) > 2 else None

    def added(sql: str) -> Shape:
        return replace(shape, columns=(*columns, Plain("new col", any_, sql)))

    choices: list[tuple[Shape, tuple[str, ...]]] = [
        (added(""), ()),
        (added("DEFAULT 'n'"), ()),
        (added("NOT NULL"), (f'"new col" = coalesce(typeof({q(columns[0].name)}), 1)',)),
        (added(f"AS (typeof({q(columns[0].name)})) STORED"), ()),
        (replace(shape, constraints=(*shape.constraints, f"CHECK (typeof({q(columns[0].name)}) <> 'nothing')")), ()),
        (
            replace(
                shape, constraints=(*shape.constraints, f"CHECK ({q(shape.name)}.{q(columns[-1].name)} IS NOT 'y')")
            ),
            (),
        ),
        (replace(shape, constraints=tuple(each for each in shape.constraints if "CHECK" not in each)), ()),
        (replace(shape, columns=(replace(columns[0], constraints="DEFAULT 'other'"), *columns[1:])), ()),
        (replace(shape, columns=columns[::-1]), ()),
    ]
    if middle:  # nothing else uses it
        renamed = replace(middle, name="renamed")
        choices.append((replace(shape, columns=(columns[0], renamed, *columns[2:])), (f"renamed = {q(middle.name)}",)))
    return draw(st.sampled_from(choices))


def rows_by_column(database: Path, table: str, renamed: dict[str, str]) -> list[dict[str, Any]]:
    """The table's rows, each by the names of its columns, and with its rowid when it has one that is seen."""
    with closing(sqlite3.connect(database)) as connection:
        for select in ('_rowid_ AS "(rowid)", *', "*"):
            try:
                cursor = connection.execute(f"SELECT {select} FROM {q(table)} ORDER BY 1")
            except sqlite3.OperationalError:
                continue
            names = [renamed.get(each[0], each[0]) for each in cursor.description]
            return sorted((dict(zip(names, row, strict=True)) for row in cursor), key=repr)
    raise AssertionError(table)


def check(world: World) -> None:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder) / "site")
        _prepare(site, world)
        lines = [f"-- migrate:rebuild {q(world.shape.name)}", *(f"-- migrate:copy {line}" for line in world.copies)]
        legacy = "PRAGMA legacy_alter_table = ON;\n" if world.legacy else ""
        site.write({"001_change": legacy + "\n".join([*lines, f"{world.new.sql()};"])})
        before = contents(site.database)
        table = world.shape.name
        renamed = {"renamed": world.shape.columns[1].name} if world.copies and "renamed" in world.copies[0] else {}
        had = rows_by_column(site.database, table, {})

        runner.migrate(str(site.database), site.directory)

        after = contents(site.database)
        assert after["schema"][("table", table)] == (table, world.new.sql())
        for found in (before, after):
            found["own"] = found["schema"].pop(("table", table)), found["rows"].pop(table)
            found["schema"] = {
                key: row for key, row in found["schema"].items() if not key[1].startswith("sqlite_autoindex")
            }
        own = before.pop("own")
        after.pop("own")
        assert _comparable(after) == _comparable(before)
        now = rows_by_column(site.database, table, renamed)
        kept = {name for row in had for name in row}
        assert [{name: row[name] for name in row if name in kept} for row in _sorted(now, kept)] == _sorted(had, kept)

        if not world.legacy:  # the PRAGMA is a statement beside the rebuild
            rollback.rollback(str(site.database), site.directory)
            back = contents(site.database)
            assert (back["schema"].pop(("table", table)), back["rows"].pop(table)) == own
            back["schema"] = {
                key: row for key, row in back["schema"].items() if not key[1].startswith("sqlite_autoindex")
            }
            assert _comparable(back) == _comparable(before)


def _sorted(rows: list[dict[str, Any]], kept: set[str]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: repr(sorted((name, row[name]) for name in row if name in kept)))


def _comparable(found: dict[str, Any]) -> dict[str, Any]:
    """The order of sqlite_sequence's and sqlite_stat's rows does not count, nor what tells of automatic indexes."""
    rows = {
        name: sorted(
            (row[1:] for row in rows if not any(str(part).startswith("sqlite_autoindex") for part in row)), key=repr
        )
        if name.startswith("sqlite_stat")
        else sorted(rows)
        if name == "sqlite_sequence"
        else rows
        for name, rows in found["rows"].items()
    }
    return {**found, "rows": rows}


def _prepare(site: Site, world: World) -> None:
    with closing(sqlite3.connect(site.database, isolation_level=None)) as connection:
        for sql in (*world.before, world.shape.sql()):
            connection.execute(sql)
        columns = ", ".join(q(column.name) for column in world.shape.columns)
        alias = '"id"' if world.shape.key else "_rowid_"
        marks = ", ".join("?" * (1 + len(world.shape.columns)))
        for row in world.rows:
            connection.execute(
                f"INSERT OR IGNORE INTO {q(world.shape.name)} ({alias}, {columns}) VALUES ({marks})", row
            )
        for id_ in world.deleted:
            connection.execute(f"DELETE FROM {q(world.shape.name)} WHERE {alias} = ?", (id_,))
        for sql in world.after:
            connection.execute(sql)
        if any('"child"' in sql for sql in world.after):
            connection.execute('INSERT INTO "child" VALUES (1, 1), (77, NULL)')
    repair.baseline(str(site.database), site.directory, "0", Control())


quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(worlds())
def test_a_rebuild_that_changes_one_thing_leaves_everything_else_equal(world: World) -> None:
    check(world)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_so_do_thousands(world: World) -> None:
    check(world)
