"""The operators' page does what it says: every command of it runs, in its order, on one deployment."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import CHAT, ROOT, Site, started
from tests.pages import Command, Ran, commands, missing

PAGE = ROOT / "docs" / "operations.md"
HOME = "/srv/chat"  # where the page has the deployment

RISK_PROFILES = """\
-- migrate:up
CREATE TABLE risk_profiles (id INTEGER PRIMARY KEY, customer_id TEXT NOT NULL UNIQUE, level INTEGER NOT NULL);
-- migrate:down
DROP TABLE risk_profiles;
"""
# What each release adds to the chat store's own migrations, or changes.
RELEASES = {
    "v1.0": {},
    "v1.1": {
        "005_add_risk_profiles.sql": RISK_PROFILES,
        "006_drop_quality_metrics.sql": """\
-- migrate:up
ALTER TABLE conversation_summaries DROP COLUMN quality_metrics;
-- migrate:down
ALTER TABLE conversation_summaries ADD COLUMN quality_metrics TEXT NOT NULL DEFAULT '{}';
""",
    },
    "v1.2": {
        "008_index_messages_by_role.sql": """\
-- migrate:up
CREATE INDEX chat_messages_by_role ON chat_messages (role);
-- migrate:down
DROP INDEX chat_messages_by_role;
""",
    },
    "v1.3": {
        "009_one_conversation_a_session.sql": """\
-- migrate:up
CREATE UNIQUE INDEX one_open_session ON conversations (session_id) WHERE status = 'active';
-- migrate:down
DROP INDEX one_open_session;
""",
    },
    "v1.3.1": {
        "009_one_conversation_a_session.sql": """\
-- migrate:up
UPDATE conversations SET status = 'closed' WHERE session_id IN (SELECT session_id FROM conversations
  GROUP BY session_id HAVING count(*) > 1) AND id NOT IN (SELECT max(id) FROM conversations GROUP BY session_id);
CREATE UNIQUE INDEX one_open_session ON conversations (session_id) WHERE status = 'active';
-- migrate:down
DROP INDEX one_open_session;
""",
    },
    "v1.3.2": {"005_add_risk_profiles.sql": f"-- What risk a customer is ready to take.\n{RISK_PROFILES}"},
    "v1.4": {
        "010_add_languages.sql": "-- migrate:up\nALTER TABLE conversations ADD COLUMN language TEXT;\n",
        "010_add_message_tags.sql": "-- migrate:up\nCREATE TABLE message_tags (message_id INTEGER, tag TEXT);\n",
    },
    "v1.5": {
        "007_add_channels.sql": "-- migrate:up\nCREATE TABLE channels (name TEXT PRIMARY KEY);\n",
    },
    "v1.6": {
        "012_demo_conversations.sql": """\
-- migrate:environments staging
INSERT INTO conversations (session_id) VALUES ('demo');
""",
    },
}

CHATS = """
INSERT INTO conversations (customer_id) VALUES ('C-1000'), ('C-1001'), ('C-1002');
INSERT INTO conversations (session_id) VALUES ('s-7f3a'), ('s-7f3a');
INSERT INTO chat_messages (conversation_id, role, content)
  SELECT id, 'user', 'How much should be in bonds?' FROM conversations
  UNION ALL SELECT id, 'assistant', 'About a third.' FROM conversations;
INSERT INTO conversation_summaries (conversation_id, title, summary, quality_metrics)
  SELECT id, 'Bonds', 'The share of bonds.', '{"coverage": 0.9}' FROM conversations;
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """A repository with a tag for each release, at the first, whose database has chats."""
    home = tmp_path / "chat"
    site = Site(home)
    shutil.copy(ROOT / "wsgi.py", home)
    (home / ".gitignore").write_text("/data\n/backups\n/offsite\n/*.pid\n")
    for path in CHAT:
        shutil.copy(path, site.directory)
    git(home, "init", "--quiet")
    for release, files in RELEASES.items():
        for name, sql in files.items():
            (site.directory / name).write_text(sql, encoding="utf-8")
        git(home, "add", "--all")
        git(home, "commit", "--quiet", f"--message={release}")
        git(home, "tag", release)
    git(home, "checkout", "--quiet", "v1.0")
    site.prepare()
    site.do(*CHATS.strip().rstrip(";").split(";\n"))
    return home


def git(home: Path, *words: str) -> None:
    who = ["-c", "user.name=An Author", "-c", "user.email=author@example.org", "-c", "advice.detachedHead=false"]
    subprocess.run(["git", *who, *words], cwd=home, check=True, capture_output=True)


def run(page: list[Command], home: Path) -> list[Ran]:
    """Run the commands one after the other in one shell, as an operator would; no one stops it."""
    settings = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "FLASK_APP": "financial_agent",
        "FINANCIAL_AGENT_DATABASE": home / "data" / "app.db",
        "FINANCIAL_AGENT_MIGRATIONS": home / "migrations",
    }
    results = home.parent / "results"
    results.mkdir()
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in settings.items()]
    for at, command in enumerate(page):
        lines.append(f"{{ {command.text}\n}} > {results}/{at} 2>&1; echo $? > {results}/{at}.code")
    with started(["bash", "-c", "\n".join(lines)], home, patience=600) as shell:
        _, complaints = shell.communicate()
    assert (shell.returncode, complaints) == (0, "")
    return [
        Ran(int((results / f"{at}.code").read_text()), (results / str(at)).read_text().replace(str(home), HOME))
        for at in range(len(page))
    ]


@pytest.mark.slow
def test_every_command_of_the_page_does_what_the_page_shows(deployment: Path) -> None:
    page = list(commands(PAGE.read_text(encoding="utf-8")))
    faults = []
    for command, ran in zip(page, run(page, deployment), strict=True):
        wrong = f"exit {ran.exit_code}" if ran.exit_code else missing(command, ran)
        if "exit $?" in command.text and not any(line.startswith("exit ") for line in command.shown):
            wrong = "it was to fail, and the page does not show with what"
        if wrong:
            faults.append(f"docs/operations.md:{command.line}: {command.text}\n  wrong: {wrong}\n{ran.output}")
    assert not faults, "\n".join(faults)


def test_what_a_page_shows_and_a_command_does_not_print_is_found() -> None:
    (command,) = commands("```console\n$ flask db migrate\nApplied 001, 5 ms\n…\nDone  at 004, with …\n```\n")
    assert (command.line, command.text) == (2, "flask db migrate")
    assert missing(command, Ran(0, "Applied 001, 17 ms\nApplied 002, 2 ms\nDone at 004, with that\n")) is None
    assert missing(command, Ran(0, "Done at 004, with it\nApplied 001, 17 ms\n")) == "Done  at 004, with …"
    assert missing(command, Ran(0, "Applied 001, 17 ms\nDone at 004.\n")) == "Done  at 004, with …"
