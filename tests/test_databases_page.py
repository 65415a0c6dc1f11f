"""The page on servers does what it says: its commands run, in their order, on a real one of each kind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import PATIENCE, ROOT
from tests.pages import Ran, commands, missing

PAGE = ROOT / "docs" / "databases.md"
# A file and its name; or commands, and perhaps the only engine that they are for.
_PIECES = re.compile(
    r"^`(?P<file>\d+_[\w.]+)`\n\n```sql\n(?P<sql>.*?)^```$"
    r"|(?:^<!-- (?P<only>\w+) -->\n)?(?P<console>^```console\n.*?^```$)",
    re.MULTILINE | re.DOTALL,
)
_URL = re.compile(r"\b(postgresql|mysql)://[\w.@/-]+")


def run(command: str, home: Path, url: str) -> Ran:
    settings = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "FLASK_APP": "financial_agent",
        "FINANCIAL_AGENT_DATABASE": url,
        "FINANCIAL_AGENT_MIGRATIONS": str(home / "migrations"),
        "FINANCIAL_AGENT_BACKUP_DIRECTORY": str(home / "backups"),
    }
    finished = subprocess.run(
        ["bash", "-c", f"{{ {command}\n}} 2>&1"],
        cwd=home,
        env=settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ran(finished.returncode, _URL.sub("<database>", finished.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_every_command_of_the_page_does_what_the_page_shows(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(engine)
    shutil.copytree(ROOT / "financial_agent" / "migrations", tmp_path / "migrations")
    faults = []
    for piece in _PIECES.finditer(PAGE.read_text(encoding="utf-8")):
        if piece["file"]:
            (tmp_path / "migrations" / piece["file"]).write_text(piece["sql"], encoding="utf-8")
        elif piece["only"] in (None, engine):
            for command in commands(_URL.sub("<database>", piece["console"])):
                ran = run(command.text, tmp_path, url)
                if wrong := missing(command, ran) or (ran.exit_code and f"exit {ran.exit_code}"):
                    faults.append(f"{command.text}\n  wrong: {wrong}\n{ran.output}")
    assert not faults, "\n".join(faults)
