"""What differs between the rows of two states of a database: counts, never contents.

Rows are told apart by their primary key. In a table without one only whole rows can be counted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from financial_agent.migrator.databases import Patience, StatementError, Stopped, TableChange
from financial_agent.migrator.databases import sqlite_errors as codes
from financial_agent.migrator.databases.sqlite_foreign_keys import quoted

_TICK = 20_000  # virtual machine instructions between two questions whether to stop
_TABLES = """\
SELECT name FROM {state}.sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT GLOB 'sqlite_*'
AND name NOT IN ('_migrations', '_migration_history', '_litestream_seq', '_litestream_lock')"""


def compare(before: Path, after: Path, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    """See `databases.compare`."""
    uri = f"{before.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.set_progress_handler(lambda: patience.stop(""), _TICK)
        try:
            connection.execute("ATTACH ? AS after", (str(after),))
            connection.execute("PRAGMA query_only = ON")
            return list(_changes(connection, tables))
        except sqlite3.Error as error:
            if codes.primary_code(error) == codes.INTERRUPT:
                raise Stopped from error
            raise StatementError(str(error)) from error


def _changes(connection: sqlite3.Connection, tables: Collection[str] | None) -> Iterator[TableChange]:
    def names(state: str) -> set[str]:
        return {name for (name,) in connection.execute(_TABLES.format(state=state))}

    def count(state: str, table: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {state}.{quoted(table)}").fetchone()[0])

    old, new = names("main"), names("after")
    wanted = old | new if tables is None else {name for name in old | new if name.lower() in tables}
    for table in sorted(wanted):
        if table not in new:
            change = TableChange(table, deleted=count("main", table))
        elif table not in old:
            change = TableChange(table, inserted=count("after", table))
        else:
            change = _Table(connection, table).change()
        if change != TableChange(table):
            yield change


class _Table:
    """A table that both states have."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._old, self._new = self._columns("main"), self._columns("after")

    def change(self) -> TableChange:
        key = [name for name, place in self._old.items() if place]
        if not key or key != [name for name, place in self._new.items() if place]:
            return self._change_of_whole_rows()
        match = " AND ".join(f"a.{quoted(name)} IS b.{quoted(name)}" for name in key)
        partner = f"SELECT 1 FROM {self._before} AS b WHERE {match}"
        inserted = self._ask(f"SELECT count(*) FROM {self._after} AS a WHERE NOT EXISTS ({partner})")[0]
        kept = [name for name, place in self._old.items() if name in self._new and not place]
        differs = [f"+b.{quoted(name)} IS NOT +a.{quoted(name)} COLLATE BINARY" for name in kept]
        lost = [name for name in self._old if name not in self._new]
        losses = [f"b.{quoted(name)} IS NOT NULL" for name in lost]
        counted = ["count(*)", f"total({' OR '.join(differs)})" if differs else "0"]
        counted += [f"total({term})" for term in (*differs, *losses)]
        row = self._ask(f"SELECT {', '.join(counted)} FROM {self._before} AS b JOIN {self._after} AS a ON {match}")
        before = self._ask(f"SELECT count(*) FROM {self._before}")[0]
        values = {name: count for name, count in zip((*kept, *lost), row[2:], strict=True) if count}
        return TableChange(self._name, inserted, row[1], before - row[0], tuple(values.items()))

    def _change_of_whole_rows(self) -> TableChange:
        """Rows as often as they occur: one that differs in anything counts as deleted and inserted."""
        shared = [name for name in self._old if name in self._new] or ["rowid"]
        columns = ", ".join(f"{quoted(name)} COLLATE BINARY AS c{at}" for at, name in enumerate(shared))
        group = ", ".join(f"c{at}" for at in range(len(shared)))
        both = f"SELECT {columns}, 1 AS n FROM {self._before} UNION ALL SELECT {columns}, -1 FROM {self._after}"
        counts = f"SELECT sum(n) AS d FROM ({both}) GROUP BY {group}"
        deleted, inserted = self._ask(f"SELECT total(max(d, 0)), total(max(-d, 0)) FROM ({counts})")
        lost = [name for name in self._old if name not in self._new]
        values = self._ask(f"SELECT {', '.join(f'count({quoted(name)})' for name in lost) or '1'} FROM {self._before}")
        found = tuple((name, count) for name, count in zip(lost, values, strict=False) if count)
        return TableChange(self._name, inserted, 0, deleted, found)

    @property
    def _before(self) -> str:
        return f"main.{quoted(self._name)}"

    @property
    def _after(self) -> str:
        return f"after.{quoted(self._name)}"

    def _columns(self, state: str) -> dict[str, int]:
        """The columns with their place in the primary key, 0 for none."""
        rows = self._connection.execute("SELECT name, pk FROM pragma_table_info(?, ?)", (self._name, state))
        return dict(rows.fetchall())

    def _ask(self, sql: str) -> list[int]:
        return [int(value) for value in self._connection.execute(sql).fetchone()]
