"""The rule for the oldest SQLite that a migration must run on, and what each version brought.

https://sqlite.org/changes.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from financial_agent.migrator.lint.rule import File, Found, Rule, Version, within, written
from financial_agent.migrator.lint.words import Word, depths, phrase

Finder = Callable[[Sequence[Word]], Iterator[int]]
"""The places, among a statement's words, where something is used."""

# What stands before a name that a parenthesis follows, when that is no call of a function.
_NAMING = {"TABLE", "INTO", "REFERENCES", "EXISTS", "ON", "VIEW", "INDEX", "WITH", "UPDATE"}
_MATHEMATICS = """
acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power
 radians sin sinh sqrt tan tanh trunc"""


@dataclass(frozen=True)
class Feature:
    since: Version
    name: str
    find: Finder
    example: str
    """A statement that uses it, on a table t (a, b)."""


def _phrase(*wanted: str) -> Finder:
    return lambda words: (at for at in range(len(words)) if phrase(words, at, *wanted))


def _either(*finders: Finder) -> Finder:
    return lambda words: (at for find in finders for at in find(words))


def _call(names: str) -> Finder:
    wanted = set(names.split())

    def find(words: Sequence[Word]) -> Iterator[int]:
        for at, word in enumerate(words[:-1]):
            is_call = word.name in wanted and words[at + 1].text == "("
            if is_call and (at == 0 or (words[at - 1].upper not in _NAMING and words[at - 1].text != ".")):
                yield at

    return find


def _calls_beginning(start: str) -> Finder:
    return lambda words: (
        at for at, word in enumerate(words[:-1]) if word.name.startswith(start) and words[at + 1].text == "("
    )


def _alter(verb: str, *, but: str = "") -> Finder:
    """ALTER TABLE with an action, unless another word follows that."""

    def find(words: Sequence[Word]) -> Iterator[int]:
        for at in range(3, min(len(words) - 1, 6)):
            is_name = phrase(words, 0, "ALTER", "TABLE") and words[at - 1].name and words[at - 1].text != "."
            if is_name and words[at].upper == verb and words[at + 1].upper != but:
                yield at
                return

    return find


def _update_from(words: Sequence[Word]) -> Iterator[int]:
    """A FROM in an UPDATE itself, also in one of a trigger's."""
    inside = depths(words)
    for start, word in enumerate(words):
        if word.upper != "UPDATE" or not any(each.upper == "SET" for each in words[start : start + 7]):
            continue
        for at in range(start, len(words)):
            if words[at].text == ";" or inside[at] < inside[start]:
                break
            if inside[at] == inside[start] and words[at].upper == "FROM" and words[at - 1].upper != "DISTINCT":
                yield at
                break


def _ordered_aggregate(words: Sequence[Word]) -> Iterator[int]:
    """An ORDER BY in the parentheses of a function: the first word in them does not begin a query or a window."""
    opened: list[bool] = []
    for at, word in enumerate(words):
        if word.text == "(":
            called = at > 0 and words[at - 1].name and words[at - 1].upper not in ("OVER", "AS", "IN", "FROM", "JOIN")
            first = words[at + 1].upper if at + 1 < len(words) else ""
            opened.append(bool(called) and first not in ("SELECT", "WITH", "VALUES", "PARTITION", "ORDER"))
        elif word.text == ")" and opened:
            opened.pop()
        elif opened and opened[-1] and phrase(words, at, "ORDER", "BY"):
            yield at


def _strict(words: Sequence[Word]) -> Iterator[int]:
    if phrase(words, 0, "CREATE") and any(word.upper == "TABLE" for word in words[1:3]):
        inside = depths(words)
        closed = next((at for at, word in enumerate(words) if word.text == ")" and inside[at] == 0), len(words))
        yield from (at for at in range(closed, len(words)) if words[at].upper == "STRICT")


def _generated(words: Sequence[Word]) -> Iterator[int]:
    if phrase(words, 0, "CREATE", "TABLE") or phrase(words, 0, "ALTER", "TABLE"):
        inside = depths(words)
        is_altered = phrase(words, 0, "ALTER")
        for at, word in enumerate(words[:-1]):
            if word.upper == "AS" and words[at + 1].text == "(" and (is_altered or inside[at] == 1):
                yield at


def _long_numbers(words: Sequence[Word]) -> Iterator[int]:
    return (at for at, word in enumerate(words) if word.text[0].isdigit() and "_" in word.text)


_OPERATOR = _phrase("-", ">")

FEATURES = (
    Feature(
        (3, 24),
        "ON CONFLICT … DO",
        _either(_phrase("ON", "CONFLICT", "("), _phrase("ON", "CONFLICT", "DO")),
        "INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING",
    ),
    Feature(
        (3, 25), "a window function", _either(_phrase(")", "OVER")), "SELECT row_number() OVER (ORDER BY a) FROM t"
    ),
    Feature((3, 25), "RENAME COLUMN", _alter("RENAME", but="TO"), "ALTER TABLE t RENAME COLUMN a TO c"),
    Feature(
        (3, 27), "VACUUM INTO", _either(_phrase("VACUUM", "INTO"), _phrase("VACUUM", "MAIN", "INTO")), "VACUUM INTO ''"
    ),
    Feature((3, 30), "FILTER", _phrase(")", "FILTER", "("), "SELECT count(*) FILTER (WHERE a > 1) FROM t"),
    Feature(
        (3, 30),
        "NULLS FIRST or LAST",
        _either(_phrase("NULLS", "FIRST"), _phrase("NULLS", "LAST")),
        "SELECT a FROM t ORDER BY a NULLS LAST",
    ),
    Feature((3, 31), "a generated column", _generated, "CREATE TABLE u (a, c AS (a + 1))"),
    Feature((3, 32), "iif()", _call("iif"), "SELECT iif(a, 1, 2) FROM t"),
    Feature((3, 33), "UPDATE … FROM", _update_from, "UPDATE t SET a = v.b FROM (SELECT b FROM t) AS v"),
    Feature((3, 34), "substring()", _call("substring"), "SELECT substring(a, 1) FROM t"),
    Feature(
        (3, 35),
        "RETURNING",
        lambda words: (
            at
            for at in _phrase("RETURNING")(words)
            if words[0].upper in ("INSERT", "REPLACE", "UPDATE", "DELETE", "WITH")
        ),
        "INSERT INTO t (a) VALUES (1) RETURNING a",
    ),
    Feature((3, 35), "DROP COLUMN", _alter("DROP"), "ALTER TABLE t DROP COLUMN a"),
    Feature(
        (3, 35),
        "a MATERIALIZED hint",
        _either(_phrase("AS", "MATERIALIZED", "("), _phrase("NOT", "MATERIALIZED", "(")),
        "WITH c AS MATERIALIZED (SELECT 1) SELECT * FROM c",
    ),
    Feature((3, 35), "sign() or a mathematical function", _call(_MATHEMATICS + " sign"), "SELECT sign(a) FROM t"),
    Feature((3, 37), "a STRICT table", _strict, "CREATE TABLE u (a INTEGER) STRICT"),
    Feature((3, 38), "-> or ->>", _OPERATOR, "SELECT a ->> '$.x' FROM t"),
    Feature((3, 38), "unixepoch()", _call("unixepoch"), "SELECT unixepoch(a) FROM t"),
    Feature((3, 38), "format()", _call("format"), "SELECT format('%d', a) FROM t"),
    Feature(
        (3, 39),
        "RIGHT or FULL JOIN",
        _either(
            _phrase("RIGHT", "JOIN"),
            _phrase("RIGHT", "OUTER", "JOIN"),
            _phrase("FULL", "JOIN"),
            _phrase("FULL", "OUTER", "JOIN"),
        ),
        "SELECT 1 FROM t FULL JOIN t AS u ON t.a = u.b",
    ),
    Feature(
        (3, 39),
        "IS DISTINCT FROM",
        _either(_phrase("IS", "DISTINCT", "FROM"), _phrase("IS", "NOT", "DISTINCT", "FROM")),
        "SELECT a IS NOT DISTINCT FROM b FROM t",
    ),
    Feature((3, 41), "unhex()", _call("unhex"), "SELECT unhex(a) FROM t"),
    Feature((3, 42), "json_error_position()", _call("json_error_position"), "SELECT json_error_position(a) FROM t"),
    Feature((3, 43), "octet_length()", _call("octet_length"), "SELECT octet_length(a) FROM t"),
    Feature((3, 43), "timediff()", _call("timediff"), "SELECT timediff(a, b) FROM t"),
    Feature((3, 44), "concat() or concat_ws()", _call("concat concat_ws"), "SELECT concat(a, b) FROM t"),
    Feature((3, 44), "string_agg()", _call("string_agg"), "SELECT string_agg(a, ',') FROM t"),
    Feature((3, 44), "ORDER BY inside an aggregate", _ordered_aggregate, "SELECT group_concat(a ORDER BY b) FROM t"),
    Feature((3, 45), "a jsonb function", _either(_call("jsonb"), _calls_beginning("jsonb_")), "SELECT jsonb(a) FROM t"),
    Feature((3, 46), "json_pretty()", _call("json_pretty"), "SELECT json_pretty(a) FROM t"),
    Feature((3, 46), "_ in a number", _long_numbers, "SELECT 1_000"),
    Feature((3, 48), "if()", _call("if"), "SELECT if(a, 1, 2) FROM t"),
    Feature((3, 50), "unistr()", _call("unistr unistr_quote"), "SELECT unistr(a) FROM t"),
)


def _too_new(file: File, minimum: Version | None) -> Iterator[Found]:
    if minimum is None:
        return
    newer = [feature for feature in FEATURES if feature.since > minimum[:2]]
    for moment in file.moments:
        for feature in newer:
            for at in feature.find(moment.words):
                needed, oldest = (".".join(map(str, version)) for version in (feature.since, minimum))
                message = f"{feature.name} needs SQLite {needed}, and {oldest} is to do"
                yield within(file, moment, message, moment.words[at].at)
                break


RULES = (
    Rule(
        code="FA611",
        severity="error",
        title="the oldest SQLite can run it",
        why="Python brings the SQLite of the system that it runs on, so a file that works on a developer's machine "
        "may be a syntax error on a server. The setting MINIMUM_SQLITE says which is the oldest that matters; "
        "None asks for nothing. Functions for mathematics also depend on how SQLite was built.",
        advice="Write it with what the oldest SQLite has, or raise MINIMUM_SQLITE",
        wrong=(
            written(
                "002_add_rates",
                "Orders from abroad are converted at the day's rate.",
                "CREATE TABLE IF NOT EXISTS rates (day TEXT PRIMARY KEY, rate REAL NOT NULL) STRICT;",
                "DROP TABLE IF EXISTS rates;",
            ),
        ),
        right=(
            written(
                "002_add_rates",
                "Orders from abroad are converted at the day's rate.",
                "CREATE TABLE IF NOT EXISTS rates (\n    day TEXT PRIMARY KEY,\n"
                "    rate REAL NOT NULL CHECK (typeof(rate) = 'real')\n);",
                "DROP TABLE IF EXISTS rates;",
            ),
        ),
        source="https://sqlite.org/changes.html",
        of_file=_too_new,
    ),
)
