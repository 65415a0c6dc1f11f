"""The grammar of MySQL and MariaDB (https://mariadb.com/kb/en/lexical-structure/), with what their client adds to it:
DELIMITER. It is read as sql_mode has it at first: double quotes make strings, and backslashes escape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from financial_agent.migrator.errors_files import ClientCommand
from financial_agent.migrator.lexer.text import DIRECTIVE, PLAIN, TURNS, Body, Grammar, Run, Text, to_line_end

_SPACE = r"[ \t\n\r\f\v]"
# `/*! … */` and `/*M! … */` are code, apart from a version that no server has: mariadb-dump begins with one for the
# client. `--` makes a comment before white space and control characters alone, except where a statement would begin.
_BLOCK = r"/\*(?!M?!(?!999999))(?:[^*]++|\*(?!/))*\*/"
_CODE = r"/\*M?!(?!999999)[0-9]*"
COMMENT = rf"#[^\n]*+|(?!{DIRECTIVE})--(?=[\x00-\x20\x7f]|\Z)[^\n]*+|{_BLOCK}"
TRIVIA = rf"(?:{_SPACE}|{COMMENT})*"
WORD = r"[\w$\x80-\U0010ffff]"
_QUOTED = r"""'(?:[^'\\]++|''|\\[\s\S])*'(?!')|"(?:[^"\\]++|""|\\[\s\S])*"(?!")|`(?:[^`]++|``)*`(?!`)"""
# Between the words of a definition there may be the marks of `/*!50003 … */`.
_BETWEEN = rf"(?:{_SPACE}|{COMMENT}|{_CODE}|\*/)*"
_GAP = rf"(?!{WORD}){_BETWEEN}"
_USER = rf"(?:{_QUOTED}|{WORD}+)"

_token = re.compile(rf"{TRIVIA}([xXbBnN]?'(?:[^'\\]|''|\\[\s\S])*'|{_QUOTED}|{WORD}+|{_CODE}|\*/|:=|[^ \t\n\r\f\v]|\Z)")
_code = re.compile(_CODE)
_definition = (
    rf"(?:CREATE|ALTER){_GAP}(?:OR{_GAP}REPLACE{_GAP})?"
    rf"(?:DEFINER{_GAP}={_BETWEEN}{_USER}{_GAP}(?:@{_BETWEEN}{_USER}{_GAP}|\({_BETWEEN}\){_BETWEEN})?)?"
    rf"(?:AGGREGATE{_GAP})?"
    rf"(?:PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)"
)
_compound = rf"BEGIN{_GAP}NOT|IF|CASE|LOOP|REPEAT|WHILE|FOR"
_program = re.compile(rf"(?:{_CODE}{_GAP})?(?:{_definition}|{_compound})(?!{WORD})", re.IGNORECASE)
_delimiter = re.compile(r"DELIMITER(?![^ \t\n])[ \t]*(?:(['\"`])(.+?)\1|(\S*))[^\n]*", re.IGNORECASE)
_command = re.compile(
    r"\\|(?:DELIMITER|SOURCE|SYSTEM|CHARSET|CLEAR|CONNECT|EDIT|EGO|EXIT|GO|NOPAGER|NOTEE|NOWARNING|PAGER|PRINT|PROMPT|QUIT"
    r"|REHASH|STATUS|TEE|WARNINGS)(?![^\s;])",
    re.IGNORECASE,
)
_LONGEST = 10  # characters of a command, and one more
_PUT_HERE = "Put the SQL of that file into this one"

# Words that open a block where a statement may begin, and those behind which one may begin in it.
_BLOCKS = {"BEGIN", "CASE", "FOR", "IF", "LOOP", "REPEAT", "WHILE"}
_BEGINNINGS = {("IF", "THEN"), ("IF", "ELSE"), ("CASE", "THEN"), ("CASE", "ELSE"), ("WHILE", "DO"), ("FOR", "DO")}
# What has words of its own before the statement that is its body, and with which words it turns out to have no block.
_LEADING = {"CREATE", "ALTER", "DECLARE", "PROCEDURE", "FUNCTION"}
_NO_BLOCK = {"RETURN", "SELECT", "CALL", "DEFAULT"}
_BEFORE_NAMES = {*",=", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE", "BODY", "DECLARE", "EXISTS", "RETURNS"}
_NEEDED = {"IF": "THEN", "WHILE": "DO", "FOR": "DO"}
# Behind these an END is the name of a column, not what ends a CASE.
_BEFORE_OPERANDS = {*"(,.=<>+-*/%!&|^~@", ":=", "AND", "BETWEEN", "BY", "CASE", "DISTINCT", "DIV", "ELSE", "IN", "IS"}
_BEFORE_OPERANDS |= {"LIKE", "MOD", "NOT", "OR", "REGEXP", "RLIKE", "THEN", "WHEN", "XOR"}


class _Program(Body):
    """A stored program, or a compound statement that stands by itself."""

    def __init__(self) -> None:
        self._inside: list[str] = []

    def unclosed(self) -> tuple[str, str]:
        return ("parenthesis", ")") if self._inside[-1] == "(" else ("body", "END;")

    def ends_behind(self, part: str) -> bool:
        """Blocks are opened and closed where statements begin; only a CASE in an expression, which is kept in lower
        case, is closed elsewhere."""
        inside = self._inside
        words = [token.upper() for _, token in _placed_tokens(part)]
        begins, leads = True, False
        for at, word in enumerate(words):
            before, behind = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
            top = inside[-1] if inside else ""
            if word == "(":
                inside.append(word)
            elif word == ")":
                if top == "(":
                    inside.pop()
            elif "." in (before, behind):
                pass
            elif word == "END":
                ends_repeat = top == behind == "REPEAT"
                if (begins and top) or ends_repeat or (top == "case" and before not in _BEFORE_OPERANDS):
                    inside.pop()
            elif before == "END" and word in _BLOCKS:  # END IF
                pass
            elif begins and word in _LEADING:
                leads = True
            elif word == "PACKAGE" and leads and not inside:
                inside.append(word)
            elif word in _BLOCKS and (begins or (leads and top != "(" and _opens(words, at))):
                inside.append(word)
                begins, leads = word in ("BEGIN", "LOOP", "REPEAT"), False
                continue
            elif word == "CASE":
                inside.append("case")
            elif (top, word) in _BEGINNINGS or word == ":" or behind == ":":
                begins = begins or (top, word) in _BEGINNINGS
                continue
            elif begins and word in ("NOT", "ATOMIC"):
                continue
            elif word in _NO_BLOCK:
                leads = False
            begins = False
        return not inside


def _opens(words: list[str], at: int) -> bool:
    """Whether a word opens the body of what has words of its own before it."""
    word, before = words[at], words[at - 1]
    if before in _BEFORE_NAMES or (word == "REPEAT" and words[at + 1 : at + 2] == ["("]):
        return False
    if word == "CASE":
        return before in (")", ":", "ROW", "DO", "DETERMINISTIC", "DATA", "SQL", "INVOKER", "DEFINER")
    return word not in _NEEDED or _NEEDED[word] in _outside_parentheses(words[at:])


def _outside_parentheses(words: list[str]) -> Iterator[str]:
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth == 0:
            yield word


def _placed_tokens(sql: str) -> Iterator[tuple[int, str]]:
    """The marks of `/*! … */` do not count; what stands between them does."""
    at, marks = 0, 0
    while (match := _token.match(sql, at)) and match[1]:
        start, at = match.span(1)
        if _code.fullmatch(match[1]):
            marks += 1
        elif match[1] == "*/" and marks:
            marks -= 1
        else:
            at = start + 1 if match[1] == "*/" else at
            yield start, sql[start:at]


def _body(buffer: str, at: int) -> Body:
    return _Program() if _program.match(buffer, at) else PLAIN


def _take_command(text: Text) -> Grammar | None:
    while len(text.buffer) - text.at < _LONGEST and text.more():
        pass
    command = _command.match(text.buffer, text.at)
    if not command:
        return None
    end = to_line_end(text)
    delimiter = _delimiter.match(text.buffer, text.at, end)
    if not delimiter:
        name = text.buffer[text.at : end][:2] if command[0] == "\\" else command[0]
        raise ClientCommand(location=text.location(), command=name, client="mariadb", fix=_fix(name))
    separator = delimiter[2] or delimiter[3]
    if not separator or "\\" in separator:
        fix = "Write what separates statements from here on, as in: DELIMITER $$"
        raise ClientCommand(location=text.location(), command="DELIMITER", client="mariadb", fix=fix)
    text.advance(end)
    return _grammar(separator)


def _fix(command: str) -> str:
    match command:
        case "\\g" | "\\G":
            return "End the statement with a semicolon"
        case "\\.":
            return _PUT_HERE
        case _:
            return _PUT_HERE if command.upper() == "SOURCE" else "Remove it"


@cache
def _grammar(separator: str) -> Grammar:
    first = re.escape(separator[0])
    # Another separator than a semicolon may begin like something else: `$$` like a name, `//` like a division.
    ahead, begun = "", ""
    if separator != ";":
        ahead, begun = rf"(?!{re.escape(separator)})", rf"|(?!['\"`#\-/\\]){first}"
    return Grammar(
        skip=Run(re.compile(rf"(?:{ahead}(?:{_SPACE}|{COMMENT}|(?!{DIRECTIVE})--[^\n]*+)){{0,{TURNS}}}")),
        piece=Run(
            re.compile(
                rf"""(?:{ahead}(?:[^{first}'"`#\-/\\]++|{_QUOTED}|{COMMENT}|(?!{DIRECTIVE})-(?!-(?:[\x00-\x20\x7f]|\Z))"""
                rf"""|/(?!\*)|(?={_CODE})/|\\N(?!{WORD}){begun})){{0,{TURNS}}}"""
            )
        ),
        undecided=re.compile(r"-(?:-|\Z)|/(?:\Z|\*(?!M?!(?!999999))|\*M?!?9{0,6}\Z)|\\"),
        comment=re.compile(COMMENT),
        word=re.compile(rf"(?:{_CODE}{TRIVIA})?([A-Za-z_]{WORD}*+)"),
        openers={
            "'": ("string", "'"),
            '"': ("string", '"'),
            "`": ("name", "`"),
            "/": ("comment", "*/"),
        },
        placed_tokens=_placed_tokens,
        # Where the separator is another one, semicolons are no matter.
        body=_body if separator == ";" else lambda buffer, at: PLAIN,
        space=" \t\n\r\f\v",
        separator=separator,
        command=_take_command,
        is_command=re.compile(r"\\(?!N)[^\n]*\n"),
    )


GRAMMAR = _grammar(";")
