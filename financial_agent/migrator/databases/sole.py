"""What the engine knows of a database whose whole content is exchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from financial_agent.migrator.databases.database import Database


class SoleDatabase(Database, Protocol):
    """The only connection to a database: until it is closed, nobody else reads or writes."""

    def copy(self, target: Path, mode: int, progress: Callable[[int, int], None]) -> None:
        """As `copy`."""

    def replace_by(self, other: str, keep: Callable[[], None], progress: Callable[[int, int], None], note: str) -> None:
        """Take over the content of another database, in one transaction. `keep` is called when `copy` copies all that
        is replaced. Where it is no single transaction, the note is kept, as of an attempt, until all is done.

        Raises ReplacedHalfway; NoSpace, DatabaseLocked, StatementError and Stopped, after which nothing was replaced;
        and CommitLost, after which that is not known."""
