"""Backups: checked, complete or not there, named by what they hold, and never more than asked for."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from financial_agent.config import DEFAULTS, backups
from financial_agent.migrator import backup, backup_files
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.backup_files import Backup
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases.private_folder import private_folder
from financial_agent.migrator.databases.sqlite import copy as sqlite_copy
from financial_agent.migrator.errors import BackupFailed, BackupUnusable, ConfigurationInvalid, DatabaseLocked, NoSpace
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.events import Copying, Event
from tests.helpers import Site, held, rows_of, snapshot, state, until

CONTROL = Control(wait=1)


@pytest.fixture(params=["delete", "wal"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """A database at version 002 with 500 rows."""
    site = Site(tmp_path / "site", {"001_one": "CREATE TABLE one (n, text);", "002_two": "CREATE TABLE two (n);"})
    site.do(f"PRAGMA journal_mode = {request.param}")
    site.prepare()
    site.do(rows_of(500, "one"))
    return site


@pytest.fixture
def policy(site: Site) -> Policy:
    return Policy("destructive", site.data / "backups", 3)


def make(site: Site, policy: Policy, kind: backup_files.Kind = "manual", control: Control = CONTROL) -> Backup:
    return backup.make(str(site.database), policy, kind, control)


def listed(site: Site, policy: Policy) -> list[Backup]:
    return backup_files.listed(str(site.database), policy.folder)


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# What is made.


def test_a_backup_holds_what_the_database_holds(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    assert state(made.path) == state(site.database)


def test_a_backup_leaves_the_files_of_the_database_as_they_were(site: Site, policy: Policy) -> None:
    before = snapshot(site.data)
    make(site, policy)
    after = snapshot(site.data)
    assert {name: after[name] for name in before} == before


def test_a_backup_is_named_by_database_version_time_and_kind(site: Site, policy: Policy) -> None:
    made = make(site, policy, "rollback")
    stamp = f"{made.made_at:%Y%m%dT%H%M%S}.{made.made_at.microsecond // 1000:03}Z"
    assert made.name == f"app-002-{stamp}-rollback.db"
    assert (made.version, made.kind, made.checked) == ("002", "rollback", True)
    assert made.size == made.path.stat().st_size


def test_a_database_without_a_ledger_has_a_backup_without_a_version(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.do("CREATE TABLE mine (n)")
    made = make(site, Policy("always", site.data / "backups", 3))
    assert made.name.startswith("app-none-")
    assert made.version is None


def test_sha256sum_can_check_a_backup(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    said = subprocess.run(
        ["sha256sum", "--check", f"{made.name}.sha256"], cwd=policy.folder, check=True, capture_output=True, text=True
    )
    assert said.stdout == f"{made.name}: OK\n"


def test_nothing_but_the_backup_and_its_checksum_stays_in_the_folder(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    assert contents(policy.folder) == {made.name, f"{made.name}.sha256"}


def test_others_may_do_with_a_backup_no_more_than_with_the_database(site: Site, policy: Policy) -> None:
    site.database.chmod(0o640)
    with umask(0):
        made = make(site, policy)
    assert made.path.stat().st_mode & 0o777 == 0o640
    assert policy.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_database(site: Site, policy: Policy) -> None:
    os.chown(site.database, 12345, 54321)
    made = make(site, policy)
    for path in (policy.folder, made.path, made.path.with_name(f"{made.name}.sha256")):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_backups_made_at_the_same_time_have_names_of_their_own(
    site: Site, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(site, policy)

    monkeypatch.setattr(backup_files, "now", lambda: first.made_at)
    second, third = make(site, policy), make(site, policy)
    assert len({first.name, second.name, third.name}) == 3
    assert [each.path.exists() for each in (first, second, third)] == [True] * 3


def test_the_progress_of_the_copy_is_reported(site: Site, policy: Policy) -> None:
    events: list[Event] = []
    make(site, policy, control=Control(report=events.append))
    copying = [event for event in events if isinstance(event, Copying)]
    assert copying[-1].done_bytes == copying[-1].total_bytes == site.database.stat().st_size


def test_a_backup_can_be_made_as_a_named_file_or_in_a_named_folder(site: Site, tmp_path: Path) -> None:
    database = str(site.database)
    assert backup.make_at(database, tmp_path / "mine.db", CONTROL).path == tmp_path / "mine.db"
    (tmp_path / "folder").mkdir()
    elsewhere = backup.make_at(database, tmp_path / "folder", CONTROL).path
    assert elsewhere.parent == tmp_path / "folder"
    assert state(tmp_path / "mine.db") == state(elsewhere) == state(site.database)


@pytest.mark.parametrize("name", ["mine.db", "mine.db.sha256"])
def test_a_backup_never_overwrites_a_file(site: Site, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(BackupFailed, match="File exists") as caught:
        backup.make_at(str(site.database), tmp_path / "mine.db", CONTROL)
    assert caught.value.hint.startswith("Give another name")
    assert {path.name for path in tmp_path.iterdir()} == {name, "site"}
    assert (tmp_path / name).read_text() == "precious"


# What fails.


def test_a_damaged_database_has_no_backup(site: Site, policy: Policy) -> None:
    root = site.value("SELECT rootpage FROM sqlite_schema WHERE name = 'one'")
    with site.database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(BackupFailed, match="not sound"):
        make(site, policy)
    assert contents(policy.folder) == set()


def test_a_database_whose_ledger_cannot_be_read_has_no_backup(site: Site, policy: Policy) -> None:
    site.do("DROP TABLE _migrations", "CREATE TABLE _migrations (x)")
    with pytest.raises(BackupFailed, match="not a migration ledger"):
        make(site, policy)
    assert contents(policy.folder) == set()


def test_a_database_that_is_not_there_has_no_backup(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    with pytest.raises(BackupFailed, match="is not there"):
        make(site, Policy("always", site.data / "backups", 3))
    assert not site.database.exists()


def test_a_folder_whose_parent_is_missing_is_not_made(site: Site, policy: Policy) -> None:
    with pytest.raises(BackupFailed, match="No such file") as caught:
        make(site, replace(policy, folder=site.data / "mistyped" / "backups"))
    assert caught.value.hint == f"mkdir -p {site.data}/mistyped/backups"
    assert "mistyped" not in contents(site.data)


def test_a_file_where_the_folder_should_be_is_told_and_left_alone(site: Site, policy: Policy) -> None:
    policy.folder.write_text("precious")
    with pytest.raises(BackupFailed, match="Not a directory"):
        make(site, policy)
    assert policy.folder.read_text() == "precious"


def test_too_little_space_leaves_nothing(site: Site, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(NoSpace, match="100 are free"):
        make(site, policy)
    assert contents(policy.folder) == set()


def test_a_locked_database_is_told_and_leaves_nothing(site: Site, policy: Policy) -> None:
    with (
        held(site.database, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "DELETE FROM two"),
        pytest.raises(DatabaseLocked),
    ):
        make(site, policy, control=Control(wait=0.1))
    assert contents(policy.folder) == set()


@pytest.mark.parametrize("question", [1, 2])
def test_an_interruption_leaves_nothing(
    site: Site, policy: Policy, question: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_copy, "_STEP", 20)  # pages, of which there are about as many
    asked = 0

    def stop() -> int | None:
        nonlocal asked
        asked += 1
        return 2 if asked >= question else None

    with pytest.raises(Interrupted):
        make(site, policy, control=Control(stop=stop))
    assert contents(policy.folder) == set()


# What is listed, and what is kept.


def test_backups_are_listed_the_newest_first(site: Site, policy: Policy) -> None:
    made = [make(site, policy) for _ in range(3)]
    assert listed(site, policy) == made[::-1]


def test_a_folder_that_is_not_there_has_no_backups(site: Site, policy: Policy) -> None:
    assert listed(site, policy) == []


def test_a_folder_that_is_a_file_is_told(site: Site, policy: Policy) -> None:
    policy.folder.write_text("")
    with pytest.raises(BackupUnusable, match="Not a directory"):
        listed(site, policy)


def test_what_is_no_backup_of_the_database_is_neither_listed_nor_touched(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    (policy.folder / "notes.txt").write_text("")
    (policy.folder / "app-002-20261322T143348.123Z-manual.db").write_text("the thirteenth month")
    (policy.folder / "app-002-20261122T143348.123Z-mine.db").write_text("")
    (policy.folder / "other-002-20261122T143348.123Z-migrate.db").write_text("")
    (policy.folder / "app-002-20261122T143348.124Z-migrate.db").mkdir()
    (policy.folder / "app-002-20261122T143348.125Z-migrate.db").symlink_to("nowhere")
    (policy.folder / "wörter.sha256").write_text("")
    before = contents(policy.folder)
    assert listed(site, policy) == [made]
    for _ in range(5):
        make(site, policy, "migrate")
    assert before <= contents(policy.folder)


def test_a_file_that_looks_like_a_backup_but_has_no_checksum_is_listed_as_not_checked(
    site: Site, policy: Policy
) -> None:
    policy.folder.mkdir()
    (policy.folder / "app-017-20261122T143348.123Z-manual.db").write_text("?")
    (found,) = listed(site, policy)
    assert (found.version, found.size, found.checked) == ("017", 1, False)


@pytest.mark.parametrize("change", [lambda path: path.open("ab"), lambda path: path.open("r+b")])
def test_a_backup_that_was_written_to_since_is_listed_as_not_checked(
    site: Site, policy: Policy, change: Callable[[Path], BinaryIO]
) -> None:
    made = make(site, policy)
    assert listed(site, policy)[0].checked
    until(lambda: time.time_ns() > made.path.stat().st_mtime_ns + 20_000_000)  # a file's time has a kernel's ticks
    with change(made.path) as file:
        file.write(b"x")
    assert not listed(site, policy)[0].checked


def test_without_backups_the_command_says_how_to_make_one(site: Site, policy: Policy) -> None:
    assert site.flask("backups").stdout == f"No backups in {policy.folder}. Make one with: flask db backup\n"


def test_only_so_many_of_those_that_runs_made_are_kept(site: Site, policy: Policy) -> None:
    kinds: list[backup_files.Kind] = [
        "manual",
        "migrate",
        "rollback",
        "restore",
        "migrate",
        "migrate",
        "rollback",
        "migrate",
    ]
    made = [make(site, policy, kind) for kind in kinds]
    assert listed(site, policy) == [made[7], made[6], made[5], made[3], made[0]]
    names = {each.name for each in listed(site, policy)}
    assert contents(policy.folder) == names | {f"{name}.sha256" for name in names}


def test_what_a_run_has_just_made_is_kept_whatever_the_others_times_say(site: Site, policy: Policy) -> None:
    """A clock that was wrong has been put right."""
    made = [make(site, policy, "migrate") for _ in range(3)]
    for each in made:
        each.path.rename(policy.folder / f"app-002-2031{each.name[12:]}")
    newest = make(site, policy, "migrate")
    assert newest.path.exists()
    assert len(listed(site, policy)) == 3


def test_backups_of_one_version_go_before_the_only_one_of_another(site: Site, policy: Policy) -> None:
    """A migration that fails is tried again and again."""
    old = make(site, policy, "migrate")
    site.write({"003_three": "CREATE TABLE three (n);"})
    site.prepare()
    made = [make(site, policy, "migrate") for _ in range(5)]
    assert listed(site, policy) == [*made[:2:-1], old]


@pytest.mark.parametrize("other", ["app.sqlite", "app.2025", "app.db.db"])
def test_a_database_of_another_name_has_its_own_backups(site: Site, policy: Policy, other: str) -> None:
    made = make(site, policy, "migrate")
    database = site.database.with_name(other)
    database.write_bytes(made.path.read_bytes())
    others = [backup.make(str(database), policy, "migrate", CONTROL) for _ in range(5)]
    assert listed(site, policy) == [made]
    assert backup_files.listed(str(database), policy.folder) == others[:1:-1]


def test_the_checksum_of_a_backup_that_is_kept_elsewhere_stays(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    made.path.rename(site.root / made.name)
    make(site, policy)
    assert f"{made.name}.sha256" in contents(policy.folder)


def test_a_fifo_keeps_nobody_waiting(site: Site, policy: Policy) -> None:
    os.mkfifo(policy.folder)
    with pytest.raises(BackupFailed, match="Not a directory"):
        make(site, policy)
    policy.folder.unlink()
    made = make(site, policy)
    made.path.with_name(f"{made.name}.sha256").unlink()
    os.mkfifo(made.path.with_name(f"{made.name}.sha256"))
    with pytest.raises(BackupUnusable, match="is not a file"):
        backup_files.verify(made.path, CONTROL.patience())


def test_a_backup_that_fails_removes_no_older_one(site: Site, policy: Policy) -> None:
    made = [make(site, policy, "migrate") for _ in range(3)]
    site.do("DROP TABLE _migrations", "CREATE TABLE _migrations (x)")
    with pytest.raises(BackupFailed):
        make(site, policy, "migrate")
    assert listed(site, policy) == made[::-1]


def test_what_a_dead_process_left_is_removed_by_the_next_and_what_a_live_one_makes_is_not(
    site: Site, policy: Policy
) -> None:
    policy.folder.mkdir()
    left = policy.folder / ".financial_agent-private-the_dead"
    left.mkdir()
    (left / "backup.db").write_text("half")
    with private_folder(policy.folder) as live:
        made = make(site, policy)
        assert contents(policy.folder) == {made.name, f"{made.name}.sha256", live.name}


# Holding a backup against its checksum.


def test_a_backup_that_was_changed_is_told(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    backup_files.verify(made.path, CONTROL.patience())
    with made.path.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    with pytest.raises(BackupUnusable, match="SHA-256"):
        backup_files.verify(made.path, CONTROL.patience())


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"0" * 64])
def test_a_checksum_that_says_nothing_is_told(site: Site, policy: Policy, text: bytes) -> None:
    made = make(site, policy)
    made.path.with_name(f"{made.name}.sha256").write_bytes(text)
    with pytest.raises(BackupUnusable):
        backup_files.verify(made.path, CONTROL.patience())


def test_a_backup_without_a_checksum_is_taken_as_it_is(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    made.path.with_name(f"{made.name}.sha256").unlink()
    backup_files.verify(made.path, CONTROL.patience())


def test_the_kept_checksum_is_the_files(site: Site, policy: Policy) -> None:
    made = make(site, policy)
    kept = made.path.with_name(f"{made.name}.sha256").read_text()
    assert kept == f"{hashlib.sha256(made.path.read_bytes()).hexdigest()}  {made.name}\n"


# The settings.


def test_backups_lie_beside_the_database_unless_a_folder_is_named() -> None:
    default = backups(DEFAULTS, "/srv/data/app.db", Path("/srv/instance"))
    assert default == Policy("destructive", Path("/srv/data/backups"), 10)
    named = backups({**DEFAULTS, "BACKUP_DIRECTORY": "mine"}, "/srv/data/app.db", Path("/srv/instance"))
    assert named.folder == Path("/srv/instance/mine")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("BACKUP", "sometimes"),
        ("BACKUP", None),
        ("BACKUP", False),
        ("BACKUP", ["always"]),
        ("BACKUP_KEEP", 0),
        ("BACKUP_KEEP", -1),
        ("BACKUP_KEEP", True),
        ("BACKUP_KEEP", "many"),
        ("BACKUP_KEEP", 2.5),
        ("BACKUP_DIRECTORY", ""),
        ("BACKUP_DIRECTORY", 7),
    ],
)
def test_a_setting_that_says_nothing_known_is_refused(setting: str, value: object) -> None:
    with pytest.raises(ConfigurationInvalid, match=f"^{setting} is"):
        backups({**DEFAULTS, setting: value}, "/srv/app.db", Path("/srv"))


def test_a_wal_database_can_be_backed_up_while_it_is_written(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_one": "CREATE TABLE one (n, text);"})
    site.do("PRAGMA journal_mode = wal")
    site.prepare()
    with held(site.database, "BEGIN IMMEDIATE", rows_of(100, "one")):
        made = make(site, Policy("always", site.data / "backups", 3))
    with sqlite3.connect(made.path) as connection:
        assert connection.execute("SELECT count(*) FROM one").fetchone() == (0,)
    connection.close()
