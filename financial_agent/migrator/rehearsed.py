"""What a rehearsal finds, and how it watches the statements of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from financial_agent.migrator import schema
from financial_agent.migrator.databases import Database, Effect, TableChange
from financial_agent.migrator.effects import effects_of
from financial_agent.migrator.errors import MigratorError, RehearsalRefused
from financial_agent.migrator.events import Done
from financial_agent.migrator.lexer import Statement, locate, tokens
from financial_agent.migrator.plan import Step
from financial_agent.migrator.schema import Difference

Place = Literal["a copy", "a copy without rows", "a transaction"]
"""Where steps are rehearsed. In a copy without rows nothing can be said of them."""


@dataclass(frozen=True)
class WayBack:
    """What the down section made of the copy, compared with what was there before the migration."""

    failure: str | None
    schema: tuple[Difference, ...] = ()
    rows: tuple[TableChange, ...] = ()
    not_compared: tuple[str, ...] = ()
    """Tables of which it is not known whether their rows are those of before: they are large."""

    @property
    def is_complete(self) -> bool:
        return not (self.failure or self.schema or self.rows)


@dataclass(frozen=True)
class Rehearsed:
    """What one script did to the copy."""

    step: Step
    done: Done
    destroyed: tuple[tuple[Effect, int], ...]
    """Each with the line of its first statement."""
    rows: tuple[TableChange, ...]
    schema: tuple[Difference, ...]
    orphans: str
    """The rows that lost their parent, by table; empty when there is none."""
    problems: tuple[str, ...]
    """What the database's quick check of itself finds."""
    way_back: WayBack | None
    """None for a rollback, and for a migration that has no down section and can have none made."""


@dataclass(frozen=True)
class Rehearsal:
    """The rehearsal of a run, up to the step that failed. `size`, of the copy, is in bytes."""

    database: str
    where: Place = "a copy"
    size: int = 0
    copy_ms: int = 0
    is_destructive: bool = False
    is_backup_due: bool = False
    """The real run would make a backup first."""
    steps: list[Rehearsed] = field(default_factory=list)
    failure: MigratorError | None = None


def differences_that_count(before: schema.Schema, after: schema.Schema) -> list[Difference]:
    """Without those that renaming something and renaming it back leaves: SQLite puts its name in quotes."""

    def plain(state: schema.Schema) -> dict[tuple[str, str], list[str]]:
        return {(each.type, each.name): [word.strip('"`[]') for word in tokens(each.sql)] for each in state.objects}

    old, new = plain(before), plain(after)
    return [
        each
        for each in schema.differences(before, after)
        if old.get((each.type, each.name)) != new.get((each.type, each.name))
    ]


class Notes:
    """What the statements of a step said that they would do."""

    def __init__(self, step: Step) -> None:
        self.destroyed: dict[Effect, int] = {}
        self.written: set[str] | None = set()
        """The tables that may have changed, in lower case; None for all."""
        self._step = step

    def of(self, db: Database) -> Callable[[Statement], None]:
        if db.knows_effects_by_words:  # which do not tell what triggers write to
            self.written = None

        def note(statement: Statement) -> None:
            self._refuse_to_leave(db, statement)
            effects = effects_of(db, statement)
            for effect in effects.destroyed:
                self.destroyed.setdefault(effect, statement.line)
                if effect.kind in ("unknown", "rewrite"):
                    self.written = None
            if self.written is not None:
                self.written |= {name.lower() for name in effects.written | effects.created}

        return note

    def _refuse_to_leave(self, db: Database, statement: Statement) -> None:
        """Raise RehearsalRefused for what would act beyond the copy, perhaps on the very database."""
        script = self._step.script
        what = "ATTACH" if script.is_python and "attach" in script.allow else db.reach(statement.text)
        if what:
            location = locate(script.source.name, statement, 0)
            raise RehearsalRefused(location=location, name=self._step.filename, what=what)
