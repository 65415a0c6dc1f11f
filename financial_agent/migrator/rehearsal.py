"""A dry run that is one: the steps run on a copy of the database, with the code of the real run, and what they did to
it is measured. The database itself is only read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from financial_agent.migrator import adoption, ledger, plan, progress, rollback, runner, schema, session
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    Workspace,
    compare,
    connect,
    display_name,
    is_file,
    rehearses_in_place,
    undone,
    workspace,
)
from financial_agent.migrator.effects import foresee
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_run import DiskFull, Interrupted
from financial_agent.migrator.events import Copying, Done, Event, Recovered, Warned
from financial_agent.migrator.execution import summary
from financial_agent.migrator.plan import Step
from financial_agent.migrator.rehearsal_in_place import InPlace, fits
from financial_agent.migrator.rehearsed import Notes, Place, Rehearsal, Rehearsed, WayBack, differences_that_count

_ON_COPY = "This was a rehearsal on a copy; the database was not touched"
_IN_PLACE = "This was a rehearsal in a transaction, which was rolled back; nothing of it remains"


def migrate(
    database: str,
    directory: Path,
    *,
    target: str | None = None,
    out_of_order: bool = False,
    with_data: bool = False,
    environment: Environment | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> Rehearsal:
    """Rehearse what `runner.migrate` would do: on a copy, which of a server's database has rows only `with_data`; or,
    without, where that is possible, in a transaction that is rolled back.

    Raises what that would raise before it runs the first migration."""
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

    return _rehearse(database, planned, with_data, backups, control)


def roll_back(
    database: str,
    directory: Path,
    *,
    steps: int = 1,
    to: str | None = None,
    with_data: bool = False,
    environment: Environment | None = None,
    backups: Policy | None = None,
    control: Control | None = None,
) -> Rehearsal:
    """Rehearse what `rollback.rollback` would do, where `migrate` does it. Raises what that would raise before it runs
    the first script."""
    control, environment = control or Control(), environment or Environment()
    files, records = session.look(database, directory, control, environment)
    entries = records.entries
    if not plan.to_roll_back(entries, steps=steps, to=to, files=files):
        return Rehearsal(display_name(database))
    return _rehearse(
        database, lambda db: rollback.plan_down(db, files, steps, to, control), with_data, backups, control
    )


def _rehearse(
    database: str,
    planned: Callable[[Database], list[Step]],
    with_data: bool,
    backups: Policy | None,
    control: Control,
) -> Rehearsal:
    with session.explained(database, control, "during the rehearsal"):
        if rehearses_in_place(database) and not with_data:
            found = _rehearse_in_place(database, planned, backups, control)
            if found:
                return found
        return _rehearse_on_copy(database, planned, with_data, backups, control)


def _rehearse_in_place(
    database: str, planned: Callable[[Database], list[Step]], backups: Policy | None, control: Control
) -> Rehearsal | None:
    """None when the steps are not such that a transaction undoes them all."""
    with undone(database, control.patience()) as db, db.lock():
        steps = planned(db)
        if not all(map(fits, steps)):
            return None
        destroyed = foresee(database, progress.not_begun(db, steps), control.patience())
        is_backup_due = backups is not None and runner.is_backup_due(db, steps, destroyed, backups)
        rehearsal = Rehearsal(
            display_name(database), "a transaction", is_destructive=bool(destroyed), is_backup_due=is_backup_due
        )
        stage = InPlace(db, replace(control, report=_without_results(control.report)))
        rehearsed: list[Rehearsed] = []
        try:
            for step in steps:
                rehearsed.append(stage.perform(step))
        except MigratorError as error:
            error.state = _IN_PLACE
            return replace(rehearsal, steps=rehearsed, failure=error)
        return replace(rehearsal, steps=rehearsed)


def _rehearse_on_copy(
    database: str,
    planned: Callable[[Database], list[Step]],
    with_data: bool,
    backups: Policy | None,
    control: Control,
) -> Rehearsal:
    patience = control.patience()
    with_rows = with_data or is_file(database)
    with workspace(database, patience, rows=with_rows) as copies:
        clock = time.perf_counter()
        before = copies.original(lambda done, total: control.report(Copying("copying", done, total)))
        copy_ms = round((time.perf_counter() - clock) * 1000)
        size = copies.size(before)
        with closing(connect(before, patience=patience)) as db:
            steps = planned(db)
            destroyed = foresee(before, progress.not_begun(db, steps), patience)
            is_backup_due = backups is not None and runner.is_backup_due(db, steps, destroyed, backups)
        where: Place = "a copy" if with_rows else "a copy without rows"
        rehearsal = Rehearsal(display_name(database), where, size, copy_ms, bool(destroyed), is_backup_due)
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
        error.state = _ON_COPY
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


def _as_warnings(report: Callable[[Event], None]) -> Callable[[Event], None]:
    """Nothing was recorded but on the copy."""
    message = "the ledger is lost; as its schema is there, it will be recorded, and not run"
    return lambda event: report(Warned(event.filename, message) if isinstance(event, Recovered) else event)


def _without_results(report: Callable[[Event], None]) -> Callable[[Event], None]:
    """Nothing was applied: only what goes on is reported."""
    return lambda event: None if isinstance(event, Done) else report(event)
