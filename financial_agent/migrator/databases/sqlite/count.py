"""How many rows a table has, without keeping writers waiting for the end of a long count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from financial_agent.migrator.databases import Row, StatementError
from financial_agent.migrator.databases.sqlite.foreign_keys import quoted

_STEP = 20_000  # rows
_FIRST = -(2**63)
_ROWID = ("rowid", "_rowid_", "oid")  # a column may bear one of these names


def count(query: Callable[[str, Sequence[object]], list[Row]], table: str, columns: Sequence[str]) -> int:
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
