"""What `flask db verify` finds: each thing that is not as it should be, exactly, and nothing else."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator.databases import connect
from tests.helpers import FIRST_LEDGER, FLASK, Finished, Site, held, run_with, snapshot
from tests.test_environment_faults import UNPRIVILEGED, without_write_permission

PEOPLE = """\
-- Who we know.
-- migrate:up
CREATE TABLE people (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL DEFAULT 'nobody' -- as in the passport
);
-- migrate:down
DROP TABLE people;
"""
PETS = """\
-- migrate:up
CREATE TABLE pets (name TEXT, owner INTEGER REFERENCES people);
CREATE INDEX pets_by_owner ON pets (owner);
CREATE INDEX pets_by_name ON pets (name);
CREATE TRIGGER pets_stay BEFORE DELETE ON pets BEGIN SELECT raise(ABORT, 'no'); END;
INSERT INTO people (id) VALUES (1);
-- migrate:down
DROP TABLE pets;
"""
ROOT_OF_PETS = "SELECT rootpage FROM sqlite_schema WHERE name = 'pets'"
FILES = {"001_people": PEOPLE, "002_pets": PETS, "003_last": "-- migrate:up\nCREATE TABLE last (x);"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Three migrations, all applied."""
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    return site


class Told:
    """What one `verify` told, as JSON."""

    def __init__(self, finished: Finished) -> None:
        assert finished.returncode in (0, 1), finished.stdout + finished.stderr
        self.answer: dict[str, Any] = json.loads(finished.stdout)
        self.findings: list[dict[str, Any]] = self.answer["findings"]
        assert finished.returncode == self.answer["exit_code"] == (1 if self.findings else 0)
        self.kinds = [finding["kind"] for finding in self.findings]
        self.notes = [each["message"] for each in self.answer["diagnostics"] if each["severity"] == "warning"]

    def only(self, kind: str) -> dict[str, Any]:
        """The one finding that there is."""
        assert self.kinds == [kind], self.findings
        return self.findings[0]


def verify(site: Site, *words: str) -> Told:
    return Told(site.flask("verify", "--json", *words))


# All is well.


def test_what_the_migrations_made_is_well(site: Site) -> None:
    finished = site.flask("verify")
    assert finished.returncode == 0
    assert finished.stdout.splitlines()[-1] == "All is well."
    assert verify(site).findings == []


def test_a_pending_migration_is_no_finding(site: Site) -> None:
    site.write({"004_new": "CREATE TABLE new (x);"})
    told = verify(site)
    assert told.findings == []
    assert [item["state"] for item in told.answer["migrations"]] == ["applied"] * 3 + ["pending"]


def test_rollbacks_failures_repairs_and_new_runs_leave_all_well(site: Site) -> None:
    site.write({"003_last": f"{FILES['003_last']} -- edited", "004_bad": "SELEC 1;"})
    assert site.flask("repair", "3", "--reason", "a comment").returncode == 0
    assert site.migrate().returncode == 3
    site.write({"004_bad": "-- migrate:up\nCREATE TABLE good (x);\n-- migrate:down\nDROP TABLE good;"})
    assert site.migrate().returncode == 0
    assert site.flask("rollback", "--yes").returncode == 0
    assert site.migrate().returncode == 0
    assert {event for event, _ in site.history()} == {"apply", "repair", "failure", "rollback"}
    assert verify(site).findings == []


def test_a_database_that_was_adopted_is_well(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_pets": "CREATE TABLE pets (name TEXT) -- all of them"})
    site.do("CREATE TABLE pets (name  TEXT)")
    assert site.flask("baseline", "1").returncode == 0
    assert verify(site).findings == []


def test_a_database_of_the_first_runner_is_well_before_and_after_it_is_taken_over(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_pets": "CREATE TABLE pets (name TEXT);"})
    site.do("CREATE TABLE pets (name TEXT)", FIRST_LEDGER)
    site.do("INSERT INTO _migrations (filename) VALUES ('001_pets.sql')")
    assert verify(site).findings == []
    site.write({"002_last": "CREATE TABLE last (x);"})
    site.prepare()
    assert ("takeover", "001_pets") in site.history()
    assert verify(site).findings == []


# Files.


def test_a_comment_that_was_edited_is_told_as_that(site: Site) -> None:
    site.write({"001_people": PEOPLE.replace("as in the passport", "as on the door")})
    finding = verify(site).only("edited")
    assert finding["filename"] == "001_people.sql"
    assert finding["message"] == "its file was edited after it was applied; only comments or white space differ"
    assert finding["hint"] == "flask db repair 1 --reason WHY"
    assert "    Next: flask db repair 1 --reason WHY" in site.flask("verify").stdout.splitlines()
    assert [line for line in finding["diff"] if line[0] in "-+" and line[:3] not in ("---", "+++")] == [
        "-  name TEXT NOT NULL DEFAULT 'nobody' -- as in the passport",
        "+  name TEXT NOT NULL DEFAULT 'nobody' -- as on the door",
    ]


def test_a_literal_that_was_edited_is_told_as_another_statement(site: Site) -> None:
    site.write({"001_people": PEOPLE.replace("'nobody'", "'no body'")})
    finding = verify(site).only("edited")
    assert finding["message"].endswith("its statements are not those that ran")
    assert finding["hint"].startswith("undo the edit")
    assert "+  name TEXT NOT NULL DEFAULT 'no body' -- as in the passport" in finding["diff"]


@pytest.mark.parametrize("change", ["\n\n-- The end.\n", "\n-- migrate:down\n\n"])
def test_what_follows_the_statements_is_no_other_statement(site: Site, change: str) -> None:
    site.write({"003_last": FILES["003_last"] + change})
    assert verify(site).only("edited")["message"].endswith("only comments or white space differ")


@pytest.mark.parametrize("directive", ["-- migrate:foreign_keys off\n", "-- migrate:allow cascade\n"])
def test_a_directive_counts_as_a_statement(site: Site, directive: str) -> None:
    site.write({"003_last": directive + FILES["003_last"]})
    assert verify(site).only("edited")["message"].endswith("its statements are not those that ran")


def test_a_down_section_that_was_edited_is_told_as_that(site: Site) -> None:
    site.write({"002_pets": PETS.replace("DROP TABLE pets", "DROP TABLE IF EXISTS pets")})
    finding = verify(site).only("edited")
    assert finding["message"].endswith("its down section differs, the statements that ran do not")
    assert "-DROP TABLE pets;" in finding["diff"]
    assert " CREATE INDEX pets_by_name ON pets (name);" not in finding["diff"]  # far from the change


def test_line_endings_and_a_byte_order_mark_are_no_edit(site: Site) -> None:
    for name, text in FILES.items():
        (site.directory / f"{name}.sql").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert verify(site).findings == []


def test_a_file_that_is_no_migration_any_more_is_shown_all_the_same(site: Site) -> None:
    site.write({"003_last": "CREATE TABLE last (x); COMMIT;"})
    finding = verify(site).only("edited")
    assert "it is no migration any more: COMMIT would end" in finding["message"]
    assert "+CREATE TABLE last (x); COMMIT;" in finding["diff"]


def test_an_edit_of_what_the_ledger_keeps_no_text_of_is_told_without_a_diff(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_long": f"CREATE TABLE long (x); -- {'x' * (1 << 20)}"})
    site.prepare()
    assert verify(site).findings == []
    site.write({"001_long": "CREATE TABLE long (y);"})
    told = verify(site)
    finding = told.only("edited")
    assert "keeps no text" in finding["message"]
    assert finding["diff"] == []
    assert "001_long.sql cannot be replayed" in told.notes[0]


def test_a_missing_file_is_told_and_its_sql_is_still_known(site: Site) -> None:
    (site.directory / "002_pets.sql").unlink()
    assert verify(site).only("missing")["filename"] == "002_pets.sql"


def test_a_file_below_an_applied_version_is_told(site: Site) -> None:
    site.write({"0002_5": "CREATE TABLE late (x);"})
    (site.directory / "0002_5.sql").rename(site.directory / "000_late.sql")
    assert verify(site).only("out of order")["filename"] == "000_late.sql"


# The schema.


def test_a_column_that_was_added_by_hand_is_told(site: Site) -> None:
    site.do("ALTER TABLE people ADD COLUMN risk TEXT")
    finding = verify(site).only("drift")
    (difference,) = finding["differences"]
    assert (difference["change"], difference["type"], difference["name"]) == ("changed", "table", "people")
    assert difference["columns"] == ["column risk TEXT was added"]
    shown = site.flask("verify").stdout
    assert "    ~ table people\n        column risk TEXT was added\n" in shown
    assert shown.endswith("1 finding.\n")


def test_a_trigger_that_was_dropped_by_hand_is_told(site: Site) -> None:
    site.do("DROP TRIGGER pets_stay")
    (difference,) = verify(site).only("drift")["differences"]
    assert (difference["change"], difference["type"], difference["name"]) == ("removed", "trigger", "pets_stay")
    assert "    - trigger pets_stay on pets\n" in site.flask("verify").stdout


def test_an_edited_file_does_not_hide_drift_nor_make_any(site: Site) -> None:
    """What ran is known from the ledger."""
    site.write({"003_last": "CREATE TABLE last (y);"})
    site.do("CREATE VIEW extra AS SELECT 1")
    told = verify(site)
    assert told.kinds == ["edited", "drift"]
    assert [each["name"] for each in told.findings[1]["differences"]] == ["extra"]


def test_the_statistics_and_the_rows_are_no_drift(site: Site) -> None:
    site.do("ANALYZE", "UPDATE people SET name = 'Ann'")
    assert verify(site).findings == []


def test_what_cannot_be_replayed_is_judged_by_its_fingerprint(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_long": f"CREATE TABLE long (x); -- {'x' * (1 << 20)}"})
    site.prepare()
    (site.directory / "001_long.sql").unlink()
    told = verify(site)
    assert told.kinds == ["missing"]
    assert told.notes == [
        "the schema is the one that was recorded last, but could not be made anew: 001_long.sql cannot be replayed:"
        " the ledger does not keep its SQL, and its file is edited or gone"
    ]
    assert f"not checked: {told.notes[0]}\n" in site.flask("verify").stdout
    site.do("ALTER TABLE long ADD COLUMN y")
    told = verify(site)
    assert told.kinds == ["missing", "drift"]
    assert "not the one that was recorded last" in told.findings[1]["message"]


def test_a_database_without_a_ledger_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.do("CREATE TABLE people (x)", "CREATE TABLE pets (x)")
    assert verify(site).only("ledger")["message"] == "the database has 2 tables, but no ledger"


def test_an_empty_database_is_well(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.database.touch()
    assert verify(site).findings == []


# Damage.


def test_a_damaged_index_is_told(site: Site) -> None:
    site.do("INSERT INTO pets VALUES ('Rex', 1)")
    end = site.value("SELECT rootpage FROM sqlite_schema WHERE name = 'pets_by_name'") * site.value("PRAGMA page_size")
    with open(site.database, "r+b") as file:
        file.seek(end - len("Rex"))
        assert file.read(3) == b"Rex"
        file.seek(end - len("Rex"))
        file.write(b"Tom")
    assert "missing from index pets_by_name" in verify(site).only("integrity")["message"]


def test_damage_that_hinders_one_question_does_not_hide_the_answers_to_others(site: Site) -> None:
    root, size = (site.value(sql) for sql in (ROOT_OF_PETS, "PRAGMA page_size"))
    with open(site.database, "r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\0" * size)
    site.do("UPDATE _migration_history SET host = 'nowhere' WHERE id = 1")
    told = verify(site)
    assert told.kinds[0] == "history"
    assert told.kinds.count("integrity") >= 1
    assert told.findings[-1]["message"].startswith("the foreign keys cannot be checked: ")


def test_rows_without_a_parent_are_counted_and_not_shown(site: Site) -> None:
    site.do("INSERT INTO pets VALUES ('Rex', 9876), ('Tom', 9877)")
    assert verify(site).only("foreign keys")["message"] == "2 rows of pets without people"
    assert "9876" not in site.flask("verify").stdout


def test_a_foreign_key_to_what_is_no_key_is_told(site: Site) -> None:
    site.write({"004_odd": "CREATE TABLE odd (name REFERENCES people (name));"})
    site.prepare()
    assert "without a parent that has the referenced key" in verify(site).only("foreign keys")["message"]


# The history.


def test_a_row_of_the_history_that_was_changed_is_told(site: Site) -> None:
    site.do("UPDATE _migration_history SET os_user = 'nobody' WHERE id = 2")
    assert verify(site).only("history")["message"] == (
        "row 2 (apply 002_pets.sql) was changed: its hash is not the one that the next row keeps"
    )


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("id = 1", "rows of the history are gone between the beginning and row 2 (apply 002_pets.sql)"),
        (
            "id = 2",
            "rows of the history are gone between row 1 (apply 001_people.sql) and row 3 (repair 001_people.sql)",
        ),
        ("id = 4", "rows of the history are gone behind row 3 (repair 001_people.sql): the last one had the number 4"),
        ("1", "rows of the history are gone behind the beginning: the last one had the number 4"),
    ],
    ids=["the first", "one in the middle", "the last", "all"],
)
def test_a_row_of_the_history_that_was_removed_is_told(tmp_path: Path, removed: str, message: str) -> None:
    site = Site(tmp_path / "site", {"001_people": PEOPLE, "002_pets": PETS})
    site.prepare()
    site.write({"001_people": f"{PEOPLE} -- edited", "002_pets": f"{PETS} -- edited"})
    for name in ("1", "2"):
        assert site.flask("repair", name, "--reason", "nothing").returncode == 0
    assert verify(site).findings == []
    site.do(f"DELETE FROM _migration_history WHERE {removed}")
    told = verify(site)
    assert [each["message"] for each in told.findings if each["kind"] == "history"] == [message]


def test_the_newest_row_is_known_by_the_hash_that_was_noted(site: Site) -> None:
    """Nothing in the database itself keeps it: `verify` prints it, and the next row will hold it."""
    noted = verify(site).answer["chain"]["head_sha256"]
    assert f"the newest with the SHA-256 {noted}." in site.flask("verify").stdout
    last = "SELECT previous_sha256 FROM _migration_history ORDER BY id DESC LIMIT 1"
    copy = site.copy(site.root.parent / "copy")
    copy.write({"004_new": "CREATE TABLE new (x);"})
    copy.prepare()
    assert copy.value(last) == noted

    site.do("UPDATE _migration_history SET os_user = 'nobody' WHERE id = 3")
    told = verify(site)
    assert told.findings == []
    assert told.answer["chain"]["head_sha256"] != noted


# The ledger.


@pytest.mark.parametrize(
    "change",
    [
        "checksum = 'abc'",
        "applied_at = '2020-01-01 00:00:00'",
        "duration_ms = 98765",
        "up_sql = NULL",
        "down_sql = x'00'",
        "schema_fingerprint = 'abc'",
        "id = 99",
    ],
)
def test_a_row_of_the_ledger_that_was_changed_is_told(site: Site, change: str) -> None:
    site.do(f"UPDATE _migrations SET {change} WHERE filename = '002_pets.sql'")
    told = [finding for finding in verify(site).findings if finding["kind"] == "ledger"]
    assert [(each["filename"], each["message"]) for each in told] == [
        (
            "002_pets.sql",
            "its row in the ledger was changed after the history's row 2 (apply 002_pets.sql) was written",
        )
    ]


def test_a_row_that_was_removed_from_the_ledger_is_told(site: Site) -> None:
    site.do("DELETE FROM _migrations WHERE filename = '003_last.sql'", "DROP TABLE last")
    finding = verify(site).only("ledger")
    assert finding["filename"] == "003_last.sql"
    assert "the ledger has no row of it" in finding["message"]


def test_a_row_that_was_added_to_the_ledger_is_told(site: Site) -> None:
    site.write({"004_new": "CREATE TABLE new (x);"})
    site.do("CREATE TABLE new (x)", "INSERT INTO _migrations (filename) VALUES ('004_new.sql')")
    finding = verify(site).only("ledger")
    assert finding["filename"] == "004_new.sql"
    assert "the history knows nothing of it" in finding["message"]


def test_a_row_that_came_back_after_a_rollback_is_told(site: Site) -> None:
    site.write({"004_new": "-- migrate:up\nCREATE TABLE new (x);\n-- migrate:down\nDROP TABLE new;"})
    site.prepare()
    with closing(sqlite3.connect(site.database)) as connection:
        row = connection.execute("SELECT * FROM _migrations WHERE filename = '004_new.sql'").fetchone()
    assert site.flask("rollback", "--yes").returncode == 0
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute(f"INSERT INTO _migrations VALUES ({', '.join('?' * len(row))})", row)
        connection.execute("CREATE TABLE new (x)")
    assert "the history as rolled back: row 5 (rollback 004_new.sql)" in verify(site).only("ledger")["message"]


def test_a_ledger_that_was_dropped_is_told_with_every_migration(site: Site) -> None:
    site.do("DROP TABLE _migrations")
    told = verify(site)
    assert told.kinds == ["ledger"] * 4
    assert told.findings[0]["message"] == "the database has 3 tables, but no ledger"


# Two databases.


def test_two_environments_that_are_alike_are_well(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", FILES)
    other.prepare()
    other.do("INSERT INTO people (id) VALUES (2)")
    told = verify(site, "--against", str(other.database))
    assert told.findings == []
    assert told.answer["against"] == str(other.database)
    well = site.flask("verify", "--against", str(other.database)).stdout.splitlines()[-1]
    assert well == "All is well: schema, ledger and files are the same in both; rows are not compared."


def test_what_two_environments_do_not_share_is_told_with_their_names(site: Site, tmp_path: Path) -> None:
    changed = {"002_pets": PETS.replace("pets_by_name ON pets (name)", "pets_by_name ON pets (name DESC)")}
    other = Site(tmp_path / "other", {"001_people": PEOPLE, **changed, "004_more": "CREATE TABLE more (x);"})
    other.prepare()
    told = verify(site, "--against", str(other.database))
    assert set(told.kinds) == {"environments"}
    here, there = str(site.database), str(other.database)
    assert [(each["filename"], each["message"]) for each in told.findings] == [
        ("002_pets.sql", f"it is not the same file that was applied in {here} and in {there}"),
        ("003_last.sql", f"it is applied in {here}, and not in {there}"),
        ("004_more.sql", f"it is applied in {there}, and not in {here}"),
        (None, f"the schemas differ (+ only in {here}, - only in {there})"),
    ]
    differences = [(each["change"], each["name"]) for each in told.findings[-1]["differences"]]
    assert differences == [("changed", "pets_by_name"), ("added", "last"), ("removed", "more")]


def test_a_backup_in_another_folder_can_be_compared_with(site: Site) -> None:
    backup = site.root / "backup.db"
    with closing(sqlite3.connect(site.database)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    backup.chmod(0o400)
    site.do("ALTER TABLE last ADD COLUMN y")
    told = verify(site, "--against", "backup.db")  # relative to the current folder
    assert told.kinds == ["drift", "environments"]
    assert [path.name for path in site.root.iterdir() if path.name.startswith("backup")] == ["backup.db"]


def test_a_database_to_compare_with_that_is_not_there_is_told_and_not_made(site: Site) -> None:
    finished = site.flask("verify", "--against", "nowhere.db")
    assert finished.returncode == 2
    assert "FA112" in finished.stderr
    assert "--against" in finished.stderr
    assert not (site.root / "nowhere.db").exists()


# Asking.


def test_a_database_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    finished = site.flask("verify")
    assert finished.returncode == 2
    assert f"there is no database at {site.database}" in finished.stderr
    assert list(site.data.iterdir()) == []


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", FILES)
    site.database.write_text("not a database, and long enough to be sure of it " * 100)
    finished = site.flask("verify")
    assert (finished.returncode, "FA104" in finished.stderr) == (2, True)


def test_another_run_s_lock_is_waited_for_and_told(site: Site) -> None:
    with held(site.database, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        finished = site.flask("verify", "--wait", "0")
    assert (finished.returncode, "FA502" in finished.stderr) == (5, True)


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_asking_writes_nothing(site: Site, journal_mode: str) -> None:
    site.do(f"PRAGMA journal_mode = {journal_mode}", "ALTER TABLE last ADD COLUMN y")
    before = snapshot(site.data)
    assert verify(site).kinds == ["drift"]
    assert snapshot(site.data) == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
@pytest.mark.parametrize("readonly", ["the file", "the folder", "both"])
def test_who_may_only_read_is_answered(site: Site, journal_mode: str, readonly: str) -> None:
    site.do(f"PRAGMA journal_mode = {journal_mode}", "DROP TRIGGER pets_stay")
    paths = {"the file": [site.database], "the folder": [site.data], "both": [site.database, site.data]}[readonly]
    with without_write_permission(*paths):
        told = Told(run_with(UNPRIVILEGED, [*FLASK, "verify", "--json"], site))
    assert told.kinds == ["drift"]


def test_a_snapshot_answers_as_of_one_moment(site: Site) -> None:
    site.do("PRAGMA journal_mode = wal")
    with closing(connect(str(site.database), readonly=True)) as db:
        with db.snapshot():
            assert "extra" not in db.tables()
            site.do("CREATE TABLE extra (x)")
            assert "extra" not in db.tables()
        assert "extra" in db.tables()


def test_a_writer_in_wal_mode_is_not_in_the_way(site: Site) -> None:
    site.do("PRAGMA journal_mode = wal")
    with held(site.database, "BEGIN IMMEDIATE", "CREATE TABLE uncommitted (x)"):
        assert verify(site, "--wait", "0").findings == []
