"""A restore whose process is killed: the database is the old or the new one, or the next run says what finishes it."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from financial_agent.migrator.errors_server import RestoreUnfinished
from tests.helpers import FLASK, finish, started, until
from tests.server_place import CONTROL, Place

pytestmark = pytest.mark.slow

ROUNDS = 10


def restoring(place: Place, name: str) -> list[str]:
    (place.root / ".flaskenv").write_text(
        f"FINANCIAL_AGENT_DATABASE={place.plain}\nFINANCIAL_AGENT_BACKUP_DIRECTORY={place.policy.folder}\n"
    )
    return [*FLASK, "restore", name, "--yes", "--directory", str(place.directory)]


def how_long(place: Place, command: list[str]) -> float:
    begun = time.monotonic()
    with started(command, place.root) as process:
        assert finish(process).returncode == 0
    return time.monotonic() - begun


def cut_off(place: Place, command: list[str], seconds: float) -> None:
    with started(command, place.root) as process:
        time.sleep(seconds)
        process.kill()


def settled(place: Place) -> None:
    """What the server still does for a killed client ends by itself."""
    others = {
        "postgresql": "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "information_schema.processlist WHERE db = database() AND id <> connection_id()",
    }
    until(lambda: place.rows(f"SELECT count(*) FROM {others[place.dialect]}") == [(0,)])


def test_killed_at_any_time_postgresql_is_as_before_or_restored(postgresql: str, tmp_path: Path) -> None:
    place = Place(postgresql, tmp_path)
    made = place.backup()
    old = place.state()[:3]
    command = restoring(place, made.name)
    place.migrate()
    longest = how_long(place, command)
    moment = random.Random(1)
    for _ in range(ROUNDS):
        place.migrate()
        new = place.state()[:3]
        cut_off(place, command, moment.uniform(0.2, longest))
        settled(place)
        assert place.state()[:3] in (old, new)


def test_killed_at_any_time_mysql_is_as_before_or_restored_or_says_what_finishes_it(mysql: str, tmp_path: Path) -> None:
    place = Place(mysql, tmp_path)
    place.do(
        "CREATE TRIGGER stamp BEFORE INSERT ON one FOR EACH ROW SET NEW.t = NEW.t", "CREATE VIEW v AS SELECT 1 AS x"
    )
    made = place.backup()
    old = place.state()[:3]
    command = restoring(place, made.name)
    place.migrate()
    longest = how_long(place, command)
    moment = random.Random(1)
    for _ in range(ROUNDS):
        place.migrate()
        new = place.state()[:3]
        cut_off(place, command, moment.uniform(0.2, longest))
        settled(place)
        try:
            place.migrate()
        except RestoreUnfinished:
            place.put_back(made, CONTROL)
            assert place.state()[:3] == old
        else:
            assert place.state()[:3] == new
    place.do(*(f"DROP DATABASE `{name}`" for name in place.replaced()))
