"""The seam between the engine and a database: one protocol, one package for each engine, picked by the URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from financial_agent.migrator.databases.database import (
    Answer,
    Borrowing,
    Busy,
    Column,
    CommitLost,
    ConnectionLost,
    Database,
    Effect,
    EffectKind,
    Effects,
    Forbidden,
    ForeignKey,
    Orphan,
    OrphansLeft,
    OutOfSpace,
    Patience,
    ReplacedHalfway,
    Row,
    SchemaObject,
    StatementError,
    Stopped,
    TableChange,
)
from financial_agent.migrator.databases.others import SoleDatabase, UndoneDatabase, Workspace

__all__ = [
    "Answer",
    "Borrowing",
    "Busy",
    "Column",
    "CommitLost",
    "ConnectionLost",
    "Database",
    "Effect",
    "EffectKind",
    "Effects",
    "Forbidden",
    "ForeignKey",
    "Orphan",
    "OrphansLeft",
    "OutOfSpace",
    "Patience",
    "ReplacedHalfway",
    "Row",
    "SchemaObject",
    "SoleDatabase",
    "StatementError",
    "Stopped",
    "TableChange",
    "UndoneDatabase",
    "Workspace",
    "backup_names",
    "compare",
    "connect",
    "connect_alone",
    "copy",
    "dialect_of",
    "display_name",
    "exists",
    "file_of",
    "find_flaw",
    "is_file",
    "loaded",
    "locked",
    "need_programs",
    "put_in_place",
    "rehearses_in_place",
    "scratch",
    "undone",
    "workspace",
]

# By the scheme of its URLs, the package of an engine; everything else is SQLite's.
_ENGINES = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql"}


class Engine(Protocol):
    """What the package of an engine has in its module `engine`. A database is named by its path or URL."""

    def connect(self, database: str, *, readonly: bool, patience: Patience) -> Database: ...

    def exists(self, database: str) -> bool: ...

    def scratch(self, database: str, patience: Patience, *, empty: bool) -> AbstractContextManager[Database]: ...

    def workspace(
        self, database: str, patience: Patience, *, empty: bool, rows: bool
    ) -> AbstractContextManager[Workspace]: ...

    def compare(
        self, before: str, after: str, tables: Collection[str] | None, patience: Patience
    ) -> list[TableChange]: ...

    def locked(self, database: str, patience: Patience) -> AbstractContextManager[None]: ...


class Backups(Protocol):
    """What the package of an engine has in its module `backups`."""

    def backup_names(self, database: str) -> tuple[str, str]: ...

    def copy(
        self, database: str, target: Path, patience: Patience, progress: Callable[[int, int], None], *, mode: int
    ) -> None: ...

    def need_programs(self, database: str) -> None: ...

    def find_flaw(self, backup: Path, patience: Patience) -> str | None: ...

    def loaded(
        self, database: str, backup: Path, patience: Patience, progress: Callable[[int, int], None]
    ) -> AbstractContextManager[str]: ...

    def connect_alone(self, database: str, patience: Patience) -> SoleDatabase: ...


def dialect_of(database: str) -> str:
    """The engine that a path or URL names: sqlite, postgresql or mysql."""
    return _ENGINES.get(database.partition(":")[0].lower(), "sqlite")


def is_file(database: str) -> bool:
    """Whether the database is a file of this machine's, not one of a server's."""
    return dialect_of(database) == "sqlite"


def _engine(database: str) -> Engine:
    # Drivers are imported only where they are used.
    return cast(Engine, import_module(f"{__name__}.{dialect_of(database)}.engine"))


def _backups(database: str) -> Backups:
    return cast(Backups, import_module(f"{__name__}.{dialect_of(database)}.backups"))


def connect(database: str, *, readonly: bool = False, patience: Patience | None = None) -> Database:
    """Open a database by path or URL. Raises DatabaseUnsupported, and what the engine's module says."""
    return _engine(database).connect(database, readonly=readonly, patience=patience or Patience())


def exists(database: str) -> bool:
    """Whether there is anything to ask: a missing SQLite file is a new database. A server's is made by a person."""
    return _engine(database).exists(database)


def file_of(database: str) -> Path:
    """The file that a SQLite database is in, links followed."""
    from financial_agent.migrator.databases.sqlite import paths

    return paths.path_of(database).resolve()


@contextmanager
def scratch(database: str, patience: Patience, *, empty: bool = False) -> Iterator[Database]:
    """A database of its own with the schema of another, or, when `empty`, or there is no other, without any; it has no
    rows, and is gone when the context ends. SQLite's is in memory, a server's beside the other. Raises ScratchRefused,
    and what filling it raises: ToolMissing and ToolFailed."""
    with _engine(database).scratch(database, patience, empty=empty) as db:
        yield db


def copy(
    database: str, target: Path, patience: Patience, progress: Callable[[int, int], None], *, mode: int = 0o600
) -> None:
    """Make a new file, a consistent copy of a database that others go on writing to; the original is only read. A
    server's own program writes it, in the form that it reads again.

    `progress` hears how many bytes are done, and of how many. The copy belongs to the database's owner, and its mode
    has no bit that the database's lacks, except that its owner may read and write it. It is not synced. Raises NoSpace,
    Stopped, DatabaseLocked, and DatabaseUnusable for either of the two files; after an error there is no copy.
    """
    _backups(database).copy(database, target, patience, progress, mode=mode)


def backup_names(database: str) -> tuple[str, str]:
    """What the names of a database's backups begin with, and their suffix."""
    return _backups(database).backup_names(database)


def need_programs(database: str) -> None:
    """Raise ToolMissing when a program is not there that backups of a database are made with."""
    _backups(database).need_programs(database)


def find_flaw(database: str, backup: Path, patience: Patience) -> str | None:
    """What is wrong with a copy of a database as a file, as far as that can be told without loading it. Raises
    Stopped."""
    return _backups(database).find_flaw(backup, patience)


@contextmanager
def loaded(database: str, backup: Path, patience: Patience, progress: Callable[[int, int], None]) -> Iterator[str]:
    """What a backup holds as a database of its own, beside the one that it is to replace; it may be changed, and is
    gone when the context ends. Raises BackupUnusable, NoSpace, Stopped, and DatabaseFolderMissing."""
    with _backups(database).loaded(database, backup, patience, progress) as draft:
        yield draft


@contextmanager
def workspace(database: str, patience: Patience, *, empty: bool = False, rows: bool = True) -> Iterator[Workspace]:
    """A place for copies of a database, or, when `empty`, for new ones, that only its owner may enter: beside it, where
    its space and its privacy are, or, if that cannot be written to, where temporary files are. It is gone when the
    context ends, or the process, even by kill -9; what is left on a server then is dropped by the next one. Without
    `rows` a server's copies have only those of the ledger. Raises NoSpace, DatabaseUnusable and ScratchRefused."""
    with _engine(database).workspace(database, patience, empty=empty, rows=rows) as copies:
        yield copies


def rehearses_in_place(database: str) -> bool:
    """Whether `undone` is there for a database: a transaction undoes definitions, and keeps only those waiting that use
    what it changes."""
    return dialect_of(database) == "postgresql"


@contextmanager
def undone(database: str, patience: Patience) -> Iterator[UndoneDatabase]:
    """A connection of which nothing remains when the context ends. Raises what `connect` raises."""
    from financial_agent.migrator.databases.postgresql import undone

    with undone.undone(database, patience) as db:
        yield db


def compare(before: str, after: str, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    """What differs between the rows of two databases that nobody writes to, in some tables (by their names in lower
    case) or in all. Raises StatementError and Stopped."""
    return _engine(before).compare(before, after, tables, patience)


def connect_alone(database: str, patience: Patience) -> SoleDatabase:
    """Open a database that is there, once all others have let go of it.

    Raises DatabaseLocked, DatabaseDamaged, and what `connect` raises.
    """
    return _backups(database).connect_alone(database, patience)


@contextmanager
def locked(database: str, patience: Patience) -> Iterator[None]:
    """Be the only run on a database, which may be damaged, or missing. Raises RunLocked."""
    with _engine(database).locked(database, patience):
        yield


def put_in_place(database: str, other: Path, kept: Path) -> None:
    """Put a file on the same disk into a SQLite database's place. What is there is kept under another name. Raises
    OSError."""
    from financial_agent.migrator.databases.sqlite import replace

    replace.put_in_place(file_of(database), other, kept)


def display_name(database: str) -> str:
    """The database's name for messages. Of a URL only what cannot be a password is shown."""
    scheme, separator, rest = database.removeprefix("sqlite:///").partition(":/")
    if not re.fullmatch(r"[A-Za-z][\w+.-]+", scheme) or not separator:
        return database
    rest = rest.removeprefix("/").partition("?")[0]
    plain = re.fullmatch(r"(?:([\w.~-]*)(?::[^@/?#]*)?@)?([\w.-]*(?::\d+)?(?:/[\w.-]*)?)", rest)
    if not plain:
        return f"{scheme}://…"
    return f"{scheme}://{plain[1]}@{plain[2]}" if plain[1] else f"{scheme}://{plain[2]}"
