"""What the ledger keeps: databases of the first runner, the SQL of both sides, and the history's chain."""

from __future__ import annotations

import hashlib
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import ledger
from tests.helpers import FIRST_LEDGER, Site, snapshot, state

FILES = {
    "001_people": "-- People.\n-- migrate:up\nCREATE TABLE people (name TEXT);\n-- migrate:down\nDROP TABLE people;\n",
    "002_pets": "-- migrate:up\nCREATE TABLE pets (name TEXT); -- é € 🐕\n-- migrate:down\n\nDROP TABLE pets;",
    "003_forever": "CREATE TABLE forever (x);\n",
}
NAMES = list(FILES)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Three migrations, all applied."""
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    return site


@pytest.fixture
def old(tmp_path: Path) -> Site:
    """A database to which the first runner has applied two of them."""
    site = Site(tmp_path / "old", FILES)
    site.do(
        "CREATE TABLE people (name TEXT)",
        "CREATE TABLE pets (name TEXT)",
        "INSERT INTO pets VALUES ('Rex')",
        FIRST_LEDGER,
    )
    site.do("INSERT INTO _migrations (filename, applied_at) VALUES ('001_people.sql', '2020-02-02 02:02:02')")
    site.do("INSERT INTO _migrations (filename, applied_at) VALUES ('002_pets.sql', '2021-01-01 01:01:01')")
    return site


def checksum(name: str) -> str:
    return hashlib.sha256(FILES[name].encode()).hexdigest()


# Taking over.


def test_status_of_an_old_database_writes_nothing(old: Site) -> None:
    before = snapshot(old.data)
    assert old.status() == {"001_people": "applied", "002_pets": "applied", "003_forever": "pending"}
    assert snapshot(old.data) == before


def test_an_old_database_is_taken_over_in_place_and_nothing_runs_again(old: Site) -> None:
    rows = old.rows("SELECT id, filename, applied_at FROM _migrations")
    finished = old.migrate()
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("Applied ") == 1
    assert old.rows("SELECT id, filename, applied_at FROM _migrations WHERE id < 3") == rows
    assert old.rows("SELECT id, checksum FROM _migrations") == [
        (at, checksum(name)) for at, name in enumerate(NAMES, 1)
    ]
    assert old.rows("SELECT name FROM pets") == [("Rex",)]
    assert old.history() == [("takeover", name) for name in NAMES[:2]] + [("apply", "003_forever")]
    assert old.status() == dict.fromkeys(NAMES, "applied")


def test_a_run_with_nothing_to_do_leaves_an_old_ledger_as_it_is(old: Site) -> None:
    (old.directory / "003_forever.sql").unlink()
    before = snapshot(old.data)
    assert old.migrate().stdout.startswith("Nothing to do")
    assert snapshot(old.data) == before


def test_a_failing_first_run_leaves_an_old_database_usable(old: Site) -> None:
    old.write({"003_forever": "CREATE TABLE forever (x); SELEC 1;"})
    assert old.migrate().returncode == 3
    assert old.applied() == ["001_people", "002_pets"]
    old.write(FILES)
    assert old.migrate().returncode == 0
    assert old.applied() == NAMES


def test_an_old_entry_whose_file_is_gone_stays_without_a_checksum(old: Site) -> None:
    (old.directory / "001_people.sql").unlink()
    assert old.migrate().returncode == 0
    assert old.rows("SELECT checksum FROM _migrations") == [
        (None,),
        (checksum("002_pets"),),
        (checksum("003_forever"),),
    ]
    assert old.status() == {"001_people": "missing", "002_pets": "applied", "003_forever": "applied"}


def test_an_old_database_can_be_rolled_back_with_the_files(old: Site) -> None:
    finished = old.flask("rollback", "--yes", "--to", "0")
    assert finished.returncode == 0, finished.stderr
    assert old.applied() == []
    assert old.tables() == set()
    assert old.history()[-2:] == [("rollback", "002_pets"), ("rollback", "001_people")]


def test_a_taken_over_migration_is_shown_as_what_it_is(old: Site) -> None:
    """It can be rolled back while its file is what it was."""
    assert old.migrate().returncode == 0
    lines = old.flask("status").stdout.splitlines()
    assert [("irreversible" in line) for line in lines if line[:3].isdigit()] == [False, False, True]


@pytest.mark.parametrize("first", ["status", "migrate"])
def test_a_foreign_table_named_like_the_ledger_is_refused(tmp_path: Path, first: str) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("CREATE TABLE _migrations (version TEXT)")
    before = snapshot(site.data)
    finished = site.flask(first)
    assert finished.returncode == 4
    assert "FA407" in finished.stderr
    assert snapshot(site.data) == before


# What is kept of each migration.


def test_an_entry_keeps_the_checksum_and_the_sql_of_both_sides(site: Site) -> None:
    kept = site.rows("SELECT filename, checksum, up_sql, down_sql FROM _migrations ORDER BY id")
    for name, (filename, digest, up, down) in zip(NAMES, kept, strict=True):
        assert filename == f"{name}.sql"
        assert digest == checksum(name)
        head, marker, tail = FILES[name].partition("-- migrate:down")
        assert zlib.decompress(up).decode() == head
        if marker:
            assert zlib.decompress(down).decode().strip("\n") == (marker + tail).strip("\n")
        else:
            assert down is None


def test_an_entry_tells_when_and_how_long(site: Site) -> None:
    for applied_at, now, duration, fingerprint in site.rows(
        "SELECT applied_at, datetime('now'), duration_ms, schema_fingerprint FROM _migrations"
    ):
        assert applied_at <= now
        assert 0 <= duration < 60_000
        assert len(fingerprint) == 64


def test_an_up_side_of_over_a_megabyte_keeps_only_its_checksum(tmp_path: Path) -> None:
    large = f"CREATE TABLE large (x);\n-- {'x' * (1 << 20)}\n"
    site = Site(tmp_path / "site", {"001_large": f"-- migrate:up\n{large}-- migrate:down\nDROP TABLE large;"})
    site.prepare()
    assert site.rows("SELECT up_sql, length(checksum), down_sql IS NOT NULL FROM _migrations") == [(None, 64, 1)]
    assert site.flask("rollback", "--yes").returncode == 0


def test_line_ends_and_a_byte_order_mark_do_not_change_the_checksum(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    path = site.directory / "001_people.sql"
    path.write_bytes(b"\xef\xbb\xbf" + FILES["001_people"].replace("\n", "\r\n").encode())
    site.prepare()
    assert site.value("SELECT checksum FROM _migrations") == checksum("001_people")
    path.write_text(FILES["001_people"], encoding="utf-8")
    assert site.status() == {"001_people": "applied"}


def test_equal_schemas_have_equal_fingerprints(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", FILES)
    assert other.flask("migrate").returncode == 0
    fingerprints = "SELECT schema_fingerprint FROM _migrations ORDER BY id"
    assert site.rows(fingerprints) == other.rows(fingerprints)
    assert len(set(site.rows(fingerprints))) == 3


# Rolling back with what is kept.


def edit(site: Site) -> None:
    site.write({"002_pets": FILES["002_pets"].replace("DROP TABLE pets", "DROP TABLE people")})


def break_it(site: Site) -> None:
    site.write({"002_pets": "-- migrate:upp 'never closed"})


def remove(site: Site) -> None:
    (site.directory / "002_pets.sql").unlink()


def lose_the_section(site: Site) -> None:
    site.write({"002_pets": FILES["002_pets"].partition("-- migrate:down")[0]})


@pytest.mark.parametrize("change", [edit, break_it, remove, lose_the_section])
def test_a_rollback_runs_the_down_section_that_was_applied(tmp_path: Path, change: Any) -> None:
    site = Site(tmp_path / "site", {name: FILES[name] for name in NAMES[:2]})
    site.prepare()
    change(site)
    finished = site.flask("rollback", "--yes")
    assert finished.returncode == 0, finished.stderr
    assert site.applied() == ["001_people"]
    assert site.tables() == {"people"}


def test_a_stored_section_that_fails_is_located_in_the_line_of_its_file(tmp_path: Path) -> None:
    stuck = "-- migrate:up\nSELECT 1;\n-- migrate:down\n\nDROP TABLE nowhere;"
    site = Site(tmp_path / "site", {"001_stuck": stuck})
    site.prepare()
    (site.directory / "001_stuck.sql").unlink()
    finished = site.flask("rollback", "--yes")
    assert finished.returncode == 3
    assert "001_stuck.sql (as the ledger keeps it):5:12" in finished.stderr


TAMPERED = {
    "not compressed": b"DROP TABLE pets;",
    "cut off": zlib.compress(b"DROP TABLE pets;")[:-5],
    "not UTF-8": zlib.compress(b"DROP TABLE pets; -- \xff"),
    "never closed": zlib.compress(b"DROP TABLE 'pets;"),
    "empty": b"",
}


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_stored_section_that_was_tampered_with_is_refused(site: Site, tampered: bytes) -> None:
    site.do("DELETE FROM _migrations WHERE filename = '003_forever.sql'")
    site.do(f"UPDATE _migrations SET down_sql = x'{tampered.hex()}' WHERE filename = '002_pets.sql'")
    remove(site)
    before = state(site.database)
    finished = site.flask("rollback", "--yes")
    assert finished.returncode == 4
    assert "FA408" in finished.stderr
    assert state(site.database) == before


def test_a_migration_can_be_applied_again_after_a_rollback(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {name: FILES[name] for name in NAMES[:2]})
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 0
    edited = FILES["002_pets"].replace("name", "nickname")
    site.write({"002_pets": edited})
    assert site.migrate().returncode == 0
    assert site.rows("SELECT checksum FROM _migrations WHERE id > 1") == [
        (hashlib.sha256(edited.encode()).hexdigest(),)
    ]
    assert site.status() == {"001_people": "applied", "002_pets": "applied"}


# The history.


def history(site: Site) -> tuple[list[str], list[Any]]:
    names = [name for (name,) in site.rows("SELECT name FROM pragma_table_info('_migration_history')")]
    return names, site.rows("SELECT * FROM _migration_history ORDER BY id")


def test_the_history_tells_what_happened_in_its_order(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {name: FILES[name] for name in NAMES[:2]})
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 0
    site.write({"003_forever": FILES["003_forever"]})
    assert site.migrate().returncode == 0
    told = [("apply", 0), ("apply", 1), ("rollback", 1), ("apply", 1), ("apply", 2)]
    assert site.history() == [(event, NAMES[at]) for event, at in told]


def test_each_row_of_the_history_carries_the_hash_of_the_row_before(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {name: FILES[name] for name in NAMES[:2]})
    for words in (["migrate"], ["rollback", "--yes"], ["migrate"], ["rollback", "--yes", "--to", "0"], ["migrate"]):
        assert site.flask(*words).returncode == 0
    names, rows = history(site)
    assert len(rows) == 8
    previous = names.index("previous_sha256")
    assert rows[0][previous] == ""
    for before, after in pairwise(rows):
        assert after[previous] == ledger.row_hash(names, before)


def test_a_change_to_the_past_shows_in_the_chain(site: Site) -> None:
    names, rows = history(site)
    site.do("UPDATE _migration_history SET os_user = 'somebody else' WHERE id = 2")
    _, changed = history(site)
    previous = names.index("previous_sha256")
    assert rows[2][previous] == ledger.row_hash(names, rows[1])
    assert changed[2][previous] != ledger.row_hash(names, changed[1])


def test_a_row_of_the_history_tells_who_where_and_what(site: Site) -> None:
    rows = site.rows(
        "SELECT started_at, duration_ms, statements, rows_changed, os_user, host, tool_version, checksum"
        " FROM _migration_history"
    )
    for name, (started_at, duration, statements, changed, user, host, version, digest) in zip(NAMES, rows, strict=True):
        assert started_at.endswith("+00:00")
        assert 0 <= duration < 60_000
        assert (statements, changed) == (1, 0)
        assert user
        assert host
        assert version
        assert digest == checksum(name)


def test_a_failed_run_leaves_the_chain_whole(site: Site) -> None:
    site.write({"004_bad": "SELEC 1;"})
    assert site.migrate().returncode == 3
    site.write({"004_bad": "SELECT 1;"})
    assert site.migrate().returncode == 0
    names, rows = history(site)
    previous = names.index("previous_sha256")
    for before, after in pairwise(rows):
        assert after[previous] == ledger.row_hash(names, before)
    assert site.applied() == [*NAMES, "004_bad"]
