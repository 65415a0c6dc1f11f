"""When two schemas are equal, how their differences are told, and which schema migrations make without any rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from financial_agent.cli_render import differences_text
from financial_agent.migrator import replay, schema
from financial_agent.migrator.databases import Database, Patience, Stopped, connect
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.plan import Step
from financial_agent.migrator.replay import CannotReplay
from financial_agent.migrator.schema import Schema, differences
from financial_agent.migrator.script import read
from tests.helpers import ENDLESS, FIRST_LEDGER, Site

Make = Callable[..., Schema]

PEOPLE = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)"


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    with closing(connect(str(path), readonly=True)) as db:
        yield db


def schema_of(path: Path) -> Schema:
    with opened(path) as db:
        return schema.read(db)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The schema of a new database after some statements."""
    count = 0

    def make(*statements: str) -> Schema:
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        return schema_of(path)

    return make


def steps(site: Site) -> list[Step]:
    migrations = [read(file) for file in discover(site.directory, "sqlite")]
    return [Step(migration.file.filename, migration.up, migration) for migration in migrations]


def replayed(site: Site) -> Schema:
    return replay.result("sqlite:", steps(site), Patience())


# When two are equal.


@pytest.mark.parametrize(
    "other",
    [
        "create table people (id INTEGER PRIMARY KEY, name TEXT)",  # SQLite itself writes the first two words
        "CREATE TABLE people(id INTEGER PRIMARY KEY,name TEXT)",
        "CREATE TABLE people\n(\n\tid INTEGER -- the key\n  PRIMARY KEY, /* a ' name */ name TEXT\n)",
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT) /* the end */;",
    ],
)
def test_comments_and_white_space_do_not_count(make: Make, other: str) -> None:
    assert make(PEOPLE) == make(other)
    assert differences(make(PEOPLE), make(other)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CREATE TABLE t (x DEFAULT 'a b')", "CREATE TABLE t (x DEFAULT 'a  b')"),
        ("CREATE TABLE t (x DEFAULT '--')", "CREATE TABLE t (x DEFAULT '--x')"),
        ("CREATE TABLE t (x DEFAULT '/* a */')", "CREATE TABLE t (x DEFAULT '/* b */')"),
        ('CREATE TABLE t ("a b")', 'CREATE TABLE t ("a  b")'),
        ("CREATE TABLE t ([a b])", "CREATE TABLE t ([a  b])"),
        ("CREATE TABLE t (`a b`)", "CREATE TABLE t (`a  b`)"),
        ("CREATE TABLE t (a b)", "CREATE TABLE t (ab)"),
        ("CREATE TABLE t (a\u00a0b)", "CREATE TABLE t (ab)"),
        ("CREATE VIEW t AS SELECT x'41'", "CREATE VIEW t AS SELECT x '41' FROM (SELECT 1 AS x)"),
        ("CREATE TABLE t (a, CHECK (a > 1))", "CREATE TABLE t (a, CHECK (a > 10))"),
    ],
)
def test_quoted_text_names_and_literals_count(make: Make, one: str, other: str) -> None:
    assert make(one) != make(other)
    assert len(differences(make(one), make(other))) == 1


def test_the_ledger_and_what_sqlite_and_litestream_keep_do_not_count(make: Make) -> None:
    lasting = make(
        PEOPLE,
        FIRST_LEDGER,
        "CREATE INDEX by_time ON _migrations (applied_at)",
        "CREATE TABLE _litestream_seq (id)",
        "INSERT INTO people VALUES (1, 'Ann')",
        "ANALYZE",
    )
    assert lasting == make(PEOPLE)
    assert [each.name for each in lasting.objects] == ["people"]


def test_tables_know_their_columns(make: Make) -> None:
    (table,) = make("CREATE TABLE t (a TEXT NOT NULL DEFAULT 'x', b, c AS (b + 1), PRIMARY KEY (b, a))").objects
    assert [tuple(column) for column in table.columns] == [
        ("a", "TEXT", True, "'x'", 2, False),
        ("b", "", False, None, 1, False),
        ("c", "", False, None, 0, True),
    ]


# How differences are told.


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ("id INTEGER PRIMARY KEY, name TEXT, risk TEXT", "column risk TEXT was added"),
        ("id INTEGER PRIMARY KEY, name TEXT, risk", "column risk was added"),
        (
            "id INTEGER PRIMARY KEY, name TEXT, risk INT NOT NULL DEFAULT 0",
            "column risk INT NOT NULL DEFAULT 0 was added",
        ),
        ("id INTEGER PRIMARY KEY", "column name is gone"),
        ("id INTEGER PRIMARY KEY, name INTEGER", "column name: type TEXT became type INTEGER"),
        ("id INTEGER PRIMARY KEY, name", "column name: type TEXT became type none"),
        (
            "id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x'",
            "column name: nullable became NOT NULL, no default became default 'x'",
        ),
        (
            "id INTEGER, name TEXT",
            "column id: place 1 of the primary key became no part of the primary key",
        ),
        ("id INTEGER PRIMARY KEY, name TEXT AS ('x')", "column name: not generated became generated"),
        ("name TEXT, id INTEGER PRIMARY KEY", "the order of the columns became name, id"),
    ],
)
def test_a_changed_table_is_told_column_by_column(make: Make, after: str, told: str) -> None:
    (found,) = differences(make(PEOPLE), make(f"CREATE TABLE people ({after})"))
    assert (found.change, found.type, found.name) == ("changed", "table", "people")
    assert found.columns == (told,)


def test_what_is_no_column_is_told_as_a_diff_of_the_sql(make: Make) -> None:
    before = "CREATE TABLE t (\n  a INTEGER,\n  b INTEGER\n)"
    (found,) = differences(make(before), make(before.replace("b INTEGER\n", "b INTEGER,\n  UNIQUE (a, b)\n")))
    assert found.columns == ()
    assert found.diff == ("-  b INTEGER", "+  b INTEGER,", "+  UNIQUE (a, b)")


def test_objects_that_came_changed_and_went_are_told_as_a_readable_diff(make: Make) -> None:
    trigger = "CREATE TRIGGER guard BEFORE DELETE ON people BEGIN SELECT raise(ABORT, 'no'); END"
    before = make(PEOPLE, "CREATE INDEX by_name ON people (name)", "CREATE VIEW all_people AS SELECT * FROM people")
    after = make(PEOPLE.replace(")", ", risk TEXT)"), trigger, "CREATE VIEW all_people AS SELECT name FROM people")
    assert differences_text(differences(before, after)).splitlines() == [
        "- index by_name on people",
        "~ table people",
        "    column risk TEXT was added",
        "    -CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)",
        "    +CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, risk TEXT)",
        "+ trigger guard on people",
        "~ view all_people",
        "    -CREATE VIEW all_people AS SELECT * FROM people",
        "    +CREATE VIEW all_people AS SELECT name FROM people",
    ]


def test_a_table_that_became_a_view_went_and_came(make: Make) -> None:
    found = differences(make("CREATE TABLE t (x)"), make("CREATE VIEW t AS SELECT 1"))
    assert [(each.change, each.type) for each in found] == [("removed", "table"), ("added", "view")]


# Which schema migrations make.


def test_a_replay_makes_what_the_migrations_made(tmp_path: Path) -> None:
    site = Site(
        tmp_path / "site",
        {
            "001_people": f"{PEOPLE}; INSERT INTO people VALUES (1, 'Ann');",
            "002_pets": "CREATE TABLE pets (name TEXT, owner INTEGER REFERENCES people ON DELETE CASCADE);"
            "INSERT INTO pets VALUES ('Rex', 1); CREATE INDEX by_owner ON pets (owner);",
            "003_trigger": "CREATE TRIGGER guard AFTER DELETE ON pets BEGIN SELECT 1; SELECT 2; END;",
            "004_copy": "CREATE TABLE copy AS SELECT *, id + 1 AS next FROM people;"
            "CREATE VIEW v AS SELECT * FROM copy;",
            "005_rebuild": "-- migrate:foreign_keys off\nCREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
            "INSERT INTO new SELECT * FROM people; DROP TABLE people; ALTER TABLE new RENAME TO people;",
            "006_words": "CREATE VIRTUAL TABLE words USING fts5 (text); INSERT INTO words VALUES ('a');",
            "007_vacuum": "-- migrate:up transaction:false\nVACUUM; PRAGMA journal_mode = delete;"
            "BEGIN; CREATE TABLE late (x); COMMIT;",
            "008_statistics": "ANALYZE; DROP TABLE sqlite_stat1;",
        },
    )
    site.prepare()
    assert replayed(site) == schema_of(site.database)
    assert {each.name for each in schema_of(site.database).objects} > {"people", "guard", "copy", "words", "late"}


def test_a_replay_tells_the_schema_after_each_migration(tmp_path: Path) -> None:
    files = {"001_a": "CREATE TABLE a (x);", "002_b": "INSERT INTO a VALUES (1);", "003_c": "DROP TABLE a;"}
    site = Site(tmp_path / "site", files)
    names = [[each.name for each in found.objects] for found in replay.replay("sqlite:", steps(site), Patience())]
    assert names == [["a"], ["a"], []]


def test_temporary_tables_and_settings_of_one_migration_are_gone_in_the_next(tmp_path: Path) -> None:
    temporary = (
        "CREATE TEMP TABLE kept AS SELECT 1 AS x; CREATE TEMP VIEW shown AS SELECT x FROM kept;"
        "PRAGMA legacy_alter_table = ON;"
    )
    site = Site(
        tmp_path / "site",
        {
            "001_a": f"{temporary} CREATE TABLE parent (id INTEGER PRIMARY KEY);",
            "002_b": f"{temporary} CREATE TABLE child (p REFERENCES parent); CREATE TABLE shown (x);",
            "003_c": "CREATE VIEW v AS SELECT * FROM parent; ALTER TABLE parent RENAME TO elder;",
        },
    )
    site.prepare()
    assert replayed(site) == schema_of(site.database)
    assert "elder" in site.value("SELECT sql FROM sqlite_schema WHERE name = 'v'")


def test_a_schema_that_was_written_by_hand_is_replayed(tmp_path: Path) -> None:
    site = Site(
        tmp_path / "site",
        {
            "001_a": "CREATE TABLE t (x TEXT NOT NULL);",
            "002_b": "-- migrate:up transaction:false\nPRAGMA writable_schema = ON;\n"
            "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x TEXT)' WHERE name = 't';\n"
            "PRAGMA writable_schema = RESET;",
            "003_c": "ALTER TABLE t ADD COLUMN y;",
        },
    )
    site.prepare()
    assert replayed(site) == schema_of(site.database)
    assert [column.not_null for column in replayed(site).objects[0].columns] == [False, False]


def test_statements_that_only_move_data_do_not_run(tmp_path: Path) -> None:
    """They would fail without the rows that were there, or never end."""
    site = Site(
        tmp_path / "site",
        {
            "001_a": "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a NOT NULL REFERENCES a);",
            "002_b": f"INSERT INTO b VALUES (1); INSERT INTO b SELECT x FROM ({ENDLESS});",
        },
    )
    assert [each.name for each in replayed(site).objects] == ["a", "b"]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE a (x); ALTER TABLE a ADD COLUMN x;", "duplicate column name: x"),
        ("CREATE VIRTUAL TABLE v USING no_such_module;", "no such module: no_such_module"),
        (f"CREATE TABLE a AS {ENDLESS};", "it takes too long"),
    ],
)
def test_what_does_not_run_in_memory_names_its_migration(tmp_path: Path, sql: str, why: str) -> None:
    site = Site(tmp_path / "site", {"001_good": "CREATE TABLE good (x);", "002_bad": sql})
    with pytest.raises(CannotReplay) as raised:
        replayed(site)
    assert (raised.value.filename, raised.value.why) == ("002_bad.sql", why)


def test_many_migrations_may_take_longer_together_than_one_may(tmp_path: Path) -> None:
    some = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 200000) SELECT n FROM c)"
    files = {f"{at:03}_t": f"CREATE TABLE t{at} AS SELECT count(*) AS n FROM {some};" for at in range(1, 13)}
    site = Site(tmp_path / "site", files)
    assert len(replayed(site).objects) == len(files)


def test_a_file_that_changes_meanwhile_cannot_be_replayed(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": "CREATE TABLE good (x);"})
    parsed = steps(site)
    site.write({"001_good": "CREATE TABLE better (x);"})
    with pytest.raises(CannotReplay, match="changed while it was being read"):
        replay.result("sqlite:", parsed, Patience())


def test_a_replay_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_good": "CREATE TABLE good (x);"})
    with pytest.raises(Stopped):
        replay.result("sqlite:", steps(site), Patience(stop=lambda _waiting_for: True))
