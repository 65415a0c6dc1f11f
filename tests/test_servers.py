"""The databases that other tests run on: real, empty, of the test's own, and gone afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import daemons, throwaway
from tests.helpers import ROOT, until
from tests.servers import Server, connect, rows, run

TABLES = (
    "SELECT count(*) FROM information_schema.tables"
    " WHERE table_schema NOT IN ('information_schema', 'pg_catalog', 'mysql', 'performance_schema', 'sys')"
)


@pytest.fixture(params=["postgresql", "mysql"])
def a_server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


def names_of_databases(server: Server) -> set[str]:
    query = "SELECT datname FROM pg_database" if server.dialect == "postgresql" else "SHOW DATABASES"
    return {name for (name,) in rows(server.url, query)}


def test_a_database_is_usable_at_once(database_url: str) -> None:
    run(database_url, "CREATE TABLE t (name VARCHAR(20))", "INSERT INTO t VALUES ('ünï 🎈')")
    assert rows(database_url, "SELECT name FROM t") == [("ünï 🎈",)]


def test_a_database_begins_empty(a_server: Server) -> None:
    with a_server.fresh() as url:
        assert rows(url, f"{TABLES} AND table_catalog = '{urlsplit(url).path[1:]}'") == [(0,)]


def test_a_database_goes_although_somebody_holds_a_lock_in_it(a_server: Server) -> None:
    with a_server.fresh() as url:
        name = urlsplit(url).path[1:]
        assert name in names_of_databases(a_server)
        run(url, "CREATE TABLE t (x INT)")
        left_open = connect(url)
        with closing(left_open.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM t")
    left_open.close()
    assert name not in names_of_databases(a_server)


def test_what_a_killed_run_left_is_dropped(a_server: Server) -> None:
    left, of_somebody_else = "t_00000001_deadbeef", "t_00000001_deadbeef_and_more"
    for name in (left, of_somebody_else):
        run(a_server.url, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    a_server.tidy()
    there = names_of_databases(a_server)
    run(a_server.url, f"DROP DATABASE {of_somebody_else}")
    assert (left in there, of_somebody_else in there) == (False, True)


# Throw-away servers.


@pytest.mark.slow
@pytest.mark.parametrize("dialect", throwaway.SERVERS)
def test_a_throw_away_server_is_gone_when_all_its_users_are_even_if_they_are_killed(
    dialect: str, tmp_path: Path
) -> None:
    code = (
        "import sys, pathlib; from tests import throwaway\n"
        "print(throwaway.shared(sys.argv[1], pathlib.Path(sys.argv[2])), flush=True); sys.stdin.read()"
    )
    users = [
        subprocess.Popen(
            [sys.executable, "-c", code, dialect, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    with users[0], users[1], users[2]:
        urls = {user.stdout.readline().strip() for user in users if user.stdout}
        (url,) = urls
        folder = Path(url.partition("=")[2].removesuffix("/socket"))
        for user in users[:2]:
            user.send_signal(signal.SIGKILL)
            user.wait()
        assert rows(url, "SELECT 1") == [(1,)]
        users[2].send_signal(signal.SIGKILL)
    until(lambda: not folder.exists())
    assert not (tmp_path / f"{dialect}.url").exists(), "the next user starts a new one"


def test_a_server_without_its_programs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throwaway, "POSTGRESQL", Path("/nowhere"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(daemons.NotInstalled, match="apt-get install postgresql"):
        throwaway.postgresql_binaries()


@pytest.mark.slow
def test_a_daemon_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time; from tests import daemons\n"
        "name = daemons.user('nobody')\n"
        "with daemons.folder(name) as folder:\n"
        "    daemon = daemons.Daemon(name, ['sleep', '1000'], folder / 'log')\n"
        "    print(daemon.process.pid, folder, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pid, folder = owner.stdout.readline().split()
        owner.kill()
    until(lambda: not Path("/proc", pid).exists())
    with daemons.folder(daemons.user("nobody")):
        assert not Path(folder).exists(), "the next folder's maker removes it"
