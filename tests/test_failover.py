"""The primary of PostgreSQL dies under a run, its replica takes its place, and the next run uses the same URL."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from financial_agent.migrator import runner
from financial_agent.migrator.errors import DatabaseUnusable
from tests import servers
from tests.clusters.replication import Replication
from tests.helpers import Finished, Process, finish, forked, run, until
from tests.test_conformance import QUICK, Place

pytestmark = pytest.mark.slow

MOMENTS = 4  # at which the primary is killed
TABLES = 6
FILES = {
    **{
        f"{at:03}_t{at}": f"CREATE TABLE t{at} (id integer PRIMARY KEY, n integer);\n"
        f"INSERT INTO t{at} SELECT i, 0 FROM generate_series(1, 100) AS i;"
        for at in range(1, TABLES + 1)
    },
    "007_indexes": "-- migrate:up transaction:false\n"
    "CREATE INDEX CONCURRENTLY t1_n ON t1 (n);\nCREATE INDEX CONCURRENTLY t2_n ON t2 (n);\n",
    "008_batches": """\
-- migrate:up
-- migrate:batch 10
UPDATE t1 SET n = 1 WHERE id IN (SELECT id FROM t1 WHERE n = 0 LIMIT :batch);
""",
}
# Whether what a migration makes is there.
THERE = {
    **{f"{at:03}_t{at}": f"SELECT to_regclass('t{at}') IS NOT NULL" for at in range(1, TABLES + 1)},
    "007_indexes": "SELECT count(*) = 2 FROM pg_index JOIN pg_class ON oid = indexrelid"
    " WHERE relname IN ('t1_n', 't2_n') AND indisvalid",
}
# What keeps a transaction from its commit for as long as another connection holds a lock.
WAIT = "DO $$ BEGIN WHILE NOT pg_try_advisory_xact_lock(5) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;"
WORKING = "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'financial_agent runs'"


@pytest.fixture
def place(replication: Replication, tmp_path: Path) -> Iterator[Place]:
    with replication.fresh() as url:
        yield Place(url, tmp_path)


def told(finished: Finished) -> set[str]:
    """The migrations that a run reported as applied."""
    lines = finished.stdout.splitlines()
    return {line.split()[1].partition(".")[0] for line in lines if line.startswith("Applied")}


def recorded_of_what_is_there(place: Place) -> set[str]:
    """What is recorded: all of that is there, and nothing else, but for what the journal says was begun."""
    states = place.states()
    recorded = {name for name, state in states.items() if state == "applied"}
    begun = {name for name, state in states.items() if state == "started"}
    there = {name for name, query in THERE.items() if place.rows(query) == [(True,)]}
    assert there - begun == recorded & THERE.keys()
    return recorded


def complete(place: Place) -> None:
    """The next run does what is left, and each migration was applied once."""
    finished = run(place.command(), place.root)
    assert finished.returncode == 0, finished.stderr
    assert recorded_of_what_is_there(place) == FILES.keys()
    assert sorted(name for event, name in place.events() if event == "apply") == list(FILES)
    assert place.rows("SELECT count(*), sum(n) FROM t1") == [(100, 100)]
    assert place.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def recorded_at_least(place: Place, count: int) -> bool:
    if place.rows("SELECT to_regclass('_migrations') IS NULL") == [(True,)]:
        return count == 0
    return bool(place.rows(f"SELECT count(*) >= {count} FROM _migrations")[0][0])


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("replication", ["on", "local"], indirect=True)
def test_whenever_the_primary_dies_what_is_recorded_is_there_and_the_next_run_completes(
    replication: Replication, place: Place, moment: int, request: pytest.FixtureRequest
) -> None:
    """Where commits wait for the replica, nothing that was reported is lost, either."""
    place.write(FILES)
    count = moment * len(FILES) // MOMENTS
    with forked(place.command(), place.root) as process:
        until(lambda: recorded_at_least(place, count))
        time.sleep(random.random() / 5)
        replication.fail_over()
        finished = finish(process)
    kept = recorded_of_what_is_there(place)
    if request.node.callspec.params["replication"] == "on":
        assert told(finished) <= kept
    complete(place)


def test_a_statement_that_the_primary_dies_in_leaves_nothing(replication: Replication, place: Place) -> None:
    place.write({"001_slow": "CREATE TABLE slow (n integer);\nSELECT pg_sleep(600);"})
    with forked(place.command(), place.root) as process:
        until(lambda: place.rows(WORKING) == [("PgSleep",)])
        replication.fail_over()
        finished = finish(process)
    assert finished.returncode == 3
    assert "the connection to the server was lost" in finished.stderr
    assert "Error FA509: 001_slow.sql: the connection to the server was lost" in finished.stderr
    assert "When the server answers again: flask db status" in finished.stderr
    assert "Correct its SQL" not in finished.stderr
    assert place.states() == {"001_slow": "pending"}
    assert not place.has("slow")
    place.write({"001_slow": "CREATE TABLE slow (n integer);"})
    assert place.migrate() == ["001_slow"]


@contextmanager
def about_to_commit(place: Place) -> Iterator[tuple[Process, Callable[[], None]]]:
    """A run whose migration makes a table, waits, and commits once the function is called."""
    place.write({"001_first": f"CREATE TABLE first (n integer);\n{WAIT}"})
    with ExitStack() as stack:
        holder = stack.enter_context(closing(servers.connect(place.url)))
        holder.execute("SELECT pg_advisory_lock(5)")
        process = stack.enter_context(forked(place.command(), place.root))
        until(lambda: place.rows(WORKING) == [("PgSleep",)])

        def let_it() -> None:
            holder.execute("SELECT pg_advisory_unlock(5)")
            until(lambda: place.rows(WORKING) == [("SyncRep",)])

        yield process, let_it


def test_a_commit_that_never_came_to_the_replica_is_undone_with_its_record(
    replication: Replication, place: Place
) -> None:
    with about_to_commit(place) as (process, let_it):
        servers.run(replication.replica, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        until(lambda: place.rows("SELECT * FROM pg_stat_replication") == [])
        let_it()
        replication.fail_over()
        finished = finish(process)
    assert finished.returncode == 3
    assert "the connection was lost during its commit" in finished.stderr
    assert told(finished) == set()
    assert place.states() == {"001_first": "pending"}
    assert not place.has("first")
    assert place.migrate() == ["001_first"]


@pytest.mark.parametrize("replication", ["remote_apply"], indirect=True)
def test_a_commit_that_came_to_the_replica_stays_with_its_record_although_nobody_was_told(
    replication: Replication, place: Place
) -> None:
    with about_to_commit(place) as (process, let_it):
        servers.run(replication.replica, "SELECT pg_wal_replay_pause()")
        let_it()
        replication.fail_over()
        finished = finish(process)
    assert finished.returncode == 3
    assert "the connection was lost during its commit" in finished.stderr
    assert told(finished) == set()
    assert place.states() == {"001_first": "applied"}
    assert place.has("first")
    assert place.migrate() == []


def test_a_url_that_names_both_servers_finds_the_one_that_takes_changes(replication: Replication, place: Place) -> None:
    hosts = [parse_qs(urlsplit(url).query)["host"][0] for url in (replication.replica, replication.primary)]
    name = urlsplit(place.url).path
    both = f"postgresql://postgres@/{name[1:]}?host={','.join(hosts)}&target_session_attrs=read-write"
    place.write({"001_first": "CREATE TABLE first (n integer);"})
    assert [done.filename for done in runner.migrate(both, place.directory).done] == ["001_first.sql"]
    replication.fail_over()
    place.write({"002_second": "CREATE TABLE second (n integer);"})
    assert [done.filename for done in runner.migrate(both, place.directory).done] == ["002_second.sql"]


@pytest.mark.parametrize("replication", ["remote_apply"], indirect=True)  # what is committed is there at once
def test_a_replica_is_asked_but_not_migrated(replication: Replication, place: Place) -> None:
    place.write({"001_first": "CREATE TABLE first (n integer);"})
    place.migrate()
    place.write({"002_second": "CREATE TABLE second (n integer);"})
    url = urlsplit(replication.replica)._replace(path=urlsplit(place.url).path).geturl()
    assert [item.state for item in runner.status(url, place.directory).items] == ["applied", "pending"]
    with pytest.raises(DatabaseUnusable, match="it is a standby"):
        runner.migrate(url, place.directory, control=QUICK)
