"""Runs on a Galera cluster: three nodes, one ledger, one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import history, runner, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, Patience, connect
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import MigratorError, RunLocked
from financial_agent.migrator.errors_run import LockLost
from financial_agent.migrator.errors_server import NodeUnready
from tests import servers
from tests.clusters.galera import Galera
from tests.helpers import FLASK, Process, finish, started, until

pytestmark = pytest.mark.slow

PATIENT = Control(wait=120, pauses=False)
FILES = {
    "001_chat": "CREATE TABLE chat (id INT PRIMARY KEY, title VARCHAR(100));",
    "002_rows": "INSERT INTO chat VALUES (1, 'a'), (2, 'b');",
    "003_more": "CREATE TABLE more (id INT PRIMARY KEY);\nINSERT INTO more VALUES (1);\nALTER TABLE chat ADD n INT;",
}


class Place:
    """A database of the cluster's, by its URL on each node, and a folder of migrations."""

    def __init__(self, urls: list[str], root: Path) -> None:
        self.urls = urls
        self.root = root
        self.directory = root / "migrations"
        self.directory.mkdir()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.directory / f"{name}.sql").write_text(text, encoding="utf-8")

    def command(self, node: int) -> list[str]:
        place = ["--database", self.urls[node], "--directory", str(self.directory)]
        return [*FLASK, "migrate", *place, "--wait", "120"]

    def migrate(self, node: int, control: Control = PATIENT) -> list[str]:
        outcome = runner.migrate(self.urls[node], self.directory, control=control)
        return [done.filename.removesuffix(".sql") for done in outcome.done]

    def fails(self, node: int, control: Control) -> MigratorError:
        with pytest.raises(MigratorError) as caught:
            self.migrate(node, control)
        return caught.value

    def rows(self, node: int, sql: str) -> list[tuple[Any, ...]]:
        """Read what all nodes have committed before."""
        with closing(servers.connect(self.urls[node])) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SET SESSION wsrep_sync_wait = 15")
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]

    @contextmanager
    def running(self, node: int, words: str) -> Iterator[Process]:
        """A run on a node that is busy with a statement of these words."""
        with started(self.command(node), self.root, patience=300) as process:
            sql = f"SELECT 1 FROM information_schema.processlist WHERE db = database() AND info LIKE '{words}%'"
            until(lambda: servers.rows(self.urls[node], sql) != [] or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            yield process


@pytest.fixture
def place(galera: Galera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("FINANCIAL_AGENT_BACKUP", "never")
    with galera.fresh() as urls:
        yield Place(urls, tmp_path)


def test_three_runs_on_three_nodes_at_once_apply_each_migration_once(place: Place) -> None:
    place.write(FILES)
    with ExitStack() as stack:
        running = [stack.enter_context(started(place.command(at % 3), place.root, patience=300)) for at in range(6)]
        finished = [finish(process) for process in running]
    assert [each.returncode for each in finished] == [0] * 6, [each.stderr for each in finished]
    for node in range(3):
        assert place.rows(node, "SELECT filename FROM _migrations ORDER BY id") == [(f"{name}.sql",) for name in FILES]
        assert place.rows(node, "SELECT count(*) FROM chat") == [(2,)]
    assert [line.event for line in history.read(place.urls[0])] == ["apply"] * 3


def test_a_run_waits_for_one_on_another_node_and_tells_whose_it_is(place: Place) -> None:
    place.write(FILES)
    with session.exclusive(place.urls[0], PATIENT, Environment()):
        error = place.fails(1, Control(wait=1))
        assert isinstance(error, RunLocked)
        assert error.exit_code == 5
        assert "process " in error.message
    assert place.migrate(1) == list(FILES)


def test_the_lease_of_a_killed_run_is_taken_over(place: Place) -> None:
    place.write({**FILES, "004_wait": "SELECT sleep(3600);"})
    with place.running(0, "SELECT sleep") as process:
        process.kill()
        process.wait()
    place.write({"004_wait": "CREATE TABLE waited (id INT);"})
    assert place.migrate(1) == ["004_wait"]
    assert [line.event for line in history.read(place.urls[2])] == ["apply"] * 3 + ["failure", "apply"]


def test_a_lease_outlives_a_long_definition_that_keeps_the_cluster_still(place: Place) -> None:
    """Its holder cannot renew it meanwhile; it may go on all the same, as nobody takes over what may yet be renewed."""
    place.write({"001_first": "CREATE TABLE t (id INT);\nINSERT INTO t VALUES (1);"})
    place.migrate(0)
    place.write({"002_long": "CREATE TABLE u AS SELECT id, sleep(20) AS n FROM t;\nCREATE TABLE v (id INT);"})
    with place.running(0, "CREATE TABLE u") as process:
        assert place.migrate(1) == []
        assert finish(process).returncode == 0
    assert place.rows(2, "SELECT * FROM u") == [(1, 0)]


def taken_over(place: Place, node: int) -> None:
    # Without the wait the node may not yet have the row that is to be changed.
    take = "UPDATE _migration_lock SET holder = 'another', beat = beat + 1"
    servers.run(place.urls[node], "SET SESSION wsrep_sync_wait = 15", take)
    assert place.rows(node, "SELECT holder FROM _migration_lock") == [("another",)]


@contextmanager
def holder(url: str) -> Iterator[Database]:
    with closing(connect(url, patience=Patience(60))) as db, db.lock():
        yield db


def test_what_runs_without_its_lease_commits_nothing(place: Place) -> None:
    servers.run(place.urls[0], "CREATE TABLE t (id INT PRIMARY KEY)")
    with holder(place.urls[0]) as db:
        with pytest.raises(LockLost), db.transaction():
            db.execute("INSERT INTO t VALUES (1)")
            taken_over(place, 1)
        with pytest.raises(LockLost), db.transaction():
            pytest.fail("a transaction was begun")
    assert place.rows(2, "SELECT * FROM t") == []


def test_a_definition_without_its_lease_is_not_begun(place: Place) -> None:
    servers.run(place.urls[0], "CREATE TABLE t (id INT PRIMARY KEY)")
    with holder(place.urls[0]) as db, pytest.raises(LockLost), db.transaction():
        taken_over(place, 1)
        db.execute("DROP TABLE t")
    assert place.rows(2, "SELECT * FROM t") == []


def test_a_row_that_another_node_changes_meanwhile_is_tried_again(place: Place) -> None:
    place.write({"001_first": "CREATE TABLE t (id INT PRIMARY KEY, n INT);\nINSERT INTO t VALUES (1, 0);"})
    place.migrate(0)
    place.write({"002_change": "UPDATE t SET n = n + 1;\nSELECT sleep(3) FROM t WHERE n = 1;"})
    with place.running(0, "SELECT sleep") as process:
        servers.run(place.urls[1], "UPDATE t SET n = 10")
        finished = finish(process)
    assert finished.returncode == 0, finished.stderr
    assert place.rows(2, "SELECT * FROM t") == [(1, 11)]
    assert len(place.rows(2, "SELECT * FROM _migrations")) == 2


def test_a_run_whose_node_dies_is_finished_on_another(galera: Galera, place: Place) -> None:
    place.write({**FILES, "004_wait": "CREATE TABLE a (id INT);\nSELECT sleep(3600);\nCREATE TABLE b (id INT);"})
    with place.running(0, "SELECT sleep") as process:
        galera.kill(0)
        finished = finish(process)
    assert finished.returncode == 3, finished.stderr
    assert "the connection to the server was lost" in finished.stderr
    until(lambda: galera.is_ready(1))
    (item,) = (each for each in runner.status(place.urls[1], place.directory).items if each.state != "applied")
    assert (item.state, str(item.so_far)) == ("started", "1 statement")
    place.write({"004_wait": "CREATE TABLE a (id INT);\nSELECT 1;\nCREATE TABLE b (id INT);"})
    assert place.migrate(1) == ["004_wait"]
    assert len(place.rows(2, "SELECT * FROM _migrations")) == 4


def test_a_node_without_a_majority_is_refused(galera: Galera, place: Place) -> None:
    place.write(FILES)
    galera.kill(1)
    galera.kill(2)
    until(lambda: galera.status(0, "wsrep_ready") == "OFF")
    error = place.fails(0, PATIENT)
    assert isinstance(error, NodeUnready)
    assert (error.code, error.exit_code) == ("FA506", 5)
    assert "wsrep_cluster_status = non-Primary" in error.message
