"""`run_migrations.py` applies what is pending with nothing but Python's standard library."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.forks import Fork
from tests.helpers import CHAT

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = CHECKOUT / "financial_agent" / "migrations" / "run_migrations.py"
FLASK_DB = [sys.executable, "-m", "flask", "--app", "financial_agent", "db"]
# Without site-packages, so without Flask; and every warning, such as that of an open file, is an error.
BARE = [sys.executable, "-I", "-S", "-X", "dev", "-W", "error"]
BUNDLED = [path.name for path in CHAT]
PATIENCE = 60  # seconds

FIRST = (
    "-- migrate:up\nCREATE TABLE customers (secret TEXT DEFAULT 'hunter2');\n-- migrate:down\nDROP TABLE customers;\n"
)
SECOND = "-- A comment.\nINSERT INTO customers VALUES ('4711');\n\nCREATE TABLE accounts (id);\n"


def environment(**values: str) -> dict[str, str]:
    """The environment without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINANCIAL_AGENT_", "FLASK_"))}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **values}


class Place:
    """A folder of migrations, and the current folder of the commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "migrations"
        self.folder.mkdir()
        self.database = root / "app.db"
        self.write("001_first.sql", FIRST)
        self.write("002_second.sql", SECOND)

    def write(self, name: str, sql: str) -> None:
        (self.folder / name).write_text(sql, encoding="utf-8")

    def script(
        self, *words: str, python: list[str] = BARE, script: Path = SCRIPT, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return self._run([*python, str(script), *words], env)

    def flask(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        with Fork([*FLASK_DB, *words], self.root, environment(**env)) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [*BARE, str(SCRIPT), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=environment(), stdout=pipe, stderr=pipe, text=True)

    def _run(self, command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def applied(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as connection:
            return [name for (name,) in connection.execute("SELECT filename FROM _migrations ORDER BY id")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


HERE = ("--database", "app.db", "--directory", "migrations")


@pytest.mark.parametrize("switches", [("-I", "-S"), ("-S", "-E"), ("-S", "-P"), ()], ids=" ".join)
def test_it_migrates_from_any_folder_with_any_python(switches: tuple[str, ...], place: Place) -> None:
    finished = place.script(*HERE, python=[sys.executable, *switches])
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert re.fullmatch(r"Applied 001_first.sql: 1 statement, \d+ ms", lines[0])
    assert re.fullmatch(r"Applied 002_second.sql: 2 statements, 1 row, \d+ ms", lines[1])
    assert lines[2:] == [f"{place.database} is at 002_second, 0 pending."]


def test_a_second_run_has_nothing_to_do(place: Place) -> None:
    place.script(*HERE)
    before = place.database.read_bytes()
    finished = place.script(*HERE)
    assert finished.stdout == f"Nothing to do: {place.database} is at 002_second, 0 pending.\n"
    assert (finished.returncode, finished.stderr, place.database.read_bytes()) == (0, "", before)


def test_without_options_it_takes_the_environment_and_the_packages_own_migrations(place: Place) -> None:
    finished = place.script(FINANCIAL_AGENT_DATABASE=str(place.database))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert place.applied() == BUNDLED


def test_without_options_it_takes_the_instance_folders_configuration(place: Place) -> None:
    checkout = place.root / "checkout"
    shutil.copytree(CHECKOUT / "financial_agent", checkout / "financial_agent")
    (checkout / "instance").mkdir()
    (checkout / "instance" / "config.py").write_text("DATABASE = 'own.db'\nMIGRATIONS = '../../migrations'\n")
    finished = place.script(script=checkout / "financial_agent" / "migrations" / SCRIPT.name)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert (checkout / "instance" / "own.db").exists()


def test_a_link_to_it_works(place: Place) -> None:
    (place.root / "migrate.py").symlink_to(SCRIPT)
    finished = place.script(*HERE, script=place.root / "migrate.py")
    assert (finished.returncode, finished.stderr) == (0, "")


def test_it_reads_dotenv_files_where_python_dotenv_is_installed(place: Place) -> None:
    (place.root / ".env").write_text("FINANCIAL_AGENT_DATABASE=${PWD}/app.db\n")
    finished = place.script("--directory", "migrations", python=[sys.executable], PWD=str(place.root))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert place.applied() == ["001_first.sql", "002_second.sql"]


def test_a_dotenv_file_that_it_cannot_read_is_an_error_only_when_it_matters(place: Place) -> None:
    dotenv = place.root / ".env"
    dotenv.write_text("OTHER=1\n")
    database = str(place.database)
    assert place.script("--directory", "migrations", FINANCIAL_AGENT_DATABASE=database).returncode == 0
    dotenv.write_text("FINANCIAL_AGENT_DATABASE=other.db\n")
    finished = place.script("--directory", "migrations", FINANCIAL_AGENT_DATABASE=database)
    assert finished.returncode == 2
    assert "Error FA101: " in finished.stderr
    assert "pip install python-dotenv" in finished.stderr
    assert place.script(*HERE).returncode == 0


@pytest.mark.parametrize("python", [[sys.executable], BARE], ids=["dotenv", "bare"])
def test_a_dotenv_file_that_is_not_utf_8_causes_no_traceback(python: list[str], place: Place) -> None:
    (place.root / ".env").write_bytes("OTHER=größe\n".encode("latin-1"))
    finished = place.script("--directory", "migrations", python=python, FINANCIAL_AGENT_DATABASE=str(place.database))
    assert "Traceback" not in finished.stderr
    assert finished.returncode in (0, 2)


# The same as `flask db migrate`.


MISTAKES = {
    "nothing": 0,
    "text": 2,
    "no folder": 2,
    "no database folder": 2,
    "server": 2,
    "failing": 3,
    "refused": 4,
    "bad name": 4,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_exit_codes_and_error_texts_are_those_of_the_flask_command(mistake: str, place: Place) -> None:
    database, directory = "app.db", "migrations"
    if mistake == "text":
        place.database.write_text("Dear diary " * 100)
    elif mistake == "no folder":
        directory = "nowhere"
    elif mistake == "no database folder":
        database = "nowhere/app.db"
    elif mistake == "server":
        database = "postgresql://bob:secret#@db/app"
    elif mistake == "failing":
        place.write("001_first.sql", "CREATE TABEL customers (id);")
    elif mistake == "refused":
        place.write("001_first.sql", "COMMIT;")
    elif mistake == "bad name":
        place.write("notes.sql", "")
    words = ("--database", database, "--directory", directory)
    plain, flask = place.script(*words), place.flask("migrate", *words)
    assert plain.returncode == flask.returncode == MISTAKES[mistake]
    assert plain.stderr == flask.stderr
    assert "secret" not in plain.stderr


@pytest.mark.parametrize("words", [("--datab", "x"), ("--nonsense",), ("2",), ("--database",), ("--database", "")])
def test_a_usage_error_exits_2_and_touches_nothing(words: tuple[str, ...], place: Place) -> None:
    finished = place.script("--directory", "migrations", *words)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "Traceback" not in finished.stderr
    assert sorted(path.name for path in place.root.iterdir()) == ["migrations"]


def test_a_name_that_is_a_path_may_have_odd_characters(place: Place) -> None:
    for name in ("a b#c?d%41.db", "größe.db", "./-dash.db", "sqlite:///url.db"):
        assert place.script("--database", name, "--directory", "migrations").returncode == 0
        assert (place.root / name.removeprefix("sqlite:///")).is_file()


def waiting_for_the_lock(place: Place) -> tuple[sqlite3.Connection, subprocess.Popen[str]]:
    holder = sqlite3.connect(f"{place.database}-migrate-lock", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    process = place.start(*HERE)
    assert process.stderr
    assert process.stderr.readline().startswith("Waiting for ")
    return holder, process


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_without_a_change(number: signal.Signals, exit_code: int, place: Place) -> None:
    holder, process = waiting_for_the_lock(place)
    with closing(holder), process:
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == exit_code
    assert err.startswith("Error FA306: interrupted before anything was changed\n")


@pytest.mark.slow
def test_another_run_that_never_ends_makes_it_exit_5(place: Place) -> None:
    holder, process = waiting_for_the_lock(place)
    with closing(holder), process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 5
    assert err.startswith("Error FA501: another migration run holds ")


def test_a_reader_that_goes_away_neither_stops_it_nor_causes_a_traceback(place: Place) -> None:
    process = place.start(*HERE)
    assert process.stdout
    process.stdout.close()
    with process:
        assert process.stderr
        assert process.stderr.read() == ""
    assert place.applied() == ["001_first.sql", "002_second.sql"]


# Verbose.


def test_verbose_logs_each_migration_and_each_statements_place_and_never_its_text(place: Place) -> None:
    finished = place.script(*HERE, "--verbose")
    assert finished.returncode == 0
    lines = re.findall(r"^[\d :,-]+ (\w+) financial_agent\.migrator: (.*)$", finished.stderr, re.MULTILINE)
    assert len(lines) == len(finished.stderr.splitlines())
    infos = [text for level, text in lines if level == "INFO"]
    assert len(infos) == 2
    assert all(name in text for name, text in zip(("001_first.sql", "002_second.sql"), infos, strict=True))
    assert [text.removeprefix(f"{place.folder}/") for level, text in lines if level == "DEBUG"] == [
        "001_first.sql:2:1 CREATE",
        "002_second.sql:2:1 INSERT",
        "002_second.sql:4:1 CREATE",
    ]
    assert not re.search("hunter2|4711|VALUES", finished.stderr)
    assert finished.stdout.startswith("Applied 001_first.sql")


def test_without_verbose_nothing_is_logged(place: Place) -> None:
    assert place.script(*HERE).stderr == ""


def test_its_help_names_every_option(place: Place) -> None:
    shown = place.script("--help").stdout
    assert {"--database", "--directory", "--verbose"} <= set(re.findall(r"--\w+", shown))
    documents = (CHECKOUT / "docs" / "commands.md").read_text()
    assert all(f"`{option}`" in documents for option in ("--database", "--directory", "--verbose"))
    assert SCRIPT.name in documents
