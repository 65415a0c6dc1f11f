"""A consistent copy of a SQLite database that other processes go on writing to."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from financial_agent.migrator.databases import OutOfSpace, Patience, Stopped
from financial_agent.migrator.databases.sqlite.connection import SqliteDatabase
from financial_agent.migrator.errors import DatabaseUnusable, NoSpace

Progress = Callable[[int, int], None]
Heard = Callable[[int], None]

_PROGRAM = Path(__file__).with_name("raw_copy.py")
_SMALL = 16 << 20  # bytes that SQLite copies sooner than a process starts
_STEP = 1024  # pages that SQLite copies between two questions whether to stop
_FULL = (errno.ENOSPC, errno.EDQUOT)


def copy(database: Path, target: Path, mode: int, patience: Patience, progress: Progress) -> None:
    """See `databases.copy`."""
    with closing(_Source(database, readonly=True, patience=patience)) as source:
        source.copy(target, mode, progress)


@contextmanager
def explained(target: Path, size: int) -> Iterator[None]:
    try:
        yield
    except (OutOfSpace, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _FULL:
            fix = f"ls -ld {shlex.quote(str(target.parent))}"
            raise DatabaseUnusable(database=target, cause=error.strerror, fix=fix) from error
        free = shutil.disk_usage(target.parent).free
        raise NoSpace(folder=target.parent, needed=size, free=free) from error


@contextmanager
def _new_file(path: Path, original: os.stat_result, mode: int) -> Iterator[None]:
    """A file that belongs to the original's owner, and is gone again after an error."""
    # Whoever makes it must be able to fill it.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, original.st_mode & mode | 0o600))
    try:
        if hasattr(os, "geteuid"):
            with suppress(OSError):  # root need not have the right in a container, nor be a member
                os.chown(path, original.st_uid if os.geteuid() == 0 else -1, original.st_gid)
        if path.stat().st_gid != original.st_gid:  # another group may not read it
            os.chmod(path, path.stat().st_mode & 0o707)
        yield
    except BaseException:
        path.unlink()
        raise


class Copyable(SqliteDatabase):
    """A database that can be copied, by SQLite."""

    def copy(self, target: Path, mode: int, progress: Progress) -> None:
        """Make a copy as a new file. Raises what `databases.copy` raises."""
        size = self._size()
        with explained(target, size):
            if shutil.disk_usage(target.parent).free < size:
                raise OutOfSpace("disk full")
            with _new_file(target, self.path.stat(), mode):
                self._fill(target, self._listener(progress, size))
        progress(size, size)

    def copy_into(self, other: sqlite3.Connection, progress: Progress) -> None:
        """Replace another database's content, in one transaction. Raises OutOfSpace, StatementError, Stopped."""
        size = self._size()
        heard = self._listener(progress, size)

        def follow(_status: int, left: int, pages: int) -> None:
            if left:  # else it is committed, and too late to stop
                heard(size * (pages - left) // pages)

        try:
            self._connection.backup(other, pages=_STEP, progress=follow)
        except sqlite3.Error as error:
            raise self._failure(error, "") from error
        progress(size, size)

    def is_wal(self) -> bool:
        return self.query("PRAGMA journal_mode") == [("wal",)]

    def page_size(self) -> int:
        """Bytes."""
        return int(self.query("PRAGMA page_size")[0][0])

    def _size(self) -> int:
        return self.page_size() * int(self.query("PRAGMA page_count")[0][0])

    def _listener(self, progress: Progress, size: int) -> Heard:
        def heard(done: int) -> None:
            progress(min(done, size), size)
            if self._patience.stop(""):
                raise Stopped

        return heard

    def _fill(self, target: Path, heard: Heard) -> None:
        """Copy into a file that is empty."""
        uri = f"{target.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as other, self._snapshot():
            other.execute("PRAGMA journal_mode = OFF")  # a copy that is not completed is removed
            other.execute("PRAGMA synchronous = OFF")
            self.copy_into(other, lambda done, _: heard(done))

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """What the database holds now, for as long as the context lasts."""
        self.query("BEGIN")
        try:
            self.query("SELECT 1 FROM sqlite_schema LIMIT 1")  # BEGIN alone takes no lock
            yield
        finally:
            self._rollback()


class _Source(Copyable):
    """A database that others go on writing to."""

    def _fill(self, target: Path, heard: Heard) -> None:
        if self._size() < _SMALL or not self._copy_raw(target, heard):
            os.truncate(target, 0)
            super()._fill(target, heard)

    def _copy_raw(self, target: Path, heard: Heard) -> bool:
        """Copy without any lock, and mend the copy under a reader's lock, which takes a fraction of the time.

        False when that cannot be done here, or need not be: in WAL mode a reader is in nobody's way. Else it keeps
        writers from committing; and each commit between two steps would make SQLite's own way of copying begin anew.
        """
        if self.is_wal() or not hasattr(os, "preadv"):
            return False
        child = _start(self.path, target)
        if child is None:
            return False
        with child:
            try:
                if not _hear(child, heard):
                    return False
                with self._snapshot():
                    return not self.is_wal() and _hear(child, heard, b"go on\n")
            finally:
                child.kill()


def _start(source: Path, target: Path) -> subprocess.Popen[bytes] | None:
    """A process of its own, because closing a file takes away all locks that its process has on it, those of other
    connections, too (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
    None when it does not start."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _PROGRAM, source, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for its parent to answer
        )
    except (OSError, TypeError):  # a server that embeds Python need not have an executable
        return None


def _hear(child: subprocess.Popen[bytes], heard: Heard, order: bytes = b"") -> bool:
    """Give the child an order, if there is one, and follow it to the end of a pass. False when it breaks off."""
    assert child.stdin
    assert child.stdout
    with suppress(BrokenPipeError):
        child.stdin.write(order)
    for line in child.stdout:
        match line.split():
            case [b"ok"]:
                return True
            case [b"failed", number] if int(number) in _FULL:
                raise OutOfSpace(os.strerror(int(number)))
            case [done] if done.isdigit():
                heard(int(done))
            case _:
                return False
    return False
