"""Why a file cannot be used as a database."""

from __future__ import annotations

import shlex
import sqlite3
from pathlib import Path

from financial_agent.migrator.databases import Stopped
from financial_agent.migrator.databases.sqlite import errors as codes
from financial_agent.migrator.errors import DatabaseDamaged, DatabaseReadOnly, DatabaseUnusable


def unusable(error: sqlite3.Error, database: Path) -> Exception:
    """What an error says that comes from the file, not from a statement."""
    file, folder = shlex.quote(str(database)), shlex.quote(str(database.parent))
    match codes.primary_code(error):
        case codes.INTERRUPT:
            return Stopped()
        case codes.NOTADB:
            fix = f"Look at it with: file {file}"
            return DatabaseDamaged(database=database, cause="it is not a SQLite database", fix=fix)
        case codes.CORRUPT:
            fix = f"Restore a backup, or try: sqlite3 {file} .recover"
            return DatabaseDamaged(database=database, cause=error, fix=fix)
        case codes.READONLY if codes.extended_code(error) == codes.READONLY_ROLLBACK:
            cause = "a killed process left a journal, and who may not write cannot roll it back"
            fix = "Run the command as a user who may write to the file and its folder"
        case codes.READONLY:
            return DatabaseReadOnly(database=database, folder=database.parent, cause=str(error))
        case _:
            cause, fix = str(error), f"ls -ld {file} {folder}; df -h {folder}"
    return DatabaseUnusable(database=database, cause=cause, fix=fix)
