"""On a server a run is rehearsed in a transaction that is rolled back, or on a copy beside the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import rehearsal, rollback, runner
from financial_agent.migrator.databases import TableChange
from financial_agent.migrator.errors import LockHeld, RehearsalRefused
from financial_agent.migrator.errors_run import RunFailed
from financial_agent.migrator.errors_server import ScratchRefused
from tests import servers

pytestmark = pytest.mark.slow

FIRST = """\
-- People, and what they order.
-- migrate:up
CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(30), town VARCHAR(30));
CREATE TABLE orders (id INT PRIMARY KEY, total INT);
INSERT INTO people VALUES (1, 'Ada', 'Rome'), (2, 'Bob', NULL), (3, 'Cy', 'Bonn');
-- migrate:down
DROP TABLE orders;
DROP TABLE people;
"""
SECOND = """\
-- The town is no longer kept.
-- migrate:up
UPDATE people SET name = 'Eve' WHERE id = 1;
DELETE FROM people WHERE id = 3;
ALTER TABLE people DROP COLUMN town;
INSERT INTO orders VALUES (1, 5);
-- migrate:down
ALTER TABLE people ADD COLUMN town VARCHAR(30);
DELETE FROM orders;
"""


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest) -> str:
    made: str = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "001_create_people.sql").write_text(FIRST)
    return tmp_path


def everything(url: str) -> list[Any]:
    """All that a rehearsal could leave in a database."""
    is_postgresql = url.startswith("postgresql")
    schema = "current_schema()" if is_postgresql else "DATABASE()"
    columns = f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = {schema}"
    found: list[Any] = sorted(servers.rows(url, columns))
    for table in sorted({name for name, _ in found}):
        found.append((table, sorted(map(repr, servers.rows(url, f"SELECT * FROM {table}")))))
    return found


@pytest.mark.parametrize("with_data", [False, True])
def test_a_rehearsal_leaves_nothing(url: str, folder: Path, with_data: bool) -> None:
    assert rehearsal.migrate(url, folder, with_data=with_data).failure is None
    assert everything(url) == []
    runner.migrate(url, folder)
    (folder / "002_drop_town.sql").write_text(SECOND)
    before = everything(url)
    assert rehearsal.migrate(url, folder, with_data=with_data).failure is None
    assert rehearsal.roll_back(url, folder, with_data=with_data).failure is None
    assert everything(url) == before


def test_postgresql_rehearses_in_a_transaction_with_the_rows(postgresql: str, folder: Path) -> None:
    runner.migrate(postgresql, folder)
    (folder / "002_drop_town.sql").write_text(SECOND)
    found = rehearsal.migrate(postgresql, folder)
    (step,) = found.steps
    assert found.where == "a transaction"
    assert step.rows == (
        TableChange("orders", inserted=1),
        TableChange("people", updated=1, deleted=1, values=(("town", 1),)),
    )
    assert [each.columns for each in step.schema] == [("column town is gone",)]
    assert step.way_back is not None
    assert step.way_back.failure is None
    assert step.way_back.rows == (TableChange("people", updated=1, deleted=1, values=(("name", 1), ("town", 1))),)


def test_each_step_is_told_apart_from_those_before_it(postgresql: str, folder: Path) -> None:
    (folder / "002_drop_town.sql").write_text(SECOND)
    first, second = rehearsal.migrate(postgresql, folder).steps
    assert first.rows == (TableChange("people", inserted=3),)
    assert first.way_back is not None
    assert first.way_back.is_complete
    assert [change.table for change in second.rows] == ["orders", "people"]


def test_a_copy_with_the_rows_finds_the_same(url: str, folder: Path) -> None:
    runner.migrate(url, folder)
    (folder / "002_drop_town.sql").write_text(SECOND)
    found = rehearsal.migrate(url, folder, with_data=True)
    (step,) = found.steps
    assert found.where == "a copy"
    assert step.rows == (
        TableChange("orders", inserted=1),
        TableChange("people", updated=1, deleted=1, values=(("name", 1), ("town", 1))),
    )


def test_mysql_rehearses_on_a_copy_without_rows(mysql: str, folder: Path) -> None:
    runner.migrate(mysql, folder)
    (folder / "002_drop_town.sql").write_text(SECOND)
    found = rehearsal.migrate(mysql, folder)
    (step,) = found.steps
    assert found.where == "a copy without rows"
    assert [each.columns for each in step.schema] == [("column town is gone",)]
    assert step.rows == (TableChange("orders", inserted=1),)


def test_what_no_transaction_undoes_is_rehearsed_on_a_copy(postgresql: str, folder: Path) -> None:
    runner.migrate(postgresql, folder)
    (folder / "002_index_orders.sql").write_text(
        "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY orders_by_total ON orders (total);\n"
        "-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY orders_by_total;\n"
    )
    found = rehearsal.migrate(postgresql, folder)
    (step,) = found.steps
    assert found.where == "a copy without rows"
    assert [each.name for each in step.schema] == ["orders_by_total"]
    assert step.way_back is not None
    assert step.way_back.is_complete


def test_a_failure_in_a_rehearsal_is_told_and_leaves_nothing(url: str, folder: Path) -> None:
    runner.migrate(url, folder)
    before = everything(url)
    (folder / "002_wrong.sql").write_text("-- migrate:up\nINSERT INTO orders VALUES (7, 7);\nDROP TABLE missing;\n")
    found = rehearsal.migrate(url, folder)
    assert isinstance(found.failure, RunFailed)
    assert "rehearsal" in found.failure.state
    assert everything(url) == before


def test_a_rollback_is_rehearsed(url: str, folder: Path) -> None:
    runner.migrate(url, folder)
    found = rehearsal.roll_back(url, folder, with_data=url.startswith("mysql"))
    (step,) = found.steps
    assert step.rows == (TableChange("people", deleted=3),)
    assert {each.name for each in step.schema} == {"people", "orders"}
    rollback.rollback(url, folder)


def test_a_rehearsal_waits_no_longer_for_a_lock_than_a_run(postgresql: str, folder: Path) -> None:
    runner.migrate(postgresql, folder)
    (folder / "002_drop_town.sql").write_text(SECOND)
    with servers.connect(postgresql) as other, other.transaction():
        other.execute("LOCK TABLE people")
        with pytest.raises(LockHeld):
            rehearsal.migrate(f"{postgresql}&lock_timeout=0.2s", folder)


def test_what_names_another_database_is_not_tried_on_a_copy(mysql: str, folder: Path) -> None:
    runner.migrate(mysql, folder)
    name = servers.rows(mysql, "SELECT DATABASE()")[0][0]
    (folder / "002_empty_people.sql").write_text(f"-- migrate:up\nDELETE FROM `{name}`.people;\n")
    found = rehearsal.migrate(mysql, folder)
    assert isinstance(found.failure, RehearsalRefused)
    assert servers.rows(mysql, "SELECT count(*) FROM people") == [(3,)]


def test_a_trigger_that_names_a_database_is_not_copied(mysql: str, folder: Path) -> None:
    runner.migrate(mysql, folder)
    name = servers.rows(mysql, "SELECT DATABASE()")[0][0]
    trigger = f"CREATE TRIGGER note AFTER DELETE ON people FOR EACH ROW INSERT INTO {name}.orders VALUES (9, 9)"
    servers.run(mysql, trigger)
    (folder / "002_empty_people.sql").write_text("-- migrate:up\nDELETE FROM people;\n")
    with pytest.raises(ScratchRefused) as refused:
        rehearsal.migrate(mysql, folder, with_data=True)
    assert f"its trigger note names a database ({name}.orders)" in refused.value.message
    assert servers.rows(mysql, "SELECT * FROM orders") == []


def test_a_table_whose_name_is_a_word_of_the_language_is_rehearsed(postgresql: str, tmp_path: Path) -> None:
    (tmp_path / "001_create_order.sql").write_text(
        '-- migrate:up\nCREATE TABLE "order" (id int PRIMARY KEY);\n'
        'CREATE TABLE "The ""last""" (of int REFERENCES "order");\n'
        'INSERT INTO "order" VALUES (1);\nINSERT INTO "The ""last""" VALUES (1);\n'
        '-- migrate:down\nDROP TABLE "The ""last""", "order";\n'
    )
    (step,) = rehearsal.migrate(postgresql, tmp_path).steps
    assert step.rows == (TableChange('"The ""last"""', inserted=1), TableChange("order", inserted=1))
    runner.migrate(postgresql, tmp_path)
    (back,) = rehearsal.roll_back(postgresql, tmp_path).steps
    assert back.rows == (TableChange('"The ""last"""', deleted=1), TableChange("order", deleted=1))
