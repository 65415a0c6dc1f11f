"""Backups and dumps, whatever the database: one body, run on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from pathlib import Path

import pytest

from financial_agent.migrator import backup, backup_files, dump, restore
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.environment import Environment
from tests.test_conformance import FILES, QUICK, Place

pytestmark = pytest.mark.slow


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    place = Place(database_url, tmp_path)
    place.write(FILES)
    return place


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy("destructive", tmp_path / "backups", 3)


def test_a_restore_brings_back_the_backup_and_all_is_well_with_it(place: Place, policy: Policy) -> None:
    place.migrate(target="2")
    made = backup.make(place.url, policy, "manual", QUICK)
    place.migrate()
    place.run("DELETE FROM chat", "INSERT INTO note VALUES (1, 'late')")
    with restore.prepared(place.url, policy, made.name, QUICK) as found:
        assert found.rows == {"chat": (0, 3), "note": (1, None), "remark": (0, None)}
        restored = restore.restore(place.url, policy, found, QUICK)
    assert place.rows("SELECT count(*) FROM chat") == [(3,)]
    assert place.states() == {"001_chat": "applied", "002_titles": "applied", "003_notes": "pending"}
    assert place.events()[-2:] == [("apply", "003_notes"), ("restore", "002_titles")]
    assert place.verified() == []
    assert [each.path for each in backup_files.listed(place.url, policy.folder)] == [restored.kept, made.path]
    assert place.migrate() == ["003_notes"]
    assert place.verified() == []


def test_a_rollback_that_destroys_rows_is_backed_up(place: Place, policy: Policy) -> None:
    place.migrate()
    place.run("INSERT INTO note VALUES (1, 'kept')")
    place.roll_back(backups=policy)
    (made,) = backup_files.listed(place.url, policy.folder)
    assert (made.kind, made.version, made.checked) == ("rollback", "003", True)
    with restore.prepared(place.url, policy, made.name, QUICK) as found:
        restore.restore(place.url, policy, found, QUICK)
    assert place.rows("SELECT text FROM note") == [("kept",)]
    assert place.verified() == []


def test_the_dump_of_the_database_is_the_dump_of_its_files(place: Place) -> None:
    place.migrate()
    text = dump.of_database(place.url, QUICK)
    assert dump.of_files(place.url, place.directory, Environment(), QUICK) == text
    assert text.endswith("VALUES\n  ('001_chat.sql'),\n  ('002_titles.sql'),\n  ('003_notes.sql');\n")
