"""What SQLite's own examination of a whole database finds damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from financial_agent.migrator.databases import StatementError
from financial_agent.migrator.databases.sqlite.foreign_keys import Query, quoted
from financial_agent.migrator.errors import DatabaseUnusable


def find_problems(query: Query, tables: Callable[[], Iterable[str]], *, quick: bool) -> list[str]:
    """A quick examination does not compare indexes with their tables."""
    check = "quick_check" if quick else "integrity_check"
    try:
        rows: Sequence[Sequence[str]] = query(f"PRAGMA main.{check}", ())
    except (DatabaseUnusable, StatementError) as error:  # damage of which SQLite cannot see the whole
        if not str(error).startswith("no such "):
            return [str(error)]
        rows = []
        # Without the tables whose indexes need a collation or a function of the application's, which is no damage.
        for table in tables():
            with suppress(StatementError):
                rows = [*rows, *query(f"PRAGMA main.{check}({quoted(table)})", ())]
    return [text for (text,) in rows if text != "ok"]
