"""Recovers a ledger that was lost: finds the migrations that make the schema which is there, and records them.

To run them again would be to run destructive SQL on what it was not written for.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from financial_agent.migrator import history, ledger, progress, replay, schema
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, Patience
from financial_agent.migrator.errors import RecoveryRefused
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.events import Recovered
from financial_agent.migrator.plan import Step, version_of
from financial_agent.migrator.repair import record
from financial_agent.migrator.replay import CannotReplay
from financial_agent.migrator.schema import Difference, Schema
from financial_agent.migrator.script import Migration, MigrationFile, read
from financial_agent.migrator.survey import survey

log = logging.getLogger("financial_agent.migrator")

_NOTE = "the ledger was lost; the schema is the one that this migration leaves"
_IF_NONE = "If none of the migrations has run on it: flask db baseline 0"
_LEGEND = "+ only the database has it, - only the migrations make it"


@dataclass(frozen=True)
class Compared:
    """How a schema differs from the one that a new database has after all migrations up to this one."""

    migration: Migration
    differences: list[Difference]

    @property
    def filename(self) -> str:
        return self.migration.file.filename


def is_lost(db: Database) -> bool:
    """Whether tables are there, and neither an entry nor an explanation why there is none. Writes nothing."""
    if ledger.entries(db) or progress.read(db) or not db.tables():
        return False
    return not history.explains_emptiness(ledger.history(db))


def recover(
    database: str,
    db: Database,
    files: Sequence[MigrationFile],
    environment: str | None,
    control: Control,
    git_commit: str | None,
) -> None:
    """Record the migrations whose schema a database has that has lost its ledger; to be called by who holds the lock.

    All or none are recorded. Raises RecoveryRefused when it is not certain which they are.
    """
    if not is_lost(db):
        return
    found = schema.read(db)
    # Before the transaction, as that would keep others from writing.
    candidates = survey(files, (), environment)
    compared, obstacle = _compare(database, found, candidates.to_run(candidates.pending), control.patience())
    rows = ledger.history(db)
    adopted = choose(db.name, compared, obstacle, told=history.applied(rows), unfinished=history.unfinished(rows))
    with db.transaction():
        if schema.read(db) != found:
            raise RecoveryRefused(
                database=db.name, why="its schema was changed meanwhile", differences=[], fix="flask db migrate"
            )
        record(db, adopted, "recover", git_commit, _NOTE)
    for migration in adopted:
        log.info("recovered %s", migration.file.filename)
        control.report(Recovered(migration.file.filename))


def _compare(
    database: str, found: Schema, files: Sequence[MigrationFile], patience: Patience
) -> tuple[list[Compared], CannotReplay | None]:
    """The schema beside those after each migration, up to the first that cannot be replayed."""
    parsed: list[Migration] = []
    compared: list[Compared] = []
    try:
        for made in replay.replay(database, _steps(files, parsed), patience):
            compared.append(Compared(parsed[-1], schema.differences(made, found)))
    except CannotReplay as error:
        return compared, error
    return compared, None


def _steps(files: Sequence[MigrationFile], parsed: list[Migration]) -> Iterator[Step]:
    """The up side of each file; what was parsed for it is added to the list."""
    for file in files:
        try:
            migration = read(file)
        except FileRefused as error:
            raise CannotReplay(file.filename, str(error)) from error
        parsed.append(migration)
        yield Step(file.filename, migration.up, migration)


def choose(
    database: str,
    compared: Sequence[Compared],
    obstacle: CannotReplay | None,
    told: Collection[str],
    unfinished: str | None = None,
) -> list[Migration]:
    """The migrations to record: all up to the only one after which the schema is the same.

    Where it is the same after several, because they change only rows, it must be the one up to which the history has
    them as applied (`told`). What a killed process left `unfinished` may be there in part. Raises RecoveryRefused.
    """
    matches = [at for at, each in enumerate(compared) if not each.differences]
    certain = [at for at in matches if {each.filename for each in compared[: at + 1]} == told]
    choices = [compared[at].filename for at in certain or matches]
    if obstacle and not certain and compared and not compared[-1].differences:
        choices.append(obstacle.filename)  # it may have run, too
    if unfinished and choices:
        raise RecoveryRefused(
            database=database,
            why=f"a run of {unfinished} was killed on it, which may have done a part of it",
            differences=[],
            fix="\n".join([*map(_if_at, choices), _IF_NONE]),
        )
    if len(choices) == 1:
        return [each.migration for each in compared[: (certain or matches)[0] + 1]]
    why = f"; {obstacle}" if obstacle else ""
    if choices:
        why = f"its schema may be that after {' or that after '.join(choices)}{why}"
        raise RecoveryRefused(database=database, why=why, differences=[], fix="\n".join(map(_if_at, choices)))
    # Of two that are equally near, the later one: less would run again.
    nearest = min(reversed(compared), key=lambda each: len(each.differences), default=None)
    why = f"its schema is not the one after any of the migrations{why}"
    if nearest:
        why += f". That after {nearest.filename} is the nearest ({_LEGEND})"
    fix = [_if_at(nearest.filename)] if nearest else [_if_at(obstacle.filename)] if obstacle else []
    if not any(each.migration.file.version == 0 for each in compared):
        fix.append(_IF_NONE)
    differences = nearest.differences if nearest else []
    raise RecoveryRefused(database=database, why=why, differences=differences, fix="\n".join(fix))


def _if_at(filename: str) -> str:
    return f"If {filename} was the last that ran on it: flask db baseline {version_of(filename)}"
