"""What a statement would destroy is told by SQLite itself, before it runs, and without running it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import discovery, effects, script
from financial_agent.migrator.databases import Database, Effect, Patience, connect
from financial_agent.migrator.errors import CascadeRefused
from financial_agent.migrator.lexer import Statement, lex
from financial_agent.migrator.plan import Step
from tests.helpers import ENDLESS, Site, snapshot

SCHEMA = """\
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, town TEXT);
CREATE INDEX by_town ON people (town);
CREATE VIEW names AS SELECT id, name FROM people;
CREATE TABLE plain (x);
CREATE TABLE log (x);
CREATE TABLE keyed (id INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE pairs (a, b, text, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE replacing (id INTEGER PRIMARY KEY, text TEXT UNIQUE ON CONFLICT REPLACE);

CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent REFERENCES parents ON DELETE CASCADE);
CREATE TABLE guests (id INTEGER PRIMARY KEY, host REFERENCES parents ON DELETE SET NULL ON UPDATE CASCADE);

CREATE TABLE watched (id INTEGER PRIMARY KEY);
CREATE TRIGGER forget AFTER DELETE ON watched BEGIN DELETE FROM log WHERE x = old.id; END;
CREATE TRIGGER touch AFTER UPDATE ON watched BEGIN UPDATE log SET x = new.id; END;
CREATE TRIGGER keep AFTER INSERT ON watched BEGIN
    INSERT INTO plain VALUES (new.id);
    INSERT OR REPLACE INTO keyed VALUES (new.id, 'x');
END;

CREATE TABLE queue (x);
CREATE TRIGGER next AFTER INSERT ON queue BEGIN
    INSERT INTO keyed (text) VALUES (new.x);
    DELETE FROM log WHERE x = new.x;
END;
CREATE TABLE shown (id INTEGER PRIMARY KEY, text);
CREATE VIEW window AS SELECT * FROM shown;
CREATE TRIGGER through_delete INSTEAD OF DELETE ON window BEGIN DELETE FROM shown WHERE id = old.id; END;
CREATE TRIGGER through_insert INSTEAD OF INSERT ON window BEGIN INSERT INTO shown VALUES (new.id, new.text); END;

CREATE TABLE "od""d na'me" (id INTEGER PRIMARY KEY, "a ""column" TEXT);
CREATE VIRTUAL TABLE papers USING fts5 (body);
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    with closing(sqlite3.connect(site.database)) as connection:
        connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    return site


@pytest.fixture
def db(site: Site) -> Iterator[Database]:
    with closing(connect(str(site.database), patience=Patience(1))) as db:
        yield db


def statement(sql: str) -> Statement:
    (found,) = lex([sql], "a test", "sqlite")
    assert isinstance(found, Statement)
    return found


def told(effect: Effect) -> str:
    """An effect in one line."""
    name = effect.name + (f".{effect.column}" if effect.column else "")
    parts = [effect.kind, name, f"by {effect.via}" if effect.via else "", "everywhere" if effect.everywhere else ""]
    return " ".join(part for part in parts if part)


def destroyed(db: Database, sql: str) -> list[str]:
    return [told(effect) for effect in effects.effects_of(db, statement(sql)).destroyed]


# One statement.


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DROP TABLE plain", ["drop table plain"]),
        ("DROP TABLE IF EXISTS PLAIN", ["drop table plain"]),
        ("DROP TABLE main.plain", ["drop table plain"]),
        ("DROP TABLE papers", ["drop table papers"]),
        ("DROP INDEX by_town", ["drop index by_town"]),
        ("DROP VIEW names", ["drop view names"]),
        ("DROP TRIGGER next", ["drop trigger next"]),
        ("DROP TABLE queue", ["drop table queue", "drop trigger next"]),
        ("ALTER TABLE people DROP COLUMN name", ["drop column people.name"]),
        ("ALTER TABLE people DROP name", ["drop column people.name"]),
        ('DROP TABLE "od""d na\'me"', ["drop table od\"d na'me"]),
        ('ALTER TABLE [od"d na\'me] DROP COLUMN "a ""column"', ['drop column od"d na\'me.a "column']),
    ],
)
def test_what_is_dropped_is_told_by_kind_and_name(db: Database, sql: str, expected: list[str]) -> None:
    assert destroyed(db, sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE IF EXISTS missing",
        "DROP INDEX IF EXISTS missing",
        "DROP VIEW IF EXISTS missing",
        "DROP TRIGGER IF EXISTS missing",
        "CREATE TABLE made (x)",
        "CREATE TABLE IF NOT EXISTS people (x)",
        "CREATE TABLE made AS SELECT * FROM people",
        "CREATE TABLE made (x UNIQUE ON CONFLICT REPLACE)",
        "CREATE INDEX made ON people (name)",
        "CREATE VIEW made AS SELECT 1 AS delete_from",
        "CREATE TRIGGER made AFTER INSERT ON plain BEGIN DELETE FROM people; REPLACE INTO keyed VALUES (1, 2); END",
        "CREATE VIRTUAL TABLE made USING fts5 (body)",
        "CREATE TEMP TABLE made (x)",
        "ALTER TABLE people ADD COLUMN age",
        "ALTER TABLE people RENAME TO persons",
        "ALTER TABLE people RENAME COLUMN name TO full_name",
        "ALTER TABLE parents RENAME TO elders",
        "INSERT INTO plain VALUES (replace('a', 'b', 'c'))",
        "INSERT INTO plain SELECT name AS replace FROM people",
        "WITH replace (x) AS (SELECT 1) INSERT INTO plain SELECT x FROM replace",
        "INSERT INTO keyed VALUES (1, 'DELETE FROM people; OR REPLACE INTO')",
        "INSERT OR IGNORE INTO keyed VALUES (1, 'x')",
        "INSERT OR ROLLBACK INTO keyed VALUES (1, 'x')",
        "INSERT INTO keyed VALUES (1, 'x') ON CONFLICT DO NOTHING",
        "INSERT INTO children VALUES (1, 1)",
        "INSERT INTO pairs VALUES (1, 1, 1)",
        "INSERT INTO plain SELECT * FROM plain",
        "INSERT INTO window VALUES (1, 'x')",
        "WITH w AS (SELECT 1) SELECT * FROM w",
        "SELECT * FROM people",
        "VALUES (1)",
        "PRAGMA writable_schema = ON",
        "EXPLAIN DELETE FROM people",
        "EXPLAIN QUERY PLAN DROP TABLE people",
        "REINDEX",
        "ANALYZE",
    ],
)
def test_what_only_adds_or_asks_destroys_nothing(db: Database, sql: str) -> None:
    assert destroyed(db, sql) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM plain", ["delete plain everywhere"]),
        ("DELETE FROM main.PLAIN", ["delete plain everywhere"]),
        ('DELETE FROM plain AS "where"', ["delete plain everywhere"]),
        ("DELETE FROM plain -- WHERE x = 1", ["delete plain everywhere"]),
        ("DELETE FROM plain RETURNING *", ["delete plain everywhere"]),
        ("DELETE FROM plain WHERE x = 1", ["delete plain"]),
        ("DELETE FROM plain WHERE 1", ["delete plain"]),
        ("DELETE FROM plain WHERE x IN (SELECT id FROM people WHERE id = 1)", ["delete plain"]),
        ("WITH w AS (SELECT 1 WHERE 1) DELETE FROM plain", ["delete plain everywhere"]),
        ("WITH w AS (SELECT 1) DELETE FROM plain WHERE x IN w", ["delete plain"]),
        ("DELETE FROM `od\"d na'me`", ["delete od\"d na'me everywhere"]),
        ("DELETE FROM papers", ["delete papers everywhere"]),
        ("DELETE FROM papers WHERE papers MATCH 'x'", ["delete papers"]),
        ("UPDATE plain SET x = 1", ["update plain.x everywhere"]),
        ("UPDATE plain SET x = 1 WHERE x = 2", ["update plain.x"]),
        ("UPDATE plain SET x = (SELECT id FROM people WHERE id = 1)", ["update plain.x everywhere"]),
        (
            "UPDATE people SET town = name, name = 'x'",
            ["update people.name everywhere", "update people.town everywhere"],
        ),
        ("UPDATE plain SET x = p.id FROM people AS p WHERE p.name = x", ["update plain.x"]),
        ("WITH w AS (SELECT 1 AS n WHERE 1) UPDATE plain SET x = (SELECT n FROM w)", ["update plain.x everywhere"]),
        ("UPDATE papers SET body = 'x'", ["update papers.body everywhere"]),
    ],
)
def test_a_delete_or_update_tells_its_columns_and_whether_a_where_limits_it(
    db: Database, sql: str, expected: list[str]
) -> None:
    """A WHERE in a subquery limits nothing."""
    assert sorted(destroyed(db, sql)) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM parents", ["delete parents everywhere"]),
        ("DELETE FROM parents WHERE id = 1", ["delete parents"]),
        ("DROP TABLE parents", ["drop table parents"]),
        ("REPLACE INTO parents VALUES (1)", ["replace parents"]),
    ],
)
def test_what_foreign_keys_take_with_them_is_told(db: Database, sql: str, expected: list[str]) -> None:
    also = ["delete children by a foreign key", "update guests.host by a foreign key"]
    assert sorted(destroyed(db, sql)) == sorted([*expected, *also])


def test_while_foreign_keys_are_not_enforced_they_take_nothing_with_them(db: Database) -> None:
    db.execute("PRAGMA foreign_keys = OFF")
    assert destroyed(db, "DELETE FROM parents WHERE id = 1") == ["delete parents"]
    assert destroyed(db, "DROP TABLE parents") == ["drop table parents"]


def test_a_key_that_changes_is_carried_on_by_a_foreign_key(db: Database) -> None:
    assert destroyed(db, "UPDATE parents SET id = 2 WHERE id = 1") == [
        "update parents.id",
        "update guests.host by a foreign key",
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM watched WHERE id = 1", ["delete watched", "delete log by trigger forget"]),
        ("UPDATE watched SET id = 2 WHERE id = 1", ["update watched.id", "update log.x by trigger touch"]),
        ("INSERT INTO watched VALUES (1)", ["replace keyed by trigger keep"]),
        ("INSERT INTO queue VALUES (1)", ["delete log by trigger next"]),
        ("DELETE FROM window WHERE id = 1", ["delete window", "delete shown by trigger through_delete"]),
    ],
)
def test_what_a_trigger_destroys_is_told_with_its_name(db: Database, sql: str, expected: list[str]) -> None:
    assert destroyed(db, sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT OR REPLACE INTO keyed VALUES (1, 'x')", ["replace keyed"]),
        ("REPLACE INTO keyed VALUES (1, 'x')", ["replace keyed"]),
        ("replace /* into */ into keyed values (1, 'x')", ["replace keyed"]),
        ("REPLACE INTO pairs VALUES (1, 1, 1)", ["replace pairs"]),
        ("WITH w AS (SELECT 1) REPLACE INTO keyed SELECT 1, 'x'", ["replace keyed"]),
        ("INSERT INTO replacing VALUES (1, 'x')", ["replace replacing"]),
        ("INSERT INTO replacing SELECT id, name FROM people", ["replace replacing"]),
        ("UPDATE OR REPLACE keyed SET id = 1 WHERE id = 2", ["update keyed.id", "replace keyed"]),
        (
            "REPLACE INTO keyed VALUES (1, 'x') ON CONFLICT (text) DO UPDATE SET text = 'y'",
            ["update keyed.text", "replace keyed"],
        ),
    ],
)
def test_the_rows_that_a_conflict_replaces_are_told(db: Database, sql: str, expected: list[str]) -> None:
    assert destroyed(db, sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO keyed VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET text = excluded.text",
        "INSERT INTO keyed SELECT id, name FROM people WHERE 1 ON CONFLICT (id) DO UPDATE SET text = 'x' WHERE id > 1",
    ],
)
def test_an_upsert_overwrites_some_rows_and_never_all(db: Database, sql: str) -> None:
    assert destroyed(db, sql) == ["update keyed.text"]


def test_a_replace_counts_even_when_the_table_has_no_key_that_could_conflict(db: Database) -> None:
    """SQLite built without its pre-update hook does not show which of them may replace something."""
    assert destroyed(db, "REPLACE INTO plain VALUES (1)") == ["replace plain"]


@pytest.mark.parametrize("sql", ["VACUUM", "vacuum", "VACUUM main"])
def test_vacuum_rewrites_the_file(db: Database, sql: str) -> None:
    assert destroyed(db, sql) == ["rewrite"]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM missing",
        "DELET FROM people",
        "ALTER TABLE people DROP COLUMN missing",
        "INSERT INTO plain VALUES (?)",
    ],
)
def test_of_what_cannot_be_prepared_nothing_is_known(db: Database, sql: str) -> None:
    assert destroyed(db, sql) == ["unknown"]


def test_writing_into_the_schema_may_do_anything(db: Database) -> None:
    db.execute("PRAGMA writable_schema = ON")
    assert destroyed(db, "UPDATE sqlite_schema SET sql = 'x' WHERE name = 'people'") == ["unknown"]
    assert destroyed(db, "DELETE FROM sqlite_master") == ["unknown"]


def test_temporary_tables_are_nobodys_data(db: Database) -> None:
    db.execute("CREATE TEMP TABLE passing (x UNIQUE ON CONFLICT REPLACE)")
    for sql in (
        "DELETE FROM passing",
        "UPDATE passing SET x = 1",
        "INSERT INTO passing VALUES (1)",
        "DROP TABLE passing",
    ):
        assert destroyed(db, sql) == []


def test_a_temporary_table_hides_the_one_of_the_same_name(db: Database) -> None:
    db.execute("CREATE TEMP TABLE people (x)")
    assert destroyed(db, "DELETE FROM people") == []
    assert destroyed(db, "DELETE FROM main.people") == ["delete people everywhere"]


def test_the_tables_of_an_attached_database_count(db: Database, tmp_path: Path) -> None:
    db.execute(f"ATTACH '{tmp_path / 'other.db'}' AS other")
    db.execute("CREATE TABLE other.elsewhere (x)")
    assert destroyed(db, "DELETE FROM elsewhere") == ["delete elsewhere everywhere"]
    assert destroyed(db, "DROP TABLE other.elsewhere") == ["drop table elsewhere"]


def test_what_others_changed_meanwhile_is_seen(site: Site, db: Database) -> None:
    assert destroyed(db, "DROP TABLE later") == ["unknown"]
    site.do("CREATE TABLE later (x)")
    assert destroyed(db, "DROP TABLE later") == ["drop table later"]


def test_asking_runs_nothing(site: Site, db: Database) -> None:
    site.do("INSERT INTO people VALUES (1, 'a', 'b')")
    before = snapshot(site.data)
    for sql in ("DROP TABLE people", "DELETE FROM people", "CREATE TABLE made (x)", "ALTER TABLE people DROP name"):
        effects.effects_of(db, statement(sql))
    assert snapshot(site.data) == before
    assert site.rows("SELECT * FROM people") == [(1, "a", "b")]


def test_the_tables_that_a_statement_may_write_to_are_told(db: Database) -> None:
    assert effects.effects_of(db, statement("INSERT INTO watched VALUES (1)")).written == {"watched", "plain", "keyed"}
    assert effects.effects_of(db, statement("DELETE FROM parents")).written == {"parents", "children", "guests"}
    assert effects.effects_of(db, statement("SELECT * FROM people")).written == set()
    assert effects.effects_of(db, statement("CREATE TABLE made (x)")).created == {"made"}


# Whole runs, from the schema alone.


def foreseen(site: Site, *files: str, new: bool = False) -> list[str]:
    """What the files would destroy, applied one after the other."""
    site.write({f"{number:03}_it": text for number, text in enumerate(files, 1)})
    steps = [
        Step(file.filename, (migration := script.read(file)).up, migration)
        for file in discovery.discover(site.directory, "sqlite")
    ]
    return [
        told(effect)
        for effect in effects.foresee(
            str(site.database.with_name("new.db") if new else site.database), steps, Patience(1)
        )
    ]


def test_what_a_run_destroys_is_known_before_it(site: Site) -> None:
    before = snapshot(site.data)
    assert foreseen(site, "DELETE FROM plain; DROP INDEX by_town;", "ALTER TABLE people DROP COLUMN town;") == [
        "delete plain everywhere",
        "drop index by_town",
        "drop column people.town",
    ]
    assert snapshot(site.data) == before


def test_a_table_is_known_by_the_name_that_it_was_given_before(site: Site) -> None:
    assert foreseen(site, "ALTER TABLE people RENAME TO persons;", "DROP TABLE persons;") == ["drop table persons"]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE made (x); INSERT INTO made VALUES (1); UPDATE made SET x = 2; DELETE FROM made; DROP TABLE made;",
        "CREATE TABLE Made (x); DROP TABLE made;",
        "CREATE TABLE made (x); CREATE TRIGGER own AFTER INSERT ON made BEGIN DELETE FROM made; END; DROP TABLE made;",
        "CREATE INDEX own ON people (name); DROP INDEX own;",
        "CREATE VIEW own AS SELECT 1; DROP VIEW own;",
        "CREATE TABLE made AS SELECT * FROM people; REPLACE INTO made SELECT * FROM people; DROP TABLE made;",
        "CREATE TEMP TABLE passing (x); DELETE FROM passing; DROP TABLE passing;",
    ],
)
def test_what_a_run_makes_itself_it_may_destroy(site: Site, sql: str) -> None:
    assert foreseen(site, sql) == []


def test_what_one_migration_of_a_run_makes_another_may_destroy(site: Site) -> None:
    assert foreseen(site, "CREATE TABLE made (x);", "DELETE FROM made;", "DROP TABLE made;") == []


def test_creating_a_table_that_exists_does_not_make_it_ones_own(site: Site) -> None:
    assert foreseen(site, "CREATE TABLE IF NOT EXISTS people (x); DROP TABLE people;") == ["drop table people"]
    assert foreseen(site, "CREATE TABLE IF NOT EXISTS PEOPLE (x); DROP TABLE PEOPLE;") == ["drop table people"]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE mine (x); DROP TABLE mine; ALTER TABLE people RENAME TO mine; DROP TABLE mine;",
        "CREATE TABLE mine (x); ALTER TABLE mine RENAME TO mine2; ALTER TABLE people RENAME TO mine; DROP TABLE mine;",
    ],
)
def test_a_table_that_takes_over_the_name_of_an_own_one_is_not_own(site: Site, sql: str) -> None:
    assert foreseen(site, sql) == ["drop table mine"]


def test_a_rebuild_drops_the_table_that_it_replaces(site: Site) -> None:
    rebuild = (
        "-- migrate:foreign_keys off\n"
        "CREATE TABLE new_parents (id INTEGER PRIMARY KEY, name TEXT);\n"
        "INSERT INTO new_parents SELECT id, 'x' FROM parents;\n"
        "DROP TABLE parents;\n"
        "ALTER TABLE new_parents RENAME TO parents;\n"
    )
    assert foreseen(site, rebuild) == ["drop table parents"]


def test_a_drop_that_would_reach_other_tables_is_refused_beforehand(site: Site) -> None:
    with pytest.raises(CascadeRefused):
        foreseen(site, "DROP TABLE parents;")


def test_a_drop_that_may_reach_other_tables_is_told_with_them(site: Site) -> None:
    assert sorted(foreseen(site, "-- migrate:allow cascade\nDROP TABLE parents;")) == [
        "delete children by a foreign key",
        "drop table parents",
        "update guests.host by a foreign key",
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "-- migrate:up transaction:false\nINSERT INTO plain VALUES (1);",
        "-- migrate:up transaction:false\nVACUUM;",
        "PRAGMA writable_schema = ON; INSERT INTO plain VALUES (1);",
        "-- migrate:allow attach\nATTACH 'x.db' AS x; INSERT INTO plain VALUES (1);",
        "DELETE FROM missing;",
        "CREATE TABLE people (x); DELETE FROM plain;",
    ],
)
def test_what_cannot_be_known_counts_as_destructive(site: Site, sql: str) -> None:
    assert foreseen(site, sql) == ["unknown"]


def test_what_was_found_before_it_cannot_be_known_counts(site: Site) -> None:
    assert foreseen(site, "DELETE FROM plain; CREATE TABLE people (x);") == ["delete plain everywhere", "unknown"]


def test_temporary_objects_do_not_reach_the_next_migration(site: Site) -> None:
    passing = "CREATE TEMP TABLE people AS SELECT 1 AS x; DELETE FROM people;"
    assert foreseen(site, passing, passing, "DELETE FROM people;") == ["delete people everywhere"]


def test_inserts_are_looked_at_only_where_a_trigger_or_a_constraint_may_destroy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "other")
    site.do("CREATE TABLE plain (x)")
    asked: list[str] = []
    ask = effects.effects_of
    monkeypatch.setattr(effects, "effects_of", lambda db, each: asked.append(each.text) or ask(db, each))
    many = "INSERT INTO made VALUES (1);\n" * 1000
    create = "CREATE TABLE made (x);\n"
    assert foreseen(site, create + many) == []
    assert len(asked) == 1
    constrained = "CREATE TABLE other (x UNIQUE ON CONFLICT REPLACE);\n"
    assert foreseen(site, create + constrained + many) == []
    assert len(asked) == 1 + 2 + 1000


def test_an_insert_that_fires_a_trigger_is_looked_at(site: Site) -> None:
    assert foreseen(site, "INSERT INTO queue VALUES (1);") == ["delete log by trigger next"]


def test_an_insert_that_fires_a_trigger_of_the_same_migration_is_looked_at(tmp_path: Path) -> None:
    site = Site(tmp_path / "other")
    site.do("CREATE TABLE one (x)", "CREATE TABLE two (x)")
    for temporary in ("", "TEMP "):
        sql = f"CREATE {temporary}TRIGGER t AFTER INSERT ON one BEGIN DELETE FROM two; END; INSERT INTO one VALUES (1);"
        assert foreseen(site, sql) == ["delete two by trigger t"]


def test_a_new_database_has_nothing_to_lose(tmp_path: Path) -> None:
    site = Site(tmp_path / "other")
    files = "CREATE TABLE a (x);", "INSERT INTO a VALUES (1); UPDATE a SET x = 2;", "ALTER TABLE a ADD y; DROP TABLE a;"
    assert foreseen(site, *files, new=True) == []
    assert not site.database.exists()


def test_the_rows_are_not_needed_to_know_what_a_run_destroys(site: Site) -> None:
    """What would take long is left to the real run."""
    assert foreseen(site, f"DELETE FROM plain; CREATE TABLE counted AS {ENDLESS};") == [
        "delete plain everywhere",
        "unknown",
    ]


def test_what_a_virtual_table_does_with_a_row_is_not_known(db: Database) -> None:
    assert destroyed(db, "INSERT INTO papers (papers) VALUES ('delete-all')") == ["unknown"]
