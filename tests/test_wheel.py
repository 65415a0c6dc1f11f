"""The wheel, installed into an environment of its own, works from any folder; also beside a stray Flask-CLI."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers import CHAT

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[1]
MIGRATIONS = [path.name for path in CHAT]
PATIENCE = 300  # seconds
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet"]

Finished = subprocess.CompletedProcess[str]


class Environment:
    """A virtual environment, and the empty folder in which its commands run."""

    def __init__(self, root: Path, *packages: str) -> None:
        self.root = root / "venv"
        self.here = root / "here"
        self.here.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(self.root)], check=True)
        self.pip("install", *packages)

    def run(self, *words: str, **env: str) -> Finished:
        """Run one of its commands, as from a shell that has nothing to do with the checkout."""
        foreign = ("FINANCIAL_AGENT_", "FLASK_", "PYTHON", "COVERAGE_", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        program, *rest = words
        return subprocess.run(
            [str(self.root / "bin" / program), *rest],
            cwd=self.here,
            env={**kept, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def pip(self, *words: str) -> None:
        finished = self.run("python", *PIP, *words)
        assert finished.returncode == 0, finished.stderr

    def applied(self, name: str) -> list[str]:
        with closing(sqlite3.connect(self.here / name)) as connection:
            return [name for (name,) in connection.execute("SELECT filename FROM _migrations ORDER BY id")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: building leaves files beside the sources."""
    copy, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    shutil.copytree(CHECKOUT / "financial_agent", copy / "financial_agent")
    command = [sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", str(built), str(copy)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    (path,) = built.iterdir()
    return path


def test_the_wheel_holds_the_package_with_its_sql_files_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = CHECKOUT / "financial_agent"
    expected = {
        str(path.relative_to(CHECKOUT))
        for path in sources.rglob("*")
        if path.suffix in (".py", ".sql", ".typed") and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_an_installed_wheel_migrates_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, str(wheel))
    flask = ("flask", "--app", "financial_agent", "db")

    finished = environment.run(*flask, "migrate", "--database", "option.db")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert environment.applied("option.db") == MIGRATIONS

    named = {"FINANCIAL_AGENT_DATABASE": str(environment.here / "environment.db")}
    finished = environment.run(*flask, "migrate", **named)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert environment.applied("environment.db") == MIGRATIONS

    finished = environment.run(*flask, "migrate")
    instance = environment.root / "var" / "financial_agent-instance"
    assert (finished.returncode, finished.stderr) == (0, "")
    assert (instance / "financial_data.db").exists()

    finished = environment.run("financial-agent", "db", "status", "--exit-code")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert f"Database: {instance / 'financial_data.db'}\n" in finished.stdout

    script = next(environment.root.rglob("run_migrations.py"))
    finished = environment.run("python", str(script), "--database", "plain.db")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert environment.applied("plain.db") == MIGRATIONS

    finished = environment.run(*flask, "doctor", "--database", "option.db")
    assert finished.returncode == 0
    assert "ok    flask command: it is Flask's own" in finished.stdout


def test_beside_a_stray_flask_cli_the_other_two_ways_work_and_doctor_tells_how_to_get_rid_of_it(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path, str(wheel))
    environment.pip("install", "Flask-CLI==0.4.0")
    module = ("python", "-m", "flask", "--app", "financial_agent", "db")
    script = ("financial-agent", "db")

    for command in (module, script):
        finished = environment.run(*command, "migrate", "--database", "app.db")
        assert (finished.returncode, finished.stderr) == (0, "")
        finished = environment.run(*command, "status", "--database", "app.db", "--exit-code")
        assert (finished.returncode, finished.stderr) == (0, "")

        finished = environment.run(*command, "doctor", "--database", "app.db")
        assert finished.returncode == 1
        assert "fail  flask command: Flask-CLI 0.4.0" in finished.stdout

    advice = re.findall(r"pip uninstall [^(\n]+", finished.stdout)
    assert len(advice) == 1
    for line in advice[0].split("&&"):
        words = line.split()
        environment.pip(*words[1:], *(["--yes"] if "uninstall" in words else []))
    finished = environment.run("flask", "--app", "financial_agent", "db", "status", "--database", "app.db")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert environment.run(*script, "doctor", "--database", "app.db").returncode == 0
