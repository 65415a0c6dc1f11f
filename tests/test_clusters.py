"""The clusters that other tests run on: that they are what they say, and what these servers do on their own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pymysql
import pytest

from tests.clusters.galera import Galera
from tests.clusters.replication import Replication
from tests.helpers import ROOT, until
from tests.servers import connect, rows, run

pytestmark = pytest.mark.slow

SYNCED = "SET SESSION wsrep_sync_wait = 1"  # read what all others have committed before


def numbers(url: str) -> list[int]:
    """What table t holds, on a node of Galera after all that was committed elsewhere."""
    with closing(connect(url)) as connection, closing(connection.cursor()) as cursor:
        if url.startswith("mysql:"):
            cursor.execute(SYNCED)
        cursor.execute("SELECT n FROM t ORDER BY n")
        return [n for (n,) in cursor.fetchall()]


@pytest.mark.parametrize("module", ["galera", "replication", "pgbouncer"])
def test_a_cluster_goes_with_the_process_that_started_it(module: str) -> None:
    command = [sys.executable, "-m", f"tests.clusters.{module}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdout
        for line in cluster.stdout:
            if "Ctrl-C" in line:
                break
        mark = f"/financial-agent-{cluster.pid}-"
        assert processes_with(mark) != []
        cluster.kill()
    until(lambda: processes_with(mark) == [])


def processes_with(word: str) -> list[str]:
    """The commands of the processes that name a word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            if word.encode() in command:
                found.append(os.fsdecode(command))
    return found


# Galera.


def test_what_one_node_commits_is_on_all(galera: Galera) -> None:
    with galera.fresh() as urls:
        run(urls[0], "CREATE TABLE t (n INT PRIMARY KEY)")
        for n, url in enumerate(urls):
            run(url, SYNCED, f"INSERT INTO t VALUES ({n})")
        assert [numbers(url) for url in urls] == [[0, 1, 2]] * 3


def test_the_others_go_on_without_a_killed_node_which_comes_back_with_what_it_missed(galera: Galera) -> None:
    with galera.fresh() as urls:
        run(urls[0], "CREATE TABLE t (n INT PRIMARY KEY)")
        galera.kill(2)
        run(urls[0], "INSERT INTO t VALUES (1)")
        assert numbers(urls[1]) == [1]
        assert galera.running() == [0, 1]
        galera.start(2)
        assert numbers(urls[2]) == [1]


def test_a_node_that_was_shut_down_comes_back_with_what_it_missed(galera: Galera) -> None:
    with galera.fresh() as urls:
        run(urls[0], "CREATE TABLE t (n INT PRIMARY KEY)")
        galera.stop(0)
        run(urls[1], "INSERT INTO t VALUES (1)")
        galera.start(0)
        assert numbers(urls[0]) == [1]


def test_the_others_leave_a_node_that_hangs_and_take_it_back(galera: Galera) -> None:
    with galera.fresh() as urls:
        run(urls[0], "CREATE TABLE t (n INT PRIMARY KEY)")
        galera.pause(1)
        run(urls[0], "INSERT INTO t VALUES (1)")
        until(lambda: galera.status(0, "wsrep_cluster_size") == "2")
        galera.heal()
        assert numbers(urls[1]) == [1]


def test_a_node_without_a_majority_takes_no_statement_until_it_has_one(galera: Galera) -> None:
    with galera.fresh() as urls:
        run(urls[0], "CREATE TABLE t (n INT PRIMARY KEY)")
        galera.kill(1)
        galera.kill(2)
        until(lambda: galera.status(0, "wsrep_ready") == "OFF")
        with pytest.raises(pymysql.err.OperationalError, match="not yet prepared node"):
            run(urls[0], "INSERT INTO t VALUES (1)")
        galera.heal()
        assert [numbers(url) for url in urls] == [[]] * 3


def test_two_nodes_give_the_same_named_lock_to_two_sessions(galera: Galera) -> None:
    with galera.fresh() as urls, ExitStack() as sessions:
        got = []
        for url in (urls[0], urls[1], urls[1]):
            session = sessions.enter_context(closing(connect(url)))
            cursor = sessions.enter_context(closing(session.cursor()))
            cursor.execute("SELECT GET_LOCK('migrate', 0)")
            got.append(cursor.fetchone()[0])
        assert got == [1, 1, 0]


# A primary and its replica.


def test_what_is_committed_outlives_the_primary_and_is_under_the_same_url(replication: Replication) -> None:
    with replication.fresh() as url:
        run(url, "CREATE TABLE t (n INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        old = replication.primary
        replication.fail_over()
        assert replication.primary != old
        run(url, "INSERT INTO t VALUES (2)")
        assert numbers(url) == [1, 2]
        replication.add_replica()
        replication.fail_over()
        assert numbers(url) == [1, 2]


@pytest.mark.parametrize("replication", ["local"], indirect=True)
def test_what_was_committed_without_waiting_for_the_replica_can_be_lost(replication: Replication) -> None:
    with replication.fresh() as url:
        run(url, "CREATE TABLE t (n INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        run(replication.replica, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        until(lambda: rows(url, "SELECT * FROM pg_stat_replication") == [])
        run(url, "INSERT INTO t VALUES (2)")
        replication.fail_over()
        assert numbers(url) == [1]


def test_a_replica_takes_no_changes(replication: Replication) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run(replication.replica, "CREATE TABLE t (n INT)")


# PgBouncer.


def test_ten_clients_share_two_connections(pooled: str) -> None:
    with ExitStack() as clients:
        connections = [clients.enter_context(closing(connect(pooled))) for _ in range(10)]
        two = connections[:2]
        for connection in two:
            connection.execute("BEGIN")
            connection.execute("SELECT 1")
        in_transactions = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in two}
        for connection in two:
            connection.execute("COMMIT")
        all_of_them = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in connections}
        assert len(in_transactions) == 2
        assert all_of_them <= in_transactions


def test_a_session_lock_stays_in_the_pool_when_its_client_has_gone(pooled: str, postgresql: str) -> None:
    run(pooled, "SELECT pg_advisory_lock(5)")
    assert rows(postgresql, "SELECT pg_try_advisory_lock(5)") == [(False,)]


def test_a_lock_of_a_transaction_ends_with_its_client(pooled: str, postgresql: str) -> None:
    with closing(connect(pooled)) as client:
        client.execute("BEGIN")
        client.execute("SELECT pg_advisory_xact_lock(5)")
        assert rows(postgresql, "SELECT pg_try_advisory_lock(5)") == [(False,)]
    until(lambda: rows(postgresql, "SELECT pg_try_advisory_lock(5)") == [(True,)])
