"""The files of backups: named by database, version, time and kind, each with its SHA-256 beside it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from financial_agent.migrator.databases import Patience, Stopped, backup_names, file_of, is_file
from financial_agent.migrator.databases.owner import give_to
from financial_agent.migrator.databases.private_folder import lock_folder
from financial_agent.migrator.errors import BackupUnusable

Kind = Literal["manual", "migrate", "rollback", "restore"]
AUTOMATIC: tuple[Kind, ...] = ("migrate", "rollback")

_NAME = re.compile(
    r"(?P<label>.+)-(?P<version>[0-9]+|none)-(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{3}Z)"
    rf"-(?P<kind>{'|'.join(get_args(Kind))})(?P<suffix>\.[a-z]+)",
    re.DOTALL,
)
_TIME = "%Y%m%dT%H%M%S.%fZ"
_CHUNK = 1 << 20
_DIGITS = 64  # of a SHA-256
_AS_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)  # who opens a FIFO waits for ever


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


def listed(database: str, folder: Path) -> list[Backup]:
    """A database's backups in a folder, the newest first. Raises BackupUnusable when the folder cannot be read."""
    try:
        found = [backup for path in folder.iterdir() if (backup := _parsed(path, backup_names(database)))]
    except FileNotFoundError:
        return []
    except OSError as error:
        fix = f"ls -ld {shlex.quote(str(folder))}"
        raise BackupUnusable(backup=folder, why=error.strerror, fix=fix) from error
    return sorted(found, key=lambda backup: (backup.made_at, backup.name), reverse=True)


def verify(path: Path, patience: Patience) -> None:
    """Hold a backup against the SHA-256 that is kept beside it, if there is one. Raises BackupUnusable, Stopped."""
    fix = "Choose another one: flask db backups"
    if not sum_of(path).exists():
        return
    if not sum_of(path).is_file():  # one might wait for ever to read from it
        raise BackupUnusable(backup=path, why=f"{sum_of(path)} is not a file", fix=fix)
    try:
        with sum_of(path).open("rb") as file:
            recorded = file.read(_DIGITS + 1).lstrip(b"\\")[:_DIGITS]
        if recorded != _sha256(path, patience).encode():
            raise BackupUnusable(backup=path, why="its SHA-256 is not the one that was kept when it was made", fix=fix)
    except OSError as error:
        raise BackupUnusable(backup=path, why=f"it cannot be held against its SHA-256: {error}", fix=fix) from error


def by_worth(backups: Sequence[Backup]) -> list[Backup]:
    """Of each version the first, then the others. A migration that fails again and again, with a backup of the same
    each time, must not cost those of other versions."""
    first: dict[str | None, Backup] = {}
    for backup in backups:
        first.setdefault(backup.version, backup)
    return sorted(backups, key=lambda backup: backup is not first[backup.version])


# Giving names.


def publish(
    draft: Path,
    database: str,
    folder: Path,
    kind: Kind,
    version: str | None,
    patience: Patience,
    *,
    is_sound: bool,
    path: Path | None = None,
) -> Backup:
    """Give a draft its name as a backup, durably. Only what is sound counts as checked. Raises OSError and Stopped."""
    checksum = _sha256(draft, patience) if is_sound else None
    sync(draft)
    with locked(folder):
        time = now()
        path = path or unused_path(folder, database, version, kind, time)
        if checksum:
            sum_of(draft).write_bytes(_sum_line(checksum, path.name))
            give_to(draft.stat(), sum_of(draft))
            sync(sum_of(draft))
            sum_of(draft).rename(sum_of(path))  # first, so that none seems to be unchecked for a moment
        try:
            _give_name(draft, path)
        except OSError:
            sum_of(path).unlink(missing_ok=True)
            raise
        sync(folder)
    return Backup(path, version, time, kind, path.stat().st_size, bool(checksum))


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


def make_folder(folder: Path, database: str) -> None:
    """Make the folder of the backups, for the owner of the database alone. Raises OSError."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    has_file = is_file(database) and file_of(database).exists()
    give_to((file_of(database) if has_file else folder.parent).stat(), folder)
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


# Names and sums.


def now() -> datetime:
    """UTC, as far as a name tells."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def unused_path(folder: Path, database: str, version: str | None, kind: Kind, time: datetime) -> Path:
    """The name of a backup; later by milliseconds when there is one of that time."""
    label, suffix = backup_names(database)
    while True:
        text = f"{time:%Y%m%dT%H%M%S}.{time.microsecond // 1000:03}Z"
        path = folder / f"{label}-{version or 'none'}-{text}-{kind}{suffix}"
        if not path.exists():
            return path
        time += timedelta(milliseconds=1)


def made_at(path: Path) -> datetime | None:
    """When a backup was made, as far as its name tells; UTC."""
    parts = _NAME.fullmatch(path.name)
    try:
        return datetime.strptime(parts["time"], _TIME).replace(tzinfo=UTC) if parts else None
    except ValueError:
        return None


def _parsed(path: Path, names: tuple[str, str]) -> Backup | None:
    """What a file's name tells; None when it is no backup of the database whose backups bear such names."""
    parts, time = _NAME.fullmatch(path.name), made_at(path)
    if not parts or not time or (parts["label"], parts["suffix"]) != names:
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
        return path.stat().st_mtime_ns <= sum_of(path).stat().st_mtime_ns
    except OSError:
        return False


def _sum_line(checksum: str, name: str) -> bytes:
    """As sha256sum writes it, which marks a line whose name it escapes."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return os.fsencode(f"{'' if escaped == name else chr(92)}{checksum}  {escaped}\n")


def remove(path: Path) -> None:
    """Remove a backup, if it is there, which turned out not to be needed. Raises OSError."""
    path.unlink(missing_ok=True)
    sum_of(path).unlink(missing_ok=True)


def sum_of(path: Path) -> Path:
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
