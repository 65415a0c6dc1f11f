"""Faults of a Galera cluster under a run: a node dies or hangs, the majority is gone, a run was asleep for too long."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from financial_agent.migrator import databases, runner
from financial_agent.migrator.control import Control
from financial_agent.migrator.errors import DatabaseUnusable
from financial_agent.migrator.errors_server import NodeUnready
from tests import servers
from tests.clusters.galera import Galera
from tests.helpers import Process, finish, forked, until
from tests.test_conformance import Place

pytestmark = pytest.mark.slow

ROUNDS = 3
DEFINITIONS = 12
ROWS = 200
FIRST = f"""\
CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL, m INT NOT NULL);
INSERT INTO t SELECT seq, 0, 0 FROM seq_1_to_{ROWS};
"""
FILES = {
    "001_first": FIRST,
    "002_definitions": "".join(f"CREATE TABLE d{at} (id INT PRIMARY KEY);\n" for at in range(DEFINITIONS)),
    "003_rows": "UPDATE t SET n = n + 1;\nUPDATE t SET n = n + 10;\n",
    "004_batches": """\
-- migrate:up
-- migrate:batch 5
UPDATE t SET m = m + 1 WHERE m = 0 LIMIT :batch;
""",
}
SLOW_ROWS = "UPDATE t SET n = n + 1;\nUPDATE t SET n = n + 10 WHERE sleep(0.1) = 0;\n"
SLEEPING = "SELECT 1 FROM information_schema.processlist WHERE db = DATABASE() AND state = 'User sleep'"
# Beyond the time that a lease outlives its holder.
PATIENT = Control(wait=120, pauses=False)


class Nodes:
    """One database on the nodes of a cluster, and one folder of migrations."""

    def __init__(self, urls: list[str], root: Path) -> None:
        self.on = []
        for at, url in enumerate(urls):
            (root / str(at)).mkdir()
            self.on.append(Place(url, root / str(at)))

    def write(self, files: dict[str, str]) -> None:
        for place in self.on:
            place.write(files)


@pytest.fixture
def nodes(galera: Galera, tmp_path: Path) -> Iterator[Nodes]:
    with galera.fresh() as urls:
        yield Nodes(urls, tmp_path)


def rows(place: Place, sql: str) -> list[tuple[object, ...]]:
    """What a query finds once the node has all that was committed before."""
    with closing(servers.connect(place.url)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 15")
        cursor.execute(sql)
        return list(cursor.fetchall())


def tables(place: Place, like: str) -> set[str]:
    return {str(name) for (name,) in rows(place, f"SHOW TABLES LIKE '{like}'")}


def assert_done_once(place: Place) -> None:
    """All migrations are recorded, and took effect once."""
    assert set(place.states().values()) == {"applied"}
    assert sorted(name for event, name in place.events() if event == "apply") == sorted(place.states())
    assert rows(place, "SELECT count(*), min(n), max(n), min(m), max(m) FROM t") == [(ROWS, 11, 11, 1, 1)]
    assert tables(place, "d%") == {f"d{at}" for at in range(DEFINITIONS)}


def complete(place: Place) -> None:
    place.migrate(PATIENT)
    assert_done_once(place)


@contextmanager
def migrating(place: Place) -> Iterator[Process]:
    with forked(place.command(), place.root) as process:
        yield process


def test_three_runs_on_three_nodes_apply_each_migration_once_in_every_round(galera: Galera, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        (root := tmp_path / str(number)).mkdir()
        with galera.fresh() as urls, ExitStack() as stack:
            nodes = Nodes(urls, root)
            nodes.write(FILES)
            running = [stack.enter_context(migrating(place)) for place in nodes.on]
            finished = [finish(process) for process in running]
            assert [each.returncode for each in finished] == [0] * 3, [each.stderr for each in finished]
            told = sorted(
                line.split()[1].partition(".")[0]
                for each in finished
                for line in each.stdout.splitlines()
                if line.startswith("Applied")
            )
            assert told == list(FILES)
            for place in nodes.on:
                assert_done_once(place)


# A node dies.


def in_definitions(nodes: Nodes) -> bool:
    return len(tables(nodes.on[1], "d%")) >= random.randrange(1, DEFINITIONS)


def in_rows(nodes: Nodes) -> bool:
    return nodes.on[0].rows(SLEEPING) != []


def in_batches(nodes: Nodes) -> bool:
    return tables(nodes.on[1], "t") != set() and rows(nodes.on[1], "SELECT count(*) > 20 FROM t WHERE m = 1") == [(1,)]


@pytest.mark.parametrize("moment", [in_definitions, in_rows, in_batches])
def test_when_the_node_of_a_run_dies_its_state_is_explained_and_the_next_run_on_another_completes(
    galera: Galera, nodes: Nodes, moment: object
) -> None:
    assert callable(moment)
    files = {**FILES, "003_rows": SLOW_ROWS} if moment is in_rows else FILES
    nodes.write(files)
    with migrating(nodes.on[0]) as process:
        until(lambda: moment(nodes))
        galera.kill(0)
        finished = finish(process)
    assert finished.returncode != 0
    place = nodes.on[1]
    states = place.states()
    items = {item.filename.partition(".")[0]: item for item in runner.status(place.url, place.directory).items}
    there = len(tables(place, "d%"))
    if states["002_definitions"] == "started":
        so_far = items["002_definitions"].so_far
        # The one that the node died in may be there: the next run asks the schema.
        assert there - (so_far.statements if so_far else 0) in (0, 1)
    else:
        assert there == (DEFINITIONS if states["002_definitions"] == "applied" else 0)
    if states["001_first"] == "applied":
        n = 11 if states["003_rows"] == "applied" else 0
        assert rows(place, "SELECT min(n), max(n) FROM t") == [(n, n)]
        ((changed,),) = rows(place, "SELECT sum(m) FROM t")
        if states["004_batches"] == "started":
            so_far = items["004_batches"].so_far
            assert so_far
            assert so_far.rows_changed == changed
        else:
            assert changed == (ROWS if states["004_batches"] == "applied" else 0)
    nodes.write(FILES)
    complete(nodes.on[1])
    galera.heal()
    for place in nodes.on:
        assert_done_once(place)


def test_without_a_majority_a_run_ends_and_none_begins_until_there_is_one(galera: Galera, nodes: Nodes) -> None:
    nodes.write({**FILES, "003_rows": SLOW_ROWS})
    place = nodes.on[0]
    with migrating(place) as process:
        until(lambda: in_rows(nodes))
        galera.kill(1)
        galera.kill(2)
        until(lambda: galera.status(0, "wsrep_ready") == "OFF")
        finished = finish(process)
    assert finished.returncode == 3
    assert "takes no part in its cluster any more" in finished.stderr
    assert "When the server answers again: flask db status" in finished.stderr
    error = place.fails()
    assert isinstance(error, NodeUnready)
    assert (error.code, error.exit_code) == ("FA506", 5)
    with pytest.raises(NodeUnready):
        place.states()
    galera.heal()
    assert place.states()["003_rows"] == "pending"
    nodes.write(FILES)
    complete(place)


# The holder of the lease.


@pytest.fixture
def begun(nodes: Nodes) -> Nodes:
    nodes.write({name: FILES[name] for name in ("001_first", "002_definitions")})
    nodes.on[0].migrate()
    return nodes


def finish_on(place: Place) -> None:
    """Run what is left, quickly, on a node: behind the end of the lease of whoever has it."""
    place.write(FILES)
    assert place.migrate(PATIENT)[0] == "003_rows"
    assert_done_once(place)


MIXED = "CREATE TABLE e1 (id INT);\nSELECT sleep(5);\nCREATE TABLE e2 (id INT);\n"


@pytest.mark.parametrize("sql", [SLOW_ROWS, MIXED])
def test_a_run_that_was_stopped_for_longer_than_its_lease_commits_nothing_more(begun: Nodes, sql: str) -> None:
    begun.on[0].write({"003_rows": sql})
    with migrating(begun.on[0]) as process:
        until(lambda: in_rows(begun))
        os.kill(process.pid, signal.SIGSTOP)
        try:
            begun.on[1].write({"003_rows": FILES["003_rows"] if sql is SLOW_ROWS else sql})
            taken_over = begun.on[1].migrate(PATIENT)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        finished = finish(process)
    assert taken_over == ["003_rows"]
    assert finished.returncode == 3
    assert "FA320" in finished.stderr
    for place in begun.on:
        assert [name for event, name in place.events() if event == "apply"].count("003_rows") == 1
        n = 11 if sql is SLOW_ROWS else 0
        assert rows(place, "SELECT min(n), max(n) FROM t") == [(n, n)]


def test_a_run_on_a_node_that_hangs_commits_nothing_once_another_has_taken_over(galera: Galera, begun: Nodes) -> None:
    begun.on[0].write({"003_rows": SLOW_ROWS})
    with migrating(begun.on[0]) as process:
        until(lambda: in_rows(begun))
        galera.pause(0)
        try:
            finish_on(begun.on[1])
        finally:
            galera.heal()
        finished = finish(process)
    assert finished.returncode in (3, 5), finished.stderr  # 5 where it could not come to the node again
    begun.write(FILES)
    for place in begun.on:
        assert_done_once(place)


# What a node tells.


def test_what_one_node_has_applied_every_other_knows_at_once(nodes: Nodes) -> None:
    names = []
    for at in range(10):
        names.append(f"{at:03}_table")
        nodes.write({names[-1]: f"CREATE TABLE a{at} (id INT);"})
        nodes.on[at % 3].migrate()
        for place in nodes.on:
            assert place.states() == dict.fromkeys(names, "applied")
            with closing(databases.connect(place.url, readonly=True)) as db:
                assert [each.name for each in db.objects()] == [f"a{n}" for n in range(at + 1)]


def test_a_server_that_is_read_only_is_refused(nodes: Nodes) -> None:
    place = nodes.on[0]
    place.write({"001_first": FIRST})
    place.run("SET GLOBAL read_only = 1")
    try:
        error = place.fails()
    finally:
        place.run("SET GLOBAL read_only = 0")
    assert isinstance(error, DatabaseUnusable)
    assert "read-only" in str(error)
    assert not place.has("t")
