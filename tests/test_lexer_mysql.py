"""What the lexer promises for MySQL and MariaDB: a statement ends where the client sends it, stored programs are whole
with and without DELIMITER, and what mariadb-dump writes can be run."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import ClientCommand, Unterminated
from financial_agent.migrator.lexer import Directive, Statement, lex, placed_tokens, tokens
from tests import servers
from tests.clients import sent_by_mariadb

examples = settings(max_examples=150, deadline=None)
few_examples = settings(max_examples=25, deadline=None)


def lexed(text: str, size: int | None = None) -> list[Statement | Directive]:
    """The items of a text that arrives in chunks of a given size."""
    size = size or len(text) or 1
    return list(lex((text[at : at + size] for at in range(0, len(text), size)), "f.sql", "mysql"))


def statements(text: str) -> list[Statement]:
    return [item for item in lexed(text) if isinstance(item, Statement)]


def split(text: str) -> list[str]:
    return [statement.text for statement in statements(text)]


def sent(text: str) -> list[tuple[str, ...]]:
    """What the client would send of a text."""
    return [words for sql, _ in sent_by_mariadb(text) if (words := tokens(sql, "mysql"))]


def seen(text: str) -> list[tuple[str, ...]]:
    return [tokens(each.text.removesuffix(";"), "mysql") for each in statements(text)]


# Where a statement ends.

WHOLE = [
    "SELECT 'it''s; --', 'a\\';b', '\\\\', \"a\"\"b;\\\";\", `a``b;\\`;",
    "SELECT 1--1, 2 - -1 -- ;'\n, 3;",
    "SELECT 1 # ;'\n + 2 /* ;' */ /* /* ; */ + 3;",
    "SELECT 2*/* ; */3, 4/2, @a := 1, @@sql_mode;",
    "SELECT N'a;', x'3B', _utf8mb4'b;', \\N, b'01';",
    "SELECT /*+ a */ 1 /*! + ';' */ /*!50000 + 2 */ /*M!100100 + 3 */;",
    "CREATE TABLE begin (end INT, `case` INT, event INT);",
    "SELECT IF(a, 1, 2), REPEAT('a', 3), CASE WHEN end > 1 THEN 2 END FROM t;",
]


@pytest.mark.parametrize("sql", WHOLE)
def test_this_is_one_statement_for_the_client_and_for_the_lexer(sql: str) -> None:
    text = f"SELECT 0;{sql}SELECT 1;"
    assert split(text) == ["SELECT 0;", sql, "SELECT 1;"]
    assert sent(text) == seen(text)


PROGRAMS = [
    "CREATE PROCEDURE p() SELECT 1;",
    "CREATE PROCEDURE p() BEGIN END;",
    "CREATE PROCEDURE p() BEGIN SELECT 1; BEGIN SELECT 2; END; END;",
    "CREATE PROCEDURE IF NOT EXISTS p(IN a INT) COMMENT 'begin;' IF a THEN SELECT 1; ELSE SELECT 2; END IF;",
    "CREATE OR REPLACE DEFINER=`root`@`localhost` PROCEDURE p() SQL SECURITY INVOKER BEGIN SELECT 1; END;",
    "CREATE DEFINER=CURRENT_USER TRIGGER g BEFORE INSERT ON t FOR EACH ROW BEGIN SET NEW.a = 1; END;",
    "CREATE DEFINER=root@localhost FUNCTION f() RETURNS INT BEGIN RETURN 1; END;",
    "create definer = current_user() function f(a int) returns varchar(9) charset utf8mb4 deterministic\n"
    "begin return repeat('a', 3); end;",
    "CREATE FUNCTION f(a INT) RETURNS INT RETURN IF(a, CASE WHEN a THEN 1 ELSE 2 END, 3);",
    "CREATE FUNCTION f(a INT) RETURNS INT RETURN CASE WHEN a THEN IF(a, 1, 2) WHEN 2 THEN 3 END;",
    "CREATE FUNCTION f(a INT) RETURNS INT BEGIN RETURN CASE a WHEN 1 THEN 2 ELSE 3 END; END;",
    "CREATE FUNCTION f(a INT) RETURNS INT IF a > 1 THEN RETURN 1; ELSE RETURN 2; END IF;",
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = IF(NEW.a, 1, 2);",
    "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW IF NEW.end <> OLD.begin THEN DELETE FROM t; END IF;",
    "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW IF NOT EXISTS (SELECT 1 FROM t) THEN DELETE FROM t; END IF;",
    "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW FOLLOWS h BEGIN UPDATE t SET a = 1; END;",
    "CREATE EVENT IF NOT EXISTS e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; SELECT 1; END;",
    "ALTER EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; SELECT 1; END;",
    "CREATE PROCEDURE p() BEGIN DECLARE i INT DEFAULT IF(1, 2, 3); DECLARE a CHAR(9) DEFAULT REPEAT('a', 3);"
    " DECLARE c CURSOR FOR SELECT begin, end FROM t; DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END;"
    " DECLARE CONTINUE HANDLER FOR 1062 SET i = 1; END;",
    "CREATE PROCEDURE p(a INT) BEGIN IF a THEN SELECT 1; ELSEIF a > 1 THEN SELECT 2; ELSE IF a THEN SELECT 3; END IF;"
    " END IF; DROP TABLE IF EXISTS x; CREATE TABLE IF NOT EXISTS x (a INT); END;",
    "CREATE PROCEDURE p(a INT) BEGIN one: LOOP SET a = a + 1; IF a > 3 THEN LEAVE one; END IF; END LOOP one; END;",
    "CREATE PROCEDURE p(a INT) BEGIN two: WHILE a < 3 DO SET a = a + 1; END WHILE two; REPEAT SET a = a - 1;"
    " UNTIL a < 0 END REPEAT; DO SLEEP(0); END;",
    "CREATE PROCEDURE p(a INT) three: BEGIN FOR i IN 1..3 DO SELECT i; END FOR; LEAVE three; END three;",
    "CREATE PROCEDURE p(a INT) BEGIN CASE a WHEN 1 THEN SELECT 1; WHEN 2 THEN BEGIN END; ELSE SELECT CASE a WHEN 1"
    " THEN 2 END; END CASE; SELECT 2; END;",
    "CREATE PROCEDURE p() BEGIN SELECT t.end, begin, end FROM t WHERE end > 1 AND (CASE WHEN end > 5 THEN 1 END) IN"
    " (SELECT end FROM t); (SELECT 1); INSERT INTO t (begin, end) VALUES (1, 2); END;",
    "CREATE PROCEDURE p() BEGIN /* END; */ SELECT 'END;', `end`; -- END;\n # END;\n END;",
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW CASE NEW.a WHEN 1 THEN SET NEW.b = 1; ELSE BEGIN END; END CASE;",
    "CREATE PROCEDURE p() LOOP SELECT 1; END LOOP;",
    "CREATE PROCEDURE p(a INT) BEGIN DECLARE end INT; IF a > end THEN SELECT IF(a > end, 1, 2); END IF; END;",
    "CREATE FUNCTION f RETURNS STRING SONAME 'x.so';",
    "BEGIN NOT ATOMIC SELECT 1; IF 1 THEN SELECT 2; END IF; END;",
    "IF 1 THEN SELECT 1; END IF;",
    "FOR i IN 1..2 DO SELECT i; END FOR;",
    "CREATE PACKAGE BODY k PROCEDURE a() BEGIN SELECT 1; END; FUNCTION f() RETURNS INT RETURN 1; END;",
    "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER g BEFORE INSERT ON t FOR EACH ROW\n"
    "BEGIN SET NEW.a = 1; SET NEW.b = ';'; END */;",
]


@pytest.mark.parametrize("sql", PROGRAMS)
def test_a_stored_program_is_whole_without_a_delimiter(sql: str) -> None:
    for size in (None, 1, 7):
        items = lexed(f"SELECT 0;{sql}SELECT 1;", size)
        assert [item.text for item in items if isinstance(item, Statement)] == ["SELECT 0;", sql, "SELECT 1;"]


# A package needs a newer server or another mode, an event and a trigger what they name.
RUNNING = [sql for sql in PROGRAMS if not any(word in sql for word in ("PACKAGE", "ALTER", "FOLLOWS", "SONAME"))]


@pytest.mark.parametrize("sql", RUNNING)
def test_these_programs_are_whole_for_the_server_too(sql: str, mysql: str) -> None:
    table = "CREATE TABLE t (a INT, b TEXT, begin INT, end INT)"
    servers.run(mysql, table, sql.removesuffix(";"))


@pytest.mark.parametrize("sql", PROGRAMS)
def test_a_stored_program_is_whole_with_a_delimiter(sql: str) -> None:
    text = f"SELECT 0;\nDELIMITER $$\n{sql}\n$$\nSELECT 1 $$\ndelimiter ;\nSELECT 2;"
    assert split(text) == ["SELECT 0;", sql, "SELECT 1", "SELECT 2;"]
    assert sent(text) == [*seen("SELECT 0;"), tokens(sql, "mysql"), *seen("SELECT 1; SELECT 2;")]


@pytest.mark.parametrize("delimiter", ["$$", "//", "|", ";;", "\\\\", "--", "go", "'$'"])
def test_a_delimiter_is_what_the_client_takes_it_for(delimiter: str) -> None:
    separator = delimiter.strip("'")
    text = f"DELIMITER {delimiter}\nSELECT 4/2 - 1, 'a{separator}', g {separator}\nSELECT 1;\nSELECT 2{separator}\n"
    if delimiter == "\\\\":
        with pytest.raises(ClientCommand):
            lexed(text)
        return
    assert split(text) == [f"SELECT 4/2 - 1, 'a{separator}', g", "SELECT 1;\nSELECT 2"]
    assert sent(text) == [tokens(each, "mysql") for each in split(text)]


def test_a_delimiter_holds_until_the_next_one() -> None:
    text = "-- migrate:up\nDELIMITER //\nSELECT 1 //\n-- migrate:allow cascade\nSELECT 2; SELECT 3 //\n"
    text += "DELIMITER ;\nSELECT 4;"
    for size in range(1, len(text) + 1):
        found = [item.text if isinstance(item, Statement) else item.word for item in lexed(text, size)]
        assert found == ["up", "SELECT 1", "allow", "SELECT 2; SELECT 3", "SELECT 4;"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# a;\n-- b;\n--\n-----;\n/* c; */;;SELECT 1;", ["SELECT 1;"]),  # where one would begin, `--` is a comment
        ("/*M!999999\\- enable the sandbox mode */ \n/*!40101 SET NAMES utf8 */;", ["/*!40101 SET NAMES utf8 */;"]),
        ("-- a\rSELECT 1;\nSELECT 2;", ["SELECT 2;"]),
        ("SELECT 1 \n\t", ["SELECT 1"]),
        ("SELECT 'a\\\n;';", ["SELECT 'a\\\n;';"]),
        ("SELECT 1 AS a\u00a0;", ["SELECT 1 AS a\u00a0;"]),
    ],
)
def test_space_comments_and_stray_semicolons_are_skipped(text: str, expected: list[str]) -> None:
    assert split(text) == expected


@pytest.mark.parametrize(
    ("sql", "keyword"),
    [
        ("/*!40000 ALTER TABLE t DISABLE KEYS */;", "ALTER"),
        ("/*M!100100 SET a = 1 */;", "SET"),
        ("insert INTO t VALUES (1);", "INSERT"),
        ("`a`;", ""),
    ],
)
def test_the_keyword_is_the_first_word_also_in_a_comment_that_is_code(sql: str, keyword: str) -> None:
    (statement,) = statements(sql)
    assert (statement.keyword, statement.text, statement.dialect) == (keyword, sql, "mysql")


@pytest.mark.parametrize(
    ("text", "what", "line", "column"),
    [
        ("SELECT 1;\n 'a\\'", "string", 2, 2),
        ('SELECT "a', "string", 1, 8),
        ("`a", "name", 1, 1),
        ("/* /*", "comment", 1, 1),
        ("SELECT 1;\nCREATE PROCEDURE p() BEGIN SELECT 1;", "body", 2, 1),
        ("CREATE PROCEDURE p() BEGIN IF 1 THEN SELECT 1; END;", "body", 1, 1),
        ("DELIMITER $$\nSELECT 'a$$", "string", 2, 8),
    ],
)
def test_what_is_never_closed_is_named_with_its_place(text: str, what: str, line: int, column: int) -> None:
    for size in range(1, len(text) + 1):
        with pytest.raises(Unterminated) as refused:
            lexed(text, size)
        assert refused.value.fields["what"] == what
        assert refused.value.location
        assert (refused.value.location.line, refused.value.location.column) == (line, column)


COMMANDS = [
    "source a.sql",
    "\\. a.sql",
    "\\! ls",
    "system ls",
    "SOURCE\ta.sql",
    "delimiter",
    "exit",
    "\\u other",
    "tee a",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_client_is_refused_with_its_name_and_place(command: str) -> None:
    for before in ("", "SELECT 1;\n  ", "# a\n"):
        text = f"{before}{command}\nSELECT 2;"
        for size in range(1, len(text) + 1):
            with pytest.raises(ClientCommand) as refused:
                lexed(text, size)
            assert refused.value.fields["command"].lower() == command.split(maxsplit=1)[0].lower()
            location = refused.value.location
            assert location
            assert text.split("\n")[(location.line or 0) - 1][(location.column or 0) - 1 :] == command


def test_a_statement_that_ends_as_in_the_client_alone_is_refused() -> None:
    with pytest.raises(ClientCommand, match=r"\\G is a command of mariadb"):
        lexed("SELECT 1\\G\n")


@pytest.mark.parametrize("sql", ["SELECT source FROM t;", "go_on();", "UPDATE status SET a = 1;", "SELECT 1\nexit;"])
def test_a_name_like_a_command_is_none(sql: str) -> None:
    assert split(sql) == [sql]


# Words.


def test_words_are_told_from_comments_space_and_the_marks_of_code() -> None:
    sql = "SELECT 2*/*c*/3 /*! + 4 */ @@x, @a := N'x' -- c\n --1 # d\n, `a``b`, 'a\\'b' /*M!100100 , 5*/"
    words = [
        "SELECT",
        "2",
        "*",
        "3",
        "+",
        "4",
        "@",
        "@",
        "x",
        ",",
        "@",
        "a",
        ":=",
        "N'x'",
        "-",
        "-",
        "1",
        ",",
        "`a``b`",
    ]
    assert tokens(sql, "mysql") == (*words, ",", "'a\\'b'", ",", "5")
    assert all(sql.startswith(word, at) for at, word in placed_tokens(sql, "mysql"))


# Properties.

PIECES = [
    "x",
    "1",
    "begin",
    "END",
    "case",
    "if",
    *"=-/*(),é+<",
    "@a",
    "'a;''b'",
    '"a;""b"',
    "'a\\';'",
    '"\\\\"',
    "`;\\`",
]
PIECES += ["'-- a'", "/*;'*/", "-- ;'\n", "#;'\n", "--1", "/*! ';' */", "\\N", "''", "a.b", "/*+ ;*/"]
HEADS = [
    "SELECT",
    "CREATE TABLE",
    "EXPLAIN SELECT",
    "insert",
    "WITH",
    "END",
    "Begin",
    "CREATE VIEW",
    "/*!50000 SELECT*/",
]
TRIVIA = [" ", "\n", "\t", "\f", ";", "-- a;'\n", "/* b;' */", "#c;'\n", "\n--d;'\n"]
trivia = st.lists(st.sampled_from(TRIVIA), max_size=4).map("".join)
simple = st.builds(
    "{} {} ;".format, st.sampled_from(HEADS), st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join)
)
pieces_of_text = st.lists(st.tuples(simple, trivia), min_size=1, max_size=6)


@examples
@given(st.lists(st.tuples(simple | st.sampled_from(PROGRAMS), trivia), max_size=6), trivia)
def test_joined_statements_come_apart_at_their_seams(pieces: list[tuple[str, str]], start: str) -> None:
    text = start + "".join(statement + after for statement, after in pieces)
    assert split(text) == [statement for statement, _ in pieces]


@few_examples
@given(pieces_of_text)
def test_the_client_sends_the_same_statements(pieces: list[tuple[str, str]]) -> None:
    text = "".join(statement + after for statement, after in pieces)
    assert sent(text) == [each for each in seen(text) if each]


SIGNS = [*"';\"`/*:\\\n\r\t -aé#!", "--", "/*", "*/", "/*!", "/*M!999999", "DELIMITER $$\n", "$$", "\\N", "source"]
SIGNS += [
    "-- migrate:up",
    "(",
    ")",
    "CREATE PROCEDURE p()",
    "BEGIN",
    "END",
    " IF ",
    " THEN ",
    "CASE ",
    "REPEAT ",
    "UNTIL ",
]
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


# What mariadb-dump writes.

SCHEMA = """
CREATE TABLE customers (id BIGINT AUTO_INCREMENT PRIMARY KEY, name TEXT NOT NULL DEFAULT 'it''s; \\\\', `o;dd` JSON);
INSERT INTO customers (name, `o;dd`) VALUES ('a\\tb\\n\\\\.;', NULL), ('"', '{"b": "\\\\u0041"}'), ('', '{}');
CREATE VIEW named AS SELECT id, CONCAT(name, ';') AS label FROM customers;
CREATE PROCEDURE p(a INT) BEGIN IF a > 1 THEN SELECT ';'; END IF; END;
CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC BEGIN RETURN CASE a WHEN 1 THEN 2 ELSE 3 END; END;
CREATE TRIGGER note BEFORE UPDATE ON customers FOR EACH ROW BEGIN SET NEW.name = 'x;'; SET NEW.id = OLD.id; END;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO BEGIN DELETE FROM customers; SELECT 1; END;
"""


def dumped(url: str) -> str:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    where = [f"--socket={query['unix_socket'][0]}"] if "unix_socket" in query else [f"--host={parts.hostname}"]
    what = ["--skip-add-locks", "--skip-dump-date", "--routines", "--triggers", "--events", parts.path.strip("/")]
    command = ["mariadb-dump", f"--user={parts.username}", *where, *what]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return "\n".join(line for line in text.split("\n") if not line.startswith("--"))


@pytest.mark.skipif(not shutil.which("mariadb-dump"), reason="mariadb-dump is not installed")
def test_what_mariadb_dump_writes_makes_the_same_database(mysql: str, mysql_server: servers.Server) -> None:
    servers.run(mysql, *split(SCHEMA))
    text = dumped(mysql)
    assert "DELIMITER ;;" in text
    with mysql_server.fresh() as other, closing(servers.connect(other)) as connection:
        with closing(connection.cursor()) as cursor:
            for statement in statements(text):
                cursor.execute(statement.text)
        assert dumped(other) == text
