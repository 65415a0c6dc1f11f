"""The findings of the proof: what is wrong with a migration's way there or back, in words. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from financial_agent.migrator.databases import TableChange
from financial_agent.migrator.errors import CascadeRefused, Location, MigratorError
from financial_agent.migrator.errors_run import BatchEndless
from financial_agent.migrator.finding import Finding, Severity
from financial_agent.migrator.plan import Step
from financial_agent.migrator.schema import Difference
from financial_agent.migrator.script import Migration, Script

NOT_APPLIED, NOT_APPLIED_TO_ROWS = "FA650", "FA651"
NOT_ROLLED_BACK, SCHEMA_NOT_RESTORED, ROWS_NOT_RESTORED, CHANGES_STAY = "FA652", "FA653", "FA654", "FA655"
NOT_APPLIED_AGAIN, APPLIED_DIFFERENTLY = "FA656", "FA657"
NOT_ROLLED_BACK_WITH_ROWS = "FA658"
IRREVERSIBLE, NOT_PROVEN_ON_ROWS, NOT_FILLED, NOT_PROVEN = "FA660", "FA661", "FA662", "FA663"

# What is proven of each migration, with the findings that deny it, or that leave it open.
ASPECTS = {
    "applies": {NOT_APPLIED, NOT_APPLIED_TO_ROWS, NOT_PROVEN_ON_ROWS, NOT_FILLED, NOT_PROVEN},
    "rolls back": {
        *(NOT_ROLLED_BACK, SCHEMA_NOT_RESTORED, ROWS_NOT_RESTORED, CHANGES_STAY),
        *(NOT_ROLLED_BACK_WITH_ROWS, IRREVERSIBLE, NOT_PROVEN),
    },
    "applies again": {NOT_APPLIED_AGAIN, APPLIED_DIFFERENTLY, IRREVERSIBLE, NOT_PROVEN},
}

# Failures that any row brings about, or any two. Others depend on what the rows hold, and generated ones prove nothing.
_WHATEVER_THEY_HOLD = (
    *("NOT NULL constraint failed", "UNIQUE constraint failed", "Cannot add a "),  # SQLite
    *("null value in column", "duplicate key value", "could not create unique index"),  # PostgreSQL
    *("Duplicate entry", "Invalid use of NULL"),  # MariaDB and MySQL
)
_VERBS = {"added": "is left", "changed": "is another", "removed": "is gone"}


def not_applied(migration: Migration, error: MigratorError) -> Finding:
    hint = error.hint.replace("flask db migrate", "flask db check")
    return _at(error, migration.up, NOT_APPLIED, f"it cannot be applied: {_cause(error)}", migration, hint)


def not_applied_to_rows(migration: Migration, error: MigratorError) -> Finding:
    message = f"it can be applied while the tables are empty; where they have rows, it fails: {_cause(error)}"
    return _on_rows(error, migration.up, NOT_APPLIED_TO_ROWS, message, migration)


def not_rolled_back(migration: Migration, error: MigratorError) -> Finding:
    message = f"its down section does not run: {_cause(error)}"
    return _at(error, _down(migration), NOT_ROLLED_BACK, message, migration)


def not_rolled_back_with_rows(migration: Migration, error: MigratorError) -> Finding:
    message = f"its down section fails once there are rows in what its up section made: {_cause(error)}"
    return _on_rows(error, _down(migration), NOT_ROLLED_BACK_WITH_ROWS, message, migration)


def schema_not_restored(migration: Migration, differences: Sequence[Difference]) -> Finding:
    message = "its down section does not make the schema what it was before"
    return _of(_down(migration), SCHEMA_NOT_RESTORED, message, migration, _schema_lines(differences))


def rows_not_restored(
    migration: Migration, there: Mapping[str, TableChange], back: Mapping[str, TableChange]
) -> Iterator[Finding]:
    """`there` is what the up section did to the rows, `back` what both sections did to them together.

    What the up section itself has overwritten or deleted is gone by its nature: that is told, and does not fail.
    """
    lost, stays = list[str](), list[str]()
    for name, after in sorted(back.items()):
        by_up = there.get(name, TableChange(after.table))
        known = {column for column, _ in by_up.values}
        gone = after.deleted - by_up.deleted
        left = after.inserted - after.deleted
        if gone > 0:
            lost.append(f"{after.table}: {_rows(gone)} {'is' if gone == 1 else 'are'} gone")
        elif left > 0:
            lost.append(f"{after.table}: {_rows(left)} {'is' if left == 1 else 'are'} left that were not there before")
        elif after.deleted:
            stays.append(f"{after.table}: {_rows(after.deleted)}")
        for column, count in after.values:
            (stays if column in known else lost).append(f"{after.table}.{column}: {count:,} of the values")
    if lost:
        message = "its down section leaves rows that are not what they were before"
        yield _of(_down(migration), ROWS_NOT_RESTORED, message, migration, lost, "warning")
    if stays:
        message = "its down section does not bring back what its up section has changed or removed"
        yield _of(_down(migration), CHANGES_STAY, message, migration, stays, "note")


def not_applied_again(migration: Migration, error: MigratorError) -> Finding:
    message = f"it cannot be applied again after it was rolled back: {_cause(error)}"
    return _at(error, migration.up, NOT_APPLIED_AGAIN, message, migration)


def applied_differently(migration: Migration, differences: Sequence[Difference]) -> Finding:
    message = "applied again, it makes another schema than at first"
    return _of(migration.up, APPLIED_DIFFERENTLY, message, migration, _schema_lines(differences))


def rows_applied_differently(migration: Migration, changes: Mapping[str, TableChange]) -> Iterator[Finding]:
    """Values differ by the time of day, and keys by what AUTOINCREMENT gave out before: only how many rows there are
    is compared."""
    lines = [
        f"{each.table}: {_rows(abs(more))} {'more' if more > 0 else 'fewer'}"
        for _, each in sorted(changes.items())
        if (more := each.inserted - each.deleted)
    ]
    if lines:
        message = "applied again, it leaves other rows than at first"
        yield _of(migration.up, APPLIED_DIFFERENTLY, message, migration, lines)


def irreversible(migration: Migration) -> Finding:
    message = "it has no down section: it cannot be rolled back"
    return _of(migration.up, IRREVERSIBLE, message, migration, severity="note")


def not_filled(migration: Migration, tables: Sequence[str]) -> Finding:
    message = f"no rows were found that fit {', '.join(tables)}: what is done to rows there is not proven"
    return _of(migration.up, NOT_FILLED, message, migration, severity="note")


def unprovable(step: Step, error: MigratorError) -> Finding:
    message = f"it is not proven, as it cannot run on a scratch database: {_cause(error)}"
    return Finding(NOT_PROVEN, "note", message, step.filename, error.location)


def unproven(migrations: Sequence[Migration]) -> list[Finding]:
    """What stands behind a migration that could not be applied."""
    return [
        _of(each.up, NOT_PROVEN, "it is not proven, as one before it could not be applied", each, severity="note")
        for each in migrations
    ]


def _on_rows(error: MigratorError, script: Script, code: str, message: str, migration: Migration) -> Finding:
    cause = _cause(error)
    if isinstance(error, BatchEndless | CascadeRefused) or cause.startswith(_WHATEVER_THEY_HOLD):
        return _at(error, script, code, message, migration, severity="warning")
    what = "it" if script is migration.up else "the way back"
    message = f"{what} is not proven on rows, as it fails on those that were generated: {cause}"
    return _at(error, script, NOT_PROVEN_ON_ROWS, message, migration, severity="note")


def _at(
    error: MigratorError,
    script: Script,
    code: str,
    message: str,
    migration: Migration,
    hint: str = "",
    severity: Severity = "error",
) -> Finding:
    place = error.location or _marker(script)
    if place.path != str(migration.file.path):  # a down section that was made, which no file has
        place = _marker(migration.up)
    return Finding(code, severity, message, migration.file.filename, place, hint)


def _of(
    script: Script,
    code: str,
    message: str,
    migration: Migration,
    details: Sequence[str] = (),
    severity: Severity = "error",
) -> Finding:
    return Finding(code, severity, message, migration.file.filename, _marker(script), details=tuple(details))


def _marker(script: Script) -> Location:
    return Location(script.source.name, script.line)


def _down(migration: Migration) -> Script:
    assert migration.down
    return migration.down


def _cause(error: MigratorError) -> str:
    """Without the file's name, which the finding has."""
    return str(error.fields.get("cause", error.message))


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _schema_lines(differences: Sequence[Difference]) -> list[str]:
    lines = []
    for each in differences:
        owner = f" on {each.table}" if each.type in ("index", "trigger") else ""
        lines.append(f"{each.type} {each.name}{owner} {_VERBS[each.change]}")
        lines += [f"  {line}" for line in (*each.columns, *each.diff)]
    return lines
