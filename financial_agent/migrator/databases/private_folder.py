"""A folder for copies of a database, which only its owner may enter, and which is gone when the work ends, however it
ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".financial_agent-private-"
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")  # what mkdtemp adds
# A FIFO of that name would wait for ever.
_AS_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# Waits for the end of its parent, and removes the folder, if that has not: nobody else could after kill -9.
_REMOVER = """\
import os, sys
sys.stdin.read()
if os.path.exists(sys.argv[1]):
    import shutil
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in a folder, and remove there what others left that died together with their remover, as in a power
    cut. Raises OSError."""
    sweep(parent)
    folder, lock = _make(parent)
    remover = _start_remover(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        if remover:
            remover.communicate()


def sweep(parent: Path) -> None:
    """Remove the folders of dead processes. Raises OSError when the folder cannot be read."""
    for entry in os.scandir(parent):
        if not _NAME.fullmatch(entry.name):
            continue
        with suppress(OSError):
            descriptor = os.open(entry.path, _AS_FOLDER)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid() and lock_folder(descriptor, wait=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _make(parent: Path) -> tuple[Path, int]:
    """A new folder, and a lock on it that dies with the process."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, _AS_FOLDER)
            lock_folder(descriptor, wait=True)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)
        # Another process took it for one of a dead process before it was locked.


def lock_folder(descriptor: int, *, wait: bool) -> bool:
    """Where folders cannot be locked, nothing counts as locked, and nothing as left by the dead."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _start_remover(folder: Path) -> subprocess.Popen[bytes] | None:
    with suppress(OSError, TypeError):  # a server that embeds Python need not have an executable
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _REMOVER, folder], stdin=subprocess.PIPE, start_new_session=True
        )
    return None
