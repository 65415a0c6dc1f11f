"""What the history tells of runs that failed, were stopped, or were killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ENDLESS, FLASK, Site, finish, held, run_with, until

GOOD = {"001_good": "-- migrate:up\nCREATE TABLE good (id INTEGER PRIMARY KEY);\n-- migrate:down\nDROP TABLE good;"}
FAILING = {"002_guilty": "CREATE TABLE half (a);\nINSERT INTO half VALUES ('secret'), (json('secret'));"}
SLOW = {"002_slow": f"CREATE TABLE half (a);\n{ENDLESS};"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", GOOD)


def failures(site: Site) -> list[Any]:
    return site.rows(
        "SELECT filename, statements, error, exit_code FROM _migration_history WHERE event = 'failure' ORDER BY id"
    )


def test_a_failure_is_told_with_its_place_and_exit_code_and_without_any_row(site: Site) -> None:
    site.write(FAILING)
    assert site.migrate().returncode == 3
    assert failures(site) == [
        ("002_guilty.sql", 2, "FA301 002_guilty.sql failed: malformed JSON (002_guilty.sql:2)", 3)
    ]
    assert site.history() == [("apply", "001_good"), ("failure", "002_guilty")]
    assert site.tables() == {"good"}


def test_the_first_migration_that_fails_on_a_new_database_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "new", {"001_guilty": "SELEC 1;"})
    assert site.migrate().returncode == 3
    assert site.history() == [("failure", "001_guilty")]
    assert site.applied() == []


def test_a_rollback_that_fails_is_told(site: Site) -> None:
    site.write({"002_back": "-- migrate:up\nCREATE TABLE back (a);\n-- migrate:down\nDROP TABLE nowhere;"})
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 3
    assert site.history()[-1] == ("failure", "002_back")
    assert site.applied() == ["001_good", "002_back"]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_was_stopped_is_told(site: Site, number: int, exit_code: int) -> None:
    site.write(SLOW)
    with site.migrating() as process:
        until(lambda: site.applied() == ["001_good"])
        until(lambda: _works(site))
        process.send_signal(number)
        assert finish(process).returncode == exit_code
    assert failures(site) == [
        ("002_slow.sql", 2, "FA306 interrupted while 002_slow.sql was running (002_slow.sql:2)", exit_code)
    ]


def test_a_run_that_was_killed_is_told_by_the_next_one(site: Site) -> None:
    site.write(SLOW)
    with site.migrating() as process:
        until(lambda: site.applied() == ["001_good"])
        until(lambda: _works(site))
        process.kill()
        process.wait()
    assert site.history() == [("apply", "001_good")]
    site.write({"002_slow": "CREATE TABLE quick (a);"})
    assert site.migrate().returncode == 0
    assert site.history() == [("apply", "001_good"), ("failure", "002_slow"), ("apply", "002_slow")]
    ((_, _, error, exit_code),) = failures(site)
    assert error.startswith(f"process {process.pid} of ")
    assert error.endswith(" was killed while the migration was running")
    assert exit_code is None
    assert not (site.data / "app.db-migrate-attempt").exists()


def test_a_note_that_a_power_cut_left_illegible_is_dropped(site: Site) -> None:
    site.prepare()
    (site.data / "app.db-migrate-attempt").write_bytes(b"\0\0\0\xff")
    site.write({"002_more": "CREATE TABLE more (a);"})
    assert site.migrate().returncode == 0
    assert site.history() == [("apply", "001_good"), ("apply", "002_more")]


def test_nothing_is_left_beside_the_database_by_a_run_that_ends(site: Site) -> None:
    site.write(FAILING)
    site.migrate()
    assert {path.name for path in site.data.iterdir()} == {"app.db", "app.db-migrate-lock"}


def test_a_failure_that_cannot_be_recorded_does_not_hide_its_cause(site: Site) -> None:
    site.prepare()
    site.write({"002_more": "CREATE TABLE more (a);"})
    with held(site.database, "BEGIN IMMEDIATE"):
        finished = run_with([], [*FLASK, "migrate", "--wait", "0"], site)
    assert finished.returncode == 5
    assert "FA502" in finished.stderr
    assert site.history() == [("apply", "001_good")]


def test_the_history_tells_the_commit_that_the_files_are_of(site: Site) -> None:
    run_git = ["git", "-C", str(site.directory), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        _run([*run_git, *words])
    site.prepare()
    commit = _run([*run_git, "rev-parse", "HEAD"]).strip()
    assert site.rows("SELECT git_commit FROM _migration_history") == [(commit,)]


def test_without_a_repository_the_history_tells_no_commit(site: Site) -> None:
    site.prepare()
    assert site.rows("SELECT git_commit FROM _migration_history") == [(None,)]


def _works(site: Site) -> bool:
    """Whether the second migration is being run."""
    path = site.data / "app.db-migrate-attempt"
    return path.exists() and "002_slow" in path.read_text() and (site.data / "app.db-journal").exists()


def _run(command: list[str]) -> str:
    import subprocess

    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
