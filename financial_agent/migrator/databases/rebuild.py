"""What a rebuild of a table is to a database, and what can stand in its way."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from financial_agent.migrator.databases import Effects, StatementError


class Rebuild(NamedTuple):
    """A table's new definition, a CREATE TABLE. `copies` say with which SQL expression over the old row a column is
    filled; a column that both tables have is copied without being named."""

    table: str
    definition: str
    copies: tuple[tuple[str, str], ...] = ()


class Rebuilding(Protocol):
    """A rebuild of a table as it is now, thought through."""

    def effects(self) -> Effects:
        """What it destroys or overwrites."""

    def reverse(self) -> Rebuild | None:
        """The rebuild that brings the old definition back; None when a column that it drops could not be filled."""

    def perform(self) -> int:
        """Do it, in the transaction that is open, while foreign keys are not enforced. Returns the number of rows.

        Raises the errors below, and what `Database.execute` raises.
        """


class CopyError(StatementError):
    """The expression for a column cannot be computed; `offset` counts in it. Without one, the column is at fault."""

    def __init__(self, message: str, column: str, offset: int | None = None) -> None:
        super().__init__(message, offset)
        self.column = column


class ValuesMissing(StatementError):
    """There are rows, and for new columns that must have a value there is none."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__("a value is missing")
        self.columns = columns


class ObjectBroken(StatementError):
    """An index, trigger or view would not be, or not work, as before."""

    def __init__(self, type_: str, name: str, cause: object) -> None:
        super().__init__(str(cause))
        self.type = type_
        self.name = name


class RowsLost(StatementError):
    """Not every row would have arrived."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__("rows would be lost")
        self.before = before
        self.after = after


class RowsRefused(StatementError):
    """The new definition does not take some rows; how many of all, or None when that is not known."""

    def __init__(self, cause: object, refused: int | None, total: int) -> None:
        super().__init__(str(cause))
        self.refused = refused
        self.total = total
