"""Databases to try things in, on a PostgreSQL server."""

from __future__ import annotations

from contextlib import closing, suppress

from psycopg.sql import SQL, Identifier

from financial_agent.migrator.databases import url as urls
from financial_agent.migrator.databases.database import Database, StatementError
from financial_agent.migrator.databases.postgresql import dial
from financial_agent.migrator.databases.postgresql.tools import tool
from financial_agent.migrator.databases.server_scratch import PREFIX, Scratches
from financial_agent.migrator.databases.server_tools import Tool, pipe

_LIKE_THIS = """\
SELECT format('ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_encoding_to_char(encoding), datcollate, datctype)
FROM pg_database WHERE datname = current_database()"""
# ALTER DATABASE … SET, which a dump of one database does not hold: a search_path says where tables are made.
_SETTINGS = """\
SELECT split_part(each, '=', 1), substr(each, strpos(each, '=') + 1) FROM pg_db_role_setting AS s
JOIN pg_database AS d ON d.oid = s.setdatabase, unnest(setconfig) AS each
WHERE datname = current_database() AND setrole = 0"""
_LISTS = ("search_path", "temp_tablespaces")  # their values are stored as they are written
_WAITING = "5s"  # for the locks of a dump, which is in nobody's way


class PostgresqlScratches(Scratches):
    def show_presence(self) -> None:
        # Everybody sees the application's name (https://www.postgresql.org/docs/current/monitoring-stats.html).
        self.beside.execute(f"SET application_name = '{PREFIX}{self.token}'")

    def is_present(self, token: str, age: float) -> bool:
        sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = ?"
        return bool(self.beside.query(sql, (PREFIX + token,)))

    def names(self) -> list[str]:
        return [name for (name,) in self.beside.query("SELECT datname FROM pg_database")]

    def create(self, db: Database, name: str, source: str | None) -> None:
        if source:
            db.execute(f"CREATE DATABASE {name} TEMPLATE {self.name_of(source)}")
        else:
            ((like_this,),) = db.query(_LIKE_THIS)
            db.execute(f"CREATE DATABASE {name} TEMPLATE template0 {like_this}")
        for setting, value in db.query(_SETTINGS):
            written = value if setting in _LISTS else "'" + value.replace("'", "''") + "'"
            with suppress(StatementError):  # only a superuser may
                db.execute(f"ALTER DATABASE {name} SET {setting} = {written}")

    def fix(self) -> str:
        ((user,),) = self.beside.query("SELECT quote_ident(current_user)")
        return f"As an administrator: ALTER ROLE {user} CREATEDB"

    def begin(self, url: str) -> None:
        # The URL, or the database, may say that tables are made in another schema than `public`.
        ((home,),) = self.beside.query("SELECT current_schema()")
        if home not in (None, "public"):
            with closing(dial.dial(urls.parse(url), dial.RUNNING)) as new:
                new.execute(SQL("CREATE SCHEMA {}").format(Identifier(home)))

    def fill(self, url: str, *, rows: bool) -> None:
        what = ("--no-publications", "--no-subscriptions")
        self._copy(url, *what, *(() if rows else ("--schema-only",)))
        if not rows and (tables := self.ledger_tables()):
            self._copy(url, "--data-only", *(f"--table={self.beside.ledger(table)}" for table in tables))

    def _copy(self, url: str, *what: str) -> None:
        # Whose an object is, and who may use it, is of no account here.
        common = ("--no-owner", "--no-privileges", f"--lock-wait-timeout={_WAITING}")
        dump = tool(urls.parse(self.database), "pg_dump", *common, *what)
        pipe(dump, self._loader(url), self.patience)

    def _loader(self, url: str) -> Tool:
        strictly = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1")
        return tool(urls.parse(url), "psql", *strictly)

    def drop(self, name: str) -> None:
        self.beside.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def size(self, url: str) -> int:
        return int(self.beside.query("SELECT pg_database_size(?)", (self.name_of(url),))[0][0])
