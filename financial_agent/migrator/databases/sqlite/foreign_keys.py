"""Rows without their parent, and what a DROP TABLE would do to other tables' rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from financial_agent.migrator.databases import Orphan, Row, StatementError

Query = Callable[[str, Sequence[object]], list[Row]]


def find_orphans(query: Query) -> Counter[Orphan]:
    """Every row whose foreign key finds no parent.

    `PRAGMA foreign_key_check` tells them by rowid (https://sqlite.org/pragma.html#pragma_foreign_key_check). A rebuild
    may renumber rows, so the values of the key are what tells one orphan from another here.
    """
    found: Counter[Orphan] = Counter()
    # `main` everywhere: a temporary table of the same name would answer in its place.
    for (table,) in query("SELECT name FROM main.sqlite_schema WHERE type = 'table'", ()):
        try:
            rows = query("SELECT rowid, parent, fkid FROM pragma_foreign_key_check(?, 'main')", (table,))
        except StatementError:  # one key of the table cannot be checked, as its parent has no unique key that fits
            found[Orphan(table, "a parent that has the referenced key", None)] += 1
            found.update(_one_by_one(query, table))
            continue
        for parent, fkid, rowid in {(parent, fkid, rowid is not None) for rowid, parent, fkid in rows}:
            if rowid:
                keys = _keys_by_rowid(query, table, fkid, [row[0] for row in rows if row[2] == fkid])
            else:
                keys = _keys_without_parent(query, table, parent, fkid)
            found.update(Orphan(table, parent.lower(), tuple(map(_as_text, key))) for key in keys)
    return found


def find_cascades(connection: sqlite3.Connection, drop_table: str) -> tuple[str, list[str]]:
    """The table that a DROP TABLE names, and the others of which foreign key actions would delete or change rows.

    While SQLite prepares the statement, it asks the authorizer's leave for each of them
    (https://sqlite.org/c3ref/set_authorizer.html); EXPLAIN prepares without running.
    """
    dropped, changed = "", set[str]()

    def note(action: int, name: str | None, _column: str | None, _schema: str | None, _by: str | None) -> int:
        nonlocal dropped
        if action == sqlite3.SQLITE_DROP_TABLE:
            dropped = name or ""
        elif action in (sqlite3.SQLITE_DELETE, sqlite3.SQLITE_UPDATE) and name:
            changed.add(name)
        return sqlite3.SQLITE_OK

    # EXPLAIN trusts the schema that the connection has read; a real read notices what others have changed since.
    connection.execute("SELECT 1 FROM main.sqlite_schema LIMIT 1").fetchall()
    connection.set_authorizer(note)
    try:
        connection.execute(f"EXPLAIN {drop_table}").fetchall()
    except sqlite3.Error:
        return "", []  # running it will tell why
    finally:
        connection.set_authorizer(None)
    if not dropped:  # a virtual or temporary table, which no foreign key can name, or no table at all
        return "", []
    return dropped, sorted(name for name in changed - {dropped} if not name.startswith("sqlite_"))


def _as_text(value: object) -> str:
    """A key's value, whatever type a rebuild gives its column."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_by_one(query: Query, table: str) -> Counter[Orphan]:
    """The orphans of a table's foreign keys, as far as they can be checked."""
    found: Counter[Orphan] = Counter()
    sql = """SELECT DISTINCT "table", id FROM pragma_foreign_key_list(?, 'main')"""
    for parent, fkid in query(sql, (table,)):
        with suppress(StatementError):
            keys = _keys_without_parent(query, table, parent, fkid)
            found.update(Orphan(table, parent.lower(), tuple(map(_as_text, key))) for key in keys)
    return found


def _keys_by_rowid(query: Query, table: str, fkid: int, rowids: list[int]) -> list[Row]:
    columns = {name.lower() for (name,) in query("SELECT name FROM pragma_table_xinfo(?, 'main')", (table,))}
    rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in columns), None)
    if rowid is None:  # every name of the rowid is taken by a column: they can only be counted
        return [()] * len(rowids)
    wanted = ", ".join(quoted(child) for child, _ in _columns(query, table, fkid))
    sql = f"SELECT {wanted} FROM main.{quoted(table)} WHERE {rowid} = ?"
    return [query(sql, (each,))[0] for each in rowids]


def _keys_without_parent(query: Query, table: str, parent: str, fkid: int) -> list[Row]:
    """For a WITHOUT ROWID table, of which the PRAGMA tells no more than the number."""
    columns = _columns(query, table, fkid)
    wanted = ", ".join(f"c.{quoted(child)}" for child, _ in columns)
    present = " AND ".join(f"c.{quoted(child)} IS NOT NULL" for child, _ in columns)
    sql = f"SELECT {wanted} FROM main.{quoted(table)} AS c WHERE {present}"
    if not query("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", (parent,)):
        return query(sql, ())
    primary = query("SELECT name FROM pragma_table_info(?, 'main') WHERE pk > 0 ORDER BY pk", (parent,))
    pairs = [(child, to or primary[at][0]) for at, (child, to) in enumerate(columns) if to or at < len(primary)]
    # The parent's collation and affinity decide (https://sqlite.org/foreignkeys.html): it comes first, and + takes the
    # child's affinity away.
    match = " AND ".join(f"p.{quoted(to)} = +c.{quoted(child)}" for child, to in pairs)
    return query(f"{sql} AND NOT EXISTS (SELECT 1 FROM main.{quoted(parent)} AS p WHERE {match})", ())


def _columns(query: Query, table: str, fkid: int) -> list[tuple[str, str | None]]:
    sql = """SELECT "from", "to" FROM pragma_foreign_key_list(?, 'main') WHERE id = ? ORDER BY seq"""
    return [(child, to) for child, to in query(sql, (table, fkid))]
