"""What the engine knows of a database, whichever it is: the protocol, what it tells, and how it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
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


class ForeignKey(NamedTuple):
    """Which columns of a table refer to which of another. `parent_columns` is empty for the parent's primary key."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...] = ()


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
    "drop schema",
    "drop sequence",
    "drop type",
    "drop routine",
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


class Busy(StatementError):
    """Another connection's lock, or its transaction, was in the way. Nothing of this one's transaction remains: it may
    be tried again."""


class ConnectionLost(StatementError):
    """The connection to the server broke. What was not committed is undone; of a COMMIT, or a statement that commits by
    itself, that was on its way is not known whether it took effect."""


class CommitLost(ConnectionLost):
    """It broke while a commit was on its way: what that would have committed is there as a whole, or not at all."""


class ReplacedHalfway(Exception):
    """The tables are those of the other database, and what belongs to them is not complete."""


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
    def has_transactional_ddl(self) -> bool:
        """Whether a transaction undoes definitions, too. Where it does not, each of them commits by itself, together
        with all that was open (https://dev.mysql.com/doc/refman/en/implicit-commit.html)."""

    @property
    def resumes(self) -> bool:
        """Whether what runs without a transaction is journalled, so that the next run goes on behind what is done."""

    @property
    def knows_effects_by_words(self) -> bool:
        """Whether `effects` needs the statement alone: the schema may be as it is before the statements above it."""

    @property
    def ledger_types(self) -> Mapping[str, str]:
        """How a column of the ledger is defined, by its kind: id, name, key, moment, text, required, number,
        count, bytes."""

    @property
    def ledger_options(self) -> str:
        """What stands behind the columns where a table of the ledger's is made."""

    @property
    def name(self) -> str:
        """The database as a person knows it, without any password."""

    @property
    def address(self) -> str:
        """The path or URL that `connect` takes. It may hold a password, and is never shown."""

    @property
    def space_hint(self) -> str:
        """What to type to see how much disk space is left."""

    def look_hint(self, table: str) -> str:
        """What to type to look at a table's definition."""

    @property
    def mend_hint(self) -> str:
        """What to do when it is damaged."""

    def about(self) -> str:
        """What it is, in a few words."""

    @property
    def in_transaction(self) -> bool: ...

    def quoted(self, name: str) -> str:
        """A name as it is written in a statement."""

    def written(self, table: str) -> str:
        """One of `tables()` as it is written in a statement."""

    def ledger(self, table: str) -> str:
        """How one of the ledger's tables is written in a statement, wherever names without a schema lead."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows. With parameters, `?` stands for each of them, whatever the driver's own mark is."""

    def answer(self, sql: str) -> Answer:
        """Ask a query to its end, and keep no more of what it finds than its shape."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement to its end; the number of rows that it changed, those of its triggers included where the
        database counts them. The one parameter of a COPY … FROM stdin is the lines that it reads."""

    def define(self, sql: str) -> object:
        """Make or change a table of the ledger's. If a transaction is open, one is open behind it, too; the part before
        it is committed where definitions are not transactional."""

    def change(self, sql: str) -> int:
        """Run an INSERT, UPDATE or DELETE; the number of rows that it changed itself, those of its triggers not
        included."""

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns, the ledger's included; none when there is no such table."""

    def tables(self) -> dict[str, list[str]]:
        """Every table of the user's with its columns."""

    def fillable(self) -> dict[str, str]:
        """The tables of the user's that rows can be put into, each with its definition."""

    def foreign_keys(self, table: str) -> list[ForeignKey]:
        """Those that a table has."""

    @property
    def default_row(self) -> str:
        """What an INSERT says behind the table's name to leave everything to the defaults."""

    @property
    def reads_text(self) -> bool:
        """Whether a value that is given as text becomes one of its column's type."""

    def counts_up(self, table: SchemaObject, column: Column) -> bool:
        """Whether a column is given a number by itself where an INSERT leaves it out."""

    def spelled_out(self, type_: str) -> str:
        """A column's type; of one of the user's that lists its values, those, too, each in quotes."""

    def is_recent(self, table: str, column: str) -> bool:
        """Whether a column holds a moment of the last day, or of later."""

    def counts(self, table: str, columns: Sequence[str]) -> list[int]:
        """The number of a table's rows, and then, for each column, of those with a value."""

    def size(self, table: str) -> int:
        """About how many rows a table has, counted in steps: no other has to wait for long."""

    def objects(self) -> list[SchemaObject]:
        """The user's schema, by type and name."""

    def script(self) -> str:
        """The SQL that makes the user's schema anew, for the engine's own client: the same for equal schemas. To be
        called inside `snapshot`."""

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the user's schema; the ledger's own tables do not count."""

    def transaction(self, *, foreign_keys: bool = True) -> AbstractContextManager[Counter[Orphan]]:
        """All or nothing. With `foreign_keys` false they are not enforced inside, and OrphansLeft is raised instead of
        committing when that left rows without their parent; yields the orphans that were there before."""

    def enforce_foreign_keys(self, enforce: bool) -> None:
        """For the statements that follow, outside a transaction."""

    def forgo_durability(self) -> None:
        """Be quick with what nobody needs after a power cut."""

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

    def reach(self, sql: str) -> str:
        """What of a statement reaches beyond this database, in a few words; empty when nothing does. On a copy it would
        act on the server, on another file, or on the original."""

    def rebuild(self, rebuild: Rebuild) -> Rebuilding:
        """Think a rebuild of a table through. Raises StatementError for one that cannot be done as it is written."""

    def settle(self) -> None:
        """Behind a script, in the transaction that is open: check what was put off, and undo what the script has set,
        so that the record is written, and the connection left, with the engine's own settings."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only migration run on this database. Raises RunLocked when patience ends."""

    def note_attempt(self, text: str | None) -> None:
        """Keep, outside the database, what its holder of the lock is about to run; None forgets it."""

    def attempt(self) -> str | None:
        """What was noted and not forgotten: a process was killed."""

    def reset(self, *, settings: bool) -> None:
        """Forget what a script left on the connection: temporary objects and, if it has changed any, settings."""

    def close(self) -> None: ...
