"""`migrations.lock`: one line for each migration of a folder, with its checksum.

Two branches that add a migration each append a line at the same place, so that git reports the conflict that would
otherwise come up in production.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from financial_agent.migrator.errors import Location, LockFileUnusable
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.source import checksum

NAME = "migrations.lock"

# The codes of the findings here.
NOT_THERE, NOT_LOCKED, FILE_GONE, EDITED, UNREADABLE = CODES = ("FA670", "FA671", "FA672", "FA673", "FA674")

_HEADER = "# SHA-256 and name of each migration, in order. Written by: flask db check --write-lock\n"
_UPDATE = "flask db check --write-lock"
_line = re.compile(r"([0-9a-f]{64})  (\S.*)")
_CONFLICT = {"<" * 7, "=" * 7, ">" * 7, "|" * 7}


def write(folder: Path, files: Sequence[Path]) -> Path:
    """Write the lock file of a folder anew, at once or not at all; one that is right already is not touched.

    Raises LockFileUnusable.
    """
    path = folder / NAME
    text = _HEADER + "".join(f"{checksum(file)}  {file.name}\n" for file in files)
    try:
        if path.exists() and path.read_bytes() == text.encode():
            return path
        _replace(path, text)
    except OSError as error:
        raise LockFileUnusable(path=path, folder=folder, doing="written", cause=error.strerror) from error
    return path


def check(folder: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """How the lock file differs from the folder's migrations, variants included, in their order.

    Raises LockFileUnusable when it cannot be read.
    """
    path = folder / NAME
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        message = f"there is no {NAME}, which makes two branches that add a migration conflict in git"
        yield Finding(NOT_THERE, "note", message, NAME, hint=f"Make one, and commit it: {_UPDATE}")
        return
    except OSError as error:
        raise LockFileUnusable(path=path, folder=folder, doing="read", cause=error.strerror) from error
    locked: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _line.fullmatch(line)
        if match:
            locked.setdefault(match[2], (number, match[1]))
        elif line.strip() and not line.startswith("#"):
            what = "a merge left a conflict here" if line[:7] in _CONFLICT else "this is no checksum and name"
            yield _finding(UNREADABLE, what, NAME, Location(str(path), number))
    yield from _differences(path, files, locked)


def _differences(path: Path, files: Sequence[Path], locked: dict[str, tuple[int, str]]) -> Iterator[Finding]:
    for file in files:
        number, locked_checksum = locked.get(file.name, (None, None))
        place = Location(str(path), number)
        if number is None:
            yield _finding(NOT_LOCKED, f"{NAME} does not have it", file.name, place)
        elif locked_checksum != checksum(file):
            message = f"it is not the file whose checksum is in {NAME}: it was edited since"
            yield _finding(EDITED, message, file.name, place)
    names = {file.name for file in files}
    for name in locked.keys() - names:
        message = f"{NAME} has it, and its file is gone"
        yield _finding(FILE_GONE, message, name, Location(str(path), locked[name][0]))


def _finding(code: str, message: str, name: str, place: Location) -> Finding:
    return Finding(code, "error", message, name, place, hint=f"If that is meant: {_UPDATE}")


def _replace(path: Path, text: str) -> None:
    """Others see the old file or the new one, whole."""
    new = path.with_name(f".{NAME}-{secrets.token_hex(4)}")
    try:
        with open(new, "x", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
