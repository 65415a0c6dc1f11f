"""Copies of a database to work on, in a private folder."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from financial_agent.migrator.databases import OutOfSpace, Patience
from financial_agent.migrator.databases.private_folder import private_folder
from financial_agent.migrator.databases.sqlite.connection import SqliteDatabase
from financial_agent.migrator.databases.sqlite.copy import Progress, copy, explained
from financial_agent.migrator.databases.sqlite.paths import exists
from financial_agent.migrator.errors import NoSpace

_CHUNK = 1 << 30  # bytes


class Workspace:
    """Copies of one database. Nobody else knows of them, so that each can be copied again as a file."""

    def __init__(self, database: Path | None, folder: Path, patience: Patience) -> None:
        self._database = database
        self._folder = folder
        self._patience = patience
        self._count = 0

    @property
    def space_hint(self) -> str:
        return f"df -h {shlex.quote(str(self._folder.parent))}"

    def original(self, progress: Progress) -> str:
        """A consistent copy of the database as it is now, or an empty one when there is none."""
        target = self._new_path()
        if self._database and exists(self._database):
            try:
                copy(self._database, target, 0o600, self._patience, progress)
            except NoSpace as error:  # the copy's own folder is gone when that is read
                raise NoSpace(**{**error.fields, "folder": self._folder.parent}) from error
        else:
            SqliteDatabase(target, patience=self._patience).close()
        return str(target)

    def clone(self, database: str) -> str:
        """A copy of a copy that no connection is open to; shares its blocks where the file system can."""
        source, target = Path(database), self._new_path()
        with explained(self._folder, source.stat().st_size):
            try:
                _clone(source, target)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
        return str(target)

    def remove(self, database: str) -> None:
        """Give a copy's space back."""
        shutil.rmtree(Path(database).parent, ignore_errors=True)

    def size(self, database: str) -> int:
        return Path(database).stat().st_size

    def _new_path(self) -> Path:
        """A name in a folder of its own, so that messages have the database's own name."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return folder / (self._database.name if self._database else "scratch.db")


@contextmanager
def workspace(database: Path | None, patience: Patience) -> Iterator[Workspace]:
    """See `databases.workspace`."""
    parent = database.resolve().parent if database else Path(tempfile.gettempdir())
    if not os.access(parent, os.R_OK | os.W_OK | os.X_OK):
        parent = Path(tempfile.gettempdir())
    with ExitStack() as stack:
        with explained(parent, 0):
            folder = stack.enter_context(private_folder(parent))
        yield Workspace(database, folder, patience)


def _clone(source: Path, target: Path) -> None:
    size = source.stat().st_size
    with open(source, "rb", buffering=0) as original, open(target, "xb", buffering=0) as clone:
        try:
            while os.copy_file_range(original.fileno(), clone.fileno(), _CHUNK):
                pass
        except (AttributeError, OSError):  # not on this system, or not on this file system
            if shutil.disk_usage(target.parent).free < size:
                raise OutOfSpace("disk full") from None
            original.seek(0)
            clone.truncate(0)
            clone.seek(0)
            shutil.copyfileobj(original, clone)
