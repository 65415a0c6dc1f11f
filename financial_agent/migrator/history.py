"""What ever happened to a database: the rows of `_migration_history`, as they can be shown."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

from financial_agent.migrator import ledger, plan
from financial_agent.migrator.databases import connect, exists
from financial_agent.migrator.session import ASKING, explained


@dataclass(frozen=True)
class Line:
    """One event. Times are UTC; what an older version did not record is None."""

    id: int | None
    started_at: str | None
    event: str | None
    filename: str | None
    duration_ms: int | None
    statements: int | None
    rows_changed: int | None
    os_user: str | None
    host: str | None
    tool_version: str | None
    git_commit: str | None
    error: str | None
    exit_code: int | None
    note: str | None
    checksum: str | None
    entry_sha256: str | None
    previous_sha256: str | None


_NUMBERS = {field.name for field in fields(Line) if field.type == "int | None"}


def read(database: str, target: str | None = None) -> list[Line]:
    """The events, the oldest first: all, or those of the migration that the target names. Writes nothing.

    Raises TargetUnknown, TargetAmbiguous, LedgerUnusable, and what opening the database raises.
    """
    if not exists(database):
        return _of([], target)
    with explained(database, ASKING), closing(connect(database, readonly=True, patience=ASKING.patience())) as db:
        return _of([_line(row) for row in ledger.history(db)], target)


def slowest(lines: Sequence[Line]) -> list[Line]:
    """The same, the longest first; what took no time that is known stands last."""
    return sorted(lines, key=lambda line: -1 if line.duration_ms is None else line.duration_ms, reverse=True)


def _of(lines: list[Line], target: str | None) -> list[Line]:
    if target is None:
        return lines
    filename = plan.resolve(target, list(dict.fromkeys(line.filename for line in lines if line.filename)))
    return [line for line in lines if line.filename == filename]


def _line(row: dict[str, object]) -> Line:
    """SQLite keeps whatever is put into a column, whatever its type: what is no number of text is none."""
    values: dict[str, Any] = {
        field.name: value if isinstance(value := row.get(field.name), int if field.name in _NUMBERS else str) else None
        for field in fields(Line)
    }
    return Line(**values)
