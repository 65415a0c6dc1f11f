"""Full disks, missing permissions, damaged files, and what a killed process leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.helpers import (
    FLASK,
    PLAIN,
    Finished,
    Site,
    finish,
    held,
    rows_of,
    run_with,
    snapshot,
    started,
    state,
)

GOOD = "CREATE TABLE good (n INTEGER PRIMARY KEY, text TEXT);"
# Root may read and write everything: without these two capabilities it may what the files' modes say.
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A database with one migration applied."""
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.prepare()
    return site


# A full disk.

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
# Makes the folder $1 a disk of its own with the files of $2, leaves $3 KB free, runs the rest of the words on it, and
# again with space. What was there after each run is copied to $2.full and $2.spacious. The mount ends with the process.
ON_A_DISK = """\
set -e
disk=$1 origin=$2 free=$3
shift 3
mount -t tmpfs -o size=2m none "$disk"
cp -a "$origin/." "$disk"
available=$(df --output=avail -k "$disk" | tail -n 1)
if [ "$available" -gt "$free" ]; then head -c $(( (available - free) * 1024 )) /dev/zero > "$disk/filler"; fi
set +e
"$@" > "$origin.out" 2> "$origin.err"
echo $? > "$origin.code"
set -e
mkdir "$origin.full" "$origin.spacious"
rm -f "$disk/filler"
cp -a "$disk/." "$origin.full"
mount -o remount,size=64m "$disk"
"$@"
cp -a "$disk/." "$origin.spacious"
"""


def on_a_disk(site: Site, free: int, *command: str) -> tuple[Finished, Finished]:
    """Run a command on the site's database on a disk with so many KB free, and once more with plenty."""
    disk = site.root / "disk"
    disk.mkdir()
    script = ["sh", "-c", ON_A_DISK, "sh", str(disk), str(site.data), str(free)]
    words = [*command, "--database", str(disk / "app.db"), "--directory", str(site.directory)]
    with started([*NAMESPACE, *script, *words], site.root) as process:
        again = finish(process)
    out, err, code = (site.data.with_suffix(f".{name}").read_text() for name in ("out", "err", "code"))
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(words, int(code), out, err), again


def after(site: Site, run: str) -> Site:
    """The site with the database that a run on a disk left: `full` or `spacious`."""
    other = Site(site.root / run)
    other.database = site.data.with_suffix(f".{run}") / "app.db"
    return other


def can_mount() -> bool:
    script = "mkdir -p /tmp && mount -t tmpfs none /tmp"
    return (
        bool(shutil.which("unshare"))
        and subprocess.call([*NAMESPACE, "sh", "-c", script], stderr=subprocess.DEVNULL) == 0
    )


MOUNTS = can_mount()
FILES = {
    "001_good": GOOD,
    "002_small": "INSERT INTO good (text) VALUES ('small');",
    "003_large": f"CREATE TABLE large (n, text); {rows_of(5_000, 'large')};",
    "004_last": "CREATE TABLE last (x);",
}


@pytest.fixture(params=["delete", "wal"])
def journal_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


needs_a_mount = pytest.mark.skipif(not MOUNTS, reason="cannot mount a small disk here; RLIMIT_FSIZE stands in for it")


def slowly(*values: int) -> list[ParameterSet]:
    """The values that the fast tests leave to the slow ones."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@needs_a_mount
@pytest.mark.parametrize("free", [8, 400, *slowly(0, 4, 16, 24, 64)])
def test_a_full_disk_leaves_a_version_and_says_so(tmp_path: Path, journal_mode: str, free: int) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    site.prepare()
    site.write(FILES)
    names = list(FILES)

    failed, again = on_a_disk(site, free, *PLAIN)

    full, spacious = after(site, "full"), after(site, "spacious")
    done = failed.stdout.count("Applied ")
    assert full.applied() == names[: 1 + done]
    assert state(full.database).history[-1][:2] == ("apply", f"{names[done]}.sql")
    assert full.tables() == {"good"}
    if journal_mode == "wal" and free < 64:  # SQLite opens no such database without room for its index
        assert (failed.returncode, done) == (2, 0)
    else:
        assert failed.returncode == 3, failed.stderr
        assert "FA305" in failed.stderr
        assert "disk is full" in failed.stderr
        told = f"The database is at {names[done]}.sql; nothing of the failed run of {names[done + 1]}.sql remains"
        assert told in failed.stderr
    assert again.returncode == 0
    assert spacious.applied() == names
    assert state(spacious.database)
    assert spacious.value("SELECT count(*) FROM large") == 5_000


@needs_a_mount
def test_a_disk_that_fills_during_a_rollback_keeps_the_version(tmp_path: Path) -> None:
    down = (
        f"-- migrate:up\nCREATE TABLE large (n, text);\n-- migrate:down\n{rows_of(9_000, 'large')}; DROP TABLE large;"
    )
    site = Site(tmp_path / "site", {"001_good": GOOD, "002_large": down})
    site.prepare()
    failed, again = on_a_disk(site, 300, *FLASK, "rollback", "--yes")
    assert failed.returncode == 3
    assert "FA305" in failed.stderr
    assert state(after(site, "full").database) == state(site.database)
    assert again.returncode == 0
    assert after(site, "spacious").applied() == ["001_good"]


@pytest.mark.parametrize("limit", [20_480, 300_000, *slowly(61_440, 102_400)])
def test_a_limit_on_the_size_of_files_leaves_a_version(tmp_path: Path, journal_mode: str, limit: int) -> None:
    """What a quota does. Where no disk can be mounted, this stands in for a full one."""
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    site.prepare()
    site.write(FILES)
    finished = run_with(["prlimit", f"--fsize={limit}"], PLAIN, site)
    assert finished.returncode in (2, 3), finished.stderr
    done = finished.stdout.count("Applied ")
    assert site.applied() == list(FILES)[: 1 + done]
    assert len(state(site.database).ledger) == 1 + done
    assert site.migrate().returncode == 0
    assert site.applied() == list(FILES)


# Permissions.


@contextmanager
def without_write_permission(*paths: Path) -> Iterator[None]:
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


READONLY = {
    "the file": ["data/app.db"],
    "the folder": ["data"],
    "both": ["data", "data/app.db"],
    "all": ["data", "data/app.db", "data/app.db-migrate-lock"],
}


def without_wal_files(
    files: dict[str, tuple[bytes, int]], journal_mode: str, names: list[str]
) -> dict[str, tuple[bytes, int]]:
    """In WAL mode SQLite makes two files to read, and a connection that may not write the database leaves them."""
    if (journal_mode, names) != ("wal", READONLY["the file"]):
        return files
    return {name: content for name, content in files.items() if not name.endswith(("-wal", "-shm"))}


each_readonly = pytest.mark.parametrize("names", READONLY.values(), ids=READONLY.keys())


@each_readonly
def test_what_cannot_be_written_is_told_and_left_alone(site: Site, journal_mode: str, names: list[str]) -> None:
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    site.write({"002_small": FILES["002_small"]})
    before = snapshot(site.root)
    with without_write_permission(*(site.root / name for name in names)):
        finished = run_with(UNPRIVILEGED, PLAIN, site)
    assert finished.returncode in (2, 3), finished.stderr
    assert str(site.data) in finished.stderr
    assert without_wal_files(snapshot(site.root), journal_mode, names) == before


@each_readonly
def test_a_run_with_nothing_to_do_and_status_work_without_write_permission(
    site: Site, journal_mode: str, names: list[str]
) -> None:
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    before = snapshot(site.root)
    with without_write_permission(*(site.root / name for name in names)):
        status = run_with(UNPRIVILEGED, [*FLASK, "status", "--exit-code"], site)
        migrate = run_with(UNPRIVILEGED, PLAIN, site)
    assert (status.returncode, status.stderr) == (0, "")
    assert "1 applied, 0 pending." in status.stdout
    assert (migrate.returncode, migrate.stdout[:13]) == (0, "Nothing to do"), migrate.stderr
    assert without_wal_files(snapshot(site.root), journal_mode, names) == before


def test_a_new_database_in_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    with without_write_permission(site.data):
        finished = run_with(UNPRIVILEGED, PLAIN, site)
    assert finished.returncode == 2
    assert list(site.data.iterdir()) == []


def test_a_database_without_read_permission_is_told(site: Site) -> None:
    site.database.chmod(0)
    finished = run_with(UNPRIVILEGED, [*FLASK, "status"], site)
    assert finished.returncode == 2
    assert str(site.database) in finished.stderr


def test_a_migration_file_without_read_permission_leaves_everything_untouched(site: Site) -> None:
    site.write({"002_small": FILES["002_small"], "003_secret": GOOD})
    before = snapshot(site.data)
    (site.directory / "003_secret.sql").chmod(0)
    finished = run_with(UNPRIVILEGED, PLAIN, site)
    assert finished.returncode == 4
    assert "003_secret.sql" in finished.stderr
    assert snapshot(site.data) == before


# Files that are no sound database.


def damage_nothing(path: Path) -> None:
    path.write_bytes(b"This is a letter, not a database. " * 100)


def damage_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + os.urandom(8192))


def truncate_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def truncate_within_a_page(path: Path) -> None:
    os.truncate(path, 5000)


def overwrite_the_schema(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


def overwrite_the_rest(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize(
    "damage",
    [damage_nothing, damage_header, truncate_to_half, truncate_within_a_page, overwrite_the_schema, overwrite_the_rest],
)
def test_a_damaged_file_is_told_and_left_as_it_is(site: Site, damage: Callable[[Path], None]) -> None:
    damage(site.database)
    site.write({"002_small": FILES["002_small"]})
    before = snapshot(site.data)
    for finished in (site.flask("status"), site.migrate(), site.flask("rollback", "--yes")):
        assert finished.returncode in (2, 3, 4), finished.stdout + finished.stderr
        assert "Error FA" in finished.stderr
    assert snapshot(site.data) == before


def test_a_page_that_is_damaged_below_a_migration_fails_it_and_nothing_remains(site: Site) -> None:
    """Opening does not look at every page."""
    site.do(rows_of(2000, "good"))
    root = site.value("SELECT rootpage FROM sqlite_schema WHERE name = 'good'")
    with site.database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    site.write({"002_before": "CREATE TABLE before_it (x);", "003_copy": "CREATE TABLE copied AS SELECT * FROM good;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "malformed" in finished.stderr
    assert site.applied() == ["001_good", "002_before"]
    assert "copied" not in site.tables()


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.database.touch()
    assert site.status() == {"001_good": "pending"}
    assert site.migrate().returncode == 0
    assert site.applied() == ["001_good"]


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.database.mkdir()
    for finished in (site.flask("status"), site.migrate()):
        assert finished.returncode == 2
        assert "it is a folder" in finished.stderr


def test_a_missing_folder_is_not_created(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.database = site.data / "mistyped" / "app.db"
    finished = site.migrate()
    assert finished.returncode == 2
    assert f"mkdir -p {site.data / 'mistyped'}" in finished.stderr
    assert list(site.data.iterdir()) == []


def test_a_link_to_nothing_is_no_traceback(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.database.symlink_to(site.data / "nowhere" / "app.db")
    assert site.migrate().returncode == 2


# What a killed process leaves.


@pytest.fixture
def left_by_a_killed_run(site: Site) -> Site:
    """The run died in a migration that had outgrown the cache, so that the file holds half of it."""
    site.write({"002_large": f"{rows_of(60_000, 'good')}; SELECT 1; SELECT 2;"})
    sound = site.database.read_bytes()
    for moment in range(20, 200):
        victim = site.copy(site.root / str(moment))
        died = victim.migrate(dies_at=moment).returncode == -signal.SIGKILL
        if died and victim.database.read_bytes() != sound:
            return victim
    raise AssertionError("no death came while the file held half of a migration")


def test_the_journal_of_a_killed_run_is_played_back_by_status(site: Site, left_by_a_killed_run: Site) -> None:
    victim = left_by_a_killed_run
    assert (victim.data / "app.db-journal").stat().st_size > 0
    assert victim.status() == {"001_good": "applied", "002_large": "pending"}
    assert victim.database.read_bytes() == site.database.read_bytes()
    assert {path.name for path in victim.data.iterdir()} == {"app.db", "app.db-migrate-lock", "app.db-migrate-attempt"}
    assert victim.migrate().returncode == 0
    assert victim.value("SELECT count(*) FROM good") == 60_000


def test_several_that_ask_at_once_after_a_kill_are_all_answered(left_by_a_killed_run: Site) -> None:
    victim = left_by_a_killed_run
    with victim.flasking("status") as one, victim.flasking("status") as two, victim.flasking("status") as three:
        assert [finish(process).returncode for process in (one, two, three)] == [0, 0, 0]


def test_a_journal_that_cannot_be_played_back_is_told(left_by_a_killed_run: Site) -> None:
    victim = left_by_a_killed_run
    before = snapshot(victim.data)
    with without_write_permission(victim.data, victim.database, victim.data / "app.db-journal"):
        finished = run_with(UNPRIVILEGED, [*FLASK, "status"], victim)
    assert finished.returncode == 2
    assert "journal" in finished.stderr
    assert snapshot(victim.data) == before


def test_committed_pages_in_a_wal_that_a_killed_process_left_are_not_lost(site: Site) -> None:
    site.do("PRAGMA journal_mode = wal")
    site.write({"002_small": FILES["002_small"], "003_last": FILES["004_last"]})
    with held(site.database, "SELECT 1", "SELECT * FROM good"):  # keeps the WAL from being removed
        assert site.flask("migrate", "002").returncode == 0
        copies = {path.name: path.read_bytes() for path in site.data.iterdir() if not path.name.endswith("-shm")}
    other = Site(site.root / "other")
    other.directory = site.directory
    for name, content in copies.items():
        (other.data / name).write_bytes(content)
    assert len(copies["app.db-wal"]) > 0
    assert other.status() == {"001_good": "applied", "002_small": "applied", "003_last": "pending"}
    assert other.migrate().returncode == 0
    with closing(sqlite3.connect(other.database)) as connection:
        assert connection.execute("SELECT text FROM good").fetchall() == [("small",)]
