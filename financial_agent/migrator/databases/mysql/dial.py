"""Opens connections to a MySQL or MariaDB server, and fixes what a session's behaviour depends on."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from financial_agent.migrator.databases.database import Row, StatementError
from financial_agent.migrator.databases.mysql import errors
from financial_agent.migrator.databases.server import with_marks
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import DatabaseUnusable, DriverMissing, UrlInvalid
from financial_agent.migrator.errors_server import NodeUnready

Connection = Any
"""PyMySQL's connection, whose types are known in part only."""

PORT = 3306
PROGRAM = "financial_agent"
_CONNECTING = 10  # seconds
_HELD = 31_536_000  # seconds (a year) that a session may be idle: that of the lock is, for as long as a run lasts
# As the lexer reads: neither ANSI_QUOTES nor NO_BACKSLASH_ESCAPES; and what does not fit a column is an error.
_SQL_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"

_TEXTS = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password", "bind_address")
_SWITCHES = ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")
_IGNORED = {"charset": ("utf8mb4",)}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def dial(url: Url, *, readonly: bool = False) -> Connection:
    """A new session: in UTC, in utf8mb4, strict, in autocommit mode. Raises DriverMissing, UrlInvalid and
    DatabaseUnusable."""
    try:
        import pymysql
        from pymysql import converters
        from pymysql.constants import CLIENT, FIELD_TYPE
    except ImportError:
        raise DriverMissing(database=url.display, driver="PyMySQL", extra="mysql") from None
    options = _options(url)
    path = options.pop("unix_socket", None)
    if path:  # where nobody listens in; and making a TLS context takes 50 ms
        options.setdefault("ssl_disabled", True)
    conversions: dict[Any, Any] = {**converters.conversions, FIELD_TYPE.DATETIME: str, FIELD_TYPE.TIMESTAMP: str}
    try:
        connection: Connection = pymysql.Connection(
            host=url.host or "localhost",
            port=url.port or PORT,
            user=url.user or None,
            # PyMySQL would encode text as Latin-1.
            password=(url.password or "").encode(),
            database=url.name,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=_CONNECTING,
            # An UPDATE tells the rows that it found, as other engines do, not those that it left different.
            client_flag=CLIENT.FOUND_ROWS,
            conv=conversions,
            program_name=PROGRAM,
            unix_socket=path,
            **options,
            defer_connect=True,
        )
        own = _socket(path) if path else _tcp(url, options.get("bind_address"))
        # What PyMySQL itself would open it would also leave open when nobody answers. And it only knows a Unix socket
        # of its own to be as private as TLS, which a password of MySQL 8 (caching_sha2_password) is sent through only.
        connection._secure = path is not None
        try:
            connection.connect(own)
            _fix(connection, url, readonly)
        except BaseException:
            own.close()
            with suppress(pymysql.Error):
                connection.close()
            raise
    except (pymysql.Error, OSError, ValueError, TypeError, StatementError) as error:
        raise refused(url, error) from None
    return connection


def usual_decoders() -> dict[Any, Any]:
    """How PyMySQL itself turns what a column holds into a value of Python's."""
    from pymysql import converters

    return dict(converters.decoders)


def ask(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
    """All rows of a query of the engine's own, with `?` for each parameter. Raises StatementError."""
    return _run(connection, sql, parameters)[0]


def change(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> int:
    """The same for what changes rows: how many it found to change."""
    return _run(connection, sql, parameters)[1]


def _run(connection: Connection, sql: str, parameters: Sequence[object]) -> tuple[list[Row], int]:
    import pymysql

    try:
        with connection.cursor() as cursor:
            cursor.execute(with_marks(sql, parameters), tuple(parameters) or None)
            return [tuple(row) for row in cursor.fetchall()], max(cursor.rowcount, 0)
    except pymysql.Error as error:
        raise errors.failure(error, sql) from None


def refused(url: Url, error: Exception) -> DatabaseUnusable:
    """Why there is no connection, in words without a password."""
    code = errors.code_of(error)
    cause = errors.text_of(error) if code else (getattr(error, "strerror", None) or type(error).__name__)
    port = url.options.get("unix_socket") or f"{url.host or 'localhost'}, port {url.port or PORT}"
    match code:
        case 0:
            cause, fix = f"{port}: {cause}", "Is the server running? Look at the URL's host and port"
        case errors.ACCESS_DENIED | errors.ACCESS_DENIED_NO_PASSWORD:
            fix = "Look at the user and the password of the URL"
        case errors.DATABASE_ACCESS_DENIED:
            fix = f"As an administrator: GRANT ALL ON `{url.name}`.* TO the user of the URL"
        case errors.DATABASE_UNKNOWN:
            fix = f"Make it: CREATE DATABASE `{url.name}` CHARACTER SET utf8mb4"
        case _:
            fix = "Look at the URL, and at the server's log"
    return DatabaseUnusable(database=url.display, cause=cause, fix=fix)


def _options(url: Url) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in url.options.items():
        if name in ("unix_socket", *_TEXTS):
            found[name] = value
        elif name in _SWITCHES and value.lower() in (*_TRUE, *_FALSE):
            found[name] = value.lower() in _TRUE
        elif value not in _IGNORED.get(name, ()):
            known = ", ".join(("lock_timeout", "ledger_schema", "unix_socket", *_TEXTS, *_SWITCHES))
            raise UrlInvalid(database=url.display, why=f"its option {name} is not known, or its value is not: {known}")
    return found


def _socket(path: str) -> socket.socket:
    own = socket.socket(socket.AF_UNIX)
    try:
        own.settimeout(_CONNECTING)
        own.connect(path)
    except BaseException:
        own.close()
        raise
    return own


def _tcp(url: Url, source: str | None) -> socket.socket:
    address = (url.host or "localhost", url.port or PORT)
    own = socket.create_connection(address, _CONNECTING, (source, 0) if source else None)
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A server that is gone without a word is noticed in a minute, not in two hours.
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return own


def _fix(connection: Connection, url: Url, readonly: bool) -> None:
    seconds = max(1, round(url.lock_timeout))
    settings = {
        "sql_mode": f"'{_SQL_MODE}'",
        "time_zone": "'+00:00'",
        "lock_wait_timeout": seconds,  # a year, by default, in MySQL
        "innodb_lock_wait_timeout": seconds,
        "foreign_key_checks": 1,
        "unique_checks": 1,
        "wait_timeout": _HELD,
        # What a server may do to a query of an application's must not end a migration.
        ("max_statement_time" if is_mariadb(connection) else "max_execution_time"): 0,
    }
    _run(connection, "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items()), ())
    if is_node(connection):
        _fix_node(connection, url)
    if readonly:
        _run(connection, "SET SESSION TRANSACTION READ ONLY", ())


def is_node(connection: Connection) -> bool:
    """Whether the server is a node of a Galera cluster."""
    return ask(connection, "SHOW VARIABLES LIKE 'wsrep_on'") == [("wsrep_on", "ON")]


def _fix_node(connection: Connection, url: Url) -> None:
    # Asked beforehand: a node without a quorum answers a SELECT with a lock's timeout.
    state: dict[str, str] = dict(
        ask(connection, "SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status')")
    )
    if state != {"wsrep_ready": "ON", "wsrep_cluster_status": "Primary"}:
        told = ", ".join(f"{name} = {value}" for name, value in sorted(state.items()))
        raise NodeUnready(database=url.display, state=told)
    # A question is answered as of what any node has committed by now (https://mariadb.com/kb/en/galera-cluster-system-variables/).
    _run(connection, "SET SESSION wsrep_sync_wait = 15", ())


def is_mariadb(connection: Connection) -> bool:
    """Whether the server is MariaDB, not MySQL."""
    return "mariadb" in str(connection.get_server_info()).lower()
