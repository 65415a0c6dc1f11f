"""Follows the foreign keys through the migrations: which ones lack an index or a parent key, and since when."""

from __future__ import annotations

from dataclasses import dataclass

from financial_agent.migrator.databases import Database
from financial_agent.migrator.lint import sqlite_says
from financial_agent.migrator.lint.rule import File, Key, Moment, Objects, Place
from financial_agent.migrator.lint.sqlite_says import KeyName


@dataclass(frozen=True)
class _Lack:
    """Why a key is not as it should be, and the statement since which it is so."""

    why: str
    since: Place


class Keys:
    """The foreign keys of the schema, as the files so far make it."""

    def __init__(self) -> None:
        self._known: set[KeyName] = set()
        self._unindexed: dict[KeyName, _Lack] = {}
        self._mismatched: dict[KeyName, _Lack] = {}

    def examine(self, db: Database, file: File) -> None:
        """Look at the keys of, and to, the tables that a file has changed, or the indexes of which it has."""
        self._rename(file)
        changed = _changed(file.before, file.after)
        others = {name for name in self._known if name.table not in changed}
        current = others.union(*(sqlite_says.keys(db, file.after, table) for table in changed))
        for name in current:
            if name.table in changed or name.parent in changed:
                fitness = sqlite_says.fitness(db, file.after, name)
                unindexed = "" if fitness.is_indexed else "no index"
                _note(self._unindexed, name, unindexed, self._since(file, name, name.table))
                _note(self._mismatched, name, fitness.mismatch, self._since(file, name, name.parent))
        for lacks in (self._unindexed, self._mismatched):
            for gone in lacks.keys() - current:
                del lacks[gone]
        self._known = current

    def all(self) -> tuple[Key, ...]:
        return tuple(self._key(name) for name in sorted(self._known))

    def _key(self, name: KeyName) -> Key:
        unindexed, mismatched = self._unindexed.get(name), self._mismatched.get(name)
        return Key(
            *name,
            unindexed=unindexed.since if unindexed else None,
            mismatched=mismatched.since if mismatched else None,
            mismatch=mismatched.why if mismatched else "",
        )

    def _since(self, file: File, name: KeyName, table: str) -> Place:
        """The statement that made a key; of one that was there before, the last that changed this table."""
        is_new = name not in self._known
        guilty = [each for each in file.up if (name.table if is_new else table) in _changed(each.before, each.after)]
        return Place(file.migration, (guilty or file.up)[0 if is_new else -1].statement)

    def _rename(self, file: File) -> None:
        """Let keys keep what is known of them when their table, or its parent, has another name."""
        for moment in file.up:
            if new := _new_name(moment):
                names = {name: _renamed(name, moment.target.name, new) for name in self._known}
                self._known = set(names.values())
                self._unindexed = {names[name]: lack for name, lack in self._unindexed.items()}
                self._mismatched = {names[name]: lack for name, lack in self._mismatched.items()}


def _note(lacks: dict[KeyName, _Lack], name: KeyName, why: str, since: Place) -> None:
    if not why:
        lacks.pop(name, None)
    elif name not in lacks:
        lacks[name] = _Lack(why, since)


def _changed(before: Objects, after: Objects) -> set[str]:
    """The tables that were made, changed or dropped, or have other indexes."""
    if before is after:
        return set()
    return {table for table, _ in _definitions(before) ^ _definitions(after)}


def _definitions(objects: Objects) -> set[tuple[str, str]]:
    """The SQL of tables and indexes, each with the name of its table."""
    return {(each.table.lower(), each.sql) for each in (*objects.tables.values(), *objects.indexes.values())}


def _new_name(moment: Moment) -> str:
    """What a table is called behind a statement that renames it; empty for every other statement."""
    if moment.target.verb != "ALTER":
        return ""
    return next(iter(moment.after.tables.keys() - moment.before.tables.keys()), "")


def _renamed(name: KeyName, old: str, new: str) -> KeyName:
    table, columns, parent = name
    return KeyName(new if table == old else table, columns, new if parent == old else parent)
