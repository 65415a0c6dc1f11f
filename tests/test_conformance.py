"""What the engine promises, whatever the database: one body, run on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import (
    check,
    history,
    ledger,
    rehearsal,
    repair,
    rollback,
    runner,
    session,
    verify,
)
from financial_agent.migrator.control import Control
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import (
    DatabaseLocked,
    EnvironmentDiffers,
    Irreversible,
    MigratorError,
    RunLocked,
)
from financial_agent.migrator.errors_run import AssertionFailed, Interrupted, RunFailed
from financial_agent.migrator.events import Batched, Event
from tests import servers
from tests.helpers import ENDLESS, PLAIN, finish, started

CHAT = """\
-- Chats.
-- migrate:up
CREATE TABLE chat (id integer PRIMARY KEY, title varchar(100) NOT NULL, done integer);
-- migrate:down
DROP TABLE chat;
"""
TITLES = """\
-- migrate:up
INSERT INTO chat (id, title) VALUES (1, 'first; of all'), (2, 'it''s the second');
INSERT INTO chat (id, title) VALUES (3, 'dritte – Änderung');
-- migrate:down
DELETE FROM chat WHERE id IN (1, 2, 3);
"""
NOTES = """\
-- migrate:up
CREATE TABLE note (id integer PRIMARY KEY, text varchar(100));
CREATE TABLE remark (id integer PRIMARY KEY);
-- migrate:down
DROP TABLE remark;
DROP TABLE note;
"""
FILES = {"001_chat": CHAT, "002_titles": TITLES, "003_notes": NOTES}
FOR_EVER = {"sqlite": ENDLESS, "postgresql": "SELECT pg_sleep(3600)", "mysql": "SELECT sleep(3600)"}
QUICK = Control(wait=10, pauses=False)


class Place:
    """A database, and the folder of its migrations."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self.root = root
        self.directory = root / "migrations"
        self.directory.mkdir()

    def write(self, files: dict[str, str], suffix: str = "sql") -> None:
        for name, text in files.items():
            (self.directory / f"{name}.{suffix}").write_text(text, encoding="utf-8")

    def migrate(self, control: Control = QUICK, **options: Any) -> list[str]:
        outcome = runner.migrate(self.url, self.directory, control=control, **options)
        return [done.filename.partition(".")[0] for done in outcome.done]

    def roll_back(self, steps: int = 1, **options: Any) -> list[str]:
        outcome = rollback.rollback(self.url, self.directory, steps=steps, control=QUICK, **options)
        return [done.filename.partition(".")[0] for done in outcome.done]

    def fails(self, control: Control = QUICK) -> MigratorError:
        with pytest.raises(MigratorError) as caught:
            self.migrate(control)
        return caught.value

    def states(self) -> dict[str, str]:
        items = runner.status(self.url, self.directory).items
        return {item.filename.partition(".")[0]: item.state for item in items}

    def events(self) -> list[tuple[str | None, str]]:
        return [(line.event, (line.filename or "").partition(".")[0]) for line in history.read(self.url)]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return servers.rows(self.url, sql)

    def run(self, *statements: str) -> None:
        servers.run(self.url, *statements)

    def has(self, table: str) -> bool:
        try:
            self.rows(f"SELECT * FROM {table}")
        except Exception:  # each driver has its own
            return False
        return True

    def command(self) -> list[str]:
        return [*PLAIN, "--database", self.url, "--directory", str(self.directory)]

    def verified(self) -> list[tuple[str, str]]:
        report = verify.verify(self.url, self.directory, control=QUICK)
        return [(finding.kind, finding.message) for finding in report.findings]


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    return Place(database_url, tmp_path)


def test_each_migration_runs_once_in_order_and_is_recorded(place: Place) -> None:
    place.write(FILES)
    assert place.states() == {"001_chat": "pending", "002_titles": "pending", "003_notes": "pending"}
    assert place.migrate() == ["001_chat", "002_titles", "003_notes"]
    assert place.rows("SELECT id, title FROM chat ORDER BY id") == [
        (1, "first; of all"),
        (2, "it's the second"),
        (3, "dritte – Änderung"),
    ]
    assert place.rows("SELECT filename FROM _migrations ORDER BY id") == [(f"{name}.sql",) for name in FILES]
    assert set(place.states().values()) == {"applied"}
    assert place.events() == [("apply", name) for name in FILES]
    assert place.migrate() == []
    assert place.events() == [("apply", name) for name in FILES]


def test_asking_makes_no_table(place: Place) -> None:
    place.write(FILES)
    runner.status(place.url, place.directory)
    rehearsal.migrate(place.url, place.directory, control=QUICK)
    for table in ("_migrations", "_migration_history", "_migration_progress", "chat"):
        assert not place.has(table)


def test_a_failure_leaves_what_was_before_it_and_tells_the_truth_of_the_rest(place: Place) -> None:
    """The state that the error tells of is the one that is there, and the next run completes."""
    broken = NOTES.replace("CREATE TABLE remark (id integer PRIMARY KEY);", "INSERT INTO nowhere VALUES (1);")
    place.write({**FILES, "003_notes": broken})
    error = place.fails()
    assert isinstance(error, RunFailed)
    assert error.location
    assert error.location.line == 3
    assert [done.filename for done in error.done] == ["001_chat.sql", "002_titles.sql"]
    assert error.state.startswith("The database is at 002_titles.sql")
    remains = "nothing of the failed run of 003_notes.sql remains" not in error.state
    assert place.has("note") == remains
    assert place.states()["003_notes"] == ("started" if remains else "pending")
    assert place.events()[-1] == ("failure", "003_notes")
    assert "drift" not in {kind for kind, _ in place.verified()}
    place.write(FILES)
    assert place.migrate() == ["003_notes"]
    assert place.has("note")
    assert place.has("remark")
    assert place.verified() == []


def test_rows_alone_are_changed_together_or_not_at_all(place: Place) -> None:
    broken = TITLES.replace("'dritte – Änderung'", "NULL")
    place.write({**FILES, "002_titles": broken})
    error = place.fails()
    assert "nothing of the failed run of 002_titles.sql remains" in error.state
    assert place.rows("SELECT count(*) FROM chat") == [(0,)]
    assert "Änderung" not in str(error)
    assert "first" not in str(error)


def test_rolling_back_takes_the_section_that_was_applied(place: Place) -> None:
    place.write(FILES)
    place.migrate()
    (place.directory / "003_notes.sql").unlink()
    assert place.roll_back() == ["003_notes"]
    assert not place.has("note")
    assert not place.has("remark")
    assert place.roll_back(2) == ["002_titles", "001_chat"]
    assert not place.has("chat")
    assert place.events()[-3:] == [("rollback", "003_notes"), ("rollback", "002_titles"), ("rollback", "001_chat")]


def test_what_has_no_way_back_is_not_rolled_back(place: Place) -> None:
    place.write({"001_chat": CHAT.partition("-- migrate:down")[0]})
    place.migrate()
    with pytest.raises(Irreversible):
        place.roll_back()
    assert place.has("chat")


def test_the_ledger_of_the_first_runner_is_taken_over(place: Place) -> None:
    """Its three columns stay, its rows get their checksums, and none of its migrations runs again."""
    place.write(FILES)
    place.run(
        "CREATE TABLE chat (id integer PRIMARY KEY, title varchar(100) NOT NULL, done integer)",
        "CREATE TABLE _migrations (id integer PRIMARY KEY, filename varchar(255) UNIQUE NOT NULL, applied_at date)",
        "INSERT INTO _migrations (id, filename) VALUES (1, '001_chat.sql')",
    )
    assert place.migrate() == ["002_titles", "003_notes"]
    ((checksum,),) = place.rows("SELECT checksum FROM _migrations WHERE filename = '001_chat.sql'")
    assert len(checksum) == 64
    assert place.events()[0] == ("takeover", "001_chat")


def test_a_run_waits_for_the_one_that_holds_the_lock(place: Place) -> None:
    place.write(FILES)
    with session.exclusive(place.url, QUICK, Environment()):
        error = place.fails(Control(wait=0.3))
        assert isinstance(error, RunLocked)
        assert error.exit_code == 5
        assert not place.has("chat")
    assert place.migrate() == list(FILES)


def test_runs_that_start_at_once_apply_each_migration_once(place: Place) -> None:
    place.write(FILES)
    with ExitStack() as stack:
        running = [stack.enter_context(started(place.command(), place.root)) for _ in range(4)]
        finished = [finish(process) for process in running]
    assert [each.returncode for each in finished] == [0] * 4, [each.stderr for each in finished]
    assert place.events() == [("apply", name) for name in FILES]
    assert place.rows("SELECT count(*) FROM chat") == [(3,)]


def test_a_change_to_the_past_shows(place: Place) -> None:
    place.write(FILES)
    place.migrate()
    assert place.verified() == []
    place.run("UPDATE _migration_history SET os_user = 'nobody' WHERE id = 1")
    assert [kind for kind, _ in place.verified()] == ["history"]


def test_rows_that_are_gone_from_the_history_show(place: Place) -> None:
    place.write(FILES)
    place.migrate()
    place.run("DELETE FROM _migration_history WHERE id = 2")
    assert "history" in {kind for kind, _ in place.verified()}


def test_a_change_behind_its_back_is_drift(place: Place) -> None:
    place.write(FILES)
    place.migrate()
    place.run("ALTER TABLE note ADD COLUMN colour varchar(10)")
    (finding,) = verify.verify(place.url, place.directory, control=QUICK).findings
    assert finding.kind == "drift"
    (difference,) = finding.differences
    assert (difference.change, difference.type, difference.name) == ("changed", "table", "note")
    assert any("colour" in line for line in difference.columns)


def test_an_edited_file_is_told_with_its_diff_and_can_be_accepted(place: Place) -> None:
    place.write(FILES)
    place.migrate()
    place.write({"003_notes": NOTES.replace("varchar(100)", "varchar(200)")})
    assert place.states()["003_notes"] == "edited"
    (finding,) = verify.verify(place.url, place.directory, control=QUICK).findings
    assert finding.kind == "edited"
    assert any("varchar(200)" in line for line in finding.diff)


def test_a_baseline_records_without_running(place: Place) -> None:
    place.write(FILES)
    place.run("CREATE TABLE chat (id integer PRIMARY KEY, title varchar(100) NOT NULL, done integer)")
    repair.baseline(place.url, place.directory, "001", QUICK)
    assert place.states() == {"001_chat": "applied", "002_titles": "pending", "003_notes": "pending"}
    assert place.migrate() == ["002_titles", "003_notes"]


def test_a_lost_ledger_is_recovered_by_the_schema(place: Place) -> None:
    place.write({"001_chat": CHAT, "003_notes": NOTES})
    place.migrate()
    place.run("DROP TABLE _migrations", "DROP TABLE _migration_history")
    place.write({"004_more": "CREATE TABLE more (id integer PRIMARY KEY);"})
    assert place.migrate() == ["004_more"]
    assert place.events()[:2] == [("recover", "001_chat"), ("recover", "003_notes")]


def test_a_database_belongs_to_the_environment_of_its_first_run(place: Place) -> None:
    place.write({"001_chat": CHAT})
    place.migrate(environment=Environment("staging"))
    place.write(FILES)
    with pytest.raises(EnvironmentDiffers):
        place.migrate(environment=Environment("production"))
    assert not place.has("note")
    assert place.migrate(environment=Environment("staging")) == ["002_titles", "003_notes"]


def test_an_assertion_that_does_not_hold_undoes_its_rows(place: Place) -> None:
    failing = f"{TITLES.partition('-- migrate:down')[0]}-- migrate:assert SELECT count(*) = 2 FROM chat\n"
    place.write({"001_chat": CHAT, "002_titles": failing})
    assert isinstance(place.fails(), AssertionFailed)
    assert place.rows("SELECT count(*) FROM chat") == [(0,)]
    place.write({"002_titles": failing.replace("= 2", "= 3")})
    assert place.migrate() == ["002_titles"]


BATCHES = {
    "sqlite": "UPDATE chat SET done = 1 WHERE id IN (SELECT id FROM chat WHERE done IS NULL LIMIT :batch);",
    "postgresql": "UPDATE chat SET done = 1 WHERE id IN (SELECT id FROM chat WHERE done IS NULL LIMIT :batch);",
    "mysql": "UPDATE chat SET done = 1 WHERE done IS NULL LIMIT :batch;",
}


def fill(place: Place, batch: int) -> None:
    place.write({"001_chat": CHAT})
    for dialect, statement in BATCHES.items():
        place.write({"002_done": f"-- migrate:batch {batch}\n{statement}\n"}, f"{dialect}.sql")
    place.migrate(target="001")
    place.run(*(f"INSERT INTO chat (id, title) VALUES ({n}, 'x')" for n in range(25)))


def test_batches_change_every_row_once(place: Place) -> None:
    fill(place, 10)
    outcome = runner.migrate(place.url, place.directory, control=QUICK)
    (done,) = outcome.done
    assert (done.batches, done.rows_changed) == (3, 25)
    assert place.rows("SELECT sum(done) FROM chat") == [(25,)]


def test_batches_go_on_where_a_run_was_stopped(place: Place) -> None:
    fill(place, 10)
    stopped: list[Event] = []

    def report(event: Event) -> None:
        if isinstance(event, Batched):
            stopped.append(event)

    control = Control(wait=10, pauses=False, report=report, stop=lambda: 2 if stopped else None)
    assert isinstance(place.fails(control), Interrupted)
    assert place.states()["002_done"] == "started"
    assert place.rows("SELECT sum(done) FROM chat") == [(10,)]
    assert place.migrate() == ["002_done"]
    assert place.rows("SELECT sum(done) FROM chat") == [(25,)]


PYTHON = """\
def up(connection):
    cursor = connection.cursor()
    cursor.execute("SELECT id, title FROM chat ORDER BY id")
    for number, title in cursor.fetchall():
        cursor.execute("UPDATE chat SET done = {} WHERE id = {}".format(len(title), number))
    cursor.close()
"""


def test_a_python_file_is_one_transaction_with_its_record(place: Place) -> None:
    place.write({"001_chat": CHAT, "002_titles": TITLES})
    place.write({"003_lengths": PYTHON + "    raise ValueError('too long')\n"}, "py")
    error = place.fails()
    assert "ValueError" in str(error)
    assert place.rows("SELECT count(done) FROM chat") == [(0,)]
    place.write({"003_lengths": PYTHON}, "py")
    assert place.migrate() == ["003_lengths"]
    assert place.rows("SELECT done FROM chat ORDER BY id") == [(13,), (15,), (17,)]


def test_a_python_file_cannot_end_its_transaction(place: Place) -> None:
    place.write({"001_chat": CHAT, "002_titles": TITLES})
    place.write({"003_lengths": PYTHON + "    connection.commit()\n"}, "py")
    assert "commit" in str(place.fails())
    assert place.rows("SELECT count(done) FROM chat") == [(0,)]


def test_a_rehearsal_tells_what_a_run_would_do_and_changes_nothing(place: Place) -> None:
    place.write(FILES)
    place.migrate(target="002")
    place.write({"004_drop": "-- migrate:up\nDROP TABLE chat;\n"})
    rehearsed = rehearsal.migrate(place.url, place.directory, control=QUICK)
    assert rehearsed.failure is None
    assert [each.step.filename for each in rehearsed.steps] == ["003_notes.sql", "004_drop.sql"]
    assert rehearsed.is_destructive
    made, dropped = rehearsed.steps
    assert [(each.change, each.name) for each in made.schema] == [("added", "note"), ("added", "remark")]
    assert made.way_back
    assert made.way_back.is_complete
    assert [(effect.kind, effect.name) for effect, _ in dropped.destroyed] == [("drop table", "chat")]
    assert place.rows("SELECT count(*) FROM chat") == [(3,)]
    assert not place.has("note")
    assert place.states() == {
        "001_chat": "applied",
        "002_titles": "applied",
        "003_notes": "pending",
        "004_drop": "pending",
    }


def test_a_rehearsal_that_fails_says_where(place: Place) -> None:
    place.write({**FILES, "003_notes": NOTES.replace("CREATE TABLE remark (", "INSERT INTO nowhere VALUES (1); -- (")})
    rehearsed = rehearsal.migrate(place.url, place.directory, control=QUICK)
    assert rehearsed.failure
    assert rehearsed.failure.location
    assert rehearsed.failure.location.line == 3
    assert not place.has("chat")


@pytest.mark.slow
def test_check_finds_a_way_back_that_leaves_something(place: Place) -> None:
    def found() -> set[str]:
        report = check.check(place.directory, database=place.url, write_lock=True, control=QUICK)
        return {each.code for each in report.findings if each.filename == "003_notes.sql"}

    place.write(FILES)
    before = found()
    place.write({"003_notes": NOTES.replace("DROP TABLE remark;\n", "")})
    assert found() - before == {"FA653"}


def test_a_statement_can_be_stopped(place: Place) -> None:
    """Ctrl-C does not wait for a statement's end, and leaves the database at a version."""
    place.write({"001_chat": CHAT})
    for dialect, query in FOR_EVER.items():
        place.write({"002_wait": f"{query};\n"}, f"{dialect}.sql")
    asked: list[int] = []

    def stop() -> int | None:
        asked.append(1)
        return 2 if place_is_ready(place) and len(asked) > 10 else None

    assert isinstance(place.fails(Control(wait=10, stop=stop)), Interrupted)
    assert place.states() == {"001_chat": "applied", "002_wait": "pending"}


def place_is_ready(place: Place) -> bool:
    return place.has("chat")


def test_a_busy_table_is_waited_for_and_then_told(place: Place, held: Callable[[str], None]) -> None:
    """Whoever holds a table's lock keeps a run waiting as long as its patience lasts, and no longer; then it tells."""
    place.write({"001_chat": CHAT, "002_titles": TITLES})
    place.migrate()
    place.write({"003_drop": "ALTER TABLE chat ADD COLUMN colour varchar(10);"})
    held(place.url)
    error = place.fails(Control(wait=1))
    assert isinstance(error, DatabaseLocked | RunFailed)
    assert place.states()["003_drop"] in ("pending", "started")


@pytest.fixture
def held() -> Any:
    """A function that lets another connection hold a lock on `chat` for the rest of the test."""
    with ExitStack() as stack:

        def hold(url: str) -> None:
            connection = servers.connect(url)
            stack.callback(connection.close)
            cursor = connection.cursor()
            stack.callback(cursor.close)
            cursor.execute("BEGIN")
            cursor.execute("UPDATE chat SET done = 7")

        yield hold


def test_what_a_killed_run_left_is_told_and_finished_by_the_next(place: Place) -> None:
    place.write(FILES)
    for dialect, query in FOR_EVER.items():
        place.write({"004_wait": f"{query};\n"}, f"{dialect}.sql")
    with started(place.command(), place.root) as process:
        assert process.stdout
        for line in process.stdout:
            if "003_notes" in line:
                break
        process.kill()
        process.wait()
    for dialect in FOR_EVER:
        (place.directory / f"004_wait.{dialect}.sql").unlink()
    assert {name: state for name, state in place.states().items() if name in FILES} == dict.fromkeys(FILES, "applied")
    place.write({"004_wait": "CREATE TABLE waited (id integer PRIMARY KEY);"})
    assert place.migrate(Control(wait=120))[-1:] == ["004_wait"]
    assert place.has("waited")
    assert place.verified() == []


def test_no_password_is_shown_by_an_address_that_does_not_answer(tmp_path: Path) -> None:
    for scheme in ("postgresql", "mysql"):
        command = [sys.executable, *PLAIN[1:], "--directory", str(tmp_path)]
        with started([*command, "--database", f"{scheme}://bob:s3cr%40t@127.0.0.1:1/app"], tmp_path) as process:
            finished = finish(process)
        assert finished.returncode == 2
        assert "s3cr" not in finished.stdout + finished.stderr
        assert f"{scheme}://bob@127.0.0.1:1/app" in finished.stderr


def test_the_ledger_reads_what_it_wrote(place: Place) -> None:
    place.write(FILES)
    place.migrate()
    with session.exclusive(place.url, QUICK, Environment()) as db:
        (first, *_) = ledger.entries(db)
        assert ledger.kept_text(db, first.filename, "up") == CHAT.partition("-- migrate:down")[0]
        assert first.applied_at[:4].isdigit()
        assert len(first.applied_at) == len("2026-01-01 00:00:00")
        assert db.fingerprint() == ledger.last_fingerprint(db)
