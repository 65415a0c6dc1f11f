"""Which file a SQLite database is in, and whether it is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from financial_agent.migrator.databases import display_name
from financial_agent.migrator.errors import DatabaseUnsupported, DatabaseUnusable


def path_of(database: str) -> Path:
    """The file that a path or a `sqlite:///path` URL names. Raises DatabaseUnsupported."""
    path = database.removeprefix("sqlite:///")
    if re.match(r"[a-z][a-z0-9+.-]+:/", path, re.IGNORECASE):
        driver = re.match(r"(?:postgresql|postgres|mysql|mariadb)(\+\w+):", path, re.IGNORECASE)
        why = "its engine is none of sqlite, postgresql, mysql and mariadb"
        if driver:
            why = f"the driver is not named here: leave {driver[1]} out"
        elif database.startswith("sqlite:"):
            why = "a slash is missing"
        raise DatabaseUnsupported(database=display_name(database), why=why)
    if path in ("", ":memory:") or path.startswith("file:"):
        why = "every connection to it would be a new, empty one" if path != "" else "it is empty"
        raise DatabaseUnsupported(database=database, why=why if not path.startswith("file:") else "it is a URI")
    if "\0" in path:
        raise DatabaseUnsupported(database=database, why="it holds a NUL byte")
    return Path(path)


def exists(path: Path) -> bool:
    """Whether there is a file; a missing one is a new database. Raises DatabaseUnusable when that cannot be told."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        fix = f"ls -ld {shlex.quote(str(path.parent))}"
        raise DatabaseUnusable(database=path, cause=error.strerror, fix=fix) from error
    return True
