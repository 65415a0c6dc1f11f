"""What would act beyond a copy, on the server or on the very database, is known before it is tried on one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator.databases import connect
from financial_agent.migrator.databases.reach import reach

P, M, BOTH = ("postgresql",), ("mysql",), ("postgresql", "mysql")
BEYOND = [
    (BOTH, "CREATE DATABASE other", "CREATE DATABASE"),
    (BOTH, "DROP DATABASE IF EXISTS other", "DROP DATABASE"),
    (BOTH, "CREATE USER ada", "CREATE USER"),
    (BOTH, "DROP ROLE ada", "DROP ROLE"),
    (P, "ALTER SYSTEM SET work_mem = '1GB'", "ALTER SYSTEM"),
    (P, "DROP OWNED BY ada", "DROP OWNED"),
    (P, "GRANT staff TO ada", "GRANT of a role"),
    (P, "COPY people TO PROGRAM 'mail'", "COPY … PROGRAM"),
    (P, "COPY people TO '/tmp/people'", "COPY with a file of the server's"),
    (P, "SELECT dblink_exec('dbname=other', 'DROP TABLE t')", "dblink_exec"),
    (M, "DROP SCHEMA other", "DROP SCHEMA"),
    (M, "GRANT SELECT ON app.* TO ada", "GRANT"),
    (M, "SET GLOBAL max_connections = 5", "SET GLOBAL"),
    (M, "SELECT * FROM t INTO OUTFILE '/tmp/t'", "SELECT … OUTFILE"),
    (M, "UPDATE app.people SET name = 'x'", "app.people"),
    (M, "INSERT INTO `App`.people VALUES (1)", "`App`.people"),
    (M, "DELETE a FROM a JOIN app.people ON a.id = people.id", "app.people"),
    (M, "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW INSERT INTO app.log VALUES (1)", "app.log"),
    (M, "DROP TABLE a, app.people", "app.people"),
]
WITHIN = [
    (BOTH, "CREATE TABLE people (id INT, role TEXT)"),
    (P, "CREATE SCHEMA sales"),
    (P, "GRANT SELECT ON people TO ada"),
    (P, "DROP USER MAPPING FOR ada SERVER far"),
    (P, "UPDATE app.people SET name = 'x'"),
    (P, "COPY people FROM stdin"),
    (BOTH, "UPDATE app SET name = 'x' WHERE app.id = 1"),
    (M, "SELECT count(*) FROM app.people"),
    (M, "SET sql_mode = 'ANSI'"),
    (M, "UPDATE people SET name = 'see app.people'"),
]


@pytest.mark.parametrize(("dialect", "sql", "what"), [(d, sql, what) for ds, sql, what in BEYOND for d in ds])
def test_a_statement_that_reaches_beyond_its_database_says_by_what(dialect: str, sql: str, what: str) -> None:
    assert reach(sql, dialect, {"app"} if dialect == "mysql" else ()) == what


@pytest.mark.parametrize(("dialect", "sql"), [(d, sql) for ds, sql in WITHIN for d in ds])
def test_what_stays_within_its_database_is_let_be(dialect: str, sql: str) -> None:
    assert reach(sql, dialect, {"app"} if dialect == "mysql" else ()) == ""


@pytest.mark.parametrize(
    ("sql", "what"),
    [("ATTACH 'x' AS y", "ATTACH"), ("VACUUM INTO 'x'", "VACUUM INTO"), ("VACUUM", ""), ("SELECT 1", "")],
)
def test_on_sqlite_only_another_file_is_beyond(sql: str, what: str, tmp_path: Path) -> None:
    with closing(connect(str(tmp_path / "app.db"))) as db:
        assert db.reach(sql) == what


def test_every_other_database_of_the_server_is_beyond(mysql: str) -> None:
    with closing(connect(mysql)) as db:
        assert db.reach("DELETE FROM mysql.user") == "mysql.user"
        assert db.reach("INSERT INTO t SELECT * FROM information_schema.tables") == ""
        assert db.reach(f"DELETE FROM {db.name.rpartition('/')[2]}.t") == ""
