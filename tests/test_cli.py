"""What the `flask db` commands promise: outputs, exit codes, JSON, streams, questions, and where settings come from."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from financial_agent import cli_render
from financial_agent.cli import db as db_group
from financial_agent.cli import main

CHECKOUT = Path(__file__).resolve().parents[1]
FLASK_DB = [sys.executable, "-m", "flask", "--app", "financial_agent", "db"]
PATIENCE = 60  # seconds
ENVELOPE = ["schema", "command", "ok", "exit_code", "database", "migrations", "diagnostics"]
DIAGNOSTIC = ["severity", "code", "message", "file", "line", "column", "state", "hint"]
ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c;"

FILES = {
    f"00{number}_{name}.sql": f"-- migrate:up\nCREATE TABLE {name} (id);\n-- migrate:down\nDROP TABLE {name};\n"
    for number, name in enumerate(("customers", "accounts", "transfers"), start=1)
}


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without the settings of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FINANCIAL_AGENT_", "FLASK_")) and "_COLOR" not in name
    }
    return {**kept, "PYTHONPATH": str(CHECKOUT), **values}


class Project:
    """A folder of migrations and a database that need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "migrations"
        self.database = root / "app.db"
        self.folder.mkdir()
        self.write(FILES)

    def write(self, files: Mapping[str, str]) -> None:
        for name, sql in files.items():
            (self.folder / name).write_text(sql, encoding="utf-8")

    @property
    def settings(self) -> dict[str, str]:
        return {"FINANCIAL_AGENT_DATABASE": str(self.database), "FINANCIAL_AGENT_MIGRATIONS": str(self.folder)}

    def db(self, *words: str, **env: str) -> Result:
        """Run `flask db …` in this process."""
        return invoke(*words, **{**self.settings, **env})

    def ok(self, *words: str) -> str:
        """Run a command that succeeds; what it printed."""
        result = self.db(*words)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def start(self, *words: str, **streams: Any) -> subprocess.Popen[str]:
        """Run `flask db …` in a process of its own."""
        environment = clean_environment(**self.settings)
        return subprocess.Popen([*FLASK_DB, *words], env=environment, cwd=self.root, text=True, **streams)

    def applied(self) -> list[str]:
        """What the ledger records, by the letters of its names."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database)) as connection:
            return [name[4:-4] for (name,) in connection.execute("SELECT filename FROM _migrations ORDER BY id")]


def invoke(*words: str, **env: str) -> Result:
    environment = clean_environment(FLASK_SKIP_DOTENV="1", FLASK_RUN_FROM_CLI="true", **env)
    removed = dict.fromkeys(name for name in os.environ if name not in environment)
    runner = CliRunner(catch_exceptions=False)
    return runner.invoke(main, ["db", *words], prog_name="flask", env={**removed, **environment})


def envelope(result: Result) -> dict[str, Any]:
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# What the commands print and leave behind.


def test_status_of_a_database_that_is_not_there_says_so_and_makes_none(project: Project) -> None:
    out = project.ok("status")
    assert out.startswith(f"Database: {project.database} (not there yet)\n")
    assert out.endswith("0 applied, 3 pending.\n")
    assert not project.database.exists()


def test_migrate_prints_a_line_for_each_migration_and_where_the_database_is(project: Project) -> None:
    lines = project.ok("migrate").splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [f"Applied {name}" for name in FILES]
    assert lines[-1] == f"{project.database} is at 003_transfers, 0 pending."
    assert project.applied() == ["customers", "accounts", "transfers"]


def test_a_second_migrate_has_nothing_to_do_and_changes_no_byte(project: Project) -> None:
    project.ok("migrate")
    before = project.database.read_bytes()
    assert project.ok("migrate") == f"Nothing to do: {project.database} is at 003_transfers, 0 pending.\n"
    assert project.database.read_bytes() == before


def test_status_shows_what_is_edited_missing_out_of_order_and_irreversible(project: Project) -> None:
    (project.folder / "001_customers.sql").unlink()
    project.ok("migrate")
    project.write({"001_customers.sql": "CREATE TABLE customers (id);", "002_accounts.sql": "SELECT 1;"})
    (project.folder / "003_transfers.sql").unlink()
    rows = [re.split(r"  +", line)[:2] for line in project.ok("status").splitlines()[2:-1]]
    assert rows == [
        ["001_customers", "pending, out of order, irreversible"],
        ["002_accounts", "edited"],
        ["003_transfers", "missing"],
    ]
    assert project.ok("status").endswith("0 applied, 1 edited, 1 missing, 1 pending.\n")


@pytest.mark.parametrize("target", ["2", "002", "0000002", "accounts", "ACCOUNTS", "002_accounts", "002_accounts.sql"])
def test_a_target_is_a_number_a_name_or_a_part_of_a_name(target: str, project: Project) -> None:
    assert project.ok("migrate", target).endswith("is at 002_accounts, 1 pending.\n")
    assert project.applied() == ["customers", "accounts"]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ((), ["customers", "accounts"]),
        (("--steps", "2"), ["customers"]),
        (("--steps", "99"), []),
        (("--to", "1"), ["customers"]),
        (("--to", "customers"), ["customers"]),
        (("--to", "3"), ["customers", "accounts", "transfers"]),
        (("--to", "0"), []),
    ],
)
def test_a_rollback_leaves_the_older_migrations(words: tuple[str, ...], left: list[str], project: Project) -> None:
    project.ok("migrate")
    project.ok("rollback", *words, "--yes")
    assert project.applied() == left


def test_a_rollback_prints_what_it_undid_and_where_the_database_is(project: Project) -> None:
    project.ok("migrate")
    kept, undone, end = project.ok("rollback", "--yes").splitlines()
    assert kept.startswith(f"Backed up as {project.root}/backups/app-003-")
    assert undone.startswith("Rolled back 003_transfers.sql: 1 statement, ")
    assert end == f"{project.database} is at 002_accounts, 1 pending."


@pytest.mark.parametrize("words", [("--steps", "1"), ("--to", "0")])
def test_a_rollback_of_nothing_asks_nothing(words: tuple[str, ...], project: Project) -> None:
    assert project.ok("rollback", *words).startswith("Nothing to do: ")
    assert not project.database.exists()


def test_an_edited_file_is_warned_of_and_does_not_run_again(project: Project) -> None:
    project.ok("migrate")
    project.write({"002_accounts.sql": "CREATE TABLE other (id);"})
    result = project.db("migrate")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: 002_accounts.sql: the file was edited")
    assert result.stdout.startswith("Nothing to do: ")


@pytest.mark.parametrize(
    ("change", "exit_code"),
    [("nothing", 0), ("pending", 1), ("edited", 1), ("missing", 1)],
)
@pytest.mark.parametrize("words", [("--exit-code",), ("--exit-code", "--json")])
def test_status_exit_code_tells_whether_everything_is_applied_as_its_file_says(
    change: str, exit_code: int, words: tuple[str, ...], project: Project
) -> None:
    project.ok("migrate")
    if change == "pending":
        project.write({"004_more.sql": "SELECT 1;"})
    elif change == "edited":
        project.write({"003_transfers.sql": "SELECT 1;"})
    elif change == "missing":
        (project.folder / "003_transfers.sql").unlink()
    result = project.db("status", *words)
    assert (result.exit_code, result.stderr) == (exit_code, "")
    assert project.db("status").exit_code == 0
    if "--json" in words:
        assert (envelope(result)["exit_code"], envelope(result)["ok"]) == (exit_code, exit_code == 0)


# `new`.


@pytest.mark.parametrize(
    ("present", "number"),
    [
        ([], "001"),
        (["001_a.sql"], "002"),
        (["009_a.sql"], "010"),
        (["999_a.sql"], "1000"),
        (["9_a.sql"], "10"),
        (["0001_a.sql", "0007_b.sql"], "0008"),
        (["1_a.sql", "002_b.sql"], "003"),
        (["000_a.sql"], "001"),
        (["20991231235959_a.sql"], "20991231240000".replace("240000", "235960")),
    ],
)
def test_a_new_migration_continues_the_folders_numbers(present: list[str], number: str, project: Project) -> None:
    for name in FILES:
        (project.folder / name).unlink()
    project.write(dict.fromkeys(present, "SELECT 1;"))
    path = Path(project.ok("new", "add", "Risk-profiles").strip())
    assert path == project.folder / f"{number}_add_risk_profiles.sql"
    assert {each.name for each in project.folder.iterdir()} == {*present, path.name}


def test_a_new_migration_after_timestamps_gets_the_time_in_utc(project: Project) -> None:
    project.write({"20200101000000_a.sql": "SELECT 1;"})
    name = Path(project.ok("new", "b").strip()).name
    assert re.fullmatch(r"20[2-9]\d[01]\d[0-3]\d[0-2]\d[0-5]\d[0-5]\d_b\.sql", name)


def test_a_new_migration_does_not_run_before_it_is_written(project: Project) -> None:
    project.ok("migrate")
    path = Path(project.ok("new", "empty").strip())
    assert project.db("migrate").exit_code == 4
    sections = path.read_text()
    path.write_text(sections.replace("-- migrate:up\n", "-- migrate:up\nCREATE TABLE empty (id);\n"))
    assert project.db("migrate").exit_code == 0
    assert project.db("rollback", "--yes").exit_code == 4  # its down section is still empty


def test_new_never_replaces_a_file(project: Project) -> None:
    project.ok("new", "fees")
    project.ok("new", "fees")
    assert {"004_fees.sql", "005_fees.sql"} <= {path.name for path in project.folder.iterdir()}


# Flask-Migrate's words.


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("upgrade",), ["customers", "accounts", "transfers"]),
        (("upgrade", "head"), ["customers", "accounts", "transfers"]),
        (("upgrade", "2"), ["customers", "accounts"]),
    ],
)
def test_upgrade_is_migrate(words: tuple[str, ...], left: list[str], project: Project) -> None:
    project.ok(*words)
    assert project.applied() == left


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ((), ["customers", "accounts"]),
        (("-1",), ["customers", "accounts"]),
        (("-2",), ["customers"]),
        (("accounts",), ["customers", "accounts"]),
        (("1",), ["customers"]),
        (("base",), []),
    ],
)
def test_downgrade_is_rollback(words: tuple[str, ...], left: list[str], project: Project) -> None:
    project.ok("migrate")
    assert project.db("downgrade", *words).exit_code == 4  # it asks, too
    project.ok("downgrade", *words, "--yes")
    assert project.applied() == left


def test_current_is_status_and_revision_is_new(project: Project) -> None:
    assert project.ok("current") == project.ok("status")
    assert project.ok("revision", "-m", "add fees") == f"{project.folder / '004_add_fees.sql'}\n"


@pytest.mark.parametrize("words", [("-m", "add fees"), ("--message", "add fees"), ("-m", ""), ("--json", "-m", "x")])
def test_migrate_with_a_message_touches_nothing_and_says_why(words: tuple[str, ...], project: Project) -> None:
    before = sorted(project.folder.iterdir())
    result = project.db("migrate", *words)
    assert result.exit_code == 2
    assert "nothing was done" in result.output
    assert "flask db new" in result.output
    assert not project.database.exists()
    assert sorted(project.folder.iterdir()) == before


# JSON.


def broken(project: Project) -> None:
    project.write({"002_accounts.sql": "CREATE TABEL accounts (id);"})


JSON = {
    "status": (("status",), 0, 0),
    "status-exit-code": (("status", "--exit-code"), 1, 0),
    "migrate": (("migrate",), 0, 0),
    "migrate-to": (("migrate", "2"), 0, 0),
    "migrate-unknown": (("migrate", "nowhere"), 2, 1),
    "rollback-nothing": (("rollback", "--yes"), 0, 0),
    "new": (("new", "fees"), 0, 0),
    "new-bad-name": (("new", "!"), 2, 1),
    "doctor": (("doctor",), 0, None),
    "baseline": (("baseline", "2"), 4, 1),
    "stamp": (("stamp", "2"), 4, 1),
    "repair-unknown": (("repair", "1", "--reason", "x"), 4, 1),
    "repair-without-reason": (("repair", "1"), 2, 1),
    "renumber-newest": (("renumber", "3"), 4, 1),
    "renumber": (("renumber", "2"), 0, 0),
    "upgrade": (("upgrade",), 0, 0),
    "downgrade-bad": (("downgrade", "-x"), 2, 1),
    "revision": (("revision", "-m", "fees"), 0, 0),
    "current": (("current",), 0, 0),
    "bad-option": (("status", "--nonsense"), 2, 1),
    "bad-value": (("migrate", "--wait", "soon"), 2, 1),
    "bad-range": (("rollback", "--steps", "0"), 2, 1),
    "missing-argument": (("new",), 2, 1),
    "missing-value": (("status", "--database"), 2, 1),
    "excess-argument": (("migrate", "1", "2"), 2, 1),
    "exclusive-options": (("rollback", "--steps", "1", "--to", "1"), 2, 1),
    "unknown-command": (("migrat",), 2, 1),
    "bad-database": (("migrate", "--database", "postgresql://db/x"), 2, 1),
    "bad-folder": (("migrate", "--directory", "nowhere"), 2, 1),
}


@pytest.mark.parametrize("id", JSON)
def test_json_is_one_object_on_standard_output_and_nothing_else(id: str, project: Project) -> None:
    words, exit_code, diagnostics = JSON[id]
    command, *rest = words
    result = project.db(command, "--json", *rest)
    found = envelope(result)
    assert result.exit_code == exit_code
    assert result.stderr == ""
    more = ["environment"] if command in ("status", "current") and exit_code < 2 else []
    assert sorted(found) == sorted(ENVELOPE + more)
    assert found["schema"] == "financial-agent.db/1"
    assert (found["command"], found["exit_code"], found["ok"]) == (command, exit_code, exit_code == 0)
    assert all(list(diagnostic) == DIAGNOSTIC for diagnostic in found["diagnostics"])
    assert diagnostics in (None, len(found["diagnostics"]))


@pytest.mark.parametrize("words", [("--json", "status"), ("--json",), ("--nonsense", "status", "--json")])
def test_json_holds_for_mistakes_before_the_commands_name(words: tuple[str, ...], project: Project) -> None:
    result = project.db(*words)
    assert result.exit_code == 2
    assert list(envelope(result)) == ENVELOPE


def test_json_of_status_tells_everything_of_each_migration(project: Project) -> None:
    project.ok("migrate", "1")
    first, second, _ = envelope(project.db("status", "--json"))["migrations"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", first.pop("applied_at"))
    assert len(first.pop("checksum")) == 64
    assert first.pop("duration_ms") >= 0
    expected = {"version": "1", "filename": "001_customers.sql", "state": "applied", "reversible": True}
    assert first == {**expected, "out_of_order": False, "environments": [], "progress": None}
    assert (second["state"], second["applied_at"], second["checksum"]) == ("pending", None, None)


def test_json_of_a_failed_run_tells_what_was_applied_where_it_failed_and_the_state(project: Project) -> None:
    broken(project)
    result = project.db("migrate", "--json")
    found = envelope(result)
    assert (result.exit_code, result.stderr) == (3, "")
    assert [(each["filename"], each["state"]) for each in found["migrations"]] == [("001_customers.sql", "applied")]
    (diagnostic,) = found["diagnostics"]
    assert (diagnostic["severity"], diagnostic["code"]) == ("error", "FA301")
    assert diagnostic["file"] == str(project.folder / "002_accounts.sql")
    assert (diagnostic["line"], diagnostic["column"]) == (1, 8)
    assert diagnostic["state"].startswith("The database is at 001_customers.sql")
    assert diagnostic["hint"].endswith("flask db migrate")
    assert found["database"] == str(project.database)


def test_json_of_a_rollback_without_yes_is_a_refusal(project: Project) -> None:
    project.ok("migrate")
    result = project.db("rollback", "--json")
    assert (result.exit_code, envelope(result)["diagnostics"][0]["code"]) == (4, "FA403")
    done = envelope(project.db("rollback", "--json", "--yes"))["migrations"]
    assert [(each["filename"], each["state"]) for each in done] == [("003_transfers.sql", "rolled back")]


def test_json_holds_warnings_as_diagnostics(project: Project) -> None:
    project.ok("migrate")
    project.write({"002_accounts.sql": "SELECT 1;"})
    result = project.db("migrate", "--json")
    (warning,) = envelope(result)["diagnostics"]
    assert (warning["severity"], warning["file"], result.stderr) == ("warning", "002_accounts.sql", "")


def test_json_is_plain_even_when_colour_is_forced(project: Project) -> None:
    assert "\x1b" not in project.db("status", "--json", FORCE_COLOR="1").stdout


# Streams and colour.


def test_a_failed_run_prints_its_results_to_one_stream_and_its_error_to_the_other(project: Project) -> None:
    broken(project)
    result = project.db("migrate")
    assert re.fullmatch(r"Applied 001_customers.sql: 1 statement, \d+ ms\n", result.stdout)
    assert result.stderr.startswith("Error FA301: 002_accounts.sql failed")


@pytest.mark.parametrize(
    ("env", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": ""}, False), ({"NO_COLOR": "1"}, False)],
)
def test_a_piped_error_is_coloured_only_on_demand(env: dict[str, str], coloured: bool, project: Project) -> None:
    result = project.db("migrate", "nowhere", **env)
    assert ("\x1b[31m" in result.stderr) is coloured


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_reader_that_goes_away_ends_a_command_quietly(command: str, project: Project) -> None:
    project.write({f"{number}_t.sql": f"CREATE TABLE t{number} (id);" for number in range(4, 100)})
    process = project.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    with process:
        assert process.stderr
        assert process.stderr.read() == ""
    if command == "migrate":
        assert len(project.applied()) == 99


# Terminals.


class Terminal:
    """A process whose standard streams are a terminal of its own."""

    def __init__(self, project: Project, *words: str, **env: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        environment = clean_environment(**project.settings, **env)
        # The terminal must be the process's controlling one, for Ctrl-C to reach it.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *FLASK_DB, *words],
            cwd=project.root,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def wait_for(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), self.shown

    def wait_for_reader(self) -> None:
        """Until the process sleeps (Linux): a Ctrl-C between Python's showing a prompt and its reading would wait for
        the next key."""
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
            os.sched_yield()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return self.process.wait(timeout=PATIENCE)

    def _read(self) -> bool:
        assert select.select([self._master], [], [], PATIENCE)[0], f"silent after: {self.shown}"
        try:
            data = os.read(self._master, 10_000)
        except OSError:  # Linux's way to say that nobody has the other end open
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


QUESTION = "Roll back? [y/N]: "


@pytest.mark.parametrize(
    ("answer", "exit_code", "left"),
    [("\r", 4, 3), ("n\r", 4, 3), ("y\r", 0, 2), ("Yes\r", 0, 2), ("\x03", 130, 3), ("maybe\rn\r", 4, 3)],
    ids=["enter", "n", "y", "Yes", "ctrl-c", "maybe"],
)
def test_a_rollback_on_a_terminal_asks_and_takes_only_yes_for_yes(
    answer: str, exit_code: int, left: int, project: Project
) -> None:
    project.ok("migrate")
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.execute("INSERT INTO transfers VALUES (1), (2)")
    before = project.database.read_bytes()
    with Terminal(project, "rollback") as terminal:
        terminal.wait_for(QUESTION)
        assert "2 rows of transfers will be gone" in terminal.shown
        terminal.wait_for_reader()
        terminal.type(answer)
        assert terminal.end() == exit_code
    assert len(project.applied()) == left
    assert "Traceback" not in terminal.shown
    if exit_code:
        assert project.database.read_bytes() == before


def test_a_refusal_at_the_question_does_not_say_that_a_confirmation_is_needed(project: Project) -> None:
    project.ok("migrate")
    with Terminal(project, "rollback") as terminal:
        terminal.wait_for(QUESTION)
        terminal.type("n\r")
        terminal.end()
    assert "needs a confirmation" not in terminal.shown.partition(QUESTION)[2]


def test_yes_answers_the_question_beforehand(project: Project) -> None:
    project.ok("migrate")
    with Terminal(project, "rollback", "--yes") as terminal:
        assert terminal.end() == 0
    assert QUESTION not in terminal.shown


@pytest.mark.parametrize("answer", ["", "y\n" * 10])
def test_without_a_terminal_nothing_asks_and_nothing_is_changed(answer: str, project: Project) -> None:
    project.ok("migrate")
    before = project.database.read_bytes()
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with project.start("rollback", **streams) as process:
        out, err = process.communicate(answer, timeout=PATIENCE)
    assert (process.returncode, out) == (4, "")
    assert "[y/N]" not in err
    assert err.endswith("--yes\n")
    assert project.database.read_bytes() == before


@pytest.mark.parametrize("name", ["FLASK_DB_ROLLBACK_YES", "FINANCIAL_AGENT_YES", "FINANCIAL_AGENT_DB_ROLLBACK_YES"])
def test_yes_is_never_taken_from_the_environment(name: str, project: Project) -> None:
    project.ok("migrate")
    assert project.db("rollback", **{name: "1"}).exit_code == 4
    assert len(project.applied()) == 3


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)], ids=str
)
def test_an_error_on_a_terminal_is_coloured_unless_told_otherwise(
    env: dict[str, str], coloured: bool, project: Project
) -> None:
    with Terminal(project, "migrate", "nowhere", TERM="xterm", **env) as terminal:
        assert terminal.end() == 2
    assert ("\x1b[31m" in terminal.shown) is coloured


def test_a_long_statement_shows_a_bar_on_a_terminal_and_ctrl_c_stops_it(project: Project) -> None:
    project.write({"002_accounts.sql": f"CREATE TABLE accounts (id); {ENDLESS}"})
    with Terminal(project, "migrate") as terminal:
        terminal.wait_for("%")
        assert re.search(r"002_accounts\.sql\s+\[[#-]+\]", terminal.shown)
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert "Error FA306: interrupted while 002_accounts.sql was running" in terminal.shown
    assert project.applied() == ["customers"]


@pytest.mark.slow
def test_a_long_statement_shows_no_bar_when_piped(project: Project) -> None:
    took, rows = 0, 4_000_000
    while took < 1200:  # milliseconds: a bar would have been there for 200
        sql = ENDLESS.replace("FROM c) SELECT", f"FROM c LIMIT {rows}) SELECT")
        project.write({"002_accounts.sql": f"-- migrate:up\n{sql}\n-- migrate:down\nSELECT 1;"})
        result = project.db("migrate", "2", "--json")
        took = envelope(result)["migrations"][-1]["duration_ms"]
        assert result.stderr == ""
        project.ok("rollback", "--yes")
        rows *= 2


# Passwords.

SECRETS = ["secret", "p@ss:w0rd", "p/a#s?s", "se cret", "geheim€", "se%40cret", "secret@"]
URLS = [
    "postgresql://bob:{}@db.example/app",
    "postgresql+psycopg://bob:{}@db.example:5432/app",
    "POSTGRESQL://bob:{}@db.example/app",
    "mysql://:{}@db.example/app",
    "sqlite://bob:{}@db.example/app",
    "postgresql://db.example/app?user=bob&password={}",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("secret", SECRETS)
def test_the_password_of_a_url_is_never_shown(secret: str, url: str, project: Project) -> None:
    named = url.format(secret)
    for command in ("status", "migrate", "rollback", "doctor"):
        for result in (
            project.db(command, "--database", named),
            project.db(command, "--json", FINANCIAL_AGENT_DATABASE=named),
        ):
            assert result.exit_code in (1, 2)
            assert secret not in result.output
            assert json.dumps(secret)[1:-1] not in result.output


# Where the settings come from.


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the application, whose instance folder a test may fill."""
    copy = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "financial_agent", copy / "financial_agent")
    (copy / "instance").mkdir()
    return copy


def database_seen(checkout: Path, cwd: Path, *words: str, **env: str) -> str:
    """The database that `flask db status` looks at."""
    finished = subprocess.run(
        [*FLASK_DB, "status", "--json", *words],
        cwd=cwd,
        env={**clean_environment(**env), "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stderr == ""
    return str(json.loads(finished.stdout)["database"])


def test_an_option_wins_over_the_environment_over_dotenv_over_the_instance_folder_over_the_default(
    checkout: Path, tmp_path: Path
) -> None:
    instance, elsewhere = checkout / "instance", tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert database_seen(checkout, elsewhere) == str(instance / "financial_data.db")

    (instance / "config.py").write_text("DATABASE = 'config.db'\n")
    assert database_seen(checkout, elsewhere) == str(instance / "config.db")

    (elsewhere / ".flaskenv").write_text("FINANCIAL_AGENT_DATABASE=flaskenv.db\n")
    assert database_seen(checkout, elsewhere) == str(instance / "flaskenv.db")

    (elsewhere / ".env").write_text("FINANCIAL_AGENT_DATABASE=dotenv.db\n")
    assert database_seen(checkout, elsewhere) == str(instance / "dotenv.db")

    env = {"FINANCIAL_AGENT_DATABASE": "environment.db"}
    assert database_seen(checkout, elsewhere, **env) == str(instance / "environment.db")

    assert database_seen(checkout, elsewhere, "--database", "option.db", **env) == str(elsewhere / "option.db")


def test_a_relative_folder_is_relative_to_the_current_one_as_an_option_and_to_the_instance_as_a_setting(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    assert "001_customers" in project.ok("status", "--directory", "migrations")
    result = project.db("status", FINANCIAL_AGENT_MIGRATIONS="nowhere")
    assert f"the migration folder {CHECKOUT / 'instance' / 'nowhere'} does not exist" in result.stderr


ODD_NAMES = [
    "my data.db",
    "100%.db",
    "%41.db",
    "a#b.db",
    "a?mode=ro.db",
    "a&b;c.db",
    "it's.db",
    'say "hi".db',
    "größe 日本 🎉.db",
    "./-dash.db",
    "back\\slash.db",
    "line\nfeed.db",
    "no suffix",
    "sub/../app.db",
    "sqlite:///in a url.db",
    "sqlite:///%41#?.db",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_database_may_have_any_name(name: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "sub").mkdir()
    before = set(project.root.iterdir())
    assert project.db("migrate", "--database", name).exit_code == 0
    assert project.db("status", "--database", name, "--exit-code").exit_code == 0
    assert project.db("rollback", "--database", name, "--yes").exit_code == 0
    made = {path.name for path in set(project.root.iterdir()) - before}
    path = Path(name.removeprefix("sqlite:///")).name
    assert made == {path, f"{path}-migrate-lock", "backups"}
    assert envelope(project.db("backups", "--database", name, "--json"))["backups"][0]["checked"]


def test_an_absolute_url_and_a_home_folder_name_the_same_database(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project.root))
    project.ok("migrate")
    for name in (str(project.database), f"sqlite:///{project.database}", "~/app.db"):
        found = envelope(project.db("status", "--json", "--exit-code", "--database", name))
        assert (found["exit_code"], found["database"]) == (0, str(project.database))


# `doctor`.


def test_doctor_finds_nothing_wrong_with_a_migrated_database(project: Project) -> None:
    project.ok("migrate")
    lines = project.ok("doctor").splitlines()
    assert {line[:4] for line in lines} == {"ok  "}
    assert f"{project.database}, 3 applied" in "\n".join(lines)


@pytest.mark.parametrize("what", ["folder", "file", "database"])
def test_doctor_fails_for_what_keeps_the_other_commands_from_working(what: str, project: Project) -> None:
    if what == "folder":
        shutil.rmtree(project.folder)
    elif what == "file":
        project.write({"001_customers.sql": "COMMIT;"})
    else:
        project.database.write_text("Dear diary, " * 100)
    result = project.db("doctor")
    assert (result.exit_code, result.stderr) == (1, "")
    assert len([line for line in result.stdout.splitlines() if line.startswith("fail")]) == 1
    severities = [each["severity"] for each in envelope(project.db("doctor", "--json"))["diagnostics"]]
    assert severities.count("error") == 1


# The help and the documents.


def visible(command: click.Command) -> Iterator[click.Option]:
    context = click.Context(command)
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield parameter


COMMANDS = {name: command for name, command in db_group.commands.items() if not command.hidden}


def test_the_commands_are_those_of_the_design() -> None:
    assert {"status", "migrate", "rollback", "new", "doctor"} <= set(COMMANDS)
    later = "check explain verify history dump docs backup backups restore baseline repair renumber import transfer"
    assert set(COMMANDS) <= {"status", "migrate", "rollback", "new", "doctor", *later.split()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented_in_its_help(name: str) -> None:
    assert COMMANDS[name].get_short_help_str()
    shown = invoke(name, "--help").stdout
    for option in visible(COMMANDS[name]):
        assert option.help
        assert all(word in shown for word in option.opts)
    assert name in invoke("--help").stdout


def test_flask_migrates_words_are_not_in_the_help() -> None:
    listed = re.findall(r"^  (\w+)", invoke("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_every_command_and_option_is_in_the_documents() -> None:
    documents = "\n".join(path.read_text() for path in [CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")])
    words = {f"flask db {name}" for name in db_group.commands}
    words |= {word for command in COMMANDS.values() for option in visible(command) for word in option.opts}
    assert sorted(word for word in words - {"--help"} if f"`{word}" not in documents) == []


def test_the_documents_name_no_command_or_option_that_does_not_exist() -> None:
    documents = "\n".join(path.read_text() for path in [CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")])
    assert set(re.findall(r"flask db (\w+)", documents)) <= set(db_group.commands)
    known = {word for command in db_group.commands.values() for option in command.params for word in option.opts}
    named = set(re.findall(r"(?<=`)--[a-z-]+", documents))
    assert named <= known | {"--verbose"}


def test_the_schema_of_the_json_is_versioned() -> None:
    assert cli_render.SCHEMA == "financial-agent.db/1"
