"""Backups: copies of a database that were checked, in files that are named by database, version, time and kind."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from financial_agent.migrator import ledger, plan, session
from financial_agent.migrator.backup_files import (
    AUTOMATIC,
    Backup,
    Kind,
    by_worth,
    listed,
    make_folder,
    publish,
    remove,
    sum_of,
    sync,
)
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    Patience,
    StatementError,
    connect,
    copy,
    display_name,
    exists,
    find_flaw,
    is_file,
    locked,
)
from financial_agent.migrator.databases.private_folder import private_folder
from financial_agent.migrator.errors import (
    BackupFailed,
    DatabaseLocked,
    LedgerUnusable,
    MigratorError,
    NoSpace,
    RunLocked,
)
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.errors_server import ToolMissing, ToolTooOld
from financial_agent.migrator.events import Copying, Warned

_PORTION = 16 << 20  # bytes that are written to the disk at once


@dataclass(frozen=True)
class Policy:
    """When a run makes a backup, in which folder, and how many of those that runs made are kept."""

    when: Literal["destructive", "always", "never"]
    folder: Path
    keep: int

    def asks(self, *, is_destructive: bool) -> bool:
        """Whether a run is to make a backup first."""
        return self.when == "always" or (self.when == "destructive" and is_destructive)


@dataclass(frozen=True)
class Contents:
    """What a copy was found to be. `flaw` is what makes it no sound database with a ledger that can be read."""

    newest: str | None = None
    """The newest migration that was applied."""
    flaw: str | None = None
    environment: str | None = None
    """The one that it belongs to."""

    @property
    def version(self) -> str | None:
        digits = re.match("[0-9]+", self.newest or "")
        return digits[0] if digits else None


def make(database: str, policy: Policy, kind: Kind, control: Control) -> Backup:
    """Make a backup in the policy's folder; then remove the oldest of those that runs made.

    Raises BackupFailed, NoSpace, DatabaseLocked and Interrupted; then there is no new backup.
    """
    with _explained(database, policy.folder, kind, control):
        make_folder(policy.folder, database)
        backup = _make(database, policy.folder, None, kind, control)
    if kind in AUTOMATIC:
        _prune(database, policy, backup, control)
    return backup


def make_at(database: str, path: Path, control: Control) -> Backup:
    """Make a backup as a new file of that name, or in that folder. Raises what `make` raises."""
    is_folder = os.path.isdir(path)
    folder = path if is_folder else path.parent
    with _explained(database, folder, "manual", control):
        return _make(database, folder, None if is_folder else path, "manual", control)


def look_into(database: str, draft: Path, patience: Patience) -> Contents:
    """Check a copy that was just made of a database, and that nobody else uses. Raises Stopped."""
    try:
        if flaw := find_flaw(database, draft, patience):
            return Contents(flaw=flaw)
    except (MigratorError, StatementError) as error:
        return Contents(flaw=str(error))
    # On a server, no other run can have changed the ledger since.
    return contents_of(str(draft) if is_file(database) else database, patience)


def contents_of(database: str, patience: Patience) -> Contents:
    """What a database's ledger tells. Raises Stopped."""
    try:
        with closing(connect(database, readonly=True, patience=patience)) as db:
            return Contents(newest(db), environment=ledger.environment(db))
    except LedgerUnusable as error:
        return Contents(flaw=error.message)
    except (MigratorError, StatementError) as error:
        return Contents(flaw=str(error))


def newest(db: Database) -> str | None:
    """The newest migration that is applied. Raises LedgerUnusable."""
    return max((entry.filename for entry in ledger.entries(db)), key=plan.version_of, default=None)


# Making one: in a folder of its own first, in which nobody looks for backups.


def _make(database: str, folder: Path, path: Path | None, kind: Kind, control: Control) -> Backup:
    for each in (path, sum_of(path)) if path else ():
        if each.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), each)
    patience = control.patience()
    with _run_lock(database, kind, patience), private_folder(folder) as drafts:
        draft = drafts / "backup.db"
        copy(database, draft, patience, _follower(draft, control), mode=0o777)
        contents = look_into(database, draft, patience)
        if contents.flaw:
            why, fix = f"the copy is not sound: {contents.flaw}", "See what is wrong with: flask db verify"
            raise BackupFailed(folder=folder, why=why, fix=fix)
        return publish(draft, database, folder, kind, contents.version, patience, is_sound=True, path=path)


def _run_lock(database: str, kind: Kind, patience: Patience) -> AbstractContextManager[None]:
    """A server's own program cannot copy what a run changes meanwhile. A run that wants a backup has the lock."""
    return nullcontext() if is_file(database) or kind in AUTOMATIC else locked(database, patience)


def _follower(draft: Path, control: Control) -> Callable[[int, int], None]:
    """Report a copy's progress, and write it out on the way: all at once, it would keep the disk from the writers."""
    synced = 0

    def follow(done: int, total: int) -> None:
        nonlocal synced
        if done - synced >= _PORTION:  # never in a second pass, for which writers wait
            synced = done
            sync(draft)
        control.report(Copying("backing up", done, total))

    return follow


def _prune(database: str, policy: Policy, made: Backup, control: Control) -> None:
    """Remove what runs made and is too many. What a person asked for, or a restore replaced, stays."""
    others = [backup for backup in listed(database, policy.folder) if backup.path != made.path]
    automatic = [made, *(backup for backup in others if backup.kind in AUTOMATIC)]
    for backup in by_worth(automatic)[policy.keep :]:
        try:
            remove(backup.path)
        except OSError as error:
            control.report(Warned(backup.name, f"this old backup could not be removed: {error.strerror}"))


@contextmanager
def _explained(database: str, folder: Path, kind: Kind, control: Control) -> Iterator[None]:
    """Let every failure say that there is no backup."""
    try:
        with session.explained(database, control):
            if not exists(database):
                raise BackupFailed(folder=folder, why=f"{display_name(database)} is not there", fix="flask db status")
            yield
    except (BackupFailed, DatabaseLocked, RunLocked, Interrupted):
        raise
    except NoSpace as error:  # the folder that it names is gone again
        raise NoSpace(**{**error.fields, "folder": folder}) from error
    except MigratorError as error:
        lacks_tool = isinstance(error, ToolMissing | ToolTooOld) and kind in AUTOMATIC
        without = "\nOr run without a backup: FINANCIAL_AGENT_BACKUP=never" if lacks_tool else ""
        raise BackupFailed(folder=folder, why=error.message, fix=f"{error.hint}{without}") from error
    except OSError as error:
        why = f"{error.filename or folder}: {error.strerror}"
        raise BackupFailed(folder=folder, why=why, fix=_mending(error, shlex.quote(str(folder)))) from error


def _mending(error: OSError, folder: str) -> str:
    match error:
        case FileExistsError():
            return "Give another name, or a folder: flask db backup PATH"
        case FileNotFoundError():
            return f"mkdir -p {folder}"
        case _:
            return f"ls -ld {folder}; df -h {folder}"
