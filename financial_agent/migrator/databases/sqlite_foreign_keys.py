"""Rows without their parent, and what a DROP TABLE would do to other tables' rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence

from financial_agent.migrator.databases import Orphan, Row, StatementError

Query = Callable[[str, Sequence[object]], list[Row]]


def find_orphans(query: Query) -> Counter[Orphan]:
    """Every row whose foreign key finds no parent.

    `PRAGMA foreign_key_check` tells them by rowid (https://sqlite.org/pragma.html#pragma_foreign_key_check). A rebuild
    may renumber rows, so the values of the key are what tells one orphan from another here.
    """
    found: Counter[Orphan] = Counter()
    for (table,) in query("SELECT name FROM sqlite_schema WHERE type = 'table'", ()):
        try:
            rows = query("SELECT rowid, parent, fkid FROM pragma_foreign_key_check(?)", (table,))
        except StatementError:  # "foreign key mismatch": the parent has no unique key that fits
            found[Orphan(table, "a parent that has the referenced key", None)] += 1
            continue
        for parent, fkid, rowid in {(parent, fkid, rowid is not None) for rowid, parent, fkid in rows}:
            if rowid:
                keys = _keys_by_rowid(query, table, fkid, [row[0] for row in rows if row[2] == fkid])
            else:
                keys = _keys_without_parent(query, table, parent, fkid)
            # As text, because a rebuild may give the column another type.
            found.update(Orphan(table, parent, tuple(map(str, key))) for key in keys)
    return found


def find_cascades(connection: sqlite3.Connection, drop_table: str) -> tuple[str, list[str]]:
    """The table that a DROP TABLE names, and the others of which foreign key actions would delete or change rows.

    While SQLite prepares the statement, it asks the authorizer's leave for each of them
    (https://sqlite.org/c3ref/set_authorizer.html); EXPLAIN prepares without running.
    """
    dropped, changed = "", set[str]()

    def note(action: int, name: str | None, _column: str | None, _schema: str | None, _by: str | None) -> int:
        nonlocal dropped
        if action in (sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_TEMP_TABLE):
            dropped = name or ""
        elif action in (sqlite3.SQLITE_DELETE, sqlite3.SQLITE_UPDATE) and name:
            changed.add(name)
        return sqlite3.SQLITE_OK

    connection.set_authorizer(note)
    try:
        connection.execute(f"EXPLAIN {drop_table}").fetchall()
    except sqlite3.Error:
        return "", []  # running it will tell why
    finally:
        connection.set_authorizer(None)
    return dropped, sorted(name for name in changed - {dropped} if not name.startswith("sqlite_"))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _keys_by_rowid(query: Query, table: str, fkid: int, rowids: list[int]) -> list[Row]:
    columns = {name.lower() for (name,) in query("SELECT name FROM pragma_table_xinfo(?)", (table,))}
    rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in columns), None)
    if rowid is None:  # every name of the rowid is taken by a column: they can only be counted
        return [()] * len(rowids)
    wanted = ", ".join(quoted(child) for child, _ in _columns(query, table, fkid))
    sql = f"SELECT {wanted} FROM {quoted(table)} WHERE {rowid} = ?"
    return [query(sql, (each,))[0] for each in rowids]


def _keys_without_parent(query: Query, table: str, parent: str, fkid: int) -> list[Row]:
    """For a WITHOUT ROWID table, of which the PRAGMA tells no more than the number."""
    columns = _columns(query, table, fkid)
    wanted = ", ".join(f"c.{quoted(child)}" for child, _ in columns)
    present = " AND ".join(f"c.{quoted(child)} IS NOT NULL" for child, _ in columns)
    sql = f"SELECT {wanted} FROM {quoted(table)} AS c WHERE {present}"
    if not query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", (parent,)):
        return query(sql, ())
    primary = query("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (parent,))
    pairs = [(child, to or primary[at][0]) for at, (child, to) in enumerate(columns)]
    # The parent's side comes first, because its collation decides (https://sqlite.org/foreignkeys.html).
    match = " AND ".join(f"p.{quoted(to)} = c.{quoted(child)}" for child, to in pairs)
    return query(f"{sql} AND NOT EXISTS (SELECT 1 FROM {quoted(parent)} AS p WHERE {match})", ())


def _columns(query: Query, table: str, fkid: int) -> list[tuple[str, str | None]]:
    sql = 'SELECT "from", "to" FROM pragma_foreign_key_list(?) WHERE id = ? ORDER BY seq'
    return [(child, to) for child, to in query(sql, (table, fkid))]
