"""kill -9 of a run, and the end of its connections on the server, at any time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests import servers
from tests.helpers import finish, started, until
from tests.test_conformance import Place

ROUNDS, KILLS = 4, 4
FILES = {
    "001_account": """\
CREATE TABLE account (id integer PRIMARY KEY, n integer);
SELECT pg_sleep(0.1);
INSERT INTO account SELECT i, i FROM generate_series(1, 1000) AS i;
""",
    "002_owner": """\
CREATE TABLE owner (id integer PRIMARY KEY);
SELECT pg_sleep(0.1);
ALTER TABLE account ADD COLUMN owner integer REFERENCES owner (id);
UPDATE account SET n = n + 1;
""",
    "003_indexes": """\
-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY account_n ON account (n);
CREATE INDEX CONCURRENTLY IF NOT EXISTS account_both ON account (n, id);
INSERT INTO owner VALUES (1);
CREATE INDEX CONCURRENTLY account_owner ON account (owner);
DROP INDEX CONCURRENTLY account_both;
""",
    "004_last": "UPDATE account SET owner = 1;\nSELECT pg_sleep(0.1);\nCREATE TABLE last (id integer);",
}
OURS = "datname = current_database() AND application_name LIKE 'financial_agent %'"
SUMMARY = "SELECT count(*), sum(n), sum(owner), (SELECT count(*) FROM owner) FROM account"
INDEXES = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'account'::regclass ORDER BY 1"


def assert_explained(place: Place) -> None:
    """What is there is what status says."""
    states = place.states()
    applied = [name for name, state in states.items() if state == "applied"]
    assert applied == list(FILES)[: len(applied)]
    assert set(states.values()) <= {"applied", "started", "pending"}
    assert place.has("account") == ("001_account" in applied)
    assert place.has("owner") == ("002_owner" in applied)
    assert place.has("last") == ("004_last" in applied)


def assert_finished(place: Place) -> None:
    """Each has run once, whatever came between."""
    assert place.states() == dict.fromkeys(FILES, "applied")
    assert place.rows(SUMMARY) == [(1000, sum(range(2, 1002)), 1000, 1)]
    assert place.rows(INDEXES) == [("account_n", True), ("account_owner", True), ("account_pkey", True)]
    assert [name for event, name in place.events() if event == "apply"] == list(FILES)
    assert place.verified() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["client", "server"])
def test_a_run_that_is_killed_at_any_time_is_explained_and_finished_by_the_next(
    kind: str, postgresql_server: servers.Server, tmp_path: Path
) -> None:
    place = Place("", tmp_path)
    place.write(FILES)
    for seed in range(ROUNDS):
        chance = random.Random(seed)
        with postgresql_server.fresh() as place.url:
            for _ in range(KILLS):
                with started(place.command(), tmp_path, patience=120) as process:
                    time.sleep(chance.uniform(0.2, 2.5))
                    if kind == "client":
                        process.kill()
                    else:
                        place.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
                    finished = finish(process)
                assert "Traceback" not in finished.stderr, finished.stderr
                until(lambda: place.rows(f"SELECT pid FROM pg_stat_activity WHERE {OURS}") == [])
                assert_explained(place)
            place.migrate()
            assert_finished(place)
