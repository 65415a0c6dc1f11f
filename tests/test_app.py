"""The application: it opens its database only when asked, tells how it is, and migrates when served."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from flask import Flask

from financial_agent import config, create_app
from financial_agent.testing import MakeApp
from tests.forks import Fork
from tests.helpers import CHAT

CHECKOUT = Path(__file__).resolve().parents[1]
FLASK = [sys.executable, "-m", "flask"]
GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0"]
MIGRATIONS = [path.name for path in CHAT]
PATIENCE = 60  # seconds

Process = subprocess.Popen[str]


def environment(**values: str) -> dict[str, str]:
    """The environment without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINANCIAL_AGENT_", "FLASK_"))}
    return {**kept, "PYTHONPATH": str(CHECKOUT), "FLASK_SKIP_DOTENV": "1", **values}


def settings(tmp_path: Path, **values: str) -> dict[str, str]:
    return {
        "FINANCIAL_AGENT_DATABASE": str(tmp_path / "app.db"),
        **{f"FINANCIAL_AGENT_{name}": value for name, value in values.items()},
    }


def run(*command: str, cwd: Path = CHECKOUT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def flask(*words: str, cwd: Path = CHECKOUT, **env: str) -> subprocess.CompletedProcess[str]:
    """The same of `flask …`, which begins sooner."""
    with Fork([*FLASK, *words], cwd, environment(**env)) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def applied(path: Path) -> list[str]:
    """Each application that ever happened."""
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT filename FROM _migration_history ORDER BY id")]


def broken_migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "001_first.sql").write_text("CREATE TABEL customers (id);\n")
    return folder


# Loading it.


def test_loading_the_application_opens_neither_the_database_nor_its_folder(tmp_path: Path) -> None:
    code = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append((event, str(args[0]))) if event in watched else None)
watched = {"open", "sqlite3.connect", "os.listdir", "os.scandir", "os.mkdir"}
from financial_agent import create_app
app = create_app({"DATABASE": sys.argv[1]})
app.test_client().get("/healthz")
print([name for event, name in opened if event == "sqlite3.connect" or sys.argv[1] in name or "migrations" in name])
"""
    database = tmp_path / "app.db"
    finished = run(sys.executable, "-c", code, str(database))
    assert (finished.stdout, finished.stderr) == ("[]\n", "")
    assert not database.exists()


@pytest.mark.parametrize("mode", [False, True, "check"])
def test_the_application_loads_whatever_its_database_is(mode: object, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_text("Dear diary")
    create_app({"DATABASE": str(path), "MIGRATE_ON_STARTUP": mode})
    create_app({"DATABASE": "postgresql://db/app", "MIGRATE_ON_STARTUP": mode})
    assert path.read_text() == "Dear diary"


def test_a_test_configuration_wins_over_the_environment_over_the_instance_folder_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    assert create_app().config["DATABASE"] == "financial_data.db"
    assert create_app().config["MIGRATE_ON_STARTUP"] is False
    monkeypatch.setenv("FINANCIAL_AGENT_DATABASE", "environment.db")
    assert create_app().config["DATABASE"] == "environment.db"
    assert create_app({"DATABASE": "test.db"}).config["DATABASE"] == "test.db"
    (tmp_path / "config.py").write_text("import os\nDATABASE = 'config.db'\nOTHER = os.sep\nlower = 1\n")
    values = config.load(tmp_path, {})
    assert (values["DATABASE"], values["OTHER"]) == ("config.db", os.sep)
    assert "lower" not in values
    assert config.load(tmp_path, {"FINANCIAL_AGENT_DATABASE": "environment.db"})["DATABASE"] == "environment.db"


def test_the_engine_and_the_plain_runner_import_neither_flask_nor_click(tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, runpy, sys
import financial_agent.migrator
for module in pkgutil.walk_packages(financial_agent.migrator.__path__, "financial_agent.migrator."):
    importlib.import_module(module.name)
sys.argv = ["run_migrations.py", "--database", sys.argv[1]]
try:
    runpy.run_path("financial_agent/migrations/run_migrations.py", run_name="__main__")
except SystemExit as end:
    assert not end.code
print({"flask", "click", "werkzeug", "jinja2"} & set(sys.modules))
"""
    finished = run(sys.executable, "-c", code, str(tmp_path / "app.db"))
    assert finished.stderr == ""
    assert finished.stdout.endswith("set()\n")


def test_the_logging_configuration_is_left_alone(make_app: MakeApp, tmp_path: Path) -> None:
    def state() -> dict[str, Any]:
        loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
        ours = [logger for logger in loggers if logger.name.startswith(("root", "financial_agent"))]
        return {each.name: (each.level, list(each.handlers), each.propagate, each.disabled) for each in ours}

    before = state()
    app = make_app(DATABASE=str(tmp_path / "new.db"))
    assert app.test_cli_runner().invoke(args=["db", "migrate"]).exit_code == 0
    app.test_client().get("/readyz")
    after = state()
    assert {name: after[name] for name in before} == before
    assert all(after[name] == (logging.NOTSET, [], True, False) for name in after.keys() - before.keys())


def test_a_run_logs_each_migration_and_never_its_sql(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "financial_agent.migrator")
    app = make_app(DATABASE=str(tmp_path / "new.db"))
    assert app.test_cli_runner().invoke(args=["db", "migrate"]).exit_code == 0
    records = [record for record in caplog.records if record.name == "financial_agent.migrator"]
    infos = [record.getMessage() for record in records if record.levelno == logging.INFO]
    assert len(infos) == len(MIGRATIONS)
    assert all(name in info for name, info in zip(MIGRATIONS, infos, strict=True))
    debugs = [record.getMessage() for record in records if record.levelno == logging.DEBUG]
    assert all(re.fullmatch(r"\S+\.sql:\d+:\d+ [A-Z]+", message) for message in debugs)
    assert len(debugs) > len(MIGRATIONS)


# Telling how it is.


def status_of(app: Flask, path: str) -> tuple[int, Any]:
    response = app.test_client().get(path)
    return response.status_code, response.get_json()


def test_healthz_answers_without_a_database(make_app: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert status_of(make_app(DATABASE=str(path)), "/healthz") == (200, {"status": "ok"})
    assert status_of(make_app(DATABASE="postgresql://db/app"), "/healthz") == (200, {"status": "ok"})
    assert not path.exists()


def test_readyz_is_ready_when_nothing_is_pending_and_changes_no_byte(app: Flask, db_path: Path) -> None:
    before = db_path.read_bytes()
    assert status_of(app, "/readyz") == (200, {"status": "ready"})
    assert db_path.read_bytes() == before
    assert [path.name for path in db_path.parent.iterdir()] == [db_path.name]


@pytest.mark.parametrize("what", ["missing", "text", "behind", "folder", "server", "empty setting", "bad file name"])
def test_readyz_says_no_more_than_unavailable(
    what: str, make_app: MakeApp, tmp_path: Path, db_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed: dict[str, object] = {"DATABASE": str(tmp_path / "other.db")}
    if what == "text":
        (tmp_path / "other.db").write_text("Dear diary")
    elif what == "behind":
        with closing(sqlite3.connect(db_path)) as connection, connection:
            connection.execute("DELETE FROM _migrations WHERE filename LIKE '004%'")
        changed = {}
    elif what == "folder":
        changed = {"MIGRATIONS": str(tmp_path / "nowhere")}
    elif what == "server":
        changed = {"DATABASE": "postgresql://bob:secret@db/app"}
    elif what == "empty setting":
        changed = {"DATABASE": ""}
    elif what == "bad file name":
        (tmp_path / "notes.sql").touch()
        changed = {"MIGRATIONS": str(tmp_path)}
    assert status_of(make_app(**changed), "/readyz") == (503, {"status": "unavailable"})
    assert "secret" not in caplog.text


# The commands when the application does not load.

BROKEN = {
    "import": "import no_such_module",
    "syntax": "def create_app(:",
    "factory": "def create_app():\n    raise RuntimeError('no secret key')",
    "exit": "import sys\ndef create_app():\n    sys.exit('no secret key')",
    "nothing": "x = 1",
}


@pytest.mark.parametrize("how", [*BROKEN, "missing"])
def test_the_commands_work_with_a_warning_when_the_application_does_not_load(how: str, tmp_path: Path) -> None:
    if how in BROKEN:
        (tmp_path / "broken.py").write_text(BROKEN[how])
    finished = flask("--app", "broken", "db", "status", cwd=tmp_path, **settings(tmp_path))
    assert finished.returncode == 0
    assert finished.stdout.endswith(f"0 applied, {len(MIGRATIONS)} pending.\n")
    assert "Traceback" not in finished.stderr
    lines = finished.stderr.splitlines()
    assert any(line.startswith("Warning: the application did not load (") for line in lines)
    assert lines[-1].endswith("so its instance configuration alone is used")


def test_json_holds_the_warning_that_the_application_did_not_load(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN["factory"])
    finished = flask("--app", "broken", "db", "status", "--json", cwd=tmp_path, **settings(tmp_path))
    (diagnostic,) = json.loads(finished.stdout)["diagnostics"]
    assert diagnostic["severity"] == "warning"
    assert "no secret key" in diagnostic["message"]


# Being served.


@contextmanager
def serving(*command: str, cwd: Path = CHECKOUT, **env: str) -> Iterator[Process]:
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(PYTHONUNBUFFERED="1", **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(process: Process, pattern: str) -> re.Match[str]:
    """Read what a server prints until it prints this."""
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError("".join(seen))


def get(url: str) -> tuple[int, Any]:
    try:
        with urlopen(url, timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


RUN = [*FLASK, "--app", "financial_agent", "run", "--port", "0"]
LISTENS = r"Running on (http://127\.0\.0\.1:\d+)"


@pytest.mark.parametrize(("mode", "ready"), [("true", 200), ("false", 503)])
def test_flask_run_migrates_when_it_shall(mode: str, ready: int, tmp_path: Path) -> None:
    with serving(*RUN, **settings(tmp_path, MIGRATE_ON_STARTUP=mode)) as process:
        url = wait_for(process, LISTENS)[1]
        assert (tmp_path / "app.db").exists() is (mode == "true")
        assert get(f"{url}/readyz")[0] == ready


@pytest.mark.parametrize("words", [(), ("--debug",)])
@pytest.mark.parametrize(("mode", "exit_code", "code"), [("check", 4, "FA405"), ("true", 3, "FA301")])
def test_flask_run_ends_with_the_reason_when_the_database_cannot_be_prepared(
    mode: str, exit_code: int, code: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = str(broken_migrations(tmp_path))
    finished = run(*RUN, *words, **settings(tmp_path, MIGRATE_ON_STARTUP=mode, MIGRATIONS=folder))
    assert finished.returncode == exit_code
    assert f"Error {code}: " in finished.stderr
    assert "\nNext:  " in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "Running on" not in finished.stdout + finished.stderr


LOADERS: Mapping[str, list[str]] = {
    "flask db status": ["--app", "financial_agent", "db", "status"],
    "flask routes": ["--app", "financial_agent", "routes"],
    "flask shell": ["--app", "financial_agent", "shell"],
    "flask db status of wsgi.py": ["--app", "wsgi", "db", "status"],
    "flask db status without --app": ["db", "status"],
    "flask shell of wsgi.py": ["--app", "wsgi", "shell"],
}


@pytest.mark.parametrize("mode", ["true", "check"])
@pytest.mark.parametrize("loader", LOADERS)
def test_what_merely_loads_the_application_neither_migrates_nor_refuses(loader: str, mode: str, tmp_path: Path) -> None:
    finished = flask(*LOADERS[loader], **settings(tmp_path, MIGRATE_ON_STARTUP=mode))
    assert (finished.returncode, "FA405" in finished.stderr) == (0, False)
    assert not (tmp_path / "app.db").exists()


@pytest.mark.parametrize("mode", [True, "check"])
def test_a_test_client_neither_migrates_nor_refuses(mode: object, make_app: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    client = make_app(DATABASE=str(path), MIGRATE_ON_STARTUP=mode).test_client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/nothing").status_code == 404
    assert not path.exists()


def test_a_served_factory_prepares_the_database_before_its_first_answer(make_app: MakeApp, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    client = make_app(TESTING=False, DATABASE=str(path), MIGRATE_ON_STARTUP=True).test_client()
    assert client.get("/healthz").status_code == 200
    assert not path.exists()
    assert client.get("/nothing").status_code == 404
    assert applied(path) == MIGRATIONS


def test_a_served_factory_refuses_until_someone_migrates(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(TESTING=False, DATABASE=str(tmp_path / "new.db"), MIGRATE_ON_STARTUP="check")
    assert status_of(app, "/nothing") == (503, {"status": "unavailable"})
    assert status_of(app, "/healthz") == (200, {"status": "ok"})
    assert app.test_cli_runner().invoke(args=["db", "migrate"]).exit_code == 0
    assert status_of(app, "/readyz") == (200, {"status": "ready"})


# Gunicorn, the real one.

HOOKS = """
def post_worker_init(worker):
    worker.log.info("loaded in %d", worker.pid)

def post_request(worker, request, environ, response):
    worker.log.info("answered %s by %d", response.status, worker.pid)
"""


def gunicorn(tmp_path: Path, app: str, workers: int = 8) -> list[str]:
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOKS)
    return [*GUNICORN, "--config", str(hooks), "--workers", str(workers), app]


@pytest.mark.slow
@pytest.mark.parametrize("app", ["wsgi:app", "financial_agent:create_app()"])
def test_eight_workers_that_start_at_once_all_come_up_and_each_migration_runs_once(app: str, tmp_path: Path) -> None:
    with serving(*gunicorn(tmp_path, app), **settings(tmp_path, MIGRATE_ON_STARTUP="true")) as process:
        url = wait_for(process, r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
        workers = {wait_for(process, r"loaded in (\d+)")[1] for _ in range(8)}
        assert len(workers) == 8
        answered: set[str] = set()
        with ThreadPoolExecutor(8) as threads:
            while answered != workers:
                for found in threads.map(get, [f"{url}/readyz"] * 8):
                    assert found == (200, {"status": "ready"})
                    answered.add(wait_for(process, r"answered 200 \w+ by (\d+)")[1])
        assert applied(tmp_path / "app.db") == MIGRATIONS


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize(
    ("what", "code", "exit_code"),
    [("pending", "FA405", 4), ("failing", "FA301", 3), ("no folder", "FA103", 4), ("bad setting", "FA101", 4)],
)
def test_gunicorn_ends_with_the_reason_when_the_database_cannot_be_prepared(
    what: str, code: str, exit_code: int, workers: int, tmp_path: Path
) -> None:
    env = settings(tmp_path, MIGRATE_ON_STARTUP="check" if what == "pending" else "true")
    if what == "failing":
        env["FINANCIAL_AGENT_MIGRATIONS"] = str(broken_migrations(tmp_path))
    elif what == "no folder":
        env["FINANCIAL_AGENT_DATABASE"] = str(tmp_path / "nowhere" / "app.db")
    elif what == "bad setting":
        env["FINANCIAL_AGENT_MIGRATE_ON_STARTUP"] = "perhaps"
    with serving(*gunicorn(tmp_path, "wsgi:app", workers), **env) as process:
        shown = ""
        assert process.stdout
        for line in process.stdout:
            shown += line
            assert shown.count(f"Error {code}: ") <= workers, "a worker was started again, to fail again"
        ended = process.wait(timeout=PATIENCE)
    assert f"Error {code}: " in shown
    assert "\nNext:  " in shown
    if workers == 1:
        assert ended == exit_code
        assert "Traceback" not in shown
    else:
        # Gunicorn's master ends with a traceback of its own when two of its workers end at the same moment.
        assert ended != 0
        assert "financial_agent/" not in shown.partition("Traceback")[2]


@pytest.mark.slow
def test_a_gunicorn_whose_factory_finds_migrations_pending_answers_that_it_is_unavailable(tmp_path: Path) -> None:
    command = gunicorn(tmp_path, "financial_agent:create_app()", workers=1)
    with serving(*command, **settings(tmp_path, MIGRATE_ON_STARTUP="check")) as process:
        url = wait_for(process, r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
        assert get(f"{url}/anything") == (503, {"status": "unavailable"})
        assert get(f"{url}/healthz") == (200, {"status": "ok"})
    assert not (tmp_path / "app.db").exists()
