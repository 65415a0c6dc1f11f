"""What one migration file may say, what it means, and what is refused before anything runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import (
    AttachRefused,
    DirectiveInvalid,
    DirectiveUnknown,
    EncodingInvalid,
    FileChanged,
    FileUnreadable,
    LedgerTouched,
    NeedsNoTransaction,
    NulByte,
    SectionEmpty,
    SectionsInvalid,
    TransactionControl,
    Unterminated,
)
from financial_agent.migrator.lexer import Statement, lex
from financial_agent.migrator.script import KEPT_UP_LIMIT, Migration, MigrationFile, Script, parse_stored, read
from financial_agent.migrator.source import CHUNK, checksum

Parse = Callable[[str | bytes], Migration]
FREE = "-- migrate:up transaction:false\n"


def written(path: Path, text: str | bytes) -> MigrationFile:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return MigrationFile(1, "a", path.name, path, "sqlite")


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    return lambda text: read(written(tmp_path / "001_a.sql", text))


def texts(script: Script | None) -> list[str] | None:
    return [statement.text for statement in script.statements()] if script else None


def where(error: MigratorError) -> tuple[int | None, int | None]:
    assert error.location
    return error.location.line, error.location.column


# Sections.


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1;", "SELECT 2"], None),
        ("-- a\n-- migrate:up\nSELECT 1;", ["SELECT 1;"], None),
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;", ["SELECT 1;"], ["SELECT 2;"]),
        ("-- migrate:up\nSELECT 1\n-- migrate:down\nSELECT 2", ["SELECT 1"], ["SELECT 2"]),
        ("--MIGRATE : up\nSELECT 1;\n  --\tmigrate:down\t\nSELECT 2;", ["SELECT 1;"], ["SELECT 2;"]),
        ("\r\n-- migrate:up\r\nSELECT 1;\r\n-- migrate:down\r\nSELECT 2;\r\n", ["SELECT 1;"], ["SELECT 2;"]),
        ("-- migrate:up\nSELECT '\n-- migrate:down\n';", ["SELECT '\n-- migrate:down\n';"], None),
        # An empty down section, as `flask db new` writes it, is no way back.
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\n-- SELECT 2;\n;", ["SELECT 1;"], None),
    ],
)
def test_a_file_has_an_up_section_and_perhaps_a_down_section(
    parse: Parse, text: str, up: list[str], down: list[str] | None
) -> None:
    migration = parse(text)
    assert texts(migration.up) == up
    assert texts(migration.down) == down


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("-- migrate:down\nSELECT 1;", 1, "up section"),
        ("SELECT 1;\n-- migrate:down\nSELECT 1;", 2, "up section"),
        ("SELECT 1;\n-- migrate:up\nSELECT 1;", 2, "must come first"),
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\n-- migrate:up\nSELECT 1;", 4, "up"),
        ("-- migrate:up\n-- migrate:up\nSELECT 1;", 2, "second up"),
        ("-- migrate:up\nSELECT 1;\n-- migrate:up\nSELECT 1;", 3, "second up"),
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 1;\n\n-- migrate:down\n", 6, "second down"),
    ],
)
def test_sections_stand_once_and_in_order(parse: Parse, text: str, line: int, said: str) -> None:
    with pytest.raises(SectionsInvalid, match=said) as refused:
        parse(text)
    assert where(refused.value)[0] == line
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("\ufeff", 1),
        ("-- a\n;;/* SELECT 1; */", 1),
        ("-- a\n\n-- migrate:up\n\n-- migrate:down\nSELECT 1;", 3),
        ("BEGIN; COMMIT;", 1),
        ("PRAGMA foreign_keys = OFF;", 1),
    ],
)
def test_an_up_section_without_a_statement_is_refused(parse: Parse, text: str, line: int) -> None:
    with pytest.raises(SectionEmpty) as refused:
        parse(text)
    assert where(refused.value)[0] == line


# Directives.

UP, DOWN = "-- migrate:up\nSELECT 1;\n", "-- migrate:down\nSELECT 2;\n"
ALLOW, KEYS = "-- migrate:allow cascade\n", "-- migrate:foreign_keys off\n"
Settings = tuple[bool, bool, set[str]]
PLAIN: Settings = (True, True, set())


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [
        (UP + DOWN, PLAIN, PLAIN),
        (KEYS + UP + DOWN, (True, False, set()), (True, False, set())),
        (UP + KEYS + DOWN, (True, False, set()), PLAIN),
        (UP + DOWN + KEYS, PLAIN, (True, False, set())),
        (ALLOW + UP + DOWN, (True, True, {"cascade"}), (True, True, {"cascade"})),
        (
            ALLOW + UP + "-- migrate:allow attach\n" + DOWN,
            (True, True, {"cascade", "attach"}),
            (True, True, {"cascade"}),
        ),
        (UP + DOWN + "-- migrate:allow attach cascade", PLAIN, (True, True, {"cascade", "attach"})),
        (FREE + "SELECT 1;\n" + DOWN, (False, True, set()), PLAIN),
        (UP + DOWN.replace("down", "down transaction:false"), PLAIN, (False, True, set())),
        (UP.replace("up", "up transaction:true") + DOWN, PLAIN, PLAIN),
        ("--migrate:allow  cascade\r\n" + UP + DOWN, (True, True, {"cascade"}), (True, True, {"cascade"})),
    ],
)
def test_a_directive_counts_for_its_section_and_above_them_for_both(
    parse: Parse, text: str, up: Settings, down: Settings
) -> None:
    migration = parse(text)
    assert migration.down
    for script, expected in ((migration.up, up), (migration.down, down)):
        assert (script.transaction, script.foreign_keys, set(script.allow)) == expected


@pytest.mark.parametrize("text", [KEYS + "SELECT 1;", "SELECT 1;\n" + KEYS])
def test_a_file_without_sections_takes_directives_anywhere(parse: Parse, text: str) -> None:
    assert not parse(text).up.foreign_keys


KNOWN = "up, down, foreign_keys, allow"


@pytest.mark.parametrize(
    ("directive", "wrong", "error", "hint"),
    [
        ("-- migrate:downn", "downn", DirectiveUnknown, "-- migrate:down?"),
        ("-- migrate:Up", "Up", DirectiveUnknown, "-- migrate:up?"),
        ("-- migrate:DOWN", "DOWN", DirectiveUnknown, "-- migrate:down?"),
        ("-- migrate:foreign-keys off", "foreign-keys off", DirectiveUnknown, "-- migrate:foreign_keys?"),
        ("--migrate: alow cascade", "alow cascade", DirectiveUnknown, "-- migrate:allow?"),
        ("-- migrate:zzz", "zzz", DirectiveUnknown, KNOWN),
        ("-- migrate:", "", DirectiveUnknown, KNOWN),
        ("-- migrate:foreign_keys", "foreign_keys", DirectiveInvalid, "-- migrate:foreign_keys off"),
        ("-- migrate:foreign_keys on", "on", DirectiveInvalid, "-- migrate:foreign_keys off"),
        ("-- migrate:allow", "allow", DirectiveInvalid, "-- migrate:allow attach or -- migrate:allow cascade"),
        ("-- migrate:allow attach, cascade", "attach, cascade", DirectiveInvalid, "-- migrate:allow attach"),
        ("-- migrate:allow Cascade", "Cascade", DirectiveInvalid, "-- migrate:allow cascade"),
        ("-- migrate:allow cascade cas", "cas", DirectiveInvalid, "-- migrate:allow cascade"),
        ("-- migrate:down own", "own", DirectiveInvalid, "-- migrate:down transaction:false"),
        ("-- migrate:up transaction=false", "transaction=false", DirectiveInvalid, "-- migrate:up transaction:false"),
        ("-- migrate:down -- the way back", "-- the way back", DirectiveInvalid, "-- migrate:down transaction:false"),
        ("SELECT 2; -- migrate:down", "-- migrate:down", DirectiveInvalid, "Move it to the next line"),
        ("/* */ -- migrate:down", "-- migrate:down", DirectiveInvalid, "Move it to the next line"),
    ],
)
def test_a_wrong_directive_is_refused_with_its_place_and_the_right_word(
    parse: Parse, directive: str, wrong: str, error: type[MigratorError], hint: str
) -> None:
    with pytest.raises(error) as refused:
        parse(f"-- migrate:up\nSELECT 1;\n{directive}\nDROP TABLE a;")
    assert where(refused.value) == (3, len(directive) - len(wrong) + 1)
    assert refused.value.location
    assert refused.value.location.excerpt == directive
    assert hint in refused.value.hint


# Read as comments, these would run the undoing half of the file as part of the up section.
@pytest.mark.parametrize(
    "marker",
    [
        "-- migrate down",
        "--migrate Down",
        "-- migrate-down",
        "-- migrate_down",
        "-- migration:down",
        "-- migrat:down",
        "-- dbmate:down",
        "-- +goose Down",
        "-- +migrate Down",
        "-- + micrate DOWN",
        "-- migrate down:",
        "-- migrate.down",
        "-- migrate=down",
        "-- migrate down transaction:false",
        "-- migrtae:down",
        "-- migate:down",
        "--- migrate:down",
        "--\u00a0migrate:down",
        "-- +migrate Down notransaction",
    ],
)
def test_a_misspelt_section_marker_is_refused_with_its_line(parse: Parse, marker: str) -> None:
    with pytest.raises(DirectiveUnknown) as refused:
        parse(f"-- migrate:up\nCREATE TABLE a (x);\n\n{marker}\nDROP TABLE a;")
    assert where(refused.value)[0] == 4
    assert refused.value.hint == "Write it as: -- migrate:down"


@pytest.mark.parametrize(
    "comment",
    [
        "-- migrate the rows",
        "-- migrate up to 5 rows",
        "-- up",
        "-- goes up and down",
        "-- the migration: what goes down",
        "/* migrate */",
        "-- + 1",
    ],
)
def test_other_comments_are_free(parse: Parse, comment: str) -> None:
    assert texts(parse(f"SELECT 1;\n{comment}\nSELECT 2;").up) == ["SELECT 1;", "SELECT 2;"]


# Transactions.


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("BEGIN; SELECT 1; SELECT 2; COMMIT;", ["SELECT 1;", "SELECT 2;"]),
        ("begin immediate transaction; SELECT 1; end transaction", ["SELECT 1;"]),
        (
            "PRAGMA a; BEGIN; PRAGMA b; SELECT 1; COMMIT; PRAGMA c;",
            ["PRAGMA a;", "PRAGMA b;", "SELECT 1;", "PRAGMA c;"],
        ),
        ("PRAGMA foreign_keys=OFF;\nBEGIN;\nSELECT 1;\nCOMMIT;\nPRAGMA foreign_keys=ON;", ["SELECT 1;"]),
        ("-- migrate:up\nBEGIN; SELECT 1; COMMIT;\n-- migrate:down\nSELECT 2;", ["SELECT 1;"]),
        ("EXPLAIN COMMIT;", ["EXPLAIN COMMIT;"]),
        ('SELECT 1 "begin", 2 commit;', ['SELECT 1 "begin", 2 commit;']),
    ],
)
def test_one_pair_around_a_whole_section_is_dropped(parse: Parse, text: str, statements: list[str]) -> None:
    up = parse(text).up
    assert texts(up) == statements
    assert up.count == len(statements)


@pytest.mark.parametrize(
    ("text", "keyword", "column"),
    [
        ("COMMIT;", "COMMIT", 1),
        ("SELECT 1; Rollback;", "ROLLBACK", 11),
        ("SELECT 1; END;", "END", 11),
        ("SAVEPOINT a; SELECT 1; RELEASE a;", "SAVEPOINT", 1),
        ("SELECT 1; RELEASE a;", "RELEASE", 11),
        ("BEGIN; SELECT 1;", "BEGIN", 1),
        ("SELECT 1; BEGIN; SELECT 2; COMMIT;", "BEGIN", 11),
        ("BEGIN; SELECT 1; COMMIT; SELECT 2;", "COMMIT", 18),
        ("BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT;", "BEGIN", 26),
        ("BEGIN; BEGIN; SELECT 1; COMMIT;", "BEGIN", 8),
        ("BEGIN; SELECT 1; ROLLBACK;", "ROLLBACK", 18),
        ("BEGIN; SELECT 1; ROLLBACK TO a; COMMIT;", "ROLLBACK", 18),
        ("BEGIN; SELECT 1; COMMIT; COMMIT;", "COMMIT", 26),
        ("SELECT 1;/* a */\ufeffcommit", "COMMIT", 18),
    ],
)
def test_any_other_transaction_control_is_refused_where_it_stands(
    parse: Parse, text: str, keyword: str, column: int
) -> None:
    for section in ("", UP, FREE + "SELECT 1;\n"):
        marker = "-- migrate:down\n" if section else "\n"
        with pytest.raises(TransactionControl) as refused:
            parse(f"{section}{marker}{text}")
        assert refused.value.fields["keyword"] == keyword
        assert ("-- migrate:down " in refused.value.hint) == bool(section)
        assert where(refused.value) == (section.count("\n") + 2, column)


def test_a_section_without_a_transaction_may_hold_its_own(parse: Parse) -> None:
    body = ["VACUUM;", "BEGIN;", "SELECT 1;", "COMMIT;", "PRAGMA journal_mode = WAL;", "PRAGMA foreign_keys = OFF;"]
    body += ["SAVEPOINT a;", "RELEASE a;", "BEGIN;"]
    up = parse(FREE + "\n".join(body)).up
    assert texts(up) == body
    assert up.count == len(body)


PRAGMA_NAMES = ["foreign_keys", "Foreign_Keys", "main.foreign_keys", "temp . foreign_keys", '"foreign_keys"']
PRAGMA_NAMES += ["[foreign_keys]", "`foreign_keys`", "'foreign_keys'", '"main".[foreign_keys]']
PRAGMA_VALUES = ["= OFF", "=off", "(0)", "( no )", "='false'", '="off"', "=[off]", "=`off`", "/* a */=--\n'off'", "=+0"]
PRAGMA_VALUES += ["=-1", "=nonsense", "= on", "=1", "(yes)", "='TRUE'", "=[true]", "=+1", "=01", "=2", "", "=OFF -- a"]
SPELLINGS = [f"PRAGMA {name}{value}" for name in PRAGMA_NAMES for value in (" = OFF", " (on)", "")]
SPELLINGS += [f"pragma/**/foreign_keys{value};" for value in PRAGMA_VALUES]


@pytest.mark.parametrize("sql", SPELLINGS)
def test_pragma_foreign_keys_acts_outside_the_transaction_and_means_what_sqlite_reads(parse: Parse, sql: str) -> None:
    switched = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for before in (0, 1):
            db.execute(f"PRAGMA foreign_keys = {before}")
            db.execute(sql)
            switched.append(bool(db.execute("PRAGMA foreign_keys").fetchone()[0]))
    asks = switched == [False, True]
    up = parse(f"SELECT 1; {sql}").up
    assert texts(up) == (["SELECT 1;", sql] if asks else ["SELECT 1;"])
    assert up.foreign_keys == (asks or switched == [True, True])


@pytest.mark.parametrize(
    "text",
    ["PRAGMA foreign_keys = OFF; SELECT 1; PRAGMA foreign_keys = ON;", f"{KEYS}SELECT 1; PRAGMA foreign_keys = 1;"],
)
def test_switching_foreign_keys_on_again_at_the_end_changes_nothing(parse: Parse, text: str) -> None:
    up = parse(text).up
    assert (up.foreign_keys, texts(up), up.leaves_settings) == (False, ["SELECT 1;"], False)


@pytest.mark.parametrize(
    ("sql", "leaves"),
    [
        ("PRAGMA user_version = 3", True),
        ("PRAGMA optimize", True),
        ("SELECT 'PRAGMA'", False),
        (f"{KEYS}SELECT 1", False),
    ],
)
def test_a_pragma_leaves_settings_behind(parse: Parse, sql: str, leaves: bool) -> None:
    assert parse(sql).up.leaves_settings == leaves


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("VACUUM", "VACUUM"),
        ("vacuum into 'a.db'", "VACUUM"),
        ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode"),
        ("pragma main.Journal_Mode('delete')", "PRAGMA journal_mode"),
        ('PRAGMA "journal_mode" = [wal]', "PRAGMA journal_mode"),
        ("PRAGMA synchronous = OFF", "PRAGMA synchronous"),
        ("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint"),
        ("PRAGMA wal_checkpoint", "PRAGMA wal_checkpoint"),
    ],
)
def test_what_cannot_work_in_a_transaction_is_refused_unless_there_is_none(parse: Parse, sql: str, what: str) -> None:
    for direction, head in (("up", "SELECT 1;\n"), ("down", UP + DOWN)):
        with pytest.raises(NeedsNoTransaction) as refused:
            parse(f"{head}  {sql};")
        assert refused.value.fields == {"what": what, "section": direction}
        assert where(refused.value) == (head.count("\n") + 1, 3)
    assert texts(parse(FREE + sql).up) == [sql]


@pytest.mark.parametrize(
    "sql", ["PRAGMA journal_mode", "PRAGMA main.synchronous;", "SELECT 1 AS vacuum", "EXPLAIN VACUUM"]
)
def test_asking_for_a_setting_is_no_change_of_it(parse: Parse, sql: str) -> None:
    assert texts(parse(sql).up) == [sql]


@pytest.mark.parametrize("sql", ["ATTACH 'a.db' AS b;", "attach database 'a.db' as b", "DETACH b;"])
def test_attach_and_detach_are_refused_unless_allowed(parse: Parse, sql: str) -> None:
    for head in ("", FREE, UP + DOWN, "-- migrate:allow cascade\n"):
        with pytest.raises(AttachRefused) as refused:
            parse(f"{head}\n {sql}")
        assert refused.value.fields == {"keyword": sql[:6].upper()}
        assert where(refused.value) == (head.count("\n") + 2, 2)
    up = parse(f"-- migrate:allow attach\n{FREE}{sql}").up
    assert (texts(up), up.leaves_settings) == ([sql], True)


def test_an_attach_that_is_allowed_may_stand_in_the_transaction(parse: Parse) -> None:
    assert texts(parse("-- migrate:allow attach\nATTACH 'a.db' AS b;").up) == ["ATTACH 'a.db' AS b;"]


def test_a_script_knows_the_first_words_of_its_statements(parse: Parse) -> None:
    script = parse("SELECT 'DROP'; drop/**/Table a; ALTER TABLE b ADD c; CREATE VIEW d AS SELECT 1;").up
    assert script.keywords == {"SELECT", "DROP", "ALTER", "CREATE"}


# The ledger.

LEDGER = ["_migrations", "_MIGRATIONS", '"_migrations"', "'_migrations'", "[_migrations]", "`_migrations`"]
LEDGER += ["_migration_history", '"_Migration_History"']


@pytest.mark.parametrize("name", LEDGER)
@pytest.mark.parametrize("schema", ["", "main.", '"main" . /* é */ '])
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM {}",
        "DROP TABLE/**/{}",
        "INSERT INTO a SELECT '\"--', x -- it's\n FROM {}",
        "CREATE TRIGGER a AFTER INSERT ON b BEGIN SELECT 1;\nDELETE FROM {}; END",
    ],
)
def test_the_ledger_is_out_of_reach_in_every_spelling(parse: Parse, sql: str, schema: str, name: str) -> None:
    text = f"SELECT 1;\n/* é */ {sql.format(schema + name)};"
    with pytest.raises(LedgerTouched) as refused:
        parse(text)
    at = text.index(name)
    assert where(refused.value) == (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
    assert refused.value.fields == {"table": "_migration_history" if "istory" in name else "_migrations"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 /* _migrations */ -- _migrations",
        "CREATE TABLE my_migrations (x)",
        "CREATE TABLE _migrations_old (x)",
        "CREATE TABLE [_migrations of 2024] (x)",
        "CREATE TABLE _migrations$ (x)",
        "CREATE TABLE _migrations\u00a0 (x)",
        "CREATE TABLE é_migrations (x)",
        "CREATE TABLE \u2028_migrations (x)",
        "SELECT 'rows of _migrations', '''_migrations'''",
    ],
)
def test_comments_and_longer_names_are_not_the_ledger(parse: Parse, sql: str) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(sql)
    assert texts(parse(sql).up) == [sql]


# Bytes.


@pytest.mark.parametrize(
    "other",
    [b"SELECT 'a\r\n';\r\n", b"\xef\xbb\xbfSELECT 'a\n';\n", b"\xef\xbb\xbfSELECT 'a\r\n';\n", b"SELECT 'a\n';\r\n"],
)
def test_line_ends_and_the_byte_order_mark_change_neither_checksum_nor_text(parse: Parse, other: bytes) -> None:
    plain = parse(b"SELECT 'a\n';\n")
    assert texts(plain.up) == ["SELECT 'a\n';"]
    migration = parse(other)
    assert (migration.checksum, texts(migration.up)) == (plain.checksum, ["SELECT 'a\n';"])
    assert migration.checksum == checksum(migration.file.path)


@pytest.mark.parametrize(
    "other", ["SELECT 'b\n';\n", "SELECT 'a\r';\n", "SELECT 'a\n';", "select 'a\n';\n", "SELECT 'a\n\n';\n"]
)
def test_any_other_difference_changes_the_checksum(parse: Parse, other: str) -> None:
    assert parse(other).checksum != parse("SELECT 'a\n';\n").checksum


@pytest.mark.parametrize("before", [CHUNK - 2, CHUNK - 1, CHUNK])
def test_a_pair_or_a_character_that_a_chunk_cuts_stays_whole(parse: Parse, before: int) -> None:
    head = f"SELECT 1;{' ' * (before - 11)}--"
    for tail in ("\r\nSELECT '\r\r\n€';", "€\n\rSELECT 2;"):
        text = (head + tail).replace("\r\n", "\n")
        up = parse(head + tail).up
        assert "".join(up.source.chunks()) == text
        statements = list(up.statements())
        assert statements == list(lex([text], up.source.name, "sqlite"))
        assert len(statements) == 2


@pytest.mark.parametrize(
    ("data", "error", "line", "said"),
    [
        ("SELECT 1;\n".encode("utf-16"), EncodingInvalid, 1, "byte 0xFF"),
        ("SELECT 1;\n".encode("utf-16-le"), NulByte, 1, "NUL"),
        ("\nSELECT 1;\n".encode("utf-16-be"), NulByte, 1, "NUL"),
        (b"SELECT 1;\r\n-- \xe9t\xe9\n", EncodingInvalid, 2, "byte 0xE9"),
        (b"SELECT 1;\n\n'\xed\xa0\x80", EncodingInvalid, 3, "byte 0xED"),
        (b"SELECT 1;\n\n'\xe2\x82", EncodingInvalid, 3, "ends inside a character"),
        (b"SELECT 1;\r\n\r\n'\0\n\0", NulByte, 3, "NUL"),
        (b"\n" * CHUNK + b"-- \xc3\xa9\n\xff\n", EncodingInvalid, CHUNK + 2, "byte 0xFF"),
        (b"\n" * CHUNK + b"-- \xc3\xa9\n\0\n", NulByte, CHUNK + 2, "NUL"),
    ],
)
def test_what_is_not_utf_8_text_is_refused_with_its_line(
    parse: Parse, data: bytes, error: type[MigratorError], line: int, said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        parse(data)
    assert where(refused.value)[0] == line


# The file between reading and running.


@pytest.mark.parametrize("text", ["SELECT 2; SELECT 3;", "SELECT 1; SELECT 2;\n", "", "SELECT 1; -- migrate:down"])
def test_nothing_runs_of_a_file_that_changed_since_it_was_parsed(parse: Parse, text: str) -> None:
    up = parse("SELECT 1; SELECT 2;").up
    written(Path(up.source.name), text)
    with pytest.raises(FileChanged):
        next(up.statements())


def test_a_file_that_only_changed_its_line_ends_still_runs(parse: Parse) -> None:
    up = parse("SELECT 1;\nSELECT 2;").up
    written(Path(up.source.name), "\ufeffSELECT 1;\r\nSELECT 2;")
    assert texts(up) == ["SELECT 1;", "SELECT 2;"]


def test_a_long_file_that_changed_never_runs_to_its_end(parse: Parse) -> None:
    text = f"SELECT 1; -- {'a' * 100}\n" * (CHUNK // 50)
    up = parse(text).up
    written(Path(up.source.name), text.replace("1", "2"))
    seen: list[Statement] = []
    with pytest.raises(FileChanged):
        seen.extend(up.statements())
    assert len(seen) < up.count


def test_a_file_that_is_gone_cannot_be_read(parse: Parse) -> None:
    up = parse("SELECT 1;").up
    Path(up.source.name).unlink()
    with pytest.raises(FileUnreadable):
        next(up.statements())


# What the ledger keeps.


def same_after_storing(script: Script) -> None:
    """Storing a script keeps what runs, under which settings, and the number of every line."""
    stored = parse_stored(script.text(), "stored", script.direction)
    assert list(stored.statements()) == list(script.statements())
    for name in ("line", "transaction", "foreign_keys", "allow", "wrapped", "count", "keywords", "leaves_settings"):
        assert getattr(stored, name) == getattr(script, name), name


@pytest.mark.parametrize(
    "text",
    [
        UP + DOWN,
        UP + "\n\n" + DOWN,
        KEYS + ALLOW + "-- migrate:allow attach\n" + UP + DOWN,
        UP + DOWN + KEYS + ALLOW,
        UP + "-- migrate:down\n-- migrate:allow attach cascade\n-- migrate:foreign_keys off\nSELECT 2;",
        ALLOW + FREE + "SELECT 1;\n-- migrate:down transaction:false\nVACUUM; SELECT 'é\n'; DROP TABLE a",
        UP + "-- migrate:down\nPRAGMA foreign_keys=OFF;\nBEGIN;\n\n  SELECT 'a''b';\nCOMMIT;\nPRAGMA a;",
        "\n-- é\n  -- migrate:up\r\nSELECT 1;\r\n\t-- migrate:down\r\nSELECT 1;\r\nSELECT '\r\n'; /* a */ SELECT 3",
    ],
)
def test_a_stored_script_runs_the_same_statements_with_the_same_line_numbers(parse: Parse, text: str) -> None:
    migration = parse(text)
    for script in (migration.up, migration.down):
        if script:
            same_after_storing(script)


def test_a_down_section_beyond_the_first_chunk_is_stored_alone(parse: Parse) -> None:
    head = f"-- migrate:up\nSELECT 1; -- {'é' * CHUNK}\n"
    down = parse(head + DOWN + "SELECT 3;\n").down
    assert down
    assert down.text() == f"\n\n{DOWN}SELECT 3;\n"
    same_after_storing(down)


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        ("-- migrate:down\nCOMMIT;", TransactionControl),
        ("-- migrate:down\nDELETE FROM _migrations;", LedgerTouched),
        ("-- migrate:down\nSELECT 'a;", Unterminated),
        ("-- migrate:down\nVACUUM;", NeedsNoTransaction),
        ("-- migrate:down\n-- migrate:down\nSELECT 1;", SectionsInvalid),
        ("-- migrate:dwn\nSELECT 1;", DirectiveUnknown),
        ("", MigratorError),
        ("SELECT 1;", MigratorError),
    ],
)
def test_a_stored_script_that_was_tampered_with_is_refused(stored: str, error: type[MigratorError]) -> None:
    with pytest.raises(error):
        parse_stored(stored, "stored", "down")


def test_the_ledger_keeps_of_the_up_side_everything_before_the_down_section(parse: Parse) -> None:
    text = "-- é\n" + KEYS + UP + "-- the end\n"
    assert parse(text + "  " + DOWN).up_text() == text + "  "
    assert parse("\ufeffSELECT 1;\r\n-- €").up_text() == "SELECT 1;\n-- €"


def test_of_an_up_side_above_a_megabyte_the_ledger_keeps_no_text(parse: Parse) -> None:
    head = "-- migrate:up\nSELECT 1;\n--"
    text = head + "é" * (KEPT_UP_LIMIT - len(head) - 1) + "\n"
    assert parse(text + DOWN + "-- a" * 10).up_text() == text
    assert parse(text.replace("--é", "-- é") + DOWN).up_text() is None


# Properties.

LINES = [
    "SELECT 1;",
    "SELECT 2",
    "PRAGMA foreign_keys=OFF;",
    "PRAGMA a;",
    "BEGIN;",
    "COMMIT;",
    "END",
    "VACUUM;",
    "",
    ";",
]
LINES += ["DROP TABLE a;", "-- migrate:up", "-- migrate:down", "-- migrate:down transaction:false", FREE.strip()]
LINES += [
    KEYS.strip(),
    ALLOW.strip(),
    "-- migrate:allow attach",
    "ATTACH 'a' AS b;",
    "SELECT '",
    "';",
    "/*",
    "*/",
    "-- é",
]
HEADS = [
    "",
    "-- migrate:up\n",
    "-- migrate:up\nSELECT 1;\n-- migrate:down\n",
    FREE,
    f"{FREE}SELECT 1;\n-- migrate:down\n",
]
files = st.builds(
    lambda before, head, lines: before + head + "\n".join(lines),
    st.sampled_from(["", KEYS, ALLOW, "PRAGMA foreign_keys=OFF;\n", "\n-- a\n"]),
    st.sampled_from(HEADS),
    st.lists(st.sampled_from(LINES), max_size=8),
)


def scripts(folder: pytest.TempPathFactory, text: str) -> list[Script]:
    """The scripts of a file; none when it is refused."""
    try:
        migration = read(written(folder.getbasetemp() / "001_lines.sql", text))
    except MigratorError:
        return []
    return [migration.up, migration.down] if migration.down else [migration.up]


@settings(max_examples=400, deadline=None)
@example("PRAGMA foreign_keys=OFF;\n-- migrate:up transaction:false\nVACUUM;")
@given(files)
def test_a_file_that_is_not_refused_runs_as_it_was_counted(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """And nothing that SQLite refuses in a transaction, or that would end it, is left in one."""
    for script in scripts(tmp_path_factory, text):
        statements = list(script.statements())
        assert len(statements) == script.count > 0
        if script.transaction:
            assert not {s.keyword for s in statements} & {"BEGIN", "COMMIT", "END", "ROLLBACK", "VACUUM"}


@settings(max_examples=400, deadline=None)
@given(files)
def test_any_down_script_is_the_same_after_storing(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for script in scripts(tmp_path_factory, text):
        if script.direction == "down":
            same_after_storing(script)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | files.map(str.encode) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_migration_or_refused_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = written(tmp_path_factory.getbasetemp() / "001_bytes.sql", data)
    try:
        assert read(file).checksum == checksum(file.path)
    except MigratorError as error:
        line, column = where(error)
        lines = data.replace(b"\r\n", b"\n").split(b"\n")
        assert line
        assert line <= len(lines)
        assert column is None or column <= len(lines[line - 1]) + 1
