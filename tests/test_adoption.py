"""A ledger that was lost: what is there is recorded when it is certain, and nothing runs a second time."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from financial_agent.migrator.adoption import is_lost
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.verify import verify
from tests.helpers import (
    CHAT,
    ENDLESS,
    FIRST_LEDGER,
    Finished,
    Site,
    finish,
    snapshot,
    state,
    wait_for_line,
)

FILES = {
    "001_people": "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);",
    "002_rebuild": "DROP TABLE people;\nCREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL);",
    "003_pets": "-- migrate:up\nCREATE TABLE pets (name TEXT);\n-- migrate:down\nDROP TABLE pets;",
}
ANN = "INSERT INTO people VALUES (1, 'Ann')"
LOSSES = {
    "the ledger dropped": ["DROP TABLE _migrations"],
    "the ledger and the history dropped": ["DROP TABLE _migrations", "DROP TABLE _migration_history"],
    "the ledger emptied": ["DELETE FROM _migrations"],
    "both emptied": ["DELETE FROM _migrations", "DELETE FROM _migration_history"],
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
BOTH_LOST = LOSSES["the ledger and the history dropped"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Three migrations of which two are applied, and a row; the second would delete it if it ran again."""
    site = Site(tmp_path / "site", FILES)
    assert site.flask("migrate", "2").returncode == 0
    site.do(ANN)
    return site


def hints(finished: Finished) -> list[list[str]]:
    """The commands that an error says to type, without their options for the database and the folder."""
    lines = [line.partition("flask db ")[2] for line in finished.stderr.splitlines() if "flask db " in line]
    return [[word for word in shlex.split(line) if not word.startswith(("--d", "/"))] for line in lines]


def refused(site: Site) -> Finished:
    """A run that is refused and changes nothing."""
    before = snapshot(site.data)
    finished = site.migrate()
    assert finished.returncode == 4, finished.stdout + finished.stderr
    assert "Error FA414: " in finished.stderr
    after = snapshot(site.data)
    after.pop("app.db-migrate-lock")
    assert after == {name: found for name, found in before.items() if name != "app.db-migrate-lock"}
    return finished


def lost(site: Site) -> bool:
    with closing(connect(str(site.database), readonly=True)) as db:
        return is_lost(db)


# What is certain is recorded.


@each_loss
def test_what_is_there_is_recorded_and_the_rest_runs(site: Site, loss: Sequence[str]) -> None:
    site.do(*loss)
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    first, second, third, end = finished.stdout.splitlines()
    assert first == "Recovered 001_people.sql: its schema is there; it was recorded, not run"
    assert second == "Recovered 002_rebuild.sql: its schema is there; it was recorded, not run"
    assert third.startswith("Applied 003_pets.sql: ")
    assert end == f"{site.database} is at 003_pets, 0 pending."
    assert site.applied() == list(FILES)
    assert site.rows("SELECT * FROM people") == [(1, "Ann")]
    assert site.history()[-3:] == [("recover", "001_people"), ("recover", "002_rebuild"), ("apply", "003_pets")]
    assert site.flask("status", "--exit-code").returncode == 0


@each_loss
def test_where_all_is_there_nothing_runs(site: Site, loss: Sequence[str]) -> None:
    site.prepare()
    before = state(site.database)
    site.do(*loss)
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("Recovered ") == 3
    assert "Applied " not in finished.stdout
    after = state(site.database)
    assert (after.schema, after.rows, after.ledger) == (before.schema, before.rows, before.ledger)


def test_a_target_below_what_is_there_runs_nothing(site: Site) -> None:
    site.do(*BOTH_LOST)
    assert site.flask("migrate", "1").returncode == 0
    assert site.applied() == ["001_people", "002_rebuild"]
    assert site.tables() == {"people"}


def test_an_entry_that_was_recovered_is_as_good_as_any(site: Site) -> None:
    site.prepare()
    kept = "SELECT filename, checksum, up_sql, down_sql FROM _migrations ORDER BY id"
    before = site.rows(kept)
    (fingerprint,) = site.rows("SELECT schema_fingerprint FROM _migrations ORDER BY id DESC LIMIT 1")
    site.do("DELETE FROM _migrations")
    assert site.migrate().returncode == 0
    assert site.rows(kept) == before
    assert site.rows("SELECT DISTINCT schema_fingerprint FROM _migrations") == [fingerprint]
    assert verify(str(site.database), site.directory, control=Control()).findings == ()
    assert site.flask("rollback", "--yes").returncode == 0
    assert site.applied() == ["001_people", "002_rebuild"]


def test_the_history_says_why_it_was_recorded(site: Site) -> None:
    site.do("DROP TABLE _migrations")
    site.prepare()
    notes = site.rows("SELECT filename, note, checksum IS NOT NULL FROM _migration_history WHERE event = 'recover'")
    note = "the ledger was lost; the schema is the one that this migration leaves"
    assert notes == [("001_people.sql", note, 1), ("002_rebuild.sql", note, 1)]


def test_json_tells_what_was_recovered(site: Site) -> None:
    site.do(*BOTH_LOST)
    found = json.loads(site.flask("migrate", "--json").stdout)
    told = [(each["severity"], each["file"]) for each in found["diagnostics"]]
    assert told == [("info", "001_people.sql"), ("info", "002_rebuild.sql")]
    assert [each["filename"] for each in found["migrations"]] == ["003_pets.sql"]


def test_comments_and_white_space_in_the_schema_do_not_count(site: Site) -> None:
    site.do(*BOTH_LOST)
    site.write({"001_people": "CREATE TABLE people(id INTEGER PRIMARY KEY, -- the key\n  name TEXT);"})
    site.write({"002_rebuild": FILES["002_rebuild"].replace("(id INTEGER", "(\n  id INTEGER")})
    assert site.migrate().returncode == 0
    assert site.rows("SELECT * FROM people") == [(1, "Ann")]


def test_the_ledger_of_the_first_runner_can_be_lost_too(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do(FILES["001_people"], ANN, FIRST_LEDGER)
    site.do("INSERT INTO _migrations (filename) VALUES ('001_people.sql')", "DROP TABLE _migrations")
    assert site.flask("migrate", "1").returncode == 0
    assert site.history() == [("recover", "001_people")]
    assert site.rows("SELECT * FROM people") == [(1, "Ann")]


@pytest.mark.parametrize("loss", [LOSSES["the ledger emptied"], BOTH_LOST], ids=["emptied", "dropped"])
@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_the_chat_store_is_recovered_at_each_version_with_its_rows(
    tmp_path: Path, version: int, loss: Sequence[str]
) -> None:
    site = Site(tmp_path / "site", {path.stem: path.read_text() for path in CHAT})
    names = sorted(path.stem for path in site.directory.iterdir())
    assert site.flask("migrate", str(version)).returncode == 0
    site.do("INSERT INTO conversations (session_id) VALUES ('s1'), ('s2')")
    if version > 1:
        message = "INSERT INTO chat_messages (conversation_id, role, content) SELECT id, 'user', 'hello'"
        site.do(f"{message} FROM conversations")
    before = state(site.database)
    site.do(*loss)
    finished = site.flask("migrate", str(version))
    assert finished.returncode == 0, finished.stderr
    after = state(site.database)
    assert (after.schema, after.rows, after.ledger) == (before.schema, before.rows, before.ledger)
    assert site.migrate().returncode == 0
    assert site.applied() == names
    assert site.value("SELECT count(*) FROM conversations") == 2
    assert site.value("SELECT count(*) FROM chat_messages") == (2 if version > 1 else 0)


# What is not certain is refused, and nothing runs.


def test_a_column_that_differs_is_told_and_nothing_runs(site: Site) -> None:
    site.do(*BOTH_LOST, "ALTER TABLE people ADD COLUMN risk TEXT")
    finished = refused(site)
    assert "That after 002_rebuild.sql is the nearest" in finished.stderr
    assert "    ~ table people\n        column risk TEXT was added\n" in finished.stderr
    assert hints(finished) == [["baseline", "2"], ["baseline", "0"]]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("CREATE TABLE extra (x)", "+ table extra"),
        ("CREATE INDEX by_name ON people (name)", "+ index by_name on people"),
        ("CREATE VIEW v AS SELECT 1", "+ view v"),
        ("CREATE TRIGGER t AFTER DELETE ON people BEGIN SELECT 1; END", "+ trigger t on people"),
    ],
)
def test_an_object_that_no_migration_makes_is_told_and_nothing_runs(site: Site, made: str, told: str) -> None:
    site.do(*BOTH_LOST, made)
    assert f"    {told}\n" in refused(site).stderr


def test_json_tells_the_differences_behind_the_error(site: Site) -> None:
    site.do(*BOTH_LOST, "CREATE TABLE extra (x)")
    error, differences = json.loads(site.flask("migrate", "--json").stdout)["diagnostics"]
    assert (error["code"], error["severity"]) == ("FA414", "error")
    assert (differences["severity"], differences["message"]) == ("info", "+ table extra")


def test_of_many_differences_twenty_lines_are_shown(site: Site) -> None:
    site.do(*BOTH_LOST, *(f"CREATE TABLE extra{at:02} (x)" for at in range(30)))
    lines = refused(site).stderr.splitlines()
    assert len([line for line in lines if "+ table extra" in line]) == 20
    assert "    … and 10 lines more" in lines


def test_of_two_that_are_equally_near_the_later_one_is_named(site: Site) -> None:
    """What it holds would not run again."""
    site.write({"003_pets": "UPDATE people SET name = 'Bob';"})
    site.do(*BOTH_LOST, "CREATE TABLE extra (x)")
    assert "That after 003_pets.sql is the nearest" in refused(site).stderr


@pytest.mark.parametrize(
    ("at", "name", "tables"),
    [(0, "Ann", {"people", "extra", "pets"}), (1, None, {"people", "extra", "pets"})],
    ids=["at the nearest", "none has run"],
)
def test_each_command_of_the_refusal_leads_on(site: Site, at: int, name: str | None, tables: set[str]) -> None:
    site.do(*BOTH_LOST, "CREATE TABLE extra (x)")
    command = hints(refused(site))[at]
    if at == 1:
        site.do("DROP TABLE people")  # else the first migration fails, as it should
    assert site.flask(*command).returncode == 0
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert site.applied() == list(FILES)
    assert site.tables() == tables
    assert [each for (each,) in site.rows("SELECT name FROM people")] == ([name] if name else [])


def test_tables_of_something_else_are_not_taken_for_migrations(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("CREATE TABLE customers (id)", "INSERT INTO customers VALUES (1)")
    assert hints(refused(site)) == [["baseline", "2"], ["baseline", "0"]]


# Migrations that change only rows.

FILL = {"003_fill": "INSERT INTO people (name) SELECT name FROM people;"}


@pytest.fixture
def filled(tmp_path: Path) -> Site:
    """The third migration doubles the rows, and leaves the schema as it is."""
    site = Site(tmp_path / "filled", {**{name: FILES[name] for name in ("001_people", "002_rebuild")}, **FILL})
    assert site.flask("migrate", "2").returncode == 0
    site.do(ANN)
    site.prepare()
    return site


@pytest.mark.parametrize(("version", "rows"), [(2, 4), (3, 2)])
def test_where_only_rows_changed_every_choice_is_named_and_each_is_right(filled: Site, version: int, rows: int) -> None:
    filled.do(*BOTH_LOST)
    finished = refused(filled)
    assert "its schema may be that after 002_rebuild.sql or that after 003_fill.sql" in finished.stderr
    commands = hints(finished)
    assert commands == [["baseline", "2"], ["baseline", "3"]]
    assert filled.flask(*commands[version - 2]).returncode == 0
    assert filled.migrate().returncode == 0
    assert filled.value("SELECT count(*) FROM people") == rows


@pytest.mark.parametrize("loss", [["DROP TABLE _migrations"], ["DELETE FROM _migrations"]], ids=["dropped", "emptied"])
def test_the_history_decides_where_only_rows_changed(filled: Site, loss: Sequence[str]) -> None:
    filled.do(*loss)
    finished = filled.migrate()
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("Recovered ") == 3
    assert filled.value("SELECT count(*) FROM people") == 2


def test_a_history_that_fits_no_schema_does_not_decide(filled: Site) -> None:
    filled.do("DELETE FROM _migrations", "DELETE FROM _migration_history WHERE filename = '001_people.sql'")
    assert "may be that after 002_rebuild.sql or that after 003_fill.sql" in refused(filled).stderr


# Migrations that cannot be replayed.


def test_what_cannot_be_replayed_is_told_and_may_have_run(site: Site) -> None:
    site.write({"003_pets": f"CREATE TEMP TABLE t AS {ENDLESS};"})
    site.do(*BOTH_LOST)
    finished = refused(site)
    assert "may be that after 002_rebuild.sql or that after 003_pets.sql" in finished.stderr
    assert "003_pets.sql cannot be replayed: it takes too long" in finished.stderr
    assert hints(finished) == [["baseline", "2"], ["baseline", "3"]]


def test_what_cannot_be_replayed_behind_the_only_match_does_no_harm(site: Site) -> None:
    site.write({"004_bad": "CREATE TABLE pets (name TEXT);"})
    site.do(*BOTH_LOST)
    finished = site.migrate()
    assert finished.returncode == 3
    assert site.applied() == list(FILES)
    assert finished.stdout.count("Recovered ") == 2


def test_a_later_file_that_is_no_migration_does_not_hinder_a_target(site: Site) -> None:
    site.write({"004_bad": "COMMIT;"})
    site.do(*BOTH_LOST)
    assert site.flask("migrate", "3").returncode == 0
    assert site.applied() == list(FILES)


def test_where_the_first_cannot_be_replayed_nothing_runs(site: Site) -> None:
    site.write({"001_people": "CREATE VIRTUAL TABLE people USING no_such_module;"})
    site.do(*BOTH_LOST)
    finished = refused(site)
    assert "001_people.sql cannot be replayed: no such module: no_such_module" in finished.stderr
    assert hints(finished) == [["baseline", "1"], ["baseline", "0"]]


# What explains an empty ledger.


def test_a_new_database_has_lost_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("PRAGMA user_version = 1", "CREATE TABLE _litestream_seq (id)", "CREATE TABLE _litestream_lock (id)")
    assert not lost(site)
    assert site.migrate().stdout.count("Applied ") == 3


def test_after_all_was_rolled_back_everything_runs(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"003_pets": FILES["003_pets"]})
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 0
    site.do("CREATE TABLE extra (x)")
    assert not lost(site)
    assert site.migrate().stdout.count("Applied ") == 1


def test_after_a_first_migration_that_failed_halfway_it_runs_again(tmp_path: Path) -> None:
    outside = "-- migrate:up transaction:false\nCREATE TABLE IF NOT EXISTS half (x);\n"
    site = Site(tmp_path / "site", {"001_half": f"{outside}SELEC 1;"})
    assert site.migrate().returncode == 3
    assert site.tables() == {"half"}
    site.write({"001_half": f"{outside}SELECT 1;"})
    assert site.migrate().stdout.count("Applied ") == 1


def test_a_first_migration_that_was_killed_halfway_is_neither_recorded_nor_run_until_somebody_decides(
    tmp_path: Path,
) -> None:
    outside = "-- migrate:up transaction:false\nCREATE TABLE IF NOT EXISTS half (x);\n"
    site = Site(tmp_path / "site", {"001_half": f"{outside}{ENDLESS};"})
    with site.migrating() as process:
        while not site.tables():
            assert process.poll() is None
        process.kill()
    site.write({"001_half": f"{outside}SELECT 1;"})
    refused = site.migrate()
    assert refused.returncode == 4
    assert "a run of 001_half.sql was killed on it" in refused.stderr
    assert site.applied() == []
    assert site.flask("baseline", "0").returncode == 0
    assert site.migrate().stdout.count("Applied ") == 1
    assert site.history() == [("failure", "001_half"), ("baseline", ""), ("apply", "001_half")]


def test_a_rollback_of_some_does_not_explain_that_none_is_recorded(site: Site) -> None:
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 0
    site.do("DELETE FROM _migrations")
    assert lost(site)
    assert site.migrate().stdout.count("Recovered ") == 2


def test_a_baseline_of_nothing_lets_everything_run(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("CREATE TABLE customers (id)", "INSERT INTO customers VALUES (1)")
    finished = site.flask("baseline", "0")
    assert finished.returncode == 0
    assert finished.stdout == "Recorded that no migration is applied\n"
    assert site.history() == [("baseline", "")]
    assert site.applied() == []
    assert site.migrate().stdout.count("Applied ") == 3
    assert site.rows("SELECT * FROM customers") == [(1,)]
    assert {each.kind for each in verify(str(site.database), site.directory, control=Control()).findings} == {"drift"}


def test_a_baseline_of_nothing_forgets_what_the_history_had_as_applied(site: Site) -> None:
    site.do("DROP TABLE _migrations", "DROP TABLE people", "CREATE TABLE customers (id)")
    refused(site)
    assert site.flask("baseline", "000").returncode == 0
    assert not lost(site)
    assert site.migrate().stdout.count("Applied ") == 3
    assert {each.kind for each in verify(str(site.database), site.directory, control=Control()).findings} == {"drift"}


def test_a_baseline_of_the_migration_with_the_number_0_records_it(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"000_zero": "CREATE TABLE zero (x);", "001_people": FILES["001_people"]})
    site.do("CREATE TABLE customers (id)")
    assert hints(refused(site)) == [["baseline", "0"]]
    assert site.flask("baseline", "0").returncode == 0
    assert site.applied() == ["000_zero"]


@pytest.mark.parametrize("prepared", [False, True], ids=["empty", "migrated"])
def test_a_baseline_of_nothing_is_refused_where_there_is_nothing_to_say(tmp_path: Path, prepared: bool) -> None:
    site = Site(tmp_path / "site", FILES)
    site.prepare() if prepared else site.do("PRAGMA user_version = 1")
    finished = site.flask("baseline", "0")
    assert finished.returncode == 4
    assert "FA409" in finished.stderr


# Doctor, status.


def test_doctor_warns_of_a_lost_ledger(site: Site) -> None:
    assert "ledger" not in site.flask("doctor").stdout
    site.do(*BOTH_LOST)
    before = snapshot(site.data)
    finished = site.flask("doctor")
    assert finished.returncode == 0
    assert "warn  ledger: it is lost" in finished.stdout
    assert "flask db migrate" in finished.stdout
    assert set(site.status().values()) == {"pending"}
    assert snapshot(site.data) == before


# Rehearsals.


def test_a_rehearsal_recovers_on_its_copy_alone(site: Site) -> None:
    site.do(*BOTH_LOST)
    before = snapshot(site.data)
    finished = site.flask("migrate", "--dry-run")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("it will be recorded, and not run") == 2
    assert "Recovered " not in finished.stdout
    assert "003_pets" in finished.stdout
    assert snapshot(site.data) == before


def test_a_rehearsal_is_refused_where_the_run_is(site: Site) -> None:
    site.do(*BOTH_LOST, "CREATE TABLE extra (x)")
    before = snapshot(site.data)
    finished = site.flask("migrate", "--dry-run")
    assert finished.returncode == 4
    assert "FA414" in finished.stderr
    assert snapshot(site.data) == before


# Kills and company.


@pytest.mark.slow
@each_loss
def test_a_kill_at_any_call_of_sqlite_during_a_recovery_runs_nothing_twice(tmp_path: Path, loss: Sequence[str]) -> None:
    site = Site(tmp_path / "site", FILES)
    assert site.flask("migrate", "2").returncode == 0
    site.do(ANN, *loss)
    whole = site.copy(tmp_path / "whole")
    assert whole.migrate().returncode == 0
    expected = state(whole.database)
    reached = set()
    for moment in count(1):
        victim = site.copy(tmp_path / str(moment))
        finished = victim.migrate(dies_at=moment)
        found = state(victim.database)
        reached.add(tuple(victim.applied()))
        assert [row[:2] for row in found.rows][:1] == [("people", 1)]
        assert finished.stdout.count("Recovered ") <= len(victim.applied())
        assert victim.migrate().returncode == 0
        assert state(victim.database) == expected
        if finished.returncode != -signal.SIGKILL:
            break
    assert moment > 50
    assert reached == {(), tuple(FILES)[:2], tuple(FILES)}


def test_of_eight_processes_at_once_one_recovers(site: Site) -> None:
    site.do(*BOTH_LOST)
    with ExitStack() as stack:
        finished = [finish(each) for each in [stack.enter_context(site.migrating()) for _ in range(8)]]
    assert [each.returncode for each in finished] == [0] * 8
    out = "".join(each.stdout for each in finished)
    assert (out.count("Recovered "), out.count("Applied ")) == (2, 1)
    assert site.history() == [("recover", "001_people"), ("recover", "002_rebuild"), ("apply", "003_pets")]
    assert site.rows("SELECT * FROM people") == [(1, "Ann")]


def test_a_schema_that_changes_while_it_is_compared_is_not_recorded(site: Site) -> None:
    site.do(*BOTH_LOST)
    with closing(sqlite3.connect(site.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with site.migrating() as process:
            wait_for_line(process.stderr, "Waiting to write")
            other.execute("CREATE TABLE extra (x)")
            other.execute("COMMIT")
            finished = finish(process)
    assert finished.returncode == 4
    assert "its schema was changed meanwhile" in finished.stderr
    assert site.applied() == []
    assert "the nearest" in refused(site).stderr


# `repair`.


def test_a_repair_of_a_file_that_is_as_it_was_applied_is_refused(site: Site) -> None:
    before = snapshot(site.data)
    finished = site.flask("repair", "1", "--reason", "nothing")
    assert finished.returncode == 4
    assert "FA410" in finished.stderr
    assert "its file is as it was applied" in finished.stderr
    assert snapshot(site.data) == before


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_repair_needs_a_reason_of_at_least_a_word(site: Site, reason: str) -> None:
    site.write({"001_people": f"{FILES['001_people']} -- edited"})
    finished = site.flask("repair", "1", "--reason", reason)
    assert finished.returncode == 2
    assert site.history() == [("apply", "001_people"), ("apply", "002_rebuild")]


def test_a_repair_accepts_what_an_older_runner_applied_without_a_checksum(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_people": FILES["001_people"]})
    site.do(FILES["001_people"], FIRST_LEDGER, "INSERT INTO _migrations (filename) VALUES ('001_people.sql')")
    assert site.flask("repair", "1", "--reason", "known").returncode == 0
