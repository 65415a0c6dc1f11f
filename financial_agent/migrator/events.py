"""What a run reports while it runs: values, which a front end turns into lines, a progress bar or a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Waiting:
    """Something else holds a lock; reported several times a second."""

    purpose: str


@dataclass(frozen=True)
class Started:
    """A script begins, which has so many statements."""

    filename: str
    direction: Literal["up", "down"]
    statements: int


@dataclass(frozen=True)
class Ticked:
    """A statement is still at work; reported many times a second."""


@dataclass(frozen=True)
class Working:
    """A script is being run; reported several times a second between its statements."""

    filename: str
    done: int
    """Statements of this script that are behind it."""


@dataclass(frozen=True)
class Batched:
    """A batch is committed. Rows are counted since its statement began in this run."""

    filename: str
    table: str
    rows: int
    table_rows: int | None
    """How many the table had then, which is the most that can come; None where that says nothing."""


@dataclass(frozen=True)
class Done:
    """A script and its record are committed."""

    filename: str
    direction: Literal["up", "down"]
    duration_ms: int
    statements: int
    rows_changed: int
    blocked_ms: int
    """How long it kept other writers waiting at a stretch: a transaction, or a statement outside of one."""
    batches: int = 0
    """Those of all runs that it took."""


@dataclass(frozen=True)
class Copying:
    """A database is being copied, for a backup, a rehearsal, …; reported many times a second."""

    purpose: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Checking:
    """Migrations are being checked; reported before each of them."""

    filename: str
    done: int
    """Migrations that are behind it."""
    total: int


@dataclass(frozen=True)
class BackedUp:
    """A backup was made; `path` is where. The size is in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Warned:
    """Something that a person should know and that stops nothing. `details` are lines of a diff."""

    filename: str
    message: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recovered:
    """A migration was recorded, and not run, because the schema that it leaves was there and the ledger was lost."""

    filename: str


Event = Waiting | Started | Ticked | Working | Batched | Copying | Checking | BackedUp | Done | Warned | Recovered
