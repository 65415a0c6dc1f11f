"""A dry run that is one: the steps run on a copy of the database, with the code of the real run, and what they did to
it is measured. The database itself is only read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from financial_agent.migrator import adoption, ledger, plan, progress, rollback, runner, schema, session
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    Effect,
    TableChange,
    Workspace,
    compare,
    connect,
    display_name,
    workspace,
)
from financial_agent.migrator.effects import effects_of, foresee
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import MigratorError, RehearsalRefused
from financial_agent.migrator.errors_run import DiskFull, Interrupted
from financial_agent.migrator.events import Copying, Done, Event, Recovered, Warned
from financial_agent.migrator.execution import summary
from financial_agent.migrator.lexer import Statement, locate, tokens
from financial_agent.migrator.plan import Step
from financial_agent.migrator.schema import Difference

_STATE = "This was a rehearsal on a copy; the database was not touched"


@dataclass(frozen=True)
class WayBack:
    """What the down section made of the copy, compared with what was there before the migration."""

    failure: str | None
    schema: tuple[Difference, ...] = ()
    rows: tuple[TableChange, ...] = ()

    @property
    def is_complete(self) -> bool:
        return not (self.failure or self.schema or self.rows)


@dataclass(frozen=True)
class Rehearsed:
    """What one script did to the copy."""

    step: Step
    done: Done
    destroyed: tuple[tuple[Effect, int], ...]
    """Each with the line of its first statement."""
    rows: tuple[TableChange, ...]
    schema: tuple[Difference, ...]
    orphans: str
    """The rows that lost their parent, by table; empty when there is none."""
    problems: tuple[str, ...]
    """What SQLite's check of the file finds."""
    way_back: WayBack | None
    """None for a rollback, and for a migration that has no down section and can have none made."""


@dataclass(frozen=True)
class Rehearsal:
    """The rehearsal of a run, up to the step that failed. `size` is in bytes."""

    database: str
    size: int = 0
    copy_ms: int = 0
    is_destructive: bool = False
    is_backup_due: bool = False
    """The real run would make a backup first."""
    steps: list[Rehearsed] = field(default_factory=list)
    failure: MigratorError | None = None


def migrate(
    database: str,
    directory: Path,
    *,
    target: str | None = None,
    out_of_order: bool = False,
    environment: Environment | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> Rehearsal:
    """Rehearse what `runner.migrate` would do. Raises what that would raise before it runs the first migration."""
    control, environment = control or Control(), environment or Environment()
    files, records = session.look(database, directory, control, environment)
    entries = records.entries
    runner.warn_of_edited(files, entries, control)
    if not runner.plan_up(files, entries, target, out_of_order, environment.name):
        return Rehearsal(display_name(database))  # a copy would cost time and space for nothing

    def planned(db: Database) -> list[Step]:
        quiet = replace(control, report=_as_warnings(control.report))
        adoption.recover(database, db, files, environment.name, quiet, None)
        steps = runner.plan_up(files, ledger.entries(db), target, out_of_order, environment.name)
        runner.refuse_forgotten(db, steps)
        progress.refuse_unfinished(db, steps)
        return steps

    return _rehearse(database, planned, backups, control)


def roll_back(
    database: str,
    directory: Path,
    *,
    steps: int = 1,
    to: str | None = None,
    environment: Environment | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> Rehearsal:
    """Rehearse what `rollback.rollback` would do. Raises what that would raise before it runs the first script."""
    control, environment = control or Control(), environment or Environment()
    files, records = session.look(database, directory, control, environment)
    entries = records.entries
    if not plan.to_roll_back(entries, steps=steps, to=to, files=files):
        return Rehearsal(display_name(database))
    return _rehearse(database, lambda db: rollback.plan_down(db, files, steps, to, control), backups, control)


def _rehearse(
    database: str, planned: Callable[[Database], list[Step]], backups: Policy | None, control: Control
) -> Rehearsal:
    patience = control.patience()
    with session.explained(database, control, "during the rehearsal"), workspace(database, patience) as copies:
        clock = time.perf_counter()
        before = copies.original(lambda done, total: control.report(Copying("copying", done, total)))
        copy_ms = round((time.perf_counter() - clock) * 1000)
        size = copies.size(before)
        with closing(connect(before, patience=patience)) as db:
            steps = planned(db)
            destroyed = foresee(before, progress.not_begun(db, steps), patience)
            is_backup_due = backups is not None and runner.is_backup_due(db, steps, destroyed, backups)
        rehearsal = Rehearsal(display_name(database), size, copy_ms, bool(destroyed), is_backup_due)
        return _with_steps(rehearsal, _Stage(copies, control), before, steps)


def _with_steps(rehearsal: Rehearsal, stage: _Stage, before: str, steps: Sequence[Step]) -> Rehearsal:
    rehearsed: list[Rehearsed] = []
    try:
        for step in steps:
            result, after = stage.perform(step, before, is_last=step is steps[-1])
            rehearsed.append(result)
            before = after
    except MigratorError as error:
        if isinstance(error, DiskFull):  # the copy's own folder is gone when that is read
            error = DiskFull(location=error.location, **{**error.fields, "look": stage.space_hint})
        error.state = _STATE
        return replace(rehearsal, steps=rehearsed, failure=error)
    return replace(rehearsal, steps=rehearsed)


class _Stage:
    """Where steps are performed, each on a copy of its own."""

    def __init__(self, copies: Workspace, control: Control) -> None:
        self._copies = copies
        self._control = replace(control, report=_without_results(control.report), pauses=False)
        self._patience = control.patience()
        self.space_hint = copies.space_hint

    def perform(self, step: Step, before: str, *, is_last: bool) -> tuple[Rehearsed, str]:
        """Run a step on a copy of a copy, and its down section behind it. Returns what became of it, and a copy as
        the step left it, unless it is the last one."""
        work = self._copies.clone(before)
        notes = Notes(step)
        with closing(connect(work, patience=self._patience)) as db:
            old, had = schema.read(db), db.orphans()
            (done,) = runner.execute(db, [step], self._control, None, notes.of(db))
            new, orphans = schema.read(db), db.orphans() - had
            problems = tuple(db.problems(quick=True)[:5])
        destroyed = tuple(notes.destroyed.items())
        rows = compare(before, work, notes.written, self._patience)
        after = "" if is_last else self._copies.clone(work)
        way_back = self._return(step, before, work, old, notes)
        self._copies.remove(before)
        self._copies.remove(work)
        return Rehearsed(
            step=step,
            done=done,
            destroyed=destroyed,
            rows=tuple(rows),
            schema=tuple(schema.differences(old, new)),
            orphans=summary(orphans),
            problems=problems,
            way_back=way_back,
        ), after

    def _return(self, step: Step, before: str, work: str, old: schema.Schema, notes: Notes) -> WayBack | None:
        """Undo a migration on its copy, and see whether that is as it was before."""
        with closing(connect(work, patience=self._patience)) as db:
            script = step.migration and (step.migration.down or rollback.made_down(db, step.filename))
            if not script:
                return None
            back = Step(step.filename, script)
            try:
                runner.execute(db, [back], self._control, None, notes.of(db))
            except Interrupted:
                raise
            except MigratorError as error:
                return WayBack(f"{error.code} {error.message}")
            now = schema.read(db)
        rows = compare(before, work, notes.written, self._patience)
        return WayBack(None, tuple(differences_that_count(old, now)), tuple(rows))


def differences_that_count(before: schema.Schema, after: schema.Schema) -> list[Difference]:
    """Without those that renaming something and renaming it back leaves: SQLite puts its name in quotes."""

    def plain(state: schema.Schema) -> dict[tuple[str, str], list[str]]:
        return {(each.type, each.name): [word.strip('"`[]') for word in tokens(each.sql)] for each in state.objects}

    old, new = plain(before), plain(after)
    return [
        each
        for each in schema.differences(before, after)
        if old.get((each.type, each.name)) != new.get((each.type, each.name))
    ]


class Notes:
    """What the statements of a step said that they would do."""

    def __init__(self, step: Step) -> None:
        self.destroyed: dict[Effect, int] = {}
        self.written: set[str] | None = set()
        """The tables that may have changed, in lower case; None for all."""
        self._step = step

    def of(self, db: Database) -> Callable[[Statement], None]:
        def note(statement: Statement) -> None:
            self._refuse_to_leave(db, statement)
            effects = effects_of(db, statement)
            for effect in effects.destroyed:
                self.destroyed.setdefault(effect, statement.line)
                if effect.kind in ("unknown", "rewrite"):
                    self.written = None
            if self.written is not None:
                self.written |= {name.lower() for name in effects.written | effects.created}

        return note

    def _refuse_to_leave(self, db: Database, statement: Statement) -> None:
        """Raise RehearsalRefused for what would act beyond the copy, perhaps on the very database."""
        script = self._step.script
        what = "ATTACH" if script.is_python and "attach" in script.allow else db.reach(statement.text)
        if what:
            location = locate(script.source.name, statement, 0)
            raise RehearsalRefused(location=location, name=self._step.filename, what=what)


def _as_warnings(report: Callable[[Event], None]) -> Callable[[Event], None]:
    """Nothing was recorded but on the copy."""
    message = "the ledger is lost; as its schema is there, it will be recorded, and not run"
    return lambda event: report(Warned(event.filename, message) if isinstance(event, Recovered) else event)


def _without_results(report: Callable[[Event], None]) -> Callable[[Event], None]:
    """Nothing was applied: only what goes on is reported."""
    return lambda event: None if isinstance(event, Done) else report(event)
