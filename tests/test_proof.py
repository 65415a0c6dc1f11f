"""The replay of `flask db check`: each migration is applied, rolled back and applied again on a scratch database with
generated rows, and what is not as it was is told."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent import config
from financial_agent.migrator import check, proof, runner, sample_rows
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.events import Checking, Event
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.script import read

OWN = Path(config.DEFAULTS["MIGRATIONS"])

BOOKS = "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER);"


def script(up: str, down: str | None = None) -> str:
    return f"-- migrate:up\n{up}\n" + (f"-- migrate:down\n{down}\n" if down is not None else "")


FIRST = script(BOOKS, "DROP TABLE books;")


def found_in(folder: Path, files: Mapping[str, str]) -> list[Finding]:
    """What the proof finds in a folder with these files."""
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text, encoding="utf-8")
    return proof.prove([read(file) for file in discover(folder, "sqlite")], Control())


def second(folder: Path, up: str, down: str | None, first: str = FIRST) -> list[Finding]:
    """What the proof finds in a migration on top of one with a table."""
    found = found_in(folder, {"001_books": first, "002_second": script(up, down)})
    assert {each.filename for each in found} <= {"002_second.sql"}
    return found


GOOD = {
    "a new table": ("CREATE TABLE authors (id INTEGER PRIMARY KEY);", "DROP TABLE authors;"),
    "a new column": ("ALTER TABLE books ADD COLUMN isbn TEXT;", "ALTER TABLE books DROP COLUMN isbn;"),
    "a default": (
        "ALTER TABLE books ADD COLUMN stock INTEGER NOT NULL DEFAULT 0;",
        "ALTER TABLE books DROP COLUMN stock;",
    ),
    "a renamed table": ("ALTER TABLE books RENAME TO works;", "ALTER TABLE works RENAME TO books;"),
    "a renamed column": (
        "ALTER TABLE books RENAME COLUMN title TO name;",
        "ALTER TABLE books RENAME COLUMN name TO title;",
    ),
    "rows that come and go": (
        "INSERT INTO books (id, title) VALUES (900, 'x');",
        "DELETE FROM books WHERE id = 900;",
    ),
    "a change that is undone": ("UPDATE books SET price = price * 100;", "UPDATE books SET price = price / 100;"),
    "the time of day": (
        "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT);\n"
        "INSERT INTO log (at) VALUES (strftime('%Y-%m-%d %H:%M:%f', 'now')), (random());",
        "DROP TABLE log;",
    ),
    "a rebuild": (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price REAL);\n"
        "INSERT INTO new SELECT * FROM books;\nDROP TABLE books;\nALTER TABLE new RENAME TO books;",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER);\n"
        "INSERT INTO new SELECT * FROM books;\nDROP TABLE books;\nALTER TABLE new RENAME TO books;",
    ),
    "a unique index": ("CREATE UNIQUE INDEX titles ON books (title);", "DROP INDEX titles;"),
}


@pytest.mark.parametrize("case", GOOD)
def test_nothing_is_found_in_a_migration_that_goes_there_and_back(case: str, tmp_path: Path) -> None:
    assert second(tmp_path, *GOOD[case]) == []


# The up section, the down section, the code, the severity, the line, a word of the message, the details.
BAD: dict[str, tuple[str, str | None, str, str, int, str, tuple[str, ...]]] = {
    "does not run": ("CREATE TABEL x (id);", "", "FA650", "error", 2, "syntax error", ()),
    "not null without default": (
        "ALTER TABLE books ADD COLUMN isbn TEXT NOT NULL;",
        "ALTER TABLE books DROP COLUMN isbn;",
        *("FA651", "warning", 2, "NOT NULL", ()),
    ),
    "NULL does not fit": (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER NOT NULL);\n"
        "INSERT INTO new SELECT * FROM books;\nDROP TABLE books;\nALTER TABLE new RENAME TO books;",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER);\n"
        "INSERT INTO new SELECT * FROM books;\nDROP TABLE books;\nALTER TABLE new RENAME TO books;",
        *("FA651", "warning", 3, "new.price", ()),
    ),
    "does not run back": ("SELECT 1;", "DROP TABLE nothing;", "FA652", "error", 4, "nothing", ()),
    "leaves an index": (
        "CREATE INDEX prices ON books (price);\nCREATE TABLE extra (id);",
        "DROP TABLE extra;",
        *("FA653", "error", 4, "schema", ("index prices on books is left",)),
    ),
    "forgets a column": (
        "CREATE INDEX prices ON books (price);",
        "DROP TABLE books;\nCREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT NOT NULL);",
        "FA653",
        "error",
        3,
        "schema",
        (
            "table books is another",
            "  column price is gone",
            f"  -{BOOKS[:-1]}",
            "  +CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
        ),
    ),
    "loses rows": (
        "ALTER TABLE books ADD COLUMN isbn TEXT;",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER);\n"
        "INSERT INTO new SELECT id, title, price FROM books WHERE price IS NOT NULL;\n"
        "DROP TABLE books;\nALTER TABLE new RENAME TO books;",
        *("FA654", "warning", 3, "rows", ("books: 2 rows are gone",)),
    ),
    "mixes columns up": (
        "CREATE INDEX prices ON books (price);",
        "DROP INDEX prices;\nUPDATE books SET title = '';",
        *("FA654", "warning", 3, "rows", ("books.title: 4 of the values",)),
    ),
    "leaves rows": (
        "INSERT INTO books (title) VALUES ('a'), ('b');",
        "SELECT 1;",
        *("FA654", "warning", 3, "rows", ("books: 2 rows are left that were not there before",)),
    ),
    "overwrites": (
        "UPDATE books SET price = 0;",
        "UPDATE books SET price = 1;",
        *("FA655", "note", 3, "bring back", ("books.price: 3 of the values",)),
    ),
    "drops a column": (
        "ALTER TABLE books DROP COLUMN price;",
        "ALTER TABLE books ADD COLUMN price INTEGER;",
        *("FA655", "note", 3, "bring back", ("books.price: 2 of the values",)),
    ),
    "deletes": (
        "DELETE FROM books WHERE price IS NULL;",
        "SELECT 1;",
        *("FA655", "note", 3, "bring back", ("books: 2 rows",)),
    ),
    "is held by a foreign key on the way back": (
        "CREATE TABLE authors (id INTEGER PRIMARY KEY);\n"
        "ALTER TABLE books ADD COLUMN author INTEGER REFERENCES authors (id) ON DELETE CASCADE;",
        "DROP TABLE authors;\nALTER TABLE books DROP COLUMN author;",
        *("FA652", "error", 5, "ON DELETE", ()),
    ),
    "rows that came since do not fit": (
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);",
        "CREATE TABLE kept (id INTEGER PRIMARY KEY, text TEXT NOT NULL);\nINSERT INTO kept SELECT * FROM notes;\n"
        "DROP TABLE kept;\nDROP TABLE notes;",
        *("FA658", "warning", 5, "kept.text", ()),
    ),
    "is irreversible": ("CREATE TABLE x (id);", None, "FA660", "note", 1, "rolled back", ()),
    "depends on what rows hold": (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL CHECK (title = 'Faust'), price INTEGER);\n"
        "INSERT INTO new SELECT * FROM books;\nDROP TABLE books;\nALTER TABLE new RENAME TO books;",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER);\n"
        "INSERT INTO new SELECT * FROM books;\nDROP TABLE books;\nALTER TABLE new RENAME TO books;",
        *("FA661", "note", 3, "CHECK", ()),
    ),
    "no row fits": (
        "CREATE TABLE never (x INTEGER NOT NULL CHECK (x > 5 AND x < 5));",
        "DROP TABLE never;",
        *("FA662", "note", 1, "never", ()),
    ),
    "reaches beyond": (
        "-- migrate:allow attach\nATTACH 'other.db' AS other;",
        "SELECT 1;",
        *("FA663", "note", 3, "ATTACH", ()),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_migration_does_wrong_is_found_at_its_line(case: str, tmp_path: Path) -> None:
    up, down, code, severity, line, word, details = BAD[case]
    found = second(tmp_path, up, down)
    assert [(each.code, each.severity, each.details) for each in found] == [(code, severity, details)]
    assert word in found[0].message
    assert found[0].location is not None
    assert (found[0].location.path, found[0].location.line) == (str(tmp_path / "002_second.sql"), line)


def test_a_second_application_that_finds_what_the_first_left_is_found(tmp_path: Path) -> None:
    """PRAGMA user_version is no part of the schema, and no row."""
    up = "CREATE TABLE x (id);\nINSERT INTO x SELECT 1 FROM pragma_user_version WHERE user_version = 0;\n"
    (found,) = second(tmp_path, f"{up}PRAGMA user_version = 1;", "DROP TABLE x;")
    assert (found.code, found.details) == ("FA657", ("x: 1 row fewer",))


def test_a_second_application_that_fails_is_found(tmp_path: Path) -> None:
    up = "CREATE TABLE x (id INTEGER NOT NULL);\nINSERT INTO x SELECT nullif(user_version, 1) FROM pragma_user_version;"
    (found,) = second(tmp_path, f"{up}\nPRAGMA user_version = 1;", "DROP TABLE x;")
    assert (found.code, found.severity) == ("FA656", "error")
    assert "x.id" in found.message


def test_what_stands_behind_a_migration_that_does_not_run_is_told_to_be_unproven(tmp_path: Path) -> None:
    found = found_in(tmp_path, {"001_books": FIRST, "002_bad": "CREATE;", "003_x": FIRST, "004_y": FIRST})
    assert [(each.code, each.filename) for each in found] == [
        ("FA650", "002_bad.sql"),
        ("FA663", "003_x.sql"),
        ("FA663", "004_y.sql"),
    ]


def test_the_proof_goes_on_behind_a_migration_that_works_on_empty_tables_only(tmp_path: Path) -> None:
    found = found_in(
        tmp_path,
        {
            "001_books": FIRST,
            "002_isbn": script("ALTER TABLE books ADD COLUMN isbn TEXT NOT NULL;"),
            "003_blank": script("CREATE TABLE x (id);", "DROP TABLE x;\nUPDATE books SET isbn = '';"),
        },
    )
    assert [(each.code, each.filename) for each in found] == [
        ("FA651", "002_isbn.sql"),
        ("FA660", "002_isbn.sql"),
        ("FA654", "003_blank.sql"),
    ]


def test_a_column_that_a_later_migration_adds_has_values_too(tmp_path: Path) -> None:
    found = found_in(
        tmp_path,
        {
            "001_books": FIRST,
            "002_isbn": script("ALTER TABLE books ADD COLUMN isbn TEXT;", "ALTER TABLE books DROP COLUMN isbn;"),
            "003_blank": script("CREATE TABLE x (id);", "DROP TABLE x;\nUPDATE books SET isbn = NULL;"),
        },
    )
    assert [(each.code, each.details) for each in found] == [("FA654", ("books.isbn: 2 of the values",))]


def test_a_script_without_a_transaction_is_proven_too(tmp_path: Path) -> None:
    up = "-- migrate:up transaction:false\nPRAGMA journal_mode = WAL;\nCREATE INDEX prices ON books (price);\n"
    down = "-- migrate:down transaction:false\nPRAGMA journal_mode = DELETE;\n"
    (found,) = found_in(tmp_path, {"001_books": FIRST, "002_wal": up + down})
    assert (found.code, found.details) == ("FA653", ("index prices on books is left",))


def test_findings_never_show_what_a_row_holds(tmp_path: Path) -> None:
    up = "CREATE TABLE x (id INTEGER PRIMARY KEY, note TEXT);\nINSERT INTO x VALUES (1, 'secret');"
    found = found_in(tmp_path, {"001_x": script(up), "002_json": script("SELECT json(note) FROM x;")})
    assert [each.code for each in found] == ["FA660", "FA650"]
    assert "secret" not in repr(found)


# The project's own.


def test_the_projects_own_migrations_pass_on_rows_in_every_table(tmp_path: Path) -> None:
    report = check.check(OWN, control=Control())
    assert [each for each in report.findings if each.fails] == []
    assert not {each.code for each in report.findings} & {"FA660", "FA661", "FA662", "FA663"}


@pytest.mark.parametrize("target", ["1", "2", "3", "4"])
def test_the_chat_store_is_filled_at_every_version(target: str, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    runner.migrate(str(path), OWN, target=target)
    with closing(connect(str(path))) as db:
        tables = set(db.tables())
        assert sample_rows.fill(db, tables) == []
        assert len(tables) == min(int(target), 3)
        assert {name: db.counts(name, []) for name in tables} == {name: [sample_rows.ROWS] for name in tables}
        assert db.problems() == []
        assert not db.orphans()


# Rows.

HARD = {
    "a list": "CREATE TABLE t (role TEXT PRIMARY KEY CHECK (role IN ('admin', 'user', 'guest', 'bot'))) WITHOUT ROWID",
    "strict": "CREATE TABLE t (a INTEGER NOT NULL CHECK (a BETWEEN 5 AND 7), b REAL, c BLOB NOT NULL, d ANY) STRICT",
    "two dates": "CREATE TABLE t (a NOT NULL CHECK (a IS date(a)), b NOT NULL CHECK (b IS date(b)), CHECK (b > a))",
    "itself": "CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES t (id))",
    "a length": "CREATE TABLE t (hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64), s CHECK (length(s) < 3))",
    "a pattern": "CREATE TABLE t (mail TEXT NOT NULL UNIQUE CHECK (mail LIKE '%@%.%'))",
    "digits": "CREATE TABLE t (zip TEXT NOT NULL CHECK (zip NOT GLOB '*[^0-9]*'))",
    "capitals": "CREATE TABLE t (code TEXT NOT NULL CHECK (code = upper(code)))",
    "an array": "CREATE TABLE t (tags TEXT NOT NULL CHECK (json_valid(tags) AND json_type(tags) = 'array'))",
    "one of two": "CREATE TABLE t (a TEXT, b INTEGER, CHECK ((a IS NULL) <> (b IS NULL)))",
    "generated": "CREATE TABLE t (a INTEGER NOT NULL, b AS (a * 2) STORED, c AS (a + 1))",
    "a date": "CREATE TABLE t (on_day DATE NOT NULL CHECK (on_day = strftime('%Y-%m-%d', on_day)))",
    "odd names": 'CREATE TABLE t ("a ""b" TEXT NOT NULL, [c d] TEXT NOT NULL UNIQUE, `select` INTEGER)',
    "nothing to say": "CREATE TABLE t (id INTEGER PRIMARY KEY)",
    "a refusing trigger": "CREATE TABLE t (a INTEGER NOT NULL); CREATE TRIGGER r BEFORE INSERT ON t"
    " WHEN NEW.a < 500 BEGIN SELECT RAISE(ABORT, 'too small'); END",
    "a key of two": "CREATE TABLE p (a INTEGER, b TEXT, PRIMARY KEY (a, b));"
    "CREATE TABLE t (x INTEGER NOT NULL, y TEXT NOT NULL, UNIQUE (x, y), FOREIGN KEY (x, y) REFERENCES p)",
    "each other": "CREATE TABLE p (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t (id));"
    "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER NOT NULL REFERENCES p (id))",
}


@pytest.mark.parametrize("case", HARD)
def test_rows_are_found_that_fit(case: str, tmp_path: Path) -> None:
    first, second = (filled(tmp_path / name, HARD[case]) for name in ("first.db", "second.db"))
    assert first == second, "the rows are the same in each run"
    assert len(first) >= 3


def filled(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    with closing(connect(str(path))) as db:
        assert sample_rows.fill(db, set(db.tables())) == []
        assert not db.orphans()
        return db.query("SELECT * FROM t")


@pytest.mark.parametrize("verdict", ["ABORT", "FAIL", "ROLLBACK"])
def test_a_table_that_takes_no_row_stays_empty_and_the_others_are_filled(verdict: str, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE a (x); CREATE TABLE m (x); CREATE TABLE z (x);"
            f"CREATE TRIGGER r AFTER INSERT ON m BEGIN SELECT RAISE({verdict}, 'never'); END;"
        )
    with closing(connect(str(path))) as db:
        assert sample_rows.fill(db, {"a", "m", "z"}) == ["m"]
        assert [db.counts(name, []) for name in ("a", "m", "z")] == [[4], [0], [4]]


# What a check leaves behind, and how long it takes.


def test_a_check_leaves_no_file_behind_whether_it_ends_or_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "migrations"
    shutil.copytree(OWN, folder)
    seen: list[Event] = []

    def stop() -> int | None:
        at_work = [event for event in seen if isinstance(event, Checking)]
        return 2 if at_work and at_work[-1].done == 2 else None

    with pytest.raises(Interrupted):
        check.check(folder, control=Control(stop=stop, report=seen.append))
    assert [path.name for path in tmp_path.iterdir()] == ["migrations"]
    check.check(folder, control=Control())
    assert [path.name for path in tmp_path.iterdir()] == ["migrations"]


def test_a_migration_behind_one_that_fails_on_rows_is_proven_by_itself(tmp_path: Path) -> None:
    """Each of the two fails on the generated rows, and runs on empty tables: none of them fails altogether."""
    column = script("ALTER TABLE books ADD COLUMN {0} TEXT NOT NULL;", "ALTER TABLE books DROP COLUMN {0};")
    files = {"001_books": FIRST, "002_a": column.format("a"), "003_b": column.format("b")}
    found = found_in(tmp_path, files)
    assert [(each.code, each.filename) for each in found] == [("FA651", "002_a.sql"), ("FA651", "003_b.sql")]
    assert [each.location and Path(each.location.path).name for each in found] == ["002_a.sql", "003_b.sql"]


def test_a_batch_that_never_ends_does_not_pass(tmp_path: Path) -> None:
    endless = "-- migrate:batch 2\nUPDATE books SET price = 1 WHERE id IN (SELECT id FROM books LIMIT :batch);"
    (found, _) = second(tmp_path, endless, None)
    assert (found.code, found.severity) == ("FA651", "warning")
    assert "never comes to an end" in found.message


def test_a_way_back_that_was_made_is_told_as_such_at_a_place_in_the_file(tmp_path: Path) -> None:
    """The new kind is among the generated rows, and the old table does not take it."""
    table = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ({kinds})));"
    found = found_in(
        tmp_path,
        {
            "001_notes": script(table.format(kinds="'a'"), "DROP TABLE IF EXISTS notes;"),
            "002_kinds": "-- migrate:rebuild notes\n" + table.format(kinds="'b', 'a'").replace("IF NOT EXISTS ", ""),
        },
    )
    (note,) = [each for each in found if each.code == "FA661"]
    assert note.message.startswith("the way back is not proven on rows")
    assert note.location
    assert Path(note.location.path).name == "002_kinds.sql"
