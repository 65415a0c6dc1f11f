"""`-- migrate:assert <query>`: what the query may be, and whether its answer lets the migration go on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from financial_agent.migrator.errors_files import AssertionInvalid, FileRefused
from financial_agent.migrator.lexer import Directive, Statement, lex, place, tokens

if TYPE_CHECKING:
    from financial_agent.migrator.databases import Answer

_READS = ("SELECT", "VALUES")
_WRITES = ("INSERT", "UPDATE", "DELETE")
_NO_SINGLE_LIST = ("UNION", "INTERSECT", "EXCEPT", "VALUES")
_CLOSERS = {"(": ")", "CASE": "END"}
_BEHIND_THE_LIST = ("FROM", "WHERE", "GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT")
# Operators that only look like a comparison, in a text whose signs stand apart: -> ->> << >>
_no_comparison = re.compile(r"- > (?:> )?|< <|> >")
_condition = re.compile(
    r"[=<>]|\b(?:AND|OR|NOT|IS|ISNULL|NOTNULL|IN|LIKE|GLOB|REGEXP|MATCH|BETWEEN|EXISTS)\b", re.IGNORECASE
)
_LONGEST = 200  # characters of column names that a message shows


def is_assertion(statement: Statement) -> bool:
    return bool(statement.directives) and statement.directives[0].word == "assert"


def parse(directive: Directive, name: str, dialect: str) -> Statement:
    """The query of an assertion, at its own place. Raises AssertionInvalid unless it is one query."""
    if not directive.text:
        _refuse(directive, name, "the query is missing")
    try:
        found = list(lex([directive.text], name, dialect))
    except FileRefused as error:
        _refuse(directive, name, f"the query cannot be read: {error.message}")
    queries = [each for each in found if isinstance(each, Statement)]
    if len(queries) != 1 or len(found) != 1:
        _refuse(directive, name, f"there are {len(found)} statements" if found else "the query is missing")
    query = queries[0]
    verb = main_verb(query)
    if verb not in _READS:
        _refuse(directive, name, f"{verb or 'this'} is no query")
    before = directive.column - 1 + len(directive.word)
    behind = directive.excerpt[before:]
    gap = len(behind) - len(behind.lstrip())
    column = before + gap + query.column
    return query._replace(line=directive.line, column=column, directives=(directive,))


def _refuse(directive: Directive, name: str, problem: str) -> NoReturn:
    raise AssertionInvalid(location=place(name, directive), problem=problem)


def main_verb(statement: Statement) -> str:
    """What a statement does that may begin with WITH: SELECT, VALUES, INSERT, UPDATE, DELETE or REPLACE; else its first
    word."""
    if statement.keyword != "WITH":
        return statement.keyword
    words = [word.upper() for word in _outside_parentheses(tokens(statement.text, statement.dialect))]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in (*_READS, *_WRITES) or (word, following) == ("REPLACE", "INTO"):
            return word
    return statement.keyword


def objection(query: Statement, answer: Answer) -> str | None:
    """What speaks against an assertion, in the shape of what its query found, and never with a value; None when it
    holds: there is no row, or the query asks for one condition, and that is true."""
    if answer.rows == 0:
        return None
    if answer.rows == 1 and answer.first and is_condition(query):
        value = answer.first[0]
        if isinstance(value, int | float) and value:
            return None
        return f"the value is {'NULL' if value is None else 'false'}"
    names = ", ".join(answer.columns)
    names = names if len(names) <= _LONGEST else f"{names[:_LONGEST]}…"
    return f"{answer.rows:,} {'row' if answer.rows == 1 else 'rows'} of ({names})"


def is_condition(query: Statement) -> bool:
    """Whether a query asks for one value that is a condition: `SELECT count(*) = 0` is told from `SELECT id`, which may
    find the one row with the number 1."""
    outside = _outside_parentheses(tokens(query.text, query.dialect))
    capitals = [word.upper() for word in outside]
    if any(word in capitals for word in _NO_SINGLE_LIST):
        return False
    begin = capitals.index("SELECT") + 1
    end = next((at for at in range(begin, len(outside)) if capitals[at] in _BEHIND_THE_LIST), len(outside))
    words = outside[begin:end]
    signs = " ".join(word for word in words if word[-1] not in "'\"`]")
    return "," not in words and bool(_condition.search(_no_comparison.sub(" ", f"{signs} ")))


def _outside_parentheses(words: Sequence[str]) -> list[str]:
    """The words that stand neither in parentheses nor in CASE … END."""
    outside, closers = list[str](), list[str]()
    for word in words:
        if closers and word.upper() == closers[-1]:
            closers.pop()
        elif opened := _CLOSERS.get(word.upper()):
            closers.append(opened)
        elif not closers:
            outside.append(word)
    return outside
