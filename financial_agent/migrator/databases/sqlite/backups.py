"""Backups of a SQLite database, which are SQLite databases themselves. What the seam asks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from financial_agent.migrator.databases import Patience, SoleDatabase, StatementError
from financial_agent.migrator.databases.private_folder import private_folder
from financial_agent.migrator.databases.sqlite import copy as copies
from financial_agent.migrator.databases.sqlite.connection import SqliteDatabase
from financial_agent.migrator.databases.sqlite.paths import path_of
from financial_agent.migrator.errors import BackupUnusable, DatabaseFolderMissing, DatabaseUnusable, NoSpace

Progress = Callable[[int, int], None]

_FIX = "Choose another one: flask db backups"


def backup_names(database: str) -> tuple[str, str]:
    return path_of(database).resolve().name.removesuffix(".db"), ".db"  # a usual suffix tells nothing


def copy(database: str, target: Path, patience: Patience, progress: Progress, *, mode: int) -> None:
    copies.copy(path_of(database), target, mode, patience, progress)


def need_programs(database: str) -> None:
    """It needs none."""


def find_flaw(backup: Path, patience: Patience) -> str | None:
    with closing(SqliteDatabase(backup, readonly=True, patience=patience)) as db:
        db.query("PRAGMA ignore_check_constraints = ON")  # rows that break a rule are no damage
        found = db.problems(quick=True)
    return f"the check of its pages says: {found[0]}" if found else None


@contextmanager
def loaded(database: str, backup: Path, patience: Patience, progress: Progress) -> Iterator[str]:
    """The copy lies beside the database, so that it can be put into its place."""
    place = path_of(database).resolve()
    if not place.parent.is_dir():
        raise DatabaseFolderMissing(database=place, folder=place.parent)
    with private_folder(place.parent) as folder:
        draft = folder / place.name
        try:
            copies.copy(backup, draft, 0o777, patience, progress)
            flaw = find_flaw(draft, patience)
        except NoSpace as error:  # the draft's own folder is gone when that is read
            raise NoSpace(**{**error.fields, "folder": place.parent}) from error
        except DatabaseUnusable as error:
            raise BackupUnusable(backup=backup, why=error.fields["cause"], fix=_FIX) from error
        except StatementError as error:
            raise BackupUnusable(backup=backup, why=error, fix=_FIX) from error
        if flaw:
            raise BackupUnusable(backup=backup, why=flaw, fix=_FIX)
        with closing(SqliteDatabase(draft, patience=patience)) as db:
            db.query("PRAGMA journal_mode = DELETE")  # what it replaces keeps its own
        yield str(draft)


def connect_alone(database: str, patience: Patience) -> SoleDatabase:
    from financial_agent.migrator.databases.sqlite.replace import Sole

    return Sole(path_of(database), patience=patience)
