"""Server processes of the tests' own, and the folders that they work in (Linux).

A daemon dies with the process that started it, even when that is killed: the kernel sees to it. A folder that its
process could not remove is removed by the next one that makes a folder.
"""

from __future__ import annotations

import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

PATIENCE = 120.0  # seconds after which a server is not believed to start or end any more
SAID = 4000  # characters of a log's end that tell why a server did not start
# The path of a Unix socket may have 107 bytes: TMPDIR can be too deep, and closed to the servers' users.
PARENT = Path("/tmp")
PREFIX = "financial-agent"


class NotInstalled(Exception):
    """A server's programs are missing. The text says what to install."""


def user(*names: str) -> str:
    """Whom a server runs as. PostgreSQL refuses root, and the state transfer of a Galera node fails as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    there = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*names, "nobody") if name in there)


def as_user(name: str, command: Sequence[str | Path]) -> list[str]:
    """The command as another user's, who has no group but his own."""
    if os.geteuid() != 0:
        return [*map(str, command)]
    options = [f"--reuid={name}", f"--regid={pwd.getpwnam(name).pw_gid}", "--clear-groups"]
    return ["setpriv", *options, "--", *map(str, command)]


def _mortal(command: Sequence[str | Path]) -> list[str]:
    """The command, killed by the kernel when this process ends, and not begun if that has ended already."""
    return [
        "setpriv",
        "--pdeathsig=KILL",
        "--",
        "sh",
        "-c",
        f'[ $PPID = {os.getpid()} ] && exec "$@"',
        "sh",
        *map(str, command),
    ]


@contextmanager
def folder(owner: str) -> Iterator[Path]:
    """A folder that only its owner may enter, gone with all that is in it when the context ends."""
    _remove_those_of_the_dead()
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-", dir=PARENT))
    try:
        give(path, owner)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def give(path: Path, owner: str) -> None:
    """Let a file or a folder belong to a user."""
    shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)


def make(path: Path, owner: str) -> None:
    """Make a folder that belongs to a user."""
    path.mkdir()
    give(path, owner)


def _remove_those_of_the_dead() -> None:
    for path in PARENT.glob(f"{PREFIX}-*-*"):
        maker = path.name.split("-")[2]
        if maker.isdecimal() and not Path("/proc", maker).exists():
            shutil.rmtree(path, ignore_errors=True)


def run(name: str, command: Sequence[str | Path], folder: Path) -> None:
    """A command to its end, as a user who may not enter our own working directory."""
    done = subprocess.run(as_user(name, command), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}:\n{done.stdout}{done.stderr}")


class Daemon:
    """A server process. What it says is in the file `log`."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        self.command = shlex.join(map(str, command))
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                as_user(name, _mortal(command)),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest: the server is stopped in its turn
            )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Poll for what the server must bring about; if it ends or takes too long, tell what it said."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text("utf-8", "replace")
                raise RuntimeError(f"{self.command} did not get there:\n{said[-SAID:]}")
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to the server."""
        self.process.send_signal(number)

    def end(self, number: int) -> None:
        """Send a signal to the server, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)


@contextmanager
def running(name: str, command: Sequence[str | Path], log: Path, *, stop: int) -> Iterator[Daemon]:
    """A daemon that is ended with the signal `stop` when the context ends."""
    daemon = Daemon(name, command, log)
    try:
        yield daemon
    finally:
        daemon.end(stop)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on. They are none of those that the kernel gives to clients, which would soon be
    in use again."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(15_000, 30_000)
        with closing(socket.socket()) as attempt, suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            found.append(port)
    return found


def show(lines: Sequence[str]) -> None:
    """Tell by which URLs servers are reached, and keep them until Ctrl-C."""
    print(*lines, "Ctrl-C ends it.", sep="\n", flush=True)  # noqa: T201
    with suppress(KeyboardInterrupt):
        signal.pause()


def succeeds(command: Sequence[str | Path]) -> bool:
    """Whether a command, such as a ping, ends with 0."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
