"""Locks on PostgreSQL: the one of a run, and those that others hold on tables."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import pytest

from financial_agent.migrator import runner, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import LockHeld, RunLocked
from financial_agent.migrator.errors_run import CommitUnknown, LockLost
from tests import servers
from tests.helpers import started, until
from tests.test_conformance import QUICK, Place

pytestmark = pytest.mark.slow

TABLE = "CREATE TABLE account (id integer PRIMARY KEY, n integer); INSERT INTO account VALUES (1, 1), (2, 1);"
RUNNING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'financial_agent runs'"
)
HOLDING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'financial_agent lock'"
)


@pytest.fixture
def place(postgresql: str, tmp_path: Path) -> Place:
    place = Place(postgresql, tmp_path)
    place.write({"001_account": TABLE})
    place.migrate()
    return place


@contextmanager
def holding(url: str, *statements: str) -> Iterator[Any]:
    """Another connection, in a transaction in which it has run something."""
    with closing(servers.connect(url)) as connection:
        for statement in ("BEGIN", *statements):
            connection.execute(statement)
        yield connection


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()


def test_who_holds_the_lock_of_a_run_is_told(place: Place) -> None:
    place.write({"002_more": "CREATE TABLE more (n integer);"})
    with session.exclusive(place.url, QUICK, Environment()):
        ((pid,),) = place.rows(HOLDING)
        error = place.fails(Control(wait=0.3))
    assert isinstance(error, RunLocked)
    assert f"(process {pid} of the server, financial_agent lock, from " in str(error)
    assert f"SELECT * FROM pg_stat_activity WHERE pid IN ({pid})" in error.hint


def test_a_run_waits_for_what_a_killed_one_left_working_in_the_server(place: Place) -> None:
    place.write({"002_more": "CREATE TABLE more (n integer);"})
    with closing(
        servers.connect(f"{place.url}{'&' if '?' in place.url else '?'}application_name=financial_agent%20runs")
    ) as left:
        left.execute("BEGIN")
        error = place.fails(Control(wait=0.3))
        assert isinstance(error, RunLocked)
        assert place.states()["002_more"] == "pending"
        left.execute("ROLLBACK")
        assert place.migrate() == ["002_more"]


def test_a_busy_table_is_tried_again_until_it_is_free(place: Place) -> None:
    """A statement gives up after lock_timeout, so that others pass, and the whole migration is tried again."""
    url = f"{place.url}{'&' if '?' in place.url else '?'}lock_timeout=0.2s"
    place.write({"002_wide": "UPDATE account SET n = n + 1;\nALTER TABLE account ADD COLUMN wide text;"})
    with (
        holding(place.url, "LOCK TABLE account IN ACCESS SHARE MODE") as other,
        in_background(lambda: (time.sleep(1.5), other.execute("COMMIT"))),
    ):
        runner.migrate(url, place.directory, control=Control(wait=60))
    assert place.rows("SELECT id, n, wide FROM account ORDER BY id") == [(1, 2, None), (2, 2, None)]


def test_who_holds_a_table_is_told_but_not_what_it_runs(place: Place) -> None:
    place.write({"002_wide": "ALTER TABLE account ADD COLUMN wide text;"})
    with holding(place.url, "SET application_name = 'nightly report'", "SELECT 'secret' FROM account") as other:
        error = place.fails(Control(wait=1))
        pid = other.info.backend_pid
    assert isinstance(error, LockHeld)
    assert (error.code, error.exit_code) == ("FA503", 5)
    assert f"in the way: process {pid} (nightly report, idle in transaction) at account" in str(error)
    assert f"SELECT * FROM pg_stat_activity WHERE pid IN ({pid})" in str(error)
    assert "secret" not in str(error)
    assert error.location
    assert "nothing of the failed run of 002_wide.sql remains" in error.state
    assert place.migrate() == ["002_wide"]


def test_a_deadlock_is_tried_again(place: Place) -> None:
    place.write(
        {
            "002_both": """\
UPDATE account SET n = 5 WHERE id = 1;
SELECT pg_sleep(1);
UPDATE account SET n = 5 WHERE id = 2;
"""
        }
    )
    with holding(place.url, "SET LOCAL deadlock_timeout = '60s'", "UPDATE account SET n = 9 WHERE id = 2") as other:

        def embrace() -> None:
            until(lambda: place.rows(f"{RUNNING} AND query LIKE '%pg_sleep%' AND state = 'active'") != [])
            other.execute("UPDATE account SET n = 9 WHERE id = 1")
            other.execute("COMMIT")

        with in_background(embrace):
            place.migrate(Control(wait=60))
    assert place.rows("SELECT n FROM account") == [(5,), (5,)]
    assert place.events()[-1] == ("apply", "002_both")


# Lost connections.


def test_a_run_whose_lock_is_lost_commits_nothing_more(place: Place) -> None:
    place.write({"002_slow": "CREATE TABLE slow (n integer);\nSELECT pg_sleep(2);"})

    def end_the_lock() -> None:
        until(lambda: place.rows(f"{RUNNING} AND query LIKE '%pg_sleep%' AND state = 'active'") != [])
        place.rows(HOLDING.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))

    with in_background(end_the_lock):
        error = place.fails()
    assert isinstance(error, LockLost)
    assert error.code == "FA320"
    assert "nothing of the failed run of 002_slow.sql remains" in error.state
    assert not place.has("slow")
    place.write({"002_slow": "CREATE TABLE slow (n integer);"})
    assert place.migrate() == ["002_slow"]


def test_a_connection_lost_in_the_middle_leaves_nothing(place: Place) -> None:
    place.write({"002_slow": "CREATE TABLE slow (n integer);\nSELECT pg_sleep(30);"})

    def end_the_run() -> None:
        until(lambda: place.rows(f"{RUNNING} AND query LIKE '%pg_sleep%' AND state = 'active'") != [])
        place.rows(RUNNING.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))

    with in_background(end_the_run):
        error = place.fails()
    assert "the connection to the server was lost" in str(error)
    assert "nothing of the failed run of 002_slow.sql remains" in error.state
    assert not place.has("slow")
    assert place.events()[-1] == ("failure", "002_slow")
    place.write({"002_slow": "CREATE TABLE slow (n integer);"})
    assert place.migrate() == ["002_slow"]
    assert [event for event, _ in place.events()].count("failure") == 1


COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # as a message of the protocol


@contextmanager
def disturbed(url: str, word: bytes, disturb: Callable[[], bool], *, before: bool) -> Iterator[str]:
    """The URL of a way to the same database on which something happens once a client has sent some word: before the
    server gets it, or before its answer comes back. The connection breaks there if it is to."""
    parts = urlsplit(url)
    folder = parse_qs(parts.query).get("host", [""])[0]
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, ExitStack() as stack:

        def serve() -> None:
            with suppress(OSError):  # the listener is closed in the end
                while True:
                    client = stack.enter_context(closing(listener.accept()[0]))
                    server = socket.socket(socket.AF_UNIX) if folder else socket.create_connection(address)
                    stack.enter_context(closing(server))
                    if folder:
                        server.connect(f"{folder}/.s.PGSQL.5432")
                    threading.Thread(target=relay, args=(client, server), daemon=True).start()

        def relay(client: socket.socket, server: socket.socket) -> None:
            is_said = False
            with suppress(OSError, ValueError):  # closed by the other thread: select refuses what is no longer open
                while ready := select.select([client, server], [], [])[0]:
                    for source in ready:
                        data = source.recv(1 << 16)
                        is_said = word in data if source is client else is_said
                        is_now = is_said and before == (source is client)
                        is_said = is_said and not is_now
                        if not data or (is_now and disturb()):
                            client.shutdown(socket.SHUT_RDWR)
                            server.shutdown(socket.SHUT_RDWR)
                            return
                        (server if source is client else client).sendall(data)

        address = (parts.hostname, parts.port or 5432)
        threading.Thread(target=serve, daemon=True).start()
        user = parts.netloc.rpartition("@")[0] or "postgres"
        host, port = listener.getsockname()
        yield urlunsplit((parts.scheme, f"{user}@{host}:{port}", parts.path, "sslmode=disable&gssencmode=disable", ""))
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("before", "state", "stands"),
    [
        (True, "The run of 002_more.sql left nothing", "pending"),
        (False, "The run of 002_more.sql was committed", "applied"),
    ],
)
def test_after_a_connection_lost_during_a_commit_the_ledger_is_asked_what_became_of_it(
    place: Place, before: bool, state: str, stands: str
) -> None:
    place.write({"002_more": "SELECT 'the one before the cut'; CREATE TABLE more (n integer);"})
    direct, failures = place.url, place.events().count(("failure", "002_more"))
    with disturbed(direct, COMMIT, lambda: True, before=before) as place.url:
        error = place.fails()
    place.url = direct
    assert isinstance(error, CommitUnknown)
    assert (error.code, error.state) == ("FA321", state)
    assert place.states()["002_more"] == stands
    place.migrate()
    assert place.states()["002_more"] == "applied"
    assert place.events().count(("apply", "002_more")) == 1
    assert failures == 0


def test_a_commit_is_not_stopped_however_slow_it_is(place: Place) -> None:
    """Afterwards nobody could tell what became of it."""
    commits: list[int] = []

    def take_long() -> bool:
        commits.append(1)
        time.sleep(1)
        return False

    def stop() -> int | None:
        return 15 if len(commits) == 2 else None  # the first is that of the note of what is about to run

    direct = place.url
    place.write({"002_more": "CREATE TABLE more (n integer);"})
    with disturbed(direct, COMMIT, take_long, before=False) as place.url:
        assert place.migrate(Control(wait=30, stop=stop)) == ["002_more"]
    place.url = direct
    assert len(commits) > 2
    assert place.events()[-1] == ("apply", "002_more")


# What is built while others work.


def test_several_indexes_are_built_concurrently_beside_an_open_transaction_of_an_old_reader(place: Place) -> None:
    url = f"{place.url}{'&' if '?' in place.url else '?'}lock_timeout=0.2s"
    place.write(
        {
            "002_indexes": """\
-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY account_n ON account (n);
CREATE INDEX CONCURRENTLY IF NOT EXISTS account_both ON account (n, id);
"""
        }
    )
    with (
        holding(place.url, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT * FROM account") as other,
        in_background(lambda: (time.sleep(1.5), other.execute("COMMIT"))),
    ):
        runner.migrate(url, place.directory, control=Control(wait=60))
    assert place.rows("SELECT count(*) FROM pg_indexes WHERE indexname IN ('account_n', 'account_both')") == [(2,)]
    assert place.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def test_an_index_that_failed_leaves_no_invalid_one(place: Place) -> None:
    place.write(
        {"002_unique": "-- migrate:up transaction:false\nCREATE UNIQUE INDEX CONCURRENTLY only_one ON account (n);"}
    )
    assert "only_one" in str(place.fails())
    assert place.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    place.run("UPDATE account SET n = id")
    assert place.migrate() == ["002_unique"]


def test_an_invalid_index_of_an_earlier_try_is_not_taken_for_done(place: Place) -> None:
    with pytest.raises(Exception, match="could not create unique index"):
        place.run("CREATE UNIQUE INDEX CONCURRENTLY only_one ON account (n)")
    place.run("UPDATE account SET n = id")
    place.write(
        {
            "002_unique": "-- migrate:up transaction:false\n"
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS only_one ON account (n);"
        }
    )
    assert place.migrate() == ["002_unique"]
    assert place.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'only_one'::regclass") == [(True,)]


def test_an_invalid_index_without_a_name_of_its_own_is_told_with_the_command_that_drops_it(place: Place) -> None:
    place.write({"002_unique": "-- migrate:up transaction:false\nCREATE UNIQUE INDEX CONCURRENTLY ON account (n);"})
    error = place.fails()
    assert "it left an invalid index: DROP INDEX CONCURRENTLY account_n_idx" in str(error)


def test_a_server_that_works_for_a_run_that_was_killed_stops_and_the_next_one_goes_on(place: Place) -> None:
    place.write({"002_slow": "CREATE TABLE slow (n integer);\nSELECT pg_sleep(3600);"})
    sleeping = f"{RUNNING} AND query LIKE '%pg_sleep%' AND state = 'active'"
    with started(place.command(), place.root) as process:
        until(lambda: place.rows(sleeping) != [])
        process.kill()
        process.wait()
    place.write({"002_slow": "CREATE TABLE slow (n integer);"})
    assert place.migrate(Control(wait=60)) == ["002_slow"]
    assert place.events()[-2:] == [("failure", "002_slow"), ("apply", "002_slow")]


def test_what_a_run_cleans_up_behind_itself_is_not_stopped_with_it(place: Place) -> None:
    """However slow the server is: else the next run would take it for killed."""
    place.write({"002_slow": "CREATE TABLE slow (n integer);\nSELECT pg_sleep(3600);"})
    sleeping = f"{RUNNING} AND query LIKE '%pg_sleep%' AND state = 'active'"
    with ExitStack() as stack:

        def stop() -> int | None:
            if not place.rows(sleeping):
                return None
            other = stack.enter_context(holding(place.url, "LOCK TABLE _migration_attempt"))
            timer = threading.Timer(1, lambda: other.execute("COMMIT"))
            stack.callback(timer.join)
            timer.start()
            stops.append(15)
            return 15

        stops: list[int] = []
        error = place.fails(Control(wait=30, stop=lambda: stops[0] if stops else stop()))
    assert error.exit_code == 143
    assert "nothing of the failed run of 002_slow.sql remains" in error.state
    assert place.rows("SELECT note FROM _migration_attempt") == []
