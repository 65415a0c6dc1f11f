"""The house rules: what breaks each of them and what does not, and how a file says that one does not count."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator.databases import Patience
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors_files import DirectiveInvalid
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.lint import silence
from financial_agent.migrator.lint.catalog import RULES
from financial_agent.migrator.lint.features import FEATURES
from financial_agent.migrator.lint.lint import lint
from financial_agent.migrator.lint.rule import BASE
from financial_agent.migrator.lint.words import words_of
from financial_agent.migrator.script import read

CHAT = Path(__file__).parents[1] / "financial_agent" / "migrations"
OLDEST = (3, 35)
ORDERS = dict([BASE])
COUNTED = [(code, kind) for code in RULES for kind in ("wrong", "right")]


def sifted(folder: Path, minimum: tuple[int, ...] | None = OLDEST) -> silence.Sifted:
    migrations = [read(file) for file in discover(folder, "sqlite")]
    ignores = [each for migration in migrations for each in silence.ignores(migration)]
    return silence.sift(lint(migrations, minimum, Patience()), ignores, RULES)


def findings(folder: Path, files: Mapping[str, str], minimum: tuple[int, ...] | None = OLDEST) -> Sequence[Finding]:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sifted(folder, minimum).findings


def broken(folder: Path, up: str, down: str = "SELECT 1;", head: str = "") -> list[str]:
    """The rules that a second migration breaks, behind the one that makes customers and orders."""
    text = (
        f"-- A change that the tests make for their own ends.\n{head}\n-- migrate:up\n{up}\n-- migrate:down\n{down}\n"
    )
    return [found.code for found in findings(folder, {**ORDERS, "002_change.sql": text})]


def test_the_chat_stores_own_migrations_break_no_rule_and_silence_none() -> None:
    assert sifted(CHAT) == silence.Sifted((), ())


@pytest.mark.parametrize(("code", "kind"), COUNTED, ids=[f"{code}-{kind}" for code, kind in COUNTED])
def test_the_wrong_example_of_a_rule_breaks_it_alone_and_the_right_one_breaks_none(
    code: str, kind: str, tmp_path: Path
) -> None:
    files = dict([BASE, *(RULES[code].wrong if kind == "wrong" else RULES[code].right)])
    found = {each.code for each in findings(tmp_path, files)}
    assert found == ({code} if kind == "wrong" else set())


@pytest.mark.parametrize("code", RULES)
def test_the_examples_of_a_rule_run_on_an_empty_database(code: str) -> None:
    """They are meant to be copied. The wrong ones fail at most where rows are, or where SQLite is too old."""
    for files in (RULES[code].wrong, RULES[code].right):
        with closing(sqlite3.connect(":memory:")) as connection:
            for _, text in (BASE, *files):
                connection.executescript(text.partition("-- migrate:down")[0])


# One change in one file.


@pytest.mark.parametrize(
    "up",
    [
        "CREATE TABLE IF NOT EXISTS a (id INTEGER PRIMARY KEY); CREATE TABLE IF NOT EXISTS b (a_id INTEGER PRIMARY KEY"
        " REFERENCES a (id));",
        "ALTER TABLE orders ADD COLUMN note TEXT; CREATE INDEX IF NOT EXISTS by_note ON orders (note);",
        "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, what TEXT); CREATE TRIGGER IF NOT EXISTS logged"
        " AFTER INSERT ON orders BEGIN INSERT INTO log (what) VALUES ('new'); END;",
        "CREATE TABLE IF NOT EXISTS kinds (name TEXT PRIMARY KEY); INSERT INTO kinds (name) VALUES ('a'), ('b');",
        "CREATE VIEW IF NOT EXISTS dear AS SELECT id FROM orders;"
        " CREATE INDEX IF NOT EXISTS by_total ON orders (total);",
    ],
    ids=["parent and child", "column and index", "trigger that writes it", "rows of a new table", "view of it"],
)
def test_statements_that_name_each_others_tables_are_one_change(up: str, tmp_path: Path) -> None:
    assert "FA601" not in broken(tmp_path, up)


@pytest.mark.parametrize(
    "up",
    [
        "ALTER TABLE orders ADD COLUMN note TEXT; ALTER TABLE customers ADD COLUMN note TEXT;",
        "CREATE TABLE IF NOT EXISTS a (c INTEGER PRIMARY KEY REFERENCES customers);"
        " CREATE TABLE IF NOT EXISTS b (c INTEGER PRIMARY KEY REFERENCES customers);",
        "DROP INDEX IF EXISTS orders_by_customer; ALTER TABLE customers ADD COLUMN note TEXT;",
    ],
    ids=["two columns", "two children of a table that stays as it is", "index of another table"],
)
def test_statements_about_tables_that_do_not_name_each_other_are_two_changes(up: str, tmp_path: Path) -> None:
    assert "FA601" in broken(tmp_path, up)


def test_rows_that_a_trigger_of_the_same_file_keeps_right_are_part_of_the_change(tmp_path: Path) -> None:
    change = "UPDATE orders SET total = 0 WHERE total < 0;"
    trigger = (
        "CREATE TRIGGER IF NOT EXISTS floor AFTER INSERT ON orders BEGIN"
        " UPDATE orders SET total = 0 WHERE total < 0; END;"
    )
    assert "FA602" in broken(tmp_path, f"CREATE INDEX IF NOT EXISTS by_total ON orders (total);{change}")
    assert "FA602" not in broken(tmp_path, trigger + change)


# Repeatable, documented, numbered.


def test_what_cannot_be_repeated_is_an_error_outside_a_transaction_and_a_note_inside(tmp_path: Path) -> None:
    sql = "CREATE INDEX by_total ON orders (total);"
    files = {
        **ORDERS,
        "002_a.sql": f"-- Why it is made.\n-- migrate:up\n{sql}",
        "003_b.sql": f"-- Why it is made again.\n-- migrate:up transaction:false\nVACUUM;\n{sql.replace('by', 'of')}",
    }
    found = [(each.filename, each.severity) for each in findings(tmp_path, files) if each.code == "FA603"]
    assert found == [("002_a.sql", "note"), ("003_b.sql", "error")]


@pytest.mark.parametrize(
    ("head", "is_documented"),
    [
        ("", False),
        ("-- Add notes", False),
        ("-- add_notes\n--\n", False),
        ("-- Add notes: TODO", False),
        ("-- Notes are what was said on the phone.", True),
        ("/* What was said on the phone. */", True),
        ("-- Add notes\n\n-- migrate:up\n-- What was said on the phone.", True),
    ],
)
def test_a_comment_above_the_first_statement_has_to_say_more_than_the_files_name(
    head: str, is_documented: bool, tmp_path: Path
) -> None:
    sql = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY); -- what was said on the phone"
    found = findings(tmp_path, {"001_add_notes.sql": f"{head}\n{sql}\n-- and on paper, too"})
    assert ["FA605"] * (not is_documented) == [each.code for each in found]


def test_numbers_have_no_gaps_and_timestamps_have_nothing_else(tmp_path: Path) -> None:
    text = "-- Why this one is made.\nCREATE TABLE IF NOT EXISTS {} (id INTEGER PRIMARY KEY);"
    names = ["001_a.sql", "002_b.sql", "005_c.sql", "006_d.sql"]
    numbered = findings(tmp_path, {name: text.format(name[4]) for name in names})
    assert [(each.code, each.filename) for each in numbered] == [("FA606", "005_c.sql")]
    assert numbered[0].message == "the numbers 003 to 004 are missing before it"


def test_timestamps_have_gaps_by_nature(tmp_path: Path) -> None:
    text = "-- Why this one is made.\nCREATE TABLE IF NOT EXISTS {} (id INTEGER PRIMARY KEY);"
    names = ["20250101120000_a.sql", "20250301120000_b.sql"]
    assert findings(tmp_path, {name: text.format(name[15]) for name in names}) == ()


# Rows.

REBUILD = """\
CREATE TABLE orders_new (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers (id){columns});
INSERT INTO orders_new (id, customer_id{names}) SELECT id, customer_id{names} FROM orders;
DROP TABLE orders;
ALTER TABLE orders_new RENAME TO orders;
CREATE INDEX IF NOT EXISTS orders_by_customer ON orders (customer_id);
"""


def test_a_rebuild_that_keeps_every_column_destroys_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    up = REBUILD.format(columns=", total REAL NOT NULL", names=", total")
    assert broken(tmp_path, up, down="", head="-- migrate:foreign_keys off") == []


def test_a_rebuild_in_one_line_is_judged_by_what_it_changes(tmp_path: Path) -> None:
    rebuild = (
        "-- migrate:rebuild orders\nCREATE TABLE orders (id INTEGER PRIMARY KEY,"
        " customer_id INTEGER NOT NULL REFERENCES customers (id){});"
    )
    assert broken(tmp_path, rebuild.format(", total REAL NOT NULL")) == []
    assert broken(tmp_path, rebuild.format("")) == ["FA609"]
    assert broken(tmp_path, rebuild.format(", total INTEGER NOT NULL, place TEXT NOT NULL")) == ["FA610"]


def test_a_rebuild_that_loses_a_column_takes_it_from_the_running_release(tmp_path: Path) -> None:
    up = REBUILD.format(columns="", names="")
    assert broken(tmp_path, up, head="-- migrate:foreign_keys off") == ["FA609"]


@pytest.mark.parametrize(
    "up",
    [
        "DELETE FROM orders WHERE total < 0;",
        "UPDATE customers SET name = trim(name);",
        "REPLACE INTO customers (id, name) VALUES (1, 'a');",
        "ALTER TABLE orders DROP COLUMN total;",
        "DROP TABLE IF EXISTS orders;",
    ],
)
def test_what_destroys_rows_needs_a_down_section_or_a_reason(up: str, tmp_path: Path) -> None:
    assert "FA607" in broken(tmp_path, up, down="")
    assert "FA607" not in broken(tmp_path, up)
    assert "FA607" not in broken(tmp_path, f"-- migrate:ignore FA607 it was only a test\n{up}", down="")


def test_what_goes_in_batches_is_judged_like_what_goes_at_once(tmp_path: Path) -> None:
    some = "id IN (SELECT id FROM orders WHERE total < 0 LIMIT :batch)"
    assert broken(tmp_path, f"-- migrate:batch 500\nDELETE FROM orders WHERE {some};", down="") == ["FA607"]
    assert broken(tmp_path, f"-- migrate:batch 500\nUPDATE orders SET total = 0 WHERE {some};", down="") == []


@pytest.mark.parametrize(
    "up",
    [
        "UPDATE customers SET name = trim(name) WHERE name LIKE ' %';",
        "INSERT INTO customers (name) VALUES ('a');",
        "CREATE TABLE IF NOT EXISTS passing (id INTEGER PRIMARY KEY); DELETE FROM passing;"
        " DROP TABLE IF EXISTS passing;",
    ],
    ids=["with a WHERE", "only adds", "of what the file makes itself"],
)
def test_what_destroys_no_rows_that_were_there_needs_no_way_back(up: str, tmp_path: Path) -> None:
    assert "FA607" not in broken(tmp_path, up, down="")


def test_what_an_assertion_has_looked_at_may_become_unique(tmp_path: Path) -> None:
    index = "CREATE UNIQUE INDEX IF NOT EXISTS by_email ON customers (email);"
    assertion = "-- migrate:assert SELECT email FROM {} GROUP BY 1 HAVING count(*) > 1\n"
    assert broken(tmp_path, assertion.format("customers") + index) == []
    assert broken(tmp_path, assertion.format("orders") + index) == ["FA612"]
    assert broken(tmp_path, f"{index}\n{assertion.format('customers')}") == ["FA612"]


def test_a_view_in_the_place_of_what_was_renamed_keeps_the_running_release_working(tmp_path: Path) -> None:
    rename = "ALTER TABLE customers RENAME TO people;"
    view = "CREATE VIEW IF NOT EXISTS customers AS SELECT id, name, email FROM people;"
    assert broken(tmp_path, rename) == ["FA609"]
    assert broken(tmp_path, rename + view) == []
    assert broken(tmp_path, rename + view.replace(", email", "")) == ["FA609"]


@pytest.mark.parametrize(
    "column",
    [
        "c TEXT NOT NULL",
        "c TEXT DEFAULT CURRENT_TIMESTAMP",
        "c TEXT DEFAULT (datetime('now'))",
        "c INTEGER DEFAULT 1 REFERENCES customers (id)",
        "c AS (total + 1) STORED",
        "c INTEGER NOT NULL DEFAULT 1 CHECK (c > 3)",
    ],
)
def test_a_column_that_only_an_empty_table_takes_is_found_as_sqlite_refuses_it(column: str, tmp_path: Path) -> None:
    sql = f"ALTER TABLE orders ADD COLUMN {column}"
    assert "FA608" in broken(tmp_path, f"{sql};")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(BASE[1].partition("-- migrate:down")[0])
        connection.execute("INSERT INTO customers (id, name) VALUES (1, 'a')")
        connection.execute("INSERT INTO orders (customer_id, total) VALUES (1, 1)")
        with pytest.raises(sqlite3.Error):
            connection.execute(sql)


@pytest.mark.parametrize("column", ["c", "c TEXT NOT NULL DEFAULT ''", "c INTEGER REFERENCES orders (id)", "c AS (1)"])
def test_a_column_that_rows_do_not_mind_is_none_of_that_rules(column: str, tmp_path: Path) -> None:
    assert "FA608" not in broken(tmp_path, f"ALTER TABLE orders ADD COLUMN {column};")


# Keys, views, triggers, strings.


@pytest.mark.parametrize(
    ("table", "is_found"),
    [
        ("a (c INTEGER REFERENCES customers (id))", True),
        ("a (c INTEGER PRIMARY KEY REFERENCES customers (id))", False),
        ("a (c INTEGER REFERENCES customers (id), d, UNIQUE (c, d))", False),
        ("a (c INTEGER REFERENCES customers (id), d, UNIQUE (d, c))", True),
        ("a (c INTEGER REFERENCES customers (id), d, PRIMARY KEY (c, d)) WITHOUT ROWID", False),
    ],
)
def test_a_foreign_key_needs_an_index_that_sqlite_would_use(table: str, is_found: bool, tmp_path: Path) -> None:
    assert ("FA604" in broken(tmp_path, f"CREATE TABLE IF NOT EXISTS {table};")) is is_found


def test_a_later_migration_may_bring_the_index_of_a_foreign_key(tmp_path: Path) -> None:
    table = "-- A table for the tests alone.\nCREATE TABLE IF NOT EXISTS a (c INTEGER REFERENCES customers (id));"
    assert [each.code for each in findings(tmp_path, {**ORDERS, "002_a.sql": table})] == ["FA604"]
    index = "-- Deleting a customer took a minute.\nCREATE INDEX IF NOT EXISTS a_by_c ON a (c);"
    assert findings(tmp_path, {"003_index.sql": index}) == ()


def test_a_key_is_found_where_it_was_made_also_when_its_table_was_renamed_later(tmp_path: Path) -> None:
    table = "-- A table for the tests alone.\nCREATE TABLE IF NOT EXISTS a (c INTEGER REFERENCES customers (id));"
    rename = "-- Its name says more now.\n-- migrate:ignore FA609 no release uses it yet\n\n-- migrate:up\n"
    rename += "ALTER TABLE a RENAME TO b;"
    found = findings(tmp_path, {**ORDERS, "002_a.sql": table, "003_rename.sql": rename})
    assert [(each.code, each.filename) for each in found] == [("FA604", "002_a.sql")]


def test_who_takes_the_index_or_the_parent_of_a_key_away_is_named_and_not_who_made_the_key(tmp_path: Path) -> None:
    why = "-- A change that the tests make.\n"
    rebuild = (
        f"-- migrate:foreign_keys off\n{why}CREATE TABLE c (id INTEGER, name TEXT NOT NULL, email TEXT);\n"
        "INSERT INTO c (id, name, email) SELECT id, name, email FROM customers;\n"
        "DROP TABLE customers;\nALTER TABLE c RENAME TO customers;"
    )
    files = {
        **ORDERS,
        "002_index.sql": f"{why}DROP INDEX IF EXISTS orders_by_customer;",
        "003_customers.sql": rebuild,
        "004_note.sql": f"{why}ALTER TABLE customers ADD COLUMN note TEXT;",
    }
    found = [(each.code, each.filename) for each in findings(tmp_path, files)]
    assert found == [("FA604", "002_index.sql"), ("FA614", "003_customers.sql")]


def test_a_parent_may_come_in_a_later_migration_than_its_child(tmp_path: Path) -> None:
    child = "-- What was said on the phone.\nCREATE TABLE IF NOT EXISTS a (b INTEGER PRIMARY KEY REFERENCES b (id));"
    parent = "-- Who has said it, too.\nCREATE TABLE IF NOT EXISTS b (id INTEGER PRIMARY KEY);"
    assert [each.code for each in findings(tmp_path, {"001_a.sql": child})] == ["FA614"]
    assert findings(tmp_path, {"002_b.sql": parent}) == ()


@pytest.mark.parametrize(
    ("up", "guilty"),
    [
        ("CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON orders BEGIN DELETE FROM gone; END;", "trigger t"),
        ("CREATE VIEW IF NOT EXISTS v AS SELECT mail FROM orders;", "view v"),
        (
            "CREATE VIEW IF NOT EXISTS v AS SELECT * FROM customers;"
            " CREATE VIEW IF NOT EXISTS w AS SELECT gone FROM orders;",
            "view w",
        ),
    ],
)
def test_a_view_or_trigger_that_names_what_is_missing_is_found_by_its_name(
    up: str, guilty: str, tmp_path: Path
) -> None:
    text = f"-- A change that the tests make.\n{up}"
    found = findings(tmp_path, {**ORDERS, "002_change.sql": text})
    assert [each.message.partition(" cannot")[0] for each in found if each.code == "FA615"] == [f"the {guilty}"]


def test_a_view_is_broken_by_the_file_that_drops_its_table_and_by_no_later_one(tmp_path: Path) -> None:
    files = {
        **ORDERS,
        "002_view.sql": "-- Orders as the report shows them.\nCREATE VIEW IF NOT EXISTS v AS SELECT id FROM orders;",
        "003_drop.sql": "-- Orders are kept elsewhere now.\nDROP TABLE IF EXISTS orders;",
        "004_note.sql": "-- A note is kept with each.\nALTER TABLE customers ADD COLUMN note TEXT;",
    }
    found = [(each.code, each.filename) for each in findings(tmp_path, files)]
    assert ("FA615", "003_drop.sql") in found
    assert [name for code, name in found if code == "FA615"] == ["003_drop.sql"]


@pytest.mark.parametrize(
    ("up", "count"),
    [
        ('UPDATE customers SET name = "x" WHERE "id" = 1;', 1),
        ('CREATE TABLE IF NOT EXISTS "a b" ("c d" TEXT DEFAULT "x", CHECK ("c d" <> "y"));', 2),
        ('CREATE VIEW IF NOT EXISTS v AS SELECT "id", "paid" FROM "orders";', 1),
        ('CREATE INDEX IF NOT EXISTS "i" ON orders ("total") WHERE "total" > 1;', 0),
    ],
)
def test_double_quotes_that_name_nothing_are_told_from_those_of_names(up: str, count: int, tmp_path: Path) -> None:
    assert broken(tmp_path, up).count("FA616") == count


# The oldest SQLite.


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_what_a_version_brought_is_found_in_a_statement_that_uses_it(feature: object) -> None:
    assert [each.name for each in FEATURES if list(each.find(words_of(feature.example)))] == [feature.name]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_sqlite_itself_knows_what_its_version_brought(feature: object) -> None:
    """The SQLite at hand takes each example that is not newer than itself, and none that is."""
    has_it = sqlite3.sqlite_version_info[:2] >= feature.since
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a UNIQUE, b)" if "CONFLICT" in feature.name else "CREATE TABLE t (a, b)")
        try:
            connection.execute(f"EXPLAIN {feature.example}").fetchall()
        except sqlite3.Error:
            assert not has_it
        else:
            assert has_it


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE format (concat TEXT, returning TEXT)",
        "INSERT INTO concat (a) VALUES ('RETURNING ->> json_pretty(')",
        "UPDATE t SET a = (SELECT b FROM u) WHERE c IN (SELECT d FROM v ORDER BY d)",
        "SELECT a FROM (SELECT a FROM t ORDER BY a) ORDER BY b",
        "CREATE TABLE t AS SELECT 1 AS a",
        "ALTER TABLE a RENAME TO b",
        "SELECT a - 1 > 2, x_1 FROM t",
        "CREATE TABLE t (a TEXT PRIMARY KEY ON CONFLICT REPLACE)",
    ],
)
def test_what_every_version_knows_is_not_taken_for_a_newer_ones(sql: str) -> None:
    assert [each.name for each in FEATURES if list(each.find(words_of(sql)))] == []


def test_no_oldest_version_means_that_any_will_do(tmp_path: Path) -> None:
    text = "-- Totals by the day, as the report wants them.\nCREATE TABLE IF NOT EXISTS t (a INTEGER) STRICT;"
    assert [each.code for each in findings(tmp_path, {"001_t.sql": text}, (3, 36))] == ["FA611"]
    assert findings(tmp_path, {"001_t.sql": text}, (3, 37)) == ()
    assert findings(tmp_path, {"001_t.sql": text}, None) == ()


# Silence.

TWO_KEYS = """\
{head}
-- Two tables that belong together.

-- migrate:up
{before}CREATE TABLE IF NOT EXISTS a (c INTEGER REFERENCES customers (id));
CREATE TABLE IF NOT EXISTS b (c INTEGER REFERENCES customers (id), d INTEGER PRIMARY KEY REFERENCES a (c));
"""
IGNORE = "-- migrate:ignore FA604 it has ten rows and never grows\n"


@pytest.mark.parametrize(
    ("head", "before", "left", "silenced"), [("", "", 2, 0), (IGNORE, "", 0, 2), ("", IGNORE, 1, 1)]
)
def test_an_ignore_above_the_section_is_for_the_file_and_one_inside_for_the_next_statement(
    head: str, before: str, left: int, silenced: int, tmp_path: Path
) -> None:
    (tmp_path / BASE[0]).write_text(BASE[1])
    (tmp_path / "002_keys.sql").write_text(TWO_KEYS.format(head=head, before=before))
    found = sifted(tmp_path)
    assert [each.code for each in found.findings if each.code != "FA614"] == ["FA604"] * left
    assert [each.reason for each in found.silenced] == ["it has ten rows and never grows"] * silenced


def test_an_ignore_above_a_file_without_sections_is_for_the_file(tmp_path: Path) -> None:
    text = "-- migrate:ignore FA605 an old file from before the rule\nCREATE TABLE IF NOT EXISTS a (b);"
    assert findings(tmp_path, {"001_a.sql": text}) == ()


def test_an_ignore_that_silences_nothing_is_found_itself(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, {"001_a.sql": f"{IGNORE}-- The letters.\nCREATE TABLE IF NOT EXISTS a (b);"})[-1:]
    assert (found.code, found.location and found.location.line) == ("FA618", 1)


@pytest.mark.parametrize(
    "words",
    ["", "FA604", "FA604 because", "FA604 it is", "604 it has ten rows", "FA301 it has ten rows", "fa604 a b c"],
)
def test_an_ignore_needs_the_code_of_a_rule_and_a_reason(words: str, tmp_path: Path) -> None:
    (tmp_path / "001_a.sql").write_text(f"-- migrate:ignore {words}\nCREATE TABLE a (b);")
    with pytest.raises(DirectiveInvalid):
        read(discover(tmp_path, "sqlite")[0])


def test_an_ignore_behind_the_last_statement_is_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "001_a.sql").write_text(f"CREATE TABLE a (b);\n{IGNORE}")
    with pytest.raises(DirectiveInvalid, match="no statement follows"):
        read(discover(tmp_path, "sqlite")[0])


def test_an_ignore_of_an_unknown_rule_is_found_by_the_check_and_refused_by_nothing(tmp_path: Path) -> None:
    """A rule may go; the files that were applied and name it can no longer be edited, and must still run."""
    (tmp_path / "001_a.sql").write_text(f"{IGNORE.replace('604', '699')}CREATE TABLE a (b);")
    (found,) = [each for each in sifted(tmp_path).findings if each.code == "FA618"]
    assert found.message == "there is no rule FA699, so nothing is ignored"
    assert found.location
    assert (found.location.line, found.location.column) == (1, len("-- migrate:ignore ") + 1)


def test_the_documents_example_of_an_ignore_silences_one_finding(tmp_path: Path) -> None:
    chapter = (CHAT.parents[1] / "docs" / "rules.md").read_text(encoding="utf-8").partition("## Silencing")[2]
    (tmp_path / "001_add_accounts.sql").write_text(chapter.partition("```sql\n")[2].partition("```")[0])
    found = sifted(tmp_path)
    assert (found.findings, [each.finding.code for each in found.silenced]) == ((), ["FA604"])


# What cannot be run here.


def test_a_statement_that_does_not_run_stops_neither_the_rules_nor_the_files_behind_it(tmp_path: Path) -> None:
    files = {
        **ORDERS,
        "002_search.sql": "-- Searched by what they say.\nCREATE VIRTUAL TABLE IF NOT EXISTS s USING none(a);",
        "003_note.sql": "ALTER TABLE customers ADD COLUMN note TEXT NOT NULL;",
    }
    assert [each.code for each in findings(tmp_path, files)] == ["FA605", "FA608"]


def test_a_file_of_many_inserts_is_judged_by_the_first_ones(tmp_path: Path) -> None:
    rows = "".join(f"INSERT INTO customers (id, name) VALUES ({n}, 'a');\n" for n in range(20_000))
    text = f"-- Customers of the shop that was bought.\n{rows}UPDATE customers SET name = 'b';"
    assert [each.code for each in findings(tmp_path, {**ORDERS, "002_load.sql": text})] == ["FA607"]
