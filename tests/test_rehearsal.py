"""A dry run really runs, on a copy: what it tells is what the real run then does, and the database is only read."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import rehearsal, runner
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Patience, TableChange, compare, workspace
from financial_agent.migrator.errors import (
    CascadeRefused,
    DatabaseLocked,
    DatabaseUnusable,
    Irreversible,
    RehearsalRefused,
    TargetUnknown,
)
from financial_agent.migrator.errors_files import SectionEmpty
from financial_agent.migrator.errors_run import Interrupted, MigrationFailed
from financial_agent.migrator.rehearsed import Rehearsal
from tests.helpers import FLASK, Site, held, rows_of, run_with, snapshot, state

CHATS = """\
-- migrate:up
CREATE TABLE chats (id INTEGER PRIMARY KEY, title TEXT, mood TEXT);
INSERT INTO chats VALUES (1, 'a', 'x'), (2, 'b', NULL), (3, 'c', 'z');
-- migrate:down
DROP TABLE chats;
"""
# Root may write everywhere: without these two capabilities it may what the files' modes say.
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A database with three chats."""
    site = Site(tmp_path / "site", {"001_chats": CHATS})
    site.prepare()
    return site


def migrated(site: Site, target: str | None = None, **options: Any) -> Rehearsal:
    return rehearsal.migrate(str(site.database), site.directory, target=target, **options)


def rolled_back(site: Site, **options: Any) -> Rehearsal:
    return rehearsal.roll_back(str(site.database), site.directory, **options)


def only(found: Rehearsal) -> rehearsal.Rehearsed:
    assert not found.failure, found.failure
    (step,) = found.steps
    return step


def names(found: Rehearsal) -> list[str]:
    return [step.done.filename.removesuffix(".sql") for step in found.steps]


# What it tells.


def test_rows_schema_and_what_is_destroyed_are_told(site: Site) -> None:
    site.write(
        {
            "002_it": "UPDATE chats SET title = 'new' WHERE id = 1;\n"
            "DELETE FROM chats\n  WHERE id = 3;\n"
            "INSERT INTO chats (id) VALUES (7), (8);\n"
            "ALTER TABLE chats DROP COLUMN mood;\n"
            "CREATE TABLE other (x);"
        }
    )
    found = migrated(site)
    step = only(found)
    assert (step.done.statements, step.done.rows_changed) == (5, 4)
    assert step.rows == (TableChange("chats", 2, 1, 1, (("title", 1), ("mood", 1))),)
    assert [(each.change, each.name) for each in step.schema] == [("changed", "chats"), ("added", "other")]
    assert [(effect.kind, effect.name, line) for effect, line in step.destroyed] == [
        ("update", "chats", 1),
        ("delete", "chats", 2),
        ("drop column", "chats", 5),
    ]
    assert found.is_destructive
    assert (step.orphans, step.problems, step.way_back) == ("", (), None)


def test_what_only_adds_is_not_destructive(site: Site) -> None:
    site.write({"002_more": "CREATE TABLE more (x); INSERT INTO more VALUES (1);"})
    assert not migrated(site).is_destructive


def test_several_migrations_are_each_told_by_themselves(site: Site) -> None:
    site.write(
        {
            "002_more": "INSERT INTO chats (id) VALUES (4);",
            "003_fewer": "DELETE FROM chats WHERE id > 2;",
            "004_none": "DELETE FROM chats;",
        }
    )
    found = migrated(site)
    assert names(found) == ["002_more", "003_fewer", "004_none"]
    assert [step.rows for step in found.steps] == [
        (TableChange("chats", inserted=1),),
        (TableChange("chats", deleted=2),),
        (TableChange("chats", deleted=2),),
    ]


def test_a_target_ends_it(site: Site) -> None:
    site.write({"002_two": "CREATE TABLE two (x);", "003_three": "CREATE TABLE three (x);"})
    assert names(migrated(site, "2")) == ["002_two"]
    with pytest.raises(TargetUnknown):
        migrated(site, "9")


def test_with_nothing_pending_nothing_is_rehearsed(site: Site) -> None:
    found = migrated(site)
    assert (found.steps, found.failure, found.is_destructive) == ([], None, False)


def test_a_failing_migration_is_told_behind_those_that_work(site: Site) -> None:
    site.write({"002_good": "CREATE TABLE good (x);", "003_bad": "INSERT INTO missing VALUES (1);"})
    found = migrated(site)
    assert names(found) == ["002_good"]
    assert isinstance(found.failure, MigrationFailed)
    assert found.failure.state == "This was a rehearsal on a copy; the database was not touched"


def test_a_failure_that_only_the_rows_bring_about_is_found(site: Site) -> None:
    site.write({"002_unique": "CREATE UNIQUE INDEX one_mood ON chats (coalesce(mood, 'x'));"})
    assert isinstance(migrated(site).failure, MigrationFailed)


def test_what_the_real_run_refuses_before_it_begins_is_refused(site: Site) -> None:
    site.do("CREATE TABLE children (chat REFERENCES chats ON DELETE CASCADE)", "INSERT INTO children VALUES (1)")
    site.write({"002_drop": "DROP TABLE chats;"})
    with pytest.raises(CascadeRefused):
        migrated(site)
    site.write({"002_drop": "-- nothing"})
    with pytest.raises(SectionEmpty):
        migrated(site)


@pytest.mark.parametrize("section", ["", "-- migrate:up transaction:false\n"])
def test_rows_that_would_lose_their_parent_are_found(site: Site, section: str) -> None:
    site.do("CREATE TABLE children (chat REFERENCES chats)", "INSERT INTO children VALUES (1), (NULL)")
    site.write({"002_off": f"{section}PRAGMA foreign_keys = OFF;\nDELETE FROM chats;"})
    failure = migrated(site).failure
    assert failure
    assert "1 row of children without chats" in failure.message


def test_rows_that_had_no_parent_before_do_not_count(site: Site) -> None:
    site.do("CREATE TABLE children (chat REFERENCES chats)", "INSERT INTO children VALUES (99)")
    site.write({"002_less": "DELETE FROM chats;"})
    assert only(migrated(site)).orphans == ""


def test_the_time_for_which_writers_would_wait_is_that_of_the_transaction(site: Site) -> None:
    site.write({"002_long": f"CREATE TABLE long (n, text); {rows_of(50_000, 'long')};"})
    done = only(migrated(site)).done
    assert 0 < done.duration_ms <= done.blocked_ms + 1


# The way back.


def way_back(site: Site, up: str, down: str) -> rehearsal.WayBack | None:
    site.write({"002_it": f"-- migrate:up\n{up}\n-- migrate:down\n{down}\n"})
    return only(migrated(site)).way_back


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("CREATE TABLE more (x);", "DROP TABLE more;"),
        ("UPDATE chats SET title = title || '!';", "UPDATE chats SET title = rtrim(title, '!');"),
        ("ALTER TABLE chats ADD COLUMN age;", "ALTER TABLE chats DROP COLUMN age;"),
        ("ALTER TABLE chats RENAME TO talks;", "ALTER TABLE talks RENAME TO chats;"),
        ("ALTER TABLE chats RENAME COLUMN mood TO air;", "ALTER TABLE chats RENAME COLUMN air TO mood;"),
    ],
)
def test_a_way_back_that_brings_everything_back_is_complete(site: Site, up: str, down: str) -> None:
    found = way_back(site, up, down)
    assert found
    assert found.is_complete, found


@pytest.mark.parametrize(
    ("up", "down", "rows"),
    [
        ("DELETE FROM chats WHERE id > 1;", "SELECT 1;", TableChange("chats", deleted=2)),
        ("INSERT INTO chats (id) VALUES (9);", "SELECT 1;", TableChange("chats", inserted=1)),
        (
            "ALTER TABLE chats DROP COLUMN mood;",
            "ALTER TABLE chats ADD COLUMN mood TEXT;",
            TableChange("chats", updated=2, values=(("mood", 2),)),
        ),
        (
            "UPDATE chats SET title = 'x';",
            "UPDATE chats SET title = 'a';",
            TableChange("chats", updated=2, values=(("title", 2),)),
        ),
    ],
)
def test_the_rows_and_values_that_would_not_come_back_are_counted(
    site: Site, up: str, down: str, rows: TableChange
) -> None:
    found = way_back(site, up, down)
    assert found
    assert (found.failure, found.schema, found.rows) == (None, (), (rows,))


def test_a_schema_that_does_not_come_back_is_told(site: Site) -> None:
    found = way_back(site, "CREATE TABLE more (x); CREATE TABLE less (x);", "DROP TABLE more;")
    assert found
    assert [(each.change, each.name) for each in found.schema] == [("added", "less")]


def test_a_down_section_that_fails_is_told(site: Site) -> None:
    found = way_back(site, "CREATE TABLE more (x);", "DROP TABLE missing;")
    assert found
    assert found.failure
    assert found.failure.startswith("FA301 ")
    assert not found.is_complete


def test_what_the_way_back_does_does_not_reach_the_next_migration(site: Site) -> None:
    site.write(
        {
            "002_more": "-- migrate:up\nCREATE TABLE more (x);\n-- migrate:down\nDROP TABLE more;",
            "003_into": "INSERT INTO more VALUES (1);",
        }
    )
    assert names(migrated(site)) == ["002_more", "003_into"]


# A rollback.


def test_a_rollback_is_rehearsed_with_the_section_that_was_stored(site: Site) -> None:
    (site.directory / "001_chats.sql").unlink()
    step = only(rolled_back(site))
    assert (step.done.direction, step.rows) == ("down", (TableChange("chats", deleted=3),))
    assert step.way_back is None
    assert site.applied() == ["001_chats"]


def test_several_are_rolled_back_in_reverse(site: Site) -> None:
    site.write({"002_more": "-- migrate:up\nCREATE TABLE more (x);\n-- migrate:down\nDROP TABLE more;"})
    site.prepare()
    assert names(rolled_back(site, steps=2)) == names(rolled_back(site, to="0")) == ["002_more", "001_chats"]


def test_without_a_way_back_the_rollback_is_refused(site: Site) -> None:
    site.write({"002_more": "CREATE TABLE more (x);"})
    site.prepare()
    with pytest.raises(Irreversible):
        rolled_back(site)


# What the real run does.

REBUILD = """\
-- migrate:foreign_keys off
CREATE TABLE new_chats (id INTEGER PRIMARY KEY, title TEXT NOT NULL DEFAULT '');
INSERT INTO new_chats SELECT id, title FROM chats WHERE id < 3;
DELETE FROM children WHERE chat = 3;
DROP TABLE chats;
ALTER TABLE new_chats RENAME TO chats;
"""


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE chats SET title = 'x' WHERE id > 1; DELETE FROM chats WHERE id = 2; CREATE INDEX i ON chats (title);",
        REBUILD,
        "-- migrate:up transaction:false\nUPDATE chats SET title = 'y';\nVACUUM;\nPRAGMA journal_mode = wal;",
        "-- migrate:up transaction:false\nBEGIN; DELETE FROM children; COMMIT; CREATE TABLE more (x);",
        "CREATE TEMP TABLE t AS SELECT id FROM chats; UPDATE chats SET mood = 't' WHERE id IN (SELECT id FROM t);",
        "CREATE VIRTUAL TABLE papers USING fts5 (body); INSERT INTO papers SELECT title FROM chats;",
    ],
)
def test_the_real_run_does_what_was_rehearsed(site: Site, tmp_path: Path, sql: str) -> None:
    site.do("CREATE TABLE children (chat REFERENCES chats)", "INSERT INTO children VALUES (1), (3), (NULL)")
    site.write({"002_it": sql})
    before = site.copy(tmp_path / "before")
    step = only(migrated(site))
    assert state(site.database) == state(before.database)
    (done,) = runner.migrate(str(site.database), site.directory).done
    assert (step.done.filename, step.done.statements, step.done.rows_changed) == (
        done.filename,
        done.statements,
        done.rows_changed,
    )
    assert tuple(compare(str(before.database), str(site.database), None, Patience(1))) == step.rows


# The database is only read.


@pytest.fixture(params=["delete", "wal"])
def journal_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


DESTRUCTIVE = {
    "002_less": "DELETE FROM chats; ALTER TABLE chats DROP COLUMN mood;",
    "003_vacuum": "-- migrate:up transaction:false\nVACUUM;",
    "004_bad": "DROP TABLE missing;",
}


def test_the_database_and_its_folder_stay_as_they_were(site: Site, journal_mode: str) -> None:
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    site.write(DESTRUCTIVE)
    before = snapshot(site.root)
    assert migrated(site).failure
    rolled_back(site)
    assert snapshot(site.root) == before
    assert sorted(os.listdir(site.data)) == ["app.db", "app.db-migrate-lock"]


def killed(site: Site, *statements: str) -> None:
    """What a process leaves that runs statements and is killed."""
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: connection.execute(statement).fetchall()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, site.database, *statements], check=False)
    assert died.returncode == -signal.SIGKILL


def test_what_stands_only_in_the_wal_is_rehearsed_with_and_stays_there(site: Site) -> None:
    killed(site, "PRAGMA journal_mode = wal", "INSERT INTO chats (id) VALUES (4)")
    site.write({"002_none": "DELETE FROM chats;"})
    before = snapshot(site.data)
    assert len(before["app.db-wal"][0]) > 0
    assert only(migrated(site)).rows == (TableChange("chats", deleted=4),)
    rolled_back(site)
    after = snapshot(site.data)
    for name in ("app.db", "app.db-wal"):
        assert after[name] == before[name]


def test_the_journal_of_a_killed_process_is_rolled_back_as_by_every_reader(site: Site) -> None:
    """Nobody can read the database before that; it is what keeps it the same."""
    before = site.database.read_bytes()
    site.write({"002_none": "DELETE FROM chats;"})
    killed(site, "PRAGMA cache_size = 1", "PRAGMA cache_spill = 1", "BEGIN", "UPDATE chats SET title = 'lost'")
    assert only(migrated(site)).rows == (TableChange("chats", deleted=3),)
    assert site.database.read_bytes() == before


def test_a_reader_is_no_obstacle_and_a_writer_is_waited_for(site: Site) -> None:
    site.write({"002_none": "DELETE FROM chats;"})
    with held(site.database, "BEGIN", "SELECT * FROM chats"):
        assert only(migrated(site)).rows
    with held(site.database, "BEGIN EXCLUSIVE"), pytest.raises(DatabaseLocked):
        migrated(site, control=Control(wait=0.1))


def test_a_new_database_is_not_made(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_chats": CHATS})
    step = only(migrated(site))
    assert step.rows == (TableChange("chats", inserted=3),)
    assert list(site.data.iterdir()) == []


def test_not_even_the_folder_of_a_new_database_is_made(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_chats": CHATS})
    site.data.rmdir()
    assert only(migrated(site)).rows
    assert not site.data.exists()


@pytest.mark.parametrize(
    ("sql", "keyword"),
    [
        ("-- migrate:allow attach\nATTACH '{other}' AS other; DELETE FROM other.t;", "ATTACH"),
        ("-- migrate:up transaction:false\nVACUUM INTO '{other}';", "VACUUM"),
    ],
)
def test_what_reaches_another_file_is_not_rehearsed(site: Site, tmp_path: Path, sql: str, keyword: str) -> None:
    """The other file would be the real one."""
    other = tmp_path / "other.db"
    site.write({"002_reach": sql.format(other=other)})
    failure = migrated(site).failure
    assert isinstance(failure, RehearsalRefused)
    assert keyword in failure.message
    assert failure.location
    assert failure.exit_code == 4
    assert not other.exists()


# The copy.


def test_the_copy_is_for_its_owner_alone_and_is_gone_afterwards(site: Site) -> None:
    site.database.chmod(0o644)
    with workspace(str(site.database), Patience(1)) as copies:
        copy = Path(copies.original(lambda done, total: None))
        folder = copy.parents[1]
        assert folder.parent == site.data
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert state(copy) == state(site.database)
        assert Path(copies.clone(str(copy))).read_bytes() == copy.read_bytes()
    assert not folder.exists()


def test_the_copy_is_gone_after_an_error(site: Site) -> None:
    site.database.write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseUnusable):
        migrated(site)
    assert sorted(os.listdir(site.data)) == ["app.db", "app.db-migrate-lock"]


def test_the_copy_is_gone_when_it_is_stopped(site: Site) -> None:
    site.write({"002_less": "DELETE FROM chats;"})
    for turn in range(1, 40, 3):
        asked = iter([None] * turn)
        with_stop = Control(stop=lambda asked=asked: next(asked, signal.SIGTERM))  # type: ignore[misc]
        try:
            found = migrated(site, control=with_stop)
        except Interrupted:
            pass
        else:
            assert found.failure is None or isinstance(found.failure, Interrupted)
        assert sorted(os.listdir(site.data)) == ["app.db", "app.db-migrate-lock"]


def test_what_a_power_cut_left_is_removed_and_what_is_in_use_or_not_ours_is_not(site: Site) -> None:
    names = (".financial_agent-private-abcdefgh", ".financial_agent-private-12345678", "app.db-rehearsal-notes")
    left, used, foreign = (site.data / name for name in names)
    for folder in (left, used, foreign):
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "app.db").write_bytes(b"a copy")
    os.mkfifo(site.data / ".financial_agent-private-fifofifo")
    site.write({"002_more": "CREATE TABLE more (x);"})
    descriptor = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        migrated(site)
    finally:
        os.close(descriptor)
    assert not left.exists()
    assert (used / "1" / "app.db").exists()
    assert (foreign / "1" / "app.db").exists()


def test_rehearsals_at_the_same_time_leave_each_other_alone(site: Site) -> None:
    with workspace(str(site.database), Patience(1)) as first:
        copy = Path(first.original(lambda done, total: None))
        with workspace(str(site.database), Patience(1)):
            pass
        assert copy.exists()
    assert sorted(os.listdir(site.data)) == ["app.db", "app.db-migrate-lock"]


# By the command line.


@pytest.mark.skipif(
    bool(UNPRIVILEGED) and not shutil.which("setpriv"), reason="root may write everywhere, and setpriv is missing"
)
@pytest.mark.parametrize("mode", [0o500, 0o300])
def test_in_a_folder_that_cannot_be_written_or_listed_it_works_elsewhere(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    site.write({"002_none": "DELETE FROM chats;"})
    before = snapshot(site.data)
    site.data.chmod(mode)
    try:
        finished = run_with(UNPRIVILEGED, [*FLASK, "migrate", "--dry-run"], site)
    finally:
        site.data.chmod(0o700)
    assert finished.returncode == 0, finished.stderr
    assert "chats: 3 deleted" in finished.stdout
    assert snapshot(site.data) == before
    assert list(temporary.iterdir()) == []


def test_the_text_tells_each_script_and_that_nothing_was_touched(site: Site) -> None:
    site.write({"002_less": "-- migrate:up\nDELETE FROM chats WHERE id = 1;\n-- migrate:down\nSELECT 1;"})
    finished = site.flask("migrate", "--dry-run", "--show-sql")
    assert finished.returncode == 0
    for text in (
        "-- 002_less.sql\nDELETE FROM chats WHERE id = 1;",
        "  schema    no change\n",
        "  rows      chats: 1 deleted\n",
        "  destroys  line 2: deletes rows of chats\n",
        "  checks    integrity ok, foreign keys ok\n",
        "1 row of chats would not come back",
        "The database was not touched.",
    ):
        assert text in finished.stdout
    assert site.value("SELECT count(*) FROM chats") == 3


def test_the_json_has_it_all(site: Site) -> None:
    site.write(
        {
            "002_less": "-- migrate:up\nDELETE FROM chats WHERE id = 1;\n-- migrate:down\nSELECT 1;",
            "003_bad": "DROP TABLE missing;",
        }
    )
    finished = site.flask("migrate", "--dry-run", "--json", "--show-sql")
    answer = json.loads(finished.stdout)
    assert (finished.returncode, answer["exit_code"], answer["ok"], answer["migrations"]) == (3, 3, False, [])
    (failure,) = (each for each in answer["diagnostics"] if each["severity"] == "error")
    assert (failure["code"], failure["line"]) == ("FA301", 1)
    assert failure["state"] == "This was a rehearsal on a copy; the database was not touched"
    told = answer["rehearsal"]
    assert told["destructive"]
    assert told["where"] == "a copy"
    assert told["size"] == site.database.stat().st_size
    (script,) = told["migrations"]
    assert script["filename"] == "002_less.sql"
    assert (script["state"], script["direction"], script["statements"]) == ("rehearsed", "up", 1)
    assert script["rows"] == [{"table": "chats", "inserted": 0, "updated": 0, "deleted": 1, "values": {}}]
    assert script["destroys"] == [
        {"kind": "delete", "name": "chats", "column": None, "via": None, "everywhere": False, "line": 2}
    ]
    assert (script["schema"], script["foreign_keys"], script["integrity"]) == ([], [], [])
    way_back = {"complete": False, "failure": None, "schema": [], "rows": script["rows"], "not_compared": []}
    assert script["way_back"] == way_back
    assert script["sql"] == "DELETE FROM chats WHERE id = 1;"
    assert script["blocked_ms"] >= 0
    assert site.value("SELECT count(*) FROM chats") == 3


def test_a_failure_exits_as_the_real_run_would_and_shows_what_came_before(site: Site) -> None:
    site.write({"002_good": "CREATE TABLE good (x);", "003_bad": "DROP TABLE missing;"})
    finished = site.flask("migrate", "--dry-run")
    assert finished.returncode == 3
    assert "002_good.sql\n" in finished.stdout
    assert "State: This was a rehearsal on a copy; the database was not touched." in finished.stderr
    assert site.applied() == ["001_chats"]


def test_a_rollback_can_be_rehearsed_and_changes_nothing(site: Site) -> None:
    before = snapshot(site.data)
    finished = site.flask("rollback", "--dry-run")
    assert finished.returncode == 0
    assert "001_chats.sql (rollback)" in finished.stdout
    assert "chats: 3 deleted" in finished.stdout
    assert snapshot(site.data) == before


def test_nothing_of_a_rehearsal_is_a_backup(site: Site) -> None:
    site.write({"002_less": "DELETE FROM chats;"})
    assert site.flask("migrate", "--dry-run").returncode == 0
    answer = json.loads(site.flask("backups", "--json").stdout)
    assert answer["backups"] == []
