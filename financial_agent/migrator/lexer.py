"""SQL text -> statements and directives, each with its line and column, as SQLite would split them.

The text streams through: at most a few statements are held at a time, so a file may be larger than memory.
The rules are those of SQLite's tokenizer (https://sqlite.org/src/file/src/tokenize.c) and of sqlite3_complete()
(https://sqlite.org/c3ref/complete.html), tested against the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple, NoReturn

from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import DirectiveInvalid, DirectiveUnknown, Unterminated


class Directive(NamedTuple):
    """One `-- migrate:…` comment. `start` and `end` are character offsets of its line's text in the file."""

    word: str
    arguments: tuple[str, ...]
    text: str
    """What follows the word, as it is written."""
    line: int
    column: int
    start: int
    end: int
    excerpt: str


class Statement(NamedTuple):
    """One SQL statement, without the comments before it. `line` and `column` are those of its first character."""

    text: str
    keyword: str
    """Its first word in capitals; empty when it does not begin with one."""
    line: int
    column: int
    directives: tuple[Directive, ...] = ()
    """Those that say how it is run."""


# SQLite's white space. A vertical tab counts only behind other white space, a byte order mark only before a token.
_SPACE = r"[ \t\n\f\r][ \t\n\v\f\r]*+|\ufeff"
_DIRECTIVE = r"--[ \t]*+(?i:migrate)[ \t]*+:"
# `--` ends at a line feed and nowhere else: a lone carriage return belongs to the comment.
COMMENT = rf"(?!{_DIRECTIVE})--[^\n]*+|/\*(?:[^*]++|\*(?!/))*\*/"
TRIVIA = rf"(?:{_SPACE}|{COMMENT})*"
# Every character beyond ASCII belongs to names, odd spaces included.
WORD = r"[\w$\x80-\U0010ffff]"

# Groups are repeated greedily, not possessively, because Python 3.11.2 (Debian 12) leaves the position wrong where a
# possessive group fails (https://github.com/python/cpython/issues/106052); and a bounded number of times at once,
# because a greedy group remembers each of its turns.
_TURNS = 1000
_skip = re.compile(rf"(?:{_SPACE}|{COMMENT}){{0,{_TURNS}}}")
# Everything up to a semicolon, a directive, or a quote or comment that is not closed in the text at hand.
_piece = re.compile(
    rf"""(?:[^;'"`\[\-/]++|'(?:[^']++|'')*'(?!')|"(?:[^"]++|"")*"(?!")|`(?:[^`]++|``)*`(?!`)|\[[^\]]*+\]"""
    rf"""|{COMMENT}|-(?!-)|/(?!\*)){{0,{_TURNS}}}"""
)
_word = re.compile(rf"[A-Za-z_]{WORD}*+")
_GAP = rf"(?!{WORD}){TRIVIA}"
_trigger = re.compile(
    rf"(?:EXPLAIN{_GAP}(?:QUERY{_GAP}PLAN{_GAP})?)?CREATE{_GAP}(?:TEMP(?:ORARY)?{_GAP})?TRIGGER(?!{WORD})",
    re.IGNORECASE,
)
_trigger_end = re.compile(rf"{TRIVIA}END{_GAP}", re.IGNORECASE)
_directive = re.compile(rf"{_DIRECTIVE}[ \t]*+([^\n]*+)")
# A comment that is nearly a section's start.
_stray_marker = re.compile(
    r"^[ \t]*--[^\w\n]*([a-z]+)[^a-z\n]+(up|down)\b(?:[^\w\n]*(?:\w*transaction\b.*)?|[ \t]*[:(].*)$",
    re.IGNORECASE | re.MULTILINE,
)
_comment = re.compile(COMMENT)
# `x'41'` is one word, `x '41'` two. The end counts as a word, or what stands before it would be looked into.
_token = re.compile(
    rf"{TRIVIA}([xX]?'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]|{WORD}+|[^ \t\n\v\f\r]|\Z)"
)
_MARKER_WORDS = ("migrate", "migration", "dbmate", "goose")
_openers = {
    "'": ("string", "'"),
    '"': ("name", '"'),
    "`": ("name", "`"),
    "[": ("name", "]"),
    "/": ("comment", "*/"),
}


class _Text:
    """The part of the text that is being looked at, and where in the file it stands."""

    def __init__(self, chunks: Iterable[str], path: str) -> None:
        self.path = path
        self.buffer = ""
        self.at = 0
        self.line, self.column, self.offset = 1, 1, 0
        self._line_head = ""
        self._chunks = iter(chunks)
        self.complete = False

    def more(self) -> bool:
        """Read on, at least as much as is pending: a long statement is scanned a logarithmic number of times."""
        if self.complete:
            return False
        pending = self.buffer[self.at :]
        parts, size = [pending], 0
        for chunk in self._chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > len(pending):
                break
        else:
            self.complete = True
        self._line_head = self.head()
        self.buffer, self.at = "".join(parts), 0
        return True

    def head(self) -> str:
        """The current line, up to here (bounded, for excerpts)."""
        start = self.buffer.rfind("\n", 0, self.at)
        return (self.buffer[start + 1 : self.at] if start >= 0 else self._line_head + self.buffer[: self.at])[-2000:]

    def advance(self, end: int) -> str:
        text = self.buffer[self.at : end]
        lines = text.count("\n")
        if lines:
            self.line += lines
            self.column = end - self.buffer.rfind("\n", self.at, end)
        else:
            self.column += end - self.at
        self.offset += end - self.at
        self.at = end
        return text

    def location(self) -> Location:
        rest = self.buffer[self.at : self.at + 2000].partition("\n")[0]
        return Location(self.path, self.line, self.column, self.head() + rest)


def lex(chunks: Iterable[str], path: str) -> Iterator[Statement | Directive]:
    """Split text into its statements and directives.

    Raises Unterminated for a quote, comment or trigger that does not end; DirectiveInvalid for a directive that
    shares its line with SQL; DirectiveUnknown for a comment that is almost a section marker.
    """
    text = _Text(chunks, path)
    while True:
        end = _match_end(_skip, text)
        trivia = text.buffer[text.at : end]
        if "--" in trivia:
            _refuse_stray_markers(text, trivia)
        text.advance(end)
        if text.at == len(text.buffer):
            return
        if text.buffer[text.at] == ";":
            text.advance(text.at + 1)
            continue
        yield _take_directive(text) or _take_statement(text)


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
def tokens(sql: str) -> tuple[str, ...]:
    """SQL without what does not count: comments, and the white space between its words."""
    return tuple(word for word in _token.findall(sql) if word)


def placed_tokens(sql: str) -> Iterator[tuple[int, str]]:
    """The same, each with the offset at which it begins."""
    return ((match.start(1), match[1]) for match in _token.finditer(sql) if match[1])


def _match_end(pattern: re.Pattern[str], text: _Text, ahead: int = 0) -> int:
    """Where the match ends that starts `ahead` characters on, once enough text is at hand to be sure of it."""
    while True:
        end = _repeat(pattern, text.buffer, text.at + ahead)
        if _is_sure(pattern, text.buffer, end) or not text.more():
            return end


def _repeat(pattern: re.Pattern[str], buffer: str, start: int) -> int:
    while match := pattern.match(buffer, start):
        if match.end() == start or buffer[match.end() : match.end() + 1] == ";":
            return match.end()
        start = match.end()
    return start


def _is_sure(pattern: re.Pattern[str], buffer: str, end: int) -> bool:
    """Whether what stands at `end` would stop the match whatever the next chunk brings."""
    match buffer[end : end + 1]:
        case "":
            return False
        case ";":
            return True
        case "-" | "/":
            return bool(_directive.match(buffer, end)) and buffer.find("\n", end) >= 0
        case _:
            return pattern is _skip  # a statement stops here only at a quote that is still open


def _take_directive(text: _Text) -> Directive | None:
    if not text.buffer.startswith("--", text.at):
        return None
    while text.buffer.find("\n", text.at) < 0 and text.more():
        pass
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


def _take_statement(text: _Text) -> Statement:
    line, column = text.line, text.column
    ahead, is_trigger = 0, None
    while True:
        end = _match_end(_piece, text, ahead)
        closed = text.buffer[end : end + 1] == ";"
        if is_trigger is None:
            is_trigger = bool(_trigger.match(text.buffer, text.at))
        ends_here = not is_trigger or _trigger_end.fullmatch(text.buffer, text.at + ahead, end)
        if closed and ends_here:
            sql = text.advance(end + 1)
            break
        if closed:
            ahead = end + 1 - text.at
            continue
        if end < len(text.buffer) and not _directive.match(text.buffer, end):
            text.advance(end)
            _refuse_unterminated(text)
        if not ends_here:
            raise Unterminated(location=text.location(), what="trigger", closer="END;")
        sql = text.advance(end).rstrip(" \t\n\f\r")
        break
    word = _word.match(sql)
    return Statement(sql, word[0].upper() if word else "", line, column)


def _refuse_unterminated(text: _Text) -> NoReturn:
    what, closer = _openers[text.buffer[text.at]]
    raise Unterminated(location=text.location(), what=what, closer=closer)


def _refuse_stray_markers(text: _Text, trivia: str) -> None:
    """What other tools, or a slip of the hand, write for a section's start. Read as a comment it would turn the undoing
    half of a file into live SQL."""
    lines = _comment.sub(lambda each: each[0] if each[0][1] == "-" else re.sub(r"[^\n]", " ", each[0]), trivia)
    for stray in _stray_marker.finditer(lines):
        import difflib  # only here: it would cost every start-up

        if difflib.get_close_matches(stray[1].lower(), _MARKER_WORDS, n=1, cutoff=0.75):
            text.advance(text.at + stray.start(2))
            fix = f"Write it as: -- migrate:{stray[2].lower()}"
            problem = f"{stray[0].strip()!r} is almost a directive"
            raise DirectiveUnknown(location=text.location(), problem=problem, fix=fix)
