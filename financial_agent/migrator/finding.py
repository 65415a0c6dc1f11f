"""What the checks of migration files find: one value for the lint, the proof and the lock file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from financial_agent.migrator.errors import Location, MigratorError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. `filename` is the ledger's name for the migration, or the name of another file of
    the folder; `hint` is what to do next, where that is one thing; `details` are lines that show more. A note does not
    make a check fail. `verify`, which looks at a database, has findings of its own kind."""

    code: str
    severity: Severity
    message: str
    filename: str | None = None
    location: Location | None = None
    hint: str = ""
    details: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        return self.severity != "note"


def of_error(error: MigratorError, filename: str | None = None) -> Finding:
    """A failure of the engine as a finding with the same code."""
    return Finding(error.code, "error", error.message, filename, error.location, error.hint)
