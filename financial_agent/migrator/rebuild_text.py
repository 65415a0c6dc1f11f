"""`-- migrate:rebuild TABLE` and `-- migrate:copy COLUMN = EXPRESSION`: what they say above a CREATE TABLE."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import RebuildInvalid
from financial_agent.migrator.lexer import Directive, Statement, locate, place
from financial_agent.migrator.lexer.sqlite import COMMENT, TRIVIA, WORD
from financial_agent.migrator.names import folded, unquoted

_NAME = rf"\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]|'(?:[^']|'')*'|{WORD}+"
_create = re.compile(
    rf"(?i:CREATE){TRIVIA}(?i:(TEMPORARY|TEMP|VIRTUAL)?){TRIVIA}(?i:TABLE){TRIVIA}"
    rf"((?i:IF){TRIVIA}(?i:NOT){TRIVIA}(?i:EXISTS){TRIVIA})?(?:({_NAME}){TRIVIA}\.{TRIVIA})?({_NAME}){TRIVIA}(\(?)"
)
_table = re.compile(rf"(?:(?i:main)[ \t]*\.[ \t]*)?({_NAME})")
_copy = re.compile(rf"({_NAME})[ \t]*=[ \t]*(?=\S)")
# What is closed, and then what opens something or closes it.
_part = re.compile(rf"{COMMENT}|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|/\*|[();'\"`\[]")
_FORM = "Write: -- migrate:copy COLUMN = EXPRESSION"


class Copy(NamedTuple):
    """How a column of the new table is filled. `start` is where the expression begins in the directive's text."""

    column: str
    expression: str
    start: int
    directive: Directive


class RebuildText(NamedTuple):
    """A CREATE TABLE that takes the place of a table's present definition."""

    table: str
    copies: tuple[Copy, ...]
    directive: Directive


def read_rebuild(statement: Statement, name: str, *, transaction: bool = True) -> RebuildText | None:
    """What a statement's directives say of a rebuild; None when it is none. Raises RebuildInvalid."""
    rebuilds = [each for each in statement.directives if each.word == "rebuild"]
    copies = [each for each in statement.directives if each.word == "copy"]
    if not rebuilds:
        if copies:
            fix = "Write above it: -- migrate:rebuild TABLE"
            _refuse(name, copies[0], "migrate:copy stands where no table is rebuilt", fix)
        return None
    rebuild = rebuilds[0]
    if rebuilds[1:]:
        fix = "Put each above a CREATE TABLE of its own"
        _refuse(name, rebuilds[1], "a second rebuild stands above the same statement", fix)
    if not transaction:
        fix = "Put it into a section without transaction:false"
        _refuse(name, rebuild, "a table is rebuilt in a transaction, or not at all", fix)
    named = _table.fullmatch(rebuild.text)
    if not named:
        _refuse(name, rebuild, "migrate:rebuild takes the name of one table", "Write: -- migrate:rebuild TABLE")
    table = _defined(statement, name)
    if folded(table) != folded(unquoted(named[1])):
        problem = f"the rebuild is of {unquoted(named[1])}, and what follows creates {table}"
        _refuse(name, rebuild, problem, "Name the same table in both")
    return RebuildText(table, _copies(copies, name), rebuild)


def place_in(name: str, directive: Directive, offset: int = 0) -> Location:
    """The place so many characters into what follows a directive's word, or that word, when nothing does."""
    if not directive.text:
        return place(name, directive)
    start = directive.excerpt.find(directive.text, directive.column - 1 + len(directive.word))
    return Location(name, directive.line, start + offset + 1, directive.excerpt)


def _defined(statement: Statement, name: str) -> str:
    """The table that the statement creates."""
    create = _create.match(statement.text)
    problem, at = "what follows a rebuild is the new CREATE TABLE of the table", 0
    if create:
        kind, if_not_exists, schema, table, opened = create.groups()
        if kind:
            problem, at = f"a rebuild cannot make a {kind.upper()} table", create.start(1)
        elif if_not_exists:
            problem, at = "the table exists: IF NOT EXISTS would leave it as it is", create.start(2)
        elif schema and folded(unquoted(schema)) != "main":
            problem, at = "a rebuild is of a table of the database itself", create.start(3)
        elif not opened:
            problem, at = "the new table's columns must be written out", create.end()
        else:
            return unquoted(table)
    fix = "Write: CREATE TABLE NAME (COLUMNS …);"
    raise RebuildInvalid(location=locate(name, statement, at), problem=problem, fix=fix)


def _copies(directives: list[Directive], name: str) -> tuple[Copy, ...]:
    copies: dict[str, Copy] = {}
    for directive in directives:
        found = _copy.match(directive.text)
        if not found:
            _refuse(name, directive, "migrate:copy takes a column and what to fill it with", _FORM)
        column, expression = unquoted(found[1]), directive.text[found.end() :]
        if folded(column) in copies:
            _refuse(name, directive, f"column {column} is filled twice", "Keep one of the two lines")
        _refuse_unbalanced(directive, name, found.end())
        copies[folded(column)] = Copy(column, expression, found.end(), directive)
    return tuple(copies.values())


def _refuse_unbalanced(directive: Directive, name: str, start: int) -> None:
    """It stands in parentheses when it runs, and must not reach out of them."""
    depth, opened = 0, start
    for part in _part.finditer(directive.text, start):
        match part[0]:
            case "(":
                depth, opened = depth + 1, opened if depth else part.start()
            case ")" if depth:
                depth -= 1
            case ")" | ";" | "'" | '"' | "`" | "[" | "/*":
                _refuse(name, directive, "the expression does not end where its line ends", _FORM, part.start())
    if depth:
        _refuse(name, directive, "this parenthesis is never closed", _FORM, opened)


def _refuse(name: str, directive: Directive, problem: str, fix: str, offset: int = 0) -> NoReturn:
    raise RebuildInvalid(location=place_in(name, directive, offset), problem=problem, fix=fix)
