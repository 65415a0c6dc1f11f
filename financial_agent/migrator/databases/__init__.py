"""The seam between the engine and a database: one protocol, one module for each engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from financial_agent.migrator.databases.rebuild import Rebuild, Rebuilding

Row = tuple[Any, ...]


def _go_on(waiting_for: str) -> bool:
    return False


@dataclass(frozen=True)
class Patience:
    """How long to wait for a lock, in seconds, and whom to ask meanwhile whether to stop.

    `stop` is called several times a second while something waits or works, with what is waited for (empty while
    working); when it returns true, the work is given up and Stopped is raised.
    """

    seconds: float = 30.0
    stop: Callable[[str], bool] = _go_on


class Orphan(NamedTuple):
    """A row whose foreign key finds no parent. `key` tells rows apart, and is never shown."""

    table: str
    parent: str
    key: Row | None


class Column(NamedTuple):
    """A column of a table. `default` is SQL; `key` is its place in the primary key, from 1, or 0."""

    name: str
    type: str
    not_null: bool
    default: str | None
    key: int
    generated: bool


class SchemaObject(NamedTuple):
    """A table, index, trigger or view of the user's. `table` is the one it belongs to; only tables have columns."""

    type: str
    name: str
    table: str
    sql: str
    columns: tuple[Column, ...] = ()


EffectKind = Literal[
    "drop table",
    "drop column",
    "drop index",
    "drop trigger",
    "drop view",
    "delete",
    "update",
    "replace",
    "rewrite",
    "unknown",
]


class Effect(NamedTuple):
    """Something that a statement destroys or overwrites. `name` is an object's, `column` one of its columns.

    `via` is what does it when that is not the statement itself: a trigger, or a foreign key. `everywhere` says that no
    WHERE limits a delete or an update. A rewrite is of the whole file; of the unknown nothing can be told beforehand.
    """

    kind: EffectKind
    name: str = ""
    column: str | None = None
    via: str | None = None
    everywhere: bool = False


class Effects(NamedTuple):
    """What a statement would do: what it destroys, the tables that it may write to, and those that it makes; the one
    whose rows it changes itself, and what it reads, its triggers aside."""

    destroyed: tuple[Effect, ...] = ()
    written: frozenset[str] = frozenset()
    created: frozenset[str] = frozenset()
    target: str = ""
    read: frozenset[str] = frozenset()


class TableChange(NamedTuple):
    """How the rows of a table differ between two states. `values` counts, by column, those that became others or, with
    their column, were lost, in rows that both states have."""

    table: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    values: tuple[tuple[str, int], ...] = ()


class Answer(NamedTuple):
    """What a query found: the names of its columns, how many rows, and the first of them."""

    columns: tuple[str, ...]
    rows: int
    first: Row | None


class StatementError(Exception):
    """The database refused a statement; `offset` is the character at which, when that is known."""

    def __init__(self, message: str, offset: int | None = None, *, constraint: bool = False) -> None:
        super().__init__(message)
        self.offset = offset
        self.constraint = constraint
        """A constraint or a trigger refused a row."""


class OutOfSpace(StatementError):
    """The disk, or a quota, is full."""


class OrphansLeft(Exception):
    """A commit was refused because rows would have lost their parent."""

    def __init__(self, orphans: Counter[Orphan]) -> None:
        super().__init__("rows without a parent")
        self.orphans = orphans


class Forbidden(Exception):
    """A function tried what may not be done with a borrowed connection. `frames` are file and line of where, the
    innermost last."""

    def __init__(self, what: str, fix: str, frames: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.frames = frames


class Borrowing(NamedTuple):
    """Which tables a borrowed connection must not change, in lower case, and what of what is refused otherwise (attach,
    cascade) is allowed."""

    protected: tuple[str, ...]
    allow: frozenset[str]


class Stopped(Exception):
    """The caller asked to stop (`Patience.stop`)."""


class Database(Protocol):
    """An open connection. Statements outside `transaction()` commit by themselves.

    Raises StatementError, OutOfSpace, Stopped, and DatabaseLocked when patience ends.
    """

    @property
    def dialect(self) -> str: ...

    @property
    def name(self) -> str:
        """The database as a person knows it, without any password."""

    @property
    def folder(self) -> str:
        """Where its disk space is."""

    @property
    def in_transaction(self) -> bool: ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]: ...

    def answer(self, sql: str) -> Answer:
        """Ask a query to its end, and keep no more of what it finds than its shape."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement to its end; the number of rows that it changed, those of its triggers included."""

    def change(self, sql: str, parameters: Mapping[str, object]) -> int:
        """Run an INSERT, UPDATE or DELETE; the number of rows that it changed itself, those of its triggers not
        included."""

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns; none when there is no such table."""

    def tables(self) -> dict[str, list[str]]:
        """Every table of the user's with its columns."""

    def counts(self, table: str, columns: Sequence[str]) -> list[int]:
        """The number of a table's rows, and then, for each column, of those with a value."""

    def size(self, table: str) -> int:
        """About how many rows a table has, counted in steps: no other has to wait for long."""

    def objects(self) -> list[SchemaObject]:
        """The user's schema, by type and name."""

    def definitions(self) -> list[str]:
        """The SQL that makes the user's schema anew, in an order in which it runs: by kind and name."""

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the user's schema; the ledger's own tables do not count."""

    def transaction(self, *, foreign_keys: bool = True) -> AbstractContextManager[Counter[Orphan]]:
        """All or nothing. With `foreign_keys` false they are not enforced inside, and OrphansLeft is raised instead of
        committing when that left rows without their parent; yields the orphans that were there before."""

    def orphans(self) -> Counter[Orphan]: ...

    @property
    def blocks_writers(self) -> bool:
        """Whether others must wait with their commits while this connection reads."""

    def triggers(self, table: str) -> list[str]:
        """The names of a table's triggers."""

    def problems(self, *, quick: bool = False) -> list[str]:
        """What the database's own examination of the whole of it finds damaged; a quick one does not compare indexes
        with their tables."""

    def last_id(self, table: str) -> int:
        """The highest key that a table whose keys count up has ever given out; 0 when it gave none."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Questions inside are all answered as of one moment, whatever others write meanwhile."""

    def cascades(self, drop_table: str) -> tuple[str, list[str]]:
        """The table that a DROP TABLE names, and the others of which it would delete or change rows."""

    def lend(self, use: Callable[[Any], object], rules: Borrowing) -> int:
        """Call a function with the DB-API connection itself, in the transaction that is open; the number of rows that
        it changed. What it has set on the connection does not outlive the call.

        Raises Forbidden when it tried what the rules, or the transaction, do not allow, whatever it made of the
        refusal; else what the function raises."""

    def effects(self, sql: str) -> Effects:
        """What a statement would do to the database as it is now. Does not run it."""

    def rebuild(self, rebuild: Rebuild) -> Rebuilding:
        """Think a rebuild of a table through. Raises StatementError for one that cannot be done as it is written."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only migration run on this database. Raises RunLocked when patience ends."""

    def note_attempt(self, text: str | None) -> None:
        """Keep, outside the database, what its holder of the lock is about to run; None forgets it."""

    def attempt(self) -> str | None:
        """What was noted and not forgotten: a process was killed."""

    def reset(self, *, settings: bool) -> None:
        """Forget what a script left on the connection: temporary objects and, if it has changed any, settings."""

    def close(self) -> None: ...


class Workspace(Protocol):
    """Copies of a database. Raises NoSpace, Stopped, DatabaseLocked and DatabaseUnusable."""

    @property
    def folder(self) -> str:
        """Where its disk space is."""

    def original(self, progress: Callable[[int, int], None]) -> str:
        """A consistent copy of the database as it is now, or an empty one when there is none."""

    def clone(self, database: str) -> str:
        """A copy of a copy that no connection is open to."""

    def remove(self, database: str) -> None:
        """Give a copy's space back."""


def connect(database: str, *, readonly: bool = False, patience: Patience | None = None) -> Database:
    """Open a database by path or URL. Raises DatabaseUnsupported, and what the engine's module says."""
    from financial_agent.migrator.databases import sqlite

    path = sqlite.path_of(database)
    return sqlite.SqliteDatabase(path, readonly=readonly, patience=patience or Patience())


def exists(database: str) -> bool:
    """Whether there is anything to ask: a missing SQLite file is a new database."""
    from financial_agent.migrator.databases import sqlite

    return sqlite.exists(sqlite.path_of(database))


def file_of(database: str) -> Path:
    """The file that a database is in, links followed."""
    from financial_agent.migrator.databases import sqlite

    return sqlite.path_of(database).resolve()


def scratch(database: str | None, patience: Patience) -> Database:
    """A database in memory with the schema of another, or, for None, without any; it has no rows."""
    from financial_agent.migrator.databases import sqlite, sqlite_scratch

    if database is None:
        return sqlite_scratch.Scratch(None)
    path = sqlite.path_of(database)
    with closing(sqlite.SqliteDatabase(path, readonly=True, patience=patience)) as original:
        return sqlite_scratch.Scratch(original)


def copy(
    database: str, target: Path, patience: Patience, progress: Callable[[int, int], None], *, mode: int = 0o600
) -> None:
    """Make a new file, a consistent copy of a database that others go on writing to; the original is only read.

    `progress` hears how many bytes are done, and of how many. The copy belongs to the database's owner, and its mode
    has no bit that the database's lacks, except that its owner may read and write it. It is not synced. Raises NoSpace,
    Stopped, DatabaseLocked, and DatabaseUnusable for either of the two files; after an error there is no copy.
    """
    from financial_agent.migrator.databases import sqlite, sqlite_copy

    sqlite_copy.copy(sqlite.path_of(database), target, mode, patience, progress)


@contextmanager
def workspace(database: str | None, patience: Patience) -> Iterator[Workspace]:
    """A place for copies of a database that only its owner may enter: beside it, where its space and its privacy are,
    or, if that cannot be written to, or for None, where temporary files are. It is gone when the context ends, or the
    process, even by kill -9. Raises NoSpace and DatabaseUnusable."""
    from financial_agent.migrator.databases import sqlite, sqlite_workspace

    path = None if database is None else sqlite.path_of(database)
    with sqlite_workspace.workspace(path, patience) as copies:
        yield copies


def compare(before: str, after: str, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    """What differs between the rows of two databases that nobody writes to, in some tables (by their names in lower
    case) or in all. Raises StatementError and Stopped."""
    from financial_agent.migrator.databases import sqlite, sqlite_compare

    return sqlite_compare.compare(sqlite.path_of(before), sqlite.path_of(after), tables, patience)


class SoleDatabase(Database, Protocol):
    """The only connection to a database: until it is closed, nobody else reads or writes."""

    def copy(self, target: Path, mode: int, progress: Callable[[int, int], None]) -> None:
        """As `copy`."""

    def replace_by(self, other: Path, progress: Callable[[int, int], None]) -> None:
        """Take over the content of another database, in one transaction. Raises OutOfSpace, StatementError, Stopped."""


def connect_alone(database: str, patience: Patience) -> SoleDatabase:
    """Open a database that is there, once all others have let go of it.

    Raises DatabaseLocked, DatabaseDamaged, and what `connect` raises.
    """
    from financial_agent.migrator.databases import sqlite, sqlite_replace

    return sqlite_replace.Sole(sqlite.path_of(database), patience=patience)


@contextmanager
def locked(database: str, patience: Patience) -> Iterator[None]:
    """Be the only run on a database, which may be damaged, or missing. Raises RunLocked."""
    from financial_agent.migrator.databases import sqlite, sqlite_replace

    with closing(sqlite_replace.Unopened(sqlite.path_of(database), patience=patience)) as db, db.lock():
        yield


def put_in_place(database: str, other: Path, kept: Path) -> None:
    """Put a file on the same disk into a database's place. What is there is kept under another name. Raises OSError."""
    from financial_agent.migrator.databases import sqlite_replace

    sqlite_replace.put_in_place(file_of(database), other, kept)


def display_name(database: str) -> str:
    """The database's name for messages. Of a URL only what cannot be a password is shown."""
    scheme, separator, rest = database.removeprefix("sqlite:///").partition(":/")
    if not re.fullmatch(r"[A-Za-z][\w+.-]+", scheme) or not separator:
        return database
    rest = rest.removeprefix("/")
    plain = re.fullmatch(r"(?:([\w.~-]*)(?::[^@/?#]*)?@)?([\w.-]+(?::\d+)?(?:/[\w.-]*)?)", rest)
    if not plain:
        return f"{scheme}://…"
    return f"{scheme}://{plain[1]}@{plain[2]}" if plain[1] else f"{scheme}://{plain[2]}"
