"""Databases to try things in, on a server of MariaDB or MySQL."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from financial_agent.migrator.databases import url as urls
from financial_agent.migrator.databases.database import Database
from financial_agent.migrator.databases.mysql.tools import LOADING, client
from financial_agent.migrator.databases.reach import reach
from financial_agent.migrator.databases.server_scratch import PREFIX, Scratches
from financial_agent.migrator.databases.server_tools import pipe
from financial_agent.migrator.errors_server import ScratchRefused

_DUMP = ("--single-transaction", "--routines", "--triggers", "--events", "--skip-comments", "--no-tablespaces")

_READ_BY_MANY = {"information_schema", "performance_schema", "sys"}
_BODIES = """\
SELECT 'trigger', trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = DATABASE()
UNION ALL SELECT lower(routine_type), routine_name, routine_definition FROM information_schema.routines
WHERE routine_schema = DATABASE()
UNION ALL SELECT 'event', event_name, event_definition FROM information_schema.events WHERE event_schema = DATABASE()"""
_DAY = 86_400.0  # seconds


class MysqlScratches(Scratches):
    def show_presence(self) -> None:
        self.beside.query("SELECT GET_LOCK(?, 0)", (PREFIX + self.token,))

    def is_present(self, token: str, age: float) -> bool:
        is_free = self.beside.query("SELECT IS_FREE_LOCK(?)", (PREFIX + token,)) == [(1,)]
        # The locks of one node of a Galera cluster are not known on the others.
        is_cluster = self.beside.query("SHOW VARIABLES LIKE 'wsrep_on'") == [("wsrep_on", "ON")]
        return not is_free or (is_cluster and age < _DAY)

    def names(self) -> list[str]:
        return [name for (name,) in self.beside.query("SELECT schema_name FROM information_schema.schemata")]

    def create(self, db: Database, name: str, source: str | None) -> None:
        sql = "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata"
        ((characters, collation),) = db.query(f"{sql} WHERE schema_name = DATABASE()")
        db.execute(f"CREATE DATABASE {name} CHARACTER SET {characters} COLLATE {collation}")
        if source:
            self._copy(self.name_of(source), name)

    def address(self, name: str) -> str:
        # A ledger in another database would be that of the other.
        parts = urlsplit(super().address(name))
        kept = [each for each in parts.query.split("&") if not each.startswith("ledger_schema=")]
        return parts._replace(query="&".join(kept)).geturl()

    def fix(self) -> str:
        ((user,),) = self.beside.query("SELECT current_user()")
        account = "@".join(f"'{part}'" for part in user.rsplit("@", 1))
        names = PREFIX.replace("_", r"\_") + "%"
        return f"As an administrator: GRANT ALL ON `{names}`.* TO {account}"

    def fill(self, url: str, *, rows: bool) -> None:
        name = self.name_of(url)
        live = urls.parse(self.database)
        self._refuse_reaching_programs()
        self._copy(live.name, name, *(() if rows else ("--no-data",)))
        if (live.ledger_schema or not rows) and (tables := self.ledger_tables()):
            self._copy(live.ledger_schema or live.name, name, "--skip-triggers", tables=tables)

    def _refuse_reaching_programs(self) -> None:
        """Raise ScratchRefused for a program that names a database, this one included: a copy's would act on that."""
        databases = {name.lower() for (name,) in self.beside.query("SHOW DATABASES")} - _READ_BY_MANY
        for kind, name, body in self.beside.query(_BODIES):
            if what := reach(body or "", self.beside.dialect, databases):
                why = f"its {kind} {name} names a database ({what}), and would act on that from a copy, too"
                fix = "Take the database's name out of it: a table without one is in its own"
                raise ScratchRefused(database=self.beside.name, why=why, fix=fix)

    def _copy(self, source: str, target: str, *what: str, tables: Sequence[str] = ()) -> None:
        with client(urls.parse(self.database)) as programs:
            dump = programs.tool("mariadb-dump", *_DUMP, *what, source, *tables)
            pipe(dump, programs.tool("mariadb", *LOADING, target), self.patience)

    def drop(self, name: str) -> None:
        self.beside.execute(f"DROP DATABASE IF EXISTS {name}")

    def size(self, url: str) -> int:
        sql = (
            "SELECT coalesce(sum(data_length + index_length), 0) FROM information_schema.tables WHERE table_schema = ?"
        )
        return int(self.beside.query(sql, (self.name_of(url),))[0][0])
