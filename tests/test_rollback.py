"""Rolling back: how far, with whose consent, and what it would take away."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import FLASK, Finished, Site, finish, run_with, snapshot, state, wait_for_line

FILES = {
    "001_people": (
        "-- migrate:up\nCREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);\n-- migrate:down\nDROP TABLE people;"
    ),
    "002_fill": (
        "-- migrate:up\nINSERT INTO people (name) VALUES ('Ada'), ('Bob'), (NULL);\n"
        "-- migrate:down\nDELETE FROM people WHERE id <= 3;"
    ),
    "003_email": (
        "-- migrate:up\nALTER TABLE people ADD COLUMN email TEXT;\nUPDATE people SET email = name || '@example.org';\n"
        "-- migrate:down\nALTER TABLE people DROP COLUMN email;"
    ),
    "004_pets": (
        "-- migrate:up\nCREATE TABLE pets (owner INTEGER REFERENCES people (id), name TEXT);\n"
        "INSERT INTO pets VALUES (1, 'Rex'), (2, 'Tom');\n-- migrate:down\nDROP TABLE pets;"
    ),
}
NAMES = list(FILES)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Four migrations, all applied."""
    site = Site(tmp_path / "site", FILES)
    site.prepare()
    return site


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the person's and the process's."""
    person, process = pty.openpty()
    try:
        yield person, process
    finally:
        os.close(person)
        os.close(process)


# How far.

DISTANCES = {
    "one step by default": ([], 3),
    "two steps": (["--steps", "2"], 2),
    "more steps than there are": (["--steps", "99"], 0),
    "to a number": (["--to", "2"], 2),
    "to a padded number": (["--to", "002"], 2),
    "to a part of a name": (["--to", "email"], 3),
    "to a full name": (["--to", "001_people"], 1),
    "to a file's name": (["--to", "003_email.sql"], 3),
    "to the beginning": (["--to", "0"], 0),
    "to where it is": (["--to", "4"], 4),
}


@pytest.mark.parametrize(("words", "left"), DISTANCES.values(), ids=DISTANCES.keys())
def test_a_rollback_goes_as_far_as_it_is_told(site: Site, words: list[str], left: int) -> None:
    finished = site.flask("rollback", "--yes", *words)
    assert finished.returncode == 0, finished.stderr
    assert site.applied() == NAMES[:left]
    told = [line for line in finished.stdout.splitlines() if line.startswith("Rolled back")]
    assert [line.split()[2] for line in told] == [f"{name}.sql:" for name in reversed(NAMES[left:])]
    assert site.migrate().returncode == 0
    assert site.applied() == NAMES


SENSELESS = {
    "both distances": ["--steps", "1", "--to", "2"],
    "no step": ["--steps", "0"],
    "an unknown target": ["--to", "9"],
    "an ambiguous target": ["--to", "e"],
    "no number of steps": ["--steps", "all"],
}


@pytest.mark.parametrize("words", SENSELESS.values(), ids=SENSELESS.keys())
def test_a_distance_that_makes_no_sense_changes_nothing(site: Site, words: list[str]) -> None:
    before = snapshot(site.root)
    assert site.flask("rollback", "--yes", *words).returncode == 2
    assert snapshot(site.root) == before


def test_nothing_to_roll_back_is_no_failure(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_people": FILES["001_people"]})
    site.do("CREATE TABLE other (x)")
    before = snapshot(site.data)
    assert site.flask("rollback", "--yes").returncode == 0
    assert site.flask("rollback").returncode == 0
    assert snapshot(site.data) == before


def test_what_was_applied_last_goes_first_whatever_its_number(tmp_path: Path) -> None:
    """A migration that was merged late may build on those with higher numbers."""
    site = Site(tmp_path / "site", {name: FILES[name] for name in ("001_people", "003_email")})
    site.prepare()
    site.write(
        {
            "002_late": "-- migrate:out-of-order allow\n-- migrate:up\nCREATE VIEW late AS SELECT email FROM people;\n"
            "-- migrate:down\nDROP VIEW late;"
        }
    )
    site.prepare()
    assert site.flask("rollback", "--yes").returncode == 0
    assert site.applied() == ["001_people", "003_email"]


def test_a_rollback_stops_at_the_step_that_fails(site: Site) -> None:
    """Its own step is undone as a whole; those before it stay rolled back."""
    site.write({"005_stuck": "-- migrate:up\nSELECT 1;\n-- migrate:down\nCREATE TABLE gone (x);\nDROP TABLE nowhere;"})
    site.write({"006_fine": "-- migrate:up\nCREATE TABLE fine (x);\n-- migrate:down\nDROP TABLE fine;"})
    site.prepare()
    finished = site.flask("rollback", "--yes", "--to", "0")
    assert finished.returncode == 3
    assert "Rolled back 006_fine.sql" in finished.stdout
    assert "005_stuck.sql:5:12" in finished.stderr
    assert (
        "The database is at 005_stuck.sql; nothing of the failed rollback of 005_stuck.sql remains" in finished.stderr
    )
    assert "flask db rollback" in finished.stderr
    assert site.applied() == [*NAMES, "005_stuck"]
    assert site.tables() == {"people", "pets"}


# With whose consent.


def answering(site: Site, answer: bytes, *words: str) -> Finished:
    """A rollback that somebody at a terminal answers."""
    with terminal() as (person, process), site.flasking("rollback", *words, stdin=process) as running:
        os.write(person, answer)
        return finish(running)


@pytest.mark.parametrize("answer", [b"y\n", b"yes\n", b"Y\n"])
def test_a_person_who_agrees_gets_the_rollback(site: Site, answer: bytes) -> None:
    finished = answering(site, answer)
    assert finished.returncode == 0, finished.stderr
    assert "This rolls back 004_pets.sql." in finished.stderr
    assert "Roll back? [y/N]" in finished.stderr
    assert site.applied() == NAMES[:3]


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"no\n"], ids=["return", "n", "no"])
def test_a_person_who_does_not_agree_keeps_everything(site: Site, answer: bytes) -> None:
    before = state(site.database)
    finished = answering(site, answer, "--to", "0")
    assert finished.returncode == 4
    assert "FA411" in finished.stderr
    assert state(site.database) == before


def test_a_person_who_interrupts_the_question_keeps_everything(site: Site) -> None:
    before = state(site.database)
    assert answering(site, b"\x04").returncode == 130  # the terminal's end of input
    assert state(site.database) == before


def test_without_a_terminal_a_rollback_needs_yes(site: Site) -> None:
    before = state(site.database)
    finished = site.flask("rollback")
    assert finished.returncode == 4
    assert "--yes" in finished.stderr
    assert state(site.database) == before


@pytest.mark.parametrize("command", ["rollback", "downgrade"])
def test_yes_is_not_taken_from_the_environment(site: Site, command: str) -> None:
    """Flask reads its options from variables of these names."""
    prefix = ["env", f"FLASK_DB_{command.upper()}_YES=1", "FINANCIAL_AGENT_YES=1"]
    assert run_with(prefix, [*FLASK, command], site).returncode == 4
    assert site.applied() == NAMES


def test_a_database_that_changed_while_somebody_thought_is_not_rolled_back(site: Site) -> None:
    """Consent is to what was shown."""
    with terminal() as (person, process), site.flasking("rollback", stdin=process) as running:
        assert running.stderr
        wait_for_line(running.stderr, "pets will be gone")
        site.write({"005_new": "-- migrate:up\nCREATE TABLE new (x);\n-- migrate:down\nDROP TABLE new;"})
        assert site.migrate().returncode == 0
        os.write(person, b"y\n")
        finished = finish(running)
    assert finished.returncode == 4
    assert "FA406" in finished.stderr
    assert site.applied() == [*NAMES, "005_new"]


# What it would take away.

PREVIEWS = {
    "a dropped table": (["--steps", "1"], ["2 rows of pets will be gone"]),
    "a dropped column": (["--to", "2"], ["2 rows of pets will be gone", "2 values of people.email will be gone"]),
    "deleted rows": (["--to", "1"], ["2 rows of pets will be gone", "3 rows of people will be gone"]),
    "everything": (["--to", "0"], ["2 rows of pets will be gone", "3 rows of people will be gone"]),
}


@pytest.mark.parametrize(("words", "told"), PREVIEWS.values(), ids=PREVIEWS.keys())
def test_the_preview_counts_what_will_be_gone_and_leaves_it(site: Site, words: list[str], told: list[str]) -> None:
    before = state(site.database)
    finished = site.flask("rollback", *words)
    for line in told:
        assert line in finished.stderr
    assert state(site.database) == before


def test_the_preview_counts_rows_that_cascades_take(tmp_path: Path) -> None:
    family = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id) ON DELETE CASCADE);"
        "INSERT INTO p VALUES (1), (2);"
    )
    delete = "-- migrate:up\nINSERT INTO c VALUES (1), (2), (2);\n-- migrate:down\nDELETE FROM p WHERE id = 2;"
    site = Site(tmp_path / "site", {"001_family": family, "002_delete": delete})
    site.prepare()
    told = site.flask("rollback").stderr
    assert "1 row of p will be gone" in told
    assert "2 rows of c will be gone" in told
    assert site.value("SELECT count(*) FROM c") == 3


def test_the_preview_says_when_no_row_will_be_lost(tmp_path: Path) -> None:
    index = "-- migrate:up\nCREATE TABLE t (x); CREATE INDEX i ON t (x);\n-- migrate:down\nDROP INDEX i; DROP TABLE t;"
    site = Site(tmp_path / "site", {"001_index": index})
    site.prepare()
    assert "no row will be gone" in site.flask("rollback").stderr


def test_the_preview_of_a_rebuild_leaves_everything(tmp_path: Path) -> None:
    up = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY, note); CREATE TABLE c (p REFERENCES p (id) ON DELETE CASCADE);"
        "INSERT INTO p VALUES (1, 'a'), (2, NULL); INSERT INTO c VALUES (1), (2);"
    )
    down = (
        "PRAGMA foreign_keys=OFF; CREATE TABLE q (id INTEGER PRIMARY KEY); INSERT INTO q SELECT id FROM p;"
        "DROP TABLE p; ALTER TABLE q RENAME TO p;"
    )
    site = Site(tmp_path / "site", {"001_rebuild": f"-- migrate:up\n{up}\n-- migrate:down\n{down}"})
    site.prepare()
    before = state(site.database)
    told = site.flask("rollback").stderr
    assert "1 value of p.note will be gone" in told
    assert "of c" not in told
    assert state(site.database) == before


def test_the_preview_counts_what_a_rollback_outside_a_transaction_takes(tmp_path: Path) -> None:
    up = "-- migrate:up\nCREATE TABLE t (x); INSERT INTO t VALUES (1);"
    outside = f"{up}\n-- migrate:down transaction:false\nDROP TABLE t; VACUUM;"
    site = Site(tmp_path / "site", {"001_outside": outside})
    site.prepare()
    before = state(site.database)
    assert "1 row of t will be gone" in site.flask("rollback").stderr
    assert state(site.database) == before
    assert site.flask("rollback", "--yes").returncode == 0
    assert site.tables() == set()


def test_a_preview_tells_what_the_rollback_would_fail_at(site: Site) -> None:
    site.write({"005_stuck": "-- migrate:up\nSELECT 1;\n-- migrate:down\nDROP TABLE nowhere;"})
    site.prepare()
    before = state(site.database)
    finished = site.flask("rollback")
    assert finished.returncode == 3
    assert "no such table: nowhere" in finished.stderr
    assert state(site.database) == before


# What cannot be rolled back.

IRREVERSIBLE = {
    "no down section": "CREATE TABLE more (x);",
    "an empty one": "-- migrate:up\nCREATE TABLE more (x);\n-- migrate:down\n\n",
    "one of comments": "-- migrate:up\nCREATE TABLE more (x);\n-- migrate:down\n-- there is no way back\n",
}


@pytest.mark.parametrize("sql", IRREVERSIBLE.values(), ids=IRREVERSIBLE.keys())
@pytest.mark.parametrize("yes", [True, False], ids=["with --yes", "in the preview"])
def test_what_is_irreversible_is_refused_before_anything_runs(site: Site, sql: str, yes: bool) -> None:
    """Also when it lies below migrations that could be rolled back."""
    site.write(
        {
            "005_more": sql,
            "006_after": "-- migrate:up\nCREATE TABLE after_it (x);\n-- migrate:down\nDROP TABLE after_it;",
        }
    )
    site.prepare()
    before = snapshot(site.root)
    finished = site.flask("rollback", "--to", "3", *["--yes"] * yes)
    assert finished.returncode == 4
    assert "FA402" in finished.stderr
    assert "005_more.sql cannot be rolled back" in finished.stderr
    assert snapshot(site.root) == before
    states = json.loads(site.flask("status", "--json").stdout)["migrations"]
    assert [item["reversible"] for item in states] == [True, True, True, True, False, True]


def test_a_missing_file_without_a_stored_copy_is_refused(site: Site) -> None:
    site.do("UPDATE _migrations SET down_sql = NULL WHERE filename = '003_email.sql'")
    (site.directory / "003_email.sql").unlink()
    before = snapshot(site.root)
    finished = site.flask("rollback", "--to", "0", "--yes")
    assert finished.returncode == 4
    assert "003_email.sql cannot be rolled back: its file is gone and the ledger keeps no copy" in finished.stderr
    assert snapshot(site.root) == before


def test_an_interrupted_chain_of_rollbacks_goes_on_where_it_stopped(site: Site) -> None:
    for left in (3, 2, 1, 0):
        assert site.flask("rollback", "--yes").returncode == 0
        assert site.applied() == NAMES[:left]
    assert site.tables() == set()
    assert site.history() == [("apply", name) for name in NAMES] + [("rollback", name) for name in reversed(NAMES)]
