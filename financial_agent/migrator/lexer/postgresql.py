"""PostgreSQL's grammar (https://www.postgresql.org/docs/current/sql-syntax-lexical.html), with what psql adds to it: a
statement with semicolons inside ends where psql sends it, and the rows of a COPY stand behind it. Strings are read with
standard_conforming_strings on, which a session is set to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from financial_agent.migrator.errors_files import ClientCommand, CopyInvalid, Unterminated
from financial_agent.migrator.lexer.text import DIRECTIVE, PLAIN, TURNS, Body, Grammar, Run, Text, to_line_end

_SPACE = r"[ \t\n\r\f\v]"
# `--` ends at a carriage return, too. pg_dump writes \restrict and \unrestrict, which concern psql alone.
_LINE_COMMENT = rf"(?!{DIRECTIVE})--[^\n\r]*+|\\(?:un)?restrict[ \t][^\n]*+"
# Comments nest: those that hold none are matched, others counted.
COMMENT = rf"{_LINE_COMMENT}|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*\*/"
TRIVIA = rf"(?:{_SPACE}|{COMMENT})*"
WORD = r"[\w$\x80-\U0010ffff]"
_GAP = rf"(?!{WORD}){TRIVIA}"
_TAG = r"\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*+)?\$"
_STRING = r"'(?:[^']++|'')*'(?!')"
# One with backslashes goes on behind a line feed, still with backslashes.
_ESCAPED = r"'(?:[^'\\]++|''|\\[\s\S])*'(?!')"
_CONTINUED = rf"{_ESCAPED}(?:(?:[ \t\f\v]|--[^\n\r]*+)*[\n\r](?:{_SPACE}|--[^\n\r]*+[\n\r])*{_ESCAPED})*"
_NAME = r'"(?:[^"]++|"")*"(?!")'

_nested = re.compile(r"/\*|\*/")
_tag = re.compile(_TAG)
_compound = re.compile(
    rf"CREATE{_GAP}(?:OR{_GAP}REPLACE{_GAP})?(?:FUNCTION|PROCEDURE|RULE)(?!{WORD})",
    re.IGNORECASE,
)
_holding = re.compile(r"\b(?:ATOMIC|RULE)\b", re.IGNORECASE)
_token = re.compile(
    rf"{TRIVIA}([eE]{_CONTINUED}|[uU]&{_STRING}|[uU]&{_NAME}|[bBxXnN]?{_STRING}|{_NAME}|{_TAG}|{WORD}+"
    rf"|/\*|:[:=]|[^ \t\n\r\f\v]|\Z)"
)
_command = re.compile(r"\\([^\s;]*)")
_end_of_data = re.compile(r"^\\\.$", re.MULTILINE)
_FIXES = {
    "i": "Put the SQL of that file into this one",
    "ir": "Put the SQL of that file into this one",
    "include": "Put the SQL of that file into this one",
    "copy": "Write COPY … FROM stdin; with the rows below it, up to a line \\.",
    "connect": "Remove it: a run changes the one database that it was given",
    "c": "Remove it: a run changes the one database that it was given",
    ".": "Put COPY … FROM stdin; above the rows that end here",
}


def _over_comment(buffer: str, at: int) -> int:
    if not buffer.startswith("/*", at):
        return at
    depth = 0
    for found in _nested.finditer(buffer, at):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return at


def _over(buffer: str, at: int) -> int:
    """Passes over a string in dollar quotes as well."""
    tag = _tag.match(buffer, at)
    if not tag:
        return _over_comment(buffer, at)
    end = buffer.find(tag[0], tag.end())
    return at if end < 0 else end + len(tag[0])


def _placed_tokens(sql: str) -> Iterator[tuple[int, str]]:
    at = 0
    while (match := _token.match(sql, at)) and match[1]:
        start, at = match.span(1)
        if match[1] == "/*":
            end = _over_comment(sql, start)
            at = end if end > start else at
            continue
        if _tag.fullmatch(match[1]):
            at = max(_over(sql, start), at)
        yield start, sql[start:at]


class _Compound(Body):
    """A rule or a routine: semicolons may stand in parentheses, and in BEGIN ATOMIC … END."""

    def __init__(self) -> None:
        self._inside: list[str] = []

    def ends_behind(self, part: str) -> bool:
        inside, before = self._inside, ""
        if not inside and not _holding.search(part):
            return True
        for _, token in _placed_tokens(part):
            word = token.upper()
            top = inside[-1] if inside else ""
            if word == "(" or (before, word) == ("BEGIN", "ATOMIC") or (word == "CASE" and top in ("ATOMIC", "CASE")):
                inside.append(word)
            elif (word == ")" and top == "(") or (word == "END" and top in ("ATOMIC", "CASE")):
                inside.pop()
            before = word
        return not inside

    def unclosed(self) -> tuple[str, str]:
        return ("parenthesis", ")") if self._inside[-1] == "(" else ("body", "END;")


def _body(buffer: str, at: int) -> Body:
    return _Compound() if _compound.match(buffer, at) else PLAIN


def _take_command(text: Text) -> None:
    if not text.buffer.startswith("\\", text.at):
        return
    to_line_end(text)
    found = _command.match(text.buffer, text.at)
    name = found[1] if found else ""
    fix = _FIXES.get(name, "Remove it, or write what it does in SQL")
    raise ClientCommand(location=text.location(), command=f"\\{name}", client="psql", fix=fix)


def _take_data(text: Text, sql: str) -> str:
    """The lines behind a `COPY … FROM stdin;`, up to a line `\\.`"""
    words = [token.upper() for _, token in _placed_tokens(sql)] if sql[:4].upper() == "COPY" else []
    if ("FROM", "STDIN") not in pairwise(words):
        return ""
    end_of_line = to_line_end(text)
    rest = text.buffer[text.at : end_of_line].lstrip()
    if rest and not rest.startswith("--"):
        text.advance(end_of_line - len(rest))
        raise CopyInvalid(location=text.location())
    opened = text.location()
    begin = ahead = end_of_line + 1 - text.at
    while True:
        end = _end_of_data.search(text.buffer, text.at + ahead)
        if end and (end.end() < len(text.buffer) or text.complete):
            break
        known = max(ahead, text.buffer.rfind("\n") + 1 - text.at)
        if not text.more():
            raise Unterminated(location=opened, what="COPY's data", closer="a line of its own that says \\.")
        ahead = known
    text.advance(text.at + begin)
    data = text.advance(end.start())
    text.advance(end.end())
    return data


GRAMMAR = Grammar(
    skip=Run(re.compile(rf"(?:{_SPACE}|{COMMENT}){{0,{TURNS}}}"), _over_comment),
    piece=Run(
        re.compile(
            rf"""(?:[^;'"$\-/\\]++|(?<![eE]){_STRING}|(?<={WORD}[eE]){_STRING}|(?<=[eE])(?<!{WORD}[eE]){_CONTINUED}"""
            rf"""|{_NAME}|{COMMENT}|-(?!-)|/(?!\*)|(?<={WORD})\$|(?!{_TAG})\$){{0,{TURNS}}}"""
        ),
        _over,
    ),
    undecided=re.compile(r"-(?:-|\Z)|/(?:\*|\Z)|\\"),
    comment=re.compile(COMMENT),
    word=re.compile(rf"([A-Za-z_]{WORD}*+)"),
    openers={
        "'": ("string", "'"),
        '"': ("name", '"'),
        "$": ("string", "the same dollar quotes"),
        "/": ("comment", "*/"),
    },
    placed_tokens=_placed_tokens,
    body=_body,
    space=" \t\n\r\f\v",
    command=_take_command,
    is_command=re.compile(r"\\[^\n]*\n"),
    data=_take_data,
)
