"""Rows without their parent, as `foreign_key_checks = 0` lets come about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

from financial_agent.migrator.databases import Orphan, Row
from financial_agent.migrator.databases.mysql.schema import quoted

Query = Callable[[str, Sequence[object]], list[Row]]


def find_orphans(query: Query) -> Counter[Orphan]:
    """Every row whose foreign key finds no parent."""
    keys = query(
        "SELECT table_name, constraint_name, referenced_table_schema, referenced_table_name, column_name,"
        " referenced_column_name FROM information_schema.key_column_usage"
        " WHERE constraint_schema = DATABASE() AND table_schema = DATABASE() AND referenced_table_name IS NOT NULL"
        " ORDER BY table_name, constraint_name, ordinal_position",
        (),
    )
    present = set(query("SELECT table_schema, table_name FROM information_schema.tables", ()))
    found: Counter[Orphan] = Counter()
    for (table, _, schema, parent), group in groupby(keys, key=lambda row: row[:4]):
        pairs = [(row[4], row[5]) for row in group]
        child = ", ".join(f"c.{quoted(column)}" for column, _ in pairs)
        filled = " AND ".join(f"c.{quoted(column)} IS NOT NULL" for column, _ in pairs)
        match = " AND ".join(f"p.{quoted(to)} = c.{quoted(column)}" for column, to in pairs)
        source = f"{quoted(schema)}.{quoted(parent)}"
        missing = f" AND NOT EXISTS (SELECT 1 FROM {source} AS p WHERE {match})" if (schema, parent) in present else ""
        rows = query(f"SELECT {child} FROM {quoted(table)} AS c WHERE {filled}{missing}", ())
        found.update(Orphan(table, parent.lower(), tuple(map(str, row))) for row in rows)
    return found
