"""Ways around what rehearsals, recovery and the ledger promise that were found by trying to break them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers import FLASK, Site, run_with, site_with_a_draft, snapshot
from tests.test_environment_faults import UNPRIVILEGED


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_with_a_draft(tmp_path / "site")


def without_ledger(site: Site, path: Path) -> Path:
    shutil.copyfile(site.database, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE _migrations")
        connection.execute("DROP TABLE _migration_history")
    return path


# A rehearsal stays on its copy.


@pytest.mark.parametrize("marker", ["-- migrate:up", "-- migrate:up transaction:false"])
def test_a_rehearsal_refuses_to_attach_the_very_database(site: Site, marker: str) -> None:
    attach = f"-- migrate:allow attach\n{marker}\nATTACH '{site.database}' AS live;\nDELETE FROM live.chat;"
    site.write({"003_beyond": attach})
    before = snapshot(site.data)
    finished = site.flask("migrate", "--dry-run")
    assert finished.returncode == 4
    assert "FA415" in finished.stderr
    assert f"{site.directory}/003_beyond.sql:3:1" in finished.stderr
    assert snapshot(site.data) == before


def test_a_rehearsal_refuses_to_vacuum_into_another_file(site: Site) -> None:
    target = site.root / "left.db"
    site.write({"003_copy": f"-- migrate:up transaction:false\nVACUUM/**/main into '{target}';"})
    assert site.flask("migrate", "--dry-run").returncode == 4
    assert not target.exists()


def test_a_rehearsal_does_not_try_a_down_section_that_attaches(site: Site) -> None:
    down = f"ATTACH '{site.database}' AS live;\nDELETE FROM live.chat;"
    site.write({"003_back": f"-- migrate:allow attach\n-- migrate:up\nSELECT 1;\n-- migrate:down\n{down}"})
    before = snapshot(site.data)
    finished = site.flask("migrate", "--dry-run")
    assert finished.returncode == 0, finished.stderr
    assert "the down section fails: FA415" in finished.stdout
    assert snapshot(site.data) == before
    site.prepare()
    assert site.flask("rollback").returncode == 4
    assert site.value("SELECT count(*) FROM chat") == 2


# A lost ledger stays lost until it is recovered.


@pytest.mark.parametrize("live", ["there", "missing"])
def test_a_restored_database_without_a_ledger_does_not_look_new(site: Site, live: str) -> None:
    dump = without_ledger(site, site.root / "dump.db")
    if live == "missing":
        site.database.unlink()
    assert site.flask("restore", str(dump), "--yes").returncode == 0
    finished = site.migrate()
    assert (finished.returncode, "FA414" in finished.stderr) == (4, True)
    assert site.value("SELECT count(*) FROM chat") == 2


def test_the_note_of_a_killed_run_does_not_make_a_database_without_a_ledger_look_new(site: Site) -> None:
    shutil.move(without_ledger(site, site.root / "dump.db"), site.database)
    note = {"filename": "002_clean.sql", "direction": "up", "started_at": "x", "git_commit": None}
    note |= {"process": 1, "os_user": "a", "host": "h"}
    (site.data / "app.db-migrate-attempt").write_text(json.dumps(note))
    finished = site.migrate()
    assert (finished.returncode, "FA414" in finished.stderr) == (4, True)
    assert site.value("SELECT count(*) FROM chat") == 2


def test_a_first_migration_that_failed_halfway_can_be_corrected_and_run_again(tmp_path: Path) -> None:
    half = "-- migrate:up transaction:false\nCREATE TABLE IF NOT EXISTS half (a);\n"
    site = Site(tmp_path / "half", {"001_half": f"{half}SELEC 1;"})
    assert site.migrate().returncode == 3
    site.write({"001_half": f"{half}SELECT 1;"})
    assert site.migrate().returncode == 0
    assert site.applied() == ["001_half"]


def test_a_migration_whose_row_was_lost_does_not_run_again_and_can_be_recorded_again(site: Site) -> None:
    site.do("DELETE FROM _migrations WHERE filename = '002_clean.sql'")
    for words in (["migrate"], ["migrate", "--dry-run"]):
        finished = site.flask(*words)
        assert (finished.returncode, "FA417" in finished.stderr) == (4, True)
    assert site.flask("repair", "2", "--reason", "its row was lost").returncode == 0
    assert site.applied() == ["001_chat", "002_clean"]
    assert site.flask("verify").returncode == 0
    assert site.value("SELECT count(*) FROM chat") == 2


def test_looking_at_the_sql_runs_nothing_but_a_rehearsal(site: Site) -> None:
    site.write({"003_less": "DELETE FROM chat;"})
    before = snapshot(site.data)
    assert site.flask("migrate", "--show-sql").returncode == 2
    assert site.flask("rollback", "--show-sql").returncode == 2
    assert snapshot(site.data) == before


def test_json_names_the_backup_that_a_run_made_also_when_it_failed(site: Site) -> None:
    site.write({"003_less": "DELETE FROM chat;"})
    made = json.loads(site.flask("migrate", "--json").stdout)["backup"]
    assert Path(made).is_relative_to(site.data / "backups")
    site.write({"004_fails": "DELETE FROM chat; SELEC 1;"})
    failed = json.loads(site.flask("migrate", "--json").stdout)
    assert failed["exit_code"] == 3
    assert Path(failed["backup"]).exists()


def test_who_may_only_read_does_not_run_the_first_statement(tmp_path: Path) -> None:
    ran = "-- migrate:up\nSELECT 1;\n-- migrate:down transaction:false\nPRAGMA optimize;\n"
    site = Site(tmp_path / "read", {"001_optimize": ran})
    site.prepare()
    site.database.chmod(0o444)
    finished = run_with(UNPRIVILEGED, [*FLASK, "rollback", "--yes"], site)
    assert finished.returncode == 2
    assert "FA105" in finished.stderr
    assert "took effect" not in finished.stderr


# What others may have put in the way.


@pytest.mark.parametrize(
    "trigger",
    [
        "CREATE TRIGGER evil AFTER INSERT ON _migrations BEGIN DELETE FROM chat; END",
        "CREATE TRIGGER hush BEFORE INSERT ON _migration_history BEGIN SELECT RAISE(IGNORE); END",
    ],
)
def test_a_trigger_on_the_ledger_is_told_and_fires_never(site: Site, trigger: str) -> None:
    site.do(trigger)
    assert site.flask("verify").returncode == 1
    site.write({"003_more": "CREATE TABLE more (x);"})
    finished = site.migrate()
    assert (finished.returncode, "FA407" in finished.stderr) == (4, True)
    assert site.value("SELECT count(*) FROM chat") == 2
    assert site.applied() == ["001_chat", "002_clean"]


@pytest.mark.parametrize(
    "sql",
    ["UPDATE chat SET id = json_extract('{}', msg);", "SELECT * FROM words WHERE words MATCH (SELECT msg FROM chat);"],
)
def test_no_row_s_content_gets_into_a_message_or_the_history(site: Site, sql: str) -> None:
    site.do("UPDATE chat SET msg = 'secret: \"word'")
    site.write({"003_words": f"CREATE VIRTUAL TABLE words USING fts5 (x); INSERT INTO words VALUES ('a'); {sql}"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "secret" not in finished.stderr
    assert "word:" not in finished.stderr
    assert not [error for (error,) in site.rows("SELECT error FROM _migration_history") if "secret" in str(error)]


def test_the_note_of_a_run_follows_no_link_and_waits_for_nobody(site: Site) -> None:
    note, target = site.data / "app.db-migrate-attempt", site.root / "elsewhere"
    note.symlink_to(target)
    site.write({"003_more": "CREATE TABLE more (x);"})
    assert site.migrate().returncode == 0
    assert not target.exists()
    os.mkfifo(note)
    site.write({"004_more": "CREATE TABLE even_more (x);"})
    assert site.migrate().returncode == 0


@pytest.mark.parametrize("value", ["checksum = x'ff00'", "filename = CAST(x'3030325fff2e73716c' AS TEXT)"])
def test_a_row_of_the_ledger_that_is_no_text_gets_an_answer(site: Site, value: str) -> None:
    site.do(f"UPDATE _migrations SET {value} WHERE id = 2")
    for command in ("status", "verify", "migrate"):
        found = json.loads(site.flask(command, "--json").stdout)
        assert found["exit_code"] in (0, 1, 4)
