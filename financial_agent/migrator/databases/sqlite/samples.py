"""What must be known of tables to fill them with rows, and to look at those."""

from __future__ import annotations

from collections.abc import Sequence

from financial_agent.migrator.databases import Column, ForeignKey, Row, SchemaObject
from financial_agent.migrator.databases.sqlite.foreign_keys import quoted

# Without those of virtual tables, which alone know what they may hold.
_FILLABLE = """\
SELECT name, sql FROM sqlite_schema AS each WHERE type = 'table' AND rootpage > 0 AND name NOT GLOB 'sqlite_*'
AND name NOT IN ('_migrations', '_migration_history', '_migration_progress') AND NOT EXISTS (
    SELECT 1 FROM sqlite_schema AS owner WHERE owner.type = 'table' AND owner.rootpage = 0
    AND substr(each.name, 1, length(owner.name) + 1) = owner.name || '_')"""


class Samples:
    """The part of a database that answers this."""

    default_row = "DEFAULT VALUES"
    reads_text = False
    quoted = staticmethod(quoted)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        raise NotImplementedError

    def written(self, table: str) -> str:
        return f"main.{quoted(table)}"

    def fillable(self) -> dict[str, str]:
        return dict(self.query(_FILLABLE))

    def foreign_keys(self, table: str) -> list[ForeignKey]:
        sql = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
        found: dict[int, list[tuple[str, str, str | None]]] = {}
        for id_, parent, column, parent_column in self.query(sql, (table,)):
            found.setdefault(id_, []).append((parent, column, parent_column))
        return [
            ForeignKey(tuple(part[1] for part in parts), parts[0][0], tuple(part[2] for part in parts if part[2]))
            for parts in found.values()
        ]

    def counts_up(self, table: SchemaObject, column: Column) -> bool:
        is_alone = sum(each.key > 0 for each in table.columns) == 1
        return bool(column.key) and is_alone and column.type.upper() == "INTEGER" and "ROWID" not in table.sql.upper()

    def spelled_out(self, type_: str) -> str:
        return type_

    def is_recent(self, table: str, column: str) -> bool:
        sql = f"SELECT 1 FROM main.{quoted(table)} WHERE date({quoted(column)}) >= date('now', '-1 day') LIMIT 1"
        return bool(self.query(sql))
