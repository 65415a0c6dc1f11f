"""Ways around what backups, restores and the records promise that were found by trying to break them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import backup, restore
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.errors import BackupFailed
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.events import Copying, Event
from tests.helpers import FLASK, Site, rows_of, run_with, site_with_a_draft


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_with_a_draft(tmp_path / "site")


# A lost ledger stays lost until it is recovered.


def test_a_migration_whose_entry_is_gone_does_not_run_again_against_the_history(site: Site) -> None:
    site.do("DELETE FROM _migrations WHERE filename = '002_clean.sql'")
    assert site.migrate().returncode == 4
    assert site.value("SELECT count(*) FROM chat") == 2


# The ledger's own tables hide nothing.

EVIL = "CREATE TRIGGER evil AFTER INSERT ON _migrations BEGIN DELETE FROM chat; END"
HUSH = "CREATE TRIGGER hush BEFORE INSERT ON _migration_history BEGIN SELECT RAISE(IGNORE); END"


@pytest.mark.parametrize("trigger", [EVIL, HUSH], ids=["ledger", "history"])
def test_verify_tells_of_a_trigger_on_a_table_of_the_ledger(site: Site, trigger: str) -> None:
    site.do(trigger)
    finished = site.flask("verify")
    assert finished.returncode == 1
    assert trigger.split()[2] in finished.stdout


def test_a_trigger_on_the_ledger_deletes_nothing_without_a_backup(site: Site) -> None:
    site.do(EVIL)
    site.write({"003_more": "CREATE TABLE more (a);"})
    finished = site.migrate()
    kept = list((site.data / "backups").glob("*-migrate.db"))
    assert finished.returncode == 4 or kept
    assert site.value("SELECT count(*) FROM chat") == 2 or kept


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE _migrations SET checksum = x'ff00'",
        "UPDATE _migrations SET filename = CAST(x'3030325fff2e73716c' AS TEXT) WHERE filename LIKE '002%'",
    ],
    ids=["a checksum of bytes", "a name that is not UTF-8"],
)
@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_tampered_entry_still_gets_one_object(site: Site, change: str, command: str) -> None:
    site.do(change)
    finished = site.flask(command, "--json")
    assert json.loads(finished.stdout)["command"] == command


def test_a_tampered_entry_does_not_keep_a_good_backup_from_being_restored(site: Site) -> None:
    assert site.flask("backup", str(site.root / "good.db")).returncode == 0
    site.do("UPDATE _migrations SET filename = printf('%0900d', 1) || '_x.sql' WHERE filename LIKE '002%'")
    finished = site.flask("restore", str(site.root / "good.db"), "--yes")
    assert finished.returncode == 0, finished.stderr
    assert site.applied() == ["001_chat", "002_clean"]


# No row's content leaves the database.


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE chat SET msg = json_extract('{}', msg);",
        "CREATE VIRTUAL TABLE f USING fts5(a); UPDATE chat SET msg = (SELECT max(a) FROM f WHERE f MATCH msg || ':x');",
    ],
    ids=["a JSON path", "a full-text query"],
)
def test_an_error_that_quotes_a_row_is_neither_shown_nor_kept(site: Site, sql: str) -> None:
    site.do("UPDATE chat SET msg = 'hunter2'")
    site.write({"003_quote": sql})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "hunter2" not in finished.stderr
    assert "hunter2" not in site.value("SELECT error FROM _migration_history WHERE event = 'failure'")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a member of another group")
def test_a_backup_is_not_for_a_group_that_may_not_read_the_database(site: Site) -> None:
    for path in (site.data, *site.data.iterdir()):
        os.chown(path, 0, 4711)
        path.chmod(0o770 if path.is_dir() else 0o660)
    target = site.root / "shared"
    target.mkdir()
    target.chmod(0o777)
    member = ["setpriv", "--euid=65534", "--egid=65534", "--groups=4711"]
    member += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # the interpreter may be root's alone
    finished = run_with(member, [*FLASK, "backup", str(target)], site)
    assert finished.returncode == 0, finished.stderr
    (made,) = target.glob("*.db")
    assert made.stat().st_gid == 4711 or not made.stat().st_mode & 0o070


# What counts as a backup, and where one may go.


@pytest.mark.parametrize("content", ["", "PRAGMA user_version = 1"], ids=["no byte", "no table"])
def test_a_file_that_holds_no_table_is_no_backup(site: Site, content: str) -> None:
    path = site.root / "empty.db"
    path.touch()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(content)
    finished = site.flask("restore", str(path), "--yes")
    assert (finished.returncode, "FA431" in finished.stderr) == (4, True)
    assert site.value("SELECT count(*) FROM chat") == 2


def test_a_file_that_came_into_being_meanwhile_is_not_replaced_by_a_backup(site: Site) -> None:
    target = site.root / "mine.db"

    def interfere(event: Event) -> None:
        target.write_text("mine")

    with pytest.raises(BackupFailed):
        backup.make_at(str(site.database), target, Control(report=interfere))
    assert target.read_text() == "mine"
    assert not target.with_name("mine.db.sha256").exists()


def test_an_empty_path_is_no_folder_for_a_backup(site: Site) -> None:
    assert site.flask("backup", "").returncode == 2
    assert not list(site.root.glob("*.db"))


@pytest.mark.parametrize("words", [["backup", "x" * 300], ["restore", "x" * 5000, "--yes"]], ids=["backup", "restore"])
def test_a_path_that_is_too_long_is_told_as_that(site: Site, words: list[str]) -> None:
    finished = site.flask(*words, "--json")
    assert json.loads(finished.stdout)["exit_code"] == finished.returncode != 1


@pytest.mark.parametrize("name", [b"caf\xe9.db", b"two\nlines.db", b"back\\slash.db"])
def test_a_database_of_any_name_can_be_backed_up(site: Site, name: bytes) -> None:
    site.database = site.database.rename(site.data / os.fsdecode(name))
    finished = site.flask("backup", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["backups"]
    sums = [path.name for path in (site.data / "backups").glob("*.sha256")]
    subprocess.run(["sha256sum", "--check", "--status", *sums], cwd=site.data / "backups", check=True)


def test_an_index_on_the_applications_own_collation_is_no_damage(site: Site) -> None:
    with closing(sqlite3.connect(site.database)) as connection:
        connection.create_collation("german", lambda one, two: (one > two) - (one < two))
        connection.execute("CREATE INDEX sorted ON chat (msg COLLATE german)")
    finished = site.flask("backup")
    assert finished.returncode == 0, finished.stderr


def test_a_restore_that_fails_leaves_no_copy_of_what_it_did_not_replace(site: Site) -> None:
    assert site.flask("backup", str(site.root / "good.db")).returncode == 0
    policy = Policy("never", site.data / "backups", 10)

    def stop_at_the_exchange() -> int | None:
        return 15 if purposes[-1:] == ["restoring"] else None

    purposes: list[str] = []
    control = Control(
        stop=stop_at_the_exchange,
        report=lambda event: purposes.append(event.purpose) if isinstance(event, Copying) else None,
    )
    site.do("CREATE TABLE filler AS " + rows_of(200_000))
    with closing(sqlite3.connect(site.root / "good.db")) as good:
        good.execute("CREATE TABLE filler AS " + rows_of(200_000))
    (site.root / "good.db.sha256").unlink()
    with (
        restore.prepared(str(site.database), policy, str(site.root / "good.db"), control) as prepared,
        pytest.raises(Interrupted),
    ):
        restore.restore(str(site.database), policy, prepared, control)
    assert not list(policy.folder.glob("*.db"))


# The note of what is being run.


def test_the_note_of_a_run_does_not_follow_a_link(site: Site) -> None:
    target = site.root / "target"
    (site.data / "app.db-migrate-attempt").symlink_to(target)
    site.write({"003_more": "CREATE TABLE more (a);"})
    assert site.migrate().returncode == 0
    assert not target.exists()


def test_a_pipe_in_the_place_of_the_note_keeps_no_run_waiting(site: Site) -> None:
    os.mkfifo(site.data / "app.db-migrate-attempt")
    site.write({"003_more": "CREATE TABLE more (a);"})
    with site.migrating() as process:
        process.wait()
    assert process.returncode in (0, 4)
