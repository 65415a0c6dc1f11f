"""What PostgreSQL's errors mean, told without what a row holds.

The codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

import psycopg

from financial_agent.migrator.databases.database import Busy, ConnectionLost, OutOfSpace, StatementError

_BUSY = {"55P03", "40P01", "40001"}  # a lock's timeout, a deadlock, a serialization failure
_FULL = {"53100"}
_CONSTRAINT = "23"
_DATA = "22"
# The classes of errors whose DETAIL speaks of the schema. That of others may quote a row: Key (email)=(…) exists.
_SCHEMA = ("0A", "2B", "3D", "3F", "40", "42", "55")
_quoted = re.compile(r'"[^"]*"')


def explained(error: psycopg.Error, *, is_lost: bool) -> StatementError:
    """The same failure in the words of the seam."""
    state = error.sqlstate or ""
    if is_lost:
        return ConnectionLost(f"the connection to the server was lost: {first_line(error)}")
    message, offset = _message(error, state), _offset(error)
    if state in _BUSY:
        return Busy(message, offset)
    if state in _FULL:
        return OutOfSpace(message, offset)
    return StatementError(message, offset, constraint=state.startswith(_CONSTRAINT))


def is_environmental(error: psycopg.Error, *, is_lost: bool) -> bool:
    """Whether what failed is not the statement's own doing."""
    return is_lost or error.sqlstate in _BUSY | _FULL


def first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error) or type(error).__name__).splitlines()[0]


def _message(error: psycopg.Error, state: str) -> str:
    diagnosis = error.diag
    message = first_line(error)
    # What cannot be read as a value is quoted. Where the statement itself holds it, its place is known.
    if state.startswith(_DATA) and diagnosis.statement_position is None:
        message = _quoted.sub("…", message)
    parts = [message]
    if diagnosis.message_detail and state.startswith(_SCHEMA):
        parts.append(" ".join(diagnosis.message_detail.split()))
    if diagnosis.message_hint:
        parts.append(f"Hint: {' '.join(diagnosis.message_hint.split())}")
    return "; ".join(part.rstrip(".") for part in parts)


def _offset(error: psycopg.Error) -> int | None:
    position = error.diag.statement_position
    return int(position) - 1 if position else None
