"""SQLite's grammar: its tokenizer's (https://sqlite.org/src/file/src/tokenize.c) and that of sqlite3_complete()
(https://sqlite.org/c3ref/complete.html), tested against the latter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from financial_agent.migrator.lexer.text import DIRECTIVE, PLAIN, TURNS, Body, Grammar, Run

# SQLite's white space. A vertical tab counts only behind other white space, a byte order mark only before a token.
_SPACE = r"[ \t\n\f\r][ \t\n\v\f\r]*+|\ufeff"
# `--` ends at a line feed and nowhere else: a lone carriage return belongs to the comment.
COMMENT = rf"(?!{DIRECTIVE})--[^\n]*+|/\*(?:[^*]++|\*(?!/))*\*/"
TRIVIA = rf"(?:{_SPACE}|{COMMENT})*"
# Every character beyond ASCII belongs to names, odd spaces included.
WORD = r"[\w$\x80-\U0010ffff]"

_GAP = rf"(?!{WORD}){TRIVIA}"
# Only the words are matched in either case: to compile WORD so would take a third of the time to start.
_trigger = re.compile(
    rf"(?:(?i:EXPLAIN){_GAP}(?:(?i:QUERY){_GAP}(?i:PLAN){_GAP})?)?(?i:CREATE){_GAP}(?:(?i:TEMP(?:ORARY)?){_GAP})?"
    rf"(?i:TRIGGER)(?!{WORD})"
)
_trigger_end = re.compile(rf"{TRIVIA}(?i:END){_GAP}")
# `x'41'` is one word, `x '41'` two. The end counts as a word, or what stands before it would be looked into.
_token = re.compile(
    rf"{TRIVIA}([xX]?'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]|{WORD}+|[^ \t\n\v\f\r]|\Z)"
)


class _Trigger(Body):
    def ends_behind(self, part: str) -> bool:
        return bool(_trigger_end.fullmatch(part))

    def unclosed(self) -> tuple[str, str]:
        return "trigger", "END;"


def _placed_tokens(sql: str) -> Iterator[tuple[int, str]]:
    return ((match.start(1), match[1]) for match in _token.finditer(sql) if match[1])


def _body(buffer: str, at: int) -> Body:
    return _Trigger() if _trigger.match(buffer, at) else PLAIN


GRAMMAR = Grammar(
    skip=Run(re.compile(rf"(?:{_SPACE}|{COMMENT}){{0,{TURNS}}}")),
    piece=Run(
        re.compile(
            rf"""(?:[^;'"`\[\-/]++|'(?:[^']++|'')*'(?!')|"(?:[^"]++|"")*"(?!")|`(?:[^`]++|``)*`(?!`)|\[[^\]]*+\]"""
            rf"""|{COMMENT}|-(?!-)|/(?!\*)){{0,{TURNS}}}"""
        )
    ),
    undecided=re.compile(r"-(?:-|\Z)|/(?:\*|\Z)"),
    comment=re.compile(COMMENT),
    word=re.compile(rf"([A-Za-z_]{WORD}*+)"),
    openers={
        "'": ("string", "'"),
        '"': ("name", '"'),
        "`": ("name", "`"),
        "[": ("name", "]"),
        "/": ("comment", "*/"),
    },
    placed_tokens=_placed_tokens,
    body=_body,
    space=" \t\n\f\r",
)
