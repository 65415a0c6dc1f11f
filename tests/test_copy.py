"""A copy of a database that others go on writing to: consistent, and the original is only read."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import databases
from financial_agent.migrator.databases import Patience, Stopped
from financial_agent.migrator.databases.sqlite import copy as sqlite_copy
from financial_agent.migrator.errors import DatabaseLocked, DatabaseUnusable, NoSpace
from tests.helpers import ROOT, Site, held, rows_of, snapshot, started, state, until, wait_for_line

# One row moves between the two tables in each of its transactions: together they always hold 2,000.
MOVING = """\
import itertools, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for turn in itertools.count():
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"INSERT INTO two SELECT * FROM one WHERE n = {turn % 2000 + 1}")
    connection.execute(f"DELETE FROM one WHERE n = {turn % 2000 + 1}")
    connection.execute(f"INSERT INTO one SELECT * FROM two WHERE n = {(turn + 1000) % 2000 + 1}")
    connection.execute(f"DELETE FROM two WHERE n = {(turn + 1000) % 2000 + 1}")
    connection.execute("COMMIT")
    if turn == 10: print("moving", flush=True)
"""


@pytest.fixture(params=["delete", "truncate", "wal"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Two tables, of which one has 2,000 rows, in each of the journal modes."""
    site = Site(tmp_path / "site")
    site.do(f"PRAGMA journal_mode = {request.param}", "CREATE TABLE one (n, text)", "CREATE TABLE two (n, text)")
    site.do(rows_of(2000, "one"))
    return site


@pytest.fixture(params=["by SQLite", "by a child process"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is small is copied by SQLite; here, the child process may copy it as well."""
    if request.param == "by a child process":
        monkeypatch.setattr(sqlite_copy, "_SMALL", 0)
    return str(request.param)


by_a_child_process = pytest.mark.parametrize("way", ["by a child process"], indirect=True)
without_wal = pytest.mark.parametrize("site", ["delete", "truncate"], indirect=True)
in_wal_mode = pytest.mark.parametrize("site", ["wal"], indirect=True)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


def to_nobody(done: int, total: int) -> None:
    pass


def copy(
    site: Site, target: Path, progress: Callable[[int, int], None] = to_nobody, *, patience: Patience | None = None
) -> None:
    databases.copy(str(site.database), target, patience or Patience(5), progress)


def once(action: Callable[[], None]) -> Callable[[int, int], None]:
    """Something that happens when the copy is first heard of, and only then."""
    waiting = [action]

    def progress(done: int, total: int) -> None:
        if waiting:
            waiting.pop()()

    return progress


def count(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_copy_holds_what_the_database_holds(site: Site, target: Path) -> None:
    copy(site, target)
    assert state(target) == state(site.database)
    assert count(target, "one") == 2000


def test_the_progress_ends_with_all_bytes_done(site: Site, target: Path) -> None:
    heard: list[tuple[int, int]] = []
    copy(site, target, lambda done, total: heard.append((done, total)))
    size = site.database.stat().st_size
    assert {total for _, total in heard} == {size}
    assert heard[-1] == (size, size)


def test_an_empty_file_is_copied(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path / "site")
    site.database.touch()
    copy(site, target)
    assert state(target) == state(site.database)


def test_a_database_with_an_awkward_name_is_copied(site: Site, tmp_path: Path) -> None:
    awkward = site.data / "a b?c#d%20'é.db"
    shutil.copy(site.database, awkward)
    site.database = awkward
    target = tmp_path / "e f?mode=ro.db"
    copy(site, target)
    assert count(target, "one") == 2000


def test_copying_leaves_the_files_of_the_database_as_they_were(site: Site, target: Path) -> None:
    before = snapshot(site.data)
    copy(site, target)
    assert snapshot(site.data) == before


def killed_in_wal_mode(site: Site, rows: int) -> None:
    """What a process leaves that was killed in WAL mode: pages in the -wal that the file lacks."""
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode = wal')\n"
        "connection.execute(sys.argv[2])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, site.database, rows_of(rows, "two")], check=False)
    assert died.returncode == -signal.SIGKILL


@in_wal_mode
@pytest.mark.parametrize("has_index", [True, False])
def test_what_stands_only_in_the_wal_is_copied_and_stays_there(site: Site, target: Path, has_index: bool) -> None:
    killed_in_wal_mode(site, 10)
    index = site.data / "app.db-shm"
    if not has_index:
        index.unlink()
    before = snapshot(site.data)
    assert len(before["app.db-wal"][0]) > 0
    copy(site, target)
    after = snapshot(site.data)
    assert {name: after[name] for name in ("app.db", "app.db-wal")} == {
        name: before[name] for name in ("app.db", "app.db-wal")
    }
    assert count(target, "two") == 10


def test_the_journal_of_a_killed_process_is_rolled_back_before_the_copy(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path / "site")
    site.do("CREATE TABLE one (n, text)", rows_of(2000, "one"))
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1')\n"
        "connection.execute('BEGIN')\n"
        "connection.execute('UPDATE one SET text = 0')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    before = site.database.read_bytes()
    subprocess.run([sys.executable, "-c", code, site.database], check=False)
    assert site.database.read_bytes() != before
    copy(site, target)
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT count(*) FROM one WHERE text = 0").fetchone() == (0,)
    assert state(target).rows


# While others write.


@pytest.mark.slow
def test_a_copy_is_consistent_while_another_process_writes_all_the_while(site: Site, tmp_path: Path) -> None:
    with started([sys.executable, "-c", MOVING, str(site.database)], tmp_path) as writer:
        assert writer.stdout
        wait_for_line(writer.stdout, "moving")
        for turn in range(20):
            target = tmp_path / f"{turn}.db"
            copy(site, target)
            assert count(target, "one") + count(target, "two") == 2000
            assert state(target)
        assert writer.poll() is None


@by_a_child_process
@without_wal
def test_what_is_committed_while_the_raw_copy_is_made_is_mended_in(site: Site, target: Path) -> None:
    copy(site, target, once(lambda: site.do("UPDATE one SET text = 'new'", rows_of(4000, "two"))))
    assert state(target) == state(site.database)
    assert count(target, "two") == 4000


@by_a_child_process
@without_wal
def test_a_database_that_shrinks_while_it_is_copied_is_copied_as_it_is_then(site: Site, target: Path) -> None:
    copy(site, target, once(lambda: site.do("DELETE FROM one WHERE n > 5", "VACUUM")))
    assert target.stat().st_size == site.database.stat().st_size < 100_000
    assert state(target) == state(site.database)


@by_a_child_process
@without_wal
def test_a_database_that_is_switched_to_wal_while_it_is_copied_is_copied_all_the_same(site: Site, target: Path) -> None:
    with closing(sqlite3.connect(site.database, isolation_level=None)) as other:

        def switch() -> None:
            other.execute("PRAGMA journal_mode = wal")
            other.execute(rows_of(10, "two"))

        copy(site, target, once(switch))
        assert count(target, "two") == 10


@in_wal_mode
def test_in_wal_mode_others_commit_at_once_and_the_copy_is_what_the_database_was(site: Site, target: Path) -> None:
    before = state(site.database)
    copy(site, target, once(lambda: site.do("UPDATE one SET text = 'new'", rows_of(4000, "two"))))
    assert state(target) == before
    assert count(site.database, "two") == 4000


def test_a_copy_takes_no_lock_away_from_another_connection_of_its_process(site: Site, target: Path) -> None:
    with closing(sqlite3.connect(site.database, isolation_level=None)) as ours:
        ours.execute("BEGIN IMMEDIATE")
        copy(site, target)
        code = (
            "import sqlite3, sys\n"
            "sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0).execute('BEGIN IMMEDIATE')\n"
        )
        other = subprocess.run([sys.executable, "-c", code, site.database], check=False, capture_output=True, text=True)
        assert "database is locked" in other.stderr


# What goes wrong.


def test_the_copy_is_made_by_sqlite_when_the_child_process_cannot_be_used(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, executable in enumerate(["/bin/false", "/bin/echo", "/nonexistent", "", None, "/dev/null"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", executable)
            copy(site, target.with_suffix(f".{number}"))
        assert state(target.with_suffix(f".{number}")) == state(site.database)


def test_a_copy_that_is_told_to_stop_leaves_no_file(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_copy, "_STEP", 1)
    with pytest.raises(Stopped):
        copy(site, target, patience=Patience(5, stop=lambda _: target.exists()))
    assert list(target.parent.glob("copy*")) == []


def test_a_failing_listener_leaves_no_file(site: Site, target: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(site, target, once(fail))
    assert list(target.parent.glob("copy*")) == []


def test_a_database_that_stays_locked_is_told_and_leaves_no_file(site: Site, target: Path) -> None:
    with (
        held(site.database, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "DELETE FROM two"),
        pytest.raises(DatabaseLocked),
    ):
        copy(site, target, patience=Patience(0.1))
    assert list(target.parent.glob("copy*")) == []


def test_too_little_space_is_told_before_anything_is_written(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 8192))  # type: ignore[attr-defined]
    with pytest.raises(NoSpace, match="8,192 are free"):
        copy(site, target)
    assert not target.exists()


def test_a_target_that_is_there_already_is_left_alone(site: Site, target: Path) -> None:
    target.write_text("precious")
    with pytest.raises(DatabaseUnusable, match="File exists"):
        copy(site, target)
    assert target.read_text() == "precious"


def test_a_target_in_a_folder_that_is_not_there_is_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="No such file"):
        copy(site, tmp_path / "nowhere" / "copy.db")


@pytest.mark.parametrize(
    ("mode", "asked", "result"), [(0o640, 0o777, 0o640), (0o644, 0o600, 0o600), (0o440, 0o777, 0o640)]
)
def test_others_may_do_with_a_copy_no_more_than_with_the_database(
    site: Site, target: Path, mode: int, asked: int, result: int
) -> None:
    site.database.chmod(mode)
    mask = os.umask(0)
    try:
        databases.copy(str(site.database), target, Patience(), to_nobody, mode=asked)
    finally:
        os.umask(mask)
    assert target.stat().st_mode & 0o777 == result


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_copy_that_root_makes_belongs_to_the_owner_of_the_database(site: Site, target: Path) -> None:
    os.chown(site.database, 12345, 54321)
    copy(site, target)
    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 54321)


def children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
def test_the_child_process_ends_with_the_process_that_started_it(tmp_path: Path, target: Path) -> None:
    site = Site(tmp_path / "site")
    site.do("CREATE TABLE one (n, text)", rows_of(2000, "one"))
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from financial_agent.migrator import databases\n"
        "from financial_agent.migrator.databases.sqlite import copy as sqlite_copy\n"
        "sqlite_copy._SMALL = 0\n"
        "def wait(done, total): print('waiting', flush=True); time.sleep(60)\n"
        "databases.copy(sys.argv[1], Path(sys.argv[2]), databases.Patience(), wait)\n"
    )
    with started([sys.executable, "-c", code, str(site.database), str(target)], ROOT) as parent:
        assert parent.stdout
        wait_for_line(parent.stdout, "waiting")
        (child,) = children(parent.pid)
        parent.kill()
        until(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())
