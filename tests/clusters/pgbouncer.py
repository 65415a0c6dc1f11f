"""PgBouncer, Debian's, in front of a PostgreSQL server.

To try it by hand: `python -m tests.clusters.pgbouncer`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests import daemons, throwaway

PORT = 6432
PROGRAM = Path("/usr/sbin/pgbouncer")


@contextmanager
def pgbouncer(url: str, *, mode: str = "transaction", size: int = 2) -> Iterator[str]:
    """The URL of the same database through a pool of `size` connections, which clients share as `mode` says:
    "transaction", "session" or "statement". Raises NotInstalled."""
    if not PROGRAM.exists():
        raise daemons.NotInstalled("PgBouncer is not installed: apt-get install pgbouncer")
    owner = daemons.user("postgres")
    with daemons.folder(owner) as folder:
        settings = folder / "pgbouncer.ini"
        settings.write_text(_settings(url, folder, mode, size))
        daemons.give(settings, owner)
        command = [PROGRAM, settings]
        with daemons.running(owner, command, folder / "log", stop=signal.SIGKILL) as pooler:
            pooler.wait_until(lambda: throwaway.postgresql_answers(folder, PORT))
            yield f"postgresql://postgres@localhost:{PORT}{urlsplit(url).path}?host={folder}"


def _settings(url: str, folder: Path, mode: str, size: int) -> str:
    parts = urlsplit(url)
    server = {
        "host": parse_qs(parts.query).get("host", [parts.hostname])[-1],
        "port": parts.port or 5432,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }
    words = " ".join(f"{name}={_quoted(value)}" for name, value in server.items() if value)
    pooler = {
        "pool_mode": mode,
        "default_pool_size": size,
        "max_client_conn": 500,
        "unix_socket_dir": folder,
        "listen_port": PORT,
        "auth_type": "any",  # who the client is does not count: the pool's connections are the user's of the URL
    }
    lines = [f"{name} = {value}" for name, value in pooler.items()]
    return "\n".join(["[databases]", f"* = {words}", "[pgbouncer]", *lines, ""])


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


if __name__ == "__main__":
    with throwaway.postgresql() as direct, pgbouncer(direct) as pooled:
        daemons.show([f"pooled: {pooled}", f"direct: {direct}"])
