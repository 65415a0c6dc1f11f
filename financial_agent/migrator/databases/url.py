"""The URL of a database on a server, taken apart. Its password is in none of the messages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from financial_agent.migrator.databases import display_name
from financial_agent.migrator.errors import UrlInvalid

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")


@dataclass(frozen=True)
class Url:
    """`scheme://user:password@host:port/name?option=value`. What is missing is for the driver to choose."""

    display: str
    """Without anything that could be a password."""
    user: str | None
    password: str | None = field(repr=False)
    host: str | None
    port: int | None
    name: str
    options: dict[str, str] = field(repr=False)
    lock_timeout: float = 5.0
    """How long a statement may wait in the queue for a lock, in seconds, while others queue behind it."""
    ledger_schema: str | None = None
    """Where the ledger's tables are; None for where tables are made."""


def parse(database: str) -> Url:
    """Take a URL apart. What stands percent-encoded in it is decoded. Raises UrlInvalid."""
    display = display_name(database)

    def refuse(why: str) -> UrlInvalid:
        return UrlInvalid(database=display, why=why)

    if not re.match(r"\w+://", database):  # all of it would be the database's name, with the password
        raise refuse("a slash is missing")
    try:
        parts = urlsplit(database)
        port = parts.port
        options = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
        )
        user, password, host, name = (
            None if text is None else unquote(text, errors="strict")
            for text in (parts.username, parts.password, parts.hostname, parts.path.removeprefix("/"))
        )
    except ValueError:  # its own message may quote the password
        raise refuse("its parts cannot be told from each other") from None
    if parts.fragment or "#" in database:
        raise refuse("it has a #, which is written %23")
    if not name:
        raise refuse("it names no database")
    timeout = _SECONDS.fullmatch(options.pop("lock_timeout", "5s"))
    if not timeout:
        raise refuse("lock_timeout is a number of seconds, as in lock_timeout=5s")
    schema = options.pop("ledger_schema", None)
    return Url(display, user, password, host, port, name, options, float(timeout[1]), schema)
