"""Rebuilds of tables: from the lines of a file to the database, and what brings the old table back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from financial_agent.migrator.databases import Database, StatementError
from financial_agent.migrator.databases.rebuild import (
    CopyError,
    ObjectBroken,
    Rebuild,
    RowsLost,
    RowsRefused,
    ValuesMissing,
)
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import FileRefused, IndexOfLostColumn
from financial_agent.migrator.errors_run import (
    MigrationFailed,
    RebuildBreaks,
    RebuildLosesRows,
    RowsDoNotFit,
    ValueMissing,
)
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.plan import Step
from financial_agent.migrator.rebuild_text import RebuildText, place_in, read_rebuild
from financial_agent.migrator.script import parse_stored

_MARKER = "-- migrate:down"


class Ran(NamedTuple):
    """How many rows a statement changed, or copied, and the rebuild that undoes it, if it is one and one can."""

    rows: int
    reverse: Rebuild | None = None


def rebuild_of(statement: Statement) -> Rebuild | None:
    """The rebuild that a statement, which was parsed before, stands for."""
    text = read_rebuild(statement, "") if statement.directives else None
    if text is None:
        return None
    return Rebuild(text.table, statement.text, tuple((each.column, each.expression) for each in text.copies))


def execute(db: Database, step: Step, statement: Statement, then: str) -> Ran:
    """Run a statement, or the rebuild that it stands for, which needs foreign keys to be off. `then` is what to do once
    the file is corrected.

    Raises ValueMissing, IndexOfLostColumn, RebuildLosesRows, RebuildBreaks, RowsDoNotFit, MigrationFailed for a wrong
    migrate:copy, and StatementError for all else.
    """
    rebuild = rebuild_of(statement)
    if rebuild is None:
        return Ran(db.execute(statement.text))
    try:
        rebuilding = db.rebuild(rebuild)
        return Ran(rebuilding.perform(), rebuilding.reverse())
    except StatementError as error:
        text = read_rebuild(statement, step.script.source.name)
        explained = _explained(error, text, step, then) if text else None
        if explained is None:
            raise
        raise explained from error


def down_text(reverses: Sequence[Rebuild | None]) -> str | None:
    """The down section of rebuilds that ran in this order, for `parse_stored`; None when one cannot be undone."""
    undoing = [each for each in reversed(reverses) if each]
    text = "\n".join([_MARKER, *(line for each in undoing for line in _lines(each))]) + "\n"
    if not undoing or len(undoing) < len(reverses):
        return None
    try:
        script = parse_stored(text, "", "down")
        # A name with a line feed, or a definition with a directive in a comment, cannot be said in a file.
        return text if [rebuild_of(statement) for statement in script.statements()] == undoing else None
    except FileRefused:
        return None


def is_generated(down_text: str | None) -> bool:
    """Whether the down section that a ledger keeps is none of a file's: there it stands below an up section."""
    return bool(down_text and down_text.startswith(_MARKER))


def _lines(rebuild: Rebuild) -> list[str]:
    copies = [f"-- migrate:copy {_quoted(column)} = {expression}" for column, expression in rebuild.copies]
    return [f"-- migrate:rebuild {_quoted(rebuild.table)}", *copies, rebuild.definition]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _explained(error: StatementError, text: RebuildText, step: Step, then: str) -> MigratorError | None:
    """The same failure in the words of the person who wrote the file; None for what is no matter of a rebuild."""
    source = step.script.source.name
    here = place_in(source, text.directive)
    match error:
        case CopyError():
            copy = next(each for each in text.copies if each.column == error.column)
            offset = 0 if error.offset is None else copy.start + error.offset
            where = place_in(source, copy.directive, offset)
            return MigrationFailed(location=where, name=step.filename, cause=error, then=then)
        case ValuesMissing():
            columns = ", ".join(error.columns)
            missing = {"table": text.table, "columns": columns, "first": error.columns[0]}
            return ValueMissing(location=here, name=step.filename, **missing, then=then)
        case ObjectBroken() if error.type == "index":
            return IndexOfLostColumn(location=here, table=text.table, index=error.name, cause=error)
        case ObjectBroken():
            what = f"{error.type} {error.name}"
            return RebuildBreaks(location=here, name=step.filename, what=what, cause=error, then=then)
        case RowsLost():
            counts = {"before": error.before, "after": error.after}
            return RebuildLosesRows(location=here, name=step.filename, table=text.table, **counts, then=then)
        case RowsRefused():
            rows = "rows" if error.refused is None else f"{error.refused:,} of {error.total:,} rows"
            return RowsDoNotFit(location=here, name=step.filename, rows=rows, table=text.table, cause=error, then=then)
        case _:
            return None
