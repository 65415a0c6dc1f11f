"""Whatever is wrong with a folder, a file, a setting or a database: one error text, and no traceback.

Each text is kept in `golden/<id>.txt`, exactly as standard error shows it. UPDATE_GOLDEN=1 writes them anew.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from click.testing import CliRunner

from financial_agent.cli import main
from financial_agent.cli_render import error_text
from financial_agent.migrator import errors
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.script import read

GOLDEN = Path(__file__).parent / "golden"
CHECKOUT = Path(__file__).resolve().parents[1]
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
FLASK = [sys.executable, "-m", "flask", "--app", "financial_agent"]
# Root may read and write everything: without these two capabilities it may what its files' modes say.
DROP_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

MARK = "«"
TABLE = "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n"
BATCH = """\
UPDATE customers SET name = lower(name) WHERE id IN (SELECT id FROM customers WHERE name <> lower(name) LIMIT :batch);
"""
FAMILY = """\
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE children (parent_id INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE);
INSERT INTO parents VALUES (1), (2);
INSERT INTO children VALUES (1), (2), (2);
"""


@dataclass
class Place:
    """Where a case happens: a folder of migrations, a database, an instance folder."""

    root: Path
    stack: ExitStack

    @property
    def folder(self) -> Path:
        return self.root / "migrations"

    @property
    def database(self) -> Path:
        return self.root / "data" / "app.db"

    @property
    def run_lock(self) -> Path:
        return self.database.with_name("app.db-migrate-lock")

    @property
    def instance(self) -> Path:
        return self.root / "checkout" / "instance"

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            data = content.replace(MARK, "").encode() if isinstance(content, str) else content
            (self.folder / name).write_bytes(data)

    def sql(self, script: str, *parameters: object) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            if parameters:
                connection.execute(script, parameters)
            else:
                connection.executescript(script)

    def hold(self, path: Path) -> sqlite3.Connection:
        """Keep SQLite's exclusive lock on a file until the case is over."""
        connection = self.stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        connection.execute("BEGIN EXCLUSIVE")
        return connection

    def contents(self) -> bytes | None:
        return self.database.read_bytes() if self.database.is_file() else None

    def recorded(self) -> list[str]:
        """The migrations that the ledger records."""
        if not self.database.is_file():
            return []
        with closing(sqlite3.connect(self.database)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_migrations'").fetchall():
                return []
            return [name for (name,) in connection.execute("SELECT filename FROM _migrations ORDER BY id")]


def nothing(place: Place) -> None:
    """There is no more to prepare."""


@dataclass(frozen=True)
class Case:
    """One mistake: the migration files, what else is prepared, the command, and its exit code."""

    id: str
    exit_code: int
    command: tuple[str, ...] = ("migrate",)
    applied: Mapping[str, str | bytes] = field(default_factory=dict)
    """Files that are applied before the mistake is made."""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    prepare: Callable[[Place], None] = nothing
    env: Mapping[str, str] = field(default_factory=dict)
    stays: tuple[str, ...] = ()
    """What the ledger records afterwards, beside what it did before."""
    says: str = ""
    """A part of the text that a new golden file must not lose."""


def text(id: str, exit_code: int, content: str | bytes, says: str = "") -> Case:
    """A migration that cannot be used as it is written, or whose statements fail. « stands before the guilty token."""
    return Case(id, exit_code, files={"001_first.sql": content}, says=says)


def second(id: str, exit_code: int, first: str, content: str, says: str = "") -> Case:
    """A migration that fails on a database that another one has made."""
    return Case(id, exit_code, applied={"001_first.sql": first}, files={"002_second.sql": content}, says=says)


def down(id: str, exit_code: int, content: str, up: str = TABLE) -> Case:
    """A down section that does not run."""
    applied = {"001_first.sql": f"-- migrate:up\n{up}\n-- migrate:down\n{content}"}
    return Case(id, exit_code, ("rollback", "--yes"), applied=applied)


def setting(id: str, exit_code: int, command: tuple[str, ...] = ("status",), **env: str) -> Case:
    """An environment variable that means nothing."""
    variables = {f"FINANCIAL_AGENT_{name}": value for name, value in env.items()}
    return Case(id, exit_code, command, files={"001_first.sql": TABLE}, env=variables)


def usage(id: str, *command: str, exit_code: int = 2) -> Case:
    """Words on the command line that mean nothing, or that mean something else elsewhere."""
    files = {f"00{n}_{name}.sql": f"CREATE TABLE t{n} (id);" for n, name in enumerate(("first", "second", "last"), 1)}
    return Case(id, exit_code, command, applied=files)


# What is made before the command runs.


TWO_OF_ONE_SCHEMA = {"001_first.sql": TABLE, "002_second.sql": "UPDATE customers SET name = 'nobody';"}


def foreign_tables(place: Place) -> None:
    place.sql("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, email TEXT); CREATE TABLE extra (x);")


def lose_the_ledger(place: Place) -> None:
    place.sql("DROP TABLE _migrations; DROP TABLE _migration_history;")


def lose_a_row_of_the_ledger(place: Place) -> None:
    place.sql("DELETE FROM _migrations WHERE filename = '002_second.sql';")


def begun_otherwise(place: Place) -> None:
    place.sql("INSERT INTO customers VALUES (1, 'A'), (2, 'B')")
    for name in ("NULLIF(lower(name), 'b')", "lower(name)"):
        place.write({"002_second.sql": f"-- migrate:batch 1\n{BATCH.replace('lower(name)', name, 1)}"})
        if name.startswith("NULL"):
            assert flask_db(place, "migrate")[0] == 3


def first_is_gone(place: Place) -> None:
    (place.folder / "001_first.sql").unlink()


def no_folder(place: Place) -> None:
    place.folder.rmdir()


def lock_file_is_a_folder(place: Place) -> None:
    (place.folder / "migrations.lock").mkdir()


def folder_is_a_file(place: Place) -> None:
    place.folder.rmdir()
    place.folder.write_text(TABLE)


def link(name: str, target: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (place.root / "elsewhere.sql").write_text(TABLE)
        (place.folder / name).symlink_to(target)

    return make


def fifo(place: Place) -> None:
    os.mkfifo(place.folder / "001_first.sql")


def rename(old: str, new: str) -> Callable[[Place], None]:
    return lambda place: (place.folder / old).rename(place.folder / new) and None


def gone(name: str) -> Callable[[Place], None]:
    return lambda place: (place.folder / name).unlink()


def database_is(content: bytes) -> Callable[[Place], None]:
    return lambda place: place.database.write_bytes(content) and None


def database_is_a_folder(place: Place) -> None:
    place.database.mkdir()


def database_is_a_fifo(place: Place) -> None:
    os.mkfifo(place.database)


def database_is_a_socket(place: Place) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(place.database.parent)  # the whole path may be too long for a socket's address
        place.stack.enter_context(closing(socket.socket(socket.AF_UNIX))).bind(place.database.name)
    finally:
        os.fchdir(here)
        os.close(here)


def no_database_folder(place: Place) -> None:
    place.database.parent.rmdir()


def database_cut_short(place: Place) -> None:
    place.sql("CREATE TABLE a (x); CREATE TABLE b (x); INSERT INTO a VALUES (zeroblob(20000));")
    data = place.database.read_bytes()
    place.database.write_bytes(data[: 4096 + 100])


def database_scribbled_over(place: Place) -> None:
    place.sql("CREATE TABLE a (x); CREATE TABLE b (x);")
    data = bytearray(place.database.read_bytes())
    data[100:200] = b"\xff" * 100
    place.database.write_bytes(data)


def ledger(script: str) -> Callable[[Place], None]:
    return lambda place: place.sql(script)


def stored_down(data: bytes) -> Callable[[Place], None]:
    """The ledger's copy of the down section is another one, and the file is gone."""

    def change(place: Place) -> None:
        place.sql("UPDATE _migrations SET down_sql = ?", data)
        (place.folder / "001_first.sql").unlink()

    return change


def database_locked(place: Place) -> None:
    place.sql("CREATE TABLE other (x)")
    place.hold(place.database)


def another_run(place: Place) -> None:
    place.sql("CREATE TABLE other (x)")
    place.hold(place.run_lock)


def schema_file_is_a_letter(place: Place) -> None:
    (place.root / "schema.sql").write_text("Dear diary,")


def schema_file_is_a_folder(place: Place) -> None:
    (place.root / "schema.sql").mkdir()


NAMES = [
    Case("folder-missing", 2, prepare=no_folder),
    Case("folder-is-a-file", 2, prepare=folder_is_a_file),
    Case("name-suffix-in-capitals", 4, files={"001_first.SQL": TABLE}),
    Case("name-without-number", 4, files={"first.sql": TABLE}),
    Case("name-with-only-a-number", 4, files={"001.sql": TABLE}),
    Case("name-with-hyphen", 4, files={"001-first.sql": TABLE}),
    Case("name-with-dots", 4, files={"001_first.draft.v2.sql": TABLE}),
    Case("name-with-unknown-engine", 4, files={"001_first.oracle.sql": TABLE}),
    Case("name-with-arabic-digits", 4, files={"٠٠١_first.sql": TABLE}),
    Case("name-of-a-python-file", 4, files={"001_first.sql": TABLE, "002-split-names.py": "def up(db): ..."}),
    Case("number-twice-in-python", 4, files={"001_first.sql": TABLE, "001_first.py": "def up(db): ..."}),
    Case("number-twice", 4, files={"1_first.sql": TABLE, "001_initial.sql": TABLE}),
    Case(
        "number-twice-in-a-variant",
        4,
        files={"001_first.sql": TABLE, "001_other.mysql.sql": TABLE},
        says="001_other.mysql.sql",
    ),
    Case("link-out-of-the-folder", 4, prepare=link("001_first.sql", "../elsewhere.sql")),
    Case("link-to-nothing", 4, prepare=link("001_first.sql", "002_gone.sql")),
    Case("file-is-a-fifo", 4, prepare=fifo),
    Case(
        "renamed-after-it-was-applied",
        4,
        applied={"001_first.sql": TABLE},
        prepare=rename("001_first.sql", "001_customers.sql"),
    ),
    Case("number-twice-and-one-applied", 4, applied={"001_first.sql": TABLE}, files={"001_other.sql": "SELECT 1;"}),
    Case(
        "same-file-under-another-number",
        4,
        applied={"001_first.sql": TABLE},
        files={"002_first.sql": TABLE},
        prepare=first_is_gone,
    ),
    Case("row-of-the-ledger-lost", 4, applied=TWO_OF_ONE_SCHEMA, prepare=lose_a_row_of_the_ledger),
    Case("out-of-order", 4, applied={"002_second.sql": TABLE}, files={"001_first.sql": "SELECT 1;"}),
    Case(
        "rehearsal-of-attach",
        4,
        ("migrate", "--dry-run"),
        files={"001_beyond.sql": "-- migrate:allow attach\nATTACH '/srv/other.db' AS other;\n"},
    ),
    Case("ledger-lost", 4, files={"001_first.sql": TABLE}, prepare=foreign_tables),
    Case("ledger-lost-where-only-rows-changed", 4, applied=TWO_OF_ONE_SCHEMA, prepare=lose_the_ledger),
    Case("lock-file-is-a-folder", 4, ("check",), files={"001_first.sql": TABLE}, prepare=lock_file_is_a_folder),
    Case("status-shows-a-bad-name", 4, ("status",), files={"001_first.sql": TABLE, "notes.sql": ""}),
    Case("new-beside-a-bad-name", 4, ("new", "accounts"), files={"notes.sql": ""}),
]

TEXTS = [
    text("empty-file", 4, ""),
    text("only-comments", 4, "-- Later.\n/* Really. */\n"),
    text("empty-up-section", 4, "-- Title\n\n-- migrate:up\n\n-- migrate:down\nDROP TABLE customers;\n"),
    text("latin-1", 4, f"{TABLE}-- f\u00fcr Kunden\n".encode("latin-1")),
    text("utf-16", 4, TABLE.encode("utf-16")),
    text("cut-inside-a-character", 4, f"{TABLE}-- 5 €".encode()[:-1]),
    text("nul-byte", 4, f"{TABLE}\nINSERT INTO customers VALUES (1, 'a\0b');\n"),
    text("open-string", 4, f"{TABLE}INSERT INTO customers VALUES (1, 'O'Hara«');\n"),
    text("open-name", 4, 'CREATE TABLE «"customers (id INTEGER);\n'),
    text("open-bracket", 4, "CREATE TABLE «[customers (id INTEGER);\n"),
    text("open-backtick", 4, "CREATE TABLE «`customers (id INTEGER);\n"),
    text("open-comment", 4, f"{TABLE}  «/* later\nSELECT 1;\n"),
    text("open-trigger", 4, f"{TABLE}«CREATE TRIGGER t AFTER INSERT ON customers BEGIN\n  SELECT 1;\n"),
    text("comment-of-two-characters-at-the-end", 4, f"{TABLE}«/*"),
    text("directive-misspelt", 4, f"-- migrate:up\n{TABLE}-- migrate:«donw\nDROP TABLE customers;\n"),
    text("directive-unknown", 4, f"-- migrate:«sometimes\n{TABLE}"),
    text("directive-in-capitals", 4, f"-- MIGRATE:«UP\n{TABLE}"),
    text("directive-without-a-word", 4, f"-- migrate:\n{TABLE}"),
    text("directive-indented", 4, f"\t-- migrate: «foreign_key off\n{TABLE}"),
    text("directive-argument-misspelt", 4, f"-- migrate:up transaction:flase\n{TABLE}"),
    text("directive-argument-missing", 4, f"-- migrate:«allow\n{TABLE}"),
    text("directive-argument-wrong", 4, f"-- migrate:foreign_keys on\n{TABLE}"),
    text(
        "directive-behind-a-statement", 4, f"-- migrate:up\n{TABLE.strip()} «-- migrate:down\nDROP TABLE customers;\n"
    ),
    text("ignore-without-a-rule", 4, f"-- migrate:«ignore\n{TABLE}"),
    text("ignore-of-what-is-no-rule", 4, f"-- migrate:ignore «FA301 it has ten rows\n{TABLE}"),
    text("ignore-without-a-reason", 4, f"-- migrate:ignore «FA604\n{TABLE}"),
    text("ignore-behind-the-last-statement", 4, f"{TABLE}-- migrate:«ignore FA604 it has ten rows\n"),
    text("marker-of-goose", 4, f"-- +goose «Up\n{TABLE}-- +goose Down\nDROP TABLE customers;\n"),
    text("marker-without-colon", 4, f"-- migrate:up\n{TABLE}-- migrate «down\nDROP TABLE customers;\n"),
    text("two-up-sections", 4, f"-- migrate:up\n{TABLE}-- migrate:«up\nSELECT 1;\n", "second up section"),
    text("two-down-sections", 4, f"-- migrate:up\n{TABLE}-- migrate:down\n-- migrate:«down\n"),
    text(
        "down-before-up", 4, f"-- migrate:down\nDROP TABLE customers;\n-- migrate:up\n{TABLE}", "before any up section"
    ),
    text("statement-before-up", 4, f"SELECT 1;\n-- migrate:«up\n{TABLE}"),
    text("down-without-up", 4, f"{TABLE}-- migrate:«down\nDROP TABLE customers;\n"),
    text("begin-without-commit", 4, f"«BEGIN;\n{TABLE}"),
    text("commit-in-the-middle", 4, f"{TABLE}«COMMIT;\nCREATE TABLE accounts (id);\n"),
    text("rollback-inside", 4, f"BEGIN;\n{TABLE}«ROLLBACK;\n"),
    text("savepoint", 4, f"{TABLE}  «SAVEPOINT halfway;\n"),
    text("statement-behind-commit", 4, f"BEGIN;\n{TABLE}«COMMIT; CREATE TABLE accounts (id);\n"),
    text("commit-in-the-down-section", 4, f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE customers; «END;\n"),
    text("attach", 4, f"{TABLE}«ATTACH DATABASE 'other.db' AS other;\n"),
    text("vacuum", 4, f"-- migrate:up\n{TABLE}«VACUUM;\n"),
    text("vacuum-in-the-down-section", 4, f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE customers; «VACUUM;\n"),
    text("journal-mode", 4, f"«PRAGMA journal_mode = WAL;\n{TABLE}"),
    text("ledger-written", 4, f"{TABLE}INSERT INTO «_migrations (filename)\nVALUES ('002_second.sql');\n"),
    text("ledger-dropped", 4, 'DROP TABLE IF EXISTS main.«"_Migration_History";\n'),
    text("batch-without-a-size", 4, f"{TABLE}-- migrate:«batch\n{BATCH}"),
    text("batch-without-its-parameter", 4, "-- migrate:«batch 5000\nDELETE FROM customers;\n", "FA221"),
    text("batch-parameter-without-a-batch", 4, f"«{BATCH}"),
    text("batch-beside-another-statement", 4, f"-- migrate:batch 5000\n{BATCH}«CREATE TABLE t (x);\n"),
    text("assertion-missing", 4, f"{TABLE}-- migrate:«assert\n"),
    text("assertion-that-writes", 4, f"{TABLE}-- migrate:«assert WITH a AS (SELECT 1) DELETE FROM customers\n"),
    text("assertion-above-the-sections", 4, f"-- migrate:«assert SELECT 1 = 1\n\n-- migrate:up\n{TABLE}"),
    Case("mistake-in-the-second-file", 4, files={"001_first.sql": TABLE, "002_second.sql": "CREATE TABLE t (x «'y);"}),
]

UP = "def up(connection):\n"


def python(id: str, exit_code: int, content: str) -> Case:
    """A Python migration that cannot be used, or fails, on a database that an SQL file has made."""
    return Case(id, exit_code, applied={"001_first.sql": FAMILY}, files={"002_second.py": content})


PYTHON = [
    python("python-syntax", 4, f"{UP}    return «(\n"),
    python("python-return-outside", 4, f"{UP}    pass\n\n«return\n"),
    python("python-without-up", 4, "def upgrade(connection):\n    pass\n"),
    python("python-up-without-parameter", 4, '"""Why."""\n\n«def up():\n    pass\n'),
    python("python-up-is-a-coroutine", 4, "async «def up(connection):\n    pass\n"),
    python("python-down-is-a-generator", 4, f"{UP}    pass\n\n\n«def down(connection):\n    yield 1\n"),
    python("python-directive-misspelt", 4, f"# migrate:«foreign_key off\n{UP}    pass\n"),
    python("python-requires-what-is-missing", 4, f"# migrate:requires «007\n{UP}    pass\n"),
    python("python-directive-below", 4, f"{UP}    «# migrate:allow attach\n    pass\n"),
    python("python-directive-of-sections", 4, f"«# migrate:up transaction:false\n{UP}    pass\n"),
    python("python-commits", 3, f"{UP}    connection.execute('DELETE FROM children')\n    connection.commit()\n"),
    python(
        "python-commits-in-sql",
        3,
        f"{UP}    try:\n        connection.execute('COMMIT')\n    except Exception:\n        pass\n",
    ),
    python("python-writes-the-ledger", 3, f"{UP}    connection.execute('DELETE FROM _migrations')\n"),
    python("python-attaches", 3, f"{UP}    connection.execute('ATTACH ? AS other', ('other.db',))\n"),
    python("python-drop-would-cascade", 3, f"{UP}    connection.execute('DROP TABLE parents')\n"),
    python(
        "python-raises",
        3,
        "def parse(text):\n    try:\n        return int(text)\n    except ValueError as error:\n"
        f"        raise LookupError(f'no number in {{text!r}}') from error\n\n\n{UP}    parse('one')\n",
    ),
    python("python-statement-fails", 3, f"{UP}    connection.execute('INSERT INTO children VALUES (?)', (9,))\n"),
    python(
        "python-ends-the-transaction", 3, f"{UP}    connection.execute('INSERT OR ROLLBACK INTO parents VALUES (1)')\n"
    ),
]

STATEMENTS = [
    text("syntax", 3, "CREATE «TABEL customers (id INTEGER);\n"),
    text(
        "syntax-at-the-second-occurrence", 3, "CREATE TABLE t (a, b);\nINSERT INTO t (a, b) VALUES (1, 2),«, (3, 4);\n"
    ),
    text(
        "syntax-at-the-fourth-parenthesis",
        3,
        "CREATE TABLE t (\n  a TEXT CHECK (a IN ('x')),\n  b TEXT CHECK («)\n);\n",
    ),
    text("syntax-at-a-word-that-is-also-a-string", 3, "SELECT 'from', from_x FROM «FROM (SELECT 1 AS from_x);\n"),
    text("syntax-in-a-long-statement", 3, "CREATE TABLE t (\n  a,\n  b\n  c INTEGER NOT NULL DEFAULT«,\n  d\n);\n"),
    text("syntax-behind-a-comma", 3, "CREATE TABLE t (\n  a INTEGER,\n  b INTEGER,\n«);\n"),
    text("syntax-behind-tabs", 3, "CREATE TABLE t (\n\ta INTEGER,\n\tb\tINTEGER NOT «NUL\n);\n"),
    text("syntax-behind-wide-letters", 3, "SELECT 'größe', '日本', '🎉' FORM «customers;\n"),
    text("syntax-behind-another-statement", 3, "CREATE TABLE t (a); CREATE «TABEL u (b);\n"),
    text("syntax-in-a-windows-file", 3, b"\xef\xbb\xbfCREATE TABLE t (a);\r\n\r\nCREATE TABEL u (b);\r\n"),
    text("syntax-far-to-the-right", 3, f"SELECT {', '.join(map(str, range(100)))} FORM «t WHERE {'1 AND ' * 40} 1;\n"),
    text("syntax-in-a-trigger", 3, f"{TABLE}CREATE TRIGGER t AFTER INSERT ON customers BEGIN\n  «SELEC 1;\nEND;\n"),
    text("syntax-of-another-engine", 3, "«START TRANSACTION;\nCREATE TABLE t (a);\n"),
    text("syntax-behind-a-comment", 3, "/* TABEL */ CREATE -- TABEL\n  «TABEL t (a);\n"),
    text("token-unknown", 3, "SELECT 1 AS a, «# comment\n  2 AS b;\n"),
    text("input-incomplete", 3, f"{TABLE}\nCREATE INDEX by_name O«N\n"),
    text("input-incomplete-with-semicolon", 3, "CREATE TABLE t (\n  a,\n  b  «;\n"),
    text("table-missing", 3, "INSERT INTO «customers\nSELECT * FROM clients;\n"),
    text("table-missing-with-its-name-twice", 3, "SELECT clients.id FROM\n  clients;\n"),
    text("column-missing", 3, f"{TABLE}UPDATE customers\nSET «title = 'Dr.';\n"),
    text("column-missing-in-an-insert", 3, f"{TABLE}INSERT INTO customers (id, «surname) VALUES (1, 'x');\n"),
    text("column-missing-in-an-index", 3, f"{TABLE}CREATE INDEX by_email ON customers («email);\n"),
    text("column-twice", 3, "CREATE TABLE t (\n  a TEXT,\n  A INTEGER\n);\n"),
    text("function-missing", 3, "SELECT\n  «gen_random_uuid();\n"),
    text("module-missing", 3, "CREATE VIRTUAL TABLE v USING «vectors(a);\n"),
    text("extension", 3, "«SELECT load_extension('evil.so');\n"),
    text("parameter", 3, f"{TABLE}INSERT INTO customers VALUES (1, ?);\n"),
    text("values-too-many", 3, f"{TABLE}INSERT INTO «customers VALUES (1, 'a', 'b');\n"),
    text("row-twice", 3, f"{TABLE}«INSERT INTO customers VALUES\n  (1, 'a'),\n  (1, 'b');\n"),
    text("null-refused", 3, f"{TABLE}«INSERT INTO customers VALUES (1, NULL);\n"),
    text("check-failed", 3, "CREATE TABLE t (a CHECK (a > 0));\n«INSERT INTO t VALUES (-1);\n"),
    text("json-malformed", 3, "CREATE TABLE t (a);\nINSERT INTO t VALUES ('{');\n«SELECT json(a) FROM t;\n"),
    second("table-there-already", 3, TABLE, "-- The same again.\nCREATE TABLE «customers (id);\n"),
    second("column-there-already", 3, TABLE, "ALTER TABLE customers ADD COLUMN «name TEXT;\n"),
    second(
        "column-not-null-without-default",
        3,
        f"{TABLE}INSERT INTO customers VALUES (1, 'a');\n",
        "«ALTER TABLE customers\n  ADD COLUMN email TEXT NOT NULL;\n",
    ),
    second(
        "view-broken-by-a-rename",
        3,
        f"{TABLE}CREATE VIEW v AS SELECT name FROM customers;\n",
        "«ALTER TABLE customers DROP COLUMN name;\n",
    ),
    second("parent-missing", 3, FAMILY, "INSERT INTO children VALUES (1);\n«INSERT INTO children VALUES (9);\n"),
    second(
        "parent-missing-at-the-commit", 3, FAMILY, "PRAGMA defer_foreign_keys = ON;\nINSERT INTO children VALUES (9);\n"
    ),
    second("orphans-after-a-rebuild", 3, FAMILY, "-- migrate:foreign_keys off\nDELETE FROM parents WHERE id = 2;\n"),
    second("drop-would-cascade", 4, FAMILY, "«DROP TABLE parents;\n"),
    text("drop-would-cascade-in-new-tables", 4, f"{FAMILY}«DROP TABLE parents;\n"),
    second(
        "transaction-ended-by-a-conflict",
        3,
        f"{TABLE}INSERT INTO customers VALUES (1, 'a');\n",
        "«INSERT OR ROLLBACK INTO customers VALUES (1, 'b');\n",
        "Error FA302",
    ),
    text(
        "transaction-ended-by-a-trigger",
        3,
        f"{TABLE}CREATE TRIGGER t BEFORE INSERT ON customers\nBEGIN SELECT RAISE(ROLLBACK, 'closed'); END;\n"
        "«INSERT INTO customers VALUES (1, 'a');\n",
        "Error FA302",
    ),
    text(
        "stopped-by-a-trigger",
        3,
        f"{TABLE}CREATE TRIGGER t BEFORE INSERT ON customers\nBEGIN SELECT RAISE(ABORT, 'the books are closed'); END;\n"
        "«INSERT INTO customers VALUES (1, 'a');\n",
    ),
    text("disk-full", 3, f"{TABLE}PRAGMA max_page_count = 9;\n«INSERT INTO customers VALUES (1, zeroblob(99999));\n"),
    text("halfway", 3, f"-- migrate:up transaction:false\n{TABLE}VACUUM;\nCREATE «TABEL accounts (id);\nSELECT 1;\n"),
    text(
        "halfway-in-a-transaction-of-its-own",
        3,
        f"-- migrate:up transaction:false\n{TABLE}BEGIN;\n«CREATE TABLE accounts (id);\n",
    ),
    text("first-statement-without-transaction", 3, "-- migrate:up transaction:false\nCREATE «TABEL accounts (id);\n"),
    second(
        "batch-that-fails",
        3,
        f"{TABLE}INSERT INTO customers VALUES (1, 'A'), (2, 'B'), (3, 'C');\n",
        f"-- migrate:batch 2\n«{BATCH.replace('lower(name)', 'CASE WHEN id < 3 THEN lower(name) END', 1)}",
    ),
    second(
        "batch-without-an-end",
        3,
        f"{TABLE}INSERT INTO customers VALUES (1, 'a'), (2, 'b'), (3, 'c');\n",
        "-- migrate:batch 2\n«UPDATE customers SET name = 'x' WHERE id IN (SELECT id FROM customers LIMIT :batch);\n",
    ),
    second(
        "batch-that-adds-the-same-again-and-again",
        4,
        TABLE,
        "-- migrate:batch 2\n«INSERT INTO customers (name) SELECT 'a' LIMIT :batch;\n",
    ),
    Case(
        "batches-begun-with-other-statements",
        4,
        applied={"001_first.sql": TABLE},
        prepare=begun_otherwise,
    ),
    second("assertion-that-finds-rows", 3, FAMILY, "SELECT 1;\n-- migrate:«assert SELECT parent_id FROM children\n"),
    text("assertion-that-is-false", 3, f"{TABLE}-- migrate:«assert SELECT count(*) > 0 FROM customers\n"),
    Case(
        "syntax-in-the-second-file",
        3,
        files={"001_first.sql": TABLE, "002_second.sql": "DROP TABLE «clients;\n"},
        stays=("001_first.sql",),
    ),
]

ROWS = f"{TABLE}INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Bob');\n"
REBUILD = "-- migrate:rebuild «customers\n"

REBUILDS = [
    text("rebuild-of-nothing-named", 4, "-- migrate:«rebuild\nCREATE TABLE customers (id);\n", "Error FA227"),
    text("rebuild-of-two-tables", 4, "-- migrate:rebuild «a b\nCREATE TABLE a (id);\n", "Error FA227"),
    text("rebuild-of-another-table", 4, "-- migrate:rebuild «clients\nCREATE TABLE customers (id);\n", "Error FA227"),
    text("rebuild-without-a-table", 4, "-- migrate:rebuild customers\n«UPDATE customers SET id = 1;\n", "Error FA227"),
    text("rebuild-if-not-exists", 4, "-- migrate:rebuild a\nCREATE TABLE «IF NOT EXISTS a (b);\n", "Error FA227"),
    text("rebuild-of-a-temporary-table", 4, "-- migrate:rebuild a\nCREATE «TEMP TABLE a (b);\n", "Error FA227"),
    text("rebuild-of-a-virtual-table", 4, "-- migrate:rebuild a\nCREATE «VIRTUAL TABLE a USING b;\n", "Error FA227"),
    text("rebuild-as-a-query", 4, "-- migrate:rebuild a\nCREATE TABLE a «AS SELECT 1;\n", "Error FA227"),
    text("rebuild-elsewhere", 4, "-- migrate:rebuild a\nCREATE TABLE «temp.a (b);\n", "Error FA227"),
    text("rebuild-twice", 4, "-- migrate:rebuild a\n-- migrate:rebuild «a\nCREATE TABLE a (b);\n", "Error FA227"),
    text(
        "rebuild-without-a-transaction",
        4,
        "-- migrate:up transaction:false\n-- migrate:rebuild «a\nCREATE TABLE a (b);\n",
        "Error FA227",
    ),
    text("rebuild-at-the-end", 4, "SELECT 1;\n-- migrate:«rebuild a\n", "Error FA209"),
    text("copy-without-a-rebuild", 4, "-- migrate:copy «b = 1\nCREATE TABLE a (b);\n", "Error FA227"),
    text("copy-of-nothing", 4, "-- migrate:rebuild a\n-- migrate:copy «b\nCREATE TABLE a (b);\n", "Error FA227"),
    text(
        "copy-twice",
        4,
        "-- migrate:rebuild a\n-- migrate:copy b = 1\n-- migrate:copy «B = 2\nCREATE TABLE a (b);\n",
        "Error FA227",
    ),
    text(
        "copy-never-closed",
        4,
        "-- migrate:rebuild a\n-- migrate:copy b = abs«(1\nCREATE TABLE a (b);\n",
        "Error FA227",
    ),
    text(
        "copy-that-reaches-out",
        4,
        "-- migrate:rebuild a\n-- migrate:copy b = 1«), (2\nCREATE TABLE a (b);\n",
        "Error FA227",
    ),
    second("rebuild-of-a-missing-table", 3, TABLE, "-- migrate:rebuild clients\nCREATE TABLE «clients (id);\n"),
    second(
        "rebuild-that-does-not-parse", 3, TABLE, "-- migrate:rebuild customers\nCREATE TABLE customers (id INTT, «);\n"
    ),
    second(
        "copy-of-a-missing-column",
        3,
        TABLE,
        "-- migrate:rebuild customers\n-- migrate:copy email = lower(«mail)\nCREATE TABLE customers (id, email);\n",
    ),
    second(
        "copy-into-a-missing-column",
        3,
        TABLE,
        "-- migrate:rebuild customers\n-- migrate:copy «mail = name\nCREATE TABLE customers (id, email);\n",
    ),
    second(
        "copy-into-a-generated-column",
        3,
        TABLE,
        "-- migrate:rebuild customers\n-- migrate:copy «email = name\nCREATE TABLE customers (id, email AS (id));\n",
    ),
    second(
        "value-missing", 3, ROWS, f"{REBUILD}CREATE TABLE customers (id, name, email TEXT NOT NULL);\n", "Error FA228"
    ),
    second(
        "index-of-a-lost-column",
        4,
        f"{TABLE}CREATE INDEX by_name ON customers (name);\n",
        f"{REBUILD}CREATE TABLE customers (id INTEGER PRIMARY KEY);\n",
        "Error FA229",
    ),
    second(
        "rebuild-that-aggregates",
        3,
        ROWS,
        f"{REBUILD}-- migrate:copy name = max(name)\nCREATE TABLE customers (id INTEGER PRIMARY KEY, name);\n",
        "Error FA314",
    ),
    second(
        "rebuild-that-breaks-a-view",
        3,
        f"{TABLE}CREATE VIEW names AS SELECT name FROM customers;\n",
        f"{REBUILD}CREATE TABLE customers (id INTEGER PRIMARY KEY);\n",
        "Error FA315",
    ),
    second(
        "rebuild-that-does-not-fit",
        3,
        ROWS,
        f"{REBUILD}CREATE TABLE customers (id INTEGER PRIMARY KEY, name CONSTRAINT not_bob CHECK (name <> 'Bob'));\n",
        "Error FA316",
    ),
    second(
        "rebuild-that-does-not-fit-its-types",
        3,
        ROWS,
        f"{REBUILD}CREATE TABLE customers (id INTEGER PRIMARY KEY, name INT) STRICT;\n",
        "Error FA316",
    ),
]

DOWNS = [
    down("down-syntax", 3, "DROP «TABEL customers;\n"),
    down("down-syntax-behind-lines", 3, "\n\nDROP TABLE\n  customers «CASCADE;\n"),
    down("down-table-missing", 3, "-- Undo.\nDROP TABLE «clients;\n"),
    down("down-incomplete", 3, "DROP TABL«E"),
    down("down-column-missing", 3, "UPDATE customers SET «nickname = NULL;\n"),
    down("down-would-cascade", 4, "«DROP TABLE parents;\n", FAMILY),
    down("down-leaves-orphans", 3, "PRAGMA foreign_keys = OFF;\nDROP TABLE parents;\n", FAMILY),
    down("down-missing", 4, ""),
    Case(
        "down-needs-a-yes",
        4,
        ("rollback",),
        applied={
            "001_first.sql": f"-- migrate:up\n{FAMILY}-- migrate:down\nDROP TABLE children;\nDROP TABLE parents;\n"
        },
    ),
    Case(
        "down-fails-before-it-asks",
        3,
        ("rollback",),
        applied={"001_first.sql": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP «TABEL customers;\n"},
    ),
    Case(
        "down-of-a-file-that-is-gone",
        4,
        ("rollback", "--yes"),
        applied={"001_first.sql": TABLE},
        prepare=gone("001_first.sql"),
    ),
    Case(
        "down-of-several-without-one",
        4,
        ("rollback", "--to", "0", "--yes"),
        applied={"001_first.sql": TABLE, "002_second.sql": "CREATE TABLE t (a);"},
    ),
    Case(
        "down-kept-by-the-ledger-fails",
        3,
        ("rollback", "--yes"),
        applied={"001_first.sql": f"-- migrate:up\n{TABLE}\n-- migrate:down\n\nDROP «TABEL customers;\n"},
        prepare=gone("001_first.sql"),
    ),
    Case(
        "down-kept-by-the-ledger-tampered",
        4,
        ("rollback", "--yes"),
        applied={"001_first.sql": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE customers;\n"},
        prepare=stored_down(zlib.compress(b"-- migrate:down\nCOMMIT;\n")),
    ),
    Case(
        "down-kept-by-the-ledger-not-compressed",
        4,
        ("rollback", "--yes"),
        applied={"001_first.sql": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE customers;\n"},
        prepare=stored_down(b"DROP TABLE customers;\n"),
    ),
]

FIRST = {"001_first.sql": TABLE}
OLD_LEDGER = "CREATE TABLE _migrations (id INTEGER PRIMARY KEY, filename, applied_at);"
DATABASES = [
    Case("database-is-text", 2, files=FIRST, prepare=database_is(b"Dear diary,\n" * 400)),
    Case("database-is-text-status", 2, ("status",), files=FIRST, prepare=database_is(b"Dear diary,\n" * 400)),
    Case("database-is-a-folder", 2, files=FIRST, prepare=database_is_a_folder),
    Case("database-is-a-fifo", 2, files=FIRST, prepare=database_is_a_fifo),
    Case("database-is-a-socket", 2, files=FIRST, prepare=database_is_a_socket),
    Case("database-folder-missing", 2, files=FIRST, prepare=no_database_folder),
    Case("database-missing-to-verify", 2, ("verify",), files=FIRST),
    Case("database-missing-to-compare-with", 2, ("verify", "--against", "/nowhere/old.db"), applied=FIRST),
    Case("database-cut-short", 2, files=FIRST, prepare=database_cut_short),
    Case("database-scribbled-over", 2, ("status",), files=FIRST, prepare=database_scribbled_over),
    Case("ledger-of-another-tool", 4, files=FIRST, prepare=ledger("CREATE TABLE _migrations (id, name, time)")),
    Case(
        "ledger-is-a-view",
        4,
        files=FIRST,
        prepare=ledger("CREATE VIEW _migrations AS SELECT 1 AS id, 'x' AS filename, 2 AS applied_at"),
    ),
    Case(
        "ledger-with-numbers-for-names",
        4,
        ("status",),
        files=FIRST,
        prepare=ledger(f"{OLD_LEDGER} INSERT INTO _migrations VALUES (1, 1, 'now')"),
    ),
    Case(
        "ledger-with-blobs-for-names",
        4,
        files=FIRST,
        prepare=ledger(f"{OLD_LEDGER} INSERT INTO _migrations VALUES (1, x'30', 'now')"),
    ),
    Case(
        "history-of-another-tool",
        4,
        files=FIRST,
        prepare=ledger("CREATE TABLE _migration_history (version TEXT NOT NULL)"),
        says="Error FA407",
    ),
    Case("database-locked", 5, ("migrate", "--wait", "0"), files=FIRST, prepare=database_locked),
    Case("another-run-at-work", 5, ("migrate", "--wait", "0.1"), files=FIRST, prepare=another_run),
]

SETTINGS = [
    setting("setting-database-empty", 2, DATABASE=""),
    setting("setting-database-null", 2, DATABASE="null"),
    setting("setting-database-true", 2, DATABASE="true"),
    setting("setting-database-list", 2, DATABASE='["a.db"]'),
    setting("setting-database-with-nul-byte", 2, DATABASE='"a\\u0000.db"'),
    setting("setting-database-in-memory", 2, DATABASE=":memory:"),
    setting("setting-database-uri", 2, DATABASE="file:app.db?mode=ro"),
    setting("setting-database-url-empty", 2, DATABASE="sqlite:///"),
    setting("setting-database-url-short", 2, DATABASE="sqlite://app.db"),
    setting("setting-database-on-a-server", 2, DATABASE="postgresql://bob:p@ss/w#rd?@db.example/app"),
    setting("setting-database-of-nobody", 2, ("migrate",), DATABASE="~nobody-of-that-name/app.db"),
    setting("setting-database-name-too-long", 2, DATABASE=f"/tmp/{'a' * 300}.db"),
    setting("setting-migrations-number", 2, MIGRATIONS="7"),
    setting("setting-migrations-empty", 2, MIGRATIONS=""),
    setting("setting-migrations-with-nul-byte", 2, MIGRATIONS='"a\\u0000b"'),
    setting("setting-migrations-of-nobody", 2, MIGRATIONS="~nobody-of-that-name/migrations"),
    setting("setting-minimum-sqlite-read-as-a-number", 2, MINIMUM_SQLITE="3.40"),
    setting("setting-minimum-sqlite-of-the-future", 2, MINIMUM_SQLITE="four"),
    setting("setting-check-after-list", 2, CHECK_AFTER="[4]"),
    setting("setting-on-startup-unknown", 0, MIGRATE_ON_STARTUP="perhaps"),
]


def in_environment(name: str) -> Callable[[Place], None]:
    """The database belongs to an environment."""

    def migrate(place: Place) -> None:
        place.write({"000_stamped.sql": "SELECT 1;"})
        assert flask_db(place, "migrate", "--environment", name)[0] == 0

    return migrate


STAGED = f"-- migrate:environments staging\n{TABLE}"
UPWARDS = {
    "001_first.sql": "-- migrate:requires 2\nSELECT 1;",
    "002_second.sql": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE customers;",
}
GRAPHS = [
    text("requirement-missing", 4, f"-- migrate:requires «007\n{TABLE}"),
    Case(
        "requirement-misspelt",
        4,
        files={
            "001_customers.sql": TABLE,
            "002_second.sql": "-- migrate:requires 1 «001_custommers\nSELECT 1;",
            "003_third.sql": "-- migrate:requires 2\nSELECT 1;",
        },
        says="003_third -> 002_second -> 001_custommers\n",
    ),
    Case(
        "requirements-in-a-circle",
        4,
        ("migrate", "1"),
        files={
            "001_first.sql": TABLE,
            "003_third.sql": "-- migrate:requires 1 4\nSELECT 1;",
            "004_fourth.sql": "-- migrate:requires 005_fifth\nSELECT 1;",
            "005_fifth.sql": "-- migrate:requires 1\n-- migrate:requires «3\nSELECT 1;",
            "006_sixth.sql": "-- migrate:requires 5\nSELECT 1;",
        },
    ),
    text("requirement-of-itself", 4, f"-- migrate:requires «1\n{TABLE}"),
    Case(
        "requirement-of-another-environment",
        4,
        ("migrate", "--environment", "production"),
        files={"001_first.sql": STAGED, "002_second.sql": "-- migrate:requires «001_first\nSELECT 1;"},
    ),
    Case(
        "requirement-of-an-environment-where-none-is-configured",
        4,
        files={"001_first.sql": STAGED, "002_second.sql": "-- migrate:requires «1\nSELECT 1;"},
    ),
    Case(
        "requirement-of-another-engine",
        4,
        files={
            "001_first.postgresql.sql": TABLE,
            "001_first.mysql.sql": TABLE,
            "002_second.sql": "-- migrate:requires «001_first.sql\nSELECT 1;",
        },
    ),
    Case(
        "sql-of-another-engine-where-others-have-variants",
        3,
        files={
            "001_first.sqlite.sql": TABLE,
            "001_first.mysql.sql": TABLE,
            "002_second.sql": "CREATE TABLE second (id bigint GENERATED ALWAYS AS «IDENTITY PRIMARY KEY);",
        },
        stays=("001_first.sql",),
        says="write this one's own beside it: 002_second.sqlite.sql",
    ),
    Case(
        "rollback-of-what-another-requires",
        4,
        ("rollback", "--to", "1", "--yes"),
        applied=UPWARDS,
    ),
    text("requires-without-a-name", 4, f"-- migrate:«requires\n{TABLE}"),
    text(
        "requires-in-the-down-section", 4, f"-- migrate:up\n{TABLE}-- migrate:down\n-- migrate:«requires 1\nSELECT 1;"
    ),
    text("environments-behind-a-statement", 4, f"{TABLE}-- migrate:«environments staging\nSELECT 1;"),
    text("environments-with-a-comma", 4, f"-- migrate:environments «staging, production\n{TABLE}"),
    Case("environment-differs", 4, ("migrate", "--environment", "development"), prepare=in_environment("production")),
    Case("environment-not-configured", 4, ("rollback",), prepare=in_environment("production")),
    Case("environment-changed-to-none", 2, ("migrate", "--change-environment"), files={"001_first.sql": TABLE}),
    setting("setting-environment-with-a-space", 2, ENVIRONMENT="not production"),
    setting("setting-environment-empty", 2, ENVIRONMENT=""),
]

USAGES = [
    setting("setting-schema-file-list", 2, ("dump",), SCHEMA_FILE='["a.sql"]'),
    setting("setting-dump-after-migrate-unknown", 2, ("migrate",), DUMP_AFTER_MIGRATE="sometimes"),
    Case("dump-of-a-missing-database", 2, ("dump",)),
    Case("dump-onto-another-file", 4, ("dump",), applied={"001_first.sql": TABLE}, prepare=schema_file_is_a_letter),
    Case("dump-onto-a-folder", 2, ("dump",), applied={"001_first.sql": TABLE}, prepare=schema_file_is_a_folder),
    usage("code-unknown", "explain", "FA406x"),
    usage("target-unknown", "migrate", "9"),
    usage("target-unknown-name", "migrate", "middle"),
    usage("target-ambiguous", "migrate", "st"),
    usage("target-empty", "migrate", ""),
    usage("target-of-too-many-digits", "migrate", "9" * 5000),
    usage("rollback-to-unknown", "rollback", "--to", "7"),
    usage("rollback-to-negative", "rollback", "--to", "-1"),
    usage("rollback-no-steps", "rollback", "--steps", "0"),
    usage("rollback-steps-word", "rollback", "--steps", "two"),
    usage("rollback-steps-and-to", "rollback", "--steps", "1", "--to", "1"),
    usage("wait-negative", "migrate", "--wait", "-1"),
    usage("option-unknown", "status", "--databse", "x.db"),
    usage("command-unknown", "migrat"),
    usage("arguments-too-many", "migrate", "1", "2"),
    usage("message-of-flask-migrate", "migrate", "-m", "add risk profile"),
    usage("downgrade-no-steps", "downgrade", "-0"),
    usage("wait-is-not-a-number", "migrate", "--wait", "nan"),
    usage("baseline-of-a-migrated-database", "baseline", "3", exit_code=4),
    usage("baseline-without-target", "baseline"),
    usage("baseline-unknown", "baseline", "7"),
    usage("repair-without-reason", "repair", "1"),
    usage("repair-with-an-empty-reason", "repair", "1", "--reason", " "),
    usage("repair-of-an-unchanged-file", "repair", "1", "--reason", "a typo", exit_code=4),
    usage("repair-unknown", "repair", "7", "--reason", "a typo"),
    usage("renumber-of-an-applied-file", "renumber", "2", exit_code=4),
    usage("renumber-ambiguous", "renumber", "t", exit_code=4),
    usage("renumber-unknown", "renumber", "7"),
    usage("new-without-name", "new"),
    usage("new-name-without-letters", "new", "!?"),
    usage("new-name-in-cyrillic", "new", "миграция"),
    usage("new-name-too-long", "new", "a" * 201),
    Case(
        "repair-of-a-file-that-is-gone",
        4,
        ("repair", "1", "--reason", "a typo"),
        applied={"001_first.sql": TABLE},
        prepare=gone("001_first.sql"),
    ),
    Case("target-in-an-empty-folder", 2, ("migrate", "1")),
    Case("new-in-a-missing-folder", 2, ("new", "accounts"), prepare=no_folder),
]


def server(id: str, dialect: str, content: str) -> Case:
    """A file for PostgreSQL or MySQL, which is refused before any server is asked."""
    return Case(id, 4, files={f"001_first.{dialect}.sql": content})


SERVERS = [
    server("psql-includes-a-file", "postgresql", "«\\i customers.sql\n"),
    server("psql-connects", "postgresql", f"{TABLE}  «\\connect other\n"),
    server("psql-command-behind-a-query", "postgresql", "SELECT 1 AS n «\\gset\nSELECT :n;\n"),
    server("copy-and-a-statement", "postgresql", "COPY customers FROM stdin; «SELECT 1;\n1\tAda\n\\.\n"),
    server("copy-without-an-end", "postgresql", "COPY customers FROM stdin;« -- the rows\n1\tAda\n"),
    server("open-dollar-quote", "postgresql", "DO «$body$ BEGIN NULL; END $$;\n"),
    server("open-body", "postgresql", "«CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;\n"),
    server("backslashes-in-strings", "postgresql", "«SET standard_conforming_strings TO off;\nSELECT 'a\\';\n"),
    server("index-concurrently", "postgresql", "«CREATE INDEX CONCURRENTLY i ON customers (name);\n"),
    server("transaction-prepared", "postgresql", "SELECT 1;\n«PREPARE TRANSACTION 'a';\n"),
    server("ledger-in-a-function", "postgresql", 'DO $$ BEGIN DELETE FROM public.«"_migrations"; END $$;\n'),
    server("rebuild-on-a-server", "postgresql", f"-- migrate:«rebuild customers\n{TABLE}"),
    server("foreign-keys-off-on-a-server", "mysql", f"-- migrate:«foreign_keys off\n{TABLE}"),
    server("mariadb-reads-a-file", "mysql", "«source customers.sql\n"),
    server("mariadb-runs-a-program", "mysql", "SELECT 1;\n«\\! ls\n"),
    server("delimiter-missing", "mysql", "«DELIMITER\nSELECT 1;\n"),
    server("delimiter-left", "mysql", "-- migrate:up\nDELIMITER $$\nSELECT 1 $$\n-- migrate:«down\nSELECT 2;\n"),
    server("database-switched", "mysql", f"«USE other;\n{TABLE}"),
    server("tables-locked", "mysql", "«LOCK TABLES customers WRITE;\n"),
    server("quotes-of-names", "mysql", "«SET sql_mode = 'ANSI_QUOTES';\n"),
    server("autocommit-off", "mysql", "«SET autocommit = 0;\n"),
    server("open-program", "mysql", "«CREATE PROCEDURE p() BEGIN IF 1 THEN SELECT 1;\n"),
]

CASES = [*NAMES, *TEXTS, *PYTHON, *STATEMENTS, *REBUILDS, *DOWNS, *DATABASES, *SETTINGS, *GRAPHS, *USAGES]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        place = Place(tmp_path, stack)
        place.folder.mkdir()
        place.database.parent.mkdir()
        yield place


def environment(place: Place, **values: str) -> dict[str, str | None]:
    """The settings of the case; None for those of whoever runs the tests."""
    settings = {"FINANCIAL_AGENT_DATABASE": str(place.database), "FINANCIAL_AGENT_MIGRATIONS": str(place.folder)}
    foreign = [name for name in os.environ if name.startswith(("FINANCIAL_AGENT_", "FLASK_")) or "_COLOR" in name]
    return {**dict.fromkeys(foreign), "FLASK_SKIP_DOTENV": "1", "FLASK_RUN_FROM_CLI": "true", **settings, **values}


def flask_db(place: Place, *command: str, **env: str) -> tuple[int, str]:
    """Run a command through the application's own group; its exit code and standard error."""
    runner = CliRunner(catch_exceptions=False)
    result = runner.invoke(main, ["db", *command], prog_name="flask", env=environment(place, **env))
    return result.exit_code, result.stderr


def compare(place: Place, id: str, found: str) -> None:
    """Hold an error text against its golden file."""
    for path, name in (
        (place.instance, "<instance>"),
        (place.database, "<database>"),
        (place.database.parent, "<data>"),
        (place.folder, "<folder>"),
        (place.root, "<root>"),
        (CHECKOUT / "instance", "<instance>"),
    ):
        found = found.replace(str(path), name)
    path = GOLDEN / f"{id}.txt"
    if UPDATE:
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")
    assert "Traceback" not in found
    assert found.strip()
    if "Error FA" in found:
        assert "\nNext:  " in found


def cells(text: str) -> int:
    """How much of a terminal's line a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def check_caret(case: Case, found: str) -> None:
    """The text names the place of the marked token, and its caret stands below it."""
    for name, content in (case.applied | case.files).items():
        if isinstance(content, str) and MARK in content:
            before, after = content.split(MARK)
            column = len(before) - (before.rfind("\n") + 1) + 1
            assert re.search(rf"{name}[^:\n]*:{before.count(chr(10)) + 1}:{column}$", found, re.MULTILINE)
            _, _, excerpt, caret, *_ = found[found.index("Error FA") :].splitlines()
            excerpt, caret = excerpt[4:], caret[4:]
            shown = after.split("\n")[0].replace("\t", " ")
            at = next(at for at in range(len(excerpt)) if shown.startswith(excerpt[at:]))
            assert caret == " " * cells(excerpt[:at]) + "^"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_mistake_gets_its_text_and_its_exit_code_and_changes_nothing(case: Case, place: Place) -> None:
    if case.applied:
        place.write(case.applied)
        assert flask_db(place, "migrate")[0] == 0
    place.write(case.files)
    case.prepare(place)
    before, recorded = place.contents(), [] if case in DATABASES else place.recorded()

    exit_code, found = flask_db(place, *case.command, **case.env)

    compare(place, case.id, found)
    check_caret(case, found)
    assert exit_code == case.exit_code
    assert case.says in found
    if exit_code == 3:
        assert place.recorded() == [*recorded, *case.stays]
    else:
        assert place.contents() == before


@pytest.mark.parametrize("case", SERVERS, ids=lambda case: case.id)
def test_a_mistake_in_a_file_for_a_server_gets_its_text(case: Case, place: Place) -> None:
    place.write(case.files)
    ((name, _),) = case.files.items()
    dialect = name.split(".")[1]
    (file,) = discover(place.folder, dialect)
    with pytest.raises(FileRefused) as refused:
        read(file)
    found = error_text(refused.value) + "\n"
    compare(place, case.id, found)
    check_caret(case, found)
    assert refused.value.exit_code == case.exit_code


# Backups: what they can be made of and where, and what can be restored.


def customers(place: Place) -> None:
    place.sql("CREATE TABLE customers (id)")


def occupied(place: Place) -> None:
    customers(place)
    (place.root / "mine.db").write_text("This is a letter, not a database.")


def no_space(place: Place) -> None:
    customers(place)
    place.stack.enter_context(mock.patch("shutil.disk_usage", return_value=SimpleNamespace(free=512)))


BACKUPS = [
    Case("backup-of-a-missing-database", 4, ("backup",)),
    Case("backup-onto-a-file", 4, ("backup", "mine.db"), prepare=occupied),
    Case("backup-without-space", 4, ("backup",), prepare=no_space),
    Case("restore-unknown", 2, ("restore", "tuesday", "--yes"), prepare=customers),
    Case("restore-of-no-database", 4, ("restore", "mine.db", "--yes"), prepare=occupied),
    Case("restore-of-the-database-itself", 4, ("restore", "data/app.db", "--yes"), prepare=customers),
    setting("setting-backup-unknown", 2, ("backup",), BACKUP="sometimes"),
    setting("setting-backup-keep-none", 2, ("backup",), BACKUP_KEEP="0"),
    setting("setting-backup-directory-with-nul-byte", 2, ("backups",), BACKUP_DIRECTORY='"a\\u0000b"'),
]


@pytest.mark.parametrize("case", BACKUPS, ids=lambda case: case.id)
def test_a_backup_that_cannot_be_made_or_restored_gets_its_text_and_changes_nothing(
    case: Case, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.root)
    case.prepare(place)
    before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}

    exit_code, found = flask_db(place, *case.command, **case.env)

    compare(place, case.id, found)
    assert exit_code == case.exit_code
    assert {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()} == before


# What needs a process of its own: an instance folder, a user without root's rights, a signal, a terminal.


@dataclass(frozen=True)
class InProcess:
    """A mistake in `instance/config.py`, or in what the modes of files allow."""

    id: str
    exit_code: int
    config: str | bytes = ""
    command: tuple[str, ...] = ("status",)
    prepare: Callable[[Place], None] = nothing


def mode(name: str, bits: int, content: str | None = None) -> Callable[[Place], None]:
    """A file or folder has these permissions."""

    def change(place: Place) -> None:
        path = place.root / name
        if content is not None:
            path.write_text(content)
        path.chmod(bits)
        place.stack.callback(path.chmod, 0o755)

    return change


def read_only_database(place: Place) -> None:
    place.sql("CREATE TABLE other (x)")
    place.write(FIRST)
    mode("data/app.db", 0o444)(place)
    mode("data", 0o555)(place)


def unreadable_database(place: Place) -> None:
    place.sql("CREATE TABLE other (x)")
    mode("data/app.db", 0)(place)


def config_is_a_folder(place: Place) -> None:
    (place.instance / "config.py").unlink()
    (place.instance / "config.py").mkdir()


PROCESSES = [
    InProcess("config-syntax", 2, "TESTING = False\nDATABASE = = 1\n"),
    InProcess("config-raises", 2, "import os\n\nDATABASE = os.environ['NO_SUCH_VARIABLE']\n"),
    InProcess("config-imports-what-is-missing", 2, "import vault_client\n"),
    InProcess("config-raises-in-a-function", 2, "def path():\n    return 1 / 0\n\nDATABASE = path()\n"),
    InProcess("config-exits", 2, "import sys\nsys.exit('no database today')\n"),
    InProcess("config-not-utf-8", 2, "DATABASE = 'größe.db'\n".encode("latin-1")),
    InProcess("config-is-a-folder", 2, prepare=config_is_a_folder),
    InProcess("config-database-number", 2, "DATABASE = 3.5\n"),
    InProcess("config-database-bytes", 2, "DATABASE = b'app.db'\n"),
    InProcess("config-migrations-list", 2, "MIGRATIONS = ['migrations']\n"),
    InProcess("config-unreadable", 2, prepare=mode("checkout/instance/config.py", 0)),
    InProcess("folder-unreadable", 2, "MIGRATIONS = '../../migrations'\n", prepare=mode("migrations", 0)),
    InProcess(
        "file-unreadable",
        4,
        "MIGRATIONS = '../../migrations'\n",
        ("migrate",),
        mode("migrations/001_first.sql", 0, TABLE),
    ),
    InProcess("folder-read-only", 2, "MIGRATIONS = '../../migrations'\n", ("new", "x"), mode("migrations", 0o555)),
    InProcess("database-unreadable", 2, "DATABASE = '../../data/app.db'\n", prepare=unreadable_database),
    InProcess("database-in-a-closed-folder", 2, "DATABASE = '../../data/app.db'\n", prepare=mode("data", 0)),
    InProcess(
        "database-read-only",
        2,
        "DATABASE = '../../data/app.db'\nMIGRATIONS = '../../migrations'\n",
        ("migrate",),
        read_only_database,
    ),
]


def start(
    place: Place, *command: str, cwd: Path = CHECKOUT, stdin: int = subprocess.DEVNULL, **env: str | None
) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    variables = {**os.environ, **environment(place), **env}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={name: value for name, value in variables.items() if value is not None},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    place.stack.enter_context(process)
    place.stack.callback(process.kill)
    return process


def finish(process: subprocess.Popen[bytes], begin: str = "") -> tuple[int, str]:
    _, rest = process.communicate(timeout=60)
    return process.returncode, begin + rest.decode()


def read_until(process: subprocess.Popen[bytes], awaited: str) -> str:
    """Standard error, up to what is awaited."""
    assert process.stderr
    found = b""
    while awaited.encode() not in found:
        chunk = process.stderr.read(1000)
        assert chunk, found
        found += chunk
    return found.decode()


@pytest.mark.parametrize("case", PROCESSES, ids=lambda case: case.id)
def test_a_mistake_in_a_deployment_gets_its_text_and_its_exit_code(case: InProcess, place: Place) -> None:
    checkout = place.instance.parent
    shutil.copytree(CHECKOUT / "financial_agent", checkout / "financial_agent")
    place.instance.mkdir()
    config = case.config.encode() if isinstance(case.config, str) else case.config
    (place.instance / "config.py").write_bytes(config)
    case.prepare(place)

    command = [*DROP_PRIVILEGES, *FLASK, "db", *case.command]
    unset = {"FINANCIAL_AGENT_DATABASE": None, "FINANCIAL_AGENT_MIGRATIONS": None}
    exit_code, found = finish(start(place, *command, cwd=checkout, **unset))

    compare(place, case.id, found)
    assert exit_code == case.exit_code
    assert not (place.instance / "financial_data.db").exists()


def test_a_file_that_changes_between_parsing_and_running_is_refused(place: Place) -> None:
    place.write(FIRST)
    holder = place.hold(place.run_lock)
    process = start(place, *FLASK, "db", "migrate")
    waiting = read_until(process, " …\n")
    place.write({"001_first.sql": TABLE.replace("name", "title")})
    holder.close()
    exit_code, found = finish(process, waiting)
    compare(place, "file-changed-meanwhile", found)
    assert exit_code == 4
    assert place.recorded() == []


def test_ctrl_c_while_waiting_says_that_nothing_was_changed(place: Place) -> None:
    place.write(FIRST)
    place.hold(place.run_lock)
    process = start(place, *FLASK, "db", "migrate")
    waiting = read_until(process, " …\n")
    process.send_signal(signal.SIGINT)
    exit_code, found = finish(process, waiting)
    compare(place, "interrupted-while-waiting", found)
    assert exit_code == 130


def asked(place: Place) -> tuple[subprocess.Popen[bytes], int, str]:
    """A rollback that waits for an answer, the terminal that it waits at, and what it said so far."""
    place.write({"001_first.sql": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABLE customers;\n"})
    assert flask_db(place, "migrate")[0] == 0
    terminal, stdin = pty.openpty()
    place.stack.callback(os.close, terminal)
    process = start(place, *FLASK, "db", "rollback", stdin=stdin)
    os.close(stdin)
    return process, terminal, read_until(process, "[y/N]: ")


def test_a_rollback_that_is_declined_changes_nothing(place: Place) -> None:
    process, terminal, question = asked(place)
    before = place.contents()
    os.write(terminal, b"n\n")
    exit_code, found = finish(process, question)
    compare(place, "declined", found)
    assert exit_code == 4
    assert place.contents() == before


def test_a_rollback_is_refused_when_another_run_came_between_the_question_and_the_answer(place: Place) -> None:
    process, terminal, question = asked(place)
    place.write({"002_second.sql": "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n"})
    assert flask_db(place, "migrate")[0] == 0
    before = place.contents()
    os.write(terminal, b"y\n")
    exit_code, found = finish(process, question)
    compare(place, "plan-changed-meanwhile", found)
    assert exit_code == 4
    assert place.contents() == before


def test_serving_is_refused_with_pending_migrations(place: Place) -> None:
    place.write(FIRST)
    process = start(place, sys.executable, "-c", "import wsgi", FINANCIAL_AGENT_MIGRATE_ON_STARTUP="check")
    exit_code, found = finish(process)
    compare(place, "pending-at-startup", found)
    assert exit_code == 4
    assert place.contents() is None


OTHERS = {
    "file-changed-meanwhile",
    "interrupted-while-waiting",
    "declined",
    "plan-changed-meanwhile",
    "pending-at-startup",
}


# What holds for all of them.


def all_errors() -> list[type[errors.MigratorError]]:
    found, waiting = [], [errors.MigratorError]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [each for each in subclasses if "code" in vars(each)]
    return found


def test_each_error_has_a_code_of_its_own_and_says_what_to_do_next() -> None:
    codes = [error.code for error in all_errors()]
    assert sorted(codes) == sorted(set(codes))
    assert [error.__name__ for error in all_errors() if not error.advice.strip()] == []


def test_each_error_has_a_golden_text_or_where_a_server_is_needed_a_test_of_its_own() -> None:
    shown = {code for path in GOLDEN.glob("*.txt") for code in re.findall(r"Error (FA\d+): ", path.read_text())}
    others = "".join(
        path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_malformed.py"
    )
    tested = set(re.findall(r"\w+", others))
    assert {error.__name__ for error in all_errors() if not {error.code, error.__name__} & {*shown, *tested}} == set()


def test_each_golden_text_belongs_to_a_case() -> None:
    ids = [case.id for case in [*CASES, *SERVERS, *BACKUPS, *PROCESSES]] + sorted(OTHERS)
    assert len(ids) >= 60
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(ids)


@pytest.mark.parametrize("name", ["001_fi\nrst.sql", "001_\x1b[31mfirst.sql", "\x1b]0;title\x07.sql"])
def test_a_control_character_in_a_name_never_reaches_the_terminal(name: str, place: Place) -> None:
    place.write({name: TABLE})
    exit_code, found = flask_db(place, "status", FORCE_COLOR="1")
    assert exit_code == 4
    head = found.splitlines()[0].removeprefix("\x1b[31m").removesuffix("\x1b[0m")
    assert head.isprintable()
    assert repr(name)[1:-1] in head


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_name_that_is_not_utf_8_is_refused_or_shown_without_a_traceback(command: str, place: Place) -> None:
    (place.folder / os.fsdecode(b"001_\xff.sql")).write_text(TABLE)
    exit_code, found = finish(start(place, *FLASK, "db", command, LC_ALL="C.UTF-8"))
    assert "Traceback" not in found
    assert exit_code in (0, 4)


# Following the advice leads on.

DOWN = "-- migrate:down\nDROP TABLE parents;\n"


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        (f"{TABLE}ATTACH 'other.db' AS other;\n", "-- migrate:allow attach"),
        (f"{FAMILY}DROP TABLE parents;\n", "-- migrate:allow cascade"),
        (f"{FAMILY}DELETE FROM children;\nDROP TABLE parents;\n", "-- migrate:foreign_keys off"),
        ("VACUUM;\n", "-- migrate:up transaction:false"),
        ("PRAGMA journal_mode = WAL;\n", "-- migrate:up transaction:false"),
        (f"{TABLE}{DOWN}", "-- migrate:up"),
    ],
)
def test_the_line_that_an_error_tells_to_add_makes_the_file_run(
    sql: str, line: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.root)
    place.write({"001_first.sql": sql})
    exit_code, found = flask_db(place, "migrate")
    assert exit_code == 4
    assert f"{line}\n" in found
    place.write({"001_first.sql": f"{line}\n{sql}"})
    assert flask_db(place, "migrate") == (0, "")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("DROP TABEL children; DROP TABLE parents;", "DROP TABLE children; DROP TABLE parents;"),
        ("DROP TABLE parents;", "-- migrate:allow cascade\nDROP TABLE parents;"),
        ("DROP TABLE parents;", "-- migrate:foreign_keys off\nDROP TABLE parents; DROP TABLE children;"),
    ],
)
def test_a_down_section_that_failed_can_be_corrected_as_the_error_says(wrong: str, right: str, place: Place) -> None:
    place.write({"001_first.sql": f"-- migrate:up\n{FAMILY}-- migrate:down\n{wrong}\n"})
    assert flask_db(place, "migrate")[0] == 0
    exit_code, found = flask_db(place, "rollback", "--yes")
    assert exit_code in (3, 4)
    place.write({"001_first.sql": f"-- migrate:up\n{FAMILY}-- migrate:down\n{right}\n"})
    advice = found[found.index("\nNext:") :].replace("…", "'a typo'")
    for command in re.findall(r"flask db (repair [^\n)]+)", advice):
        assert flask_db(place, *shlex.split(command)) == (0, "")
    assert flask_db(place, "rollback", "--yes")[0] == 0
    assert place.recorded() == []


def test_an_error_does_not_tell_to_correct_a_file_that_is_gone(place: Place) -> None:
    place.write({"001_first.sql": f"-- migrate:up\n{TABLE}-- migrate:down\nDROP TABEL customers;\n"})
    assert flask_db(place, "migrate")[0] == 0
    (place.folder / "001_first.sql").unlink()
    assert "Correct the file" not in flask_db(place, "rollback", "--yes")[1]


SPACED = "my folder's"


@pytest.mark.parametrize(
    ("files", "database"),
    [
        ({"001_first.SQL": TABLE}, "app.db"),
        ({"001_my first.SQL": TABLE}, "app.db"),
        ({"001_first.sql": TABLE}, "not there/app.db"),
    ],
    ids=["suffix", "suffix and space", "database folder"],
)
def test_the_command_behind_next_can_be_typed_anywhere(files: dict[str, str], database: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        place = Place(tmp_path / SPACED, stack)
        place.folder.mkdir(parents=True)
        place.write(files)
        where = place.root / database
        exit_code, found = flask_db(place, "migrate", "--database", str(where))
        assert exit_code in (2, 4)
        (command,) = re.findall(r"^Next:  (.+)", found, re.MULTILINE)
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
        assert flask_db(place, "migrate", "--database", str(where)) == (0, "")


@pytest.mark.parametrize("message", ["add risk profile", "it's $HOME", '"quoted"'])
def test_the_command_that_replaces_flask_migrates_can_be_typed(message: str, place: Place) -> None:
    _, found = flask_db(place, "migrate", "-m", message)
    command = found.strip().partition("To write a new one: ")[2]
    assert shlex.split(command) == ["flask", "db", "new", message]


def test_every_error_is_in_the_documents() -> None:
    documented = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    assert [error.code for error in all_errors() if f"| {error.code} |" not in documented] == []
