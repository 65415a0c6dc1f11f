"""Opens the database, for a question or for a run, and turns what goes wrong around a run into the engine's errors."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from financial_agent.migrator import attempt, ledger, progress
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Busy,
    Database,
    StatementError,
    Stopped,
    connect,
    dialect_of,
    display_name,
    exists,
)
from financial_agent.migrator.discovery import discover, listing
from financial_agent.migrator.environment import Environment, refuse_another
from financial_agent.migrator.errors import DatabaseUnusable, LockHeld
from financial_agent.migrator.errors_files import VersionDuplicated
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.ledger import Entry, Progress
from financial_agent.migrator.script import MigrationFile

ASKING = Control(wait=5.0)


class Records(NamedTuple):
    """What a database tells of its migrations."""

    entries: list[Entry]
    begun: list[Progress]
    """What was begun and is not done."""
    stamp: str | None
    """The environment that the database belongs to."""


def look(
    database: str, directory: Path, control: Control, environment: Environment | None = None
) -> tuple[list[MigrationFile], Records]:
    """The folder's files, and the database's records. Writes nothing. Raises the FA1xx and FA2xx errors and, where an
    environment is given, EnvironmentDiffers for a database of another one."""
    try:
        files = discover(directory, dialect_of(database))
    except VersionDuplicated as error:
        _name_the_pending(error, directory, recorded(database, control).entries)
        raise
    return files, recorded(database, control, environment)


def _name_the_pending(error: VersionDuplicated, directory: Path, entries: Sequence[Entry]) -> None:
    """Where the ledger has one of two migrations with one number, it is the other that needs a new one."""
    applied = {entry.filename for entry in entries}
    same = [each for each in listing(directory) if each.version == error.fields["version"]]
    pending = {each.plain_name for each in same if each.filename not in applied}
    if len(pending) == 1 and any(each.filename in applied for each in same):
        error.hint = f"Give the one that is not applied the next free number: flask db renumber {shlex.quote(*pending)}"


def recorded(database: str, control: Control, environment: Environment | None = None) -> Records:
    """The database's records, in one look. Writes nothing. Raises the FA1xx errors and, where an environment is given,
    EnvironmentDiffers for a database of another one."""
    with _asked(database, control) as db:
        records = (
            Records(ledger.entries(db), progress.read(db), ledger.environment(db)) if db else Records([], [], None)
        )
    if environment:
        refuse_another(display_name(database), records.stamp, environment)
    return records


@contextmanager
def _asked(database: str, control: Control) -> Iterator[Database | None]:
    if not exists(database):
        yield None
        return
    with (
        explained(database, control),
        closing(connect(database, readonly=True, patience=control.patience())) as db,
    ):
        yield db


@contextmanager
def exclusive(database: str, control: Control, environment: Environment) -> Iterator[Database]:
    """A connection that is the only one to run migrations, for as long as the context lasts. What a run that was killed
    had begun is recorded first. Raises EnvironmentDiffers for a database of another environment."""
    with (
        explained(database, control),
        closing(connect(database, patience=control.patience())) as db,
        db.lock(),
    ):
        refuse_another(db.name, ledger.environment(db), environment)
        attempt.settle(db)
        yield db


@contextmanager
def explained(database: str, control: Control, what: str = "before anything was changed") -> Iterator[None]:
    """Failures outside a migration's own statements are the database's. `what` says when an interruption came."""
    try:
        yield
    except Stopped:
        raise Interrupted(signal=control.stop() or 2, what=what) from None
    except Busy as error:
        raise LockHeld(name=display_name(database), cause=error, then="then run the command again") from None
    except StatementError as error:
        fix = "Look for what is wrong with: flask db doctor"
        raise DatabaseUnusable(database=display_name(database), cause=error, fix=fix) from error
