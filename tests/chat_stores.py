"""The chat store on each engine: one small client that speaks to all of them, so that one test body can."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pymysql

from financial_agent.migrator import discovery, rollback, runner, script
from tests import servers
from tests.helpers import ROOT

MIGRATIONS = ROOT / "financial_agent" / "migrations"
TABLES = ("conversations", "chat_messages", "conversation_summaries")
VERSIONS = ("001", "002", "003", "004")

_utc = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d\.\d{3})Z")


@dataclass(frozen=True)
class Store:
    """A connection to a chat store, in autocommit mode, with foreign keys enforced."""

    url: str
    dialect: str
    connection: Any

    @property
    def error(self) -> type[Exception]:
        """What the driver raises when the database says no."""
        return {"sqlite": sqlite3.Error, "postgresql": psycopg.Error, "mysql": pymysql.Error}[self.dialect]

    @property
    def refusal(self) -> tuple[type[Exception], ...]:
        """What it raises when a constraint or a trigger says no."""
        return {
            "sqlite": (sqlite3.IntegrityError,),
            "postgresql": (psycopg.IntegrityError,),
            # SIGNAL has no class of its own there.
            "mysql": (pymysql.IntegrityError, pymysql.OperationalError),
        }[self.dialect]

    def execute(self, sql: str, *parameters: Any) -> Any:
        """Run a statement with a `?` for each parameter; a cursor. Times are text as on SQLite, with a Z."""
        if self.dialect == "sqlite":
            return self.connection.execute(sql, parameters)
        if self.dialect == "mysql":  # its times have no zone
            sql = _utc.sub(r"\1 \2", sql)
            parameters = tuple(_utc.sub(r"\1 \2", each) if isinstance(each, str) else each for each in parameters)
        cursor = self.connection.cursor()
        cursor.execute(sql.replace("%", "%%").replace("?", "%s") if parameters else sql, parameters or None)
        return cursor

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a query finds, with times as on SQLite, and JSON as text."""
        return [tuple(map(_as_on_sqlite, row)) for row in self.execute(sql, *parameters).fetchall()]

    def value(self, sql: str, *parameters: Any) -> Any:
        ((value,),) = self.rows(sql, *parameters)
        return value

    def insert(self, table: str, **values: Any) -> int:
        """Insert a row; its id."""
        sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        if self.dialect == "postgresql":
            return int(self.execute(f"{sql} RETURNING id", *values.values()).fetchone()[0])
        return int(self.execute(sql, *values.values()).lastrowid)

    def run_up(self, *versions: str) -> None:
        """Run the up sections of migrations alone, without any record."""
        for version in versions:
            self._run(self._migration(version).up)

    def run_down(self, version: str) -> None:
        """Run the down section of a migration alone, whatever the order."""
        section = self._migration(version).down
        assert section
        self._run(section)

    def _migration(self, version: str) -> script.Migration:
        files = discovery.discover(MIGRATIONS, self.dialect)
        return script.read(next(file for file in files if file.filename.startswith(version)))

    def _run(self, section: script.Script) -> None:
        self.execute("BEGIN")
        for statement in section.statements():
            self.execute(statement.text)
        self.execute("COMMIT")

    def migrate(self, version: str | None = None) -> None:
        """Apply the migrations up to a version, or all, as the command does."""
        runner.migrate(self.url, MIGRATIONS, target=version)

    def roll_back(self) -> None:
        """Undo the newest migration, as the command does."""
        rollback.rollback(self.url, MIGRATIONS)

    def clear(self) -> None:
        """Delete every row of a server's store, and let ids begin with 1 again."""
        restart = {"postgresql": "ALTER COLUMN id RESTART", "mysql": "AUTO_INCREMENT = 1"}[self.dialect]
        self.execute("DELETE FROM conversations")
        for table in TABLES:
            self.execute(f"ALTER TABLE {table} {restart}")

    def plan(self, sql: str) -> list[str]:
        """How a query would be answered, step by step."""
        if self.dialect == "sqlite":
            return [row[3] for row in self.rows(f"EXPLAIN QUERY PLAN {sql}")]
        if self.dialect == "mysql":
            return [f"{row[3]} {row[5]} {row[9]}" for row in self.rows(f"EXPLAIN {sql}")]
        for cheaper in ("seqscan", "bitmapscan"):  # than an index, while a table is this small
            self.execute(f"SET enable_{cheaper} = off")
        lines = " ".join(line for (line,) in self.rows(f"EXPLAIN (COSTS OFF) {sql}"))
        return [step.strip() for step in lines.split("->") if not step.startswith("Limit")]

    # What the migrations made, without what belongs to the ledger.

    def schema(self) -> list[tuple[Any, ...]]:
        """Everything."""
        return [row for query in SCHEMA[self.dialect] for row in self.rows(query)]

    def columns(self) -> list[tuple[Any, ...]]:
        """Each column but the ids: table, name, and whether it takes NULL."""
        return self.rows(COLUMNS[self.dialect])

    def indexes(self) -> set[str]:
        """The names of all indexes but those of the primary keys."""
        return {name for (name,) in self.rows(INDEXES[self.dialect])}

    def checks(self) -> set[tuple[str, str]]:
        """The table and the name of each CHECK; '' for one without a name."""
        if self.dialect != "sqlite":
            return {(table, name) for table, name in self.rows(CHECKS[self.dialect])}
        made = self.rows(f"SELECT name, sql FROM sqlite_schema WHERE name IN {TABLES}")
        check = re.compile(r"(?:CONSTRAINT (\w+)\s+)?CHECK\s*\(")
        return {(table, name) for table, sql in made for name in check.findall(sql)}


SCHEMA = {
    "sqlite": (
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
        " AND tbl_name NOT GLOB '_*' AND tbl_name NOT GLOB 'sqlite_*' ORDER BY name",
    ),
    "postgresql": (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity"
        " FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%' ORDER BY 1, 2",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE '\\_%' ORDER BY 1, 2",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE '\\_%' ORDER BY 1",
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    ),
    "mysql": (
        "SELECT table_name, column_name, column_type, collation_name, is_nullable, column_default, extra"
        " FROM information_schema.columns WHERE table_schema = database() AND table_name NOT LIKE '\\_%' ORDER BY 1, 2",
        "SELECT table_name, constraint_name, constraint_type FROM information_schema.table_constraints"
        " WHERE table_schema = database() AND table_name NOT LIKE '\\_%' ORDER BY 1, 2",
        "SELECT constraint_name, check_clause FROM information_schema.check_constraints"
        " WHERE constraint_schema = database() ORDER BY 1, 2",
        "SELECT table_name, index_name, seq_in_index, column_name FROM information_schema.statistics"
        " WHERE table_schema = database() AND table_name NOT LIKE '\\_%' ORDER BY 1, 2, 3",
        "SELECT trigger_name, event_object_table, event_manipulation, action_timing, action_statement"
        " FROM information_schema.triggers WHERE trigger_schema = database() ORDER BY 1",
    ),
}
COLUMNS = {
    "sqlite": 'SELECT t.name, c.name, NOT c."notnull" FROM sqlite_schema AS t, pragma_table_info(t.name) AS c'
    f" WHERE t.name IN {TABLES} AND NOT c.pk",
    "postgresql": "SELECT table_name, column_name, is_nullable = 'YES' FROM information_schema.columns"
    f" WHERE table_name IN {TABLES} AND column_name <> 'id'",
    "mysql": "SELECT table_name, column_name, is_nullable = 'YES' FROM information_schema.columns"
    f" WHERE table_schema = database() AND table_name IN {TABLES} AND column_name <> 'id'",
}
CHECKS = {
    "postgresql": "SELECT conrelid::regclass::text, conname FROM pg_constraint"
    " WHERE contype = 'c' AND connamespace = 'public'::regnamespace",
    # MariaDB's JSON is text with a check.
    "mysql": "SELECT table_name, constraint_name FROM information_schema.table_constraints JOIN"
    " information_schema.check_constraints USING (constraint_schema, table_name, constraint_name)"
    " WHERE constraint_schema = database() AND check_clause NOT LIKE 'json_valid(%)'",
}
INDEXES = {
    "sqlite": f"SELECT i.name FROM sqlite_schema AS t, pragma_index_list(t.name) AS i WHERE t.name IN {TABLES}",
    "postgresql": "SELECT c.relname FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid"
    f" WHERE NOT indisprimary AND indrelid::regclass::text IN {TABLES}",
    "mysql": "SELECT DISTINCT index_name FROM information_schema.statistics"
    f" WHERE table_schema = database() AND table_name IN {TABLES} AND index_name <> 'PRIMARY'",
}


def _as_on_sqlite(value: Any) -> Any:
    if isinstance(value, datetime):  # without a zone it is MySQL's, and UTC
        utc = value if value.tzinfo is None else value.astimezone(UTC)
        return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03}Z"
    return json.dumps(value) if isinstance(value, dict | list) else value


@contextmanager
def connected(url: str) -> Iterator[Store]:
    """A store at a URL, or in SQLite's file."""
    dialect = url.partition("://")[0] if "://" in url else "sqlite"
    with closing(servers.connect(url)) as connection:
        if dialect == "sqlite":
            connection.execute("PRAGMA foreign_keys = ON")
        yield Store(url, dialect, connection)
