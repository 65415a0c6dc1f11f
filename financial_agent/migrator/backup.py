"""Backups: copies of a database that were checked, in files that are named by database, version, time and kind."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from financial_agent.migrator import ledger, plan, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    Patience,
    StatementError,
    Stopped,
    connect,
    copy,
    exists,
    file_of,
)
from financial_agent.migrator.databases.owner import give_to
from financial_agent.migrator.databases.private_folder import lock_folder, private_folder
from financial_agent.migrator.errors import (
    BackupFailed,
    BackupUnusable,
    DatabaseLocked,
    LedgerUnusable,
    MigratorError,
    NoSpace,
)
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.events import Copying, Warned

Kind = Literal["manual", "migrate", "rollback", "restore"]
AUTOMATIC: tuple[Kind, ...] = ("migrate", "rollback")

_NAME = re.compile(
    r"(?P<label>.+)-(?P<version>[0-9]+|none)-(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{3}Z)"
    rf"-(?P<kind>{'|'.join(get_args(Kind))})\.db",
    re.DOTALL,
)
_TIME = "%Y%m%dT%H%M%S.%fZ"
_CHUNK = 1 << 20
_DIGITS = 64  # of a SHA-256
_AS_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)  # who opens a FIFO waits for ever
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
class Backup:
    """A backup, as its name and the file beside it tell."""

    path: Path
    version: str | None
    """The digits of the newest migration that was applied."""
    made_at: datetime
    """UTC."""
    kind: Kind
    size: int
    """Bytes."""
    checked: bool
    """It was found sound when it was made, its SHA-256 is kept, and nobody has written to it since."""

    @property
    def name(self) -> str:
        return self.path.name


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
    with _explained(database, policy.folder, control):
        make_folder(policy.folder, file_of(database))
        backup = _make(database, policy.folder, None, kind, control)
    if kind in AUTOMATIC:
        _prune(database, policy, backup, control)
    return backup


def make_at(database: str, path: Path, control: Control) -> Backup:
    """Make a backup as a new file of that name, or in that folder. Raises what `make` raises."""
    is_folder = os.path.isdir(path)
    folder = path if is_folder else path.parent
    with _explained(database, folder, control):
        return _make(database, folder, None if is_folder else path.name, "manual", control)


def listed(database: str, folder: Path) -> list[Backup]:
    """A database's backups in a folder, the newest first. Raises BackupUnusable when the folder cannot be read."""
    try:
        found = [backup for path in folder.iterdir() if (backup := _parsed(path, label(database)))]
    except FileNotFoundError:
        return []
    except OSError as error:
        fix = f"ls -ld {shlex.quote(str(folder))}"
        raise BackupUnusable(backup=folder, why=error.strerror, fix=fix) from error
    return sorted(found, key=lambda backup: (backup.made_at, backup.name), reverse=True)


def verify(path: Path, patience: Patience) -> None:
    """Hold a backup against the SHA-256 that is kept beside it, if there is one. Raises BackupUnusable, Stopped."""
    fix = "Choose another one: flask db backups"
    if not _sum_of(path).exists():
        return
    if not _sum_of(path).is_file():  # one might wait for ever to read from it
        raise BackupUnusable(backup=path, why=f"{_sum_of(path)} is not a file", fix=fix)
    try:
        with _sum_of(path).open("rb") as file:
            recorded = file.read(_DIGITS + 1).lstrip(b"\\")[:_DIGITS]
        if recorded != _sha256(path, patience).encode():
            raise BackupUnusable(backup=path, why="its SHA-256 is not the one that was kept when it was made", fix=fix)
    except OSError as error:
        raise BackupUnusable(backup=path, why=f"it cannot be held against its SHA-256: {error}", fix=fix) from error


def look_into(path: Path, patience: Patience) -> Contents:
    """Check a copy that nobody else uses. Raises Stopped."""
    try:
        with closing(connect(str(path), readonly=True, patience=patience)) as db:
            db.query("PRAGMA ignore_check_constraints = ON")  # rows that break a rule are no damage
            if found := db.problems(quick=True):
                return Contents(flaw=f"the check of its pages says: {found[0]}")
            return Contents(newest(db), environment=ledger.environment(db))
    except LedgerUnusable as error:
        return Contents(flaw=error.message)
    except (MigratorError, StatementError) as error:
        return Contents(flaw=str(error))


def newest(db: Database) -> str | None:
    """The newest migration that is applied. Raises LedgerUnusable."""
    return max((entry.filename for entry in ledger.entries(db)), key=plan.version_of, default=None)


# Making one: in a folder of its own first, in which nobody looks for backups.


def _make(database: str, folder: Path, name: str | None, kind: Kind, control: Control) -> Backup:
    for path in (folder / name, _sum_of(folder / name)) if name else ():
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    patience = control.patience()
    with private_folder(folder) as drafts:
        draft = drafts / "backup.db"
        copy(database, draft, patience, _follower(draft, control), mode=0o777)
        contents = look_into(draft, patience)
        if contents.flaw:
            fix = f"Look at it with: sqlite3 {shlex.quote(str(file_of(database)))} 'PRAGMA integrity_check'"
            raise BackupFailed(folder=folder, why=f"the copy is not sound: {contents.flaw}", fix=fix)
        return publish(draft, label(database), folder, kind, contents, patience, name=name)


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


def publish(
    draft: Path,
    label: str,
    folder: Path,
    kind: Kind,
    contents: Contents,
    patience: Patience,
    *,
    name: str | None = None,
) -> Backup:
    """Give a draft its name as a backup, durably. Only what is sound counts as checked. Raises OSError and Stopped."""
    checksum = None if contents.flaw else _sha256(draft, patience)
    sync(draft)
    with locked(folder):
        time = now()
        path = folder / name if name else unused_path(folder, label, contents.version, kind, time)
        if checksum:
            _sum_of(draft).write_bytes(_sum_line(checksum, path.name))
            give_to(draft.stat(), _sum_of(draft))
            sync(_sum_of(draft))
            _sum_of(draft).rename(_sum_of(path))  # first, so that none seems to be unchecked for a moment
        try:
            _give_name(draft, path)
        except OSError:
            _sum_of(path).unlink(missing_ok=True)
            raise
        sync(folder)
    return Backup(path, contents.version, time, kind, path.stat().st_size, bool(checksum))


def _give_name(draft: Path, path: Path) -> None:
    """Rename a draft, and replace nothing. Raises OSError."""
    try:
        os.link(draft, path)
    except PermissionError:  # a file system without links
        if path.exists():
            raise
        draft.rename(path)
    else:
        draft.unlink()


def make_folder(folder: Path, database: Path) -> None:
    """Make the folder of the backups, for the owner of the database alone. Raises OSError."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    give_to((database if database.exists() else folder.parent).stat(), folder)
    sync(folder.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who makes, names or removes something in a folder: for a moment only."""
    with _opened(folder, _AS_FOLDER) as descriptor:
        lock_folder(descriptor, wait=True)
        yield


@contextmanager
def _opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _prune(database: str, policy: Policy, made: Backup, control: Control) -> None:
    """Remove what runs made and is too many. What a person asked for, or a restore replaced, stays."""
    others = [backup for backup in listed(database, policy.folder) if backup.path != made.path]
    automatic = [made, *(backup for backup in others if backup.kind in AUTOMATIC)]
    for backup in by_worth(automatic)[policy.keep :]:
        try:
            backup.path.unlink(missing_ok=True)
            _sum_of(backup.path).unlink(missing_ok=True)
        except OSError as error:
            control.report(Warned(backup.name, f"this old backup could not be removed: {error.strerror}"))


def by_worth(backups: Sequence[Backup]) -> list[Backup]:
    """Of each version the first, then the others. A migration that fails again and again, with a backup of the same
    each time, must not cost those of other versions."""
    first: dict[str | None, Backup] = {}
    for backup in backups:
        first.setdefault(backup.version, backup)
    return sorted(backups, key=lambda backup: backup is not first[backup.version])


@contextmanager
def _explained(database: str, folder: Path, control: Control) -> Iterator[None]:
    """Let every failure say that there is no backup."""
    try:
        with session.explained(database, control):
            if not exists(database):
                raise BackupFailed(folder=folder, why=f"{file_of(database)} is not there", fix="flask db status")
            yield
    except (BackupFailed, DatabaseLocked, Interrupted):
        raise
    except NoSpace as error:  # the folder that it names is gone again
        raise NoSpace(**{**error.fields, "folder": folder}) from error
    except MigratorError as error:
        raise BackupFailed(folder=folder, why=error.message, fix=error.hint) from error
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


# Names and sums.


def now() -> datetime:
    """UTC, as far as a name tells."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def label(database: str) -> str:
    """What the names of a database's backups begin with: its own name, of which a usual suffix tells nothing."""
    return file_of(database).name.removesuffix(".db")


def unused_path(folder: Path, label: str, version: str | None, kind: Kind, time: datetime) -> Path:
    """The name of a backup; later by milliseconds when there is one of that time."""
    text = f"{time:%Y%m%dT%H%M%S}.{time.microsecond // 1000:03}Z"
    path = folder / f"{label}-{version or 'none'}-{text}-{kind}.db"
    return unused_path(folder, label, version, kind, time + timedelta(milliseconds=1)) if path.exists() else path


def made_at(path: Path) -> datetime | None:
    """When a backup was made, as far as its name tells; UTC."""
    parts = _NAME.fullmatch(path.name)
    try:
        return datetime.strptime(parts["time"], _TIME).replace(tzinfo=UTC) if parts else None
    except ValueError:
        return None


def _parsed(path: Path, label: str) -> Backup | None:
    """What a file's name tells; None when it is no backup of this database."""
    parts, time = _NAME.fullmatch(path.name), made_at(path)
    if not parts or not time or parts["label"] != label:
        return None
    try:
        size = path.stat().st_size
    except OSError:  # removed meanwhile, or a link to nothing
        return None
    if not path.is_file():
        return None
    version = None if parts["version"] == "none" else parts["version"]
    kind = next(kind for kind in get_args(Kind) if kind == parts["kind"])
    return Backup(path, version, time, kind, size, _is_as_summed(path))


def _is_as_summed(path: Path) -> bool:
    """Whether a backup has not been written to since its SHA-256 was, as far as their times tell, which is at once."""
    try:
        return path.stat().st_mtime_ns <= _sum_of(path).stat().st_mtime_ns
    except OSError:
        return False


def _sum_line(checksum: str, name: str) -> bytes:
    """As sha256sum writes it, which marks a line whose name it escapes."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return os.fsencode(f"{'' if escaped == name else chr(92)}{checksum}  {escaped}\n")


def remove(made: Backup) -> None:
    """Take a backup back that turned out not to be needed. Raises OSError."""
    made.path.unlink(missing_ok=True)
    _sum_of(made.path).unlink(missing_ok=True)


def _sum_of(path: Path) -> Path:
    """The file that keeps a backup's SHA-256, as `sha256sum --check` reads it."""
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path, patience: Patience) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if patience.stop(""):
                raise Stopped
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, survive a power loss."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)
