"""An assertion stops a migration when its query finds a row, or a condition that is not true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from financial_agent.migrator import check, rehearsal, rollback, runner
from financial_agent.migrator.assertions import is_condition
from financial_agent.migrator.control import Control
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import AssertionInvalid, LedgerTouched, SectionEmpty
from financial_agent.migrator.errors_run import AssertionFailed, MigrationFailed
from financial_agent.migrator.lexer import Statement
from tests.helpers import ROOT, Site

TABLE = "CREATE TABLE chat (id INTEGER PRIMARY KEY, role TEXT);\nINSERT INTO chat VALUES (1, 'user'), (2, NULL);\n"


def site_with(root: Path, sql: str) -> Site:
    return Site(root / "site", {"001_chat": TABLE, "002_change": sql})


def migrate(site: Site) -> None:
    runner.migrate(str(site.database), site.directory)


def failed(site: Site) -> MigratorError:
    with pytest.raises(MigratorError) as caught:
        migrate(site)
    return caught.value


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM chat WHERE role = 'admin'",
        "SELECT id FROM chat WHERE role = 'admin';",
        "SELECT count(*) = 2 FROM chat",
        "SELECT EXISTS (SELECT 1 FROM chat)",
        "SELECT NOT EXISTS (SELECT 1 FROM chat WHERE id > 2)",
        "WITH r AS (SELECT role FROM chat) SELECT count(*) BETWEEN 1 AND 5 AS few FROM r",
        "SELECT count(role) FILTER (WHERE id > 0) >= 1 FROM chat",
        "SELECT max(id) IN (2, 3) FROM chat",
        "SELECT (SELECT count(*) FROM chat) <> 0 -- there is something",
    ],
)
def test_it_holds_when_there_is_no_row_or_a_true_condition(tmp_path: Path, query: str) -> None:
    site = site_with(tmp_path, f"-- migrate:assert {query}\nDELETE FROM chat WHERE id = 2;")
    migrate(site)
    assert site.applied() == ["001_chat", "002_change"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("SELECT id FROM chat WHERE role IS NULL", "1 row of (id)"),
        ("SELECT id FROM chat WHERE id = 1", "1 row of (id)"),
        ("SELECT id, role FROM chat", "2 rows of (id, role)"),
        ("SELECT count(*) FROM chat", "1 row of (count(*))"),
        ("SELECT count(*) = 0 FROM chat", "the value is false"),
        ("SELECT role = 'user' FROM chat WHERE id = 2", "the value is NULL"),
        ("SELECT id > 0 AS positive FROM chat", "2 rows of (positive)"),
        ("SELECT id = 1, 1 FROM chat WHERE id = 1", "1 row of (id = 1, 1)"),
        ("SELECT CASE WHEN id = 1 THEN 'x' END FROM chat WHERE id = 1", "1 row of "),
        ("SELECT 1 = 1 UNION SELECT 1 = 1", "1 row of (1 = 1)"),
        ("VALUES (1)", "1 row of (column1)"),
        ("WITH a AS (SELECT 1) SELECT * FROM a, chat", "2 rows of (1, id, role)"),
    ],
)
def test_it_fails_with_the_shape_of_what_it_found(tmp_path: Path, query: str, found: str) -> None:
    site = site_with(tmp_path, f"DELETE FROM chat WHERE id > 2;\n-- migrate:assert {query}")
    error = failed(site)
    assert isinstance(error, AssertionFailed)
    assert found in str(error.fields["found"])
    assert error.location
    assert (error.location.line, error.location.column) == (2, 12)
    assert site.applied() == ["001_chat"]


def test_a_failure_rolls_back_what_stands_above_and_is_told_by_the_history(tmp_path: Path) -> None:
    site = site_with(tmp_path, "UPDATE chat SET role = 'secret';\n-- migrate:assert SELECT role FROM chat\n")
    error = failed(site)
    assert error.state.endswith("nothing of the failed run of 002_change.sql remains")
    assert site.rows("SELECT role FROM chat ORDER BY id") == [("user",), (None,)]
    (told,) = site.rows("SELECT error FROM _migration_history WHERE event = 'failure'")
    assert "FA307" in told[0]
    assert "secret" not in told[0] + str(error)


def test_it_is_run_where_it_stands(tmp_path: Path) -> None:
    before = "-- migrate:assert SELECT count(*) = 1 FROM chat WHERE role IS NULL\n"
    behind = "-- migrate:assert SELECT id FROM chat WHERE role IS NULL\n"
    site = site_with(tmp_path, f"{before}UPDATE chat SET role = 'user' WHERE role IS NULL;\n{behind}{behind}")
    migrate(site)
    assert site.rows("SELECT statements, rows_changed FROM _migration_history WHERE id = 2") == [(4, 1)]


def test_a_down_section_asserts_also_as_the_ledger_keeps_it(tmp_path: Path) -> None:
    up = "-- migrate:up\nUPDATE chat SET role = 'x' WHERE id = 2;\n"
    down = "-- migrate:down\nUPDATE chat SET role = NULL WHERE role = 'x';\n-- migrate:assert SELECT id FROM chat\n"
    site = site_with(tmp_path, up + down)
    migrate(site)
    (site.directory / "002_change.sql").unlink()
    with pytest.raises(AssertionFailed):
        rollback.rollback(str(site.database), site.directory)
    assert site.applied() == ["001_chat", "002_change"]
    assert site.value("SELECT role FROM chat WHERE id = 2") == "x"


@pytest.mark.parametrize("count", [100_000])
def test_what_it_finds_is_counted_and_not_kept(tmp_path: Path, count: int) -> None:
    many = f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {count}) SELECT n, 'text' FROM c"
    error = failed(site_with(tmp_path, f"SELECT 1;\n-- migrate:assert {many}"))
    assert error.fields["found"] == "100,000 rows of (n, 'text')"


def test_an_error_of_the_query_has_its_place(tmp_path: Path) -> None:
    error = failed(site_with(tmp_path, "SELECT 1;\n  --  migrate:assert   SELECT id, rolle FROM chat\n"))
    assert isinstance(error, MigrationFailed)
    assert error.location
    assert (error.location.line, error.location.column) == (2, 35)


def test_without_a_transaction_it_says_what_is_in_effect(tmp_path: Path) -> None:
    sql = (
        "-- migrate:up transaction:false\n-- migrate:assert SELECT 1 = 1\nDELETE FROM chat;\n-- migrate:assert SELECT 1"
    )
    site = site_with(tmp_path, sql)
    error = failed(site)
    assert isinstance(error, AssertionFailed)
    assert error.state.endswith("of 002_change.sql 1 of 3 statements took effect")
    assert site.value("SELECT count(*) FROM chat") == 0


def test_one_that_fails_first_leaves_nothing_without_a_transaction_either(tmp_path: Path) -> None:
    site = site_with(tmp_path, "-- migrate:up transaction:false\n-- migrate:assert SELECT 1\nDELETE FROM chat;\n")
    assert "nothing of the failed run" in failed(site).state


def test_a_replay_on_empty_tables_passes_it_over(tmp_path: Path) -> None:
    site = site_with(tmp_path, "-- migrate:assert SELECT count(*) = 2 FROM chat\nCREATE TABLE t (x);")
    migrate(site)
    assert site.flask("verify").returncode == 0


def test_a_rehearsal_asks_it_on_the_copy(tmp_path: Path) -> None:
    site = site_with(tmp_path, "DELETE FROM chat WHERE id = 2;\n-- migrate:assert SELECT id FROM chat\n")
    rehearsed = rehearsal.migrate(str(site.database), site.directory)
    assert isinstance(rehearsed.failure, AssertionFailed)


def test_a_check_holds_its_query_against_the_schema_and_not_against_rows_that_it_made_up(tmp_path: Path) -> None:
    sql = "-- migrate:up\n-- migrate:assert SELECT {} FROM chat\nCREATE TABLE t (x);\n-- migrate:down\nDROP TABLE t;\n"
    site = Site(tmp_path / "site", {"001_chat": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE chat;\n"})
    for expression, is_fine in (("count(*) = 0", True), ("rolle", False)):
        site.write({"002_t": sql.format(expression)})
        found = check.check(site.directory, control=Control()).findings
        assert ("no such column" in str(found)) != is_fine
        assert "FA307" not in str(found)


def test_it_destroys_nothing_so_no_backup_is_due(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_chat": TABLE})
    migrate(site)
    site.write({"002_t": "-- migrate:assert WITH a AS (SELECT 1) SELECT * FROM a WHERE 0\nCREATE TABLE t (x);"})
    assert not rehearsal.migrate(str(site.database), site.directory).is_destructive


def test_show_sql_prints_it_as_it_is_written(tmp_path: Path) -> None:
    site = site_with(tmp_path, "-- migrate:assert SELECT 1 = 1\nDELETE FROM chat;\n")
    shown = site.flask("migrate", "--dry-run", "--show-sql").stdout
    assert "-- migrate:assert SELECT 1 = 1\nDELETE FROM chat;" in shown


def test_the_example_of_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "migrations.md").read_text().split("### Assertions")[1]
    example, error = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)[:2]
    table = "CREATE TABLE chat_messages (id INTEGER PRIMARY KEY, role TEXT);"
    rows = "INSERT INTO chat_messages VALUES (1, 'bot'), (2, '{0}'), (3, '{0}'), (4, '{0}');"
    good = Site(tmp_path / "good", {"004_chat": table + rows.format("user"), "005_name_the_assistant": example})
    migrate(good)
    assert good.value("SELECT role FROM chat_messages WHERE id = 1") == "assistant"
    bad = Site(tmp_path / "bad", {"004_chat": table + rows.format("?"), "005_name_the_assistant": example})
    assert bad.migrate().stderr.startswith(error.strip())


# What is none.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-- nothing",
        "DELETE FROM chat",
        "WITH a AS (SELECT 1) DELETE FROM chat",
        "WITH a AS (SELECT 1) REPLACE INTO chat VALUES (1, 2)",
        "PRAGMA user_version",
        "EXPLAIN SELECT 1",
        "SELECT 1; DELETE FROM chat",
        "SELECT 1; SELECT 2;",
        "SELECT 'open",
        "SELECT 1 -- migrate:up",
    ],
)
def test_what_is_not_one_query_is_refused_before_anything_runs(tmp_path: Path, text: str) -> None:
    site = site_with(tmp_path, f"SELECT 1;\n-- migrate:assert {text}\n")
    error = failed(site)
    assert isinstance(error, AssertionInvalid)
    assert error.location
    assert error.location.line == 2
    assert not site.database.exists()


def test_above_the_sections_it_is_refused(tmp_path: Path) -> None:
    site = site_with(tmp_path, "-- migrate:assert SELECT 1 = 1\n-- migrate:up\nSELECT 1;\n")
    assert isinstance(failed(site), AssertionInvalid)


def test_a_section_of_nothing_else_is_empty(tmp_path: Path) -> None:
    assert isinstance(failed(site_with(tmp_path, "-- migrate:assert SELECT 1 = 1\n")), SectionEmpty)
    site = site_with(tmp_path / "down", "-- migrate:up\nSELECT 1;\n-- migrate:down\n-- migrate:assert SELECT 1 = 1\n")
    migrate(site)
    assert not runner.status(str(site.database), site.directory).items[1].reversible


def test_the_ledger_is_no_concern_of_it(tmp_path: Path) -> None:
    sql = "SELECT 1;\n-- migrate:assert SELECT 1 FROM _migrations WHERE 0\n"
    assert isinstance(failed(site_with(tmp_path, sql)), LedgerTouched)


@pytest.mark.parametrize(
    "expression",
    ["x -> '$.a'", "x ->> '$.a'", "1 << 2", "8 >> 1", '"a = b"', "'a' || '<'", "max(a = b)", "(SELECT a = 1)"],
)
def test_what_only_looks_like_a_comparison_is_no_condition(expression: str) -> None:
    assert not is_condition(Statement(f"SELECT {expression} FROM t", "SELECT", 1, 1))


@pytest.mark.parametrize(
    "expression", ["a < 1", "a >> 1 > 0", "x ->> '$.a' = 1", "a IS NOT b", "NOT a", "a ISNULL", "a like 'x'"]
)
def test_what_compares_is_a_condition(expression: str) -> None:
    assert is_condition(Statement(f"SELECT {expression} FROM t", "SELECT", 1, 1))
