"""Databases are made on the server to try things in, and are gone behind their use, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from financial_agent.migrator.databases import Patience, TableChange, compare, scratch, server_scratch, workspace
from financial_agent.migrator.errors_server import ToolMissing
from tests import servers

pytestmark = pytest.mark.slow

SCHEMA = (
    "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(30), town VARCHAR(30))",
    "CREATE TABLE plain (x INT)",
    "CREATE VIEW names AS SELECT id, name FROM people",
    "INSERT INTO people VALUES (1, 'Ada', 'Rome'), (2, 'Bob', NULL), (3, 'Cy', 'Bonn')",
    "INSERT INTO plain VALUES (1), (1), (2)",
)
NAMES = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}


def _ignore(done: int, total: int) -> None:
    pass


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest) -> str:
    made: str = request.getfixturevalue(request.param)
    servers.run(made, *SCHEMA)
    return made


@pytest.fixture
def scratches(url: str) -> Callable[[], set[str]]:
    """The scratch databases on the server that were not there before."""

    def there() -> set[str]:
        found = servers.rows(url, NAMES[url.partition(":")[0]])
        return {name for (name,) in found if name.startswith(server_scratch.PREFIX)}

    before = there()
    return lambda: there() - before


def test_a_scratch_database_has_the_schema_and_no_rows(url: str, scratches: Callable[[], set[str]]) -> None:
    with scratch(url, Patience()) as db:
        assert db.tables() == {"people": ["id", "name", "town"], "plain": ["x"]}
        assert db.counts("people", []) == [0]
        assert len(scratches()) >= 1
    assert servers.rows(url, "SELECT count(*) FROM people") == [(3,)]


def test_an_empty_scratch_database_has_nothing(url: str) -> None:
    with scratch(url, Patience(), empty=True) as db:
        assert db.tables() == {}
        db.execute("CREATE TABLE people (id INT)")
    assert servers.rows(url, "SELECT count(*) FROM people") == [(3,)]


def test_a_scratch_database_is_gone_behind_a_failure(url: str) -> None:
    with pytest.raises(ZeroDivisionError), scratch(url, Patience(), empty=True) as db:
        name = db.name.rpartition("/")[2]
        raise ZeroDivisionError
    assert (name,) not in servers.rows(url, NAMES[db.dialect])


def test_copies_have_the_rows_and_are_compared_with_each_other(url: str) -> None:
    with workspace(url, Patience()) as copies:
        before = copies.original(_ignore)
        after = copies.clone(before)
        assert copies.size(after) > 0
        assert compare(before, after, None, Patience()) == []
        servers.run(
            after,
            "UPDATE people SET name = 'Eve' WHERE id = 1",
            "DELETE FROM people WHERE id = 3",
            "INSERT INTO people VALUES (4, 'Dan', 'Ulm')",
            "ALTER TABLE people DROP COLUMN town",
            "DELETE FROM plain WHERE x = 1",
            "INSERT INTO plain VALUES (3)",
            "CREATE TABLE more (x INT)",
            "INSERT INTO more VALUES (1)",
        )
        assert compare(before, after, None, Patience()) == [
            TableChange("more", inserted=1),
            TableChange("people", inserted=1, updated=1, deleted=1, values=(("name", 1), ("town", 1))),
            TableChange("plain", inserted=1, deleted=2),
        ]


def test_a_table_that_is_only_renamed_has_not_changed(url: str) -> None:
    with workspace(url, Patience()) as copies:
        before = copies.original(_ignore)
        after = copies.clone(before)
        servers.run(after, "DROP VIEW names", "ALTER TABLE people RENAME TO persons")
        assert compare(before, after, None, Patience()) == []


def test_copies_without_rows_have_those_of_the_ledger(url: str) -> None:
    servers.run(
        url,
        "CREATE TABLE _migrations (id INT PRIMARY KEY, filename VARCHAR(255))",
        "INSERT INTO _migrations VALUES (1, '001_first.sql')",
    )
    with workspace(url, Patience(), rows=False) as copies:
        copy = copies.original(_ignore)
        assert servers.rows(copy, "SELECT * FROM _migrations") == [(1, "001_first.sql")]
        assert servers.rows(copy, "SELECT * FROM people") == []


def test_a_missing_program_is_named_and_nothing_is_left(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing), scratch(url, Patience()):
        pass


def test_what_a_killed_process_left_is_dropped_by_the_next(url: str, scratches: Callable[[], set[str]]) -> None:
    code = f"""
import sys, time
from financial_agent.migrator.databases import Patience, scratch
with scratch({url!r}, Patience(), empty=True) as db:
    print(db.name.rpartition("/")[2], flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        with scratch(url, Patience(), empty=True):
            assert name in scratches()  # its process is there
        os.kill(process.pid, signal.SIGKILL)
    _until_gone(url, name)
    assert name not in scratches()


def _until_gone(url: str, name: str) -> None:
    """The server notices the end of a connection when it looks."""
    for _ in range(600):
        with scratch(url, Patience(), empty=True):
            if (name,) not in servers.rows(url, NAMES[url.partition(":")[0]]):
                return
