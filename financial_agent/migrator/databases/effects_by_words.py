"""What a statement destroys or overwrites, judged from its words alone: for servers, which tell nothing of a statement
before it runs. What its triggers and foreign keys do is not known; and of a procedure, nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from financial_agent.migrator.databases.database import Effect, EffectKind, Effects
from financial_agent.migrator.lexer import tokens

_DROPS: dict[str, EffectKind] = {
    "TABLE": "drop table",
    "VIEW": "drop view",
    "INDEX": "drop index",
    "TRIGGER": "drop trigger",
    "SCHEMA": "drop schema",
    "DATABASE": "drop schema",
    "SEQUENCE": "drop sequence",
    "TYPE": "drop type",
    "DOMAIN": "drop type",
    "FUNCTION": "drop routine",
    "PROCEDURE": "drop routine",
    "ROUTINE": "drop routine",
    "AGGREGATE": "drop routine",
    "EVENT": "drop routine",
}
# What stands before the kind of an object, or between it and its name, and says nothing of which it is.
_MODIFIERS = {
    *("OR", "REPLACE", "TEMP", "TEMPORARY", "GLOBAL", "LOCAL", "UNLOGGED", "MATERIALIZED", "RECURSIVE", "FOREIGN"),
    *("UNIQUE", "FULLTEXT", "SPATIAL", "CONCURRENTLY", "CONSTRAINT", "ONLINE", "ONLY", "IF", "NOT", "EXISTS"),
    *("LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE", "INTO", "FROM", "COLUMN"),
}
# They destroy nothing.
_HARMLESS = {
    *("", "SELECT", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "SET", "RESET", "USE", "COMMENT"),
    *("GRANT", "REVOKE", "ANALYZE", "VACUUM", "REINDEX", "CLUSTER", "REFRESH", "OPTIMIZE", "CHECK", "REPAIR"),
    *("FLUSH", "LOCK", "UNLOCK", "NOTIFY", "LISTEN", "UNLISTEN", "SECURITY", "CHECKPOINT", "DISCARD", "REASSIGN"),
    *("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "RENAME", "COPY", "LOAD"),
}
_CHANGES = {"INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE"}
_CLAUSES = frozenset({"WHERE", "FROM", "USING", "ORDER", "LIMIT", "RETURNING", "WHEN", "ON"})
# What follows a table's name, and is no alias of it.
_BEHIND_TABLE = {*_CLAUSES, "SET", "VALUES", "VALUE", "SELECT", "AS", "JOIN", "LEFT", "INNER", "CROSS", "DEFAULT"}


def find_effects(sql: str, dialect: str, home: str) -> Effects:
    """What a statement would do. A name in the schema, or database, `home` is told without that."""
    words = _Words(tokens(sql, dialect), dialect, home)
    match words.upper(0):
        case "CREATE":
            return _of_create(words)
        case "DROP":
            return _of_drop(words)
        case "ALTER":
            return _of_alter(words)
        case "TRUNCATE":
            names = _names(words, words.behind(1, {"TABLE", "ONLY"}))
            gone = tuple(Effect("delete", name, everywhere=True) for name in names)
            return Effects(gone, frozenset(names), target=names[0] if names else "")
    changes = [_change(words, at) for at in _change_places(words)]
    if not changes and words.upper(0) not in _HARMLESS | {"WITH"}:
        return Effects((Effect("unknown"),))
    if words.upper(0) == "LOAD" and "REPLACE" in words.uppers:
        changes = [Effects((Effect("unknown"),))]
    return Effects(
        tuple(dict.fromkeys(effect for each in changes for effect in each.destroyed)),
        frozenset(name for each in changes for name in each.written),
        frozenset(),
        changes[-1].target if changes else "",
        frozenset(_read(words)),
    )


@dataclass(frozen=True)
class _Words:
    """The words of a statement; behind its end there are empty ones."""

    all: tuple[str, ...]
    dialect: str
    home: str

    @property
    def uppers(self) -> list[str]:
        return [word.upper() for word in self.all]

    def upper(self, at: int) -> str:
        return self.all[at].upper() if 0 <= at < len(self.all) else ""

    def behind(self, at: int, passed: set[str]) -> int:
        """The place of the first word from there on that is none of these."""
        while self.upper(at) in passed:
            at += 1
        return at

    def find(self, at: int, *wanted: str) -> int:
        """Where one of these words stands from there on, outside of parentheses; the end of the clause, if nowhere."""
        depth = 0
        while at < len(self.all):
            word = self.upper(at)
            depth += (word == "(") - (word == ")")
            if depth < 0 or word == ";" or (depth == 0 and word in wanted):
                break
            at += 1
        return at

    def has(self, at: int, *wanted: str) -> bool:
        return self.upper(self.find(at, *wanted)) in wanted

    def name(self, at: int) -> tuple[str, int]:
        """The name at a place, and the place behind it."""
        parts = [self._written(at)]
        while self.upper(at + 1) == ".":
            at += 2
            parts.append(self._written(at))
        if len(parts) > 1 and parts[0].lower() == self.home.lower():
            del parts[0]
        return ".".join(parts), at + 1

    def column(self, at: int) -> str:
        """The name of a column at a place; what stands before it says of which table."""
        while self.upper(at + 1) == ".":
            at += 2
        return self._plain(at)

    def _written(self, at: int) -> str:
        """PostgreSQL's names keep the quotes that they need."""
        name = self._plain(at)
        needs = self.dialect == "postgresql" and self.all[at : at + 1] and not re.fullmatch(r"[a-z_][a-z0-9_]*", name)
        return '"' + name.replace('"', '""') + '"' if needs and name[:1].isidentifier() else name

    def _plain(self, at: int) -> str:
        word = self.all[at] if at < len(self.all) else ""
        if word[:1] in ('"', "`"):
            return word[1:-1].replace(word[0] * 2, word[0])
        # PostgreSQL's names without quotes are in lower case (https://www.postgresql.org/docs/current/sql-syntax-lexical.html).
        return word.lower() if self.dialect == "postgresql" else word


# Definitions.


def _kind(words: _Words) -> tuple[str, int]:
    """What kind of object a definition is about, and the place of its name."""
    at = words.behind(1, _MODIFIERS)
    if words.upper(at) in ("DEFINER", "ALGORITHM", "SQL"):  # MySQL's, each with a value
        at = next((place for place in range(at, len(words.all)) if words.upper(place) in _DROPS), at)
    if words.upper(at) == "AGGREGATE" and words.upper(at + 1) == "FUNCTION":
        at += 1
    kind = words.upper(at)
    return (kind if kind in _DROPS else ""), words.behind(at + 1, _MODIFIERS)


def _of_create(words: _Words) -> Effects:
    kind, at = _kind(words)
    if not kind:
        return Effects()
    name = words.name(at)[0]
    replaced = kind == "TABLE" and words.uppers[1:3] == ["OR", "REPLACE"]
    destroyed = (Effect("drop table", name),) if replaced else ()
    read = frozenset(_read(words)) if kind == "TABLE" else frozenset[str]()
    return Effects(destroyed, frozenset([name] if replaced else []), frozenset({name}), "", read)


def _of_drop(words: _Words) -> Effects:
    kind, at = _kind(words)
    if not kind:
        return Effects((Effect("unknown"),))
    if "TEMPORARY" in words.uppers[:at]:
        return Effects()
    names = _names(words, at)
    destroyed = tuple(Effect(_DROPS[kind], name) for name in names)
    written = frozenset(names if kind == "TABLE" else [])
    return Effects(destroyed, written, target=names[0] if names else "")


def _of_alter(words: _Words) -> Effects:
    kind, at = _kind(words)
    if kind != "TABLE":
        return Effects()
    table, at = words.name(at)
    destroyed = [
        effect for start in _list_places(words, at, frozenset()) for effect in _of_alteration(words, start, table)
    ]
    return Effects(tuple(dict.fromkeys(destroyed)), frozenset({table}), target=table)


def _of_alteration(words: _Words, at: int, table: str) -> Iterator[Effect]:
    verb, what = words.upper(at), words.upper(at + 1)
    column = words.column(words.behind(at + 1, _MODIFIERS))
    match verb:
        case "DROP" if what in ("INDEX", "KEY"):
            yield Effect("drop index", words.name(words.behind(at + 2, _MODIFIERS))[0])
        case "DROP" if what in ("PRIMARY", "FOREIGN", "CHECK", "CONSTRAINT"):
            return
        case "DROP" | "TRUNCATE" if what == "PARTITION":
            yield Effect("delete", table)
        case "DROP":
            yield Effect("drop column", table, column)
        case "ALTER" if "TYPE" in words.uppers[at + 2 : at + 6]:
            yield Effect("update", table, column, everywhere=True)
        case "MODIFY" | "CHANGE":
            yield Effect("update", table, column, everywhere=True)
        case "CONVERT" | "EXCHANGE" | "DISCARD" | "IMPORT":
            yield Effect("unknown")


# Changes of rows.


def _change_places(words: _Words) -> Iterator[int]:
    """Where a change begins: at the start, in parentheses (as a common table expression), or behind those."""
    for at, word in enumerate(words.uppers):
        if word in _CHANGES and words.upper(at + 1) != "(" and words.upper(at - 1) in ("", "(", ")", "ANALYZE"):
            yield at


def _change(words: _Words, at: int) -> Effects:
    match words.upper(at):
        case "UPDATE":
            return _of_update(words, at)
        case "DELETE":
            return _of_delete(words, at)
    verb = words.upper(at)
    table, behind = words.name(words.behind(at + 1, _MODIFIERS))
    destroyed = [Effect("replace", table)] if verb == "REPLACE" else []
    end = words.find(behind)
    for place in range(behind, end):
        before = words.upper(place - 1)
        if words.upper(place) == "UPDATE" and before in ("DO", "KEY", "THEN"):
            start = words.behind(place + 1, {"SET"})
            destroyed += [Effect("update", table, column) for _, column in _assigned(words, start)]
        elif words.upper(place) == "DELETE" and before == "THEN":
            destroyed.append(Effect("delete", table))
    return Effects(tuple(destroyed), frozenset({table}), target=table)


def _of_update(words: _Words, at: int) -> Effects:
    start = words.find(at, "SET")
    known = _aliases(words, words.behind(at + 1, _MODIFIERS), start)
    first = next(iter(known.values()), "")
    everywhere = not words.has(start, "WHERE", "LIMIT")
    destroyed = [
        Effect("update", known.get(qualifier, first), column, everywhere=everywhere)
        for qualifier, column in _assigned(words, start + 1)
    ]
    return Effects(tuple(destroyed), frozenset(effect.name for effect in destroyed), target=first)


def _of_delete(words: _Words, at: int) -> Effects:
    start = words.find(at, "FROM", "USING")
    if words.upper(start) == "FROM" and start > words.behind(at + 1, _MODIFIERS - {"FROM"}):
        # MySQL's DELETE a, b FROM a JOIN b …
        known = _aliases(words, start + 1, words.find(start, "WHERE"))
        named = _names(words, words.behind(at + 1, _MODIFIERS - {"FROM"}))
        tables = [known.get(name.removesuffix(".*"), name) for name in named]
    else:
        tables = _names(words, words.behind(at + 1, _MODIFIERS))
    everywhere = not words.has(at, "WHERE", "LIMIT")
    gone = tuple(Effect("delete", name, everywhere=everywhere) for name in tables)
    return Effects(gone, frozenset(tables), target=tables[0] if tables else "")


def _assigned(words: _Words, at: int) -> Iterator[tuple[str, str]]:
    """The columns on the left sides of assignments, each with what qualifies it."""
    for start in _list_places(words, at):
        if words.upper(start) == "(":
            for each in _list_places(words, start + 1):
                yield "", words.column(each)
        else:
            yield words.name(start)[0].rpartition(".")[0], words.column(start)


def _list_places(words: _Words, at: int, ends: frozenset[str] = _CLAUSES) -> Iterator[int]:
    """Where the parts of a list begin that commas separate."""
    while words.upper(at) not in ("", ";", ")", *ends):
        yield at
        at = words.find(at, ",", *ends)
        if words.upper(at) != ",":
            return
        at += 1


def _names(words: _Words, at: int) -> list[str]:
    return [words.name(words.behind(place, {"ONLY"}))[0] for place in _list_places(words, at)]


def _aliases(words: _Words, at: int, end: int) -> dict[str, str]:
    """The tables between two places, by the names that they have in the statement."""
    found: dict[str, str] = {}
    is_table = True
    while at < end:
        if is_table and words.upper(at) not in ("(", "AS"):
            table, at = words.name(words.behind(at, _MODIFIERS))
            alias = words.behind(at, {"AS"})
            is_alias = alias < end and words.upper(alias) not in (*_BEHIND_TABLE, ",", "(", ")", "*")
            found[words.name(alias)[0] if is_alias else table] = table
            is_table = False
            continue
        is_table = words.upper(at) in (",", "JOIN")
        at += 1
    return found


def _read(words: _Words) -> Iterator[str]:
    """The tables that stand behind FROM and JOIN. Behind the FROM of a DELETE stands what it deletes from."""
    for at, word in enumerate(words.uppers):
        if word in ("FROM", "JOIN") and words.upper(at - 1) != "DELETE" and words.upper(at + 1) != "(":
            end = words.find(at + 1, "WHERE", "SET", "ON", "GROUP", "ORDER", "LIMIT", "UNION", "JOIN")
            yield from _aliases(words, at + 1, end).values()
