"""Runs migrations in memory, on no rows, to know what schema they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from financial_agent.migrator import schema
from financial_agent.migrator.databases import Database, Patience, StatementError, Stopped, scratch
from financial_agent.migrator.errors import FileRefused
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Step
from financial_agent.migrator.schema import Schema

# ANALYZE makes tables that a later DROP may name. What controls transactions is left only in a script without one.
_DEFINING = {
    *("CREATE", "ALTER", "DROP", "ANALYZE"),
    *("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"),
}
# What a PRAGMA names that changes what ALTER TABLE does, or whether the schema's own table can be written.
_SETTINGS = ("foreign_keys", "legacy_alter_table", "writable_schema", "schema_version")
_SCHEMA_TABLES = ("sqlite_schema", "sqlite_master")


class CannotReplay(Exception):
    """A migration does not run in memory: it needs rows, another database, or a module that is missing here."""

    def __init__(self, filename: str, why: str) -> None:
        super().__init__(f"{filename} cannot be replayed: {why}")
        self.filename = filename
        self.why = why


def replay(steps: Iterable[Step], patience: Patience) -> Iterator[Schema]:
    """The schema after each of the steps, which begin with no schema. Raises CannotReplay, and Stopped."""
    with closing(scratch(None, patience)) as db:
        for step in steps:
            _run(db, step, patience)
            yield schema.read(db)


def result(steps: Iterable[Step], patience: Patience) -> Schema:
    """The schema after all of the steps. Raises CannotReplay, and Stopped."""
    with closing(scratch(None, patience)) as db:
        for step in steps:
            _run(db, step, patience)
        return schema.read(db)


def _run(db: Database, step: Step, patience: Patience) -> None:
    try:
        db.execute(f"PRAGMA foreign_keys = {'ON' if step.script.foreign_keys else 'OFF'}")
        for statement in step.script.statements():
            if patience.stop(""):
                raise Stopped
            if _defines(statement):
                db.execute(statement.text)
        db.reset(settings=step.script.leaves_settings)
    except (StatementError, FileRefused) as error:
        raise CannotReplay(step.filename, str(error)) from error
    except Stopped:
        if patience.stop(""):
            raise
        raise CannotReplay(step.filename, "it takes too long") from None


def _defines(statement: Statement) -> bool:
    """Whether the schema may depend on a statement; those that only move data are passed over."""
    if statement.keyword == "PRAGMA":
        return any(name in statement.text.lower() for name in _SETTINGS)
    if statement.keyword in ("INSERT", "UPDATE", "DELETE"):
        return any(name in statement.text.lower() for name in _SCHEMA_TABLES)
    return statement.keyword in _DEFINING
