"""A restore of a database on a server: the backup as it was, what it replaced kept, and others connected meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from financial_agent.migrator import backup_files, restore
from financial_agent.migrator.backup_files import Backup
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import StatementError
from financial_agent.migrator.databases.mysql import replace as mysql_replace
from financial_agent.migrator.databases.postgresql import replace
from financial_agent.migrator.errors import (
    BackupFailed,
    BackupUnusable,
    DatabaseLocked,
    DatabaseUnusable,
    RestoreRefused,
)
from financial_agent.migrator.errors_server import RestoreUncertain, RestoreUnfinished, ToolFailed
from tests import servers
from tests.helpers import until
from tests.server_place import CONTROL, Place

pytestmark = pytest.mark.slow


@pytest.fixture(params=["postgresql", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def made(place: Place) -> Backup:
    """A backup at 001; the database went on to 002, and has other rows, since."""
    made = place.backup()
    place.migrate()
    place.do("DELETE FROM one WHERE n > 20", "INSERT INTO two VALUES (1)")
    return made


# Restoring.


def test_a_restore_brings_back_what_the_backup_holds(place: Place) -> None:
    before = place.state()
    made = place.backup()
    place.migrate()
    place.do("DELETE FROM one WHERE n > 20", "UPDATE one SET t = 'other'", "INSERT INTO two VALUES (1)")
    restored = place.put_back(made)
    assert place.state()[:3] == before[:3]
    assert (restored.newest, restored.continues_history) == ("001_one.sql", True)
    assert place.events() == [("apply", "001_one"), ("apply", "002_two"), ("restore", "001_one")]


def test_the_comparison_tells_each_tables_rows_now_and_in_the_backup(place: Place, made: Backup) -> None:
    before = place.state()
    with place.prepared(made.name) as found:
        assert found.rows == {"one": (20, 500), "two": (1, None)}
        assert (found.changes["one"].inserted, found.changes["two"].deleted) == (480, 1)
        assert (found.contents.newest, found.current and found.current.newest) == ("001_one.sql", "002_two.sql")
    assert place.state() == before


def test_a_restore_can_be_undone_by_restoring_what_it_replaced(place: Place, made: Backup) -> None:
    before = place.state()
    restored = place.put_back(made)
    (kept,) = place.kept()
    assert (kept.path, kept.version, kept.checked) == (restored.kept, "002", True)
    place.put_back(kept)
    assert place.state()[:3] == before[:3]


def test_runs_go_on_after_a_restore(place: Place, made: Backup) -> None:
    place.put_back(made)
    place.migrate()
    assert place.events()[-2:] == [("restore", "001_one"), ("apply", "002_two")]


def test_a_restore_leaves_no_other_database_behind(place: Place, made: Backup) -> None:
    with place.prepared(made.name) as found:
        draft = urlsplit(found.draft).path.removeprefix("/")
        assert draft in place.databases()
        restore.restore(place.url, place.policy, found, CONTROL)
    assert draft not in place.databases()
    assert place.replaced() == []


def test_a_backup_that_lost_its_end_is_refused(place: Place, made: Backup) -> None:
    backup_files.sum_of(made.path).unlink()
    made.path.write_bytes(made.path.read_bytes()[:-200])
    before = place.state()
    with pytest.raises(BackupUnusable):
        place.put_back(made)
    assert place.state() == before


def test_a_file_of_something_else_is_no_backup(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("SELECT 1;\n")
    with pytest.raises(BackupUnusable), place.prepared(str(tmp_path / "other")):
        pass


@pytest.mark.parametrize("reading", [True, False], ids=["a reader", "a writer"])
def test_a_restore_is_refused_while_others_hold_a_table(place: Place, made: Backup, reading: bool) -> None:
    before = place.state()
    with (
        place.prepared(made.name) as found,
        closing(servers.connect(place.plain)) as other,
        closing(other.cursor()) as cursor,
    ):
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM one" if reading else "DELETE FROM one WHERE n = 1")
        with pytest.raises(DatabaseLocked):
            restore.restore(place.url, place.policy, found, CONTROL)
        cursor.execute("ROLLBACK")
    assert place.state() == before
    assert place.kept() == []


def test_a_connection_that_was_open_before_sees_what_was_restored(place: Place, made: Backup) -> None:
    with closing(servers.connect(place.plain)) as other, closing(other.cursor()) as cursor:
        cursor.execute("SELECT count(*) FROM one")
        assert [tuple(row) for row in cursor.fetchall()] == [(20,)]
        place.put_back(made)
        cursor.execute("SELECT count(*) FROM one")
        assert [tuple(row) for row in cursor.fetchall()] == [(500,)]


def test_what_others_write_meanwhile_is_in_what_is_kept_or_in_what_is_restored(place: Place, made: Backup) -> None:
    """Nobody writes in between."""
    written: list[int] = []
    done = threading.Event()

    def write() -> None:
        with (
            closing(servers.connect(place.plain)) as other,
            closing(other.cursor()) as cursor,
        ):
            for number in range(1000, 1_000_000):
                if done.is_set():
                    return
                cursor.execute(f"INSERT INTO one VALUES ({number}, 'late')")
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len(written) > 10)
        place.put_back(made, Control(wait=30))
        count = len(written)
        until(lambda: len(written) > count + 10)
    finally:
        done.set()
        writer.join()
    restored = {n for (n,) in place.rows("SELECT n FROM one WHERE n >= 1000")}
    place.put_back(place.kept()[0])
    kept = {n for (n,) in place.rows("SELECT n FROM one WHERE n >= 1000")}
    assert kept
    assert kept.isdisjoint(restored)
    assert sorted(kept | restored) == written


# What is restored, beside rows.

OBJECTS = {
    "postgresql": (
        "CREATE EXTENSION IF NOT EXISTS pgcrypto",
        "CREATE SCHEMA sales",
        "CREATE TYPE sales.mood AS ENUM ('good', 'bad')",
        "CREATE TYPE span AS RANGE (subtype = float8)",
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
        "CREATE TABLE sales.orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price positive, s span)",
        "CREATE TABLE parts (id integer REFERENCES sales.orders (id), k text) PARTITION BY LIST (k)",
        "CREATE TABLE part_a PARTITION OF parts FOR VALUES IN ('a')",
        "CREATE MATERIALIZED VIEW cheap AS SELECT id FROM sales.orders WHERE price < 3",
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        "CREATE TRIGGER stamp BEFORE INSERT ON sales.orders FOR EACH ROW EXECUTE FUNCTION stamp()",
        "CREATE AGGREGATE total (integer) (sfunc = int4pl, stype = integer)",
        "CREATE OPERATOR === (leftarg = integer, rightarg = integer, function = int4eq)",
        "CREATE STATISTICS counts ON id, price FROM sales.orders",
        "CREATE COLLATION plain (locale = 'C')",
        "CREATE PUBLICATION changes_{name} FOR TABLE sales.orders",
        "CREATE FOREIGN DATA WRAPPER nothing_{name}",
        "INSERT INTO sales.orders (price) SELECT n FROM generate_series(1, 5) AS n",
        "SELECT lo_from_bytea(0, 'large'::bytea)",
        "GRANT SELECT ON sales.orders TO pg_read_all_data",
    ),
    "mysql": (
        "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, price INT, CHECK (price > 0))",
        "CREATE TABLE items (id INT PRIMARY KEY, o INT, FOREIGN KEY (o) REFERENCES orders (id) ON DELETE CASCADE)",
        "CREATE VIEW cheap AS SELECT id FROM orders WHERE price < 3",
        "CREATE VIEW a_cheaper AS SELECT id FROM cheap",
        "CREATE TRIGGER stamp BEFORE INSERT ON items FOR EACH ROW BEGIN SET NEW.o = NEW.o; /* ; */ END",
        "CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
        "CREATE PROCEDURE clear() BEGIN DELETE FROM items; END",
        "CREATE EVENT later ON SCHEDULE EVERY 1 YEAR DO DELETE FROM items",
        "CREATE SEQUENCE numbers START WITH 5",
        "INSERT INTO orders (price) VALUES (1), (2), (3)",
        "INSERT INTO items VALUES (1, 1), (2, 2)",
    ),
}
OTHERS = {
    "postgresql": (
        "DROP PUBLICATION changes_{name}",
        "DROP FOREIGN DATA WRAPPER nothing_{name}",
        "DROP SCHEMA sales CASCADE",
        "CREATE SCHEMA other",
        "CREATE TABLE other.t (id integer)",
        "CREATE VIEW public.seen AS SELECT * FROM other.t",
        "CREATE FUNCTION stamp(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$",
        "CREATE EVENT TRIGGER forbid ON sql_drop EXECUTE FUNCTION forbid()",
    ),
    "mysql": (
        "DROP TRIGGER stamp",
        "DROP VIEW a_cheaper",
        "DROP PROCEDURE clear",
        "DROP EVENT later",
        "CREATE VIEW other AS SELECT * FROM one",
        "CREATE TRIGGER other AFTER INSERT ON one FOR EACH ROW SET @x = 1",
        "CREATE FUNCTION other() RETURNS INT DETERMINISTIC RETURN 1",
        "DROP TABLE items",
    ),
}


def do_all(place: Place, statements: Sequence[str]) -> None:
    place.do(*(statement.replace("{name}", place.name) for statement in statements))


def test_all_that_belongs_to_a_database_comes_back_and_nothing_else_stays(place: Place) -> None:
    do_all(place, OBJECTS[place.dialect])
    before = place.state()
    made = place.backup()
    do_all(place, OTHERS[place.dialect])
    place.put_back(made)
    assert place.state()[:3] == before[:3]
    if place.dialect == "postgresql":
        assert place.rows("SELECT has_table_privilege('pg_read_all_data', 'sales.orders', 'SELECT')") == [(True,)]
        assert place.rows("SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata") == [("large",)]
        assert place.rows("SELECT tablename FROM pg_publication_tables") == [("orders",)]
        assert place.rows("SELECT count(*) FROM pg_event_trigger") == [(0,)]
    else:
        assert place.rows("SELECT twice(2), nextval(numbers)") == [(4, 5)]
        assert place.rows("SELECT count(*) FROM a_cheaper") == [(2,)]
        place.do("CALL clear()")
        assert place.rows("SELECT count(*) FROM items") == [(0,)]


def test_what_is_kept_has_all_that_was_replaced(place: Place) -> None:
    made = place.backup()
    do_all(place, OBJECTS[place.dialect])
    before = place.state()
    place.put_back(made)
    place.put_back(place.kept()[0])
    assert place.state()[:3] == before[:3]


def test_a_restore_that_fails_leaves_all_as_it_was(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(postgresql, tmp_path)
    do_all(place, OBJECTS["postgresql"])
    made = place.backup()
    before = place.state()

    def fail(psql: Any, source: object) -> None:
        psql.run("CREATE TABLE half (id integer); SELECT 1 / 0")

    monkeypatch.setattr(replace._Psql, "read", fail)
    with pytest.raises(DatabaseUnusable, match="division by zero"):
        place.put_back(made)
    assert place.state() == before
    assert place.kept() == []


def test_a_commit_whose_answer_is_lost_is_told_and_what_was_replaced_stays_kept(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(postgresql, tmp_path)
    made = place.backup()
    run_as_it_is = replace._Psql.run

    def cut(psql: Any, sql: str) -> None:
        run_as_it_is(psql, sql)
        if sql == "COMMIT":
            raise ToolFailed(program="psql", cause="server closed the connection unexpectedly", fix="")

    monkeypatch.setattr(replace._Psql, "run", cut)
    with pytest.raises(RestoreUncertain) as caught:
        place.put_back(made)
    name = place.url.partition("?")[0]
    assert caught.value.message == (
        f"whether {name} was restored is not known: psql failed: server closed the connection unexpectedly"
    )
    assert (caught.value.code, caught.value.exit_code) == ("FA438", 3)
    assert caught.value.hint == "It is as a whole as before, or restored: flask db history"
    assert len(place.kept()) == 1
    assert place.events()[-1] == ("restore", "001_one")


def test_a_restore_that_is_cut_off_behind_its_tables_is_finished_by_another_one(
    mysql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(mysql, tmp_path)
    do_all(place, OBJECTS["mysql"])
    before = place.state()
    made = place.backup()
    do_all(place, OTHERS["mysql"])

    def fail(_db: Any, _programs: object) -> None:
        raise StatementError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(mysql_replace.Sole, "_load", fail)
        with pytest.raises(RestoreUnfinished, match="cut off"):
            place.put_back(made)
    with pytest.raises(RestoreUnfinished) as caught:
        place.migrate()
    assert caught.value.message == (
        f"{place.url.partition('?')[0]} was being restored from {made.path}, and that was cut off: "
        "its tables may be exchanged, and its triggers, views, routines and events may be missing"
    )
    assert (caught.value.code, caught.value.exit_code) == ("FA437", 4)
    assert caught.value.hint == (
        f"Finish it: flask db restore {made.path}\n"
        "What was there before is among the backups, or else still on the server: SHOW DATABASES LIKE '%replaced%';"
    )
    place.put_back(made)
    assert place.state()[:3] == before[:3]
    place.migrate()


def test_a_restore_that_cannot_begin_gives_the_triggers_back(mysql: str, tmp_path: Path) -> None:
    place = Place(mysql, tmp_path)
    do_all(place, OBJECTS["mysql"])
    made = place.backup()
    before = place.state()
    with closing(servers.connect(place.plain)) as other, closing(other.cursor()) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM orders")  # no trigger's table, so the triggers are dropped by then
        with pytest.raises(DatabaseLocked):
            place.put_back(made)
        cursor.execute("ROLLBACK")
    assert place.state() == before
    place.migrate()


def test_a_dump_of_several_databases_changes_none(mysql: str, tmp_path: Path) -> None:
    """What mariadb-dump --databases writes says USE."""
    place = Place(mysql, tmp_path)
    before = place.state()
    text = f"USE `{place.name}`;\nDROP TABLE one;\n-- Dump completed\n"
    (tmp_path / "all.sql").write_text(text)
    with pytest.raises(BackupUnusable, match="holds no table"), place.prepared(str(tmp_path / "all.sql")):
        pass
    assert place.state() == before


def test_a_ledger_in_another_database_cannot_be_restored(mysql: str, tmp_path: Path) -> None:
    place = Place(mysql, tmp_path)
    made = place.backup()
    place.url = f"{place.url}&ledger_schema=mysql"
    with pytest.raises(RestoreRefused, match="another database"), place.prepared(made.name):
        pass


def test_a_ledger_in_another_database_is_not_backed_up_as_if_it_could_be_restored(mysql: str, tmp_path: Path) -> None:
    place = Place(mysql, tmp_path)
    place.url = f"{place.url}&ledger_schema=mysql"
    with pytest.raises(BackupFailed, match="another database") as caught:
        place.backup()
    assert "mariadb-dump --databases" in caught.value.hint


def test_a_role_that_is_missing_is_named(postgresql: str, tmp_path: Path) -> None:
    place = Place(postgresql, tmp_path)
    role = f"r_{place.name}"
    place.do(f"CREATE ROLE {role}", f"ALTER TABLE one OWNER TO {role}")
    made = place.backup()
    place.do("ALTER TABLE one OWNER TO CURRENT_USER", f"DROP ROLE {role}")
    with pytest.raises(BackupUnusable) as caught, place.prepared(made.name):
        pass
    assert caught.value.hint == f'Its objects are that role\'s. As an administrator: CREATE ROLE "{role}"'
