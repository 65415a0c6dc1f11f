"""A database on a server with migrations, backups and a few rows, for the tests of those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from financial_agent.migrator import backup, backup_files, ledger, restore, runner
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.backup_files import Backup
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.restore import Prepared, Restored
from tests import servers

FILES = {
    "001_one": "CREATE TABLE one (n integer PRIMARY KEY, t varchar(50));",
    "002_two": "-- migrate:up\nCREATE TABLE two (n integer PRIMARY KEY);\n-- migrate:down\nDROP TABLE two;",
}
ROWS = ", ".join(f"({n}, 'row {n}')" for n in range(1, 501))
CONTROL = Control(wait=1)
SUFFIX = {"postgresql": "dump", "mysql": "sql"}


class Place:
    """A database on a server, at version 001 with 500 rows; 002 is pending."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = f"{url}{'&' if '?' in url else '?'}lock_timeout=1s"
        self.plain = url
        self.dialect = urlsplit(url).scheme
        self.name = urlsplit(url).path.removeprefix("/")
        self.root = root
        self.policy = Policy("destructive", root / "backups", 3)
        self.directory = root / "migrations"
        self.directory.mkdir()
        for name, sql in FILES.items():
            (self.directory / f"{name}.sql").write_text(sql)
        self.migrate("1")
        self.do(f"INSERT INTO one VALUES {ROWS}")

    def migrate(self, target: str | None = None, **options: Any) -> None:
        runner.migrate(self.url, self.directory, target=target, control=CONTROL, **options)

    def do(self, *statements: str) -> None:
        servers.run(self.plain, *statements)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return servers.rows(self.plain, sql)

    def backup(self, control: Control = CONTROL) -> Backup:
        return backup.make(self.url, self.policy, "manual", control)

    def listed(self) -> list[Backup]:
        return backup_files.listed(self.url, self.policy.folder)

    def kept(self) -> list[Backup]:
        return [each for each in self.listed() if each.kind == "restore"]

    @contextmanager
    def prepared(self, word: str, control: Control = CONTROL) -> Iterator[Prepared]:
        with restore.prepared(self.url, self.policy, word, control) as found:
            yield found

    def put_back(self, made: Backup, control: Control = CONTROL) -> Restored:
        with self.prepared(made.name) as found:
            return restore.restore(self.url, self.policy, found, control)

    def state(self) -> tuple[object, ...]:
        """The schema, all rows, and the whole ledger."""
        with closing(connect(self.url, readonly=True)) as db:
            tables = [db.query(f"SELECT * FROM {db.written(name)} ORDER BY 1") for name in sorted(db.tables())]
            entries = [(entry.filename, entry.checksum) for entry in ledger.entries(db)]
            return db.fingerprint(), tables, entries, ledger.history(db)

    def databases(self) -> set[str]:
        sql = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}[self.dialect]
        return {name for (name,) in self.rows(sql)}

    def replaced(self) -> list[str]:
        """The databases in which restores left what they replaced."""
        return [name for name in self.databases() if name.startswith("fa_scratch_replaced_") and self.name in name]

    def events(self) -> list[tuple[str, str]]:
        rows = self.rows("SELECT event, filename FROM _migration_history ORDER BY id")
        return [(event, filename.removesuffix(".sql")) for event, filename in rows]
