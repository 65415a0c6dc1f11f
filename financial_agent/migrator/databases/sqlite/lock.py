"""The file that is locked for as long as a run lasts."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from financial_agent.migrator.databases.owner import give_to
from financial_agent.migrator.errors import DatabaseReadOnly


def create(path: Path, database: Path) -> None:
    """As SQLite does with its journal: whoever may write to the database may lock it, whoever came first."""
    owner = os.stat(database if database.exists() else path.parent)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, owner.st_mode & 0o666))
    except FileExistsError:
        return
    except OSError as error:
        cause = f"{error.strerror}: {path.name}"
        raise DatabaseReadOnly(database=database, folder=path.parent, cause=cause) from error
    give_to(owner, path)


def take(holder: sqlite3.Connection) -> None:
    """Take SQLite's exclusive lock on the file that a connection is open to."""
    # Nothing is written to an empty file, but SQLite would make a journal beside it all the same.
    holder.execute("PRAGMA journal_mode = MEMORY")
    holder.execute("BEGIN EXCLUSIVE")
