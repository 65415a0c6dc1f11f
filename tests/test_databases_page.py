"""The page on servers does what it says: its commands run, in their order, on a real one of each kind."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import pytest

from tests import servers
from tests.chat_stores import connected
from tests.helpers import PATIENCE, ROOT
from tests.pages import Ran, commands, missing
from tests.servers import Server

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


# The rights that the page gives.

PASSWORD = "p@ss:/?#[]!$&'()*+,;=%\"^{}|~<> ü"
_GRANTS = re.compile(r"^```sql\n((?:CREATE|GRANT|ALTER) .*?)^```$", re.MULTILINE | re.DOTALL)


class Users(NamedTuple):
    """The URLs of a database for those who were given their rights by the page's own SQL."""

    migrations: str
    app: str


@pytest.fixture(params=["postgresql", "mysql"])
def users(request: pytest.FixtureRequest) -> Iterator[Users]:
    server: Server = request.getfixturevalue(f"{request.param}_server")
    name = f"t_{secrets.token_hex(6)}"
    names = {"chat": name, "chat_migrations": f"{name}_m", "chat_app": f"{name}_a"}
    blocks = [
        re.sub(r"\bchat\w*", lambda word: names[word[0]], block).replace("…", PASSWORD.replace("'", "''"))
        for block in _GRANTS.findall(PAGE.read_text(encoding="utf-8"))
    ]
    of_migrations, of_app = blocks[request.param == "mysql" :: 2]
    inside = urlsplit(server.url)._replace(path=f"/{name}").geturl()

    def url(user: str) -> str:
        parts = urlsplit(inside)
        place = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{names[user]}:{quote(PASSWORD, safe='')}@{place}").geturl()

    try:
        servers.run(server.url, *of_migrations.split(";\n")[:-1])
        servers.run(inside, *of_app.split(";\n")[:-1])
        yield Users(url("chat_migrations"), url("chat_app"))
    finally:
        servers.run(server.url, f"DROP DATABASE IF EXISTS {name}")
        for user in ("chat_app", "chat_migrations"):
            if request.param == "postgresql":
                # Default privileges are of one database, and have gone with it.
                servers.run(server.url, f"DROP ROLE IF EXISTS {names[user]}")
            else:
                servers.run(server.url, f"DROP USER IF EXISTS {names[user]}")


@pytest.mark.slow
def test_the_rights_of_the_page_are_enough(users: Users, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "financial_agent" / "migrations", tmp_path / "migrations")
    for url, words in {
        users.migrations: (
            "migrate",
            "rollback --dry-run",
            "backup kept",
            "verify",
            "rollback --yes",
            "restore kept --yes",
            "check",
        ),
        users.app: ("status", "migrate"),
    }.items():
        for command in words:
            ran = run(f"flask db {command}", tmp_path, url)
            assert ran.exit_code == 0, f"{command}\n{ran.output}"
            assert PASSWORD not in ran.output
            assert quote(PASSWORD, safe="") not in ran.output
    with connected(users.app) as store:
        conversation = store.insert("conversations", session_id="s")
        store.insert("chat_messages", conversation_id=conversation, role="user", content="")
        assert store.value("SELECT message_count FROM conversations") == 1
        with pytest.raises(store.error, match=r"(?i)denied|must be owner"):
            store.execute("ALTER TABLE conversations DROP COLUMN metadata")
