"""On MySQL and MariaDB a definition commits by itself: each statement is journalled, and what was cut off goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import history, repair, rollback, runner
from financial_agent.migrator.control import Control
from financial_agent.migrator.errors import MigratorError, RepairRefused
from financial_agent.migrator.errors_run import (
    BatchesUnfinished,
    BatchFailed,
    MigrationFailed,
    SessionLost,
    StatementUncertain,
)
from tests import daemons, servers, throwaway
from tests.helpers import PLAIN, Process, finish, run, started, until

QUICK = Control(wait=10, pauses=False)
MIXED = """\
-- migrate:up
CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL);
INSERT INTO item VALUES (1, 1), (2, 2);
ALTER TABLE item ADD COLUMN m INT;
UPDATE item SET m = n * 10;
CREATE INDEX by_m ON item (m);
CREATE VIEW items AS SELECT id, m FROM item;
-- migrate:down
DROP VIEW items;
DELETE FROM item WHERE id = 2;
ALTER TABLE item DROP COLUMN m;
DROP TABLE item;
"""


class Place:
    """A database, and the folder of its one migration."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self.root = root
        self.directory = root / "migrations"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.file = self.directory / "001_change.sql"

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")

    def migrate(self) -> int:
        """How many statements were run, the skipped ones included."""
        return sum(done.statements for done in runner.migrate(self.url, self.directory, control=QUICK).done)

    def fails(self) -> MigratorError:
        with pytest.raises(MigratorError) as caught:
            self.migrate()
        return caught.value

    def state(self) -> str:
        """`pending`, `applied`, or `started: 2 statements`."""
        item = runner.status(self.url, self.directory).items[-1]
        return f"{item.state}: {item.so_far}" if item.so_far else item.state

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return servers.rows(self.url, sql)

    def run(self, *statements: str) -> None:
        servers.run(self.url, *statements)

    def tables(self) -> list[str]:
        found = (name for (name,) in self.rows("SHOW TABLES"))
        return [name for name in found if not name.startswith("_migration")]

    def command(self) -> list[str]:
        return [*PLAIN, "--database", self.url, "--directory", str(self.directory)]

    def begin_with(self, *statements: str) -> None:
        """Apply a migration in front of the one that is tested."""
        text = "".join(f"{statement};\n" for statement in statements)
        (self.directory / "000_first.sql").write_text(text, encoding="utf-8")
        self.migrate()


@pytest.fixture(autouse=True)
def no_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINANCIAL_AGENT_BACKUP", "never")


@pytest.fixture
def place(mysql: str, tmp_path: Path) -> Place:
    return Place(mysql, tmp_path)


# What fails.


def test_a_statement_that_fails_is_where_the_next_run_goes_on(place: Place) -> None:
    place.write("CREATE TABLE a (id INT PRIMARY KEY);\nINSERT INTO a VALUES (1);\nSELEC 1;\nCREATE TABLE b (id INT);")
    error = place.fails()
    assert isinstance(error, BatchFailed)
    assert error.location
    assert (error.location.line, error.location.column) == (3, 1)
    assert "2 statements are in effect" in error.message
    assert "of 001_change.sql 2 statements are in effect; the next run goes on behind them" in error.state
    assert place.state() == "started: 2 statements"
    place.write("CREATE TABLE a (id INT PRIMARY KEY);\nINSERT INTO a VALUES (1);\nSELECT 1;\nCREATE TABLE b (id INT);")
    assert place.migrate() == 4
    assert place.state() == "applied"
    assert place.tables() == ["a", "b"]
    assert place.rows("SELECT * FROM a") == [(1,)]
    assert [line.event for line in history.read(place.url)] == ["failure", "apply"]


def test_the_first_statement_that_fails_leaves_nothing(place: Place) -> None:
    place.write("CREATE TABEL a (id INT);")
    error = place.fails()
    assert isinstance(error, MigrationFailed)
    assert error.state.endswith("nothing of the failed run of 001_change.sql remains")
    assert place.state() == "pending"


def test_statements_that_are_done_may_not_be_edited(place: Place) -> None:
    place.write("CREATE TABLE a (id INT);\nSELEC 1;")
    place.fails()
    place.write("CREATE TABLE b (id INT);\nSELECT 1;")
    error = place.fails()
    assert isinstance(error, BatchesUnfinished)
    assert error.exit_code == 4
    with pytest.raises(RepairRefused):
        repair.repair(place.url, place.directory, "001", "it is right", QUICK)
    assert place.tables() == ["a"]


def test_what_changes_rows_alone_is_one_transaction(place: Place) -> None:
    place.begin_with("CREATE TABLE a (id INT PRIMARY KEY)")
    place.write("INSERT INTO a VALUES (1);\nINSERT INTO a VALUES (2);\nINSERT INTO a VALUES (1);")
    error = place.fails()
    assert "nothing of the failed run of 001_change.sql remains" in error.state
    assert place.rows("SELECT * FROM a") == []


def test_a_rollback_goes_on_too(place: Place) -> None:
    place.write(MIXED.replace("DELETE FROM item", "DELETE FORM item"))
    place.migrate()
    with pytest.raises(BatchFailed) as caught:
        rollback.rollback(place.url, place.directory, control=QUICK)
    assert "The next run goes on: flask db rollback" in caught.value.hint
    assert place.tables() == ["item"]
    place.write(MIXED)
    repair.repair(place.url, place.directory, "001", "a slip", QUICK)
    rollback.rollback(place.url, place.directory, control=QUICK)
    assert place.state() == "pending"
    assert place.tables() == []


def test_what_was_given_up_is_forgotten(place: Place) -> None:
    place.write("CREATE TABLE a (id INT);\nSELEC 1;")
    place.fails()
    place.file.unlink()
    repair.repair(place.url, place.directory, "001", "it was wrong", QUICK)
    place.write("CREATE TABLE b (id INT);")
    assert place.migrate() == 1
    assert place.tables() == ["a", "b"]


# A transaction of the script's own.


OWN = """\
-- migrate:up transaction:false
CREATE TABLE a (id INT PRIMARY KEY);
START TRANSACTION;
INSERT INTO a VALUES (1);
INSERT INTO a VALUES (2);
COMMIT;
INSERT INTO a VALUES (3);
"""


def test_a_transaction_of_the_scripts_own_is_done_as_a_whole_or_not_at_all(place: Place) -> None:
    place.write(OWN.replace("VALUES (2)", "VALUES (1)"))
    place.fails()
    assert place.state() == "started: 1 statement"
    assert place.rows("SELECT * FROM a") == []
    place.write(OWN)
    assert place.migrate() == 6
    assert place.rows("SELECT * FROM a") == [(1,), (2,), (3,)]


def test_a_transaction_that_is_left_open_is_a_failure(place: Place) -> None:
    place.write(OWN.replace("COMMIT;\n", ""))
    assert "ends inside a transaction" in place.fails().message
    assert place.rows("SELECT * FROM a") == []


# What goes with the connection.


def test_settings_of_the_session_are_made_again(place: Place) -> None:
    place.begin_with("CREATE TABLE p (id INT PRIMARY KEY)", "CREATE TABLE c (p INT, FOREIGN KEY (p) REFERENCES p (id))")
    place.write("SET foreign_key_checks = 0;\nCREATE TABLE x (id INT);\nSELEC 1;\nINSERT INTO c VALUES (9);")
    place.fails()
    place.write("SET foreign_key_checks = 0;\nCREATE TABLE x (id INT);\nSELECT 1;\nINSERT INTO c VALUES (9);")
    place.migrate()
    assert place.rows("SELECT * FROM c") == [(9,)]


@pytest.mark.parametrize(
    ("made", "used"),
    [
        ("CREATE TEMPORARY TABLE keep (id INT)", "INSERT INTO a SELECT id FROM `keep`"),
        ("SET @next := (SELECT count(*) FROM a)", "INSERT INTO a VALUES (@next)"),
        ("SELECT count(*) INTO @next FROM a", "INSERT INTO a VALUES (@Next)"),
    ],
)
def test_what_went_with_the_connection_is_told_and_can_be_made_anew(made: str, used: str, place: Place) -> None:
    text = f"CREATE TABLE a (id INT);\n{made};\nCREATE TABLE b (id INT);\nSELEC 1;\n{used};"
    place.write(text)
    place.fails()
    place.write(text.replace("SELEC ", "SELECT "))
    error = place.fails()
    assert isinstance(error, SessionLost)
    assert (error.code, error.exit_code) == ("FA325", 4)
    assert place.rows("SELECT * FROM a") == []
    place.write(text.replace("SELEC 1", made))
    place.migrate()
    assert place.state() == "applied"


# Statements of which the schema shows nothing.


@contextmanager
def running(place: Place, words: str) -> Iterator[tuple[Process, int]]:
    """A run whose statement the server is busy with, and the number of its session."""
    sql = f"SELECT id FROM information_schema.processlist WHERE db = database() AND info LIKE '{words}%'"
    with started(place.command(), place.root) as process:
        until(lambda: place.rows(sql) != [] or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield process, place.rows(sql)[0][0]


def killed_in(place: Place, words: str) -> None:
    """A run that was killed while the server was busy with that."""
    with running(place, words) as (process, _):
        process.kill()
        process.wait()


CALLS = "CREATE TABLE a (id INT);\nCALL p();\nCREATE TABLE b (id INT);"


def test_a_procedure_that_was_cut_off_is_run_again_if_it_had_committed_nothing(place: Place) -> None:
    place.begin_with(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "CREATE PROCEDURE p() BEGIN INSERT INTO t VALUES (1); DO sleep(1.5); END",
    )
    place.write(CALLS)
    killed_in(place, "DO sleep")
    place.migrate()
    assert place.rows("SELECT * FROM t") == [(1,)]
    assert place.tables() == ["a", "b", "t"]


def test_a_procedure_that_was_cut_off_behind_its_own_commit_is_for_a_person_to_judge(place: Place) -> None:
    place.begin_with(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "CREATE PROCEDURE p() BEGIN INSERT INTO t VALUES (1); COMMIT; DO sleep(1.5); END",
    )
    place.write(CALLS)
    killed_in(place, "DO sleep")
    error = place.fails()
    assert isinstance(error, StatementUncertain)
    assert (error.code, error.exit_code) == ("FA317", 4)
    assert error.message == "001_change.sql was cut off in its statement 2, and whether that took effect cannot be told"
    place.write("CREATE TABLE a (id INT);\nCREATE TABLE b (id INT);")
    repair.repair(place.url, place.directory, "001", "looked: it did", QUICK)
    place.migrate()
    assert place.rows("SELECT * FROM t") == [(1,)]
    assert place.tables() == ["a", "b", "t"]


def test_what_the_server_was_still_busy_with_is_waited_for(place: Place) -> None:
    """A killed client's statement goes on in the server, and with it the lock of the session that works."""
    place.begin_with("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    place.write("CREATE TABLE u AS SELECT id, sleep(2) AS n FROM t;\nCREATE TABLE b (id INT);")
    killed_in(place, "CREATE TABLE u")
    place.migrate()
    assert place.rows("SELECT * FROM u") == [(1, 0)]
    assert place.tables() == ["b", "t", "u"]


def test_a_failed_procedure_that_had_committed_says_so(place: Place) -> None:
    place.begin_with(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "CREATE PROCEDURE p() BEGIN INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (1); END",
    )
    place.write(CALLS)
    assert "what it had committed before stays" in place.fails().message
    assert isinstance(place.fails(), StatementUncertain)


def test_a_failed_truncate_is_no_mystery(place: Place) -> None:
    place.begin_with("CREATE TABLE p (id INT PRIMARY KEY)", "CREATE TABLE c (p INT, FOREIGN KEY (p) REFERENCES p (id))")
    place.write("CREATE TABLE a (id INT);\nTRUNCATE p;")
    assert isinstance(place.fails(), BatchFailed)
    assert place.state() == "started: 1 statement"
    place.write("CREATE TABLE a (id INT);\nTRUNCATE c;")
    place.migrate()


def test_a_drop_of_several_tables_that_did_a_part_says_so(place: Place) -> None:
    place.begin_with("CREATE TABLE t (id INT)")
    place.write("CREATE TABLE a (id INT);\nDROP TABLE t, missing;")
    assert "a part of it took effect" in place.fails().message
    place.write("CREATE TABLE a (id INT);\nCREATE TABLE b (id INT);")
    place.migrate()
    assert place.tables() == ["a", "b"]


def test_a_procedure_may_change_rows_and_stay_in_the_transaction(place: Place) -> None:
    place.begin_with("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE PROCEDURE p() INSERT INTO t VALUES (1)")
    place.write(CALLS)
    assert place.migrate() == 3
    assert place.rows("SELECT * FROM t") == [(1,)]


# What is killed.


def outcome(place: Place) -> tuple[str, list[str], list[tuple[Any, ...]]]:
    return place.state(), place.tables(), place.rows("SELECT * FROM items ORDER BY id")


DONE = ("applied", ["item", "items"], [(1, 10), (2, 20)])


def test_a_session_that_the_server_ends_is_told_and_the_next_run_goes_on(place: Place) -> None:
    place.write("CREATE TABLE a (id INT);\nSELECT sleep(3600);\nCREATE TABLE b (id INT);")
    with running(place, "SELECT sleep") as (process, session):
        place.run(f"KILL {session}")
        finished = finish(process)
    assert finished.returncode == 3, finished.stderr
    assert "the connection to the server was lost" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert place.state() == "started: 1 statement"
    place.write("CREATE TABLE a (id INT);\nSELECT 1;\nCREATE TABLE b (id INT);")
    place.migrate()
    assert place.tables() == ["a", "b"]


def test_a_run_stops_when_the_session_of_its_lock_has_ended(place: Place) -> None:
    place.write("CREATE TABLE a (id INT);\nSELECT sleep(2);\nCREATE TABLE b (id INT);")
    with running(place, "SELECT sleep") as (process, session):
        sql = "SELECT id FROM information_schema.processlist WHERE db = database() AND id NOT IN (connection_id(), {})"
        for (other,) in place.rows(sql.format(session)):
            place.run(f"KILL {other}")
        finished = finish(process)
    assert finished.returncode == 3, finished.stderr
    assert "FA320" in finished.stderr
    assert place.tables() == ["a"]
    place.write("CREATE TABLE a (id INT);\nSELECT 1;\nCREATE TABLE b (id INT);")
    place.migrate()
    assert place.tables() == ["a", "b"]


def die_and_go_on(place: Place, moment: int) -> bool:
    """Whether a run died at that moment; in any case the database is explained, and the next run completes."""
    died = run(place.command(), place.root, dies_at=moment)
    if died.returncode == 0:
        return False
    assert died.returncode == -9, died.stderr
    assert place.state() in ("pending", "applied") or place.state().startswith("started: ")
    finished = run(place.command(), place.root)
    assert finished.returncode == 0, (moment, finished.stderr)
    assert outcome(place) == DONE, moment
    lines = history.read(place.url)
    assert [line.event for line in lines] in (["apply"], ["failure", "apply"]), (moment, lines)
    return True


@pytest.mark.parametrize("moment", [30, -30, 55, -55, 80, -80])
def test_a_killed_run_is_finished_by_the_next(moment: int, place: Place) -> None:
    place.write(MIXED)
    assert die_and_go_on(place, moment)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 3, -2, -4])
def test_a_run_may_be_killed_at_any_statement_and_is_finished_by_the_next(
    first: int, mysql_server: servers.Server, tmp_path: Path
) -> None:
    moment, dies = first, True
    while dies:
        with mysql_server.fresh() as url:
            place = Place(url, tmp_path)
            place.write(MIXED)
            dies = die_and_go_on(place, moment)
        moment += 5 if first > 0 else -5
    assert abs(moment) > 80


def test_ctrl_c_in_a_definition_leaves_it_to_the_next_run_to_find_out(place: Place) -> None:
    place.begin_with("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    text = "CREATE TABLE a (id INT);\nCREATE TABLE u AS SELECT id, sleep({}) AS n FROM t;\nCREATE TABLE b (id INT);"
    place.write(text.format(3600))
    with running(place, "CREATE TABLE u") as (process, _):
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.returncode == 130, finished.stderr
    told = "of 001_change.sql 1 statement is in effect; the next run finds out whether the statement that was being run"
    assert told in finished.stderr
    assert place.rows("SELECT 1 FROM information_schema.processlist WHERE info LIKE 'CREATE TABLE u%'") == []
    assert place.tables() == ["a", "t"]
    place.write(text.format(0))
    place.migrate()
    assert place.tables() == ["a", "b", "t", "u"]


@pytest.mark.slow
def test_a_server_that_dies_in_a_definition_is_asked_what_became_of_it(tmp_path: Path) -> None:
    """MariaDB makes a definition as a whole or not at all, also when its process is killed
    (https://mariadb.com/kb/en/atomic-ddl/)."""
    owner = daemons.user("mysql")
    program, *_ = throwaway.mariadb_binaries()
    with daemons.folder(owner) as folder:
        throwaway.mariadb_install_db(owner, folder)
        url = throwaway.mysql_url(folder)
        options = [
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            f"--socket={folder / 'socket'}",
            f"--tmpdir={folder}",
        ]
        command = [program, *options, "--skip-networking"]

        @contextmanager
        def server() -> Iterator[daemons.Daemon]:
            with daemons.running(owner, command, folder / "log", stop=signal.SIGKILL) as daemon:
                daemon.wait_until(lambda: (folder / "socket").exists() and servers._answers("mysql", url))
                yield daemon

        rounds = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4]
        for number, seconds in enumerate(rounds):
            with server() as daemon:
                servers.run(url, f"CREATE DATABASE d{number}")
                place = Place(url.replace("/mysql?", f"/d{number}?"), tmp_path / str(number))
                place.begin_with(
                    "CREATE TABLE t (id INT PRIMARY KEY, n INT)",
                    "INSERT INTO t SELECT seq, seq FROM seq_1_to_50000",
                )
                place.write("ALTER TABLE t ADD KEY by_n (n), ADD COLUMN m INT, ALGORITHM = COPY;\nDROP TABLE t;")
                with running(place, "ALTER TABLE t") as (process, _):
                    time.sleep(seconds)
                    daemon.signal(signal.SIGKILL)
                    finished = finish(process)
                    assert finished.returncode in (0, 3), finished.stderr
            with server():
                place.migrate()
                assert place.tables() == []
                assert place.state() == "applied"
