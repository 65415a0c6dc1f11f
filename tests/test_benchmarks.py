"""The benchmarks' databases are what the application itself would have written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT, Site, finish, snapshot, started

MEGABYTE = 1_000_000


def benchmark(site: Site, script: str, *options: str) -> str:
    """What a script of the folder prints about the site's database."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), str(site.database), *options]
    with started(command, site.root) as process:
        finished = finish(process)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def generated(site: Site, *options: str) -> Site:
    benchmark(site, "generate_chats.py", "--megabytes", "2", *options)
    return site


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return generated(Site(tmp_path_factory.mktemp("chats") / "site"))


def contents(site: Site) -> list[Any]:
    return [
        site.rows(f"SELECT * FROM {table} ORDER BY id")
        for table in ("conversations", "chat_messages", "conversation_summaries")
    ]


def test_it_is_as_large_as_asked_and_sound(chats: Site) -> None:
    assert 2 * MEGABYTE <= chats.database.stat().st_size < 4 * MEGABYTE
    assert chats.rows("PRAGMA integrity_check") == [("ok",)]
    assert chats.rows("PRAGMA foreign_key_check") == []
    assert chats.value("PRAGMA journal_mode") == "delete"
    assert len(chats.applied()) == 4


def test_every_conversation_is_counted(chats: Site) -> None:
    kept = "SELECT id, message_count, last_message_at, updated_at FROM conversations ORDER BY id"
    counted = (
        "SELECT conversation_id, count(*), max(created_at), max(created_at)"
        " FROM chat_messages WHERE is_active = 1 GROUP BY 1 ORDER BY 1"
    )
    assert chats.rows(kept) == chats.rows(counted)
    assert chats.value("SELECT count(*) FROM chat_messages WHERE is_active = 0") > 0


@pytest.mark.parametrize("column", ["tool_calls", "tool_results", "sql_query", "sql_results", "chart_data"])
def test_some_messages_have_each_column_and_most_have_not(chats: Site, column: str) -> None:
    messages, filled = chats.rows(f"SELECT count(*), count({column}) FROM chat_messages")[0]
    assert 0 < filled < messages / 2


def test_the_seed_decides_the_chats(chats: Site, tmp_path: Path) -> None:
    same = generated(Site(tmp_path / "same"), "--seed", "1", "--journal-mode", "wal")
    other = generated(Site(tmp_path / "other"), "--seed", "2")
    assert contents(same) == contents(chats) != contents(other)
    assert same.value("PRAGMA journal_mode") == "wal"


def test_it_stops_at_a_version_so_that_the_next_is_pending(tmp_path: Path) -> None:
    earlier = generated(Site(tmp_path / "earlier"), "--version", "003")
    assert earlier.applied()[-1] == "003_create_conversation_summaries"
    assert earlier.value("SELECT count(*) FROM chat_messages") > 0


def test_a_database_that_is_there_already_is_left_alone(chats: Site) -> None:
    before = chats.database.read_bytes()
    with pytest.raises(AssertionError, match="exists already"):
        generated(chats)
    assert chats.database.read_bytes() == before


@pytest.mark.slow
def test_a_lock_that_a_command_holds_shows_as_a_stall_of_that_length(chats: Site) -> None:
    hold = (
        "import sqlite3, time; db = sqlite3.connect('chats.db', 60, isolation_level=None);"
        " db.execute('BEGIN IMMEDIATE'); time.sleep(1)"
    )
    before = snapshot(chats.data)
    options = ("--rounds", "1", "--journal-mode", "delete", "--json")
    copy, backup, held, refused = json.loads(
        benchmark(chats, "stalls.py", f'{sys.executable} -c "{hold}"', "exit 4", *options)
    )
    assert held["busy"]["longest_ms"] > 500 > held["idle"]["median_ms"]
    assert [each["exit_code"] for each in (copy, backup, held, refused)] == [0, 0, 0, 4]
    assert held["idle"]["commits"] > 0
    assert snapshot(chats.data) == before


@pytest.mark.slow
def test_a_backfill_in_batches_is_killed_and_changes_every_row_once_and_keeps_no_writer_waiting(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "backfill.py"), str(tmp_path), "--rows", "200000", "--json"]
    with started(command, tmp_path, patience=300) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    results = json.loads(out)
    assert [(each["kills"], each["each_row_once"]) for each in results] == [(0, True), (3, True), (0, True)] * 2
    for in_batches, killed, at_once in (results[:3], results[3:]):
        assert max(in_batches["writer"]["longest_ms"], killed["writer"]["longest_ms"]) < 250
        assert at_once["writer"]["longest_ms"] > in_batches["writer"]["longest_ms"]
    assert not any(tmp_path.iterdir())
