"""What the lexer promises: SQLite's own idea of where a statement ends, exact places, and little memory."""

from __future__ import annotations

import re
import sqlite3
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import DirectiveInvalid, DirectiveUnknown, Unterminated
from financial_agent.migrator.lexer import Directive, Statement, lex
from financial_agent.migrator.source import FileSource, checksum

Item = Statement | Directive
ODD_SPACES = "\u00a0\u0085\u2028\u3000"
examples = settings(max_examples=150, deadline=None)


def lexed(text: str, size: int | None = None) -> list[Item]:
    """The items of a text that arrives in chunks of a given size."""
    size = size or len(text) or 1
    return list(lex((text[at : at + size] for at in range(0, len(text), size)), "f.sql", "sqlite"))


def split(text: str) -> list[str]:
    return [item.text for item in lexed(text) if isinstance(item, Statement)]


def place(text: str, line: int, column: int) -> int:
    """The offset of a line and column; both count from 1, and only a line feed ends a line."""
    return sum(len(each) + 1 for each in text.split("\n")[: line - 1]) + column - 1


def where(error: MigratorError) -> tuple[int, int, str]:
    assert error.location
    assert error.location.line
    assert error.location.column
    return error.location.line, error.location.column, error.location.excerpt


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript("CREATE TABLE t (x); CREATE TABLE log (x)")
        yield connection


# Where a statement ends.

BODY = "AFTER INSERT ON t BEGIN SELECT 1; END;"
WHOLE = [
    "CREATE TRIGGER a AFTER INSERT ON t BEGIN INSERT INTO log VALUES (CASE WHEN 1 THEN 2 END); END;",
    "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 3; END;",
    "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1 end; SELECT 2 AS end; END;",
    "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 'END;'; SELECT 1 AS [END;]; SELECT 2 \"END;\", 3 `END;`; END;",
    "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; /* ; END; */ SELECT 2; -- ; END;\n END;",
    "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1;/* ' */END--\n;",
    "create\ttrigger a after insert on t begin select 1;\nend;",
    f"CREATE TRIGGER IF NOT EXISTS [a;b] {BODY}",
    f"CREATE TRIGGER begin {BODY}",
    "CREATE TABLE trigger (begin, end, temp, [a;b], \"c;d\", `e;f`, 'g;h');",
    'SELECT \'it\'\'s; --\', "a""b;", `a``b;`, [a\'b;"] FROM (SELECT 1 "a""b;", 2 `a``b;`, 3 [a\'b;"]);',
    "SELECT '/*', 2 /* ' ; */, 3 -- it's; \"\n;",
    "SELECT 1 - - 1, 4 / 2, 2 */* ; */ 3;",
    "SELECT x'3B', ';' -- -- ;\r ;\n;",
    "SELECT '\r\n;\n\r' /*/ ; */;",
    "EXPLAIN SELECT 1;",
    "EXPLAIN QUERY PLAN SELECT ';';",
    "EXPLAIN COMMIT;",
    "CREATE TEMP TABLE trigger2 (x);",
]


@pytest.mark.parametrize("sql", WHOLE)
def test_this_is_one_statement_for_sqlite_and_for_the_lexer(sql: str) -> None:
    assert split(f"SELECT 0;{sql}SELECT 1;") == ["SELECT 0;", sql, "SELECT 1;"]
    assert sqlite3.complete_statement(sql)
    with database() as db:
        db.execute(sql)  # Python refuses a text with a second statement


APART = [
    ["SELECT 1 end;", "SELECT 2;"],
    ["SELECT 1 AS begin;", "SELECT CASE WHEN 1 THEN 2 END;", "SELECT 3;"],
    ["CREATE TABLE trigger (end);", "SELECT trigger.end FROM trigger;"],
    ["CREATE TABLE [CREATE TRIGGER] (x);", "DROP TABLE [CREATE TRIGGER];"],
    ["EXPLAIN CREATE TABLE a (x);", "EXPLAIN SELECT 'CREATE TRIGGER';", "SELECT 2;"],
    ["CREATE VIEW temp_trigger AS SELECT 1;", "SELECT 2"],
    [f"CREATE TRIGGER a {BODY}", f"CREATE TRIGGER b {BODY}", "SELECT 1;"],
    [f"CREATE TRIGGER a {BODY}", "BEGIN;", "SELECT 1;", "END;"],
]


@pytest.mark.parametrize("statements", APART, ids=lambda statements: statements[0])
def test_these_are_statements_of_their_own_for_sqlite_and_for_the_lexer(statements: list[str]) -> None:
    with database() as db:
        for sql in statements:
            db.execute(sql)
    for between in ("", "\n", ";", " ; /* ; */ -- ;\n;"):
        assert split(between.join(statements)) == statements


@pytest.mark.parametrize("gap", [" ", "\n\t", "/* ; */", " -- ; '\n", "\r\f/**//* */"])
@pytest.mark.parametrize("temporary", ["", " TEMP", " Temporary"])
@pytest.mark.parametrize("explain", ["", "EXPLAIN ", "explain query plan "])
def test_a_trigger_is_whole_with_any_words_and_comments_before_its_name(explain: str, temporary: str, gap: str) -> None:
    sql = f"{explain}CREATE{temporary} TRIGGER".replace(" ", gap) + f" a {BODY}"
    assert split(f"{sql}SELECT 1;") == [sql, "SELECT 1;"]
    with database() as db:
        db.execute(sql)


TOGETHER = ["CREATETRIGGER a;", "CREATE TEMPTRIGGER a;", "EXPLAINCREATE TRIGGER a;", "CREATE TRIGGERS a;"]
TOGETHER += [f"CREATE TRIGGER{odd}a;" for odd in ODD_SPACES] + ["CREATE\u00a0TRIGGER a;", "CREATE TRIGGER$ a;"]


@pytest.mark.parametrize("sql", TOGETHER)
def test_words_that_run_together_begin_no_trigger(sql: str) -> None:
    assert sqlite3.complete_statement(sql)
    assert split(f"{sql}SELECT 1;") == [sql, "SELECT 1;"]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("", []),
        (" \n\t\r\f", []),
        (";", []),
        (" ;; ; SELECT 1;; ;\n;SELECT 2;;", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1 \r\n\t\f ", ["SELECT 1"]),
        ("-- only a comment", []),
        ("/* only; a comment */", []),
        ("-- a\rSELECT 1;\nSELECT 2;", ["SELECT 2;"]),  # a lone CR does not end the comment
        ("/*/ SELECT 1; */ SELECT 2;", ["SELECT 2;"]),  # `/*/` does not close itself
        ("/* /* */ SELECT 1;", ["SELECT 1;"]),  # comments do not nest
        ("/***/SELECT 1;/**/SELECT 2;", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT 1;--", ["SELECT 1;"]),
        (" \vSELECT 1; \n\v ;", ["SELECT 1;"]),  # a vertical tab is space behind space
        ("SELECT 1;\vSELECT 2;", ["SELECT 1;", "\vSELECT 2;"]),  # and nowhere else
        ("\ufeffSELECT 1;\ufeff\ufeff-- ;\n\ufeff", ["SELECT 1;"]),  # a BOM is space at a token's start
        ("\ufeff\vSELECT 1;", ["\vSELECT 1;"]),  # but not space before a vertical tab
        ("SELECT 1 AS a\ufeffb;", ["SELECT 1 AS a\ufeffb;"]),  # and part of a name inside one
        ("SELECT 1 AS a\v", ["SELECT 1 AS a\v"]),
        (f"SELECT 1 AS {ODD_SPACES}", [f"SELECT 1 AS {ODD_SPACES}"]),
        (f"{ODD_SPACES};SELECT 1", [f"{ODD_SPACES};", "SELECT 1"]),
        (f"CREATE TRIGGER a {BODY.removesuffix(';')}\n", [f"CREATE TRIGGER a {BODY.removesuffix(';')}"]),
    ],
)
def test_space_comments_and_stray_semicolons_are_skipped_and_nothing_else(text: str, statements: list[str]) -> None:
    assert split(text) == statements


@pytest.mark.parametrize("odd", [*ODD_SPACES, "\ufeff", "é", "😀"])
def test_what_python_may_call_space_is_part_of_a_name(odd: str) -> None:
    sql = f"SELECT 1 AS a{odd}b, 2 AS a{odd}"
    assert split(sql) == [sql]
    with database() as db:
        columns = [column for column, *_ in db.execute(sql).description]
    assert columns == [f"a{odd}b", f"a{odd}"]


@pytest.mark.parametrize(
    ("sql", "keyword"),
    [
        ("select 1;", "SELECT"),
        ("/* a */ Insert/* b */INTO t VALUES (1);", "INSERT"),
        ("commit;", "COMMIT"),
        ("(SELECT 1);", ""),
        ('"BEGIN";', ""),
        ("begin_;", "BEGIN_"),
        ("END1;", "END1"),
        ("éND;", ""),
        (f"CREATE TRIGGER a {BODY}", "CREATE"),
    ],
)
def test_the_keyword_is_the_first_word_in_capitals(sql: str, keyword: str) -> None:
    (statement,) = lexed(sql)
    assert isinstance(statement, Statement)
    assert statement.keyword == keyword


# Where things are.


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("SELECT 1;SELECT 2;\n  SELECT 3", [(1, 1), (1, 10), (2, 3)]),
        ("\n\n-- a\n/* b\n c */ SELECT 1;", [(5, 7)]),
        ("SELECT '\n\n';SELECT 2;", [(1, 1), (3, 3)]),
        ("SELECT 'é€😀';SELECT 2;\n'€'; SELECT 3;", [(1, 1), (1, 14), (2, 1), (2, 6)]),
        ("\ufeffSELECT 1;\u2028\nSELECT 3;", [(1, 2), (1, 11)]),  # U+2028 is a name that goes on to the next line
        ("-- a\rb\n\rSELECT 1;\u0085;", [(2, 2), (2, 11)]),  # a lone CR is a character like any other
        ("CREATE TRIGGER a\nAFTER INSERT ON t BEGIN\nSELECT 1;\nEND; SELECT 1", [(1, 1), (4, 6)]),
        ("SELECT 1;\n -- migrate:up a b\n;;\n\tSELECT 2", [(1, 1), (2, 13), (4, 2)]),
    ],
)
def test_line_and_column_count_characters_from_1(text: str, places: list[tuple[int, int]]) -> None:
    assert [(item.line, item.column) for item in lexed(text)] == places


@pytest.mark.parametrize(
    ("text", "word", "arguments", "where"),
    [
        ("-- migrate:up", "up", (), (1, 12)),
        ("--migrate:down\n", "down", (), (1, 11)),
        ("é;\n  --\tMigrate : Allow  a\tb \nSELECT 1", "Allow", ("a", "b"), (2, 16)),
        ("SELECT 1\n-- migrate:down transaction:false\nSELECT 1", "down", ("transaction:false",), (2, 12)),
        ("-- migrate:", "", (), (1, 12)),
    ],
)
def test_a_directive_knows_its_words_and_its_place(
    text: str, word: str, arguments: tuple[str, ...], where: tuple[int, int]
) -> None:
    (directive,) = [item for item in lexed(text) if isinstance(item, Directive)]
    assert (directive.word, directive.arguments, (directive.line, directive.column)) == (word, arguments, where)
    assert directive.excerpt == text.split("\n")[directive.line - 1]
    assert text[directive.start : directive.end] == directive.excerpt.lstrip()


@pytest.mark.parametrize(
    "text", ["SELECT '\n-- migrate:up\n'", "SELECT 1 /*\n-- migrate:up\n*/", "[\n-- migrate:up\n]"]
)
def test_a_directive_inside_a_quote_or_a_comment_is_none(text: str) -> None:
    assert split(text) == [text]


@pytest.mark.parametrize("text", ["SELECT 1; -- migrate:down", "SELECT 1 -- migrate:down", "/* */ -- migrate:up\n;"])
def test_a_directive_that_shares_its_line_is_refused(text: str) -> None:
    with pytest.raises(DirectiveInvalid) as refused:
        lexed(text)
    assert where(refused.value) == (1, text.index("--") + 1, text.partition("\n")[0])


@pytest.mark.parametrize(
    ("before", "opener", "what", "closer"),
    [
        ("SELECT ", "'a;''", "string", "'"),
        ("SELECT 'é', ", '"a;""b', "name", '"'),
        ("", "`a", "name", "`"),
        ("SELECT 1;\n  SELECT ", "[a;\n", "name", "]"),
        ("SELECT '\n', 1 ", "/*/ ; -- ", "comment", "*/"),
        ("SELECT 1;\n\n", "/* a", "comment", "*/"),
        ("", "/*", "comment", "*/"),
        (f"CREATE TRIGGER a {BODY} \n", "CREATE TRIGGER b AFTER INSERT ON t BEGIN SELECT 1;", "trigger", "END;"),
        (" /* a */ ", "CREATE TEMP TRIGGER b\nAFTER INSERT", "trigger", "END;"),
        ("-- a\n", "CREATE TRIGGER b BEGIN SELECT 1;\n-- migrate:down\nSELECT 1; END;", "trigger", "END;"),
        ("CREATE TRIGGER b BEGIN SELECT 1; ", "'END;", "string", "'"),
    ],
)
def test_what_is_never_closed_is_named_with_the_place_of_its_opener(
    before: str, opener: str, what: str, closer: str
) -> None:
    text = before + opener
    for size in range(1, len(text) + 1):
        with pytest.raises(Unterminated) as refused:
            lexed(text, size)
        line, column, excerpt = where(refused.value)
        assert refused.value.fields == {"what": what, "closer": closer}
        assert place(text, line, column) == len(before)
        assert excerpt == text.split("\n")[line - 1]


@pytest.mark.parametrize("marker", ["-- migrate down", "-- +goose Up", "--dbmate:down", "-- migrations - UP"])
def test_a_comment_that_is_almost_a_section_marker_is_refused(marker: str) -> None:
    for size in range(1, len(marker) + 24):
        with pytest.raises(DirectiveUnknown) as refused:
            lexed(f"SELECT 1;\n  {marker}  \nSELECT 2;", size)
        word = marker.replace("-", " ").replace(":", " ").split()[-1]
        assert where(refused.value) == (2, 3 + marker.index(word), f"  {marker}  ")


# The same text gives the same items, however it arrives.

EVERYTHING = (
    "\ufeff-- é\r;\n-- migrate:up a\nSELECT 'it''s', \"a\"\"b\", `c``d`, [e] - 1 / 2; -- migrate it;\n/*/ ; */;"
    "CREATE/**/TEMP TRIGGER a BEGIN SELECT 1; SELECT CASE 1 END; END;\n  SELECT /* x */ 1 -- 'x\n"
    "\t-- migrate : down b\nEXPLAIN SELECT 2 \v\u00a0"
)


def test_items_do_not_depend_on_the_size_of_the_chunks() -> None:
    assert len(lexed(EVERYTHING)) == 6
    for size in range(1, len(EVERYTHING)):
        assert lexed(EVERYTHING, size) == lexed(EVERYTHING)


def outcome(text: str, size: int | None = None) -> tuple[Any, ...]:
    try:
        return (lexed(text, size),)
    except MigratorError as error:
        return type(error), error.message, where(error)


SIGNS = [*"';\"`[]-/*:\n\r\t\v\f \ufeff\u00a0\0aé😀", "--", "/*", "*/", "-- migrate:", "migrate", "up", "END", "''"]
SIGNS += ["CREATE TRIGGER ", "EXPLAIN", "TEMP ", "BEGIN", ";END;", "+goose Down", "\n-- "]
anything = st.text(max_size=30) | st.lists(st.sampled_from(SIGNS), max_size=25).map("".join)


@examples
@given(anything, st.integers(1, 9))
def test_any_text_is_lexed_or_refused_alike_in_any_chunks(text: str, size: int) -> None:
    """Nothing but a MigratorError escapes, and where the chunks end does not show."""
    assert outcome(text, size) == outcome(text)


# Properties.

TOKENS = ["x", "1", "begin", "END", "case", "trigger", *"=-/*(),é", "@a", *ODD_SPACES, "a\ufeffb", "'a;''b'", '"a;""b"']
TOKENS += ["`a;``b`", "[a;'b]", "'-- a'", "'/*'", "/*;'*/", "--;'\n", "/*/;*/", "''", "'\r\n'"]
tokens = st.sampled_from(TOKENS)
TRIVIA = [" ", "\n", "\r", "\t", "\f", " \v", "\ufeff", ";", "-- a;'\n", "/* b;' */", "/*/ */"]
trivia = st.lists(st.sampled_from(TRIVIA), max_size=4).map("".join)


def joined(head: str, words: list[str]) -> str:
    return " ".join([head, *words, ";"])


HEADS = ["SELECT", "CREATE TABLE", "EXPLAIN SELECT", "insert", "WITH", "END", "Begin", "TRIGGER", "(", "="]
simple = st.builds(joined, st.sampled_from(HEADS), st.lists(tokens, max_size=5))
inner = st.builds(joined, st.sampled_from(["SELECT", "CASE", "x END", "END x", "ENDé"]), st.lists(tokens, max_size=3))
triggers = st.builds(
    "{} t BEGIN {} {}".format,
    st.sampled_from(["CREATE TRIGGER", "create/**/temp trigger", "EXPLAIN QUERY PLAN CREATE TEMPORARY--\nTRIGGER"]),
    st.lists(inner, min_size=1, max_size=3).map("".join),
    st.sampled_from(["END;", ";end;", "--;\nEnd /*;*/ ;"]),
)


@examples
@given(st.lists(st.tuples(simple | triggers, trivia), max_size=6), trivia)
def test_joined_statements_come_apart_at_their_seams(pieces: list[tuple[str, str]], start: str) -> None:
    text = start + "".join(statement + after for statement, after in pieces)
    assert split(text) == [statement for statement, _ in pieces]


# SQLite's complete_statement takes `EXPLAIN anything CREATE TRIGGER` and `CREATE TEMP TEMP TRIGGER`, which its parser
# refuses, for triggers, and vertical tabs and byte order marks for words: the soup is cooked without them.
WORDS = ["SELECT", "CREATE", "TRIGGER", "begin", "END", "case", "x", ";", ";", ";END", "; END ;"]
WORDS += ["'a;''b'", '"END"', "`;`", "[;]", "'--'", "'/*'"]
WORDS += ["CREATE TEMP", "create temporary", "EXPLAIN CREATE", "EXPLAIN QUERY PLAN CREATE", "EXPLAIN EXPLAIN CREATE"]
WORDS += ["EXPLAIN SELECT 1;", "CREATE TRIGGER x BEGIN"]
GAPS = [" ", "\n", "\r\t\f", "/* ; END */", "--;'x\n", "/*/;*/ "]
soup = st.builds(
    lambda pairs, end: "".join(word.replace(" ", gap) + gap for word, gap in pairs) + end,
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=14),
    st.sampled_from(["", "", "'", "[x;", "/*;", '";', "x"]),
)


def complete(text: str, start: int, end: int) -> list[bool]:
    """For each semicolon of a part of a text, whether SQLite calls the text up to it complete."""
    return [sqlite3.complete_statement(text[: at + 1]) for at in range(start, end) if text[at] == ";"]


@settings(max_examples=400, deadline=None)
@given(soup)
def test_a_statement_ends_at_the_first_semicolon_where_sqlite_calls_it_complete(text: str) -> None:
    closed, rest = True, len(text)
    try:
        for item in lex([text], "f.sql", "sqlite"):
            assert isinstance(item, Statement)
            start = place(text, item.line, item.column)
            closed = item.text.endswith(";")
            expected = [False] * (item.text.count(";") - closed) + [True] * closed
            assert complete(text, start, start + len(item.text)) == expected, item
    except Unterminated as error:
        closed, rest = False, place(text, *where(error)[:2])
    assert sqlite3.complete_statement(f";{text}") == closed
    assert not any(complete(text, rest, len(text)))


SKIPPED = re.compile(r"(?:[ \t\n\f\r\ufeff;]|(?<=[ \t\n\f\r\v])\v|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)


@examples
@given(st.lists(simple | triggers | trivia | st.just("\n -- migrate:up a b\n"), max_size=8).map("".join) | anything)
def test_nothing_is_lost_between_the_items(text: str) -> None:
    """Every item stands, letter by letter, where it says; between two there is only what may be skipped."""
    at = 0
    try:
        for item in lex([text], "f.sql", "sqlite"):
            if isinstance(item, Directive):
                start, end = item.start, item.end
                assert re.fullmatch(r"(?i)--[ \t]*migrate[ \t]*:.*", text[start:end])
            else:
                start = place(text, item.line, item.column)
                end = start + len(item.text)
                assert text[start:end] == item.text
            assert SKIPPED.fullmatch(text[at:start]), (text[at:start], item)
            at = end
    except MigratorError:
        return
    assert SKIPPED.fullmatch(text[at:])


literals = st.text("a;'\"`[]-/*\n\r\u00a0é😀 ", max_size=6).map(lambda text: "'" + text.replace("'", "''") + "'")
COMMANDS = [
    "INSERT INTO t VALUES ({})",
    "UPDATE t SET x = x || {} WHERE rowid % 2",
    "SELECT {} end",
    "INSERT INTO log SELECT CASE WHEN x = {} THEN 'a' ELSE 'b' END FROM t",
    'CREATE TABLE IF NOT EXISTS [a;b] (begin, "end;" DEFAULT {}, `c;d`)',
    'CREATE VIEW IF NOT EXISTS trigger AS SELECT {} AS "a;b", x AS `end;` FROM t',
    "CREATE TRIGGER IF NOT EXISTS a AFTER INSERT ON t WHEN new.x <> {0} BEGIN SELECT 1 end;"
    " INSERT INTO log VALUES ({0}); INSERT INTO log VALUES (CASE WHEN 1 THEN {0} END);END",
    "EXPLAIN QUERY PLAN CREATE TEMP TRIGGER b AFTER INSERT ON t BEGIN SELECT {}; END",
    "BEGIN; INSERT INTO t VALUES ({}); END",
]
scripts = st.lists(
    st.tuples(st.builds(str.format, st.sampled_from(COMMANDS), literals), trivia.map(lambda text: f";{text}")),
    max_size=8,
)


@examples
@given(scripts, st.booleans())
def test_statements_run_one_by_one_do_what_the_whole_text_does(script: list[tuple[str, str]], closed: bool) -> None:
    text = "".join(command + after for command, after in script)
    if not closed:
        text = text.rstrip("; \n")
    with database() as whole, database() as single:
        whole.executescript(text)
        for sql in split(text):
            single.execute(sql).fetchall()
        assert list(single.iterdump()) == list(whole.iterdump())


# Memory and work.


def test_a_file_streams_through_in_a_fraction_of_its_size(tmp_path: Path) -> None:
    path = tmp_path / "001_big.sql"
    row = f"INSERT INTO t VALUES ('{'é;' * 600}'); -- {'c' * 200}\n"
    count = 20_000_000 // len(row.encode())
    path.write_text(row * count, encoding="utf-8")
    source = FileSource(path, checksum(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in lex(source.chunks(), source.name, "sqlite")) == count
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


def lexed_in_few_scans(chunks: Iterator[str], most: int) -> list[Item]:
    """The items of a text, on which a regular expression may be started so many times."""
    count = 0

    def count_matches(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        count += event == "c_call" and called.__name__ in ("match", "fullmatch", "search")
        assert count < most

    sys.setprofile(count_matches)
    try:
        return list(lex(chunks, "f.sql", "sqlite"))
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("head", "piece", "tail", "most"),
    [
        ("INSERT INTO t VALUES (0)", ", (1, 'a;b')" * 100, ";", 4000),
        ("SELECT '", "a;\n" * 400, "';", 2000),
        ("", "-- a comment\n" * 100, "SELECT 1;", 2000),
        ("SELECT 1 /*", " a; " * 300, "*/", 2000),
        ("CREATE TRIGGER a BEGIN", f"\nSELECT '{'a' * 1200}';", " END;", 5 * 4000),
    ],
)
def test_a_statement_of_5_megabytes_is_whole_after_few_scans(head: str, piece: str, tail: str, most: int) -> None:
    """At least as much as is pending is read before it is scanned again, so the work is linear; in a trigger each
    of its statements is scanned for itself."""
    pieces = 5_000_000 // len(piece)
    items = lexed_in_few_scans(iter([head, *[piece] * pieces, tail]), most)
    whole = head + piece * pieces + tail
    assert [item.text for item in items if isinstance(item, Statement)] == [whole if head else tail]
