"""Goes through all migrations in order on a scratch database, and keeps what the rules ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from financial_agent.migrator import directives, python_text, rebuild
from financial_agent.migrator.databases import (
    Column,
    Database,
    Patience,
    SchemaObject,
    StatementError,
    Stopped,
    scratch,
)
from financial_agent.migrator.effects import effects_of
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.lexer import Directive, Statement
from financial_agent.migrator.lint import sqlite_says
from financial_agent.migrator.lint.keys import Keys
from financial_agent.migrator.lint.rule import Broken, File, Folder, Moment, Objects
from financial_agent.migrator.lint.words import target_of, words_of
from financial_agent.migrator.plan import Step
from financial_agent.migrator.replay import is_defining
from financial_agent.migrator.script import Migration, Script

# A file may hold millions of INSERTs, which are alike: these many of a section are looked at.
_ENOUGH = 100


class Walk:
    """One pass over the migrations. What cannot be run on the scratch database is passed over: the proof tells that,
    and the rules say nothing of what they do not know."""

    def __init__(self, db: Database, patience: Patience) -> None:
        self._db = db
        self._patience = patience
        self._is_sqlite = not db.knows_effects_by_words
        self._objects = Objects()
        self._broken: dict[tuple[str, str], str] = {}
        self._keys = Keys()
        self._migrations: list[Migration] = []

    def enter(self, migration: Migration) -> File:
        """Run a migration, and the way back beside it. Raises FileChanged, and Stopped."""
        self._migrations.append(migration)
        before = self._objects
        up = tuple(self._perform(migration.up))
        if not self._is_sqlite:
            # Not every server could undo the way back, which is judged by its words alone.
            down = tuple(self._perform(migration.down, runs=False)) if migration.down else ()
            return File(migration, _head(migration), up, down, before, self._objects, ())
        file = File(migration, _head(migration), up, (), before, self._objects, self._newly_broken(up))
        self._keys.examine(self._db, file)
        if not migration.down:
            return file
        with self._undone(migration.down):
            return replace(file, down=tuple(self._perform(migration.down)))

    def folder(self, skipped: Collection[int]) -> Folder:
        """What can be said at the end."""
        return Folder(tuple(self._migrations), self._keys.all(), frozenset(skipped))

    def _perform(self, script: Script, *, runs: bool = True) -> Iterator[Moment]:
        if script.is_python:  # what it does shows only when it runs
            return
        self._db.enforce_foreign_keys(script.foreign_keys)
        inserts = 0
        for statement in script.statements():
            if self._patience.stop(""):
                raise Stopped
            if statement.keyword in ("INSERT", "REPLACE"):
                inserts += 1
                if inserts > _ENOUGH:
                    continue
            yield self._run(script, statement) if runs else self._moment(script, statement)
        self._db.reset(settings=script.leaves_settings)

    def _moment(self, script: Script, statement: Statement) -> Moment:
        words = words_of(statement.text, statement.dialect)
        effects = effects_of(self._db, statement)
        return Moment(script, statement, words, target_of(words), self._objects, self._objects, effects)

    def _run(self, script: Script, statement: Statement) -> Moment:
        moment = self._moment(script, statement)
        refusal = ""
        if self._is_sqlite:
            if moment.target.verb == "ALTER" and moment.target.name in moment.before.tables:
                refusal = sqlite_says.refusal(moment, self._patience)
            moment = replace(moment, double_quoted=sqlite_says.double_quoted(self._db, moment))
        if not is_defining(self._db, statement) or self._db.reach(statement.text):
            return moment
        try:
            rebuild.execute(self._db, Step(script.source.name, script), statement, "")
        except (StatementError, Stopped, MigratorError):  # or it takes long
            return moment
        self._objects = _read(self._db)
        return replace(moment, after=self._objects, refusal=refusal)

    def _newly_broken(self, up: Sequence[Moment]) -> tuple[Broken, ...]:
        """What cannot be used behind these statements, and could before."""
        guilty = [
            moment
            for moment in up
            if moment.target.verb in ("ALTER", "DROP") or moment.target.kind in ("VIEW", "TRIGGER")
        ]
        if not guilty:
            return ()
        known, self._broken = self._broken, sqlite_says.broken(self._db, self._objects)
        return tuple(
            Broken(type_, name, why, _maker(guilty, name) or guilty[-1])
            for (type_, name), why in self._broken.items()
            if (type_, name) not in known
        )

    @contextmanager
    def _undone(self, script: Script) -> Iterator[None]:
        """Whatever is done inside is undone behind."""
        objects = self._objects
        # A PRAGMA foreign_keys does nothing inside.
        self._db.enforce_foreign_keys(script.foreign_keys)
        self._db.execute("SAVEPOINT the_way_back")
        try:
            yield
        finally:
            with suppress(StatementError):  # the section has ended the transaction itself
                self._db.execute("ROLLBACK TO the_way_back")
                self._db.execute("RELEASE the_way_back")
            self._objects = objects


@contextmanager
def walking(beside: str, patience: Patience) -> Iterator[Walk]:
    with scratch(beside, patience, empty=True) as db:
        yield Walk(db, patience)


def _read(db: Database) -> Objects:
    found = Objects()
    places = {"table": found.tables, "view": found.views, "index": found.indexes, "trigger": found.triggers}
    for each in db.objects():
        if each.type in places:
            places[each.type][each.name.lower()] = _with_columns(db, each) if each.type == "view" else each
    return found


def _with_columns(db: Database, view: SchemaObject) -> SchemaObject:
    with suppress(StatementError):  # it names what is not there
        return view._replace(columns=tuple(Column(name, "", False, None, 0, False) for name in db.columns(view.name)))
    return view


def _maker(moments: Sequence[Moment], name: str) -> Moment | None:
    """The statement that made an object, if it is one of these."""
    made = (moment for moment in moments if moment.target.verb == "CREATE" and moment.target.name == name)
    return next(made, None)


def _head(migration: Migration) -> str:
    """The text above the first statement of the up section."""
    source = migration.up.source
    if migration.up.is_python:
        return python_text.explanation("".join(source.chunks()), source.name)
    items = directives.parse(source.chunks(), source.name, migration.up.dialect)
    first = next(item for item in items if isinstance(item, Statement))
    text, lines = "", first.line
    for chunk in source.chunks():
        text += chunk
        if text.count("\n") >= lines:
            break
    above = text.split("\n")[:lines]
    above[-1] = above[-1][: first.column - 1]
    return "\n".join(above)


def file_directives(migration: Migration) -> Iterator[Directive]:
    """Those above the first section and the first statement."""
    source = migration.up.source
    chunks = source.chunks()
    if migration.up.is_python:
        chunks = iter([python_text.directives_as_sql("".join(chunks), source.name)])
    for item in directives.parse(chunks, source.name, migration.up.dialect):
        if isinstance(item, Statement) or directives.section_of(item):
            return
        yield item
