"""SQL text -> statements and directives, each with its line and column, as its database would split them.

The text streams through: at most a few statements are held at a time, so a file may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NoReturn

from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import DelimiterLeft, DirectiveInvalid, DirectiveUnknown, Unterminated
from financial_agent.migrator.lexer import sqlite
from financial_agent.migrator.lexer.items import Directive, Statement
from financial_agent.migrator.lexer.text import Body, Grammar, Run, Text, to_line_end
from financial_agent.migrator.lexer.text import directive as _directive

__all__ = ["Directive", "Statement", "lex", "locate", "place", "placed_tokens", "tokens"]

# A comment that is nearly a section's start.
_stray_marker = re.compile(
    r"^[ \t]*--[^\w\n]*([a-z]+)[^a-z\n]+(up|down)\b(?:[^\w\n]*(?:\w*transaction\b.*)?|[ \t]*[:(].*)$",
    re.IGNORECASE | re.MULTILINE,
)
_MARKER_WORDS = ("migrate", "migration", "dbmate", "goose")


def lex(chunks: Iterable[str], path: str, dialect: str) -> Iterator[Statement | Directive]:
    """Split text into its statements and directives.

    Raises Unterminated for a quote, comment or body that does not end; DirectiveInvalid for a directive that
    shares its line with SQL; DirectiveUnknown for a comment that is almost a section marker; ClientCommand, CopyInvalid
    and DelimiterLeft for what only psql and the mariadb client could run.
    """
    text, grammar = Text(chunks, path), _grammar(dialect)
    while True:
        end = _end(grammar.skip, grammar, text)
        trivia = text.buffer[text.at : end]
        if "--" in trivia:
            _refuse_stray_markers(text, trivia, grammar)
        text.advance(end)
        if text.at == len(text.buffer):
            return
        if text.buffer.startswith(grammar.separator, text.at):
            text.advance(text.at + len(grammar.separator))
        elif directive := _take_directive(text):
            if directive.word in ("up", "down") and grammar.separator != ";":
                raise DelimiterLeft(location=place(path, directive), separator=grammar.separator)
            yield directive
        elif behind := grammar.command(text):
            grammar = behind
        else:
            yield _take_statement(text, grammar, dialect)


def locate(name: str, statement: Statement, offset: int) -> Location:
    """The place `offset` characters into a statement."""
    before = statement.text[:offset]
    start = before.rfind("\n") + 1
    column = offset - start + (1 if start else statement.column)
    line_text = statement.text[start:].split("\n", 1)[0]
    # What stands before the statement on its line is not kept: blanks hold the caret's place.
    excerpt = line_text if start else " " * (statement.column - 1) + line_text
    return Location(name, statement.line + before.count("\n"), column, excerpt)


def place(name: str, directive: Directive, behind: str = "") -> Location:
    """Where a directive's word stands, or one of its arguments."""
    column = directive.column
    if behind and (found := re.compile(rf"(?<=\s){re.escape(behind)}(?!\S)").search(directive.excerpt, column)):
        column = found.start() + 1
    return Location(name, directive.line, column, directive.excerpt)


@lru_cache(maxsize=4096)
def tokens(sql: str, dialect: str = "sqlite") -> tuple[str, ...]:
    """SQL without what does not count: comments, and the white space between its words."""
    return tuple(word for _, word in placed_tokens(sql, dialect))


def placed_tokens(sql: str, dialect: str = "sqlite") -> Iterator[tuple[int, str]]:
    """The same, each with the offset at which it begins."""
    return _grammar(dialect).placed_tokens(sql)


def _grammar(dialect: str) -> Grammar:
    """Those of servers are imported when they are used: they would cost every start-up."""
    match dialect:
        case "postgresql":
            from financial_agent.migrator.lexer import postgresql

            return postgresql.GRAMMAR
        case "mysql":
            from financial_agent.migrator.lexer import mysql

            return mysql.GRAMMAR
        case _:
            return sqlite.GRAMMAR


def _end(run: Run, grammar: Grammar, text: Text, ahead: int = 0) -> int:
    """Where the run ends that starts `ahead` characters on, once enough text is at hand to be sure of it."""
    while True:
        end = _repeat(run, text.buffer, text.at + ahead, grammar.separator)
        if _is_sure(run, grammar, text.buffer, end) or not text.more():
            return end


def _repeat(run: Run, buffer: str, start: int, separator: str) -> int:
    while match := run.pattern.match(buffer, start):
        end = match.end()
        if buffer.startswith(separator, end):
            return end
        if end == start and (end := run.over(buffer, start)) == start:
            return end
        start = end
    return start


def _is_sure(run: Run, grammar: Grammar, buffer: str, end: int) -> bool:
    """Whether what stands at `end` would stop the run whatever the next chunk brings."""
    if end == len(buffer):
        return False
    if buffer.startswith(grammar.separator, end) or grammar.is_command.match(buffer, end):
        return True
    if _directive.match(buffer, end):
        return buffer.find("\n", end) >= 0
    # Otherwise a statement stops only at a quote or a comment that is still open.
    return run is grammar.skip and not grammar.undecided.match(buffer, end)


def _take_directive(text: Text) -> Directive | None:
    if not text.buffer.startswith("--", text.at):
        return None
    to_line_end(text)
    match = _directive.match(text.buffer, text.at)
    if not match:
        return None
    location = text.location()
    if text.head().strip():
        raise DirectiveInvalid(
            location=location,
            problem="a directive stands on a line of its own",
            fix="Move it to the next line",
        )
    word, *arguments = match[1].split() or [""]
    rest = match[1].strip()[len(word) :].strip()
    column = text.column + (match.start(1) - text.at)
    start = text.offset
    text.advance(match.end())
    return Directive(word, tuple(arguments), rest, location.line or 1, column, start, text.offset, location.excerpt)


def _take_statement(text: Text, grammar: Grammar, dialect: str) -> Statement:
    line, column = text.line, text.column
    ahead = 0
    body: Body | None = None
    while True:
        end = _end(grammar.piece, grammar, text, ahead)
        closed = text.buffer.startswith(grammar.separator, end)
        body = body or grammar.body(text.buffer, text.at)
        ends_here = body.ends_behind(text.buffer[text.at + ahead : end])
        if closed and ends_here:
            sql = text.advance(end + len(grammar.separator))
            break
        if closed:
            ahead = end + len(grammar.separator) - text.at
            continue
        if end < len(text.buffer) and not _directive.match(text.buffer, end):
            text.advance(end)
            grammar.command(text)
            _refuse_unterminated(text, grammar)
        if not ends_here:
            what, closer = body.unclosed()
            raise Unterminated(location=text.location(), what=what, closer=closer)
        sql = text.advance(end).rstrip(grammar.space)
        break
    if grammar.separator != ";":  # which is known to the engine's client alone
        sql = sql.removesuffix(grammar.separator).rstrip(grammar.space)
    word = grammar.word.match(sql)
    data = grammar.data(text, sql) if closed else ""
    return Statement(sql, word[1].upper() if word else "", line, column, (), dialect, data)


def _refuse_unterminated(text: Text, grammar: Grammar) -> NoReturn:
    what, closer = grammar.openers[text.buffer[text.at]]
    raise Unterminated(location=text.location(), what=what, closer=closer)


def _refuse_stray_markers(text: Text, trivia: str, grammar: Grammar) -> None:
    """What other tools, or a slip of the hand, write for a section's start. Read as a comment it would turn the undoing
    half of a file into live SQL."""
    lines = grammar.comment.sub(lambda each: each[0] if each[0][0] == "-" else re.sub(r"[^\n]", " ", each[0]), trivia)
    for stray in _stray_marker.finditer(lines):
        import difflib  # only here: it would cost every start-up

        if difflib.get_close_matches(stray[1].lower(), _MARKER_WORDS, n=1, cutoff=0.75):
            text.advance(text.at + stray.start(2))
            fix = f"Write it as: -- migrate:{stray[2].lower()}"
            problem = f"{stray[0].strip()!r} is almost a directive"
            raise DirectiveUnknown(location=text.location(), problem=problem, fix=fix)
