"""MySQL and MariaDB behind the seam: what the server does, and how it is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest

from financial_agent.migrator import runner, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Borrowing,
    Busy,
    ConnectionLost,
    Database,
    Forbidden,
    OrphansLeft,
    Patience,
    StatementError,
    Stopped,
    connect,
)
from financial_agent.migrator.databases.mysql.schema import in_order
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import DatabaseUnusable, DriverMissing, RunLocked, UrlInvalid
from tests import servers

SECRET = "hunter2-é;'\"@/#%?&=: \\"
LENT = Borrowing(("_migrations", "_migration_history"), frozenset())


@contextmanager
def opened(url: str, **options: Any) -> Iterator[Database]:
    with closing(connect(url, **options)) as db:
        yield db


@pytest.fixture
def db(mysql: str) -> Iterator[Database]:
    with opened(f"{mysql}&lock_timeout=1") as database:
        yield database


def failure(db: Database, sql: str) -> StatementError:
    with pytest.raises(StatementError) as caught:
        db.execute(sql)
    return caught.value


# The session.


def test_a_session_is_the_same_whatever_the_servers_defaults_are(db: Database) -> None:
    wanted = "@@sql_mode, @@time_zone, @@autocommit, @@character_set_client, @@lock_wait_timeout, @@foreign_key_checks"
    mode = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
    assert db.query(f"SELECT {wanted}") == [(mode, "+00:00", 1, "utf8mb4", 1, 1)]


def test_text_survives_a_database_whose_default_is_latin1(mysql: str) -> None:
    name = mysql.partition("?")[0].rpartition("/")[2]
    servers.run(mysql, f"ALTER DATABASE {name} CHARACTER SET latin1")
    with opened(mysql) as db:
        db.execute("CREATE TABLE t (a VARCHAR(9) CHARACTER SET utf8mb4)")
        db.execute("INSERT INTO t VALUES ('é😀')")
        assert db.query("SELECT a, hex(a) FROM t") == [("é😀", "C3A9F09F9880")]


def test_a_connection_that_asks_cannot_write(mysql: str) -> None:
    with opened(mysql, readonly=True) as db, pytest.raises(StatementError, match="READ ONLY transaction"):
        db.execute("CREATE TABLE t (a INT)")


def test_nothing_that_a_script_leaves_outlives_a_reset(db: Database) -> None:
    db.execute("CREATE TEMPORARY TABLE t (a INT)")
    db.execute("SET @n = 1, SESSION sql_mode = ''")
    db.reset(settings=False)
    assert db.query("SELECT @n, @@sql_mode = ''") == [(None, 0)]
    assert "doesn't exist" in str(failure(db, "SELECT * FROM t"))


def test_a_session_is_kept_where_a_script_left_nothing(db: Database) -> None:
    before = db.query("SELECT connection_id()")
    db.execute("CREATE TABLE t (a INT)")
    db.execute("INSERT INTO t VALUES (1)")
    db.reset(settings=False)
    assert db.query("SELECT connection_id()") == before


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("mysql://root@127.0.0.1:1/app", DatabaseUnusable, "Connection refused"),
        ("mysql://root@localhost/app?unix_socket=/nowhere/socket", DatabaseUnusable, "No such file"),
        ("mysql://root@localhost/app?colour=red", UrlInvalid, "colour"),
        ("mysql://root@localhost/app?ssl_disabled=perhaps", UrlInvalid, "ssl_disabled"),
        ("mysql://root@localhost/app?charset=latin1", UrlInvalid, "charset"),
    ],
)
def test_a_url_that_leads_nowhere_says_why(url: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        connect(url)


def test_a_database_that_is_missing_is_for_a_person_to_make(mysql: str) -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        connect(mysql.replace("/t_", "/missing_t_"))
    assert "CREATE DATABASE `missing_t_" in caught.value.hint


def test_a_missing_driver_says_what_to_install(mysql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(DriverMissing) as caught:
        connect(mysql)
    assert caught.value.code == "FA119"
    assert caught.value.hint == "pip install 'financial_agent[mysql]'"


def test_a_password_of_any_characters_works_and_is_never_told(
    mysql: str, mysql_server: servers.Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = mysql.partition("?")[0].rpartition("/")[2]
    user = f"u{name[-8:]}"
    literal = SECRET.replace("\\", "\\\\").replace("'", "\\'")
    servers.run(mysql, f"CREATE USER {user}@'%' IDENTIFIED BY '{literal}'", f"GRANT ALL ON {name}.* TO {user}@'%'")
    try:
        url = mysql.replace("root@", f"{user}:{quote(SECRET, safe='')}@")
        (tmp_path / "001_a.sql").write_text("CREATE TABLE a (id INT);\nSELEC 1;")
        with pytest.raises(Exception, match="SQL syntax") as caught:
            runner.migrate(url, tmp_path)
        with pytest.raises(DatabaseUnusable) as denied:
            connect(mysql.replace("root@", f"{user}:{quote(SECRET + 'x', safe='')}@"))
        told = repr(caught.value) + str(vars(caught.value)) + str(denied.value) + str(vars(denied.value))
        told += "".join(capfd.readouterr())
        told += str(servers.rows(mysql, "SELECT * FROM _migration_history"))
        told += str(servers.rows(mysql, "SELECT * FROM information_schema.processlist"))
        for part in (SECRET, quote(SECRET, safe=""), "hunter2"):
            assert part not in told
    finally:
        servers.run(mysql, f"DROP USER {user}@'%'")


# What goes wrong.


@pytest.mark.parametrize(
    ("sql", "told", "place"),
    [
        ("SELECT 1 FORM t", "You have an error in your SQL syntax near 't'", "t"),
        ("SELECT *\nFROM t\nWHERE a = = 1", "You have an error in your SQL syntax near '= 1'", "= 1"),
        ("CREATE TABLE u (id INT", "You have an error in your SQL syntax near ''", "T"),
        ("SELECT missing FROM t", "Unknown column 'missing' in '…", "missing"),
        ("SELECT * FROM missing", "Table '…missing' doesn't exist", "missing"),
        ("ALTER TABLE t DROP COLUMN missing", "Can't DROP COLUMN `missing`; check that it exists", "missing"),
        ("INSERT INTO t (b) VALUES ('x')", "Field 'id' doesn't have a default value", None),
    ],
)
def test_an_error_tells_the_place_in_the_statement(sql: str, told: str, place: str | None, db: Database) -> None:
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(9))")
    error = failure(db, sql)
    before, _, after = told.partition("…")
    assert str(error).startswith(before)
    assert after in str(error)
    assert error.offset == (None if place is None else sql.rindex(place))


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("INSERT INTO t SELECT id + 10, name FROM s", "Duplicate entry for key 'name'"),
        ("INSERT INTO n SELECT name FROM s", "Incorrect integer value: …"),
        ("INSERT INTO d SELECT name FROM s", "Incorrect date value: …"),
        ("SELECT cast(name AS INT) + 1, name FROM s WHERE name = 1 INTO OUTFILE '/nonexistent/x'", ""),
        ("UPDATE s SET name = concat(name, repeat('x', 99))", "Data too long for column 'name' at row 1"),
        ("INSERT INTO p SELECT 7700077 FROM s", "Table has no partition for value …"),
        ("INSERT INTO c SELECT id FROM s", "Cannot add or update a child row: a foreign key constraint fails"),
    ],
)
def test_an_error_never_tells_what_a_row_holds(sql: str, told: str, db: Database) -> None:
    secret = "it's \"secret\" for key 'k'"
    db.execute("CREATE TABLE s (id INT PRIMARY KEY, name VARCHAR(30))")
    db.execute("INSERT INTO s VALUES (7700077, ?)", (secret,))
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(30) UNIQUE)")
    db.execute("INSERT INTO t SELECT * FROM s")
    db.execute("CREATE TABLE n (a INT)")
    db.execute("CREATE TABLE d (a DATE)")
    db.execute("CREATE TABLE p (a INT) PARTITION BY LIST (a) (PARTITION p1 VALUES IN (1))")
    db.execute("CREATE TABLE q (id INT PRIMARY KEY)")
    db.execute("CREATE TABLE c (a INT, FOREIGN KEY (a) REFERENCES q (id))")
    error = failure(db, sql)
    assert str(error).startswith(told)
    assert "secret" not in str(error)
    assert "7700077" not in str(error)
    assert error.__cause__ is None


def test_a_refused_row_is_a_constraints_and_a_signal_tells_its_authors_words(db: Database) -> None:
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, CHECK (id > 0))")
    db.execute(
        "CREATE TRIGGER g BEFORE DELETE ON t FOR EACH ROW"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'rows ''stay'' here'"
    )
    db.execute("INSERT INTO t VALUES (1)")
    assert failure(db, "INSERT INTO t VALUES (0)").constraint
    error = failure(db, "DELETE FROM t")
    assert error.constraint
    assert str(error) == "rows 'stay' here"


def test_a_lock_of_anothers_is_waited_for_and_then_told(db: Database, mysql: str) -> None:
    db.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    db.execute("INSERT INTO t VALUES (1)")
    with closing(servers.connect(mysql)) as other, closing(other.cursor()) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE t SET id = 2")
        for sql in ("ALTER TABLE t ADD a INT", "UPDATE t SET id = 3"):
            with pytest.raises(Busy, match="Lock wait timeout"):
                db.execute(sql)
        cursor.execute("ROLLBACK")


def test_another_run_is_named_by_its_session(mysql: str) -> None:
    with (
        session.exclusive(mysql, Control(wait=5), Environment()),
        opened(mysql, patience=Patience(0.2)) as db,
        pytest.raises(RunLocked, match=r"session \d+ of the server \(root from"),
        db.lock(),
    ):
        pytest.fail("two runs at once")


def test_ctrl_c_ends_what_the_server_is_busy_with(mysql: str) -> None:
    asked = iter([False, False, False, True])
    with opened(mysql, patience=Patience(1, lambda _: next(asked, True))) as db:
        identity = db.query("SELECT connection_id()")
        with pytest.raises(Stopped):
            db.execute("SELECT sleep(3600)")
        busy = "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT sleep(3600)%' AND db = database()"
        assert servers.rows(mysql, busy) == []
        assert identity


def test_a_connection_that_was_ended_says_so_each_time(db: Database, mysql: str) -> None:
    ((identity,),) = db.query("SELECT connection_id()")
    servers.run(mysql, f"KILL {identity}")
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            db.query("SELECT 1")
    assert not db.in_transaction


# Transactions.


def test_a_definition_that_ends_the_transaction_is_noticed(db: Database) -> None:
    with db.transaction():
        assert db.in_transaction
        db.execute("CREATE TABLE t (a INT)")
        assert not db.in_transaction


def test_a_deadlock_ends_the_transaction_and_is_noticed(db: Database, mysql: str) -> None:
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    db.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
    with opened(f"{mysql}&lock_timeout=50") as other:
        db.query("START TRANSACTION")
        other.query("START TRANSACTION")
        # Whoever changed fewer rows is the victim.
        other.execute("INSERT INTO t VALUES (3, 0), (4, 0), (5, 0)")
        db.execute("UPDATE t SET n = 1 WHERE id = 1")
        other.execute("UPDATE t SET n = 1 WHERE id = 2")
        waiting = Thread(target=other.execute, args=("UPDATE t SET n = 2 WHERE id = 1",))
        waiting.start()
        with pytest.raises(Busy):
            while True:
                db.execute("UPDATE t SET n = 2 WHERE id = 2")
        db.query("ROLLBACK")
        waiting.join()
        other.query("ROLLBACK")
    assert not db.in_transaction


def test_all_results_of_a_procedure_are_read_also_its_late_errors(db: Database) -> None:
    db.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    db.execute("CREATE PROCEDURE p() BEGIN SELECT 1; INSERT INTO t VALUES (1), (2); SELECT 2; END")
    db.execute("CREATE PROCEDURE q() BEGIN SELECT 1; INSERT INTO t VALUES (1); END")
    db.execute("CALL p()")
    assert failure(db, "CALL q()").constraint
    assert db.answer("SELECT id FROM t") == (("id",), 2, (1,))


def test_rows_that_lose_their_parent_keep_a_transaction_from_its_commit(db: Database) -> None:
    db.execute("CREATE TABLE p (id INT PRIMARY KEY)")
    db.execute("CREATE TABLE c (p INT, FOREIGN KEY (p) REFERENCES p (id))")
    db.execute("INSERT INTO p VALUES (1), (2)")
    db.execute("INSERT INTO c VALUES (1), (2)")
    with db.transaction(foreign_keys=False):
        db.execute("DELETE FROM p WHERE id = 1")
        db.execute("INSERT INTO p VALUES (1)")
    with pytest.raises(OrphansLeft), db.transaction(foreign_keys=False):
        db.execute("DELETE FROM p WHERE id = 1")
    assert db.query("SELECT count(*) FROM p") == [(2,)]
    assert failure(db, "DELETE FROM p").constraint


def test_rows_of_an_engine_that_undoes_nothing_are_left_alone(db: Database) -> None:
    db.execute("CREATE TABLE t (id INT) ENGINE=MyISAM")
    db.execute("CREATE TABLE u (id INT)")
    with db.transaction():
        db.execute("INSERT INTO u SELECT * FROM t")
        assert "ALTER TABLE `t` ENGINE=InnoDB" in str(failure(db, "INSERT INTO t VALUES (1)"))
        with pytest.raises(StatementError, match="MyISAM"):
            db.change("DELETE FROM t")
    db.execute("ALTER TABLE t ENGINE=InnoDB")
    with db.transaction():
        assert db.change("INSERT INTO t VALUES (1)") == 1


def test_questions_in_a_snapshot_see_one_moment(db: Database, mysql: str) -> None:
    db.execute("CREATE TABLE t (id INT)")
    with db.snapshot():
        servers.run(mysql, "INSERT INTO t VALUES (1)")
        assert db.query("SELECT * FROM t") == []
    assert db.query("SELECT * FROM t") == [(1,)]


# The schema.

SCHEMA = (
    "CREATE TABLE z (id INT PRIMARY KEY AUTO_INCREMENT, at DATETIME DEFAULT CURRENT_TIMESTAMP) COMMENT 'last of all'",
    "CREATE TABLE a (z INT, n INT AS (z + 1), KEY by_n (n), CHECK (z > 0), FOREIGN KEY (z) REFERENCES z (id))",
    "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE VIEW w AS SELECT z, f() AS one FROM a",
    "CREATE VIEW b AS SELECT one FROM w",
    "CREATE PROCEDURE p() SELECT 1",
    "CREATE TRIGGER g BEFORE INSERT ON a FOR EACH ROW SET NEW.z = NEW.z",
    "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
)


def test_the_definitions_make_the_same_schema_anew(db: Database, mysql_server: servers.Server) -> None:
    for statement in SCHEMA:
        db.execute(statement)
    kinds = [(each.type, each.name) for each in db.objects()]
    named = [("event", "e"), ("function", "f"), ("procedure", "p"), ("table", "a"), ("table", "z"), ("trigger", "g")]
    assert kinds == [*named, ("view", "b"), ("view", "w")]
    with mysql_server.fresh() as url, opened(url) as other:
        for each in in_order(db.objects()):
            other.execute(each.sql)
        assert other.objects() == db.objects()
        assert other.fingerprint() == db.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE a ADD m INT",
        "ALTER TABLE a DROP INDEX by_n",
        "ALTER TABLE z COMMENT 'first'",
        "ALTER TABLE a DROP FOREIGN KEY a_ibfk_1",
        "ALTER TABLE a DROP CONSTRAINT CONSTRAINT_1",
        "CREATE OR REPLACE VIEW b AS SELECT 2 AS one",
        "CREATE OR REPLACE PROCEDURE p() SELECT 2",
        "CREATE OR REPLACE PROCEDURE p(n INT) SELECT 1",
        "ALTER EVENT e DISABLE",
        "DROP TRIGGER g",
    ],
)
def test_every_change_of_the_schema_shows_in_its_fingerprint(change: str, db: Database) -> None:
    for statement in SCHEMA:
        db.execute(statement)
    before = db.fingerprint()
    db.execute(change)
    assert db.fingerprint() != before


def test_rows_and_the_next_key_are_no_part_of_the_schema(db: Database) -> None:
    for statement in SCHEMA:
        db.execute(statement)
    before, objects = db.fingerprint(), db.objects()
    db.execute("INSERT INTO z (id) VALUES (1), (2), (3)")
    db.execute("ANALYZE TABLE z")
    assert (db.fingerprint(), db.objects()) == (before, objects)
    assert db.tables() == {"a": ["z", "n"], "z": ["id", "at"]}
    assert db.counts("z", ["at"]) == [3, 3]
    assert db.problems() == []


def test_the_ledger_may_be_in_another_database(mysql: str, mysql_server: servers.Server, tmp_path: Path) -> None:
    (tmp_path / "001_a.sql").write_text("CREATE TABLE a (id INT);")
    with mysql_server.fresh() as ledger:
        name = ledger.partition("?")[0].rpartition("/")[2]
        runner.migrate(f"{mysql}&ledger_schema={name}", tmp_path)
        assert servers.rows(ledger, "SELECT filename FROM _migrations") == [("001_a.sql",)]
        assert servers.rows(mysql, "SHOW TABLES") == [("a",)]
        (item,) = runner.status(f"{mysql}&ledger_schema={name}", tmp_path).items
        assert item.state == "applied"


# Python migrations.


def lent(db: Database, use: Any) -> int:
    with db.transaction():
        return db.lend(use, LENT)


def test_a_lent_connection_is_pymysqls(db: Database) -> None:
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, at DATETIME)")

    def use(connection: Any) -> None:
        from pymysql.cursors import DictCursor

        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(1, "2026-01-01"), (2, None)])
            cursor.execute("SELECT at FROM t WHERE id = %s", (1,))
            assert cursor.fetchone()[0].year == 2026
        with connection.cursor(DictCursor) as cursor:
            cursor.execute("SELECT id FROM t ORDER BY id")
            assert cursor.fetchall() == [{"id": 1}, {"id": 2}]

    assert lent(db, use) == 2
    assert db.query("SELECT at FROM t WHERE id = 1") == [("2026-01-01 00:00:00",)]


@pytest.mark.parametrize(
    "use",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.begin(),
        lambda connection: connection.close(),
        lambda connection: connection.autocommit(True),
        lambda connection: connection.select_db("mysql"),
        lambda connection: connection.ping(),
        lambda connection: connection.__enter__(),
        lambda connection: connection.cursor().execute("COMMIT"),
        lambda connection: connection.cursor().execute("/* so */ START  TRANSACTION"),
        lambda connection: connection.cursor().execute("SET autocommit = 0"),
        lambda connection: connection.cursor().execute("/*!50003 CREATE TABLE u (id INT) */"),
        lambda connection: connection.cursor().execute("TRUNCATE t"),
        lambda connection: connection.cursor().execute("USE mysql"),
        lambda connection: connection.query("DELETE FROM `_migrations`"),
    ],
)
def test_a_lent_connection_can_neither_end_the_transaction_nor_reach_the_ledger(use: Any, db: Database) -> None:
    db.execute("CREATE TABLE t (id INT)")

    def swallowing(connection: Any) -> None:
        connection.cursor().execute("INSERT INTO t VALUES (1)")
        try:
            use(connection)
        except Exception:
            return

    with pytest.raises(Forbidden):
        lent(db, swallowing)
    assert db.query("SELECT * FROM t") == []
