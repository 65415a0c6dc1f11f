"""The rebuild of a SQLite table, of which everything that is not said to change stays as it is.

sqlite.org describes it with a RENAME (https://sqlite.org/lang_altertable.html#otheralter). Here the rows are set aside
in a table of a private name, the table is dropped and made anew under its own, and the rows come back. That takes half
as long again, and nothing happens of what a RENAME does, each version and PRAGMA legacy_alter_table in its own way: it
rewrites or refuses what names the table, puts the name in quotes, and fails where a CHECK names its own table. And an
expression sees the old table, whichever way it names it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from financial_agent.migrator.databases import Database, Effect, Effects, Row, StatementError
from financial_agent.migrator.databases.rebuild import (
    CopyError,
    ObjectBroken,
    Rebuild,
    RowsLost,
    RowsRefused,
    ValuesMissing,
)
from financial_agent.migrator.databases.sqlite import errors as codes
from financial_agent.migrator.databases.sqlite.foreign_keys import quoted
from financial_agent.migrator.names import column_in, folded, unquoted

_ORDINARY = 0  # as PRAGMA table_xinfo numbers columns that are not generated
_ROWIDS = ("rowid", "_rowid_", "oid")
_OBJECTS = """\
SELECT type, name, sql, 'main' FROM main.sqlite_schema WHERE sql IS NOT NULL
UNION ALL SELECT type, name, sql, 'temp' FROM temp.sqlite_schema WHERE sql IS NOT NULL"""
# In the order in which they were made, as triggers fire by it.
_DEPENDENT = """\
SELECT type, name, sql FROM {schema}.sqlite_schema
WHERE type IN ('index', 'trigger') AND sql IS NOT NULL AND tbl_name = ? COLLATE NOCASE ORDER BY rowid"""
_watched = re.compile(r"\bUPDATE\s+OF\b(.+?)\bON\b", re.IGNORECASE | re.DOTALL)

_Query = Callable[..., list[Row]]


class _Column(NamedTuple):
    name: str
    type: str
    not_null: bool
    default: str | None
    key: int
    hidden: int

    @property
    def needs_value(self) -> bool:
        return self.not_null and (self.default is None or self.default.upper() == "NULL")


class _Table(NamedTuple):
    """`columns` are by their folded names. `rowid` is a name that finds the rowid, if one does; `alias` the column
    that is the rowid, if one is."""

    name: str
    sql: str
    columns: dict[str, _Column]
    rowid: str | None
    alias: str | None


class _Statistics(NamedTuple):
    """What ANALYZE knows of the table: rows of sqlite_stat1 or sqlite_stat4."""

    table: str
    rows: list[Row]


class SqliteRebuilding:
    """One rebuild. Raises StatementError for what is wrong with it as it is written."""

    def __init__(self, db: Database, rebuild: Rebuild) -> None:
        self._db = db
        self._definition = rebuild.definition
        old = _read(db.query, rebuild.table)
        if old is None:
            is_other = any(folded(name) == folded(rebuild.table) for _, name, _, _ in db.query(_OBJECTS))
            problem = f"{rebuild.table} is no ordinary table" if is_other else f"no such table: {rebuild.table}"
            raise StatementError(problem, rebuild.definition.find(rebuild.table))
        self._old = old
        self._new, self._counts_up = _made(rebuild.definition)
        self._copies = {folded(column): expression for column, expression in rebuild.copies}
        for column, expression in rebuild.copies:
            self._check(column, expression)

    def _check(self, column: str, expression: str) -> None:
        target = self._new.columns.get(folded(column))
        if target is None:
            raise CopyError(f"the new table has no column {column}", column)
        if target.hidden != _ORDINARY:
            raise CopyError(f"column {column} is generated", column)
        head = "EXPLAIN SELECT ("
        try:
            self._db.query(f"{head}{expression}\n) FROM {self._place}")
        except StatementError as error:
            offset = None if error.offset is None else min(max(error.offset - len(head), 0), len(expression) - 1)
            raise CopyError(str(error), column, offset or 0) from error

    @property
    def _place(self) -> str:
        return f"main.{quoted(self._old.name)}"

    def effects(self) -> Effects:
        old, new, table = self._old.columns, self._new.columns, self._old.name
        renamed = set(self._renamed())
        dropped = [
            column
            for name, column in old.items()
            if name not in new and name not in renamed and column.hidden == _ORDINARY and not self._stays_rowid(column)
        ]
        changed = [old[name] for name in old if (name in new or name in renamed) and self._may_change(name)]
        destroyed = [Effect("drop column", table, column.name) for column in dropped]
        destroyed += [Effect("update", table, column.name, everywhere=True) for column in changed]
        return Effects(tuple(destroyed), written=frozenset({table}))

    def reverse(self) -> Rebuild | None:
        old, new, renamed = self._old.columns, self._new.columns, self._renamed()
        lost = [column for name, column in old.items() if name not in new and name not in renamed]
        if any(each.needs_value and each.hidden == _ORDINARY and not self._stays_rowid(each) for each in lost):
            return None
        copies = tuple(
            (column.name, quoted(new[renamed[name]].name))
            for name, column in old.items()
            if name in renamed and column.hidden == _ORDINARY
        )
        return Rebuild(self._old.name, f"{self._old.sql};", copies)

    def perform(self) -> int:
        db, table = self._db, self._old.name
        total = int(db.query(f"SELECT count(*) FROM {self._place}")[0][0])
        self._refuse_missing(total)
        objects, faults = _definitions(db), _faults(db)
        dependents = db.query(_DEPENDENT.format(schema="main"), (table,))
        temporary = db.query(_DEPENDENT.format(schema="temp"), (table,))
        sequence, statistics = _sequence(db, table), _statistics(db, table)
        aside = self._set_aside(total) if total else None
        db.execute(f"DROP TABLE {self._place}")
        db.execute(self._definition)
        if aside:
            self._bring_back(aside, total)
        for type_, name, sql in dependents:
            self._make_anew(type_, name, sql, total)
        for type_, name, sql in temporary:
            if not db.query("SELECT 1 FROM temp.sqlite_schema WHERE type = ? AND name = ?", (type_, name)):
                self._make_anew(type_, name, f"CREATE TEMP{sql.removeprefix('CREATE')}", total)
        self._count_on(sequence, total)
        self._put_back(statistics)
        self._refuse_changed(objects, faults)
        return total

    # What becomes of each column.

    def _renamed(self) -> dict[str, str]:
        """The old columns that have another name in the new table, and nothing under their own."""
        old, found = self._old.columns, dict[str, str]()
        for target, expression in self._copies.items():
            source = column_in(expression)
            is_kept = source in self._new.columns and source not in self._copies
            if source in old and source != target and not is_kept:
                found[source] = target
        return found

    def _may_change(self, name: str) -> bool:
        """Whether the values of a column that stays, perhaps by another name, may become others."""
        renamed = self._renamed()
        old, new = self._old.columns[name], self._new.columns[renamed.get(name, name)]
        is_overwritten = name in self._copies and name not in renamed and column_in(self._copies[name]) != name
        is_converted = new.hidden != _ORDINARY or _affinity(old.type) != _affinity(new.type)
        return old.hidden == _ORDINARY and (is_overwritten or is_converted)

    def _stays_rowid(self, column: _Column) -> bool:
        return column.name == self._old.alias and self._new.rowid is not None

    def _filled(self) -> dict[str, str]:
        """The new table's columns that get values, quoted, each with the expression over the old row."""
        filled = {}
        for name, column in self._new.columns.items():
            if column.hidden != _ORDINARY:
                continue
            if name in self._copies:
                filled[quoted(column.name)] = f"({self._copies[name]}\n)"
            elif name in self._old.columns:
                filled[quoted(column.name)] = quoted(self._old.columns[name].name)
        # A filled column that is the rowid decides it.
        if self._old.rowid and self._new.rowid and (not self._new.alias or quoted(self._new.alias) not in filled):
            filled = {self._new.rowid: self._old.rowid, **filled}
        return filled

    def _refuse_missing(self, total: int) -> None:
        old, new = self._old.columns, self._new.columns
        missing = [
            column.name
            for name, column in new.items()
            if column.needs_value and column.hidden == _ORDINARY and name not in old and name not in self._copies
        ]
        if total and missing:
            raise ValuesMissing(tuple(missing))
        if total and not self._filled():
            raise StatementError("the new table has nothing of the old one")

    # The rows.

    def _set_aside(self, total: int) -> str:
        """Copy what the new table gets, as it is: columns without a type convert nothing. Returns the copy's name."""
        aside = f"main.{quoted(_free_name(self._db, self._old.name))}"
        filled = self._filled()
        self._db.execute(f"CREATE TABLE {aside} ({', '.join(f'c{at}' for at in range(len(filled)))})")
        # The columns' expressions are the user's: one that aggregates makes one row of all.
        copied = self._db.execute(f"INSERT INTO {aside} SELECT {', '.join(filled.values())} FROM {self._place}")
        if copied != total:
            raise RowsLost(total, copied)
        return aside

    def _bring_back(self, aside: str, total: int) -> None:
        filled, place = self._filled(), f"main.{quoted(self._new.name)}"
        columns = ", ".join(f"c{at}" for at in range(len(filled)))
        rows = f"INTO {place} ({', '.join(filled)}) SELECT {columns} FROM {aside} ORDER BY rowid"
        try:
            # ABORT in any case: a constraint that says REPLACE or IGNORE would drop rows without a word.
            arrived = self._db.execute(f"INSERT OR ABORT {rows}")
        except StatementError as error:
            if not error.constraint:
                raise
            raise RowsRefused(error, self._count_refused(rows, total), total) from error
        if arrived != total:
            raise RowsLost(total, arrived)
        self._db.execute(f"DROP TABLE {aside}")

    def _count_refused(self, rows: str, total: int) -> int | None:
        try:
            return total - self._db.execute(f"INSERT OR IGNORE {rows}")
        except StatementError:  # a STRICT table's types are not for IGNORE to pass over
            return None

    # What belongs to the table.

    def _make_anew(self, type_: str, name: str, sql: str, total: int) -> None:
        try:
            self._db.execute(sql)
        except StatementError as error:
            if error.constraint:
                raise RowsRefused(error, None, total) from error
            raise ObjectBroken(type_, name, error) from error

    def _count_on(self, sequence: list[Row], total: int) -> None:
        """Let AUTOINCREMENT go on where it was, also when the newest rows were deleted."""
        if self._counts_up and (sequence or not total):
            self._db.execute("DELETE FROM main.sqlite_sequence WHERE name = ?", (self._new.name,))
            for (seq,) in sequence:
                self._db.execute("INSERT INTO main.sqlite_sequence VALUES (?, ?)", (self._new.name, seq))

    def _put_back(self, statistics: list[_Statistics]) -> None:
        present = {
            name for (name,) in self._db.query("SELECT name FROM pragma_index_list(?, 'main')", (self._new.name,))
        }
        for table, rows in statistics:
            for row in rows:
                # A WITHOUT ROWID table stands in for the index of its key.
                if row[1] is None or row[1] in present or row[1] == self._new.name:
                    marks = ", ".join("?" * len(row))
                    self._db.execute(f"INSERT INTO main.{table} VALUES ({marks})", row)

    def _refuse_changed(self, objects: dict[Row, str], faults: set[Row]) -> None:
        """Nothing but the table may be another, and what worked must work."""
        now = _definitions(self._db)
        itself = ("table", folded(self._old.name), "main")
        for key, sql in objects.items():
            if key != itself and now.get(key) != sql:
                raise ObjectBroken(str(key[0]), str(key[1]), "it would not be as it was")
        for type_, name, cause in _faults(self._db) - faults:
            raise ObjectBroken(type_, name, cause)
        gone = self._old.columns.keys() - self._new.columns.keys()
        for (type_, name, _), sql in objects.items():
            if type_ == "trigger" and (found := gone & _watched_columns(sql)) and self._is_own(str(name)):
                raise ObjectBroken("trigger", str(name), f"it waits for updates of {', '.join(sorted(found))}")

    def _is_own(self, trigger: str) -> bool:
        names = self._db.query(_DEPENDENT.format(schema="main"), (self._new.name,))
        return trigger in {folded(name) for _, name, _ in names}


def _read(query: _Query, table: str) -> _Table | None:
    sql = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name = ? COLLATE NOCASE"
    found = query(sql, (table,))
    if not found:
        return None
    name, definition = found[0]
    sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main')"
    columns = {folded(row[0]): _Column(*row) for row in query(sql, (name,))}
    if "STRICT" in definition.rpartition(")")[2].upper():  # there ANY converts nothing, as no type does elsewhere
        columns = {key: each._replace(type="") if each.type == "ANY" else each for key, each in columns.items()}
    rowid = next((each for each in _ROWIDS if each not in columns), None)
    try:
        query(f"EXPLAIN SELECT {rowid or quoted('')} FROM main.{quoted(name)}")
    except (StatementError, sqlite3.Error):  # it is WITHOUT ROWID
        rowid = None
    keys = [column.name for column in columns.values() if column.key]
    # A key that is not the rowid itself has an index; one declared INTEGER PRIMARY KEY DESC is such a key, too.
    has_index = query("SELECT 1 FROM pragma_index_list(?, 'main') WHERE origin = 'pk'", (name,))
    return _Table(name, definition, columns, rowid, None if has_index or not keys else keys[0])


def _made(definition: str) -> tuple[_Table, bool]:
    """The table that a CREATE TABLE makes, and whether its keys count up. Nothing else is needed to know that."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:

        def query(sql: str, parameters: Any = ()) -> list[Row]:
            return memory.execute(sql, parameters).fetchall()

        try:
            memory.execute(definition)
        except sqlite3.Error as error:
            raise StatementError(str(error), codes.find_offset(memory, definition, str(error))) from error
        (name,) = query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'sqlite_sequence'")[0]
        counts_up = bool(query("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"))
        table = _read(query, name)
        assert table
        return table, counts_up


def _definitions(db: Database) -> dict[Row, str]:
    """Everything in the database, and what is temporary, by type, name and place."""
    return {(type_, folded(name), schema): sql for type_, name, sql, schema in db.query(_OBJECTS)}


def _faults(db: Database) -> set[Row]:
    """The views, and the tables of triggers, that cannot be used, and why: SQLite tells that only when they are."""
    found = set()
    for type_, name, statement in _uses(db):
        try:
            db.query(f"EXPLAIN {statement}")
        except StatementError as error:
            found.add((type_, name, str(error)))
    return found


def _uses(db: Database) -> Iterator[tuple[str, str, str]]:
    for (name,) in db.query("SELECT name FROM main.sqlite_schema WHERE type = 'view'"):
        yield "view", name, f"SELECT * FROM main.{quoted(name)}"
    for (name,) in db.query("SELECT DISTINCT tbl_name FROM main.sqlite_schema WHERE type = 'trigger'"):
        place = f"main.{quoted(name)}"
        what = "a trigger of"
        yield what, name, f"INSERT INTO {place} DEFAULT VALUES"
        yield what, name, f"DELETE FROM {place}"
        if columns := _settable(db, name):
            yield what, name, f"UPDATE {place} SET {', '.join(f'{column} = {column}' for column in columns)}"


def _settable(db: Database, name: str) -> list[str]:
    try:
        rows = db.query("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0", (name,))
    except StatementError:  # a view that cannot be used
        return []
    return [quoted(column) for (column,) in rows]


def _sequence(db: Database, table: str) -> list[Row]:
    if not db.query("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'"):
        return []
    return db.query("SELECT seq FROM main.sqlite_sequence WHERE name = ?", (table,))


def _statistics(db: Database, table: str) -> list[_Statistics]:
    names = db.query("SELECT name FROM main.sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')")
    return [
        _Statistics(name, db.query(f"SELECT * FROM main.{name} WHERE tbl = ? COLLATE NOCASE", (table,)))
        for (name,) in names
    ]


def _free_name(db: Database, table: str) -> str:
    taken = {folded(name) for _, name, _, _ in db.query(_OBJECTS)}
    name = f"rebuild of {table}"
    while folded(name) in taken:
        name += "_"
    return name


def _watched_columns(trigger: str) -> set[str]:
    """The columns for whose updates a trigger waits: SQLite does not mind when one of them is gone."""
    found = _watched.search(trigger)
    return {folded(unquoted(word.strip())) for word in found[1].split(",")} if found else set()


def _affinity(type_: str) -> str:
    """What a column's type makes of values (https://sqlite.org/datatype3.html#determination_of_column_affinity)."""
    upper = type_.upper()
    rules = (("INT", "INTEGER"), ("CHAR|CLOB|TEXT", "TEXT"), ("BLOB|^$", "BLOB"), ("REAL|FLOA|DOUB", "REAL"))
    return next((affinity for pattern, affinity in rules if re.search(pattern, upper)), "NUMERIC")
