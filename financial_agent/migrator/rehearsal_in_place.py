"""A rehearsal on the database itself, in one transaction that is rolled back: with its rows, with the locks of the real
run, and for as long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from financial_agent.migrator import schema
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import SchemaObject, TableChange, UndoneDatabase
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.events import Started
from financial_agent.migrator.execution import Execution
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Step
from financial_agent.migrator.rehearsed import Notes, Rehearsed, WayBack, differences_that_count
from financial_agent.migrator.schema import Schema
from financial_agent.migrator.script import Script


def fits(step: Step) -> bool:
    """Whether a transaction undoes all of a step, and of the way back."""
    return all(script.transaction and not script.in_batches for script in _scripts(step))


def _scripts(step: Step) -> Iterator[Script]:
    yield step.script
    if step.migration and step.migration.down:
        yield step.migration.down


class InPlace:
    """Where steps are performed, one behind the other."""

    def __init__(self, db: UndoneDatabase, control: Control) -> None:
        self._db = db
        # Not again and again with the locks of the steps before.
        self._control = replace(control, wait=0, pauses=False)

    def perform(self, step: Step) -> Rehearsed:
        """Run a step, and its down section behind it, which is undone. Raises the errors of the step."""
        db = self._db
        old, before = schema.read(db), db.tally()
        remembered = self._remember(step, old)
        notes, losses = Notes(step), _Losses(db)
        watch = notes.of(db)

        def observe(statement: Statement) -> None:
            watch(statement)
            losses.note(statement)

        self._control.report(Started(step.filename, step.script.direction, step.script.count))
        done = Execution(db, step, self._control, None, observe).run()
        db.reset(settings=step.script.leaves_settings)
        new = schema.read(db)
        return Rehearsed(
            step=step,
            done=done,
            destroyed=tuple(notes.destroyed.items()),
            rows=tuple(losses.with_changes(before, db.tally())),
            schema=tuple(schema.differences(old, new)),
            orphans="",
            problems=tuple(db.problems(quick=True)[:5]),
            way_back=self._return(step, old, remembered),
        )

    def _remember(self, step: Step, old: Schema) -> dict[str, Callable[[], TableChange] | None]:
        """What tells how the rows of the tables that a migration writes to differ from what they are now."""
        if not (step.migration and step.migration.down):
            return {}
        statements = (each for script in _scripts(step) for each in script.statements())
        written = {name for each in statements for name in self._db.effects(each.text).written}
        return {table.name: self._db.remember(table) for table in _tables(old) if table.name in written}

    def _return(
        self, step: Step, old: Schema, remembered: dict[str, Callable[[], TableChange] | None]
    ) -> WayBack | None:
        if not (step.migration and step.migration.down):
            return None
        back = Step(step.filename, step.migration.down)
        with self._db.part():
            try:
                Execution(self._db, back, self._control, None, Notes(back).of(self._db)).run()
            except Interrupted:
                raise
            except MigratorError as error:
                return WayBack(f"{error.code} {error.message}")
            now = schema.read(self._db)
            columns = {table.name: {column.name for column in table.columns} for table in _tables(now)}
            # Of the others the schema tells that they are not what they were.
            same = [t.name for t in _tables(old) if columns.get(t.name) == {column.name for column in t.columns}]
            changes = [tell() for name in same if (tell := remembered.get(name))]
        return WayBack(
            None,
            tuple(differences_that_count(old, now)),
            tuple(change for change in changes if change != TableChange(change.table)),
            tuple(name for name in same if name in remembered and remembered[name] is None),
        )


def _tables(state: Schema) -> Sequence[SchemaObject]:
    return [each for each in state.objects if each.type == "table"]


class _Losses:
    """The rows, and the values, that go with their table or column: the database does not count them as deleted."""

    def __init__(self, db: UndoneDatabase) -> None:
        self._db = db
        self._rows = Counter[str]()
        self._values: dict[str, Counter[str]] = {}

    def note(self, statement: Statement) -> None:
        """To be called just before a statement."""
        if statement.keyword not in ("DROP", "TRUNCATE", "ALTER"):
            return
        for effect in self._db.effects(statement.text).destroyed:
            columns = self._db.columns(effect.name) if effect.name else []
            if effect.kind == "drop column" and effect.column in columns:
                lost = self._db.counts(effect.name, [effect.column])[1]
                self._values.setdefault(effect.name, Counter())[effect.column] += lost
            elif columns and (effect.kind == "drop table" or statement.keyword == "TRUNCATE"):
                self._rows[effect.name] += self._db.counts(effect.name, [])[0]

    def with_changes(
        self, before: dict[str, tuple[int, int, int]], after: dict[str, tuple[int, int, int]]
    ) -> Iterator[TableChange]:
        for table in sorted({*after, *self._rows, *self._values}):
            was, now = before.get(table, (0, 0, 0)), after.get(table, (0, 0, 0))
            inserted, updated, deleted = (max(0, new - old) for old, new in zip(was, now, strict=True))
            values = tuple(each for each in self._values.get(table, Counter()).items() if each[1])
            change = TableChange(table, inserted, updated, deleted + self._rows[table], values)
            if change != TableChange(table):
                yield change
