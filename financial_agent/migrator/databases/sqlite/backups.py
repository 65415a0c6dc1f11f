"""Backups of a SQLite database, which are SQLite databases themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from financial_agent.migrator.databases import Patience, StatementError
from financial_agent.migrator.databases.private_folder import private_folder
from financial_agent.migrator.databases.sqlite.connection import SqliteDatabase
from financial_agent.migrator.databases.sqlite.copy import copy
from financial_agent.migrator.errors import BackupUnusable, DatabaseFolderMissing, DatabaseUnusable, NoSpace

_FIX = "Choose another one: flask db backups"


def find_flaw(backup: Path, patience: Patience) -> str | None:
    """See `databases.find_flaw`."""
    with closing(SqliteDatabase(backup, readonly=True, patience=patience)) as db:
        db.query("PRAGMA ignore_check_constraints = ON")  # rows that break a rule are no damage
        found = db.problems(quick=True)
    return f"the check of its pages says: {found[0]}" if found else None


@contextmanager
def loaded(place: Path, backup: Path, patience: Patience, progress: Callable[[int, int], None]) -> Iterator[str]:
    """See `databases.loaded`. The copy lies beside the database, so that it can be put into its place."""
    if not place.parent.is_dir():
        raise DatabaseFolderMissing(database=place, folder=place.parent)
    with private_folder(place.parent) as folder:
        draft = folder / place.name
        try:
            copy(backup, draft, 0o777, patience, progress)
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
