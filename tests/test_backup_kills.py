"""What is left when a backup or a restore is killed, or finds the disk full: the database as it was, or restored as a
whole, and nothing that a later run takes for a backup."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import backup, backup_files
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from tests.helpers import FLASK, Site, finish, rows_of, run_with, state, until
from tests.test_environment_faults import needs_a_mount, on_a_disk, slowly

FILES = {"001_one": "CREATE TABLE one (n, text);", "002_two": "CREATE TABLE two (n, text);"}
KILLED = -signal.SIGKILL
SOONER = 0.9  # what ended before it was killed may have been slower when it was measured, on a busy machine


@pytest.fixture(params=["delete", "wal"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """A database at 002, beside a file that is a backup of when it was at 001 and had other rows."""
    site = Site(tmp_path / "site", {"001_one": FILES["001_one"]})
    site.do(f"PRAGMA journal_mode = {request.param}")
    site.prepare()
    site.do(rows_of(2_000, "one"))
    backup.make_at(str(site.database), saved(site), Control())
    site.write(FILES)
    site.prepare()
    site.do("DELETE FROM one WHERE n > 300", rows_of(4_000, "two"))
    return site


def saved(site: Site) -> Path:
    return site.root / "saved.db"


def listed(site: Site) -> list[backup_files.Backup]:
    return backup_files.listed(str(site.database), site.data / "backups")


def content(database: Path) -> tuple[Any, ...]:
    """All but the history, of a database that must be sound."""
    return state(database)[:3]


def check_backups(site: Site) -> None:
    """Whatever is listed is complete, and is what the database was."""
    for each in listed(site):
        assert each.checked
        backup_files.verify(each.path, Control().patience())
        assert content(each.path) == content(site.database)


def check_next(site: Site) -> None:
    """The next backup is made, and leaves no copy of those before it."""
    backup.make(str(site.database), Policy("always", site.data / "backups", 3), "manual", Control())
    names = {each.name for each in listed(site)}
    left = {path.name for path in (site.data / "backups").iterdir() if path.suffix != ".sha256"}
    assert left == names


def is_tidy(data: Path) -> bool:
    """Nobody's copies are left."""
    return not [*data.glob(".*"), *(data / "backups").glob(".*")]


@pytest.mark.slow
def test_a_backup_that_is_killed_at_any_call_of_sqlite_is_not_there(site: Site) -> None:
    before = state(site.database)
    for moment in range(1, 100):
        finished = site.flask("backup", dies_at=moment)
        assert state(site.database) == before
        assert len(listed(site)) == (finished.returncode == 0)
        check_backups(site)
        if finished.returncode == 0:
            break
        assert finished.returncode == KILLED, finished.stderr
    assert moment > 10
    check_next(site)


@pytest.mark.slow
def test_a_restore_that_is_killed_at_any_call_of_sqlite_leaves_the_old_or_the_new(site: Site) -> None:
    old, new = content(site.database), content(saved(site))
    for moment in range(1, 300):
        victim = site.copy(site.root / str(moment))
        finished = victim.flask("restore", str(saved(site)), "--yes", dies_at=moment)
        assert finished.returncode in (0, KILLED), finished.stderr
        found = content(victim.database)
        assert found in ((new,) if finished.returncode == 0 else (old, new))
        for each in listed(victim):
            assert content(each.path) == old
        if finished.returncode == 0:
            break
        until(partial(is_tidy, victim.data))
        again = victim.flask("restore", str(saved(site)), "--yes")
        assert again.returncode == 0, again.stderr
        assert content(victim.database) == new
        assert not list(victim.data.glob(".*"))
    assert moment > 30


@pytest.mark.slow
def test_a_restore_of_a_missing_database_that_is_killed_leaves_none_or_the_new(site: Site) -> None:
    new = content(saved(site))
    for moment in range(1, 300):
        victim = Site(site.root / str(moment))
        victim.directory = site.directory
        finished = victim.flask("restore", str(saved(site)), "--yes", dies_at=moment)
        assert finished.returncode in (0, KILLED), finished.stderr
        if finished.returncode == 0:
            break
        assert not victim.database.exists() or content(victim.database) == new
    assert content(victim.database) == new
    assert moment > 15


def killed_on_its_way(site: Site, seconds: float, *words: str) -> int:
    """Run a command and kill it at some moment within so many seconds; its exit code."""
    with site.flasking(*words) as process:
        time.sleep(seconds)
        process.kill()
        return finish(process).returncode


def duration(site: Site, *words: str) -> float:
    started = time.monotonic()
    with site.flasking(*words) as process:
        assert finish(process).returncode == 0
    return time.monotonic() - started


@pytest.mark.slow
def test_a_backup_that_is_killed_at_a_random_time_is_complete_or_not_there(site: Site) -> None:
    site.do(rows_of(200_000, "two"))  # so large that a child process copies it
    before = state(site.database)
    longest = duration(site, "backup")
    chance, killed = random.Random(3), 0
    for _ in range(20):
        if killed_on_its_way(site, chance.uniform(longest / 4, longest), "backup") == KILLED:
            killed += 1
        else:
            longest *= SOONER
    assert killed > 5
    assert state(site.database) == before
    check_backups(site)
    check_next(site)


@pytest.mark.slow
def test_a_restore_that_is_killed_at_a_random_time_leaves_the_old_or_the_new(site: Site) -> None:
    site.do(rows_of(60_000, "two"))
    old, new = content(site.database), content(saved(site))
    command = ("restore", str(saved(site)), "--yes")
    longest = duration(site.copy(site.root / "first"), *command)
    chance, killed = random.Random(4), 0
    for turn in range(25):
        victim = site.copy(site.root / str(turn))
        code = killed_on_its_way(victim, chance.uniform(longest / 3, longest * 1.05), *command)
        if code == KILLED:
            killed += 1
        else:
            longest *= SOONER
        assert content(victim.database) in ((new,) if code == 0 else (old, new))
        for each in listed(victim):
            assert content(each.path) == old
    assert killed > 5


# A full disk.


@needs_a_mount
@pytest.mark.parametrize("free", [100, *slowly(0, 8, 400, 600, 700)])
def test_a_backup_on_a_full_disk_is_not_there_and_says_so(site: Site, free: int) -> None:
    size = site.database.stat().st_size // 1024
    failed, again = on_a_disk(site, free, *FLASK, "backup")
    full, spacious = (site.data.with_suffix(f".{name}") for name in ("full", "spacious"))
    assert content(full / "app.db") == content(site.database)
    if failed.returncode == 0:
        assert free > size
    else:
        assert failed.returncode == 4, failed.stderr
        # In WAL mode SQLite opens no database without room for its index.
        assert ("FA433" if free > 50 or site.value("PRAGMA journal_mode") != "wal" else "FA430") in failed.stderr
        assert backup_files.listed(str(full / "app.db"), full / "backups") == []
    assert again.returncode == 0, again.stderr
    found = backup_files.listed(str(spacious / "app.db"), spacious / "backups")
    assert len(found) == (2 if failed.returncode == 0 else 1)
    assert all(content(each.path) == content(site.database) for each in found)


@needs_a_mount
@pytest.mark.parametrize("free", [400, *slowly(100, 700, 900, 1100, 1300)])
def test_a_restore_on_a_full_disk_changes_nothing_and_says_so(site: Site, free: int) -> None:
    failed, again = on_a_disk(site, free, *FLASK, "restore", str(saved(site)), "--yes")
    full, spacious = (site.data.with_suffix(f".{name}") / "app.db" for name in ("full", "spacious"))
    if failed.returncode:
        assert failed.returncode == 4, failed.stderr
        assert "FA433" in failed.stderr
    assert content(full) == content(saved(site) if failed.returncode == 0 else site.database)
    assert again.returncode == 0, again.stderr
    assert content(spacious) == content(saved(site))


@pytest.mark.parametrize("limit", [100_000, 300_000])
def test_a_limit_on_the_size_of_files_leaves_no_backup(site: Site, limit: int) -> None:
    """What a quota does."""
    before = state(site.database)
    finished = run_with(["prlimit", f"--fsize={limit}"], [*FLASK, "backup"], site)
    assert finished.returncode in (2, 4), finished.stderr
    assert state(site.database) == before
    assert listed(site) == []
