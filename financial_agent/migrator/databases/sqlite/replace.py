"""Puts another content into a SQLite database, or another file into its place."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from financial_agent.migrator.databases import OutOfSpace
from financial_agent.migrator.databases.sqlite.connection import SqliteDatabase
from financial_agent.migrator.databases.sqlite.copy import Copyable, Progress
from financial_agent.migrator.errors import NoSpace


class Sole(Copyable):
    """The only connection to a database: until it is closed, nobody else reads or writes."""

    def _open(self, mode: str) -> sqlite3.Connection:
        # Each try is a connection of its own: one that waits for the others to go would keep new ones out meanwhile.
        return self._wait(self._try, "for other processes to let go of the database")

    def _try(self) -> sqlite3.Connection:
        connection = super()._open("mode=rw")  # never makes a file
        try:
            # The lock of a transaction outlives it. In WAL mode it cannot be had beside another connection, even an
            # idle one (https://sqlite.org/pragma.html#pragma_locking_mode).
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def replace_by(self, other: str, keep: Callable[[], None], progress: Progress, note: str) -> None:
        """Take over the content of another database, which is not in WAL mode, in one transaction; the journal mode
        stays. Raises NoSpace, StatementError, Stopped."""
        keep()
        with closing(Copyable(Path(other), patience=self._patience)) as source:
            # Pages of another size cannot go into a -wal (https://sqlite.org/c3ref/backup_finish.html).
            must_leave_wal = self.is_wal() and self.page_size() != source.page_size()
            if must_leave_wal:
                self.query("PRAGMA journal_mode = DELETE")
            try:
                source.copy_into(self._connection, progress)
            except OutOfSpace as error:
                free = shutil.disk_usage(self.path.parent).free
                raise NoSpace(folder=self.path.parent, needed=source.path.stat().st_size, free=free) from error
            finally:
                if must_leave_wal:
                    self.query("PRAGMA journal_mode = WAL")


class Unopened(SqliteDatabase):
    """What may be damaged, or missing: it can only be locked."""

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(":memory:")


def put_in_place(database: Path, other: Path, kept: Path) -> None:
    """Put a file on the same disk into a database's place. What is there, if anything, is kept under another name.

    A journal that lay beside the new file would be played back into it, so it goes first, with what it belongs to
    (https://sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use). Raises OSError.
    """
    if database.exists():
        try:
            os.link(database, kept)
        except OSError:  # on another disk, or one that knows no links
            shutil.copy2(database, kept)
    for suffix in ("-wal", "-journal"):
        if (beside := database.with_name(database.name + suffix)).exists():
            shutil.move(beside, kept.with_name(kept.name + suffix))
    database.with_name(f"{database.name}-shm").unlink(missing_ok=True)
    other.replace(database)
