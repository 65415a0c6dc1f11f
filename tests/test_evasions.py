"""Ways around the guards that were once open, and legitimate migrations that were once refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers import FLASK, PLAIN, Site

FAMILY = """
CREATE TABLE p (id INTEGER PRIMARY KEY, n TEXT);
CREATE TABLE c (id INTEGER PRIMARY KEY, pid INTEGER REFERENCES p ON DELETE CASCADE);
INSERT INTO p VALUES (1, 'a'), (2, 'b');
INSERT INTO c VALUES (10, 1), (11, 1), (12, 2);
"""
REBUILD = """
CREATE TABLE p2 (id INTEGER PRIMARY KEY, n TEXT NOT NULL);
INSERT INTO p2 SELECT * FROM p;
DROP TABLE p;
ALTER TABLE p2 RENAME TO p;
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site", {"001_family": FAMILY})
    site.prepare()
    return site


@pytest.mark.parametrize(
    "section",
    [
        "PRAGMA foreign_keys = OFF; PRAGMA foreign_keys = ON;\nBEGIN;" + REBUILD + "COMMIT;",
        "PRAGMA foreign_keys = OFF; BEGIN; UPDATE p SET n = 'x'; COMMIT; PRAGMA foreign_keys = ON;" + REBUILD,
    ],
    ids=["toggled", "on again for the second half"],
)
def test_the_guard_asks_whether_foreign_keys_are_enforced_at_the_drop(site: Site, section: str) -> None:
    site.write({"002_rebuild": f"-- migrate:up transaction:false\n{section}"})
    finished = site.migrate()
    assert finished.returncode == 4
    assert "FA401" in finished.stderr
    assert site.value("SELECT count(*) FROM c") == 3


def test_the_guard_sees_a_child_that_another_process_makes_while_the_run_waits(site: Site) -> None:
    site.write({"002_drop": "DROP TABLE p;"})
    site.do("DROP TABLE c")
    with closing(sqlite3.connect(site.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE later (pid REFERENCES p ON DELETE CASCADE)")
        other.execute("INSERT INTO later VALUES (1)")
        with site.migrating() as process:
            assert process.stderr
            assert "Waiting to write" in process.stderr.readline()
            other.execute("COMMIT")
            process.wait()
    assert process.returncode == 4
    assert site.value("SELECT count(*) FROM later") == 1


@pytest.mark.parametrize("table", ["f USING fts5(x)", "f USING rtree(id, a, b)"])
def test_a_virtual_table_can_be_dropped(site: Site, table: str) -> None:
    site.write({"002_virtual": f"-- migrate:up\nCREATE VIRTUAL TABLE {table};\n-- migrate:down\nDROP TABLE f;"})
    assert site.migrate().returncode == 0
    assert site.flask("rollback", "--yes").returncode == 0
    assert "f" not in site.tables()


def test_an_old_style_rebuild_that_leaves_the_children_alone_is_not_refused(site: Site) -> None:
    move = "PRAGMA legacy_alter_table = ON; ALTER TABLE p RENAME TO p_old; CREATE TABLE p (id INTEGER PRIMARY KEY, n);"
    site.write({"002_move": f"-- migrate:foreign_keys off\n{move} INSERT INTO p SELECT * FROM p_old;"})
    site.write({"003_drop": "DROP TABLE p_old;"})
    assert site.migrate().returncode == 0
    assert site.value("SELECT count(*) FROM c") == 3


def test_a_temporary_table_does_not_hide_the_orphans_of_the_one_it_is_named_like(site: Site) -> None:
    sql = "CREATE TEMP TABLE c AS SELECT * FROM main.c; DELETE FROM p WHERE id = 1;"
    site.write({"002_hide": f"-- migrate:foreign_keys off\n{sql}"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "2 rows of c without p" in finished.stderr
    assert site.value("SELECT count(*) FROM p") == 2


@pytest.mark.parametrize(
    "down",
    [
        "DROP TABLE c; CREATE TABLE c (id INTEGER PRIMARY KEY, pid INTEGER);",
        "CREATE TABLE cc AS SELECT * FROM c WHERE id < 0; DROP TABLE c; ALTER TABLE cc RENAME TO c;",
    ],
)
def test_a_preview_counts_the_rows_of_a_table_that_is_made_anew(site: Site, down: str) -> None:
    site.write({"002_anew": f"-- migrate:up\nSELECT 1;\n-- migrate:down\n{down}"})
    site.prepare()
    assert "3 rows of c will be gone" in site.flask("rollback").stderr
    assert site.value("SELECT count(*) FROM c") == 3


def test_a_preview_counts_where_some_steps_have_foreign_keys_off(site: Site) -> None:
    site.write({"002_less": "-- migrate:up\nSELECT 1;\n-- migrate:down\nDELETE FROM p WHERE id = 1;"})
    site.write({"003_off": "-- migrate:foreign_keys off\n-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 1;"})
    site.prepare()
    finished = site.flask("rollback", "--to", "1")
    assert "1 row of p will be gone" in finished.stderr
    assert "2 rows of c will be gone" in finished.stderr


def test_a_file_that_only_got_another_number_does_not_run_again(site: Site) -> None:
    (site.directory / "001_family.sql").rename(site.directory / "002_family.sql")
    before = site.database.read_bytes()
    finished = site.migrate()
    assert finished.returncode == 4
    assert "FA416" in finished.stderr
    assert site.database.read_bytes() == before


def test_a_database_that_is_not_there_cannot_be_adopted(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_family": FAMILY})
    finished = site.flask("baseline", "1")
    assert finished.returncode == 4
    assert not site.database.exists()
    site.do("SELECT 1")
    site.database.touch()
    assert site.flask("baseline", "1").returncode == 4
    assert site.applied() == []


def test_text_that_is_not_utf_8_is_no_failure_and_never_shown(site: Site) -> None:
    site.do("INSERT INTO p VALUES (3, CAST(x'736563726574ff' AS TEXT))")
    site.write({"002_read": "SELECT n FROM p; INSERT INTO p VALUES (4, 'd') RETURNING n;"})
    finished = site.migrate()
    assert (finished.returncode, finished.stderr) == (0, "")
    assert site.flask("doctor").returncode == 0


def test_old_orphans_stay_old_when_a_rebuild_spells_or_types_their_key_differently(site: Site) -> None:
    site.do("INSERT INTO c VALUES (77, 77)")
    rebuilt = "CREATE TABLE c2 (id INTEGER PRIMARY KEY, pid REAL REFERENCES P ON DELETE CASCADE);"
    copy = "INSERT INTO c2 SELECT * FROM c; DROP TABLE c; ALTER TABLE c2 RENAME TO c;"
    site.write({"002_rebuild": f"-- migrate:foreign_keys off\n{rebuilt}{copy}"})
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert "1 row of c without p" in finished.stderr


def test_the_record_of_a_script_without_transaction_is_written_with_the_runs_own_settings(site: Site) -> None:
    unsafe = (
        "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; CREATE TRIGGER t AFTER INSERT ON p BEGIN SELECT 1; END;"
    )
    site.write({"002_unsafe": f"-- migrate:up transaction:false\n{unsafe}"})
    site.write({"003_settings": "CREATE TABLE seen AS SELECT * FROM pragma_synchronous;"})
    assert site.migrate().returncode == 0
    assert site.value("SELECT * FROM seen") == 3  # EXTRA


def test_a_copy_of_the_schema_does_not_compute_rows_for_long(site: Site) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000000000) SELECT n FROM c"
    site.write({"002_large": f"SELECT * FROM nowhere; CREATE TABLE t AS {endless}; DROP TABLE c;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "no such table: nowhere" in finished.stderr


def test_a_ledger_with_columns_that_are_not_ours_is_told_as_such(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_family": FAMILY})
    site.do("CREATE TABLE _migrations (id INTEGER PRIMARY KEY, filename TEXT, applied_at TEXT, batch INTEGER NOT NULL)")
    finished = site.migrate()
    assert finished.returncode == 4
    assert "FA407" in finished.stderr
    assert site.tables() == set()


@pytest.mark.parametrize("command", [PLAIN, [*FLASK, "migrate"]], ids=["plain", "flask"])
def test_a_full_disk_behind_the_standard_output_does_not_stop_a_run(tmp_path: Path, command: list[str]) -> None:
    site = Site(tmp_path / "site", {"001_family": FAMILY, "002_more": "CREATE TABLE more (x);"})
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [*command, *site.options()], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "Traceback" not in finished.stderr
    assert site.applied() == ["001_family", "002_more"]


def test_a_closed_standard_error_does_not_stop_a_run(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_family": FAMILY})
    command = ["sh", "-c", 'exec "$@" 2>&- <&-', "sh", *FLASK, "migrate", *site.options()]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert site.applied() == ["001_family"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:/bob:s3cret@db/app",
        "postgres:/bob:s3cret@db/app",
        "sqlite:///postgres://bob:s3cret@db/app",
        "mysql:/:s3cret@db",
    ],
)
def test_a_url_with_a_slash_too_few_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    command = [sys.executable, "-m", "flask", "--app", "financial_agent", "db", "status", "--json", "--database", url]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "s3cret" not in finished.stdout + finished.stderr
    assert json.loads(finished.stdout)["diagnostics"][0]["code"] == ("FA102" if "sqlite" in url else "FA118")


def test_one_key_that_cannot_be_checked_does_not_hide_the_others(site: Site) -> None:
    site.do("CREATE TABLE loose (a)", "DROP TABLE c")
    site.do("CREATE TABLE c (pid REFERENCES p, other REFERENCES loose (a))", "INSERT INTO c (pid) VALUES (1), (2)")
    site.write({"002_less": "-- migrate:foreign_keys off\nDELETE FROM p WHERE id = 1;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "1 row of c without p" in finished.stderr


def test_the_ledger_is_the_databases_own_also_beside_an_attached_one(tmp_path: Path) -> None:
    other = Site(tmp_path / "other", {"001_family": FAMILY})
    other.prepare()
    attach = f"-- migrate:allow attach\nATTACH '{other.database}' AS o; CREATE TABLE mine (x);"
    site = Site(tmp_path / "site", {"001_attach": attach, "002_more": "CREATE TABLE more (x);"})
    assert site.migrate().returncode == 0
    assert site.applied() == ["001_attach", "002_more"]
    assert other.applied() == ["001_family"]


def test_an_applied_file_that_would_be_refused_today_does_not_hide_the_status(site: Site) -> None:
    site.do("ALTER TABLE _migrations DROP COLUMN down_sql", "UPDATE _migrations SET checksum = NULL")
    site.write({"001_family": "BEGIN; SELECT 1; COMMIT; SELECT 2;", "002_more": "SELECT 1;"})
    assert site.status() == {"001_family": "applied", "002_more": "pending"}
    assert site.migrate().returncode == 0


def test_values_that_a_rollback_empties_are_counted(site: Site) -> None:
    down = "ALTER TABLE p DROP COLUMN n; ALTER TABLE p ADD COLUMN n;"
    site.write({"002_empty": f"-- migrate:up\nSELECT 1;\n-- migrate:down\n{down}"})
    site.prepare()
    assert "2 values of p.n will be gone" in site.flask("rollback").stderr


def test_a_hint_names_the_database_that_was_given(site: Site) -> None:
    site.write({"002_wrong": "CREATE TABEL t;"})
    assert f"flask db migrate --database {site.database} --directory {site.directory}" in site.flask("migrate").stderr
