"""What the server answers, as Python's numbers, truth values and bytes; everything else is the server's text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg.pq import Escaping
from psycopg.pq.abc import PGresult

from financial_agent.migrator.databases.database import Row

_CHANGES = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"COPY")
_ENDS = (b"COMMIT", b"ROLLBACK", b"PREPARE TRANSACTION", b"BEGIN", b"START TRANSACTION")


def _is_true(value: bytes) -> bool:
    return value == b"t"


def _unescaped(value: bytes) -> bytes:
    return bytes(Escaping().unescape_bytea(value))


# By the numbers of their types, which are the same on every server (pg_type.dat). Dates may be infinite, and numbers
# longer than any of Python's types holds: these stay text.
_PARSERS: dict[int, Callable[[bytes], Any]] = {
    16: _is_true,
    17: _unescaped,
    20: int,
    21: int,
    23: int,
    26: int,
    700: float,
    701: float,
}


def names(result: PGresult) -> tuple[str, ...]:
    """The names of a result's columns; none when it is not of a query."""
    return tuple((result.fname(at) or b"").decode("utf-8", "replace") for at in range(result.nfields))


def rows(result: PGresult) -> list[Row]:
    """All its rows."""
    parsers = [_PARSERS.get(result.ftype(at), _text) for at in range(result.nfields)]
    return [
        tuple(
            None if (value := result.get_value(row, at)) is None else parse(value) for at, parse in enumerate(parsers)
        )
        for row in range(result.ntuples)
    ]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def changed(result: PGresult) -> int:
    """How many rows a statement changed."""
    status = result.command_status or b""
    return result.command_tuples or 0 if status.startswith(_CHANGES) else 0


def ends_transaction(result: PGresult) -> bool:
    """Whether it ended the transaction, and perhaps began another one at once."""
    return (result.command_status or b"").startswith(_ENDS)
