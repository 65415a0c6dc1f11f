"""What backups of databases on servers have in common: files that a server's own program writes, and reads again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from financial_agent.migrator.databases import Patience, find_flaw, workspace
from financial_agent.migrator.databases.server_tools import Tool, run, version
from financial_agent.migrator.databases.url import parse
from financial_agent.migrator.errors import BackupUnusable
from financial_agent.migrator.errors_server import ToolFailed, ToolTooOld

Progress = Callable[[int, int], None]

ANOTHER = "Choose another one: flask db backups"


def name_of(database: str) -> str:
    """The name of a URL's database, as it can stand in the name of a file."""
    return re.sub(r"[^\w.-]", "_", parse(database).name)


def refuse_older(tool: Tool, server: tuple[int, ...], package: str) -> None:
    """Raise ToolTooOld for a program that is older than its server."""
    found = version(tool.program)
    if found[: len(server)] < server:
        told, wanted = (".".join(map(str, each)) for each in (found, server))
        raise ToolTooOld(program=tool.name, found=told, wanted=wanted, package=package)


def write(tool: Tool, target: Path, size: int, patience: Patience, progress: Progress) -> None:
    """Let a program write a new file, which only its owner may read, and which is gone again after an error. It has at
    most about as many bytes as the database. Raises ToolFailed and Stopped."""
    try:
        with open(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            run(tool, _following(target, size, patience, progress), target=file)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    progress(size, size)


def _following(target: Path, size: int, patience: Patience, progress: Progress) -> Patience:
    def stop(waiting_for: str) -> bool:
        with suppress(OSError):
            progress(min(target.stat().st_size, size), size)
        return patience.stop(waiting_for)

    return Patience(patience.seconds, stop)


@contextmanager
def loaded(database: str, backup: Path, patience: Patience, load: Callable[[str], None]) -> Iterator[str]:
    """See `databases.loaded`. `load` fills the database at a URL, which is empty, with the backup."""
    if flaw := find_flaw(database, backup, patience):
        raise BackupUnusable(backup=backup, why=flaw, fix=ANOTHER)
    with workspace(database, patience, empty=True) as copies:
        draft = copies.original(lambda done, total: None)
        try:
            load(draft)
        except ToolFailed as error:
            raise BackupUnusable(backup=backup, why=error.message, fix=_mending(error.message)) from error
        yield draft


def _mending(said: str) -> str:
    role = re.search(r'role "(.+)" does not exist', said)
    return f'Its objects are that role\'s. As an administrator: CREATE ROLE "{role[1]}"' if role else ANOTHER
