"""One run at a time, and patience with the locks of others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.helpers import (
    ENDLESS,
    FIRST_LEDGER,
    Finished,
    Process,
    Site,
    finish,
    has_open,
    held,
    rows_of,
    until,
    wait_for_line,
)

FILES = {
    "001_create": "CREATE TABLE visits (n INTEGER PRIMARY KEY, text TEXT);",
    "002_fill": "INSERT INTO visits (text) VALUES ('one'), ('two');",
    "003_more": "INSERT INTO visits (text) SELECT text FROM visits;",
}


@pytest.fixture(params=["delete", "wal"])
def journal_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(tmp_path: Path, journal_mode: str) -> Site:
    """A database in each journal mode, with one migration applied and one pending."""
    site = Site(tmp_path / "site", {"001_create": FILES["001_create"]})
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    site.prepare()
    site.write({"002_fill": FILES["002_fill"]})
    return site


# Eight at once.


def all_at_once(starts: list[Callable[[], AbstractContextManager[Process]]]) -> list[Finished]:
    with ExitStack() as stack:
        processes = [stack.enter_context(start()) for start in starts]
        return [finish(process) for process in processes]


def assert_each_ran_once(site: Site, finished: list[Finished]) -> None:
    assert [(each.returncode, each.stderr) for each in finished if each.returncode] == []
    names = sorted(path.stem for path in site.directory.iterdir())
    assert site.applied() == names
    assert site.history() == [("apply", name) for name in names]
    assert "".join(each.stdout for each in finished).count("Applied ") == len(names)


def test_eight_processes_starting_at_once_apply_each_migration_once(tmp_path: Path) -> None:
    for number in range(3):
        site = Site(tmp_path / str(number), FILES)
        assert_each_ran_once(site, all_at_once([site.migrating] * 8))
        assert site.value("SELECT count(*) FROM visits") == 4


def test_eight_processes_wait_for_migrations_that_take_a_while(tmp_path: Path) -> None:
    slow = {f"{n:03}_slow": f"CREATE TABLE t{n} (n, text); {rows_of(50_000, f't{n}')};" for n in range(1, 6)}
    site = Site(tmp_path / "site", slow)
    assert_each_ran_once(site, all_at_once([site.migrating] * 8))


def test_eight_processes_at_once_may_switch_a_new_database_to_wal(tmp_path: Path) -> None:
    wal = "-- migrate:up transaction:false\nPRAGMA journal_mode = WAL;"
    site = Site(tmp_path / "site", {"000_wal": wal, **FILES})
    assert_each_ran_once(site, all_at_once([site.migrating] * 8))
    assert site.value("PRAGMA journal_mode") == "wal"


def test_eight_processes_take_over_an_old_database_at_once(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do(
        "CREATE TABLE visits (n INTEGER PRIMARY KEY, text TEXT)",
        FIRST_LEDGER,
        "INSERT INTO _migrations (filename) VALUES ('001_create.sql')",
    )
    finished = all_at_once([site.migrating] * 8)
    assert [each.returncode for each in finished] == [0] * 8
    assert site.applied() == ["001_create", "002_fill", "003_more"]
    assert site.value("SELECT count(*) FROM visits") == 4


@pytest.mark.slow
def test_eight_flask_processes_at_once_in_twenty_rounds(tmp_path: Path) -> None:
    for number in range(20):
        site = Site(tmp_path / str(number), FILES)
        assert_each_ran_once(site, all_at_once([partial(site.flasking, "migrate")] * 8))
        assert site.value("SELECT count(*) FROM visits") == 4


@pytest.mark.slow
def test_eight_plain_processes_at_once_in_twenty_rounds(tmp_path: Path) -> None:
    for number in range(20):
        site = Site(tmp_path / str(number), FILES)
        assert_each_ran_once(site, all_at_once([site.migrating] * 8))


def test_migrate_and_rollback_at_once_take_turns(tmp_path: Path) -> None:
    up_and_down = "-- migrate:up\nCREATE TABLE extra (x);\n-- migrate:down\nDROP TABLE extra;"
    site = Site(tmp_path / "site", {"001_create": FILES["001_create"]})
    assert site.migrate().returncode == 0
    site.write({"002_extra": up_and_down})
    rollback = partial(site.flasking, "rollback", "--to", "001", "--yes")
    finished = all_at_once([site.migrating, rollback, site.migrating, rollback])
    assert [each.returncode for each in finished] == [0] * 4
    assert ("extra" in site.tables()) == ("002_extra" in site.applied())
    events = [event for event, name in site.history() if name == "002_extra"]
    assert events == (["apply", "rollback"] * 4)[: len(events)]


# The lock of a run.


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """kill -9 of the holder lets a waiting run go on. It has the repaired file, as a new deployment would."""
    stuck = Site(tmp_path / "stuck", {**FILES, "002_fill": f"INSERT INTO visits (n) {ENDLESS};"})
    repaired = Site(tmp_path / "repaired", FILES)
    repaired.database = stuck.database
    with stuck.migrating() as holder:
        wait_for_line(holder.stdout, "Applied 001_create.sql")
        with repaired.migrating() as waiter:
            wait_for_line(waiter.stderr, "the other migration run")
            assert waiter.poll() is None
            holder.kill()
            finished = finish(waiter)
    assert finished.returncode == 0
    assert stuck.applied() == ["001_create", "002_fill", "003_more"]


def test_a_run_that_waits_too_long_for_another_names_its_lock(site: Site) -> None:
    lock = site.data / "app.db-migrate-lock"
    with held(lock, "BEGIN EXCLUSIVE"):
        finished = site.flask("migrate", "--wait", "0.3")
    assert finished.returncode == 5
    assert "FA501" in finished.stderr
    assert f"{lock}: waited 0.3 s" in finished.stderr
    assert site.applied() == ["001_create"]


def test_a_symbolic_link_to_a_database_has_the_same_lock(site: Site) -> None:
    link = Site(site.root / "link", {"001_create": FILES["001_create"], "002_fill": FILES["002_fill"]})
    link.database.symlink_to(site.database)
    with held(site.data / "app.db-migrate-lock", "BEGIN EXCLUSIVE"):
        assert link.flask("migrate", "--wait", "0.1").returncode == 5
    assert link.migrate().returncode == 0
    assert site.applied() == ["001_create", "002_fill"]


# The locks of other processes: what they hold, and what a run waits for in each journal mode.

LOCKS = {
    "a writer": (["BEGIN IMMEDIATE", "INSERT INTO visits (text) VALUES ('theirs')"], "to write", "to write"),
    "an exclusive writer": (["BEGIN EXCLUSIVE"], "to read", "to write"),
    "a reader": (["BEGIN", "SELECT * FROM visits"], "to commit", None),
}
each_lock = pytest.mark.parametrize(("statements", "in_delete", "in_wal"), LOCKS.values(), ids=LOCKS.keys())


@each_lock
def test_a_run_waits_until_another_process_lets_go(
    site: Site, journal_mode: str, statements: list[str], in_delete: str, in_wal: str | None
) -> None:
    purpose = in_wal if journal_mode == "wal" else in_delete
    with held(site.database, *statements) as release, site.flasking("migrate") as process:
        if purpose:
            wait_for_line(process.stderr, f"Waiting {purpose}")
            assert process.poll() is None
            release()
        finished = finish(process)
    assert finished.returncode == 0
    assert site.applied() == ["001_create", "002_fill"]


@each_lock
def test_a_run_gives_up_when_its_patience_ends_and_says_for_what_it_waited(
    site: Site, journal_mode: str, statements: list[str], in_delete: str, in_wal: str | None
) -> None:
    purpose = in_wal if journal_mode == "wal" else in_delete
    with held(site.database, *statements):
        finished = site.flask("migrate", "--wait", "0.4")
    if purpose:
        assert finished.returncode == 5
        assert "FA502" in finished.stderr
        assert f"{site.database}: waited 0.4 s {purpose}" in finished.stderr
        assert site.applied() == ["001_create"]
        assert site.value("SELECT count(*) FROM visits") == 0
    else:
        assert finished.returncode == 0
    assert site.migrate().returncode == 0


@pytest.mark.slow
def test_a_writer_that_holds_its_lock_for_three_seconds_delays_a_run(site: Site) -> None:
    with held(site.database, "BEGIN IMMEDIATE") as release, site.migrating() as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        release()
        assert finish(process).returncode == 0
    assert site.applied() == ["001_create", "002_fill"]


@pytest.mark.slow
def test_a_run_waits_as_long_as_it_was_told_to_also_when_it_cannot_read(tmp_path: Path) -> None:
    """Longer than the five seconds that a question waits."""
    site = Site(tmp_path / "site", FILES)
    site.begin_with("CREATE TABLE t (x)")
    with held(site.database, "BEGIN EXCLUSIVE") as release, site.flasking("migrate", "--wait", "60") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=7)
        release()
        assert finish(process).returncode == 0
    assert site.applied() == list(FILES)


def test_a_rollback_waits_until_another_process_lets_go(site: Site) -> None:
    site.write({"002_fill": f"-- migrate:up\n{FILES['002_fill']}\n-- migrate:down\nDELETE FROM visits;"})
    site.prepare()
    with held(site.database, "BEGIN IMMEDIATE") as release, site.flasking("rollback", "--yes") as process:
        wait_for_line(process.stderr, "Waiting to write")
        release()
        assert finish(process).returncode == 0
    assert site.applied() == ["001_create"]


def test_a_reader_that_stays_does_not_harm_a_migration_larger_than_the_cache(site: Site) -> None:
    """SQLite would spill to the file, and cannot while somebody reads."""
    site.write({"003_large": f"CREATE TABLE large (n, text); {rows_of(60_000, 'large')};"})
    assert site.flask("migrate", "002").returncode == 0
    with held(site.database, "BEGIN", "SELECT * FROM visits") as release, site.migrating() as process:
        if site.value("PRAGMA journal_mode") == "delete":
            wait_for_line(process.stderr, "Waiting to commit")
        release()
        assert finish(process).returncode == 0
    assert site.value("SELECT count(*) FROM large") == 60_000


# Asking.


@pytest.mark.parametrize(
    "statements",
    [["BEGIN IMMEDIATE", "INSERT INTO visits (text) VALUES ('theirs')"], ["BEGIN", "SELECT * FROM visits"]],
)
def test_status_does_not_wait_for_writers_and_readers(site: Site, statements: list[str]) -> None:
    with held(site.database, *statements):
        assert site.status() == {"001_create": "applied", "002_fill": "pending"}


def test_status_waits_until_an_exclusive_lock_is_released(site: Site) -> None:
    with held(site.database, "BEGIN EXCLUSIVE") as release, site.flasking("status", "--json") as process:
        until(lambda: has_open(process, site.database) or process.poll() is not None)
        release()
        assert finish(process).returncode == 0


@pytest.mark.slow
def test_status_gives_up_under_an_exclusive_lock(site: Site, journal_mode: str) -> None:
    with held(site.database, "BEGIN EXCLUSIVE"):
        finished = site.flask("status")
    if journal_mode == "wal":
        assert finished.returncode == 0
    else:
        assert finished.returncode == 5
        assert "waited 5 s to read" in finished.stderr


def test_questions_during_a_run_are_answered(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {**FILES, "004_slow": f"CREATE TABLE slow AS {ENDLESS};"})
    with site.migrating() as process:
        wait_for_line(process.stdout, "Applied 003_more.sql")
        assert site.status()["004_slow"] == "pending"
        assert site.flask("migrate", "003").stdout.startswith("Nothing to do")
        assert process.poll() is None
