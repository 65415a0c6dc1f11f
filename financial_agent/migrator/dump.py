"""The schema as a file, `schema.sql`, for people to read and for new databases to begin with.

Equal schemas make equal files, on every machine: objects stand by kind and name. It holds no rows, but says in the
ledger's own words which migrations it stands for, so that a database which is loaded from it is not migrated twice.
"""

from __future__ import annotations

import difflib
import os
from contextlib import closing, suppress
from pathlib import Path

from financial_agent.migrator import ledger, runner, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, connect, display_name, exists, workspace
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import DatabaseMissing, DumpRefused, SchemaFileUnusable
from financial_agent.migrator.plan import version_of
from financial_agent.migrator.rehearsed import Notes

_HEADER = "-- The schema of the database. Written by `flask db dump`: to change it, write a migration.\n"


def of_database(database: str, control: Control) -> str:
    """The schema of a database. Writes nothing. Raises DatabaseMissing."""
    if not exists(database):
        fix = "Make it with: flask db migrate\nOr dump what the migrations make: flask db dump --from-files"
        raise DatabaseMissing(database=display_name(database), fix=fix)
    with (
        session.explained(database, control, "while the database was being looked at"),
        closing(connect(database, readonly=True, patience=control.patience())) as db,
        db.snapshot(),
    ):
        return text(db)


def of_files(database: str, directory: Path, environment: Environment, control: Control) -> str:
    """The schema that a folder's migrations make on a new database of the same engine, whether or not what they assert
    of its rows holds. Raises what `runner.migrate` raises, RehearsalRefused for one that would change other files, and
    ScratchRefused."""
    quiet = Control(control.wait, control.stop, pauses=False, asserts=False)
    with workspace(database, quiet.patience(), empty=True) as copies:
        scratch = copies.original(lambda done, total: None)
        files, records = session.look(scratch, directory, quiet, environment)
        for step in runner.plan_up(files, records.entries, None, False, environment.name):
            with (
                session.explained(database, control, "while the migrations were being run"),
                closing(connect(scratch, patience=quiet.patience())) as db,
            ):
                runner.execute(db, [step], quiet, None, Notes(step).of(db))
        return of_database(scratch, quiet)


def text(db: Database) -> str:
    """The whole file."""
    script = db.script()
    names = sorted((entry.filename for entry in ledger.entries(db)), key=lambda name: (version_of(name), name))
    rows = ",\n".join(f"  ('{name.replace(chr(39), chr(39) * 2)}')" for name in names)
    applied = f"{ledger.first_creation(db)};\nINSERT INTO {db.ledger(ledger.MIGRATIONS)} (filename) VALUES\n{rows};\n"
    return "\n".join([_HEADER, *filter(None, [script]), *([applied] if names else [])])


def difference(path: Path, wanted: str) -> tuple[str, ...]:
    """What a file lacks (+) or has (-) beside the text, as a unified diff; nothing when it is equal.

    Raises SchemaFileUnusable when it cannot be read.
    """
    found = _read(path)
    if found == wanted:
        return ()
    lines = difflib.unified_diff(
        (found or "").split("\n"), wanted.split("\n"), str(path), "as it should be", lineterm=""
    )
    return tuple(lines)


def write(path: Path, wanted: str) -> bool:
    """Write the file anew, whole or not at all, and say whether it was another before.

    Raises DumpRefused for a file that no dump has written, and SchemaFileUnusable.
    """
    path = path.resolve()
    found = _read(path)
    if found == wanted:
        return False
    if found and not found.startswith(_HEADER):
        raise DumpRefused(path=path)
    try:
        _replace(path, wanted.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise SchemaFileUnusable(path=path, folder=path.parent, doing="written", cause=error.strerror) from error
    return True


def _read(path: Path) -> str | None:
    """None when there is no file."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SchemaFileUnusable(path=path, folder=path.parent, doing="read", cause=error.strerror) from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
