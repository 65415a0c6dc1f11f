"""A restore: the backup as it was, what it replaced kept, and nothing in between."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import backup, backup_files, ledger, restore
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.backup_files import Backup
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.databases.sqlite import copy as sqlite_copy
from financial_agent.migrator.errors import (
    BackupUnknown,
    BackupUnusable,
    DatabaseFolderMissing,
    DatabaseLocked,
    RestoreRefused,
    RunLocked,
)
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.events import Event, Warned
from financial_agent.migrator.restore import Prepared, Restored
from tests.helpers import Site, held, rows_of, snapshot, state

FILES = {
    "001_one": "CREATE TABLE one (n, text);",
    "002_two": "-- migrate:up\nCREATE TABLE two (n);\n-- migrate:down\nDROP TABLE two;",
}
CONTROL = Control(wait=0.2)


@pytest.fixture(params=["delete", "wal"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """A database at version 001 with 500 rows; 002 is pending."""
    site = Site(tmp_path / "site", {"001_one": FILES["001_one"]})
    site.do(f"PRAGMA journal_mode = {request.param}")
    site.prepare()
    site.do(rows_of(500, "one"))
    site.write(FILES)
    return site


@pytest.fixture
def policy(site: Site) -> Policy:
    return Policy("destructive", site.data / "backups", 3)


@pytest.fixture
def made(site: Site, policy: Policy) -> Backup:
    """A backup at 001; the database went on to 002, and has other rows, since."""
    made = backup.make(str(site.database), policy, "manual", CONTROL)
    site.prepare()
    site.do("DELETE FROM one WHERE n > 20", "INSERT INTO two VALUES (1)")
    return made


@contextmanager
def prepared(site: Site, policy: Policy, word: str) -> Iterator[Prepared]:
    with restore.prepared(str(site.database), policy, word, CONTROL) as found:
        yield found


def put_back(site: Site, policy: Policy, made: Backup, control: Control = CONTROL) -> Restored:
    with prepared(site, policy, made.name) as found:
        return restore.restore(str(site.database), policy, found, control)


def content(database: Path) -> tuple[Any, ...]:
    """All but the history."""
    return state(database)[:3]


def kept(site: Site, policy: Policy) -> list[Backup]:
    return [each for each in backup_files.listed(str(site.database), policy.folder) if each.kind == "restore"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# What it does.


def test_a_restore_brings_back_what_the_backup_holds(site: Site, policy: Policy, made: Backup) -> None:
    restored = put_back(site, policy, made)
    assert content(site.database) == content(made.path)
    assert restored.newest == "001_one.sql"
    assert site.status() == {"001_one": "applied", "002_two": "pending"}


def test_what_is_replaced_is_kept_as_a_checked_backup(site: Site, policy: Policy, made: Backup) -> None:
    before = state(site.database)
    restored = put_back(site, policy, made)
    (found,) = kept(site, policy)
    assert (found.path, found.version, found.checked) == (restored.kept, "002", True)
    assert state(found.path) == before


def test_a_restore_can_be_undone_by_restoring_what_it_replaced(site: Site, policy: Policy, made: Backup) -> None:
    before = content(site.database)
    put_back(site, policy, made)
    put_back(site, policy, kept(site, policy)[0])
    assert content(site.database) == before


def test_nothing_but_the_kept_backup_is_left_behind(site: Site, policy: Policy, made: Backup) -> None:
    before = names(site.data)
    put_back(site, policy, made)
    (found,) = kept(site, policy)
    assert names(site.data) == before
    assert names(policy.folder) == {each for name in (made.name, found.name) for each in (name, f"{name}.sha256")}


def test_a_restore_keeps_the_file_its_mode_and_its_journal_mode(site: Site, policy: Policy, made: Backup) -> None:
    site.database.chmod(0o640)
    inode, journal_mode = site.database.stat().st_ino, site.value("PRAGMA journal_mode")
    put_back(site, policy, made)
    assert site.database.stat().st_ino == inode
    assert site.database.stat().st_mode & 0o777 == 0o640
    assert site.value("PRAGMA journal_mode") == journal_mode


@pytest.mark.parametrize("other", ["delete", "wal"])
def test_the_journal_mode_of_the_backup_does_not_matter(site: Site, policy: Policy, made: Backup, other: str) -> None:
    journal_mode = site.value("PRAGMA journal_mode")
    site.do(f"PRAGMA journal_mode = {other}")
    second = backup.make(str(site.database), policy, "manual", CONTROL)
    site.do(f"PRAGMA journal_mode = {journal_mode}", "DELETE FROM one")
    put_back(site, policy, second)
    assert content(site.database) == content(second.path)
    assert site.value("PRAGMA journal_mode") == journal_mode


@pytest.mark.parametrize("size", [512, 8192, 65536])
def test_a_backup_with_pages_of_another_size_is_restored(tmp_path: Path, site: Site, policy: Policy, size: int) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {size}")
        connection.execute("CREATE TABLE mine (n, text)")
        connection.execute(rows_of(300, "mine"))
    journal_mode = site.value("PRAGMA journal_mode")
    with prepared(site, policy, str(other)) as found:
        restore.restore(str(site.database), policy, found, CONTROL)
    assert site.tables() == {"mine"}
    assert site.value("SELECT count(*) FROM mine") == 300
    assert (site.value("PRAGMA page_size"), site.value("PRAGMA journal_mode")) == (size, journal_mode)
    assert state(site.database)


def test_the_backup_itself_is_left_as_it_is(site: Site, policy: Policy, made: Backup) -> None:
    before = snapshot(policy.folder)
    put_back(site, policy, made)
    after = snapshot(policy.folder)
    assert {name: after[name] for name in before} == before


# The history.


def chain_holds(site: Site) -> bool:
    with closing(connect(str(site.database), readonly=True)) as db:
        columns = db.columns("_migration_history")
        rows = db.query(f"SELECT {', '.join(columns)} FROM _migration_history ORDER BY id")
    hashes = ["", *(ledger.row_hash(columns, row) for row in rows)]
    return [row[columns.index("previous_sha256")] for row in rows] == hashes[:-1]


def test_the_history_tells_what_came_after_the_backup_and_the_restore(site: Site, policy: Policy, made: Backup) -> None:
    restored = put_back(site, policy, made)
    assert restored.continues_history
    assert site.history() == [("apply", "001_one"), ("apply", "002_two"), ("restore", "001_one")]
    note = site.value("SELECT note FROM _migration_history ORDER BY id DESC LIMIT 1")
    assert note == f"from {made.name}; what was there is kept as {kept(site, policy)[0].name}"
    assert chain_holds(site)


def test_the_history_goes_on_after_a_restore(site: Site, policy: Policy, made: Backup) -> None:
    put_back(site, policy, made)
    assert site.migrate().returncode == 0
    assert site.history()[-2:] == [("restore", "001_one"), ("apply", "002_two")]
    assert chain_holds(site)


def test_a_history_that_the_databases_does_not_continue_is_told_and_stays_as_it_is(
    site: Site, policy: Policy, made: Backup
) -> None:
    site.do("UPDATE _migration_history SET note = 'tampered' WHERE id = 1")
    events: list[Event] = []
    restored = put_back(site, policy, made, Control(report=events.append))
    assert not restored.continues_history
    assert [event.filename for event in events if isinstance(event, Warned)] == [made.name]
    assert site.history() == [("apply", "001_one"), ("restore", "001_one")]
    assert chain_holds(site)


def test_a_backup_without_a_ledger_gets_one(tmp_path: Path, site: Site, policy: Policy) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (n)")
    with prepared(site, policy, str(tmp_path / "other.db")) as found:
        restore.restore(str(site.database), policy, found, CONTROL)
    assert site.applied() == []
    assert site.history() == [("apply", "001_one"), ("restore", "")]


# Looking first.


def test_the_comparison_tells_each_tables_rows_now_and_in_the_backup(site: Site, policy: Policy, made: Backup) -> None:
    with prepared(site, policy, made.name) as found:
        assert found.rows == {"one": (20, 500), "two": (1, None)}
        assert (found.contents.newest, found.current and found.current.newest) == ("001_one.sql", "002_two.sql")


def test_looking_changes_nothing(site: Site, policy: Policy, made: Backup) -> None:
    before = snapshot(site.data)
    with prepared(site, policy, made.name):
        pass
    assert snapshot(site.data) == before


@pytest.mark.parametrize("word", ["", "tuesday", "app", "/", "/nonexistent/app.db"])
def test_a_word_that_names_no_backup_is_refused(site: Site, policy: Policy, word: str) -> None:
    with pytest.raises(BackupUnknown), prepared(site, policy, word):
        pass


def test_the_database_itself_is_no_backup_of_it(site: Site, policy: Policy) -> None:
    (site.root / "link.db").symlink_to(site.database)
    for word in (site.database, site.root / "link.db"):
        with pytest.raises(RestoreRefused), prepared(site, policy, str(word)):
            pass


def test_a_backup_that_was_changed_since_is_refused(site: Site, policy: Policy, made: Backup) -> None:
    with closing(sqlite3.connect(made.path)) as connection, connection:
        connection.execute("DELETE FROM one")
    before = content(site.database)
    with pytest.raises(BackupUnusable, match="SHA-256"):
        put_back(site, policy, made)
    assert content(site.database) == before


def test_a_damaged_backup_without_a_checksum_is_refused(site: Site, policy: Policy, made: Backup) -> None:
    made.path.with_name(f"{made.name}.sha256").unlink()
    with made.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(BackupUnusable):
        put_back(site, policy, made)
    assert site.applied() == ["001_one", "002_two"]


def test_a_missing_folder_is_told_and_not_made(site: Site, policy: Policy, made: Backup) -> None:
    site.database = site.data / "mistyped" / "app.db"
    with pytest.raises(DatabaseFolderMissing), prepared(site, policy, str(made.path)):
        pass
    assert not site.database.parent.exists()


# Beside others.


def test_a_restore_waits_for_another_run(site: Site, policy: Policy, made: Backup) -> None:
    lock = site.data / "app.db-migrate-lock"
    with held(lock, "PRAGMA journal_mode = MEMORY", "BEGIN EXCLUSIVE"), pytest.raises(RunLocked):
        put_back(site, policy, made)
    assert site.applied() == ["001_one", "002_two"]


HOLDERS = {
    "a writer": ("BEGIN IMMEDIATE", "DELETE FROM one WHERE n = 1"),
    "a reader": ("BEGIN", "SELECT * FROM one"),
}


@pytest.mark.parametrize("statements", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_restore_is_refused_while_others_hold_the_database(
    site: Site, policy: Policy, made: Backup, statements: tuple[str, ...]
) -> None:
    before = state(site.database)
    with held(site.database, *statements), pytest.raises(DatabaseLocked):
        put_back(site, policy, made)
    assert state(site.database) == before
    assert kept(site, policy) == []


@pytest.mark.parametrize("statements", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_restore_goes_on_when_the_others_let_go(
    site: Site, policy: Policy, made: Backup, statements: tuple[str, ...]
) -> None:
    with held(site.database, *statements) as release:
        releasing = [release]

        def let_go(event: Event) -> None:
            if "let go" in getattr(event, "purpose", "") and releasing:
                releasing.pop()()

        put_back(site, policy, made, Control(wait=20, report=let_go))
    assert content(site.database) == content(made.path)


def test_those_that_wait_are_answered_while_a_restore_waits(site: Site, policy: Policy, made: Backup) -> None:
    """Waiting, a restore keeps nobody out."""
    answers = []

    def ask(event: Event) -> None:
        if "let go" in getattr(event, "purpose", ""):
            answers.append(site.value("SELECT count(*) FROM one"))

    with held(site.database, "BEGIN", "SELECT * FROM one"), pytest.raises(DatabaseLocked):
        put_back(site, policy, made, Control(wait=0.5, report=ask))
    assert answers
    assert set(answers) == {20}


READING = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
for line in sys.stdin:
    print(connection.execute("SELECT count(*) FROM one").fetchone()[0], flush=True)
"""


def test_a_connection_that_was_open_before_sees_what_was_restored(tmp_path: Path) -> None:
    """In WAL mode, a restore waits for it to close."""
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    site.do(rows_of(500, "one"))
    policy = Policy("always", site.data / "backups", 3)
    made = backup.make(str(site.database), policy, "manual", CONTROL)
    site.do("DELETE FROM one")
    command = [sys.executable, "-c", READING, str(site.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as reader:
        assert reader.stdin
        assert reader.stdout
        reader.stdin.write("count\n")
        assert reader.stdout.readline() == "0\n"
        put_back(site, policy, made)
        reader.stdin.write("count\n")
        assert reader.stdout.readline() == "500\n"
        reader.stdin.close()


def test_an_idle_connection_in_wal_mode_keeps_a_restore_waiting(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("PRAGMA journal_mode = wal")
    site.prepare()
    policy = Policy("always", site.data / "backups", 3)
    made = backup.make(str(site.database), policy, "manual", CONTROL)
    with held(site.database, "SELECT * FROM one"), pytest.raises(DatabaseLocked):
        put_back(site, policy, made)


def test_an_interruption_leaves_the_database_as_it_was(
    site: Site, policy: Policy, made: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_copy, "_STEP", 4)
    before = state(site.database)
    for question in range(1, 100):
        asked = 0

        def stop(question: int = question) -> int | None:
            nonlocal asked
            asked += 1
            return 15 if asked >= question else None

        try:
            put_back(site, policy, made, Control(stop=stop))
        except Interrupted:
            assert state(site.database) == before
        else:
            break
    assert question > 10
    assert content(site.database) == content(made.path)


# A database that is missing, or no longer is one.


def remove(site: Site) -> None:
    site.database.unlink()


def overwrite(site: Site) -> None:
    site.database.write_bytes(b"This is a letter, not a database. " * 100)


def damage(site: Site) -> None:
    with site.database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


@pytest.mark.parametrize("ruin", [overwrite, damage])
def test_what_is_no_longer_a_database_is_replaced_and_kept(
    site: Site, policy: Policy, made: Backup, ruin: Callable[[Site], None]
) -> None:
    ruin(site)
    ruins = site.database.read_bytes()
    restored = put_back(site, policy, made)
    assert content(site.database) == content(made.path)
    (found,) = kept(site, policy)
    assert (found.path, found.checked) == (restored.kept, False)
    assert found.path.read_bytes() == ruins


def test_what_replaces_a_ruin_may_be_read_by_no_more_than_that(site: Site, policy: Policy, made: Backup) -> None:
    overwrite(site)
    site.database.chmod(0o600)
    made.path.chmod(0o644)
    put_back(site, policy, made)
    assert site.database.stat().st_mode & 0o777 == 0o600


def test_a_missing_database_is_put_in_place_without_what_lay_beside_it(
    site: Site, policy: Policy, made: Backup
) -> None:
    """A journal of another file would ruin it."""
    old = {f"app.db-{kind}": f"old {kind}".encode() for kind in ("wal", "journal", "shm")}
    site.database.unlink()
    for name, text in old.items():
        (site.data / name).write_bytes(text)
    restored = put_back(site, policy, made)
    assert (restored.newest, restored.kept) == ("001_one.sql", None)
    assert names(site.data) == {"app.db", "app.db-migrate-lock", "backups"}
    assert content(site.database) == content(made.path)
    beside = {path.name.rpartition("-")[2]: path.read_bytes() for path in policy.folder.glob("*-restore.db-*")}
    assert beside == {"wal": b"old wal", "journal": b"old journal"}


def test_a_missing_database_gets_the_mode_of_its_backup(site: Site, policy: Policy, made: Backup) -> None:
    made.path.chmod(0o640)
    site.database.unlink()
    put_back(site, policy, made)
    assert site.database.stat().st_mode & 0o777 == 0o640 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_database_behind_a_link_is_restored_behind_the_link(site: Site, policy: Policy, made: Backup) -> None:
    real = site.root / "elsewhere.db"
    site.do("PRAGMA journal_mode = delete")
    site.database.rename(real)
    site.database.symlink_to(real)
    with prepared(site, policy, str(made.path)) as found:
        restore.restore(str(site.database), policy, found, CONTROL)
    assert site.database.is_symlink()
    assert content(real) == content(made.path)


def test_a_page_that_is_damaged_does_not_keep_a_restore_from_working(site: Site, policy: Policy, made: Backup) -> None:
    """What it replaces is kept, but does not count as checked."""
    site.do("PRAGMA wal_checkpoint(TRUNCATE)")
    root = site.value("SELECT rootpage FROM sqlite_schema WHERE name = 'one'")
    with site.database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    put_back(site, policy, made)
    assert content(site.database) == content(made.path)
    (found,) = kept(site, policy)
    assert not found.checked


# The command.

TABLES = {
    "one": {"before": 20, "after": 500, "inserted": 480, "updated": 0, "deleted": 0},
    "two": {"before": 1, "after": None, "inserted": 0, "updated": 0, "deleted": 1},
}


def test_the_command_shows_what_comes_back_and_asks(site: Site, policy: Policy, made: Backup) -> None:
    before = snapshot(site.data)
    finished = site.flask("restore", made.name)
    assert finished.returncode == 4
    assert "FA403" in finished.stderr
    assert "  one: 20 now, 500 in the backup: 480 rows will come back\n" in finished.stderr
    assert "  two: 1 row now, and the table will be gone\n" in finished.stderr
    assert snapshot(site.data) == before


def test_with_yes_the_command_does_not_ask(site: Site, policy: Policy, made: Backup) -> None:
    finished = site.flask("restore", made.name, "--yes")
    assert finished.returncode == 0, finished.stderr
    assert f"Restored {made.name}: {site.database} is at 001_one.\n" in finished.stdout
    assert content(site.database) == content(made.path)


def test_the_command_answers_in_json(site: Site, policy: Policy, made: Backup) -> None:
    finished = site.flask("restore", str(made.path), "--yes", "--json")
    answer = json.loads(finished.stdout)
    (found,) = kept(site, policy)
    assert answer["restored"] == {
        "backup": str(made.path),
        "newest": "001_one.sql",
        "kept": str(found.path),
        "continues_history": True,
        "tables": TABLES,
    }
    assert finished.stderr == ""


def test_a_dry_run_only_shows_what_a_restore_would_do(site: Site, policy: Policy, made: Backup) -> None:
    before = snapshot(site.data)
    shown = site.flask("restore", made.name, "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "  one: 20 now, 500 in the backup: 480 rows will come back\n" in shown.stdout
    answer = json.loads(site.flask("restore", made.name, "--dry-run", "--json").stdout)
    assert answer["preview"] == {"backup": str(made.path), "newest": "001_one.sql", "tables": TABLES}
    assert snapshot(site.data) == before


def test_rows_that_come_and_go_are_told_even_if_they_are_as_many(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_one": "CREATE TABLE one (id INTEGER PRIMARY KEY, text);"})
    site.prepare()
    site.do("INSERT INTO one VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    made = backup.make(str(site.database), Policy("always", site.data / "backups", 3), "manual", CONTROL)
    site.do("DELETE FROM one WHERE id = 1", "UPDATE one SET text = 'x' WHERE id = 2", "INSERT INTO one VALUES (4, 'd')")
    shown = site.flask("restore", made.name, "--dry-run").stdout
    changes = "1 row will come back, 1 row will be gone, 1 row will be as before"
    assert f"  one: 3 now, 3 in the backup: {changes}\n" in shown


def test_the_history_names_the_commit_that_a_restore_ran_at(site: Site, policy: Policy, made: Backup) -> None:
    commit = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")
    for command in (("git", "init", "-q"), commit):
        subprocess.run(command, cwd=site.directory, check=True)
    assert site.flask("restore", made.name, "--yes").returncode == 0
    head = subprocess.run(("git", "rev-parse", "HEAD"), cwd=site.directory, check=True, capture_output=True, text=True)
    told = site.value("SELECT git_commit FROM _migration_history WHERE event = 'restore'")
    assert told == head.stdout.strip() + "+"  # the files are not in it


def test_doctor_tells_how_many_backups_there_are_and_how_large(site: Site, policy: Policy, made: Backup) -> None:
    assert f"ok    backups: 1 in {policy.folder}, {made.size / 1000:.0f} KB\n" in site.flask("doctor").stdout


def test_the_command_exits_with_5_while_the_database_is_held(site: Site, policy: Policy, made: Backup) -> None:
    with held(site.database, "BEGIN", "SELECT * FROM one"):
        finished = site.flask("restore", made.name, "--yes", "--wait", "0.1")
    assert finished.returncode == 5
    assert "FA502" in finished.stderr


def test_backups_lists_what_backup_made(site: Site) -> None:
    made = json.loads(site.flask("backup", "--json").stdout)["backups"][0]
    listed = site.flask("backups")
    assert listed.returncode == 0
    assert [line.split()[:2] for line in listed.stdout.splitlines()[2:]] == [[made["name"], "001"]]
    assert json.loads(site.flask("backups", "--json").stdout)["backups"] == [made]


def test_verification_knows_what_a_restore_brought_back(tmp_path: Path) -> None:
    site = Site(tmp_path / "verified", {"001_a": "-- migrate:up\nCREATE TABLE a (x);\n-- migrate:down\nDROP TABLE a;"})
    site.prepare()
    backup = str(tmp_path / "kept.db")
    assert site.flask("backup", backup).returncode == 0
    assert site.flask("rollback", "--yes").returncode == 0
    site.prepare()
    assert site.flask("restore", backup, "--yes").returncode == 0
    assert [event for event, _ in site.history()] == ["apply", "rollback", "apply", "restore"]
    verified = site.flask("verify")
    assert verified.returncode == 0, verified.stdout
    site.do("UPDATE _migrations SET duration_ms = 77")
    assert "its row in the ledger was changed" in site.flask("verify").stdout
