"""The note beside a database of what is being run. Others may write to that folder: no link is followed, nothing but a
small regular file is read."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_LONGEST = 1 << 16  # bytes


def write(path: Path, text: str, mode: int) -> None:
    """Raises OSError."""
    remove(path)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)


def read(path: Path) -> str | None:
    """None when there is no note."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return os.read(descriptor, _LONGEST).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    return None


def remove(path: Path) -> None:
    """Raises OSError."""
    path.unlink(missing_ok=True)
