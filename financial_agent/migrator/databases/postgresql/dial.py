"""Connects to a PostgreSQL server through psycopg, and says why when that fails."""

from __future__ import annotations

import re
import shlex
from typing import Any

import psycopg

from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import DatabaseUnusable

Connection = psycopg.Connection[tuple[Any, ...]]

# By what the server names the connections of this program.
ASKING, RUNNING, LOCKING = "financial_agent asks", "financial_agent runs", "financial_agent lock"

_CONNECTING = 10  # seconds that a server has to answer
_SECRETS = ("password", "sslpassword", "passfile")
# What libpq says, and what to do about it. Refusals have no SQLSTATE of their own there.
_FIXES = (
    (r"does not exist", "createdb {options}{name}", "database"),
    (r"password authentication failed|no password supplied", "Look at the user and the password in DATABASE", ""),
    (r"no pg_hba\.conf entry|authentication failed", "Let the server's pg_hba.conf allow this user and address", ""),
    (
        r"SSL|certificate",
        "Look at sslmode and sslrootcert in the URL (postgresql.org/docs/current/libpq-ssl.html)",
        "",
    ),
    (r"too many (clients|connections)|remaining connection slots", "Close connections, or raise max_connections", ""),
    (r"starting up|shutting down|recovery", "Wait until the server is ready: pg_isready {options}", ""),
    (r"could not translate host name|Name or service|resolve", "Look at the host in DATABASE", ""),
)
_OTHERWISE = "See whether the server runs there: pg_isready {options}"


def dial(url: Url, application: str) -> Connection:
    """A connection in autocommit mode, whose server names it by the application.

    Raises DatabaseUnusable, which has no password in it, nor a cause that has.
    """
    arguments: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.user,
        "password": url.password,
        "dbname": url.name,
        "connect_timeout": _CONNECTING,
        # A network that has gone is noticed in a minute, not in the two hours of the system's default.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        **url.options,
        # Neither is left to the surroundings: other connections of this program are known by the first, and files are
        # UTF-8. Nothing goes through `options`, which PgBouncer refuses.
        "application_name": application,
        "client_encoding": "UTF8",
    }
    arguments = {name: value for name, value in arguments.items() if value is not None}
    try:
        # Statements that are prepared on the server vanish behind a pooler.
        return psycopg.connect(autocommit=True, prepare_threshold=None, **arguments)
    except (psycopg.Error, UnicodeError, ValueError) as error:
        message = str(error)
    raise _unusable(url, message)


def _unusable(url: Url, message: str) -> DatabaseUnusable:
    cause = _without_secrets(message, url)
    wrong = next((fix for pattern, fix, needs in _FIXES if needs in cause and re.search(pattern, cause)), _OTHERWISE)
    host = url.options.get("host", url.host)
    given = (("-h", host), ("-p", url.port), ("-U", url.user))
    options = "".join(f"{option} {shlex.quote(str(value))} " for option, value in given if value)
    fix = wrong.format(options=options, name=shlex.quote(url.name))
    return DatabaseUnusable(database=url.display, cause=cause, fix=fix.rstrip())


def _without_secrets(message: str, url: Url) -> str:
    """The last line of what libpq says of several attempts, in which no secret stands, however it came in."""
    for secret in (url.password, *(url.options.get(name) for name in _SECRETS)):
        if secret:
            message = message.replace(secret, "…")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in lines if "FATAL" in line), lines[0] if lines else "it does not answer")
    return told.removeprefix("connection failed: ").removeprefix("- ")
