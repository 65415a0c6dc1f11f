"""Runs migrations on a scratch database, on no rows, to know what schema they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from financial_agent.migrator import rebuild, schema
from financial_agent.migrator.assertions import is_assertion
from financial_agent.migrator.databases import Database, Patience, StatementError, Stopped, scratch
from financial_agent.migrator.databases.rebuild import Rebuild
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.errors_run import RunFailed
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Step
from financial_agent.migrator.schema import Schema

# ANALYZE makes tables that a later DROP may name. What controls transactions is left only in a script without one.
_DEFINING = {
    *("CREATE", "ALTER", "DROP", "ANALYZE"),
    *("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"),
}
# What moves data on a server, or says who may do what with it.
_ROWS = {
    *(
        "INSERT",
        "UPDATE",
        "DELETE",
        "REPLACE",
        "MERGE",
        "COPY",
        "LOAD",
        "TRUNCATE",
        "VALUES",
        "WITH",
        "GRANT",
        "REVOKE",
    ),
    *("ANALYZE", "VACUUM", "REINDEX", "REFRESH", "OPTIMIZE", "EXPLAIN", "NOTIFY", "LOCK"),
}
# What a PRAGMA names that changes what ALTER TABLE does, or whether the schema's own table can be written.
_SETTINGS = ("foreign_keys", "legacy_alter_table", "writable_schema", "schema_version")
_SCHEMA_TABLES = ("sqlite_schema", "sqlite_master")


class CannotReplay(Exception):
    """A migration does not run on a scratch database: it needs rows, another database, or what is missing here."""

    def __init__(self, filename: str, why: str) -> None:
        super().__init__(f"{filename} cannot be replayed: {why}")
        self.filename = filename
        self.why = why


def replay(database: str, steps: Iterable[Step], patience: Patience) -> Iterator[Schema]:
    """The schema after each of the steps, which begin with no schema, as the engine of a database makes it. Raises
    CannotReplay, and Stopped."""
    with scratch(database, patience, empty=True) as db:
        for step in steps:
            _run(db, step, patience)
            yield schema.read(db)


def result(database: str, steps: Iterable[Step], patience: Patience) -> Schema:
    """The schema after all of the steps. Raises CannotReplay, and Stopped."""
    with scratch(database, patience, empty=True) as db:
        for step in steps:
            _run(db, step, patience)
        return schema.read(db)


def undoable(database: str, steps: Iterable[Step], patience: Patience) -> dict[str, bool]:
    """Which of the steps, that would run on a database, which may be a new one, the engine could undo without a
    down section; up to the one that cannot be replayed."""
    found: dict[str, bool] = {}
    with scratch(database, patience) as db, suppress(CannotReplay):
        for step in steps:
            found[step.filename] = rebuild.down_text(_run(db, step, patience)) is not None
    return found


def _run(db: Database, step: Step, patience: Patience) -> list[Rebuild | None]:
    """Returns what undoes each of the statements that define something."""
    reverses = []
    if step.script.is_python:
        raise CannotReplay(step.filename, "it is Python, which runs only when it is applied")
    try:
        db.enforce_foreign_keys(step.script.foreign_keys)
        for statement in step.script.statements():
            if patience.stop(""):
                raise Stopped
            if is_defining(db, statement) and not _is_of_server(db, step, statement):
                reverses.append(rebuild.execute(db, step, statement, "").reverse)
        db.reset(settings=step.script.leaves_settings)
        return reverses
    except (StatementError, FileRefused, RunFailed) as error:
        raise CannotReplay(step.filename, str(error)) from error
    except Stopped:
        if patience.stop(""):
            raise
        raise CannotReplay(step.filename, "it takes too long") from None


def is_defining(db: Database, statement: Statement) -> bool:
    """Whether the schema may depend on a statement. On a server that may also be what calls a function, or runs a
    program of its own."""
    if not db.knows_effects_by_words:
        return defines(statement)
    return not is_assertion(statement) and statement.keyword not in _ROWS


def _is_of_server(db: Database, step: Step, statement: Statement) -> bool:
    """Whether a statement is about the server itself, which has it already. Raises CannotReplay for one that names
    another database."""
    what = db.reach(statement.text)
    if "." in what:
        raise CannotReplay(step.filename, f"it names another database ({what})")
    return bool(what)


def defines(statement: Statement) -> bool:
    """Whether, on SQLite, the schema may depend on a statement; those that only move data are passed over."""
    if statement.keyword == "PRAGMA":
        return any(name in statement.text.lower() for name in _SETTINGS)
    if statement.keyword in ("INSERT", "UPDATE", "DELETE"):
        return any(name in statement.text.lower() for name in _SCHEMA_TABLES)
    return statement.keyword in _DEFINING
