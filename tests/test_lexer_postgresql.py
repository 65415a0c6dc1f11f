"""What the lexer promises for PostgreSQL: a statement ends where psql sends it, and what pg_dump writes can be run."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import ClientCommand, CopyInvalid, Unterminated
from financial_agent.migrator.lexer import Directive, Statement, lex, placed_tokens, tokens
from tests import servers
from tests.clients import sent_by_psql

examples = settings(max_examples=150, deadline=None)
few_examples = settings(max_examples=25, deadline=None)


def lexed(text: str, size: int | None = None) -> list[Statement | Directive]:
    """The items of a text that arrives in chunks of a given size."""
    size = size or len(text) or 1
    return list(lex((text[at : at + size] for at in range(0, len(text), size)), "f.sql", "postgresql"))


def statements(text: str) -> list[Statement]:
    return [item for item in lexed(text) if isinstance(item, Statement)]


def split(text: str) -> list[str]:
    return [statement.text for statement in statements(text)]


def sent(text: str) -> list[tuple[tuple[str, ...], str]]:
    """What psql would send of a text, and the rows behind it."""
    found = [(tokens(sql.rstrip("; \n"), "postgresql"), data) for sql, data in sent_by_psql(text)]
    return [(words, data.removesuffix("\\.\n")) for words, data in found if words]


def seen(text: str) -> list[tuple[tuple[str, ...], str]]:
    return [(tokens(each.text.rstrip("; \n"), "postgresql"), each.data) for each in statements(text)]


# Where a statement ends.

WHOLE = [
    "SELECT 'it''s; --', \"a\"\"b;\";",
    "SELECT 'a\\';",
    "SELECT E'a\\';b', e'c\\\\', E'd'';';",
    "SELECT U&'d\\0061t\\+000061;', U&\"a;\";",
    "SELECT B'01', X'1F', N'a;', name'b;';",
    "SELECT true 'b\\';",
    "SELECT $$a;b$$, $tag$ $$;$$ $other$; $tag$, $é$;$é$;",
    "SELECT a$b$c, d$, $1;",
    "SELECT 1 /* a /* ; */ ; */ + 2 /**/ -- ; '\n;",
    "SELECT 1 /*/* ; */*/ + 2;",
    "SELECT a->'b;', a->>'c', a #- '{d;}', 1 - - 1, 4 / 2, 2*/* ; */3;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END; $f$;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;",
    "create or replace procedure p() begin atomic insert into t values (1); insert into t values (2); end;",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); INSERT INTO u VALUES (2));",
    "CREATE TABLE atomic (begin int, x text DEFAULT 'end;');",
]


@pytest.mark.parametrize("sql", WHOLE)
def test_this_is_one_statement_for_psql_and_for_the_lexer(sql: str) -> None:
    text = f"SELECT 0;{sql}SELECT 1;"
    assert split(text) == ["SELECT 0;", sql, "SELECT 1;"]
    assert sent(text) == seen(text)


# psql, which reads line by line, has these in pieces; the server does not.
WHOLE_FOR_THE_SERVER = [
    "SELECT E'a'\n  'b\\';c';",
    "SELECT E'a' -- ;\n\n  'b\\';c';",
    "CREATE /* a */ FUNCTION f(begin int) RETURNS int RETURN begin;",
]


@pytest.mark.parametrize("sql", WHOLE_FOR_THE_SERVER)
def test_this_is_one_statement_for_the_server_and_for_the_lexer(sql: str, postgresql: str) -> None:
    assert split(f"SELECT 0;{sql}SELECT 1;") == ["SELECT 0;", sql, "SELECT 1;"]
    servers.run(postgresql, sql)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ;; SELECT 1;; ;\n;SELECT 2;;", ["SELECT 1;", "SELECT 2;"]),
        ("-- a\rSELECT 1;", ["SELECT 1;"]),  # a carriage return ends the comment
        ("/* /* */ SELECT 1; */ SELECT 2;", ["SELECT 2;"]),  # comments nest
        ("/*/ SELECT 1; */ SELECT 2;", ["SELECT 2;"]),
        ("SELECT 1 \n\v", ["SELECT 1"]),
        ("SELECT 1 AS a\u00a0;", ["SELECT 1 AS a\u00a0;"]),
        ("\\restrict abc;d\nSELECT 1;\n\\unrestrict abc;d\n", ["SELECT 1;"]),  # what pg_dump writes for psql
    ],
)
def test_space_comments_and_stray_semicolons_are_skipped(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_a_statement_knows_its_place_its_keyword_and_its_dialect() -> None:
    _, statement = statements("SELECT $$\n\n$$;  -- x\n  /* /* */ */ create table t ();")
    assert (statement.line, statement.column, statement.keyword) == (4, 15, "CREATE")
    assert statement.dialect == "postgresql"


@pytest.mark.parametrize(
    ("text", "what", "line", "column"),
    [
        ("SELECT 1;\n 'a", "string", 2, 2),
        ("SELECT E'a\\'", "string", 1, 9),
        ('"a', "name", 1, 1),
        ("SELECT $a$ $b$", "string", 1, 8),
        ("/* /* */", "comment", 1, 1),
        ("SELECT 1 /* /* */", "comment", 1, 10),
        ("CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;", "body", 1, 1),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2", "parenthesis", 1, 1),
    ],
)
def test_what_is_never_closed_is_named_with_its_place(text: str, what: str, line: int, column: int) -> None:
    for size in range(1, len(text) + 1):
        with pytest.raises(Unterminated) as refused:
            lexed(text, size)
        assert refused.value.fields["what"] == what
        assert refused.value.location
        assert (refused.value.location.line, refused.value.location.column) == (line, column)


# The rows of a COPY.


@pytest.mark.parametrize(
    ("rows", "head"),
    [
        ("1\tit's; \"\n\\N\t$$\n", "COPY t (a, b) FROM stdin;"),
        ("", "copy t from STDIN with (format csv);"),
        ("-- migrate:down\n\n;\n", "COPY public.t FROM stdin; -- the rows"),
        ("\\\\.\n\\.x\n", 'COPY "COPY" FROM stdin;'),
    ],
)
def test_the_rows_behind_a_copy_are_its_data_for_psql_and_for_the_lexer(head: str, rows: str) -> None:
    text = f"SELECT 0;\n{head}\n{rows}\\.\nSELECT 1;\n"
    for size in range(1, len(text) + 1):
        _, copy, after = lexed(text, size)
        assert isinstance(copy, Statement)
        assert (copy.keyword, copy.data) == ("COPY", rows)
        assert isinstance(after, Statement)
        assert (after.text, after.line) == ("SELECT 1;", 4 + rows.count("\n"))
    assert sent(text) == seen(text)


@pytest.mark.parametrize("sql", ["COPY t FROM '/stdin';", "COPY (SELECT 1 FROM t) TO STDOUT;", "COPY stdin TO 'x';"])
def test_other_copies_have_no_data(sql: str) -> None:
    assert [(each.text, each.data) for each in statements(f"{sql}SELECT 1;")] == [(sql, ""), ("SELECT 1;", "")]


def test_rows_that_do_not_end_and_statements_before_them_are_refused() -> None:
    with pytest.raises(Unterminated, match="COPY's data"):
        lexed("COPY t FROM stdin;\n1\n\\. \n")
    with pytest.raises(CopyInvalid):
        lexed("COPY t FROM stdin; SELECT 1;\n1\n\\.\n")


@pytest.mark.parametrize("command", ["\\i a.sql", "\\copy t FROM 'x'", "\\connect other", "\\if true", "\\."])
def test_a_command_of_psql_is_refused_with_its_name_and_place(command: str) -> None:
    for before in ("", "SELECT 1;\n", "SELECT 1 "):
        text = f"{before}{command}\nSELECT 2;"
        for size in range(1, len(text) + 1):
            with pytest.raises(ClientCommand) as refused:
                lexed(text, size)
            assert refused.value.fields["command"] == command.split(maxsplit=1)[0]
            location = refused.value.location
            assert location
            lines = text.split("\n")
            assert lines[(location.line or 0) - 1][(location.column or 0) - 1 :] == command


# Words.


def test_words_are_told_from_comments_and_space() -> None:
    sql = "SELECT U&\"a\"/* x /* y */ z */, $a$b;$$ $a$, E'x\\'y' -- c\r, $1::int, a.b := 2"
    words = ["SELECT", 'U&"a"', ",", "$a$b;$$ $a$", ",", "E'x\\'y'", ",", "$1", "::", "int", ",", "a", ".", "b", ":="]
    assert tokens(sql, "postgresql") == (*words, "2")
    assert all(sql.startswith(word, at) for at, word in placed_tokens(sql, "postgresql"))


# Properties.

INNER = [
    "x",
    "1",
    *"=-/*,é+<",
    "@a",
    "'a;''b'",
    '"a;""b"',
    "E'a\\';'",
    "e'\\\\'",
    "$$a;'b$$",
    "$q$;$$;$q$",
    "a$b$c",
    "$1",
]
INNER += ["U&'\\'", "'\\'", "'-- a'", "/*;'*/", "--;'\n=", "/*/*;*/'*/", "E''", "(1, 2)", "('a;')"]
PIECES = [*INNER, "begin", "END", "case", "atomic"]
HEADS = ["SELECT", "CREATE TABLE", "EXPLAIN SELECT", "insert", "WITH", "END", "Begin", "CREATE VIEW", "="]
TRIVIA = [" ", "\n", "\r", "\t", "\f", ";", "-- a;'\n", "/* b;' */", "/*/**/;*/"]
trivia = st.lists(st.sampled_from(TRIVIA), max_size=4).map("".join)
simple = st.builds(
    "{} {} ;".format, st.sampled_from(HEADS), st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join)
)
inner = st.builds("SELECT {}, CASE 1 WHEN {} THEN 2 END;".format, *[st.sampled_from(INNER)] * 2)
routines = st.builds(
    "{} f() BEGIN {} {} END;".format,
    st.sampled_from(["CREATE FUNCTION", "create/**/or replace\nfunction", "CREATE PROCEDURE"]),
    st.sampled_from(["ATOMIC", "/*;*/atomic --;\n"]),
    st.lists(inner, max_size=3).map(" ".join),
)
pieces_of_text = st.lists(st.tuples(simple | routines, trivia), min_size=1, max_size=6)


@examples
@given(pieces_of_text, trivia)
def test_joined_statements_come_apart_at_their_seams(pieces: list[tuple[str, str]], start: str) -> None:
    text = start + "".join(statement + after for statement, after in pieces)
    assert split(text) == [statement for statement, _ in pieces]


@few_examples
@given(pieces_of_text)
def test_psql_sends_the_same_statements(pieces: list[tuple[str, str]]) -> None:
    text = "".join(statement + after for statement, after in pieces)
    assert sent(text) == seen(text)


SIGNS = [
    *"';\"$/*:\\\n\r\t -aé",
    "--",
    "/*",
    "*/",
    "$$",
    "$a$",
    "E'",
    "-- migrate:up",
    "BEGIN ATOMIC",
    ";END;",
    "(",
    ")",
]
SIGNS += ["CREATE FUNCTION f()", "COPY t FROM stdin;", "\n\\.\n", "\\restrict a", "CREATE RULE", "U&"]
anything = st.text(max_size=30) | st.lists(st.sampled_from(SIGNS), max_size=25).map("".join)


def outcome(text: str, size: int | None = None) -> tuple[Any, ...]:
    try:
        return (lexed(text, size),)
    except MigratorError as error:
        return type(error), error.message, error.location


@examples
@given(anything, st.integers(1, 9))
def test_any_text_is_lexed_or_refused_alike_in_any_chunks(text: str, size: int) -> None:
    """Nothing but a MigratorError escapes, and where the chunks end does not show."""
    assert outcome(text, size) == outcome(text)


# What pg_dump writes.

SCHEMA = """
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'it''s; \\',
    data jsonb DEFAULT '{"a": "\\u0041;"}', "Odd; ""name" text CHECK ("Odd; ""name" ~ E'^\\\\d;'));
INSERT INTO customers (name, data) VALUES (E'a\\tb\\n\\\\.;', NULL), ('\\.', '{"b": "\\t"}'), ('', '{}');
COMMENT ON TABLE customers IS $$a; 'comment'$$;
CREATE VIEW named AS SELECT id, name || ';' AS label FROM customers;
CREATE RULE keep AS ON DELETE TO customers DO ALSO (SELECT 1; SELECT 2);
CREATE FUNCTION body() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN PERFORM ';'; RETURN 1; END; $f$;
CREATE FUNCTION atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := ''x;''; RETURN NEW; END';
CREATE TRIGGER note BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION noted();
"""


def dumped(url: str) -> str:
    command = ["pg_dump", "--no-owner", f"--dbname={url}"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return "\n".join(line for line in text.split("\n") if not line.startswith(("\\restrict", "\\unrestrict", "--")))


def run(url: str, text: str) -> None:
    with closing(servers.connect(url)) as connection, closing(connection.cursor()) as cursor:
        for statement in statements(text):
            if not statement.data:
                cursor.execute(statement.text)
                continue
            with cursor.copy(statement.text) as copy:
                copy.write(statement.data)


@pytest.mark.skipif(not shutil.which("pg_dump"), reason="pg_dump is not installed")
def test_what_pg_dump_writes_makes_the_same_database(postgresql: str, postgresql_server: servers.Server) -> None:
    run(postgresql, SCHEMA)
    with postgresql_server.fresh() as other:
        text = dumped(postgresql)
        assert urlsplit(other).path != urlsplit(postgresql).path
        run(other, text)
        assert dumped(other) == text
        assert "COPY public.customers" in text
