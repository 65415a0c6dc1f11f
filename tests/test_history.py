"""What `flask db history` tells: every event that the database records, as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import FIRST_LEDGER, FLASK, Finished, Site, finish, snapshot, started

FILES = {
    "001_people": "CREATE TABLE people (name TEXT); INSERT INTO people VALUES ('Ann'), ('Bob');",
    "002_pets": "-- migrate:up\nCREATE TABLE pets (name TEXT);\n-- migrate:down\nDROP TABLE pets;",
}
HAPPENED = [("apply", "001_people"), ("apply", "002_pets"), ("rollback", "002_pets"), ("apply", "002_pets")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two migrations, of which the second was undone and applied once more."""
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 0
    site.prepare()
    return site


def told(finished: Finished) -> list[dict[str, Any]]:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines: list[dict[str, Any]] = json.loads(finished.stdout)["history"]
    return lines


def events(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["event"], line["filename"].removesuffix(".sql")) for line in lines]


def test_every_event_is_told_the_oldest_first(site: Site) -> None:
    lines = told(site.flask("history", "--json"))
    assert events(lines) == HAPPENED
    assert [line["id"] for line in lines] == [1, 2, 3, 4]
    assert (lines[0]["statements"], lines[0]["rows_changed"]) == (2, 2)
    for name in ("started_at", "os_user", "host", "tool_version", "checksum"):
        assert lines[0][name] == site.value(f"SELECT {name} FROM _migration_history WHERE id = 1")


def test_a_table_has_a_line_for_each_event_and_no_column_without_a_value(site: Site) -> None:
    site.do("UPDATE _migration_history SET started_at = '2026-03-02T09:00:00.123+00:00', duration_ms = 1500")
    site.do("UPDATE _migration_history SET os_user = 'ann', host = 'box', note = 'why' || char(10) || 'not'")
    header, first, *rest = site.flask("history").stdout.splitlines()
    assert header.split()[:7] == ["when", "(UTC)", "event", "migration", "took", "statements", "rows"]
    assert first.split()[:8] == ["2026-03-02", "09:00:00", "apply", "001_people", "1.5", "s", "2", "2"]
    assert "ann@box" in first
    assert first.endswith("why not")
    assert len(rest) == 3

    site.do("UPDATE _migration_history SET os_user = NULL, host = NULL, note = NULL")
    header = site.flask("history").stdout.splitlines()[0]
    assert "by" not in header.split()
    assert "notes" not in header.split()


def test_a_failure_is_told_with_its_error_and_exit_code(site: Site) -> None:
    site.write({"003_bad": "CREATE TABLE good (x);\nSELEC 1;"})
    assert site.migrate().returncode == 3
    last = told(site.flask("history", "--json"))[-1]
    assert (last["event"], last["filename"], last["exit_code"]) == ("failure", "003_bad.sql", 3)
    assert last["error"].startswith("FA301 003_bad.sql failed: near")
    assert f"exit 3: {last['error']}" in site.flask("history").stdout


@pytest.mark.parametrize(("target", "expected"), [("1", HAPPENED[:1]), ("pets", HAPPENED[1:])])
def test_a_target_has_its_own_history(site: Site, target: str, expected: list[tuple[str, str]]) -> None:
    assert events(told(site.flask("history", target, "--json"))) == expected


def test_a_migration_whose_file_is_gone_keeps_its_history(site: Site) -> None:
    (site.directory / "002_pets.sql").unlink()
    assert events(told(site.flask("history", "2", "--json"))) == HAPPENED[1:]


def test_a_target_without_a_history_is_refused(site: Site) -> None:
    site.write({"003_new": "CREATE TABLE new (x);"})
    finished = site.flask("history", "3")
    assert finished.returncode == 2
    assert "FA106" in finished.stderr


def test_the_longest_come_first_when_asked(site: Site) -> None:
    site.do(
        "UPDATE _migration_history SET duration_ms = CASE id WHEN 1 THEN 10 WHEN 2 THEN NULL WHEN 3 THEN 30 ELSE 20 END"
    )
    assert [line["id"] for line in told(site.flask("history", "--slowest", "--json"))] == [3, 4, 1, 2]


def test_csv_has_every_column_of_every_event(site: Site) -> None:
    site.do("UPDATE _migration_history SET note = 'a \"quoted\", long' || char(10) || 'reason' WHERE id = 1")
    rows = list(csv.DictReader(site.flask("history", "--csv").stdout.splitlines(keepends=True)))
    columns = {name for (name,) in site.rows("SELECT name FROM pragma_table_info('_migration_history')")}
    assert set(rows[0]) >= columns
    assert rows[0]["note"] == 'a "quoted", long\nreason'
    for row in rows:
        for name in columns:
            value = site.rows(f"SELECT {name} FROM _migration_history WHERE id = ?", row["id"])[0][0]
            assert row[name] == ("" if value is None else str(value))


def test_csv_and_json_at_once_are_refused(site: Site) -> None:
    assert site.flask("history", "--csv", "--json").returncode == 2


@pytest.mark.parametrize("words", [(), ("--csv",), ("--json",), ("--slowest",)])
def test_asking_writes_nothing(site: Site, words: tuple[str, ...]) -> None:
    before = snapshot(site.data)
    assert site.flask("history", *words).returncode == 0
    assert snapshot(site.data) == before


def test_a_database_that_is_not_there_has_no_history_and_is_not_made(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    assert told(site.flask("history", "--json")) == []
    assert "Nothing is recorded" in site.flask("history").stdout
    assert not site.database.exists()


def test_a_database_of_the_first_runner_has_no_history(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do(FIRST_LEDGER, "INSERT INTO _migrations (filename) VALUES ('001_people.sql')")
    assert told(site.flask("history", "--json")) == []


def test_a_history_with_fewer_columns_is_told_as_far_as_it_goes(site: Site) -> None:
    for column in ("note", "rows_changed", "host"):
        site.do(f"ALTER TABLE _migration_history DROP COLUMN {column}")
    lines = told(site.flask("history", "--json"))
    assert events(lines) == HAPPENED
    assert [lines[0][name] for name in ("note", "rows_changed", "host")] == [None, None, None]


def test_a_table_that_is_no_history_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("CREATE TABLE _migration_history (id, what)")
    finished = site.flask("history")
    assert finished.returncode == 4
    assert "_migration_history is not a migration ledger: it has no column 'event'" in finished.stderr


def test_values_of_any_type_are_told_without_a_crash(site: Site) -> None:
    site.do(
        "UPDATE _migration_history SET duration_ms = 'long', note = x'ff00', filename = x'ff', host = 7 WHERE id = 1"
    )
    site.do("UPDATE _migration_history SET note = CAST(x'ff41' AS TEXT), os_user = char(27) || '[2J' WHERE id = 2")
    for words in ((), ("--csv",), ("--json",), ("--slowest",)):
        finished = site.flask("history", *words)
        assert finished.returncode == 0, finished.stderr
        assert "\x1b" not in finished.stdout or words == ("--csv",)


def test_a_reader_that_stops_early_ends_it_quietly(site: Site) -> None:
    site.do(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) INSERT INTO _migration_history"
        " (event, filename, started_at, previous_sha256) SELECT 'apply', '001_people.sql', '2026', '' FROM c"
    )
    with started([*FLASK, "history", *site.options()], site.root) as process:
        assert process.stdout
        head = subprocess.run(["head", "-n", "1"], stdin=process.stdout, capture_output=True, check=True)
        process.stdout.close()
        process.stdout = None
        assert head.stdout.startswith(b"when")
        assert finish(process).stderr == ""
