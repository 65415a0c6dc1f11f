"""Ctrl-C and SIGTERM stop a run, leave the database at a version, and say so.

What is stopped would go on for hours, or wait for longer than these tests do: that it ends is the fact."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.helpers import (
    ENDLESS,
    FLASK,
    PATIENCE,
    Process,
    Site,
    cpu_seconds,
    finish,
    has_open,
    held,
    snapshot,
    started,
    state,
    until,
    wait_for_line,
)

QUICK = "CREATE TABLE quick (n);"
STUCK = f"CREATE TABLE before_it (n);\nINSERT INTO quick\n  {ENDLESS};\nCREATE TABLE after_it (n);"

SIGNALS = {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}
each_signal = pytest.mark.parametrize(("number", "code"), SIGNALS.values(), ids=SIGNALS.keys())
each_front_end = pytest.mark.parametrize("flask", [False, True], ids=["plain", "flask"])


def migrating(site: Site, flask: bool) -> AbstractContextManager[Process]:
    return site.flasking("migrate", "--wait", "600") if flask else site.migrating()


def is_writing(site: Site) -> bool:
    """The first statement of a transaction has made its journal, so the run is within the next one."""
    return (site.data / "app.db-journal").exists()


@each_signal
@each_front_end
def test_a_long_statement_is_stopped_and_rolled_back(tmp_path: Path, flask: bool, number: int, code: int) -> None:
    site = Site(tmp_path / "site", {"001_quick": QUICK, "002_stuck": STUCK})
    with migrating(site, flask) as process:
        wait_for_line(process.stdout, "Applied 001_quick.sql")
        until(lambda: is_writing(site))
        so_far = cpu_seconds(process)
        until(lambda: cpu_seconds(process) > so_far + 0.1)  # well into the statement
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == code
    assert "interrupted while 002_stuck.sql was running" in finished.stderr
    assert "002_stuck.sql:2:1" in finished.stderr
    assert "The database is at 001_quick.sql; nothing of the failed run of 002_stuck.sql remains" in finished.stderr
    assert site.tables() == {"quick"}
    assert site.applied() == ["001_quick"]
    assert not is_writing(site)
    site.write({"002_stuck": "INSERT INTO quick VALUES (1);"})
    assert site.migrate().returncode == 0


def test_a_signal_between_two_migrations_leaves_the_first(tmp_path: Path) -> None:
    files = {f"{n:03}_m": f"CREATE TABLE t{n} (x); INSERT INTO t{n} VALUES (1), (2);" for n in range(1, 400)}
    site = Site(tmp_path / "site", files)
    with site.migrating() as process:
        wait_for_line(process.stdout, "Applied 010_m.sql")
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.returncode == 130
    done = 10 + finished.stdout.count("Applied ")
    assert site.applied() == list(files)[:done]
    assert len(site.tables()) == done < 399
    assert state(site.database)


@each_signal
@each_front_end
def test_waiting_for_another_run_can_be_stopped(tmp_path: Path, flask: bool, number: int, code: int) -> None:
    site = Site(tmp_path / "site", {"001_quick": QUICK})
    with held(site.data / "app.db-migrate-lock", "BEGIN EXCLUSIVE"), migrating(site, flask) as process:
        wait_for_line(process.stderr, "Waiting ")
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == code
    assert "interrupted before anything was changed" in finished.stderr
    assert site.applied() == []


LOCKS = {"to write": "BEGIN IMMEDIATE", "to read": "BEGIN EXCLUSIVE"}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS.keys())
@each_signal
def test_waiting_for_another_process_can_be_stopped(tmp_path: Path, number: int, code: int, lock: str) -> None:
    site = Site(tmp_path / "site", {"001_quick": QUICK})
    site.begin_with("CREATE TABLE there (x)")
    with held(site.database, lock), migrating(site, flask=True) as process:
        wait_for_line(process.stderr, "Waiting ")
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == code
    assert "interrupted" in finished.stderr
    assert site.applied() == []
    assert site.tables() == {"there"}


def test_waiting_to_commit_can_be_stopped(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_quick": QUICK})
    site.begin_with("CREATE TABLE there (x)")
    with held(site.database, "BEGIN", "SELECT * FROM there"), migrating(site, flask=True) as process:
        wait_for_line(process.stderr, "Waiting ")
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.returncode == 130
    assert (
        "The database has no migration applied; nothing of the failed run of 001_quick.sql remains" in finished.stderr
    )
    assert site.tables() == {"there"}


@each_signal
def test_a_rollback_can_be_stopped_and_is_undone(tmp_path: Path, number: int, code: int) -> None:
    down = f"-- migrate:up\nCREATE TABLE other (n);\n-- migrate:down\nDROP TABLE other;\nINSERT INTO quick {ENDLESS};"
    site = Site(tmp_path / "site", {"001_quick": QUICK, "002_down": down})
    site.prepare()
    before = state(site.database)
    with site.flasking("rollback", "--yes") as process:
        until(lambda: is_writing(site))
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == code
    assert "interrupted while 002_down.sql was running" in finished.stderr
    assert "The database is at 002_down.sql" in finished.stderr
    assert state(site.database) == before


def test_the_preview_of_a_rollback_can_be_stopped(tmp_path: Path) -> None:
    down = f"-- migrate:up\nCREATE TABLE other (n);\n-- migrate:down\nDROP TABLE other;\nINSERT INTO quick {ENDLESS};"
    site = Site(tmp_path / "site", {"001_quick": QUICK, "002_down": down})
    site.prepare()
    before = state(site.database)
    with site.flasking("rollback") as process:
        until(lambda: any(site.data.glob(".financial_agent-private-*/*/app.db-journal")))
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.returncode == 130
    assert state(site.database) == before
    assert not list(site.data.glob(".financial_agent-private-*"))


@each_signal
def test_a_statement_outside_a_transaction_can_be_stopped_and_what_is_in_effect_is_told(
    tmp_path: Path, number: int, code: int
) -> None:
    site = Site(tmp_path / "site", {"001_quick": QUICK, "002_half": f"-- migrate:up transaction:false\n{STUCK}"})
    with site.migrating() as process:
        until(lambda: "before_it" in site.tables())
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == code
    assert "of 002_half.sql 1 of 3 statements took effect" in finished.stderr
    assert "nothing of" not in finished.stderr
    assert "what was undone" not in finished.stderr
    assert site.tables() == {"quick", "before_it"}
    assert site.applied() == ["001_quick"]


def test_status_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    """Python's own KeyboardInterrupt, as nothing needs to be undone."""
    site = Site(tmp_path / "site", {"001_quick": QUICK})
    site.prepare()
    before = snapshot(site.data)
    waits_long = (
        "import runpy; from financial_agent.migrator import control, session;"
        " session.ASKING = control.Control(wait=600); runpy.run_module('flask', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", waits_long, *FLASK[3:], "status", *site.options()]
    with held(site.database, "BEGIN EXCLUSIVE"), started(command, site.root) as process:
        until(lambda: has_open(process, site.database))
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert snapshot(site.data) == before
