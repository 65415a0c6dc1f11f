"""Files that a late merge brings: below what is applied, or with a number that another file has."""

from __future__ import annotations

import json
import os
import shlex
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest

from financial_agent.migrator import runner
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors import FolderMissing, OutOfOrder
from financial_agent.migrator.renumber import renumber
from tests.helpers import ENDLESS, PLAIN, Finished, Site, finish, held, run_with, snapshot, wait_for_line

FILES = {"001_a": "CREATE TABLE a (x);", "003_c": "CREATE TABLE c (x);"}
LATE = {"002_b": "CREATE TABLE b (x);"}
ALLOWED = {"002_b": "-- migrate:out-of-order allow\n-- migrate:up\nCREATE TABLE b (x);\n-- migrate:down\nDROP TABLE b;"}
NOW = datetime(2025, 3, 1, 9, 30, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two are applied, and a third comes between them."""
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    site.write(LATE)
    return site


def names(site: Site) -> list[str]:
    return sorted(path.name for path in site.directory.iterdir())


def hints(finished: Finished) -> list[list[str]]:
    """The commands that an error says to type, without their options for the database and the folder."""
    lines = [line.partition("flask db ")[2] for line in finished.stderr.splitlines() if "flask db " in line]
    return [[word for word in shlex.split(line) if not word.startswith(("--d", "/"))] for line in lines]


# Below what is applied.


def test_a_file_below_an_applied_one_is_refused_before_anything_runs(site: Site) -> None:
    site.write({"004_d": "CREATE TABLE d (x);"})
    before = snapshot(site.data)
    finished = site.migrate()
    assert finished.returncode == 4
    assert "Error FA412: 002_b.sql would run behind 003_c.sql, which is applied\n" in finished.stderr
    assert snapshot(site.data) == before


def test_all_that_are_out_of_order_are_named_and_the_newest_applied(site: Site) -> None:
    site.write({"000_z": "CREATE TABLE z (x);"})
    assert "000_z.sql, 002_b.sql would run behind 003_c.sql, which is applied\n" in site.migrate().stderr


@pytest.mark.parametrize(("at", "applied"), [(0, ["001_a", "003_c", "002_b"]), (1, ["001_a", "003_c", "004_b"])])
def test_each_command_of_the_hint_leads_on(site: Site, at: int, applied: list[str]) -> None:
    commands = hints(site.migrate())
    assert commands == [["migrate", "--out-of-order"], ["renumber", "002_b.sql"]]
    assert site.flask(*commands[at]).returncode == 0
    assert site.flask("migrate").returncode == 0
    assert site.applied() == applied


def test_the_option_applies_them(site: Site) -> None:
    site.write({"004_d": "CREATE TABLE d (x);"})
    finished = site.flask("upgrade", "--out-of-order")
    assert finished.returncode == 0, finished.stderr
    assert site.applied() == ["001_a", "003_c", "002_b", "004_d"]


def test_the_plain_runner_has_the_option_too(site: Site) -> None:
    assert run_with([], [*PLAIN, "--out-of-order"], site).returncode == 0
    assert site.applied() == ["001_a", "003_c", "002_b"]


def test_a_file_can_allow_it_for_itself_and_for_no_other(site: Site) -> None:
    site.write({**ALLOWED, "000_z": "CREATE TABLE z (x);"})
    assert ": 000_z.sql would run behind " in site.migrate().stderr
    (site.directory / "000_z.sql").unlink()
    assert site.migrate().returncode == 0
    assert site.applied() == ["001_a", "003_c", "002_b"]
    (site.directory / "002_b.sql").unlink()
    assert site.flask("rollback", "--yes").returncode == 0  # with the down section that the ledger keeps
    assert site.applied() == ["001_a", "003_c"]


@pytest.mark.parametrize("argument", ["", " yes", " off"])
def test_the_directive_takes_one_word(site: Site, argument: str) -> None:
    site.write({"002_b": f"-- migrate:out-of-order{argument}\n{LATE['002_b']}"})
    finished = site.migrate()
    assert finished.returncode == 4
    assert "Write: -- migrate:out-of-order allow" in finished.stderr


def test_only_what_would_run_is_judged(site: Site) -> None:
    site.write({"000_z": "-- migrate:out-of-order allow\nCREATE TABLE z (x);"})
    assert site.flask("migrate", "1").returncode == 0
    assert site.applied() == ["001_a", "003_c", "000_z"]
    assert site.flask("migrate", "2").returncode == 4


def test_an_applied_migration_whose_file_is_gone_counts(site: Site) -> None:
    (site.directory / "003_c.sql").unlink()
    assert "would run behind 003_c.sql" in site.migrate().stderr


def test_names_of_other_tools_in_the_ledger_are_below_every_file(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_a": FILES["001_a"]})
    site.prepare()
    site.do("UPDATE _migrations SET filename = 'initial'")
    site.write({"000_z": "CREATE TABLE z (x);"})
    (site.directory / "001_a.sql").unlink()
    assert site.migrate().returncode == 0


def test_what_another_run_applies_meanwhile_counts(tmp_path: Path) -> None:
    """The ledger is asked under the lock: when the waiting run looked first, nothing was applied."""
    newer = Site(tmp_path / "newer", {"003_c": f"CREATE TABLE c (x);\nCREATE TABLE slow AS {ENDLESS};"})
    older = Site(tmp_path / "older", LATE)
    older.database = newer.database
    newer.do("PRAGMA user_version = 1")
    with held(newer.data / "app.db-migrate-lock", "BEGIN EXCLUSIVE") as release, older.migrating() as waiter:
        wait_for_line(waiter.stderr, "the other migration run")
        newer.do(
            "CREATE TABLE _migrations (id INTEGER PRIMARY KEY, filename TEXT UNIQUE NOT NULL, applied_at TEXT)",
            "INSERT INTO _migrations VALUES (1, '003_c.sql', '2025-03-01 09:30:00')",
        )
        release()
        finished = finish(waiter)
    assert finished.returncode == 4
    assert "would run behind 003_c.sql" in finished.stderr
    assert newer.tables() == set()


def test_a_run_of_the_engine_raises_it_with_its_fields(site: Site) -> None:
    with pytest.raises(OutOfOrder) as refused:
        runner.migrate(str(site.database), site.directory)
    assert refused.value.fields == {"names": "002_b.sql", "newest": "003_c.sql", "first": Path("002_b.sql")}


# Two files with one number.


@pytest.fixture
def merged(tmp_path: Path) -> Site:
    """Two branches have each added a second migration, of which the one that came first is applied."""
    site = Site(tmp_path / "merged", {"001_a": FILES["001_a"], "002_theirs": "CREATE TABLE theirs (x);"})
    site.prepare()
    site.write({"002_mine": "CREATE TABLE mine (x);"})
    (site.directory / "002_mine.postgresql.sql").write_text("CREATE TABLE mine (x bigint);")
    return site


def test_the_one_that_is_not_applied_gets_the_next_number_and_runs(merged: Site) -> None:
    finished = merged.migrate()
    assert finished.returncode == 4
    ((command, file),) = hints(finished)
    assert (command, file) == ("renumber", "002_mine.sql")
    renamed = merged.flask(command, file)
    assert renamed.returncode == 0, renamed.stderr
    assert renamed.stdout.splitlines() == [
        "002_mine.postgresql.sql -> 003_mine.postgresql.sql",
        "002_mine.sql -> 003_mine.sql",
    ]
    assert merged.migrate().returncode == 0
    assert merged.applied() == ["001_a", "002_theirs", "003_mine"]


def test_without_a_database_both_are_named(merged: Site) -> None:
    merged.database.unlink()
    assert sorted(hints(merged.migrate())) == [["renumber", "002_mine.postgresql.sql"], ["renumber", "002_theirs.sql"]]


@pytest.mark.parametrize("file", ["002_mine.sql", "002_mine", "mine", "002_mine.postgresql.sql", "MINE"])
def test_a_file_is_named_whole_or_by_a_part_that_no_other_has(merged: Site, file: str) -> None:
    assert merged.flask("renumber", file).returncode == 0
    assert names(merged) == ["001_a.sql", "002_theirs.sql", "003_mine.postgresql.sql", "003_mine.sql"]


def test_a_file_is_named_by_its_path(merged: Site) -> None:
    path = merged.directory / "002_mine.sql"
    assert merged.flask("renumber", os.path.relpath(path, merged.root)).returncode == 0
    assert "003_mine.sql" in names(merged)


def test_what_the_files_hold_is_not_touched(merged: Site) -> None:
    before = {name: data for name, data in snapshot(merged.directory).items() if "mine" in name}
    assert merged.flask("renumber", "mine").returncode == 0
    after = {name: data for name, data in snapshot(merged.directory).items() if "mine" in name}
    assert after == {name.replace("002", "003"): data for name, data in before.items()}


def test_the_database_is_not_touched(merged: Site) -> None:
    before = snapshot(merged.data)
    assert merged.flask("renumber", "mine").returncode == 0
    assert snapshot(merged.data) == before


def test_json_tells_the_old_and_the_new_names(merged: Site) -> None:
    found = json.loads(merged.flask("renumber", "mine", "--json").stdout)
    assert [(each["was"], each["filename"], each["state"]) for each in found["migrations"]] == [
        ("002_mine.postgresql.sql", "003_mine.postgresql.sql", "pending"),
        ("002_mine.sql", "003_mine.sql", "pending"),
    ]
    assert all(Path(each["path"]).is_file() for each in found["migrations"])


REFUSED = {
    "2": "it matches 002_mine.sql, 002_theirs.sql",
    "002": "it matches 002_mine.sql, 002_theirs.sql",
    "002_": "it matches 002_mine.sql, 002_theirs.sql",
    "theirs": "002_theirs.sql cannot be renumbered: it is applied",
    "001_a.sql": "001_a.sql cannot be renumbered: it is applied",
    "/tmp/002_mine.sql": "it is not in ",
    "../002_mine.sql": "it is not in ",
}


@pytest.mark.parametrize(("file", "why"), REFUSED.items())
def test_what_is_applied_or_could_be_several_is_refused(merged: Site, file: str, why: str) -> None:
    before = snapshot(merged.root)
    finished = merged.flask("renumber", file)
    assert finished.returncode == 4
    assert "Error FA413: " in finished.stderr
    assert why in finished.stderr
    assert snapshot(merged.root) == before


def test_the_refusal_of_the_applied_one_names_the_other(merged: Site) -> None:
    assert hints(merged.flask("renumber", "theirs")) == [["renumber", "002_mine.sql"]]


def test_a_file_that_is_not_there_is_unknown(merged: Site) -> None:
    finished = merged.flask("renumber", "nobody.sql")
    assert finished.returncode == 2
    assert "FA106" in finished.stderr


def test_the_newest_file_needs_no_other_number(site: Site) -> None:
    site.write({"004_d": "CREATE TABLE d (x);"})
    before = snapshot(site.root)
    finished = site.flask("renumber", "004")
    assert finished.returncode == 4
    assert "it is the newest already" in finished.stderr
    assert snapshot(site.root) == before


def test_a_number_of_an_applied_migration_whose_file_is_gone_is_not_free(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    (site.directory / "003_c.sql").unlink()
    site.write({"003_new": "CREATE TABLE new (x);"})
    finished = site.migrate()
    assert "FA404" in finished.stderr
    ((*command,),) = hints(finished)
    assert command == ["renumber", "003_new.sql"]
    assert site.flask(*command).returncode == 0
    assert names(site) == ["001_a.sql", "004_new.sql"]
    assert site.migrate().returncode == 0


@pytest.mark.parametrize(
    ("present", "file", "new"),
    [
        (["1_a.sql", "1_b.sql"], "1_b.sql", "2_b.sql"),
        (["009_a.sql", "9_b.sql"], "9_b.sql", "010_b.sql"),
        (["999_a.sql", "999_b.sql"], "999_a.sql", "1000_a.sql"),
        (["0_a.sql", "000_b.sql"], "000_b.sql", "1_b.sql"),
        (["20200101000000_a.sql", "20200101000000_b.sql"], "20200101000000_b.sql", "20250301093000_b.sql"),
        (["20990101000000_a.sql", "20990101000000_b.sql"], "20990101000000_a.sql", "20990101000001_a.sql"),
        (["001_my file's.sql", "001_b.sql"], "001_my file's.sql", "002_my file's.sql"),
        (["001_a.mysql.sql", "001_b.sql"], "001_a.mysql.sql", "002_a.mysql.sql"),
    ],
)
def test_the_new_number_continues_the_folders_habit(tmp_path: Path, present: list[str], file: str, new: str) -> None:
    site = Site(tmp_path / "site")
    for name in present:
        (site.directory / name).write_text("SELECT 1;")
    ((old_path, new_path),) = renumber(str(site.database), site.directory, file, NOW)
    assert (old_path.name, new_path.name) == (file, new)
    assert names(site) == sorted([*(set(present) - {file}), new])
    discover(site.directory, "sqlite")


def test_a_name_that_another_system_spells_in_other_bytes_is_the_applied_one(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "002_größe.sql") for form in ("NFC", "NFD"))
    site = Site(tmp_path / "site", {"001_a": FILES["001_a"]})
    (site.directory / composed).write_text("SELECT 1;")
    site.prepare()
    (site.directory / composed).rename(site.directory / decomposed)
    assert "it is applied" in site.flask("renumber", decomposed).stderr


def test_a_file_that_appears_meanwhile_is_never_replaced(merged: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = os.open

    def open_late(path: Path, flags: int) -> int:
        if Path(path).name == "003_mine.sql":
            Path(path).write_text("SELECT 'of somebody else';")
        return open_(path, flags)

    before = names(merged)
    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(FolderMissing, match="File exists"):
        renumber(str(merged.database), merged.directory, "mine")
    assert names(merged) == sorted([*before, "003_mine.sql"])
    assert (merged.directory / "003_mine.sql").read_text() == "SELECT 'of somebody else';"


def test_a_link_is_renamed_and_not_what_it_leads_to(site: Site) -> None:
    (site.directory / "shared").mkdir()
    (site.directory / "002_b.sql").rename(site.directory / "shared" / "b.sql")
    (site.directory / "002_b.sql").symlink_to("shared/b.sql")
    assert site.flask("renumber", "002_b").returncode == 0
    assert os.readlink(site.directory / "004_b.sql") == "shared/b.sql"
    assert site.migrate().returncode == 0


def test_a_file_that_is_renumbered_before_its_turn_does_not_run_under_its_old_number(site: Site) -> None:
    with held(site.database, "BEGIN IMMEDIATE") as release, site.flasking("migrate", "--out-of-order") as process:
        wait_for_line(process.stderr, "Waiting to write")
        assert site.flask("renumber", "002_b").returncode == 0
        release()
        finished = finish(process)
    assert finished.returncode == 4
    assert "cannot read" in finished.stderr
    assert site.migrate().returncode == 0
    assert site.applied() == ["001_a", "003_c", "004_b"]
