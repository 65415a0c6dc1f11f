"""What the engine promises on PostgreSQL beyond what holds on every database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from financial_agent import create_app
from financial_agent.migrator import runner
from financial_agent.migrator.databases import Database, Patience, StatementError, connect
from financial_agent.migrator.errors import DatabaseUnusable, DriverMissing, UrlInvalid
from financial_agent.migrator.errors_run import MigrationFailed, PythonForbidden
from tests import servers
from tests.helpers import PLAIN, finish, started
from tests.test_conformance import QUICK, Place

TABLE = "CREATE TABLE account (id integer PRIMARY KEY, email text UNIQUE CHECK (email LIKE '%@%'), n integer NOT NULL);"
SECRET = "s3cret@example.com"


@pytest.fixture
def place(postgresql: str, tmp_path: Path) -> Place:
    return Place(postgresql, tmp_path)


@pytest.fixture
def db(postgresql: str) -> Iterator[Database]:
    with closing(connect(postgresql, patience=Patience(10))) as database:
        yield database


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


# Where the ledger is, and what a script leaves.


def test_the_ledger_is_in_the_schema_that_is_configured_and_made_there_by_the_first_run(place: Place) -> None:
    url = with_option(place.url, "ledger_schema=ops")
    place.write({"001_account": TABLE})
    assert len(runner.pending(url, place.directory)) == 1
    assert place.rows("SELECT nspname FROM pg_namespace WHERE nspname = 'ops'") == []
    runner.migrate(url, place.directory, control=QUICK)
    assert place.rows("SELECT filename FROM ops._migrations") == [("001_account.sql",)]
    assert place.rows("SELECT to_regclass('public.account')::text, to_regclass('public._migrations')") == [
        ("account", None)
    ]
    assert runner.pending(url, place.directory) == []


def test_two_applications_share_a_database_with_a_schema_each(place: Place, tmp_path: Path) -> None:
    place.run("CREATE SCHEMA one", "CREATE SCHEMA two")
    first, second = (with_option(place.url, f"options=-csearch_path%3D{name}") for name in ("one", "two"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "001_order.sql").write_text("CREATE TABLE an_order (id integer);")
    place.write({"001_account": TABLE})
    with closing(connect(first)) as held, held.lock():
        runner.migrate(second, other, control=QUICK)
    runner.migrate(first, place.directory, control=QUICK)
    assert place.rows("SELECT filename FROM one._migrations") == [("001_account.sql",)]
    assert place.rows("SELECT filename FROM two._migrations") == [("001_order.sql",)]
    with closing(connect(first)) as asked:
        assert list(asked.tables()) == ["account"]


def test_nothing_that_a_script_sets_leaks_into_the_ledger_or_the_next_file(place: Place) -> None:
    place.run("DROP ROLE IF EXISTS fa_weak", "CREATE ROLE fa_weak")
    place.write(
        {
            "001_settings": """\
CREATE SCHEMA other;
CREATE TEMPORARY TABLE scratch (n integer);
SET search_path = other;
SET DateStyle = 'German';
SELECT pg_advisory_lock(7);
CREATE TABLE elsewhere (n integer);
SET ROLE fa_weak;
""",
            "002_plain": """\
CREATE TABLE here (n integer);
INSERT INTO here SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND pid = pg_backend_pid();
CREATE TEMPORARY TABLE scratch (n integer);
""",
        }
    )
    try:
        place.migrate()
        assert place.rows("SELECT n FROM public.here") == [(0,)]
        assert place.rows("SELECT count(*) FROM other.elsewhere") == [(0,)]
        assert place.rows("SELECT filename FROM public._migrations ORDER BY id") == [
            ("001_settings.sql",),
            ("002_plain.sql",),
        ]
        applied = [item.entry.applied_at for item in runner.status(place.url, place.directory).items if item.entry]
        assert all(at[4] == at[7] == "-" and at[13] == ":" for at in applied)
    finally:
        place.run("DROP ROLE fa_weak")


def test_a_constraint_that_was_put_off_is_checked_before_the_record(place: Place) -> None:
    place.write({"001_parents": "CREATE TABLE parent (id integer PRIMARY KEY);"})
    place.migrate()
    place.write(
        {
            "002_children": """\
CREATE TABLE child (parent integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO child VALUES (7);
"""
        }
    )
    error = place.fails()
    assert isinstance(error, MigrationFailed)
    assert "child_parent_fkey" in str(error)
    assert "7" not in str(error).replace("child_parent_fkey", "")
    assert not place.has("child")


# Statements.


def test_copy_reads_the_lines_below_it(place: Place) -> None:
    place.write(
        {
            "001_account": f"""\
{TABLE}
COPY account (id, email, n) FROM stdin;
1\ta@b;c\t5
2\t\\N\t6
\\.
INSERT INTO account VALUES (3, 'd@e', 7);
COPY account FROM stdin;
\\.
"""
        }
    )
    place.migrate()
    assert place.rows("SELECT id, email, n FROM account ORDER BY id") == [(1, "a@b;c", 5), (2, None, 6), (3, "d@e", 7)]


def test_copy_to_the_client_is_refused_and_leaves_the_connection_usable(db: Database) -> None:
    with pytest.raises(StatementError, match="nobody reads"):
        db.execute("COPY (SELECT 1) TO STDOUT")
    assert db.query("SELECT 1") == [(1,)]


@pytest.mark.parametrize("ending", ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "COMMIT; BEGIN", "ABORT"])
def test_a_statement_that_ends_the_transaction_is_noticed_even_if_it_begins_another(db: Database, ending: str) -> None:
    with db.transaction():
        assert db.in_transaction
        db.execute(ending)
        assert not db.in_transaction


# Errors.


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"INSERT INTO account VALUES (1, '{SECRET}', 1)", "account_pkey"),
        (f"INSERT INTO account VALUES (2, '{SECRET}', 1)", "account_email_key"),
        ("INSERT INTO account VALUES (2, 'nothing', 1)", "account_email_check"),
        ("INSERT INTO account VALUES (2, 'x@y', NULL)", '"n"'),
        ("UPDATE account SET n = email::integer", "integer: …"),
        ("CREATE UNIQUE INDEX on_n ON account ((n * 0))", "on_n"),
        ("ALTER TABLE account ADD CONSTRAINT big CHECK (n > 100)", "big"),
    ],
)
def test_no_error_holds_what_a_row_holds(db: Database, statement: str, message: str) -> None:
    db.execute(TABLE)
    db.execute(f"INSERT INTO account VALUES (1, '{SECRET}', 1), (9, 'nine@x', 2)")
    with pytest.raises(StatementError) as caught:
        db.execute(statement)
    error: BaseException | None = caught.value
    assert message in str(error)
    while error:
        assert "s3cret" not in str(error)
        error = error.__cause__


def test_an_error_has_its_place_its_detail_and_its_hint(place: Place) -> None:
    place.write({"001_account": TABLE, "002_view": "CREATE VIEW v AS SELECT id FROM account;"})
    place.migrate()
    place.write({"003_drop": "-- é\nSELECT 'é',\n  idd FROM account;"})
    error = place.fails()
    assert error.location
    assert (error.location.line, error.location.column) == (3, 3)
    assert 'Perhaps you meant to reference the column "account.id"' in str(error)
    place.write({"003_drop": "DROP TABLE account;"})
    assert "view v depends on table account; Hint: Use DROP ... CASCADE" in str(place.fails())


# Connecting.


def test_a_driver_that_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DriverMissing) as caught:
        connect("postgresql://bob:s3cret@localhost/app")
    assert (caught.value.code, caught.value.hint) == ("FA119", "pip install 'financial_agent[postgresql]'")
    assert str(caught.value).startswith("the driver for postgresql://bob@localhost/app is not installed")


def test_a_database_that_is_missing_says_how_to_make_it(postgresql: str) -> None:
    missing = urlsplit(postgresql)._replace(path="/no_such_db").geturl()
    with pytest.raises(DatabaseUnusable, match='database "no_such_db" does not exist') as caught:
        connect(missing)
    assert "createdb" in caught.value.hint
    assert caught.value.hint.endswith("no_such_db")


def test_a_server_that_is_not_there_says_how_to_look() -> None:
    with pytest.raises(DatabaseUnusable, match="refused") as caught:
        connect("postgresql://bob@127.0.0.1:1/app")
    assert caught.value.hint == "See whether the server runs there: pg_isready -h 127.0.0.1 -p 1 -U bob"


def test_a_number_of_seconds_that_is_none_is_refused() -> None:
    with pytest.raises(UrlInvalid, match="lock_timeout"):
        connect("postgresql://localhost/app?lock_timeout=soon")


PASSWORD = "p@ss w:/?#%[]&=+'\"\\$é"
ENCODED = "p%40ss%20w%3A%2F%3F%23%25%5B%5D%26%3D%2B%27%22%5C%24%C3%A9"


@pytest.mark.parametrize("url", ["postgresql://bob:{}@127.0.0.1:1/app", "postgresql://127.0.0.1:1/app?password={}"])
def test_a_password_of_every_special_character_is_in_no_output(url: str, tmp_path: Path) -> None:
    command = [*PLAIN, "--verbose", "--directory", str(tmp_path), "--database", url.format(ENCODED)]
    with started(command, tmp_path) as process:
        finished = finish(process)
    assert finished.returncode == 2
    for text in (PASSWORD, ENCODED, "p%40ss", "p@ss"):
        assert text not in finished.stdout + finished.stderr


def test_a_password_of_every_special_character_is_in_no_table_and_no_statement(place: Place, tmp_path: Path) -> None:
    role = urlsplit(place.url).path[1:]
    quoted = PASSWORD.replace("'", "''")
    place.run(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{quoted}'")
    parts = urlsplit(place.url)
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=f"{role}:{ENCODED}@{host}").geturl()
    place.write({"001_account": TABLE, "002_fails": "SELECT 1 / 0;"})
    try:
        command = [*PLAIN, "--verbose", "--directory", str(place.directory), "--database", url]
        with started(command, tmp_path) as process:
            finished = finish(process)
        assert finished.returncode == 3
        rows = [*place.rows("TABLE _migrations"), *place.rows("TABLE _migration_history")]
        rows += place.rows("SELECT query, application_name FROM pg_stat_activity")
        assert "p@ss" not in finished.stdout + finished.stderr + repr(rows)
        assert "p%40ss" not in finished.stdout + finished.stderr + repr(rows)
    finally:
        place.run(f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP ROLE {role}")


# Python.


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("connection.rollback()", "rollback"),
        ("connection.autocommit = False", "autocommit"),
        ("connection.close()", "close"),
        ("with connection.transaction(): pass", "transaction"),
        ("with connection: pass", "with connection"),
        ("connection.execute('SELECT 1; COMMIT; BEGIN')", "COMMIT"),
        ("connection.execute('/* */ savepoint a')", "SAVEPOINT"),
        ("connection.cursor().executemany('DELETE FROM _migrations WHERE id = %s', [(1,)])", "_migrations"),
        ("connection.execute('SELECT forget()')", "record the migrations"),
        ("connection.pgconn.exec_(b'COMMIT; BEGIN')", "ended the transaction"),
    ],
)
def test_a_python_file_cannot_get_at_its_transaction_or_the_ledger(place: Place, body: str, what: str) -> None:
    place.write(
        {
            "001_account": TABLE
            + "CREATE FUNCTION forget() RETURNS void LANGUAGE sql AS $$ DELETE FROM _migration_history $$;"
        }
    )
    with pytest.raises(Exception, match="_migration_history"):
        place.migrate()
    place.write({"001_account": TABLE})
    place.migrate()
    place.run("CREATE FUNCTION forget() RETURNS void LANGUAGE sql AS $$ DELETE FROM _migration_history $$")
    text = f"def up(connection):\n    try:\n        {body}\n    except Exception:\n        pass\n"
    place.write({"002_python": text}, "py")
    error = place.fails()
    assert isinstance(error, PythonForbidden)
    assert what in str(error)
    assert place.states()["002_python"] == "pending"
    assert place.rows("SELECT count(*) FROM _migrations") == [(1,)]


def test_a_python_file_uses_the_driver_as_it_is(place: Place) -> None:
    place.write({"001_account": TABLE})
    place.write(
        {
            "002_python": """\
from psycopg import sql
from psycopg.rows import dict_row


def up(connection):
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO account VALUES (%s, %s, %s)", [(n, f"{n}@x", n) for n in range(5)])
        with cursor.copy("COPY account FROM STDIN") as copy:
            copy.write_row((7, "seven@x", 7))
    rows = connection.cursor(row_factory=dict_row).execute("SELECT sum(n) AS total FROM account").fetchall()
    assert rows == [{"total": 17}]
    connection.execute(sql.SQL("UPDATE {} SET n = 1").format(sql.Identifier("account")))
    with connection.cursor(name="big") as cursor:
        assert len(cursor.execute("SELECT * FROM account").fetchall()) == 6
"""
        },
        "py",
    )
    place.migrate()
    assert place.rows("SELECT count(*), sum(n) FROM account") == [(6, 6)]
    assert servers.rows(place.url, "SELECT rows_changed FROM _migration_history ORDER BY id DESC LIMIT 1")[0][0] >= 11


# Who may only read, and who looks.


def test_a_run_is_refused_where_transactions_may_only_read(place: Place) -> None:
    place.write({"001_account": TABLE})
    name = urlsplit(place.url).path[1:]
    place.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    error = place.fails()
    assert isinstance(error, DatabaseUnusable)
    assert "its transactions may only read" in str(error)
    assert place.states() == {"001_account": "pending"}


def test_an_invalid_index_and_an_unchecked_constraint_are_problems(place: Place) -> None:
    place.write({"001_account": TABLE + "INSERT INTO account VALUES (1, NULL, 1), (2, NULL, 1);"})
    place.migrate()
    place.run("ALTER TABLE account ADD CONSTRAINT big CHECK (n > 100) NOT VALID")
    with pytest.raises(Exception, match="could not create unique index"):
        place.run("CREATE UNIQUE INDEX CONCURRENTLY broken ON account (n)")
    with closing(connect(place.url, readonly=True)) as db:
        found = db.problems()
    assert [problem.rpartition(": ")[2] for problem in found] == [
        "ALTER TABLE account VALIDATE CONSTRAINT big",
        "DROP INDEX CONCURRENTLY broken",
    ]


def test_the_application_migrates_when_it_is_served_and_tells_that_it_is_ready(place: Place, tmp_path: Path) -> None:
    place.write({"001_account": TABLE})
    settings = {"DATABASE": place.url, "MIGRATIONS": str(place.directory), "MIGRATE_ON_STARTUP": True}
    app = create_app({**settings, "BACKUP_DIRECTORY": str(tmp_path / "backups")})
    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    assert place.events() == [("apply", "001_account")]
    place.write({"002_more": "CREATE TABLE more (n integer);"})
    assert client.get("/readyz").status_code == 503


# What the catalogue tells.

OBJECTS = """\
CREATE SCHEMA sales;
CREATE TYPE mood AS ENUM ('good', 'it''s bad');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN email AS text NOT NULL CHECK (VALUE LIKE '%@%');
CREATE SEQUENCE numbers START 5;
CREATE TABLE "Odd name" (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "select" text COLLATE "C", m mood,
    double integer GENERATED ALWAYS AS (1 * 2) STORED);
CREATE TABLE sales.orders (id bigserial, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE sales.orders_2025 PARTITION OF sales.orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE INDEX by_at ON sales.orders (at);
CREATE VIEW names AS SELECT "select" FROM "Odd name";
CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM "Odd name";
CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * n';
CREATE PROCEDURE nothing() LANGUAGE sql AS '';
CREATE AGGREGATE total(integer) (SFUNC = int4pl, STYPE = integer);
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER stopping BEFORE INSERT ON "Odd name" FOR EACH ROW EXECUTE FUNCTION stop();
ALTER TABLE "Odd name" ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON "Odd name" USING (m = 'good');
CREATE RULE quiet AS ON DELETE TO "Odd name" DO INSTEAD NOTHING;
CREATE STATISTICS together ON id, m FROM "Odd name";
COMMENT ON COLUMN "Odd name".m IS 'how it is';
CREATE EXTENSION pg_trgm;
CREATE TEMPORARY TABLE gone (n integer);
"""


def test_every_object_of_the_user_is_told_and_none_of_an_extension(place: Place) -> None:
    place.write({"001_all": OBJECTS})
    place.migrate()
    with closing(connect(place.url, readonly=True)) as db:
        found = [(each.type, each.name) for each in db.objects()]
        orders = next(each for each in db.objects() if each.name == "sales.orders")
        tables = db.tables()
    assert found == [
        ("aggregate", "total(integer)"),
        ("comment", "Odd name.m"),
        ("domain", "email"),
        ("extension", "pg_trgm"),
        ("extension", "plpgsql"),
        ("function", "stop()"),
        ("function", "twice(n integer)"),
        ("index", "sales.by_at"),
        ("index", "sales.orders_2025_at_idx"),
        ("materialized view", "counts"),
        ("policy", "own"),
        ("procedure", "nothing()"),
        ("rule", "quiet"),
        ("schema", "sales"),
        ("sequence", "numbers"),
        ("statistics", "together"),
        ("table", '"Odd name"'),
        ("table", "sales.orders"),
        ("table", "sales.orders_2025"),
        ("trigger", "stopping"),
        ("type", "mood"),
        ("type", "pair"),
        ("view", "names"),
    ]
    assert tables == {
        '"Odd name"': ["id", "select", "m", "double"],
        "sales.orders": ["id", "at"],
        "sales.orders_2025": ["id", "at"],
    }
    assert [(column.name, column.type, column.not_null, column.key) for column in orders.columns] == [
        ("id", "bigint", True, 1),
        ("at", "date", True, 2),
    ]


CHANGES = [
    "ALTER TABLE account ALTER n SET DEFAULT 5",
    "ALTER TABLE account ALTER n TYPE bigint",
    "ALTER TABLE account ALTER n DROP NOT NULL",
    "ALTER TABLE account RENAME n TO m",
    "ALTER TABLE account DROP CONSTRAINT account_email_key",
    "ALTER TABLE account ADD CONSTRAINT big CHECK (n > 0) NOT VALID",
    "ALTER TABLE account ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE account SET UNLOGGED",
    "ALTER TABLE account SET (fillfactor = 70)",
    "ALTER TABLE account DISABLE TRIGGER stopping",
    "CREATE INDEX by_n ON account (n)",
    "CREATE OR REPLACE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "COMMENT ON TABLE account IS 'one'",
    "ALTER TYPE mood ADD VALUE 'ugly'",
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_schema_shows_in_the_fingerprint_whatever_the_session_has_set(
    db: Database, change: str
) -> None:
    db.execute(TABLE)
    db.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
    db.execute("CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    db.execute("CREATE TRIGGER stopping BEFORE INSERT ON account FOR EACH ROW EXECUTE FUNCTION stop()")
    before = db.fingerprint()
    db.execute("SET search_path = pg_catalog")
    assert db.fingerprint() == before
    with db.transaction():
        assert db.fingerprint() == before
    db.execute("RESET search_path")
    db.execute(change)
    assert db.fingerprint() != before


def test_what_a_first_run_was_doing_is_noted_in_a_ledger_schema_that_it_makes(place: Place) -> None:
    url = with_option(place.url, "ledger_schema=ops")
    with closing(connect(url)) as db:
        db.note_attempt("something")
        assert db.attempt() == "something"
        db.note_attempt(None)
        assert db.attempt() is None
    assert place.rows("SELECT count(*) FROM ops._migration_attempt") == [(0,)]
