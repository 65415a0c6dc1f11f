"""A statement that runs in batches keeps what it has done, whatever happens, and is done when it changes nothing."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from financial_agent import cli_progress
from financial_agent.migrator import backfill, check, rehearsal, repair, rollback, runner
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import OutOfSpace
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import BatchInvalid, LedgerTouched
from financial_agent.migrator.errors_run import (
    BatchEndless,
    BatchesUnfinished,
    BatchFailed,
    Interrupted,
    MigrationFailed,
)
from financial_agent.migrator.events import Batched, Event
from tests.helpers import PATIENCE, ROOT, Site, finish, until

CHAT = "CREATE TABLE chat (id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0, done INTEGER);\n"
FIND = "SELECT id FROM chat WHERE done IS NULL LIMIT :batch"
COUNT_UP = f"UPDATE chat SET n = n + 1, done = 1 WHERE id IN ({FIND});\n"


def rows(count: int) -> str:
    numbers = f"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {count})"
    return f"{CHAT}{numbers} INSERT INTO chat (id) SELECT i FROM c;\n"


def in_batches(size: int, *statements: str) -> str:
    return "".join(f"-- migrate:batch {size}\n{statement}" for statement in statements)


def site_with(root: Path, sql: str, count: int = 10, more: str = "") -> Site:
    site = Site(root / "site", {"001_chat": f"-- migrate:up\n{rows(count)}{more}\n-- migrate:down\nDROP TABLE chat;"})
    site.prepare()
    site.write({"002_change": sql})
    return site


def migrate(site: Site, control: Control | None = None) -> runner.Outcome:
    return runner.migrate(str(site.database), site.directory, control=control or Control(pauses=False))


def failed(site: Site, control: Control | None = None) -> MigratorError:
    with pytest.raises(MigratorError) as caught:
        migrate(site, control)
    return caught.value


def progress(site: Site) -> list[tuple[int, int, int]]:
    return site.rows("SELECT statements, batches, rows_changed FROM _migration_progress")


def stopping_after(batches: int) -> Control:
    """What asks to stop once so many batches are committed."""
    seen: list[Event] = []

    def report(event: Event) -> None:
        if isinstance(event, Batched):
            seen.append(event)

    return Control(stop=lambda: signal.SIGINT if len(seen) >= batches else None, report=report, pauses=False)


def test_every_row_is_changed_once_and_all_of_them_are_counted(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    (done,) = migrate(site).done
    assert (done.rows_changed, done.batches, done.statements) == (10, 4, 1)
    assert site.rows("SELECT DISTINCT n, done FROM chat") == [(1, 1)]
    assert site.applied() == ["001_chat", "002_change"]
    assert progress(site) == []
    assert site.rows("SELECT event, statements, rows_changed FROM _migration_history WHERE id = 2") == [
        ("apply", 1, 10)
    ]


def test_each_batch_is_a_transaction_of_its_own_that_others_see(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(4, COUNT_UP))
    seen = []

    def report(event: Event) -> None:
        if isinstance(event, Batched):
            seen.append((site.value("SELECT sum(n) FROM chat"), progress(site)))

    migrate(site, Control(report=report, pauses=False))
    assert seen == [(4, [(0, 1, 4)]), (8, [(0, 2, 8)]), (10, [(0, 3, 10)])]


def test_others_write_between_batches(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(4, COUNT_UP))

    def report(event: Event) -> None:
        if isinstance(event, Batched) and event.rows < 10:
            with closing(sqlite3.connect(site.database, timeout=0)) as other, other:
                other.execute("INSERT INTO chat DEFAULT VALUES")

    migrate(site, Control(report=report, pauses=False))
    assert site.rows("SELECT count(*), sum(n) FROM chat") == [(12, 12)]


def test_rows_that_triggers_change_do_not_keep_it_going(tmp_path: Path) -> None:
    more = "CREATE TABLE log (x);\nCREATE TRIGGER t AFTER UPDATE ON chat BEGIN INSERT INTO log VALUES (1), (2); END;\n"
    site = site_with(tmp_path, in_batches(100, COUNT_UP), more=more)
    (done,) = migrate(site).done
    assert (done.rows_changed, done.batches) == (10, 1)


def test_it_pauses_for_as_long_as_a_batch_takes(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(2, COUNT_UP))
    began = time.monotonic()
    migrate(site, Control())
    assert time.monotonic() - began > 5 * 0.02


def test_several_statements_run_one_after_the_other_with_assertions_between(tmp_path: Path) -> None:
    insert = "INSERT INTO names SELECT id FROM chat WHERE id NOT IN (SELECT id FROM names) LIMIT :batch;\n"
    delete = "DELETE FROM chat WHERE id IN (SELECT id FROM chat WHERE id > 7 LIMIT :batch);\n"
    all_there = "-- migrate:assert SELECT count(*) = 10 FROM names\n"
    sql = all_there.replace("10", "0") + in_batches(3, insert) + all_there + in_batches(2, delete)
    site = site_with(tmp_path, sql, more="CREATE TABLE names (id INTEGER PRIMARY KEY);")
    (done,) = migrate(site).done
    assert (done.rows_changed, done.batches, done.statements) == (13, 4 + 2, 4)


def test_with_before_the_change_and_replace(tmp_path: Path) -> None:
    with_ = f"WITH some AS ({FIND}) UPDATE chat SET done = 1 WHERE id IN some;\n"
    replace = "REPLACE INTO chat (id, n, done) SELECT id, 5, 2 FROM chat WHERE done = 1 LIMIT :batch;\n"
    site = site_with(tmp_path, in_batches(4, with_, replace))
    migrate(site)
    assert site.rows("SELECT count(*), n, done FROM chat GROUP BY 2, 3") == [(10, 5, 2)]


def test_a_down_section_runs_in_batches_too(tmp_path: Path) -> None:
    down = "UPDATE chat SET n = 0, done = NULL WHERE id IN (SELECT id FROM chat WHERE done = 1 LIMIT :batch);\n"
    site = site_with(tmp_path, f"-- migrate:up\n{in_batches(3, COUNT_UP)}-- migrate:down\n{in_batches(4, down)}")
    migrate(site)
    (site.directory / "002_change.sql").unlink()  # the ledger's copy knows the batches, too
    (done,) = rollback.rollback(str(site.database), site.directory, control=Control(pauses=False)).done
    assert (done.rows_changed, done.batches) == (10, 3)
    assert site.value("SELECT sum(n) FROM chat") == 0
    assert site.applied() == ["001_chat"]


# What is stopped goes on.


def test_an_interrupted_run_keeps_its_batches_and_the_next_one_goes_on(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    error = failed(site, stopping_after(2))
    assert error.code == "FA306"
    assert error.state == (
        "The database is at 001_chat.sql, and of 002_change.sql 6 rows in 2 batches are in effect;"
        " the next run goes on behind them"
    )
    assert site.status() == {"001_chat": "applied", "002_change": "started"}
    (done,) = migrate(site).done
    assert (done.rows_changed, done.batches) == (10, 4)
    assert site.rows("SELECT DISTINCT n FROM chat") == [(1,)]


def test_a_finished_statement_does_not_run_again(tmp_path: Path) -> None:
    again = "UPDATE chat SET done = NULL, n = -n WHERE id IN (SELECT id FROM chat WHERE done = 1 LIMIT :batch);\n"
    site = site_with(tmp_path, in_batches(5, COUNT_UP, again))
    failed(site, stopping_after(3))
    assert progress(site) == [(1, 3, 15)]
    migrate(site)
    assert site.rows("SELECT DISTINCT n, done FROM chat") == [(-1, None)]


def test_what_a_migration_takes_for_granted_is_not_asked_again_half_way(tmp_path: Path) -> None:
    all_to_do = "-- migrate:assert SELECT count(*) = 10 FROM chat WHERE done IS NULL\n"
    site = site_with(tmp_path, all_to_do + in_batches(3, COUNT_UP))
    failed(site, stopping_after(2))
    (done,) = migrate(site).done
    assert (done.rows_changed, done.batches) == (10, 4)


@pytest.mark.parametrize("dies_at", range(8, 40, 3))
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, dies_at: int) -> None:
    site = site_with(tmp_path, in_batches(2, COUNT_UP))
    died = site.migrate(dies_at=dies_at).returncode
    with closing(sqlite3.connect(site.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert died == 0 or site.rows("SELECT max(n) <= 1 FROM chat") == [(1,)]
    assert site.migrate().returncode == 0
    assert site.rows("SELECT DISTINCT n, done FROM chat") == [(1, 1)]
    assert site.rows("SELECT rows_changed FROM _migration_history WHERE event = 'apply' AND id > 1") == [(10,)]
    assert progress(site) == []


def test_status_tells_how_far_it_is(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    failed(site, stopping_after(2))
    told = site.flask("status").stdout
    assert re.search(r"002_change +started: 6 rows in 2 batches", told)
    assert "1 applied, 1 started, 0 pending." in told
    (_, item) = json.loads(site.flask("status", "--json").stdout)["migrations"]
    assert (item["state"], item["progress"]["rows_changed"], item["progress"]["batches"]) == ("started", 6, 2)


def test_a_statement_that_fails_leaves_the_finished_batches_and_says_so(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP.replace("n + 1", "n + CASE id WHEN 8 THEN NULL ELSE 1 END")))
    error = failed(site)
    assert isinstance(error, BatchFailed)
    assert str(error).startswith("002_change.sql failed: NOT NULL constraint failed: chat.n; 6 rows in 2 batches are")
    assert "the next run goes on" in error.state
    ((told, changed),) = site.rows("SELECT error, rows_changed FROM _migration_history WHERE event = 'failure'")
    assert "6 rows in 2 batches" in told
    assert changed == 6
    assert site.value("SELECT sum(n) FROM chat") == 6


def test_a_first_batch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    error = failed(site := site_with(tmp_path, in_batches(3, COUNT_UP.replace("n + 1", "NULL"))))
    assert isinstance(error, MigrationFailed)
    assert "nothing of the failed run" in error.state
    assert site.status()["002_change"] == "pending"


def test_what_was_changed_since_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    failed(site, stopping_after(2))
    site.write({"002_change": "-- A comment may come.\n" + in_batches(3, COUNT_UP.replace("n + 1", "n + 2"))})
    error = failed(site)
    assert isinstance(error, BatchesUnfinished)
    assert error.exit_code == 4
    repair.repair(str(site.database), site.directory, "2", "it must be 2", Control())
    migrate(site)
    assert site.rows("SELECT n, count(*) FROM chat GROUP BY 1") == [(1, 6), (2, 4)]
    assert ("amend", "002_change") in site.history()
    assert site.flask("verify").returncode == 0


def test_a_finished_statement_cannot_be_changed(tmp_path: Path) -> None:
    again = "DELETE FROM chat WHERE id IN (SELECT id FROM chat WHERE id > 3 LIMIT :batch);\n"
    site = site_with(tmp_path, in_batches(5, COUNT_UP, again))
    failed(site, stopping_after(3))
    site.write({"002_change": in_batches(5, COUNT_UP.replace("n + 1", "n + 2"), again)})
    with pytest.raises(MigratorError, match="finished were changed"):
        repair.repair(str(site.database), site.directory, "2", "why not", Control())


def test_a_file_that_is_edited_while_its_batches_run_must_be_put_back(tmp_path: Path) -> None:
    again = "DELETE FROM chat WHERE id IN (SELECT id FROM chat WHERE id > 3 LIMIT :batch);\n"
    sql = in_batches(5, COUNT_UP, again)
    site = site_with(tmp_path, sql)
    edited = sql.replace("n + 1", "n + 2")

    def edit(event: Event) -> None:
        if isinstance(event, Batched):
            site.write({"002_change": edited})

    assert "changed while it was being read" in str(failed(site, Control(report=edit, pauses=False)))
    with pytest.raises(MigratorError, match="finished were changed"):
        repair.repair(str(site.database), site.directory, "2", "I did not see it", Control())
    site.write({"002_change": sql})
    migrate(site)
    assert site.rows("SELECT n, count(*) FROM chat GROUP BY 1") == [(1, 3)]


def test_a_full_disk_keeps_the_finished_batches_and_the_way_on_is_space(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))

    def fill(event: Event) -> None:
        if isinstance(event, Batched):
            raise OutOfSpace("database or disk is full")

    error = failed(site, Control(report=fill, pauses=False))
    assert error.hint.startswith(f"Free some space: df -h {site.data}\nThe next run goes on: flask db migrate")
    assert site.value("SELECT sum(n) FROM chat") == 3


def test_nothing_else_runs_while_one_is_started(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    site.write({"003_last": "SELECT 1;"})
    failed(site, stopping_after(1))
    with pytest.raises(BatchesUnfinished):
        rollback.rollback(str(site.database), site.directory)
    (site.directory / "002_change.sql").unlink()
    assert isinstance(failed(site), BatchesUnfinished)
    assert site.status()["002_change"] == "started"


@pytest.mark.parametrize("words", [("migrate", "1"), ("rollback", "--to", "1", "--yes")])
def test_a_run_that_has_nothing_else_to_do_does_not_pass_over_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    failed(site, stopping_after(1))
    finished = site.flask(*words)
    assert finished.returncode == 4
    assert "Error FA308: 002_change.sql was begun and is not done" in finished.stderr


def test_going_on_makes_no_further_backup_of_a_database_half_way(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    policy = Policy("destructive", tmp_path / "backups", 10)
    for batches in (1, 2):
        with pytest.raises(MigratorError):
            runner.migrate(str(site.database), site.directory, backups=policy, control=stopping_after(batches))
    runner.migrate(str(site.database), site.directory, backups=policy, control=Control(pauses=False))
    (kept,) = (tmp_path / "backups").glob("*.db")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT sum(n) FROM chat").fetchone() == (0,)


def test_verify_and_doctor_tell_of_it(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    failed(site, stopping_after(2))
    verified, examined = site.flask("verify"), site.flask("doctor")
    assert verified.returncode == 1
    assert "it was begun and is not done: 6 rows in 2 batches are in effect" in verified.stdout
    assert "002_change.sql was begun and is not done: 6 rows in 2 batches" in examined.stdout


def test_it_can_be_given_up_once_its_file_is_gone(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    failed(site, stopping_after(1))
    (site.directory / "002_change.sql").unlink()
    finished = site.flask("repair", "2", "--reason", "nobody needs it")
    assert finished.stdout == "Gave up 002_change.sql: what its batches changed stays, and it is no longer started\n"
    site.write({"003_last": "SELECT 1;"})
    migrate(site)
    assert site.applied() == ["001_chat", "003_last"]
    assert ("abandon", "002_change") in site.history()


def test_a_rollback_that_was_started_goes_on_and_nothing_else_does(tmp_path: Path) -> None:
    down = "UPDATE chat SET n = 0, done = NULL WHERE id IN (SELECT id FROM chat WHERE done = 1 LIMIT :batch);\n"
    site = site_with(tmp_path, f"-- migrate:up\n{in_batches(3, COUNT_UP)}-- migrate:down\n{in_batches(4, down)}")
    migrate(site)
    site.write({"003_last": "SELECT 1;"})
    with pytest.raises(MigratorError):
        rollback.rollback(str(site.database), site.directory, control=stopping_after(1))
    assert isinstance(failed(site), BatchesUnfinished)
    assert "applied, rollback started: 4 rows in 1 batch" in site.flask("status").stdout
    (done,) = rollback.rollback(str(site.database), site.directory, control=Control(pauses=False)).done
    assert done.rows_changed == 10


# What would never end.


def test_an_update_that_does_not_leave_out_what_it_changed_is_stopped(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP.replace("WHERE done IS NULL ", "")))
    error = failed(site)
    assert isinstance(error, BatchEndless)
    assert (error.fields["changed"], error.fields["present"]) == (12, 10)
    assert "12 rows in 4 batches are in effect" in error.state


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO chat (n) SELECT n FROM chat LIMIT :batch;\n",
        "INSERT INTO chat (id) SELECT id FROM chat WHERE 1 LIMIT :batch ON CONFLICT DO UPDATE SET n = 1;\n",
        "REPLACE INTO chat (id) SELECT id FROM chat LIMIT :batch;\n",
    ],
)
def test_an_insert_of_what_is_there_is_stopped(tmp_path: Path, statement: str) -> None:
    assert isinstance(failed(site_with(tmp_path, in_batches(3, statement))), BatchEndless)


def test_an_insert_that_grows_its_table_many_times_over_is_not(tmp_path: Path) -> None:
    grow = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200)"
    sql = f"{grow} INSERT INTO chat (id) SELECT i FROM c WHERE i NOT IN (SELECT id FROM chat) LIMIT :batch;\n"
    assert migrate(site_with(tmp_path, in_batches(7, sql))).done[0].rows_changed == 190


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO names SELECT id FROM chat LIMIT :batch;\n",
        "INSERT OR REPLACE INTO names SELECT id FROM chat LIMIT :batch;\n",
        "DELETE FROM seen WHERE id IN (SELECT id FROM seen LIMIT :batch);\n",
    ],
)
def test_what_cannot_come_to_an_end_is_refused_before_its_first_batch(tmp_path: Path, statement: str) -> None:
    more = "CREATE TABLE names (id INTEGER PRIMARY KEY); CREATE VIEW seen AS SELECT id FROM chat;\n"
    more += "CREATE TRIGGER t AFTER INSERT ON names BEGIN DELETE FROM names WHERE id < 0; END;\n"
    more += "CREATE TRIGGER d INSTEAD OF DELETE ON seen BEGIN DELETE FROM chat WHERE id = OLD.id; END;\n"
    site = site_with(tmp_path, in_batches(3, statement), more=more)
    assert isinstance(failed(site), BatchInvalid)
    assert site.rows("SELECT (SELECT count(*) FROM names), count(*) FROM chat") == [(0, 10)]
    assert site.status()["002_change"] == "pending"


def test_a_table_without_row_numbers_is_counted_too(tmp_path: Path) -> None:
    more = "CREATE TABLE w (k TEXT PRIMARY KEY, d) WITHOUT ROWID; INSERT INTO w SELECT id, NULL FROM chat;"
    fill = "UPDATE w SET d = 1 WHERE k IN (SELECT k FROM w WHERE d IS NULL LIMIT :batch);\n"
    assert migrate(site_with(tmp_path, in_batches(3, fill), more=more)).done[0].rows_changed == 10


# Its guards.


def test_foreign_keys_are_enforced(tmp_path: Path) -> None:
    more = "CREATE TABLE child (id REFERENCES chat); INSERT INTO child VALUES (9);"
    delete = "DELETE FROM chat WHERE id IN (SELECT id FROM chat WHERE id > 3 LIMIT :batch);\n"
    error = failed(site := site_with(tmp_path, in_batches(3, delete), more=more))
    assert isinstance(error, BatchFailed)
    assert "FOREIGN KEY" in str(error)
    assert site.value("SELECT count(*) FROM chat") == 7


def test_a_statement_that_ends_its_transaction_is_noticed(tmp_path: Path) -> None:
    more = "CREATE UNIQUE INDEX u ON chat (done) WHERE done > 5;"
    sql = "UPDATE OR ROLLBACK chat SET done = CASE WHEN id < 4 THEN 1 ELSE 9 END WHERE id IN (" + FIND + ");\n"
    error = failed(site := site_with(tmp_path, in_batches(3, sql), more=more))
    assert isinstance(error, BatchFailed)
    assert site.value("SELECT count(done) FROM chat") == 3


def test_a_migration_must_not_touch_the_progress(tmp_path: Path) -> None:
    assert isinstance(failed(site_with(tmp_path, "DELETE FROM _migration_progress;")), LedgerTouched)


def test_what_it_overwrites_is_known_before(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    rehearsed = rehearsal.migrate(str(site.database), site.directory)
    assert rehearsed.is_destructive
    (step,) = rehearsed.steps
    assert (step.done.batches, step.done.rows_changed) == (4, 10)
    assert {(effect.kind, effect.column) for effect, _ in step.destroyed} == {("update", "n"), ("update", "done")}
    (change,) = step.rows
    assert (change.table, change.updated) == ("chat", 10)
    assert site.value("SELECT sum(n) FROM chat") == 0


def test_a_rehearsal_does_not_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_with(tmp_path, in_batches(5, COUNT_UP))
    monkeypatch.setattr(backfill, "_SHORTEST_PAUSE", 2 * PATIENCE)
    began = time.monotonic()
    (step,) = rehearsal.migrate(str(site.database), site.directory).steps
    assert time.monotonic() - began < PATIENCE
    assert step.done.batches == 2


def test_a_check_runs_the_batches_on_rows_that_it_makes_up(tmp_path: Path) -> None:
    down = "UPDATE chat SET done = NULL WHERE id IN (SELECT id FROM chat WHERE done = 1 LIMIT :batch);\n"
    site = Site(tmp_path / "site", {"001_chat": f"-- migrate:up\n{CHAT}-- migrate:down\nDROP TABLE chat;\n"})
    up = COUNT_UP.replace("n = n + 1, ", "")
    site.write({"002_change": f"-- migrate:up\n{in_batches(1, up)}-- migrate:down\n{in_batches(1, down)}"})
    found = check.check(site.directory, control=Control()).findings
    assert "failed" not in str(found)


def test_a_started_migration_is_rehearsed_from_where_it_stands(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(3, COUNT_UP))
    failed(site, stopping_after(2))
    (step,) = rehearsal.migrate(str(site.database), site.directory).steps
    assert step.done.rows_changed == 10
    assert step.rows[0].updated == 4


@pytest.mark.parametrize(
    "sql",
    [
        f"-- migrate:batch\n{COUNT_UP}",
        f"-- migrate:batch 0\n{COUNT_UP}",
        f"-- migrate:batch 1000001\n{COUNT_UP}",
        f"-- migrate:batch many\n{COUNT_UP}",
        f"-- migrate:batch ٣\n{COUNT_UP}",
        f"-- migrate:batch 5\n-- migrate:batch 6\n{COUNT_UP}",
        "-- migrate:batch 5\nCREATE TABLE t (x);",
        "-- migrate:batch 5\nSELECT :batch;",
        "-- migrate:batch 5\nUPDATE chat SET n = 1;",
        "-- migrate:batch 5\nUPDATE chat SET n = ':batch';",
        "-- migrate:batch 5\nUPDATE chat SET n = ? WHERE id = :batch;",
        "-- migrate:batch 5\nUPDATE chat SET n = $x WHERE id = :batch;",
        f"SELECT 1;\n-- migrate:batch 5\n{COUNT_UP}",
        f"-- migrate:batch 5\n{COUNT_UP}CREATE TABLE t (x);",
        f"-- migrate:batch 5\n{COUNT_UP}PRAGMA user_version = 3;",
        f"BEGIN;\n-- migrate:batch 5\n{COUNT_UP}COMMIT;",
        f"-- migrate:up transaction:false\n-- migrate:batch 5\n{COUNT_UP}",
        f"-- migrate:batch 5\n{COUNT_UP}-- migrate:foreign_keys off\n",
    ],
)
def test_what_cannot_run_in_batches_is_refused_before_anything_runs(tmp_path: Path, sql: str) -> None:
    site = site_with(tmp_path, sql)
    before = site.database.read_bytes()
    assert isinstance(failed(site), BatchInvalid)
    assert site.database.read_bytes() == before


def test_the_example_of_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "migrations.md").read_text().split("### In batches")[1]
    (example,) = re.findall(r"```sql\n(.*?)```", section.split("###")[0], re.DOTALL)
    table = "CREATE TABLE chat_messages (id INTEGER PRIMARY KEY, role TEXT);"
    numbers = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 12000)"
    site = Site(tmp_path / "site", {"001_chat": f"{table}{numbers} INSERT INTO chat_messages SELECT i, 'bot' FROM c;"})
    site.write({"002_name_the_assistant": example})
    assert migrate(site).done[1].batches == 3
    assert site.rows("SELECT role, count(*) FROM chat_messages GROUP BY 1") == [("assistant", 12000)]


def test_ctrl_c_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_with(tmp_path, in_batches(4, COUNT_UP))
    monkeypatch.setattr(backfill, "_SHORTEST_PAUSE", 2 * PATIENCE)
    began = time.monotonic()
    error = failed(site, replace(stopping_after(1), pauses=True))
    assert time.monotonic() - began < PATIENCE
    assert isinstance(error, Interrupted)
    assert progress(site) == [(0, 1, 4)]


def test_ctrl_c_between_batches_leaves_those_that_are_done(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(1, COUNT_UP), count=2000)
    with site.migrating() as process:
        until(lambda: bool(site.value("SELECT sum(n) FROM chat")))
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.returncode == 130
    assert 0 < site.value("SELECT sum(n) FROM chat") < 2000
    assert "the next run goes on" in finished.stderr


def test_an_assertion_that_fails_behind_batches_leaves_them_and_says_how_its_file_is_accepted(tmp_path: Path) -> None:
    sql = in_batches(5, COUNT_UP) + "-- migrate:assert SELECT sum(n) = 11 FROM chat\n"
    error = failed(site := site_with(tmp_path, sql))
    assert error.code == "FA307"
    assert "10 rows in 2 batches are in effect" in error.state
    assert "flask db repair 2 --reason WHY" in error.hint
    site.write({"002_change": sql.replace("11", "10")})
    repair.repair(str(site.database), site.directory, "2", "ten are right", Control())
    assert migrate(site).done[0].rows_changed == 10


def test_without_a_terminal_a_line_now_and_then_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_progress, "_TELLING", 0)
    with cli_progress.Printer(quiet=False) as printer:
        printer.report(Batched("002_change.sql", "chat", 1_000, 2_000_000))
        printer.report(Batched("002_change.sql", "chat", 2_000, None))
    told = ["002_change.sql: 1,000 of at most 2,000,000 rows of chat", "002_change.sql: 2,000 rows of chat"]
    assert capsys.readouterr().err.splitlines() == told


def test_the_results_tell_rows_and_batches(tmp_path: Path) -> None:
    site = site_with(tmp_path, in_batches(4, COUNT_UP))
    assert "Applied 002_change.sql: 1 statement, 10 rows in 3 batches, " in site.migrate().stdout
    (done,) = json.loads(site_with(tmp_path / "json", in_batches(4, COUNT_UP)).flask("migrate", "--json").stdout)[
        "migrations"
    ]
    assert done["batches"] == 3
