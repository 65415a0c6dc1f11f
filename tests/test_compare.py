"""What differs between the rows of two states of a database: counts that are exact, and no row's content."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import databases
from financial_agent.migrator.databases import Patience, StatementError, Stopped, TableChange
from tests.helpers import rows_of, snapshot

Compare = Callable[..., list[TableChange]]
NUMBERS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count})"


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Compares a database with what statements make of a copy of it."""

    def compare(setup: str, change: str, tables: Collection[str] | None = None) -> list[TableChange]:
        before, after = tmp_path / "before.db", tmp_path / "after.db"
        script(before, setup)
        shutil.copy(before, after)
        script(after, change)
        return databases.compare(str(before), str(after), tables, Patience(1))

    return compare


def script(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(f"BEGIN; {sql}; COMMIT;")


def rebuilt(table: str, definition: str, select: str) -> str:
    """The statements that give a table another definition."""
    return (
        f"CREATE TABLE rebuilt ({definition}); INSERT INTO rebuilt SELECT {select} FROM {table};"
        f" DROP TABLE {table}; ALTER TABLE rebuilt RENAME TO {table}"
    )


PEOPLE = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, town TEXT);"
PEOPLE += "INSERT INTO people VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', NULL)"


def test_equal_states_differ_in_nothing(compare: Compare) -> None:
    assert compare(PEOPLE, "UPDATE people SET name = name") == []


def test_inserted_updated_and_deleted_rows_are_counted_and_the_values_by_column(compare: Compare) -> None:
    change = "UPDATE people SET name = 'z' WHERE id < 3; UPDATE people SET town = 'z' WHERE id = 2;"
    change += "DELETE FROM people WHERE id = 3; INSERT INTO people VALUES (4, 'd', 'd'), (5, 'e', 'e')"
    assert compare(PEOPLE, change) == [TableChange("people", 2, 2, 1, (("name", 2), ("town", 1)))]


def test_only_the_tables_that_are_asked_for_are_looked_at(compare: Compare) -> None:
    setup = "CREATE TABLE One (x); CREATE TABLE two (x); INSERT INTO One VALUES (1)"
    change = "DELETE FROM One; INSERT INTO two VALUES (1)"
    assert compare(setup, change, {"one"}) == [TableChange("One", deleted=1)]


def test_a_table_that_neither_state_has_is_nothing(compare: Compare) -> None:
    assert compare(PEOPLE, "DELETE FROM people", {"missing"}) == []


@pytest.mark.parametrize(
    "definition",
    [
        "k INTEGER PRIMARY KEY, v",
        "k TEXT PRIMARY KEY, v",
        "k, v, PRIMARY KEY (k)",
        "k BLOB PRIMARY KEY, v",
    ],
)
def test_a_row_is_the_one_with_the_same_key(compare: Compare, definition: str) -> None:
    setup = f"CREATE TABLE t ({definition}); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"
    change = "UPDATE t SET v = 9 WHERE k = 2; DELETE FROM t WHERE k = 3; INSERT INTO t VALUES (4, 4)"
    assert compare(setup, change) == [TableChange("t", 1, 1, 1, (("v", 1),))]


@pytest.mark.parametrize("suffix", ["", "WITHOUT ROWID"])
def test_a_key_of_several_columns_tells_rows_apart(compare: Compare, suffix: str) -> None:
    setup = (
        f"CREATE TABLE t (v, b, a, PRIMARY KEY (a, b)) {suffix}; INSERT INTO t VALUES (1, 1, 1), (2, 2, 1), (3, 1, 2)"
    )
    assert compare(setup, "UPDATE t SET v = 9 WHERE a = 1 AND b = 2; DELETE FROM t WHERE a = 2") == [
        TableChange("t", 0, 1, 1, (("v", 1),))
    ]


def test_rows_whose_key_is_null_are_told_apart_by_their_values(compare: Compare) -> None:
    setup = "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 3), ('a', 1)"
    assert compare(setup, "UPDATE t SET v = 9 WHERE v = 2") == [TableChange("t", inserted=1, deleted=1)]


def test_a_key_that_changes_in_its_case_alone_counts_as_updated(compare: Compare) -> None:
    setup = "CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY, v); INSERT INTO t VALUES ('A', 1), ('b', 1)"
    assert compare(setup, "UPDATE t SET k = 'a' WHERE k = 'A'") == [TableChange("t", updated=1, values=(("k", 1),))]


def test_in_a_table_without_a_primary_key_rows_count_as_often_as_they_occur(compare: Compare) -> None:
    setup = "CREATE TABLE t (x, y); INSERT INTO t VALUES (1, 1), (1, 1), (1, 1), (2, NULL)"
    change = "DELETE FROM t WHERE rowid = 1; UPDATE t SET y = 5 WHERE x = 2; INSERT INTO t VALUES (3, 3)"
    assert compare(setup, change) == [TableChange("t", inserted=2, deleted=2)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'007'", "7"),
        ("'1'", "1"),
        ("1", "x'01'"),
        ("'a'", "'A'"),
        ("'a'", "'a '"),
        ("x'00'", "x'0000'"),
        ("'a' || char(0) || 'b'", "'a' || char(0) || 'c'"),
        ("CAST(x'FF' AS TEXT)", "CAST(x'FE' AS TEXT)"),
        ("9e999", "-9e999"),
        ("9e999 - 9e999", "0"),
        ("9007199254740993", "9007199254740992.0"),
        ("NULL", "''"),
        ("1", "NULL"),
    ],
)
def test_a_value_that_becomes_another_one_is_seen(compare: Compare, old: str, new: str) -> None:
    setup = f"CREATE TABLE t (id INTEGER PRIMARY KEY, v COLLATE NOCASE); INSERT INTO t VALUES (1, {old})"
    assert compare(setup, f"UPDATE t SET v = {new}") == [TableChange("t", updated=1, values=(("v", 1),))]
    setup = setup.replace("TABLE t (id INTEGER PRIMARY KEY", "TABLE u (id").replace("INTO t", "INTO u")
    assert compare(setup, f"UPDATE u SET v = {new}", {"u"}) == [TableChange("u", inserted=1, deleted=1)]


@pytest.mark.parametrize(("old", "new"), [("1", "1.0"), ("-0.0", "0.0"), ("9e999 - 9e999", "NULL")])
def test_equal_numbers_are_equal_however_they_are_stored(compare: Compare, old: str, new: str) -> None:
    setup = f"CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, {old})"
    assert compare(setup, f"UPDATE t SET v = {new}") == []


def test_values_that_a_new_column_type_changes_are_counted(compare: Compare) -> None:
    setup = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, '007'), (2, 'x')"
    change = rebuilt("t", "id INTEGER PRIMARY KEY, v INTEGER", "*")
    assert compare(setup, change) == [TableChange("t", updated=1, values=(("v", 1),))]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("k TEXT PRIMARY KEY", "k INTEGER PRIMARY KEY"),
        ("k TEXT PRIMARY KEY COLLATE NOCASE", "k TEXT PRIMARY KEY"),
        ("k TEXT PRIMARY KEY", "k TEXT PRIMARY KEY COLLATE NOCASE"),
        ("k INTEGER PRIMARY KEY", "k TEXT PRIMARY KEY"),
    ],
)
def test_a_large_table_whose_key_changes_its_type_is_not_searched_row_by_row(
    compare: Compare, old: str, new: str
) -> None:
    """It would take hours."""
    setup = f"CREATE TABLE t ({old}, v); INSERT INTO t {NUMBERS.format(count=100_000)} SELECT n, n FROM c"
    (found,) = compare(setup, f"{rebuilt('t', f'{new}, v', '*')}; DELETE FROM t WHERE v > 99990") or [None]
    assert found
    assert found.deleted - found.inserted == 10


def test_a_large_table_is_compared_by_its_keys(compare: Compare) -> None:
    setup = f"CREATE TABLE t (a, b, v, PRIMARY KEY (b, a)); INSERT INTO t {NUMBERS.format(count=200_000)}"
    setup += " SELECT n, 'x' || n, 1 FROM c"
    change = "UPDATE t SET v = 2 WHERE a % 2; DELETE FROM t WHERE a % 2 = 0"
    assert compare(setup, change) == [TableChange("t", 0, 100_000, 100_000, (("v", 100_000),))]


@pytest.mark.parametrize("key", ["id INTEGER PRIMARY KEY", "id"])
def test_the_values_of_a_column_that_is_gone_are_lost(compare: Compare, key: str) -> None:
    setup = f"CREATE TABLE t ({key}, v, w); INSERT INTO t VALUES (1, 1, 1), (2, NULL, 2), (3, 3, 3)"
    assert compare(setup, "ALTER TABLE t DROP COLUMN v") == [TableChange("t", values=(("v", 2),))]


def test_a_new_column_changes_no_row(compare: Compare) -> None:
    assert compare(PEOPLE, "ALTER TABLE people ADD COLUMN age DEFAULT 7") == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE people RENAME COLUMN name TO full_name",
        "ALTER TABLE people RENAME COLUMN id TO number",
        "ALTER TABLE people RENAME COLUMN name TO NAME",
        rebuilt("people", "town TEXT, name TEXT, id INTEGER PRIMARY KEY", "town, name, id"),
    ],
)
def test_a_column_that_has_another_name_or_place_has_lost_nothing(compare: Compare, change: str) -> None:
    assert compare(PEOPLE, change, {"people"}) == []


def test_a_column_that_is_made_in_the_place_of_another_lacks_its_values(compare: Compare) -> None:
    change = "ALTER TABLE people DROP COLUMN town; ALTER TABLE people ADD COLUMN street TEXT"
    assert compare(PEOPLE, change) == [TableChange("people", updated=2, values=(("town", 2),))]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE people RENAME TO persons",
        "ALTER TABLE people RENAME TO x; ALTER TABLE x RENAME TO PEOPLE",
        "CREATE TABLE other (x); CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT, town TEXT);"
        " INSERT INTO persons SELECT * FROM people; DROP TABLE people",
    ],
)
def test_a_table_that_has_another_name_has_lost_nothing(compare: Compare, change: str) -> None:
    assert compare(PEOPLE, change, {"people"}) == []


def test_the_rows_of_a_table_that_only_one_state_has_are_counted(compare: Compare) -> None:
    """Whoever renames a table does not tell its new name: it is found although nobody asked for it."""
    change = "ALTER TABLE people RENAME TO persons; DELETE FROM persons WHERE id = 1"
    assert compare(PEOPLE, change, {"people"}) == [
        TableChange("people", deleted=3),
        TableChange("persons", inserted=2),
    ]


def test_generated_columns_are_no_values_of_their_own(compare: Compare) -> None:
    setup = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, s AS (v + 1) STORED, w AS (v * 2)); INSERT INTO t VALUES (1, 1)"
    assert compare(setup, "UPDATE t SET v = 5") == [TableChange("t", updated=1, values=(("v", 1),))]


def test_the_first_rows_of_a_table_without_a_primary_key_are_counted(compare: Compare) -> None:
    assert compare("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)") == [TableChange("t", inserted=1)]


def test_a_column_may_be_named_rowid(compare: Compare) -> None:
    setup = "CREATE TABLE t (rowid, x); INSERT INTO t VALUES (5, 1), (5, 2)"
    assert compare(setup, "UPDATE t SET x = 3 WHERE x = 2") == [TableChange("t", inserted=1, deleted=1)]


def test_names_may_hold_quotes_spaces_and_dots(compare: Compare) -> None:
    setup = 'CREATE TABLE "a""b c.d" ("x""y" PRIMARY KEY, "z.w"); INSERT INTO "a""b c.d" VALUES (1, 2)'
    assert compare(setup, 'UPDATE "a""b c.d" SET "z.w" = 3') == [
        TableChange('a"b c.d', updated=1, values=(("z.w", 1),))
    ]


@pytest.mark.parametrize("columns", [800, 1500])
def test_a_table_may_have_very_many_columns(compare: Compare, columns: int) -> None:
    names = ", ".join(f"c{number}" for number in range(columns))
    setup = f"CREATE TABLE t (id INTEGER PRIMARY KEY, {names}); INSERT INTO t (id) VALUES (1), (2)"
    (found,) = compare(setup, "UPDATE t SET c7 = 1 WHERE id = 1")
    assert found.updated or (found.inserted, found.deleted) == (1, 1)


@pytest.mark.parametrize("tables", [None, {"papers"}])
def test_the_rows_of_a_virtual_table_count_and_those_that_it_keeps_for_itself_do_not(
    compare: Compare, tables: set[str] | None
) -> None:
    setup = "CREATE VIRTUAL TABLE papers USING fts5 (title, body); INSERT INTO papers VALUES ('a', 'b'), ('c', 'd')"
    assert compare(setup, "DELETE FROM papers WHERE title = 'a'", tables) == [TableChange("papers", deleted=1)]


def test_a_virtual_table_that_is_made_or_dropped_counts_by_its_rows(compare: Compare) -> None:
    made = "CREATE VIRTUAL TABLE papers USING fts5 (body); INSERT INTO papers VALUES ('a')"
    assert compare("SELECT 1", made, {"papers"}) == [TableChange("papers", inserted=1)]
    assert compare(made, "DROP TABLE papers", {"papers"}) == [TableChange("papers", deleted=1)]


def test_a_virtual_table_whose_module_is_missing_is_passed_over(compare: Compare) -> None:
    setup = "CREATE TABLE t (x); PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES"
    setup += " ('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING missing (x)')"
    assert compare(setup, "INSERT INTO t VALUES (1)") == [TableChange("t", inserted=1)]


def test_the_ledger_and_what_is_sqlites_own_do_not_count(compare: Compare) -> None:
    setup = "CREATE TABLE _migrations (x); CREATE TABLE _migration_history (x);"
    setup += "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)"
    change = "INSERT INTO _migrations VALUES (1); INSERT INTO _migration_history VALUES (1); ANALYZE;"
    assert compare(setup, f"{change} INSERT INTO t VALUES (5); DELETE FROM t") == []


def test_comparing_can_be_stopped(tmp_path: Path) -> None:
    database = tmp_path / "one.db"
    script(database, f"CREATE TABLE t (n, text); {rows_of(50_000, 't')}")
    with pytest.raises(Stopped):
        databases.compare(str(database), str(database), None, Patience(1, lambda waiting_for: True))


def test_comparing_changes_neither_database(compare: Compare, tmp_path: Path) -> None:
    compare(PEOPLE, "DELETE FROM people")
    before = snapshot(tmp_path)
    databases.compare(str(tmp_path / "before.db"), str(tmp_path / "after.db"), None, Patience(1))
    assert snapshot(tmp_path) == before


def test_a_file_that_is_damaged_is_an_error_and_no_traceback(compare: Compare, tmp_path: Path) -> None:
    compare(PEOPLE, "SELECT 1")
    (tmp_path / "after.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StatementError):
        databases.compare(str(tmp_path / "before.db"), str(tmp_path / "after.db"), None, Patience(1))
