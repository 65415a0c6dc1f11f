"""A run leaves the database at a version: whatever fails, whenever the process dies."""

from __future__ import annotations

import random
import signal
import time
from itertools import count
from pathlib import Path
from shutil import rmtree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from financial_agent.migrator import rollback, runner
from tests.helpers import (
    FIRST_LEDGER,
    Site,
    State,
    finish,
    held,
    rows_of,
    snapshot,
    state,
    until,
)

GOOD = "CREATE TABLE good (id INTEGER PRIMARY KEY);"


# Everything is read and verified before anything is written.

MALFORMED = {
    "an open string": "CREATE TABLE t (a TEXT DEFAULT 'open);",
    "an open comment in a statement": "CREATE TABLE t (a TEXT /* open );",
    "an open trigger": "CREATE TABLE t (a); CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1;",
    "a misspelt directive": "-- migrate:upp\nCREATE TABLE t (a);",
    "a down section alone": "-- migrate:down\nDROP TABLE t;",
    "a stray COMMIT": "CREATE TABLE t (a); COMMIT; CREATE TABLE u (a);",
    "a BEGIN left open": "BEGIN; CREATE TABLE t (a);",
    "a statement on the ledger": "DELETE FROM _migrations;",
    "ATTACH without leave": "ATTACH 'other.db' AS other;",
    "VACUUM in a transaction": "CREATE TABLE t (a); VACUUM;",
    "nothing to run": "-- only a comment",
}


@pytest.mark.parametrize("sql", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_a_malformed_third_file_leaves_everything_untouched(tmp_path: Path, sql: str, existing: bool) -> None:
    site = Site(tmp_path / "site", {"001_first": GOOD})
    if existing:
        site.prepare()
    site.write({"002_second": "CREATE TABLE second (a);", "003_third": sql})
    before = snapshot(site.root)

    finished = site.migrate()

    assert finished.returncode == 4
    assert "003_third.sql" in finished.stderr
    assert snapshot(site.root) == before


@pytest.mark.parametrize("content", [b"SELECT '\xff';", b"SELECT 1;\0SELECT 2;"], ids=["not UTF-8", "NUL"])
def test_undecodable_bytes_in_a_later_file_leave_everything_untouched(tmp_path: Path, content: bytes) -> None:
    site = Site(tmp_path / "site", {"001_first": GOOD})
    (site.directory / "002_second.sql").write_bytes(content)
    before = snapshot(site.root)
    assert site.migrate().returncode == 4
    assert snapshot(site.root) == before


@pytest.mark.parametrize("name", ["1_again", "no_number", "002_a.oracle"])
def test_an_unfit_name_in_the_folder_leaves_everything_untouched(tmp_path: Path, name: str) -> None:
    site = Site(tmp_path / "site", {"001_first": GOOD, name: GOOD})
    before = snapshot(site.root)
    assert site.migrate().returncode == 4
    assert snapshot(site.root) == before


# A failing statement undoes its migration, and nothing else.

FAILING = {
    "a syntax error": "SELEC 1;",
    "a constraint": "INSERT INTO kept VALUES (1);",
    "INSERT OR ROLLBACK": "INSERT OR ROLLBACK INTO kept VALUES (1);",
    "a trigger's RAISE(ROLLBACK)": (
        "CREATE TRIGGER refuse BEFORE INSERT ON kept BEGIN SELECT RAISE(ROLLBACK, 'no'); END;"
        "INSERT INTO kept VALUES (5);"
    ),
    "a trigger's RAISE(ABORT)": (
        "CREATE TRIGGER refuse BEFORE INSERT ON kept BEGIN SELECT RAISE(ABORT, 'no'); END; INSERT INTO kept VALUES (5);"
    ),
    "a later row of a SELECT": (
        "WITH r(n) AS (VALUES (1), (2), (3)) SELECT CASE WHEN n < 3 THEN n ELSE abs(-9223372036854775808) END FROM r;"
    ),
    "a deferred foreign key at the commit": (
        "CREATE TABLE late (kept_id REFERENCES kept (id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO late VALUES (99);"
    ),
    "an unbound ?": "INSERT INTO kept VALUES (?);",
    "an unbound :name": "INSERT INTO kept VALUES (:id);",
    "an unbound $name": "UPDATE kept SET id = $id;",
}


@pytest.mark.parametrize("sql", FAILING.values(), ids=FAILING.keys())
def test_a_failure_leaves_the_migrations_before_it_and_nothing_of_its_own(tmp_path: Path, sql: str) -> None:
    site = Site(
        tmp_path / "site",
        {
            "001_kept": "CREATE TABLE kept (id INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1);",
            "002_more": "INSERT INTO kept VALUES (2);",
        },
    )
    assert site.copy(tmp_path / "clean").migrate().returncode == 0
    site.write(
        {
            "003_guilty": f"CREATE TABLE gone (a); INSERT INTO kept VALUES (3);\n{sql}\nINSERT INTO kept VALUES (4);",
            "004_later": "CREATE TABLE later (a);",
        }
    )

    finished = site.migrate()

    assert finished.returncode == 3
    assert "003_guilty.sql" in finished.stderr
    assert "The database is at 002_more.sql; nothing of the failed run of 003_guilty.sql remains" in finished.stderr
    assert state(site.database) == state(tmp_path / "clean" / "data" / "app.db")
    site.write({"003_guilty": "INSERT INTO kept VALUES (3);"})
    assert site.migrate().returncode == 0
    assert site.applied() == ["001_kept", "002_more", "003_guilty", "004_later"]


def test_a_deferred_foreign_key_that_holds_again_at_the_commit_is_no_failure(tmp_path: Path) -> None:
    family = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED);"
    )
    site = Site(tmp_path / "site", {"001_a": f"{family} INSERT INTO c VALUES (1); INSERT INTO p VALUES (1);"})
    assert site.migrate().returncode == 0
    assert site.rows("SELECT p FROM c") == [(1,)]


def test_a_file_that_changes_after_it_was_parsed_does_not_run(tmp_path: Path) -> None:
    """The first migration is slow enough to edit the second one under the run."""
    site = Site(
        tmp_path / "site",
        {"001_a": f"CREATE TABLE a (n, text); {rows_of(300_000, 'a')};", "002_b": "CREATE TABLE b (x);"},
    )
    with site.migrating() as process:
        until((site.data / "app.db-journal").exists)
        site.write({"002_b": "CREATE TABLE never_reviewed (x);"})
        out, err = process.communicate()
    assert process.returncode == 4, err
    assert "Applied 001_a.sql" in out
    assert "002_b.sql changed while" in err
    assert site.tables() == {"a"}
    assert site.applied() == ["001_a"]


# A process that dies.

UP = {
    "001_create": "CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO a (text) VALUES ('one'), ('two');",
    "002_rebuild": (
        "PRAGMA foreign_keys=OFF; CREATE TABLE b (id INTEGER PRIMARY KEY, text TEXT NOT NULL);"
        "INSERT INTO b SELECT id, text FROM a; DROP TABLE a; ALTER TABLE b RENAME TO a; PRAGMA foreign_keys=ON;"
    ),
    "003_settings": "CREATE TEMP TABLE scratch AS SELECT * FROM a; INSERT INTO a (text) SELECT text FROM scratch;",
}
DOWN = {
    "001_create": "DROP TABLE a;",
    "002_rebuild": (
        "CREATE TABLE b (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO b SELECT id, text FROM a;"
        "DROP TABLE a; ALTER TABLE b RENAME TO a;"
    ),
    "003_settings": "DELETE FROM a WHERE id > 2;",
}
BOTH = {name: f"-- migrate:up\n{UP[name]}\n-- migrate:down\n{DOWN[name]}\n" for name in UP}


@pytest.fixture(params=["delete", "wal"])
def journal_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def versions_of(site: Site, root: Path) -> list[State]:
    """What the database holds after none, the first, the first two, … of the pending migrations."""
    other = site.copy(root)
    versions = [state(other.database)]
    for path in sorted(other.directory.iterdir()):
        if runner.migrate(str(other.database), other.directory, target=path.stem).done:
            versions.append(state(other.database))
    return versions


def assert_at_a_version(site: Site, versions: list[State], done: int) -> int:
    """The database is at a version that has all that was reported as done; which one."""
    version = versions.index(state(site.database))
    assert done <= version <= done + 1
    return version


def assert_completes(site: Site, versions: list[State]) -> None:
    runner.migrate(str(site.database), site.directory)
    assert state(site.database) == versions[-1]


@pytest.mark.slow
def test_a_kill_at_any_call_of_sqlite_leaves_a_version(tmp_path: Path, journal_mode: str) -> None:
    site = Site(tmp_path / "site", UP)
    site.begin_with(f"PRAGMA journal_mode = {journal_mode}", "CREATE TABLE before_all (x)")
    versions = versions_of(site, tmp_path / "versions")
    reached = set()
    for moment in count(1):
        victim = site.copy(tmp_path / str(moment))
        finished = victim.migrate(dies_at=moment)
        reached.add(assert_at_a_version(victim, versions, finished.stdout.count("Applied ")))
        assert_completes(victim, versions)
        if finished.returncode != -signal.SIGKILL:
            break
    assert moment > 50
    assert reached == {0, 1, 2, 3}


@pytest.mark.slow
def test_a_kill_at_any_call_of_sqlite_during_a_rollback_leaves_a_version(tmp_path: Path, journal_mode: str) -> None:
    site = Site(tmp_path / "site", BOTH)
    site.begin_with(f"PRAGMA journal_mode = {journal_mode}", "CREATE TABLE before_all (x)")
    runner.migrate(str(site.database), site.directory)
    other = site.copy(tmp_path / "versions")
    versions = [state(site.database)]
    while rollback.rollback(str(other.database), other.directory).done:
        versions.append(state(other.database))
    assert len(versions) == 4
    for moment in count(1):
        victim = site.copy(tmp_path / str(moment))
        finished = victim.flask("rollback", "--to", "0", "--yes", dies_at=moment)
        assert_at_a_version(victim, versions, finished.stdout.count("Rolled back "))
        rollback.rollback(str(victim.database), victim.directory, to="0")
        assert state(victim.database) == versions[-1]
        if finished.returncode != -signal.SIGKILL:
            break
    assert moment > 40


@pytest.mark.slow
def test_a_kill_while_a_database_is_taken_over_leaves_a_version(tmp_path: Path) -> None:
    """The first write adds the columns and the checksums, in a transaction of its own."""
    site = Site(tmp_path / "site", UP)
    site.do("CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT)", FIRST_LEDGER)
    site.do("INSERT INTO _migrations (filename) VALUES ('001_create.sql')")
    versions = versions_of(site, tmp_path / "versions")
    for moment in count(1):
        victim = site.copy(tmp_path / str(moment))
        finished = victim.migrate(dies_at=moment)
        found = state(victim.database)
        assert [row[0] for row in found.ledger] == [row[0] for row in versions[len(victim.applied()) - 1].ledger]
        assert found.rows in [version.rows for version in versions]
        assert finished.stdout.count("Applied ") <= len(victim.applied()) - 1
        assert_completes(victim, versions)
        if finished.returncode != -signal.SIGKILL:
            break
    assert moment > 40


LARGE = {
    f"{number:03}_fill": f"CREATE TABLE t{number} (n, text);\n{rows_of(size, f't{number}')};\n"
    f"CREATE INDEX i{number} ON t{number} (n);\nUPDATE t{number} SET text = text || '!' WHERE n % 3 = 0;"
    for number, size in enumerate([500, 20_000, 500, 2_000, 500], start=1)  # 20,000 rows exceed SQLite's cache
}


def kill_at_random(root: Path, journal_mode: str, rounds: int) -> None:
    site = Site(root / "site", LARGE)
    site.begin_with(f"PRAGMA journal_mode = {journal_mode}", "CREATE TABLE before_all (x)")
    versions = versions_of(site, root / "versions")
    locked = "app.db-migrate-lock"
    with site.copy(root / "whole").migrating() as process:
        until((root / "whole" / "data" / locked).exists)
        began = time.monotonic()
        finish(process)
        duration = time.monotonic() - began
    chance = random.Random(2024)
    reached = set()
    for number in range(rounds):
        victim = site.copy(root / str(number))
        with victim.migrating() as process:
            until((victim.data / locked).exists)
            time.sleep(chance.uniform(0, duration))
            if process.poll() == 0:  # it may have been slower when it was measured, on a busy machine
                duration *= 0.9
            process.kill()
            out, _ = process.communicate()
        reached.add(assert_at_a_version(victim, versions, out.count("Applied ")))
        assert_completes(victim, versions)
        rmtree(victim.root)
    assert len(reached) > 2


@pytest.mark.slow
def test_a_kill_at_a_random_time_leaves_a_version(tmp_path: Path, journal_mode: str) -> None:
    kill_at_random(tmp_path, journal_mode, rounds=30)


@pytest.mark.slow
def test_many_kills_at_random_times_each_leave_a_version(tmp_path: Path, journal_mode: str) -> None:
    kill_at_random(tmp_path, journal_mode, rounds=150)


@pytest.mark.slow
def test_a_kill_at_a_random_time_of_a_rollback_leaves_a_version(tmp_path: Path, journal_mode: str) -> None:
    down = {name: f"DROP TABLE t{int(name[:3])};" for name in LARGE}
    site = Site(
        tmp_path / "site",
        {n: f"-- migrate:up\n{LARGE[n]}\n-- migrate:down\n{rows_of(3000, 'log')};{down[n]}" for n in LARGE},
    )
    site.begin_with(f"PRAGMA journal_mode = {journal_mode}", "CREATE TABLE log (n, text)")
    runner.migrate(str(site.database), site.directory)
    other = site.copy(tmp_path / "versions")
    versions = [state(site.database)]
    while rollback.rollback(str(other.database), other.directory).done:
        versions.append(state(other.database))
    chance = random.Random(2025)
    for number in range(40):
        victim = site.copy(tmp_path / str(number))
        (victim.data / "app.db-migrate-lock").unlink()
        with victim.flasking("rollback", "--to", "0", "--yes") as process:
            until((victim.data / "app.db-migrate-lock").exists)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
            out, _ = process.communicate()
        assert_at_a_version(victim, versions, out.count("Rolled back "))
        rollback.rollback(str(victim.database), victim.directory, to="0")
        assert state(victim.database) == versions[-1]
        rmtree(victim.root)


@st.composite
def folders(draw: st.DrawFn) -> dict[str, str]:
    """Folders of migrations that apply, with the statements that change what a database holds."""
    files, tables = {}, ["before_all"]
    for number in range(1, draw(st.integers(1, 4)) + 1):
        statements = []
        for serial in range(draw(st.integers(1, 4))):
            table, name = draw(st.sampled_from(tables)), f"m{number}_{serial}"
            kind = draw(st.sampled_from(["create", "insert", "column", "index", "rebuild", "temp", "delete", "view"]))
            statements.append(
                {
                    "create": f"CREATE TABLE {name} (x INTEGER PRIMARY KEY)",
                    "insert": f"INSERT INTO {table} (x) SELECT coalesce(max(x), 0) + 1 FROM {table}",
                    "column": f"ALTER TABLE {table} ADD COLUMN {name} DEFAULT {number}",
                    "index": f"CREATE INDEX {name} ON {table} (x)",
                    "rebuild": f"CREATE TABLE {name} AS SELECT * FROM {table}; DROP TABLE {table};"
                    f" ALTER TABLE {name} RENAME TO {table}",
                    "temp": f"CREATE TEMP TABLE {name} AS SELECT 1",
                    "delete": f"DELETE FROM {table} WHERE x % 2",
                    "view": f"CREATE VIEW {name} AS SELECT {number} AS x",
                }[kind]
            )
            tables += [name] if kind == "create" else []
        head, tail = draw(st.sampled_from([("", ""), ("BEGIN;", "COMMIT;"), ("PRAGMA foreign_keys=OFF;", "")]))
        files[f"{number:03}_m"] = f"{head}\n{';'.join(statements)};\n{tail}"
    return files


@settings(max_examples=25, deadline=None, database=None)
@given(files=folders(), moments=st.lists(st.integers(1, 80), min_size=1, max_size=3))
def test_whatever_runs_and_whenever_it_dies_the_database_is_at_a_version(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], moments: list[int]
) -> None:
    root = tmp_path_factory.mktemp("run")
    site = Site(root / "site", files)
    site.begin_with("CREATE TABLE before_all (x INTEGER)", "INSERT INTO before_all VALUES (1), (2)")
    versions = versions_of(site, root / "versions")
    reached = 0
    for moment in moments:
        finished = site.migrate(dies_at=moment)
        reached = assert_at_a_version(site, versions, reached + finished.stdout.count("Applied "))
    assert_completes(site, versions)


# A run with nothing to do, and a question.


def test_a_run_with_nothing_to_do_writes_nothing(tmp_path: Path, journal_mode: str) -> None:
    site = Site(tmp_path / "site", BOTH)
    site.prepare()
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    before = snapshot(site.data)
    finished = site.migrate()
    assert (finished.returncode, finished.stdout[:13]) == (0, "Nothing to do")
    assert snapshot(site.data) == before


def test_status_writes_nothing(tmp_path: Path, journal_mode: str) -> None:
    site = Site(tmp_path / "site", BOTH)
    site.prepare()
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    site.write({"004_new": GOOD})
    before = snapshot(site.data)
    assert site.status() == {
        "001_create": "applied",
        "002_rebuild": "applied",
        "003_settings": "applied",
        "004_new": "pending",
    }
    assert snapshot(site.data) == before


def test_a_run_with_nothing_to_do_needs_no_write_lock(tmp_path: Path, journal_mode: str) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.prepare()
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    with held(site.database, "BEGIN IMMEDIATE", "INSERT INTO good VALUES (1)"):
        finished = site.flask("migrate", "--wait", "0")
        assert (finished.returncode, finished.stdout[:13]) == (0, "Nothing to do")
        assert site.status() == {"001_good": "applied"}


def test_a_run_with_nothing_to_do_does_not_wait_for_another_run(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    site.prepare()
    with held(site.data / "app.db-migrate-lock", "BEGIN EXCLUSIVE"):
        assert site.flask("migrate", "--wait", "0").returncode == 0


@pytest.mark.parametrize("words", [("status",), ("rollback", "--yes")])
def test_asking_about_a_database_that_does_not_exist_creates_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    site = Site(tmp_path / "site", {"001_good": GOOD})
    assert site.flask(*words).returncode == 0
    assert list(site.data.iterdir()) == []


# Sections outside a transaction.

OUTSIDE = "-- migrate:up transaction:false\n"


def test_vacuum_and_a_journal_mode_work_outside_a_transaction(tmp_path: Path) -> None:
    fill = f"CREATE TABLE t (n, text); {rows_of(3000, 't')}; DELETE FROM t;"
    site = Site(
        tmp_path / "site", {"001_fill": fill, "002_wal": f"{OUTSIDE}PRAGMA journal_mode = WAL; VACUUM;", "003_on": GOOD}
    )
    assert site.migrate().returncode == 0
    assert site.value("PRAGMA journal_mode") == "wal"
    assert site.value("PRAGMA freelist_count") == 0
    assert site.applied() == ["001_fill", "002_wal", "003_on"]


# What runs -> how many of its statements are told to be in effect, and which tables those made.
HALFWAY = {
    "one by one": ("CREATE TABLE a (x); CREATE TABLE b (x); BAD; CREATE TABLE c (x);", "2 of 4", {"a", "b"}),
    "a pair that is left open": ("CREATE TABLE a (x); BEGIN; CREATE TABLE b (x);", "1 of 3", {"a"}),
    "a pair that is rolled back": ("CREATE TABLE a (x); BEGIN; CREATE TABLE b (x); ROLLBACK; BAD;", "1 of 5", {"a"}),
    "in the second pair": (
        "BEGIN; CREATE TABLE a (x); COMMIT; BEGIN; CREATE TABLE b (x); BAD; COMMIT;",
        "3 of 7",
        {"a"},
    ),
    "a deferred foreign key at its own COMMIT": (
        "CREATE TABLE p (id INTEGER PRIMARY KEY);"
        "CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED); BEGIN; INSERT INTO c VALUES (1); COMMIT;",
        "2 of 5",
        {"p", "c"},
    ),
}


@pytest.mark.parametrize(("sql", "told", "tables"), HALFWAY.values(), ids=HALFWAY.keys())
def test_a_failure_outside_a_transaction_tells_what_is_in_effect(
    tmp_path: Path, sql: str, told: str, tables: set[str]
) -> None:
    site = Site(tmp_path / "site", {"001_half": OUTSIDE + sql})
    finished = site.migrate()
    assert finished.returncode == 3
    assert f"of 001_half.sql {told} statements took effect" in finished.stderr
    assert "nothing of" not in finished.stderr
    assert site.tables() == tables
    assert site.applied() == []
    site.write({"001_half": f"{OUTSIDE}CREATE TABLE IF NOT EXISTS a (x);"})
    assert site.migrate().returncode == 0


def test_a_failure_of_the_first_statement_outside_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_half": f"{OUTSIDE}BEGIN; CREATE TABLE a (x); BAD; COMMIT;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "nothing of the failed run of 001_half.sql remains" in finished.stderr
    assert site.tables() == set()


def test_a_section_may_hold_transactions_of_its_own(tmp_path: Path) -> None:
    two = "BEGIN; CREATE TABLE a (x); COMMIT; VACUUM; BEGIN IMMEDIATE; INSERT INTO a VALUES (1); END;"
    site = Site(tmp_path / "site", {"001_pairs": f"{OUTSIDE}{two} SAVEPOINT s; RELEASE s;"})
    assert site.migrate().returncode == 0
    assert site.rows("SELECT x FROM a") == [(1,)]


@pytest.mark.slow
def test_a_lock_met_halfway_outside_a_transaction_does_not_claim_that_nothing_remains(tmp_path: Path) -> None:
    seconds = rows_of(3_000_000).replace("SELECT n, printf('%0100d', n)", "SELECT count(*)")
    site = Site(tmp_path / "site", {"001_half": f"{OUTSIDE}CREATE TABLE a (x); {seconds}; CREATE TABLE b (x);"})
    with site.flasking("migrate", "--wait", "0.3") as process:
        until(lambda: "a" in site.tables())
        with held(site.database, "BEGIN IMMEDIATE"):
            finished = finish(process)
    assert finished.returncode in (3, 5)
    assert "nothing of" not in finished.stderr
    assert "of 001_half.sql 2 of 3 statements took effect" in finished.stderr


# What a migration leaves on the connection.

# A first migration -> the answer that the second one must get.
LEAKS = {
    "a temporary table": ("CREATE TEMP TABLE hidden (x);", "SELECT count(*) FROM sqlite_temp_schema", 0),
    "a temporary view over a table": ("CREATE TEMP VIEW good AS SELECT 7 AS id;", "SELECT count(*) FROM good", 0),
    "an attached database": (
        "-- migrate:allow attach\nATTACH ':memory:' AS other; CREATE TABLE other.x (x);",
        "SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')",
        0,
    ),
    "case_sensitive_like": ("PRAGMA case_sensitive_like = ON;", "SELECT 'a' LIKE 'A'", 1),
    "recursive_triggers": ("PRAGMA recursive_triggers = ON;", "SELECT * FROM pragma_recursive_triggers", 0),
    "legacy_alter_table": ("PRAGMA legacy_alter_table = ON;", "SELECT * FROM pragma_legacy_alter_table", 0),
    "foreign_keys": ("PRAGMA foreign_keys = OFF; SELECT 1;", "SELECT * FROM pragma_foreign_keys", 1),
    "foreign_keys, as a directive": ("-- migrate:foreign_keys off\nSELECT 1;", "SELECT * FROM pragma_foreign_keys", 1),
    "foreign_keys, outside a transaction": (
        f"{OUTSIDE}PRAGMA foreign_keys = OFF;\nVACUUM;",
        "SELECT * FROM pragma_foreign_keys",
        1,
    ),
    "foreign_keys, as a directive, outside a transaction": (
        f"-- migrate:foreign_keys off\n{OUTSIDE}VACUUM;",
        "SELECT * FROM pragma_foreign_keys",
        1,
    ),
    "defer_foreign_keys": (
        f"{OUTSIDE}PRAGMA defer_foreign_keys = ON;",
        "SELECT * FROM pragma_defer_foreign_keys",
        0,
    ),
    "ignore_check_constraints": (
        "PRAGMA ignore_check_constraints = ON;",
        "SELECT * FROM pragma_ignore_check_constraints",
        0,
    ),
}


@pytest.mark.parametrize(("first", "question", "answer"), LEAKS.values(), ids=LEAKS.keys())
def test_what_a_migration_leaves_on_its_connection_does_not_reach_the_next(
    tmp_path: Path, first: str, question: str, answer: int
) -> None:
    site = Site(
        tmp_path / "site",
        {
            "001_good": GOOD,
            "002_leaves": first,
            "003_asks": f"CREATE TABLE seen (answer); INSERT INTO seen {question};",
        },
    )
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert site.rows("SELECT answer FROM seen") == [(answer,)]


# Many.


@pytest.mark.slow
def test_a_thousand_migrations(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {f"{n:04}_m": f"CREATE TABLE t{n} (x);" for n in range(1, 1001)})
    site.prepare()
    assert len(site.applied()) == len(site.tables()) == 1000
    assert set(site.status().values()) == {"applied"}
    before = snapshot(site.data)
    assert site.migrate().stdout.startswith("Nothing to do")
    assert snapshot(site.data) == before
