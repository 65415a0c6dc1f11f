"""What a file may hold for each engine, and what its statements mean for the section that they stand in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from financial_agent.migrator import heads
from financial_agent.migrator.errors_files import (
    BatchInvalid,
    ClientCommand,
    DatabaseSwitched,
    DelimiterLeft,
    FileRefused,
    LedgerTouched,
    NeedsNoTransaction,
    ReadingChanged,
    SQLiteOnly,
    TablesLocked,
    TransactionControl,
)
from financial_agent.migrator.script import Migration, MigrationFile, Script, parse_stored, read

Parse = Callable[..., Migration]
FREE = "-- migrate:up transaction:false\n"


def file_of(path: Path, text: str, dialect: str) -> MigrationFile:
    path.write_text(text, encoding="utf-8")
    return MigrationFile(1, "a", path.name, path, dialect)


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    return lambda dialect, text, name="001_a.sql": read(file_of(tmp_path / name, text, dialect))


def texts(script: Script | None) -> list[str] | None:
    return [statement.text for statement in script.statements()] if script else None


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("postgresql", "BEGIN; {0} COMMIT;"),
        ("postgresql", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE; {0} END;"),
        ("postgresql", "start /* a /* ; */ */ transaction; {0} commit work;"),
        ("mysql", "START TRANSACTION; {0} COMMIT;"),
        ("mysql", "BEGIN WORK; {0} COMMIT;"),
    ],
)
def test_a_section_that_is_one_transaction_loses_that_pair(parse: Parse, dialect: str, text: str) -> None:
    sql = "INSERT INTO t VALUES (1);"
    up = parse(dialect, text.format(sql)).up
    assert texts(up) == [sql]
    assert up.wrapped


@pytest.mark.parametrize(
    ("dialect", "setting"),
    [("postgresql", "SET search_path TO public;"), ("mysql", "/*!40101 SET NAMES utf8mb4 */;")],
)
def test_settings_may_stand_around_the_pair_and_stay(parse: Parse, dialect: str, setting: str) -> None:
    up = parse(dialect, f"{setting} BEGIN; SELECT 1; COMMIT;").up
    assert texts(up) == [setting, "SELECT 1;"]
    assert up.leaves_settings


CONTROLS = [
    *(("postgresql", word) for word in ("BEGIN", "START TRANSACTION", "COMMIT", "END", "ROLLBACK", "ABORT")),
    *(("postgresql", words) for words in ("SAVEPOINT a", "RELEASE a", "PREPARE TRANSACTION 'a'")),
    ("postgresql", "COMMIT PREPARED 'a'"),
    *(("mysql", word) for word in ("BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "SAVEPOINT a", "XA START 'a'")),
    *(("mysql", f"SET {what}autocommit = 0") for what in ("", "SESSION ", "@@", "@@session.", "NAMES utf8, ")),
    ("mysql", "/*!40101 SET AUTOCOMMIT := 0 */"),
]


@pytest.mark.parametrize(("dialect", "sql"), CONTROLS)
def test_what_ends_or_splits_the_transaction_is_refused_and_may_stand_outside(
    parse: Parse, dialect: str, sql: str
) -> None:
    with pytest.raises(TransactionControl):
        parse(dialect, f"SELECT 1; {sql};")
    assert texts(parse(dialect, f"{FREE}SELECT 1; {sql};").up) == ["SELECT 1;", f"{sql};"]


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("postgresql", "PREPARE a AS SELECT 1;"),
        ("postgresql", "SET TRANSACTION READ WRITE;"),
        ("mysql", "BEGIN NOT ATOMIC SELECT 1; END;"),
        ("mysql", "START SLAVE;"),
        ("mysql", "SET @autocommit = 1, @a = @@autocommit;"),
        ("mysql", "SET @a = 'autocommit = 0';"),
        ("mysql", "CREATE PROCEDURE p() BEGIN START TRANSACTION; COMMIT; END;"),
    ],
)
def test_what_only_looks_like_it_is_a_statement_like_others(parse: Parse, dialect: str, sql: str) -> None:
    assert texts(parse(dialect, f"SELECT 1; {sql}").up) == ["SELECT 1;", sql]


OUTSIDE = [
    ("VACUUM t", "VACUUM"),
    ("vacuum (full) t", "VACUUM"),
    ("CREATE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX CONCURRENTLY"),
    ("CREATE UNIQUE /* a */ INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", "CREATE INDEX CONCURRENTLY"),
    ("DROP INDEX CONCURRENTLY i", "DROP INDEX CONCURRENTLY"),
    ("REINDEX TABLE CONCURRENTLY t", "REINDEX CONCURRENTLY"),
    ("REINDEX (CONCURRENTLY, VERBOSE) TABLE t", "REINDEX CONCURRENTLY"),
    ("REINDEX DATABASE d", "REINDEX DATABASE"),
    ("REINDEX SCHEMA s", "REINDEX SCHEMA"),
    ("CREATE DATABASE d", "CREATE DATABASE"),
    ("DROP DATABASE IF EXISTS d", "DROP DATABASE"),
    ("CREATE TABLESPACE s LOCATION '/s'", "CREATE TABLESPACE"),
    ("ALTER SYSTEM SET work_mem = '1MB'", "ALTER SYSTEM"),
    ("ALTER DATABASE d SET TABLESPACE s", "ALTER DATABASE … SET TABLESPACE"),
    ("ALTER TABLE a.t DETACH PARTITION a.p CONCURRENTLY", "DETACH PARTITION CONCURRENTLY"),
    ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", "CREATE SUBSCRIPTION"),
    ("DISCARD ALL", "DISCARD ALL"),
    ("CLUSTER", "CLUSTER"),
]


@pytest.mark.parametrize(("sql", "what"), OUTSIDE)
def test_what_postgresql_cannot_run_in_a_transaction_is_refused_in_one(parse: Parse, sql: str, what: str) -> None:
    with pytest.raises(NeedsNoTransaction) as refused:
        parse("postgresql", f"{sql};")
    assert refused.value.fields["what"] == what
    assert texts(parse("postgresql", f"{FREE}{sql};").up) == [f"{sql};"]


@pytest.mark.parametrize(
    "sql",
    [
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v;",
        "CREATE INDEX i ON t (concurrently);",
        "CREATE TABLE vacuum (database int);",
        "REINDEX TABLE t;",
        "CLUSTER t;",
        "ALTER DATABASE d SET work_mem = '1MB';",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false);",
    ],
)
def test_what_postgresql_can_run_in_a_transaction_is_not(parse: Parse, sql: str) -> None:
    assert texts(parse("postgresql", sql).up) == [sql]


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_statements_of_sqlite_are_left_to_the_server_to_judge(parse: Parse, dialect: str) -> None:
    text = "PRAGMA journal_mode = WAL; ATTACH 'a' AS b;"
    assert texts(parse(dialect, text).up) == ["PRAGMA journal_mode = WAL;", "ATTACH 'a' AS b;"]
    assert texts(parse("mysql", "VACUUM; CREATE DATABASE d;").up) == ["VACUUM;", "CREATE DATABASE d;"]


LEDGER = [
    ("postgresql", 'SELECT * FROM public."_migrations";', 21),
    ("postgresql", "DELETE FROM _MIGRATION_HISTORY;", 12),
    ("postgresql", 'DROP TABLE U&"\\005fmigration_lock";', 11),
    ("postgresql", "DO $$ BEGIN EXECUTE $q$ DELETE FROM _migration_attempt $q$; END $$;", 36),
    ("postgresql", "COPY _migration_progress FROM stdin;\n\\.\n", 5),
    ("mysql", "DELETE FROM `_migrations`;", 12),
    ("mysql", "/*!50003 DROP TABLE other._migration_lock */;", 26),
    ("mysql", "CREATE PROCEDURE p() BEGIN SELECT 1; DELETE FROM _migration_history; END;", 49),
]


@pytest.mark.parametrize(("dialect", "sql", "at"), LEDGER)
def test_the_ledger_is_not_touched_however_it_is_written(parse: Parse, dialect: str, sql: str, at: int) -> None:
    with pytest.raises(LedgerTouched) as refused:
        parse(dialect, sql)
    assert refused.value.location
    assert refused.value.location.column == at + 1


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("postgresql", "SELECT 1; -- _migrations\n"),
        ("postgresql", "SELECT 'see _migrations', $$a _migrations_b$$;"),
        ("mysql", "SELECT 'see _migrations', my_migrations # _migrations\n;"),
    ],
)
def test_what_does_not_name_the_ledger_runs(parse: Parse, dialect: str, sql: str) -> None:
    assert parse(dialect, sql).up.count == 1


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("USE other;", DatabaseSwitched),
        ("use `other`;", DatabaseSwitched),
        ("LOCK TABLES t WRITE;", TablesLocked),
        ("UNLOCK TABLES;", TablesLocked),
        ("lock table t read;", TablesLocked),
        ("SET sql_mode = 'ANSI';", ReadingChanged),
        ("SET @@SESSION.`sql_mode` := CONCAT(@@sql_mode, ',no_backslash_escapes');", ReadingChanged),
        ("/*!50003 SET sql_mode = 'PIPES_AS_CONCAT,ANSI_QUOTES,ORACLE' */;", ReadingChanged),
        ("source other.sql\n", ClientCommand),
    ],
)
def test_what_no_file_for_mysql_may_do_is_refused(parse: Parse, sql: str, error: type[FileRefused]) -> None:
    for text in (sql, FREE + sql):
        with pytest.raises(error):
            parse("mysql", text)


@pytest.mark.parametrize(
    "sql",
    [
        "SET @OLD_SQL_MODE = @@SQL_MODE, SQL_MODE = 'NO_AUTO_VALUE_ON_ZERO';",
        "SET @a = 'ANSI_QUOTES', @b = @@sql_mode;",
        "SELECT 'USE other', `lock` FROM t;",
    ],
)
def test_what_dumps_set_is_let_be(parse: Parse, sql: str) -> None:
    assert texts(parse("mysql", sql).up) == [sql]


@pytest.mark.parametrize("value", ["off", "'off'", "false", "0"])
def test_postgresql_strings_keep_their_backslashes(parse: Parse, value: str) -> None:
    with pytest.raises(ReadingChanged):
        parse("postgresql", f"SET LOCAL standard_conforming_strings = {value};")
    assert parse("postgresql", "SET standard_conforming_strings TO on;").up.count == 1


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
@pytest.mark.parametrize("directive", ["rebuild t", "copy a = 1", "foreign_keys off"])
def test_what_is_for_sqlite_is_refused_with_where_to_write_it(parse: Parse, dialect: str, directive: str) -> None:
    text = f"-- migrate:{directive}\nCREATE TABLE t (a INT);"
    with pytest.raises(SQLiteOnly) as refused:
        parse(dialect, text)
    assert f"001_a.{dialect}.sql" in refused.value.hint
    with pytest.raises(SQLiteOnly) as refused:
        parse(dialect, text, f"001_a.{dialect}.sql")
    assert "for this engine alone" not in refused.value.hint


# Batches and assertions.

BATCHES = [
    ("mysql", "UPDATE t SET a = 1 WHERE a IS NULL LIMIT :batch;"),
    ("mysql", "DELETE FROM t WHERE a = @a ORDER BY id LIMIT :batch;"),
    ("postgresql", "UPDATE t SET a = b::int WHERE id IN (SELECT id FROM t WHERE d @> '{}' AND e ? 'a' LIMIT :batch);"),
    ("postgresql", "WITH c AS (SELECT $$:x$$, 1 /* /* :y */ */ FROM t LIMIT :batch) DELETE FROM t USING c;"),
]


@pytest.mark.parametrize(("dialect", "sql"), BATCHES)
def test_a_statement_runs_in_batches_in_each_dialects_own_form(parse: Parse, dialect: str, sql: str) -> None:
    up = parse(dialect, f"-- migrate:batch 10\n{sql}").up
    assert up.in_batches
    assert up.only_rows


@pytest.mark.parametrize(
    ("dialect", "sql", "hint"),
    [
        ("mysql", "UPDATE t SET a = 1 LIMIT 5;", "… WHERE … LIMIT :batch"),
        ("postgresql", "UPDATE t SET a = 1;", "IN (SELECT id FROM … WHERE … LIMIT :batch)"),
    ],
)
def test_a_batch_without_a_limit_says_how_one_is_written(parse: Parse, dialect: str, sql: str, hint: str) -> None:
    with pytest.raises(BatchInvalid) as refused:
        parse(dialect, f"-- migrate:batch 10\n{sql}")
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("dialect", "query"),
    [
        ("postgresql", "SELECT count(*) = 0 FROM t WHERE a = $$;$$::text"),
        ("mysql", "SELECT 1 FROM t WHERE a = 'it\\'s;'"),
    ],
)
def test_an_assertion_is_read_in_its_dialect(parse: Parse, dialect: str, query: str) -> None:
    assert texts(parse(dialect, f"SELECT 1;\n-- migrate:assert {query}\n").up) == ["SELECT 1;", query]


@pytest.mark.parametrize(
    ("sql", "only_rows"),
    [
        ("INSERT INTO t VALUES (1); UPDATE t SET a = 1; DELETE FROM t; REPLACE INTO t VALUES (1); SELECT 1;", True),
        ("WITH c AS (SELECT 1) SELECT * FROM c;\n-- migrate:assert SELECT 1 = 1\n", True),
        ("INSERT INTO t VALUES (1); CREATE TABLE u (a INT);", False),
        ("/*!40000 ALTER TABLE t DISABLE KEYS */; INSERT INTO t VALUES (1);", False),
        ("CALL p();", False),
        ("BEGIN NOT ATOMIC DELETE FROM t; END;", False),
    ],
)
def test_it_is_known_which_files_change_rows_alone(parse: Parse, sql: str, only_rows: bool) -> None:
    assert parse("mysql", sql).up.only_rows is only_rows


# What else depends on the dialect.


def test_a_head_is_read_in_its_dialect(tmp_path: Path) -> None:
    text = "# it's a comment\n-- migrate:requires 7\nSELECT 1;"
    assert [each.word for each in heads.read(file_of(tmp_path / "008_a.sql", text, "mysql")).requires] == ["7"]


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_a_python_file_is_one_for_each_engine(parse: Parse, dialect: str) -> None:
    up = parse(dialect, "def up(connection):\n    pass\n", "001_a.py").up
    (statement,) = up.statements()
    assert (up.is_python, up.only_rows, statement.keyword, statement.dialect) == (True, False, "DEF", dialect)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("postgresql", "-- migrate:up\nSELECT 1;\n-- migrate:down\nCOPY t FROM stdin;\n1\n\\.\nDO $$ BEGIN; END $$;\n"),
        ("mysql", "-- migrate:up\nSELECT 1;\n-- migrate:down\nDELIMITER $$\nSELECT 'a\\'b;' $$\n"),
    ],
)
def test_a_script_that_was_kept_is_read_as_its_file_was(parse: Parse, dialect: str, text: str) -> None:
    down = parse(dialect, text).down
    assert down
    kept = parse_stored(down.text(), "001_a.sql", "down", dialect=dialect)
    assert list(kept.statements()) == list(down.statements())


def test_a_section_does_not_depend_on_the_delimiter_of_the_one_above(parse: Parse) -> None:
    text = "-- migrate:up\nDELIMITER $$\nSELECT 1 $$\n{0}-- migrate:down\nSELECT 2;\n"
    with pytest.raises(DelimiterLeft):
        parse("mysql", text.format(""))
    assert texts(parse("mysql", text.format("DELIMITER ;\n")).down) == ["SELECT 2;"]


def test_the_examples_of_the_documents_are_whole_and_fit(parse: Parse) -> None:
    page = (Path(__file__).parents[1] / "docs" / "migrations.md").read_text(encoding="utf-8")
    section = page.split("## Files for PostgreSQL and MySQL")[1].split("\n## ")[0]
    index, trigger = (each.split("```")[0] for each in section.split("```sql\n")[1:])
    assert parse("postgresql", index).up.count == 1
    assert parse("mysql", trigger).up.count == 1
