"""Runs through PgBouncer, which gives each transaction whichever of its two connections to the server is free."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests import servers
from tests.helpers import PLAIN, finish, forked, started, until
from tests.test_conformance import Place

pytestmark = pytest.mark.slow

FILES = {
    "001_account": "CREATE TABLE account (id integer PRIMARY KEY, n integer);\nINSERT INTO account VALUES (1, 1);",
    "002_settings": """\
SET search_path = pg_catalog;
SET lock_timeout = '77s';
CREATE TEMPORARY TABLE scratch (n integer);
SELECT pg_advisory_lock(7);
ALTER TABLE public.account ADD COLUMN wide text;
""",
    "003_indexes": """\
-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY account_n ON account (n);
CREATE INDEX CONCURRENTLY account_wide ON account (wide);
""",
    "004_drop": "DROP INDEX account_n;",
}
LEFT = """\
SELECT current_setting('search_path'), current_setting('lock_timeout'), to_regclass('pg_temp.scratch')::text,
(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database
WHERE datname = current_database()))"""


@pytest.fixture
def place(pooled: str, tmp_path: Path) -> Place:
    place = Place(pooled, tmp_path)
    place.write(FILES)
    return place


def test_a_run_leaves_nothing_in_the_pool(place: Place, postgresql: str) -> None:
    (untouched,) = servers.rows(postgresql, LEFT)
    assert place.migrate() == list(FILES)
    assert place.states() == dict.fromkeys(FILES, "applied")
    with ExitStack() as stack:
        for _ in range(2):  # both connections of the pool
            connection = stack.enter_context(servers.connect(place.url))
            connection.execute("BEGIN")
            assert connection.execute(LEFT).fetchone() == untouched
    assert servers.rows(postgresql, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def test_a_failure_leaves_nothing_in_the_pool(place: Place, postgresql: str) -> None:
    (untouched,) = servers.rows(postgresql, LEFT)
    place.write({"002_settings": FILES["002_settings"] + "SELECT 1 / 0;"})
    place.fails()
    with ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(servers.connect(place.url))
            connection.execute("BEGIN")
            assert connection.execute(LEFT).fetchone() == untouched


def test_eight_runs_that_start_at_once_share_two_connections(place: Place, tmp_path: Path) -> None:
    """Who waits holds none of them."""
    command = [*PLAIN, "--database", place.url, "--directory", str(place.directory)]
    with ExitStack() as stack:
        running = [stack.enter_context(started(command, tmp_path, patience=300)) for _ in range(8)]
        finished = [finish(process) for process in running]
    assert [each.returncode for each in finished] == [0] * 8, [each.stderr for each in finished]
    told = [line for each in finished for line in each.stdout.splitlines() if line.startswith("Applied")]
    assert len(told) == len(FILES)
    assert place.events() == [("apply", name) for name in FILES]


def test_run_after_run_finds_the_lock_free(place: Place) -> None:
    for at in range(10):
        place.write({f"{at + 100}_table": f"CREATE TABLE t{at} (n integer);"})
        assert place.migrate()[-1] == f"{at + 100}_table"
        assert place.migrate() == []


def test_the_lock_of_a_killed_run_is_free_as_soon_as_its_statement_ends(place: Place, postgresql: str) -> None:
    place.migrate()
    wait = "DO $$ BEGIN WHILE NOT pg_try_advisory_xact_lock(5) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;"
    place.write({"005_wait": f"CREATE TABLE half (n integer);\n{wait}"})
    with closing(servers.connect(postgresql)) as holder, forked(place.command(), place.root) as process:
        holder.execute("SELECT pg_advisory_lock(5)")
        until(lambda: servers.rows(postgresql, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != [])
        process.kill()
        process.wait()
    assert place.migrate() == ["005_wait"]
    assert place.events()[-2:] == [("failure", "005_wait"), ("apply", "005_wait")]
