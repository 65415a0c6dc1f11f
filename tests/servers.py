"""Real database servers for tests, a pytest plugin: a fresh database for each test that asks for one.

Which server: the one that TEST_POSTGRESQL_URL or TEST_MYSQL_URL names, else one that answers at this machine's usual
addresses, else a throw-away one from installed binaries, else the test is skipped, and says what to install.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests import daemons, throwaway

USUAL = {
    "postgresql": (
        "postgresql://postgres@localhost/postgres?host=/var/run/postgresql",
        "postgresql://postgres@127.0.0.1:5432/postgres",
    ),
    "mysql": (
        "mysql://root@localhost/mysql?unix_socket=/run/mysqld/mysqld.sock",
        "mysql://root@127.0.0.1:3306/mysql",
    ),
}
PORTS = {"postgresql": 5432, "mysql": 3306}
STALE = 6 * 3600  # seconds after which the database of a test belongs to a run that died


@dataclass(frozen=True)
class Server:
    """A server on which databases can be made: `url` is of one that is always there."""

    dialect: str
    url: str

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of an empty database, which is dropped when the context ends, whoever is connected."""
        name = f"t_{int(time.time()):x}_{secrets.token_hex(4)}"
        # Not template1, the default: nobody can be connected to template0, and it has nothing of this machine's.
        options = " TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'" if self.dialect == "postgresql" else ""
        run(self.url, f"CREATE DATABASE {name}{options}")
        try:
            yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        finally:
            self._drop(name)

    def tidy(self) -> None:
        """Drop the databases of tests that were killed."""
        names = {
            "postgresql": "SELECT datname FROM pg_database",
            "mysql": "SELECT schema_name FROM information_schema.schemata",
        }
        for (name,) in rows(self.url, names[self.dialect]):
            made = re.fullmatch(r"t_([0-9a-f]{8})_[0-9a-f]{8}", name)
            if made and int(made[1], 16) < time.time() - STALE:
                self._drop(name)

    def _drop(self, name: str) -> None:
        if self.dialect == "postgresql":
            run(self.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            return
        # MariaDB would wait for transactions that use the database's tables.
        connected = rows(self.url, f"SELECT id FROM information_schema.processlist WHERE db = '{name}'")
        for (process,) in connected:
            with suppress(Exception):  # it has gone by itself
                run(self.url, f"KILL {process}")
        run(self.url, f"DROP DATABASE IF EXISTS {name}")


# A plain client, to prepare and to assert.


def connect(url: str) -> Any:
    """A DB-API connection in autocommit mode to a database by its URL, or to SQLite's by its path."""
    scheme = url.partition("://")[0]
    if scheme in ("postgresql", "postgres"):
        import psycopg

        return psycopg.connect(url, autocommit=True)
    if scheme in ("mysql", "mariadb"):
        import pymysql

        return pymysql.connect(**_mysql_arguments(url), charset="utf8mb4", autocommit=True, ssl_disabled=True)
    return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    """What a query finds."""
    with closing(connect(url)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()]


def run(url: str, *statements: str) -> None:
    """Run statements on one connection; each commits by itself."""
    with closing(connect(url)) as connection, closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


def _mysql_arguments(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "host": parts.hostname,
        "port": parts.port or PORTS["mysql"],
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or "").encode(),  # PyMySQL would encode text as Latin-1
        "database": unquote(parts.path.removeprefix("/")) or None,
        "unix_socket": query.get("unix_socket"),
    }


# Which server.


def server(dialect: str, folder: Path) -> Server:
    """A server, or the skip of the test that asked for it. Workers that share a throw-away one share the folder."""
    variable = f"TEST_{dialect.upper()}_URL"
    named = os.environ.get(variable)
    found = named or next((url for url in USUAL[dialect] if _answers(dialect, url)), None)
    try:
        return Server(dialect, found or throwaway.shared(dialect, folder))
    except daemons.NotInstalled as missing:
        pytest.skip(f"{missing}, or set {variable}")


def _answers(dialect: str, url: str) -> bool:
    # Asked by a plain socket first: PyMySQL leaves one open when it is refused, which is a failure in these tests.
    try:
        _knock(dialect, url)
        run(url, "SELECT 1")
    except Exception:
        return False
    return True


def _knock(dialect: str, url: str) -> None:
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    path = query.get("unix_socket") or (f"{query['host']}/.s.PGSQL.{PORTS[dialect]}" if "host" in query else None)
    if path is None:
        socket.create_connection((parts.hostname, parts.port or PORTS[dialect]), timeout=5).close()
        return
    with closing(socket.socket(socket.AF_UNIX)) as knock:
        knock.connect(path)


def _of_this_run(factory: pytest.TempPathFactory) -> Path:
    """A folder that all the workers of this run know."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A PostgreSQL server."""
    found = server("postgresql", _of_this_run(tmp_path_factory))
    found.tidy()
    return found


@pytest.fixture(scope="session")
def mysql_server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A MariaDB or MySQL server."""
    found = server("mysql", _of_this_run(tmp_path_factory))
    found.tidy()
    return found


@pytest.fixture
def postgresql(postgresql_server: Server) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    with postgresql_server.fresh() as url:
        yield url


@pytest.fixture
def mysql(mysql_server: Server) -> Iterator[str]:
    """The URL of an empty MariaDB or MySQL database of the test's own."""
    with mysql_server.fresh() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database on each engine in turn: a URL, or a path that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "app.db")
    url: str = request.getfixturevalue(request.param)
    return url
