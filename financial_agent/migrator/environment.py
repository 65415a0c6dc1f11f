"""Which environment a database belongs to. It tells so itself, in its history: nobody migrates production with a
development configuration by mistake."""

from __future__ import annotations

from dataclasses import dataclass

from financial_agent.migrator import ledger
from financial_agent.migrator.databases import Database
from financial_agent.migrator.errors import EnvironmentDiffers, EnvironmentMissing


@dataclass(frozen=True)
class Environment:
    """What the configuration says that this is; None when it says nothing. With `change`, a database of another
    environment becomes one of this."""

    name: str | None = None
    change: bool = False


def refuse_another(database: str, stamp: str | None, environment: Environment) -> None:
    """Raise EnvironmentDiffers for a database that belongs to another environment, also when none is configured, and
    EnvironmentMissing for a change to none."""
    if environment.change:
        if environment.name is None:
            raise EnvironmentMissing
    elif stamp not in (None, environment.name):
        configured = f"the configuration says {environment.name}" if environment.name else "none is configured"
        name = environment.name or "NAME"
        raise EnvironmentDiffers(database=database, stamp=stamp, configured=configured, name=name)


def stamp_first(db: Database, environment: Environment, git_commit: str | None) -> None:
    """Stamp a database before a run, in a transaction of its own. There is none where nothing is to be told: it would
    wait for the locks of others."""
    if environment.name not in (None, ledger.environment(db)):
        with db.transaction():
            stamp(db, environment, git_commit)


def stamp(db: Database, environment: Environment, git_commit: str | None) -> None:
    """Let the history tell that the database belongs to the environment, unless it does so already; to be called in a
    transaction."""
    before = ledger.environment(db)
    if environment.name in (None, before):
        return
    ledger.prepare(db)
    note = f"it was {before} before" if before else None
    event = ledger.Event("environment", "", ledger.now(), note=note, git_commit=git_commit)
    ledger.append(db, event, environment.name)
