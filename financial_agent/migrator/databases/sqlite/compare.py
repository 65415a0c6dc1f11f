"""What differs between the rows of two states of a database: counts, never contents.

Rows are told apart by their primary key. In a table without one, or with one that became another, only whole rows can
be counted. A table that only changed its name did not change; of a column that did, what stands in its place counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from financial_agent.migrator.databases import Patience, StatementError, Stopped, TableChange
from financial_agent.migrator.databases.sqlite import errors as codes
from financial_agent.migrator.databases.sqlite.foreign_keys import quoted

_TICK = 20_000  # virtual machine instructions between two questions whether to stop
_WIDE = 900  # columns: SQLite's limit for the depth of an expression is 1,000
_TABLES = """\
SELECT name, rootpage = 0 FROM {state}.sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'
AND name NOT IN ('_migrations', '_migration_history', '_migration_progress', '_litestream_seq', '_litestream_lock')"""


def compare(before: Path, after: Path, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    """See `databases.compare`."""
    uri = f"{before.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.set_progress_handler(lambda: patience.stop(""), _TICK)
        try:
            connection.execute("ATTACH ? AS after", (str(after),))
            connection.execute("PRAGMA query_only = ON")
            changes = sorted(_changes(connection, tables))
            return [change for change in changes if change != TableChange(change.table)]
        except sqlite3.Error as error:
            if codes.primary_code(error) == codes.INTERRUPT:
                raise Stopped from error
            raise StatementError(str(error)) from error


def _changes(connection: sqlite3.Connection, tables: Collection[str] | None) -> Iterator[TableChange]:
    def found(state: str) -> dict[str, tuple[str, bool]]:
        rows = connection.execute(_TABLES.format(state=state)).fetchall()
        return {name.lower(): (name, bool(is_virtual)) for name, is_virtual in rows}

    def count(state: str, table: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {state}.{quoted(table)}").fetchone()[0])

    old, new = found("main"), found("after")
    virtual = {name for state in (old, new) for name, (_, is_virtual) in state.items() if is_virtual}
    # The tables in which a virtual one keeps its rows are its own affair.
    own = {name for name in old.keys() | new.keys() if not any(name.startswith(f"{each}_") for each in virtual)}
    wanted = own if tables is None else (own & (old.keys() ^ new.keys())) | ((old.keys() | new.keys()) & set(tables))
    for name in wanted & old.keys() & new.keys():
        try:
            yield _Table(connection, old[name][0], new[name][0]).change(only_rows=name in virtual)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such module"):  # without it nobody can have changed the table
                raise
    gone, come = wanted - new.keys(), wanted - old.keys()
    for was, now in _renamed(connection, sorted(gone - virtual), sorted(come - virtual)):
        gone, come = gone - {was}, come - {now}
    yield from (TableChange(old[name][0], deleted=count("main", old[name][0])) for name in gone)
    yield from (TableChange(new[name][0], inserted=count("after", new[name][0])) for name in come)


def _renamed(connection: sqlite3.Connection, gone: Sequence[str], come: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Tables that differ in nothing but their name."""
    left = list(come)
    for was in gone:
        for now in left:
            table = _Table(connection, was, now)
            if table.has_same_columns() and table.change() == TableChange(now):
                yield was, now
                left.remove(now)
                break


class _Table:
    """A table that both states have, perhaps by different names."""

    def __init__(self, connection: sqlite3.Connection, old: str, new: str) -> None:
        self._connection = connection
        self._name = new
        self._before, self._after = f"main.{quoted(old)}", f"after.{quoted(new)}"
        self._old, self._new = self._columns("main", old), self._columns("after", new)
        self._kept = list(self._pairs())
        self._lost = [name for name in self._old if name not in dict(self._kept)]

    def has_same_columns(self) -> bool:
        return list(self._old.items()) == list(self._new.items())

    def change(self, *, only_rows: bool = False) -> TableChange:
        key = [(was, now) for was, now in self._kept if self._old[was] and self._old[was] == self._new[now]]
        match = " AND ".join(f"a.{quoted(now)} IS b.{quoted(was)}" for was, now in key)
        joined = f"FROM {self._before} AS b JOIN {self._after} AS a ON {match}"
        partner = f"SELECT 1 FROM {self._before} AS b WHERE {match}"
        alone = f"SELECT count(*) FROM {self._after} AS a WHERE NOT EXISTS ({partner})"
        is_whole = len(key) == sum(map(bool, self._old.values())) == sum(map(bool, self._new.values()))
        if only_rows or not key or not is_whole or len(self._old) > _WIDE or self._has_null(key):
            return self._change_of_whole_rows()
        if not all(self._uses_key(sql) for sql in (f"SELECT 1 {joined}", alone)):
            return self._change_of_whole_rows()
        differs = [f"+b.{quoted(was)} IS NOT +a.{quoted(now)} COLLATE BINARY" for was, now in self._kept]
        losses = [f"b.{quoted(name)} IS NOT NULL" for name in self._lost]
        counted = ["count(*)", f"total({' OR '.join(differs)})", *(f"total({term})" for term in (*differs, *losses))]
        row = self._ask(f"SELECT {', '.join(counted)} {joined}")
        inserted = self._ask(alone)[0]
        before = self._ask(f"SELECT count(*) FROM {self._before}")[0]
        names = (*(was for was, _ in self._kept), *self._lost)
        values = tuple((name, count) for name, count in zip(names, row[2:], strict=True) if count)
        return TableChange(self._name, inserted, row[1], before - row[0], values)

    def _change_of_whole_rows(self) -> TableChange:
        """Rows as often as they occur: one that differs in anything counts as deleted and inserted."""
        before = ", ".join(f"{quoted(was)} COLLATE BINARY AS c{at}" for at, (was, _) in enumerate(self._kept))
        after = ", ".join(quoted(now) for _, now in self._kept)
        group = ", ".join(f"c{at}" for at in range(len(self._kept)))
        both = f"SELECT {before}, 1 AS n FROM {self._before} UNION ALL SELECT {after}, -1 FROM {self._after}"
        counts = f"SELECT sum(n) AS d FROM ({both}) GROUP BY {group}"
        deleted, inserted = self._ask(f"SELECT total(max(d, 0)), total(max(-d, 0)) FROM ({counts})")
        counted = ", ".join(f"count({quoted(name)})" for name in self._lost) or "count(*)"
        values = self._ask(f"SELECT {counted} FROM {self._before}")
        found = tuple((name, count) for name, count in zip(self._lost, values, strict=False) if count)
        return TableChange(self._name, inserted, 0, deleted, found)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Each column with what became of it: the one of its name, or else a new one in its place."""
        places = list(self._new)
        by_name = {name.lower(): name for name in places}
        known = {name.lower() for name in self._old}
        for at, name in enumerate(self._old):
            if name.lower() in by_name:
                yield name, by_name[name.lower()]
            elif at < len(places) and places[at].lower() not in known:
                yield name, places[at]

    def _has_null(self, key: Sequence[tuple[str, str]]) -> bool:
        """Whether a row has a key that does not tell it apart, which SQLite allows."""
        nulls = [f"SELECT 1 FROM {self._before} WHERE {quoted(was)} IS NULL" for was, _ in key]
        nulls += [f"SELECT 1 FROM {self._after} WHERE {quoted(now)} IS NULL" for _, now in key]
        return bool(self._connection.execute(f"{' UNION ALL '.join(nulls)} LIMIT 1").fetchone())

    def _uses_key(self, sql: str) -> bool:
        """Whether each partner is looked up. A key of another type or collation would be searched from end to end."""
        plan = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        return [detail.startswith("SCAN") for *_, detail in plan].count(True) == 1

    def _columns(self, state: str, table: str) -> dict[str, int]:
        """The columns with their place in the primary key, 0 for none."""
        rows = self._connection.execute("SELECT name, pk FROM pragma_table_info(?, ?)", (table, state))
        return dict(rows.fetchall())

    def _ask(self, sql: str) -> list[int]:
        return [int(value) for value in self._connection.execute(sql).fetchone()]
