"""Throw-away database servers from installed binaries, on Unix sockets, without any password.

All the workers of one test run share one server of each kind. A process of its own keeps it
(`python -m tests.throwaway DIALECT USERS`): while any of the run's processes lives, it holds a lock on the file USERS,
and when the last is gone, however it ended, the server and its folder go, too.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests import daemons

ROOT = Path(__file__).resolve().parents[1]
POSTGRESQL = Path("/usr/lib/postgresql")  # where Debian has its programs, by version
_held: list[int] = []  # descriptors, open until this process ends


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server; the URL of its superuser."""
    owner = daemons.user("postgres")
    with daemons.folder(owner) as folder:
        initdb(owner, folder)
        with daemons.running(owner, postgres(folder), folder / "log", stop=signal.SIGQUIT) as server:
            server.wait_until(lambda: postgresql_answers(folder))
            yield postgresql_url(folder)


def initdb(owner: str, folder: Path) -> None:
    """Make the files of a PostgreSQL server, in a folder that is its owner's."""
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    daemons.run(owner, [postgresql_binaries() / "initdb", f"--pgdata={folder / 'data'}", *options], folder)


def postgres(folder: Path) -> list[str | Path]:
    """The command that runs a PostgreSQL server whose files and socket are in the folder."""
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": folder,
        "max_connections": 200,
        "fsync": "off",  # only a crash of the machine itself would tell
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return [postgresql_binaries() / "postgres", "-D", folder / "data", *options]


def postgresql_answers(folder: Path, port: int = 5432) -> bool:
    """Whether a server, or a pooler, whose socket is in the folder takes connections."""
    return daemons.succeeds([postgresql_binaries() / "pg_isready", f"--host={folder}", f"--port={port}"])


def postgresql_url(folder: Path) -> str:
    """The superuser's URL of the server whose socket is in the folder."""
    return f"postgresql://postgres@localhost/postgres?host={folder}"


def postgresql_binaries() -> Path:
    """The folder of PostgreSQL's programs, the newest if there are several. Raises NotInstalled."""
    found = sorted(POSTGRESQL.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise daemons.NotInstalled("PostgreSQL's server is not installed: apt-get install postgresql")
    return (found[-1] if found else Path(str(on_path)).resolve()).parent


@contextmanager
def mysql() -> Iterator[str]:
    """A MariaDB server; the URL of its root."""
    program, _, admin = mariadb_binaries()
    owner = daemons.user("mysql")
    with daemons.folder(owner) as folder:
        mariadb_install_db(owner, folder)
        options = [
            f"--datadir={folder / 'data'}",
            f"--socket={folder / 'socket'}",
            f"--tmpdir={folder}",  # a server that starts removes what others have in theirs
            "--skip-networking",
            "--character-set-server=utf8mb4",
            "--max-connections=200",
            "--innodb-flush-log-at-trx-commit=2",  # only a crash of the machine itself would tell
        ]
        ping = [admin, "--no-defaults", f"--socket={folder / 'socket'}", "--user=root", "ping"]
        command = [program, "--no-defaults", *options]
        with daemons.running(owner, command, folder / "log", stop=signal.SIGKILL) as server:
            server.wait_until(lambda: daemons.succeeds(ping))
            yield mysql_url(folder)


def mariadb_install_db(owner: str, folder: Path) -> None:
    """Make the files of a MariaDB server, in a folder that is its owner's."""
    _, install, _ = mariadb_binaries()
    options = [
        f"--datadir={folder / 'data'}",
        f"--tmpdir={folder}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ]
    daemons.run(owner, [install, "--no-defaults", *options], folder)


def mysql_url(folder: Path) -> str:
    """The URL of root on the server whose socket is in the folder."""
    return f"mysql://root@localhost/mysql?unix_socket={folder / 'socket'}"


def mariadb_binaries() -> tuple[str, str, str]:
    """mariadbd, mariadb-install-db and mariadb-admin. Raises NotInstalled."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = [shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db", "mariadb-admin")]
    if None in found:
        raise daemons.NotInstalled("MariaDB's server is not installed: apt-get install mariadb-server")
    server, install, admin = map(str, found)
    return server, install, admin


SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {"postgresql": postgresql, "mysql": mysql}


def shared(dialect: str, folder: Path) -> str:
    """The URL of the server that belongs to all the processes that name the same folder, until the last of them ends.

    Raises NotInstalled.
    """
    address, users = folder / f"{dialect}.url", folder / f"{dialect}.users"
    with (folder / f"{dialect}.starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        # If a server is being stopped because its last user is gone, this waits for its end.
        _held.append(os.open(users, os.O_RDWR | os.O_CREAT))
        fcntl.flock(_held[-1], fcntl.LOCK_SH)
        if not address.exists():
            {"postgresql": postgresql_binaries, "mysql": mariadb_binaries}[dialect]()
            _start(dialect, address, users)
        return address.read_text()


def _start(dialect: str, address: Path, users: Path) -> None:
    log = users.with_suffix(".log")
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.throwaway", dialect, str(address), str(users)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    assert keeper.stdout
    with keeper.stdout as said:
        if not said.readline():
            raise RuntimeError(f"no {dialect} server could be started:\n{log.read_text()}")
    keeper.returncode = 0  # it outlives this process: nobody waits for it, and Python need not warn of that


def keep(dialect: str, address: Path, users: Path) -> None:
    """Run a server until nobody holds a lock on the file `users`. Its URL is in the file `address` meanwhile."""
    with users.open("r") as lock, SERVERS[dialect]() as url:
        address.write_text(url)
        print("ready", flush=True)  # noqa: T201
        fcntl.flock(lock, fcntl.LOCK_EX)
        address.unlink(missing_ok=True)


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
