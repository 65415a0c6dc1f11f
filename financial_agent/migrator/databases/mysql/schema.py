"""The catalogue: what a database's schema is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence

from financial_agent.migrator.databases import Column, ForeignKey, Row, SchemaObject
from financial_agent.migrator.databases.server import LEDGER_TABLES

Query = Callable[[str, Sequence[object]], list[Row]]

_OURS = ", ".join(f"'{name}'" for name in LEDGER_TABLES)
# What a definition is made of, a query for each kind. Numbers of rows and of the next key are no part of it, nor is the
# name of the database: a copy of it is the same.
_CATALOGUE = (
    "SELECT table_name, table_type, engine, table_collation, create_options, table_comment"
    " FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name NOT IN ({ours}) ORDER BY 1",
    "SELECT table_name, ordinal_position, column_name, column_type, is_nullable, column_default, character_set_name,"
    " collation_name, column_key, extra, generation_expression, column_comment FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name NOT IN ({ours}) ORDER BY 1, 2",
    "SELECT table_name, index_name, seq_in_index, column_name, collation, sub_part, non_unique, index_type,"
    " index_comment FROM information_schema.statistics"
    " WHERE table_schema = DATABASE() AND table_name NOT IN ({ours}) ORDER BY 1, 2, 3",
    "SELECT table_name, constraint_name, ordinal_position, column_name,"
    " nullif(referenced_table_schema, DATABASE()), referenced_table_name,"
    " referenced_column_name FROM information_schema.key_column_usage WHERE constraint_schema = DATABASE()"
    " AND table_schema = DATABASE() AND referenced_table_name IS NOT NULL ORDER BY 1, 2, 3",
    "SELECT table_name, constraint_name, update_rule, delete_rule, match_option"
    " FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE() ORDER BY 1, 2",
    "SELECT constraint_name, check_clause FROM information_schema.check_constraints"
    " WHERE constraint_schema = DATABASE() ORDER BY 1, 2",
    "SELECT table_name, partition_name, subpartition_name, partition_method, partition_expression,"
    " partition_description FROM information_schema.partitions"
    " WHERE table_schema = DATABASE() AND partition_name IS NOT NULL ORDER BY 1, 2, 3",
    "SELECT table_name, replace(view_definition, concat('`', replace(DATABASE(), '`', '``'), '`.'), ''),"
    " check_option, security_type FROM information_schema.views"
    " WHERE table_schema = DATABASE() ORDER BY 1",
    "SELECT trigger_name, event_object_table, action_timing, event_manipulation, action_order, action_statement,"
    " sql_mode FROM information_schema.triggers WHERE trigger_schema = DATABASE() ORDER BY 1",
    "SELECT routine_type, routine_name, dtd_identifier, routine_definition, is_deterministic, sql_data_access,"
    " security_type, sql_mode, routine_comment FROM information_schema.routines"
    " WHERE routine_schema = DATABASE() ORDER BY 1, 2",
    "SELECT specific_name, ordinal_position, parameter_mode, parameter_name, dtd_identifier"
    " FROM information_schema.parameters WHERE specific_schema = DATABASE() ORDER BY 1, 2",
    "SELECT event_name, event_definition, event_type, execute_at, interval_value, interval_field, starts, ends,"
    " on_completion, status, sql_mode FROM information_schema.events WHERE event_schema = DATABASE() ORDER BY 1",
)
# By type: the column of SHOW CREATE that has the definition.
_SHOWN = {"table": 1, "sequence": 1, "view": 1, "function": 2, "procedure": 2, "trigger": 2, "event": 3}
_definer = re.compile(r" DEFINER=(?:`[^`]*`|'[^']*'|[^\s`'@]+)(?:@(?:`[^`]*`|'[^']*'|[^\s`'@]+))?")
_auto_increment = re.compile(r" AUTO_INCREMENT=\d+")
_restart = re.compile(r" start with \d+(?= minvalue)")


def quoted(name: str) -> str:
    """A name as it is written in a statement."""
    return "`" + name.replace("`", "``") + "`"


def columns(query: Query, table: str, home: str) -> list[str]:
    """The names of the columns of a table in the database `home`."""
    sql = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position"
    )
    return [name for (name,) in query(sql, (home, table))]


def tables(query: Query) -> dict[str, list[str]]:
    """Every table of the user's with its columns."""
    sql = (
        "SELECT t.table_name, c.column_name FROM information_schema.tables AS t"
        " JOIN information_schema.columns AS c ON c.table_schema = t.table_schema AND c.table_name = t.table_name"
        f" WHERE t.table_schema = DATABASE() AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        f" AND t.table_name NOT IN ({_OURS}) ORDER BY t.table_name, c.ordinal_position"
    )
    found: dict[str, list[str]] = {}
    for table, column in query(sql, ()):
        found.setdefault(table, []).append(column)
    return found


def without_undo(query: Query) -> dict[str, str]:
    """The tables of storage engines without transactions, with their engines."""
    sql = (
        "SELECT t.table_name, t.engine FROM information_schema.tables AS t JOIN information_schema.engines AS e"
        " ON e.engine = t.engine WHERE t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE'"
        " AND coalesce(e.transactions, 'NO') <> 'YES'"
    )
    return dict(query(sql, ()))


def foreign_keys(query: Query, table: str) -> list[ForeignKey]:
    """Those that a table has to tables of the same database."""
    sql = (
        "SELECT constraint_name, referenced_table_name, column_name, referenced_column_name"
        " FROM information_schema.key_column_usage WHERE table_schema = DATABASE() AND table_name = ?"
        " AND referenced_table_schema = DATABASE() ORDER BY constraint_name, ordinal_position"
    )
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, *part in query(sql, (table,)):
        found.setdefault(name, []).append((part[0], part[1], part[2]))
    return [
        ForeignKey(tuple(own for _, own, _ in parts), parts[0][0], tuple(theirs for _, _, theirs in parts))
        for parts in found.values()
    ]


def triggers(query: Query, table: str, home: str) -> list[str]:
    """The names of the triggers of a table in the database `home`."""
    sql = (
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = ?"
        " AND lower(event_object_table) = lower(?) ORDER BY 1"
    )
    return [name for (name,) in query(sql, (home, table))]


def fingerprint(query: Query) -> str:
    """SHA-256, in hexadecimal, of the catalogue without the ledger's tables."""
    rows = [query(sql.format(ours=_OURS), ()) for sql in _CATALOGUE]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def objects(query: Query, database: str) -> list[SchemaObject]:
    """Every object of the user's, by type and name."""
    shapes = _columns_by_table(query)
    found = []
    for type_, name, table in sorted(_names(query)):
        row = query(f"SHOW CREATE {type_.upper()} {quoted(name)}", ())[0]
        sql = _normal(str(row[_SHOWN[type_]] or ""), database)
        found.append(SchemaObject(type_, name, table, sql, shapes.get(name, ()) if type_ == "table" else ()))
    return found


def _names(query: Query) -> Iterable[tuple[str, str, str]]:
    types = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "VIEW": "view", "SEQUENCE": "sequence"}
    sql = "SELECT table_type, table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
    for type_, name in query(f"{sql} AND table_name NOT IN ({_OURS})", ()):
        yield types[type_], name, name
    sql = "SELECT trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
    for name, table in query(sql, ()):
        yield "trigger", name, table
    sql = "SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()"
    for type_, name in query(f"{sql} AND routine_type IN ('FUNCTION', 'PROCEDURE')", ()):
        yield type_.lower(), name, name
    sql = "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE()"
    for (name,) in query(sql, ()):
        yield "event", name, name


def _columns_by_table(query: Query) -> dict[str, tuple[Column, ...]]:
    keys = {
        (table, column): place
        for table, column, place in query(
            "SELECT table_name, column_name, seq_in_index FROM information_schema.statistics"
            " WHERE table_schema = DATABASE() AND index_name = 'PRIMARY'",
            (),
        )
    }
    found: dict[str, tuple[Column, ...]] = {}
    sql = (
        "SELECT table_name, column_name, column_type, is_nullable, column_default, extra"
        f" FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name NOT IN ({_OURS})"
        " ORDER BY table_name, ordinal_position"
    )
    for table, name, type_, nullable, default, extra in query(sql, ()):
        # MariaDB has NULL as an expression where a column may be NULL, and nothing else is its default.
        default = None if default in (None, "NULL") else str(default)
        is_generated = "GENERATED" in extra.upper().replace("DEFAULT_GENERATED", "")
        column = Column(name, str(type_), nullable == "NO", default, keys.get((table, name), 0), is_generated)
        found[table] = (*found.get(table, ()), column)
    return found


def _normal(sql: str, database: str) -> str:
    """A definition without what is another's in another database: whose it is, and where its keys stand."""
    sql = _definer.sub("", sql, count=1)
    sql = _restart.sub("", _auto_increment.sub("", sql))
    return sql.replace(f"{quoted(database)}.", "")


_ORDER = ("sequence", "table", "function", "view", "procedure", "trigger", "event")


def in_order(found: Collection[SchemaObject]) -> list[SchemaObject]:
    """The objects in an order in which they can be made."""
    waiting = sorted(found, key=lambda each: (_ORDER.index(each.type), each.name))
    made: list[SchemaObject] = []
    while waiting:
        names = {quoted(each.name) for each in waiting if each.type in ("table", "view")}
        ready = next((each for each in waiting if not _needs(each, names - {quoted(each.name)})), waiting[0])
        waiting.remove(ready)
        made.append(ready)
    return made


def _needs(each: SchemaObject, names: Collection[str]) -> bool:
    """Whether a table or a view names another that is not made yet."""
    if each.type == "table":
        return any(f"REFERENCES {name} " in each.sql for name in names)
    return each.type == "view" and any(f"{name}" in each.sql for name in names)


def problems(query: Query, names: Iterable[str], *, quick: bool) -> list[str]:
    """What CHECK TABLE finds."""
    found = []
    for name in names:
        rows = query(f"CHECK TABLE {quoted(name)} {'QUICK' if quick else 'EXTENDED'}", ())
        found += [f"{name}: {text}" for _, _, kind, text in rows if str(kind).lower() == "error"]
    return found
