"""A SQLite database in memory, which has a schema and no rows."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from financial_agent.migrator.databases import Patience
from financial_agent.migrator.databases.sqlite.connection import TICK, SqliteDatabase
from financial_agent.migrator.databases.sqlite.foreign_keys import quoted

_TICKS = 500  # about a second


class Scratch(SqliteDatabase):
    """The schema of another database, without its rows, in memory."""

    def __init__(self, original: SqliteDatabase | None) -> None:
        sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
        self._objects = original.query(sql) if original else []
        self._ticks = 0
        super().__init__(Path(":memory:"), patience=Patience(stop=self._is_spent))

    def _is_spent(self, _waiting_for: str) -> bool:
        """CREATE TABLE … AS would compute its rows here, too: whatever takes long is given up."""
        self._ticks += 1
        return self._ticks > _TICKS

    def reset(self, *, settings: bool) -> None:
        # A new connection would begin with an empty memory. What comes next has as much time as what came before.
        self._ticks = 0
        for type_, name in self.query("SELECT type, name FROM temp.sqlite_schema WHERE name NOT GLOB 'sqlite_*'"):
            self.execute(f"DROP {type_} IF EXISTS temp.{quoted(name)}")
        if settings:
            for setting in ("writable_schema = RESET", "legacy_alter_table = OFF", "foreign_keys = ON"):
                self.execute(f"PRAGMA {setting}")

    def _connect(self) -> sqlite3.Connection:
        # EXPLAIN does not notice that the schema has changed: one from the cache reads tables that are gone.
        connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
        connection.set_progress_handler(lambda: self._patience.stop(""), TICK)
        for (sql,) in self._objects:
            # A virtual table makes its own shadow tables, and its module may be missing here: what cannot be copied
            # is left to the real run.
            with suppress(sqlite3.Error):
                connection.execute(sql)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection
