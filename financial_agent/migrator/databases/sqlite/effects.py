"""What a statement would destroy, as SQLite itself tells: its authorizer names every table that the statement may
change, also through triggers and foreign keys, and EXPLAIN prepares it without running it
(https://sqlite.org/c3ref/set_authorizer.html).

Two things the authorizer does not tell. That INSERT OR REPLACE, or a table's ON CONFLICT REPLACE, deletes rows: the
program that EXPLAIN lists shows it. And that VACUUM rewrites the file: whoever calls this must know it by its name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from financial_agent.migrator.databases import Effect, Effects
from financial_agent.migrator.lexer import tokens

_DROPS: dict[int, Literal["drop table", "drop index", "drop trigger", "drop view"]] = {
    sqlite3.SQLITE_DROP_TABLE: "drop table",
    sqlite3.SQLITE_DROP_VTABLE: "drop table",
    sqlite3.SQLITE_DROP_INDEX: "drop index",
    sqlite3.SQLITE_DROP_TRIGGER: "drop trigger",
    sqlite3.SQLITE_DROP_VIEW: "drop view",
}
_CREATES = (sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_VTABLE)
_WRITES = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
_PLAIN = {*_WRITES, sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_DELETES = {"Delete", "IdxDelete"}  # opcodes (https://sqlite.org/opcode.html)
_MAIN = 0  # SQLite's number for it
_Operation = tuple[Any, ...]
"""A row of EXPLAIN: address, opcode, and its operands."""


class _Action(NamedTuple):
    """One question to the authorizer. `by` is the trigger or view that asks."""

    code: int
    name: str
    detail: str | None
    schema: str | None
    by: str | None


def find_effects(connection: sqlite3.Connection, sql: str) -> Effects:
    """What a statement would do to the database as it is now; of one that cannot be prepared nothing is known."""
    actions: list[_Action] = []

    def note(code: int, first: str | None, second: str | None, schema: str | None, by: str | None) -> int:
        actions.append(_Action(code, first or "", second, schema, by))
        return sqlite3.SQLITE_OK

    # EXPLAIN trusts the schema that the connection has read; a real read notices what others have changed since.
    connection.execute("SELECT 1 FROM main.sqlite_schema LIMIT 1").fetchall()
    connection.set_authorizer(note)
    try:
        program = connection.execute(f"EXPLAIN {sql}", {"batch": 1}).fetchall()
    except sqlite3.Error:
        return Effects((Effect("unknown"),))
    finally:
        connection.set_authorizer(None)
    effects = _effects(actions, _deleted_from(connection, program))
    if not effects.destroyed and any(operation[1] == "VUpdate" for operation in program):
        # What a module does with a row is its own affair: to FTS5 some are commands, such as 'delete-all'.
        return effects._replace(destroyed=(*effects.destroyed, Effect("unknown")))
    return effects


def find_reach(sql: str) -> str:
    """The word of a statement that names another file, which may be the very database that it is tried on a copy of."""
    verb = sql[:6].upper()  # a file may hold millions of statements
    if verb == "VACUUM":
        return "VACUUM INTO" if "INTO" in map(str.upper, tokens(sql)) else ""
    return verb if verb == "ATTACH" else ""


def _effects(actions: Sequence[_Action], emptied: Collection[str]) -> Effects:
    dropped = [action.name for action in actions if action.code in _DROPS]
    destroyed = [Effect(_DROPS[action.code], action.name) for action in actions if action.code in _DROPS]
    altered = [action for action in actions if action.code == sqlite3.SQLITE_ALTER_TABLE]  # (schema, table, column)
    destroyed += [Effect("drop column", action.detail or "", action.schema) for action in altered if action.schema]
    changes = [action for action in actions if action.code in _WRITES and action.schema != "temp"]
    if _writes_schema_table(actions):
        destroyed.append(Effect("unknown"))
    changes = [action for action in changes if not action.name.startswith("sqlite_")]
    target = dropped[0] if dropped else changes[0].name if changes else ""
    for action in changes:
        if action.name in dropped:
            continue
        via = f"trigger {action.by}" if action.by else "a foreign key" if action.name != target else None
        if action.code == sqlite3.SQLITE_DELETE:
            destroyed.append(Effect("delete", action.name, via=via))
        elif action.code == sqlite3.SQLITE_UPDATE:
            destroyed.append(Effect("update", action.name, action.detail, via))
    destroyed += _replaced(changes, emptied)
    triggers = {action.by for action in actions if action.code in _WRITES and action.by}
    read = {
        action.name or action.by or ""
        for action in actions
        if action.code in (sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE) and action.by not in triggers
    }
    written = {*(action.name for action in changes), *dropped, *(action.detail or "" for action in altered)}
    created = {action.name for action in actions if action.code in _CREATES}
    return Effects(tuple(dict.fromkeys(destroyed)), frozenset(written), frozenset(created), target, frozenset(read))


def _writes_schema_table(actions: Sequence[_Action]) -> bool:
    """Whether a plain INSERT, UPDATE or DELETE reaches into the schema (PRAGMA writable_schema): it may do anything."""
    names = {action.name for action in actions if action.code in _WRITES}
    return {action.code for action in actions} <= _PLAIN and bool(names & {"sqlite_master", "sqlite_schema"})


def _replaced(changes: Sequence[_Action], emptied: Collection[str]) -> list[Effect]:
    """The tables of which rows are replaced: they are inserted into, and nothing else explains why rows are deleted."""
    explained = {action.name for action in changes if action.code != sqlite3.SQLITE_INSERT}
    return [
        Effect("replace", action.name, via=f"trigger {action.by}" if action.by else None)
        for action in changes
        if action.code == sqlite3.SQLITE_INSERT and action.name in emptied and action.name not in explained
    ]


def _deleted_from(connection: sqlite3.Connection, program: Sequence[_Operation]) -> set[str]:
    """The tables of which a program deletes rows, by what its cursors are open on. Those of triggers and foreign keys
    follow the statement's own; each is counted from 0 and has cursors of its own."""
    cursors: dict[int, int] = {}
    pages = set()
    for operation in program:
        if operation[0] == 0:
            cursors = {}
        _, opcode, cursor, page, schema = operation[:5]
        if opcode == "OpenWrite" and schema == _MAIN:
            cursors[cursor] = page
        elif opcode in _DELETES and cursor in cursors:
            pages.add(cursors[cursor])
    if not pages:
        return set()
    rows = connection.execute("SELECT rootpage, tbl_name FROM main.sqlite_schema")
    return {table for page, table in rows if page in pages}
