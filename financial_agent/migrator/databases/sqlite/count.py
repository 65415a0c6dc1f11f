"""How many rows a table has, without keeping writers waiting for the end of a long count; and how far its keys have
counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from financial_agent.migrator.databases import Row, StatementError
from financial_agent.migrator.databases.sqlite.foreign_keys import quoted

_STEP = 20_000  # rows
_FIRST = -(2**63)
_ROWID = ("rowid", "_rowid_", "oid")  # a column may bear one of these names


Query = Callable[[str, Sequence[object]], list[Row]]


def last_id(query: Query, table: str) -> int:
    """The highest key that a table with AUTOINCREMENT has ever given out; 0 when it gave none."""
    if not query("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'", ()):
        return 0
    rows = query("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
    return rows[0][0] if rows and isinstance(rows[0][0], int) else 0


def count(query: Query, table: str, columns: Sequence[str]) -> int:
    """The rows of a table, counted in steps, each as of its own moment; all at once where rows have no numbers."""
    taken = {column.lower() for column in columns}
    rowid = next((name for name in _ROWID if name not in taken), "")
    name = f"main.{quoted(table)}"
    step = f"SELECT {rowid} AS id FROM {name} WHERE {rowid} > ? ORDER BY {rowid} LIMIT {_STEP}"
    total, last = 0, _FIRST
    try:
        while last is not None:
            ((found, last),) = query(f"SELECT count(*), max(id) FROM ({step})", (last,))
            total += found
    except StatementError:  # WITHOUT ROWID, or a virtual table of which some have none
        ((total,),) = query(f"SELECT count(*) FROM {name}", ())
    return int(total)
