"""A folder -> its migrations in order; and the writing of a new file into it."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from financial_agent.migrator.errors import FolderMissing, NameUnusable
from financial_agent.migrator.errors_files import FileNameInvalid, FileOutsideFolder, FileUnreadable, VersionDuplicated
from financial_agent.migrator.script import MigrationFile

DIALECTS = ("sqlite", "postgresql", "mysql")

_named = re.compile(r"([0-9]+)_([^.]+)(?:\.([^.]+))?(\.sql|\.py)")
_TIMESTAMP_DIGITS = 14  # YYYYMMDDhhmmss, as dbmate and goose number their files

TEMPLATE = """\
-- {title}

-- migrate:up


-- migrate:down

"""
PYTHON_TEMPLATE = '''\
"""{title}"""


def up(connection):
    raise NotImplementedError


def down(connection):
    raise NotImplementedError
'''


@dataclass(frozen=True)
class Listed:
    """What a file of the folder is called. Several may be variants of one migration, or have one number by mistake."""

    path: Path
    digits: str
    name: str
    variant: str | None
    suffix: str

    @property
    def version(self) -> int:
        return int(self.digits)

    @property
    def plain_name(self) -> str:
        """The migration's file name without any variant, as the folder spells it."""
        return f"{self.digits}_{self.name}{self.suffix}"

    @property
    def filename(self) -> str:
        """The ledger's name for it. macOS may hand out decomposed names: the ledger's is equal on every system."""
        return unicodedata.normalize("NFC", self.plain_name)


def discover(folder: Path, dialect: str) -> list[MigrationFile]:
    """The folder's migrations for one engine, by version. Nothing is read but the folder itself.

    A variant for the engine (`001_x.postgresql.sql`) takes the place of the plain file. Raises FolderMissing,
    FileNameInvalid, FileOutsideFolder, FileUnreadable and VersionDuplicated.
    """
    found: dict[tuple[str | None, str], MigrationFile] = {}
    names: dict[int, tuple[str, str]] = {}
    for entry in _entries(folder):
        listed = _parse_name(folder, entry)
        if listed is None:
            continue
        _check_readable(entry, folder)
        file = MigrationFile(listed.version, listed.name, listed.filename, listed.path, dialect)
        first, first_name = names.setdefault(file.version, (file.filename, entry.name))
        if first != file.filename or (listed.variant, file.filename) in found:
            raise VersionDuplicated(first=Path(first_name), second=Path(entry.name), version=file.version)
        found[listed.variant, file.filename] = file
    plain = {name: file for (variant, name), file in found.items() if variant is None}
    own = {name: file for (variant, name), file in found.items() if variant == dialect}
    if own:
        plain = {name: replace(file, own_name=_variant_name(file)) for name, file in plain.items()}
    return sorted((plain | own).values(), key=lambda file: file.version)


def listing(folder: Path) -> list[Listed]:
    """Every file that is named like a migration, whether or not others have its number. Raises FolderMissing and
    FileNameInvalid."""
    return [listed for entry in _entries(folder) if (listed := _parse_name(folder, entry))]


def elsewhere(folder: Path, dialect: str) -> dict[str, str]:
    """By name, the migrations that only other engines have a file for, and which engines. Raises FolderMissing and
    FileNameInvalid."""
    found: dict[str, list[str]] = {}
    for each in listing(folder):
        found.setdefault(each.filename, []).append(each.variant or dialect)
    return {name: " and ".join(variants) for name, variants in found.items() if dialect not in variants}


def next_number(taken: Collection[str], now: datetime | None = None) -> str:
    """The digits for a new file: above those that are taken, and as many as the newest has, or a UTC timestamp."""
    newest = max(taken, key=int, default="")
    number = int(newest or 0) + 1
    if len(newest) >= _TIMESTAMP_DIGITS:
        number = max(int((now or datetime.now(UTC)).strftime("%Y%m%d%H%M%S")), number)
    return f"{number:0{len(newest) or 3}}"


def create(folder: Path, name: str, now: datetime | None = None, *, python: bool = False) -> Path:
    """Write an empty migration, in SQL or in Python, with the next number and return its path.

    The number continues the folder's habit: as many digits as the newest file has, or a UTC timestamp. Raises
    NameUnusable and discover's errors.
    """
    ascii_name = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "_", ascii_name).strip("_")
    if not slug:
        raise NameUnusable(name=name, why="it has none of the letters a to z and the digits")
    if len(slug) > 200:
        raise NameUnusable(name=name, why="it is longer than 200 characters")
    digits = next_number([listed.digits for listed in listing(folder)], now)
    path = folder / f"{digits}_{slug}{'.py' if python else '.sql'}"
    title = slug.replace("_", " ").capitalize()
    try:
        with open(path, "x", encoding="utf-8", newline="\n") as file:
            file.write((PYTHON_TEMPLATE if python else TEMPLATE).format(title=title))
    except OSError as error:
        raise FolderMissing(folder=folder, problem=f"cannot be written to: {error.strerror}") from error
    return path


def _variant_name(file: MigrationFile) -> str:
    return f"{file.path.stem}.{file.dialect}{file.path.suffix}"


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    """What the folder holds, by name, without hidden files and folders. Raises FolderMissing."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not (entry.name.startswith(".") or _is_folder(entry))]
            return sorted(visible, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise FolderMissing(folder=folder, problem="does not exist") from error
    except NotADirectoryError as error:
        raise FolderMissing(folder=folder, problem="is a file") from error
    except OSError as error:
        raise FolderMissing(folder=folder, problem=f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FolderMissing(folder=folder, problem="holds a NUL byte") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link is asked by its path, as a loop of links makes is_dir() raise; anything else costs no system call.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _parse_name(folder: Path, entry: os.DirEntry[str]) -> Listed | None:
    """The parts of a migration's name; None for what is not one at all. Raises FileNameInvalid for a near miss."""
    name = entry.name
    stem, suffix = os.path.splitext(name)
    # Other Python files, such as `conftest.py`, may well stand beside the migrations.
    if suffix.lower() != ".sql" and not (suffix.lower() == ".py" and name[0].isdigit()):
        return None
    if suffix != suffix.lower():
        fix = shlex.join(["mv", str(folder / name), str(folder / f"{stem}{suffix.lower()}")])
        raise FileNameInvalid(name=name, why="the suffix is not lower-case", fix=fix)
    match = _named.fullmatch(name)
    if not match or not name.isprintable():
        why = "a number, an underscore and a name are expected, as in 005_add_index.sql"
        raise FileNameInvalid(name=name, why=why, fix="Rename it, or move it out of the folder")
    if match[3] and match[3] not in DIALECTS:
        why = f"{match[3]!r} is no database engine"
        fix = f"Engines are {', '.join(DIALECTS)}; the rest of a name has no dots"
        raise FileNameInvalid(name=name, why=why, fix=fix)
    return Listed(Path(entry.path), *match.groups())


def _check_readable(entry: os.DirEntry[str], folder: Path) -> None:
    if entry.is_symlink():
        if not Path(os.path.realpath(entry.path)).is_relative_to(os.path.realpath(folder)):
            raise FileOutsideFolder(name=entry.name)
        if not os.path.exists(entry.path):
            look = f"ls -l {shlex.quote(entry.path)}"
            raise FileUnreadable(name=entry.name, cause="it is a symbolic link to nothing", fix=look)
    if not entry.is_file():  # a FIFO would wait for ever
        raise FileUnreadable(name=entry.name, cause="it is not a regular file", fix=f"ls -l {shlex.quote(entry.path)}")
