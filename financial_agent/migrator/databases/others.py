"""What there is beside an ordinary connection: copies of a database, and connections of a special kind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from financial_agent.migrator.databases.database import Database, SchemaObject, TableChange


class Workspace(Protocol):
    """Copies of a database. Raises NoSpace, Stopped, DatabaseLocked and DatabaseUnusable."""

    @property
    def space_hint(self) -> str:
        """What to type to see how much disk space is left for them."""

    def original(self, progress: Callable[[int, int], None]) -> str:
        """A consistent copy of the database as it is now, or an empty one when there is none."""

    def clone(self, database: str) -> str:
        """A copy of a copy that no connection is open to."""

    def remove(self, database: str) -> None:
        """Give a copy's space back."""

    def size(self, database: str) -> int:
        """How many bytes a copy takes."""


class UndoneDatabase(Database, Protocol):
    """A connection in one transaction, which is rolled back in the end; what else is a transaction is a part of it."""

    def part(self) -> AbstractContextManager[None]:
        """What is done inside is undone when the context ends."""

    def tally(self) -> dict[str, tuple[int, int, int]]:
        """By table, how many rows were inserted, updated and deleted since the transaction began."""

    def remember(self, table: SchemaObject) -> Callable[[], TableChange] | None:
        """Keep what the rows of a table are. Returns what tells how they differ from that, while the table has the same
        columns; None for a table that is too large."""


class SoleDatabase(Database, Protocol):
    """The only connection to a database: until it is closed, nobody else reads or writes."""

    def copy(self, target: Path, mode: int, progress: Callable[[int, int], None]) -> None:
        """As `copy`."""

    def replace_by(self, other: str, keep: Callable[[], None], progress: Callable[[int, int], None], note: str) -> None:
        """Take over the content of another database, in one transaction. `keep` is called when `copy` copies all that
        is replaced. Where it is no single transaction, the note is kept, as of an attempt, until all is done.

        Raises ReplacedHalfway; NoSpace, DatabaseLocked, StatementError and Stopped, after which nothing was replaced;
        and CommitLost, after which that is not known."""
