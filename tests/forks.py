"""Python processes that are forked from one that has imported everything, which takes a tenth of the time of a new one.

To a test they are like any other: they have pipes, a folder and an environment of their own, and can be killed.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_ORDER = 1 << 18  # bytes: more than an environment and a command take
_NUMBER = struct.Struct("i")


class Fork(subprocess.Popen[str]):
    """`python …`, or with a prefix `PREFIX python …`: the prefix runs once, and what it sets holds for all its forks.

    With `dies_at` it dies by SIGKILL just before that call of SQLite, counted from 1: a statement of a migration or of
    its record, BEGIN, COMMIT, a question. Where the command names a database of MySQL's, it is a call of PyMySQL; with
    a negative number it dies just behind it, when the server has the statement, and nobody reads the answer.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        prefix: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
        dies_at: int = 0,
    ) -> None:
        self._server = _server(tuple(prefix))
        self._order = json.dumps([command[1:], str(folder), dict(environment), dies_at]).encode()
        pipe = subprocess.PIPE
        super().__init__(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")

    # What Popen does by fork, exec and waitpid. The server tells the process's number, and later how it ended.

    def _execute_child(self, *arguments: Any) -> None:
        # The ends of the pipes stand at the same place in all the versions of Python that the project supports.
        theirs_in, _, _, theirs_out, _, theirs_err = arguments[10:16]
        self._told, teller = os.pipe()
        socket.send_fds(self._server, [self._order], [theirs_in, theirs_out, theirs_err, teller])
        os.close(teller)
        self._close_pipe_fds(*arguments[10:16])  # type: ignore[attr-defined]
        self.pid = self._read_number()
        self._child_created = True

    def _read_number(self) -> int:
        return int(_NUMBER.unpack(os.read(self._told, _NUMBER.size))[0])

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(self._read_number())
            os.close(self._told)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None and not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self._internal_poll()
        assert code is not None
        return code


@cache
def _server(prefix: tuple[str, ...]) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = "import sys; from tests.forks import serve; serve(int(sys.argv[1]))"
    command = [*prefix, sys.executable, "-c", code, str(theirs.fileno())]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def serve(number: int) -> None:
    """The server's side: an order in, a process and how it ended out, until nobody is there to order."""
    import financial_agent.cli
    import financial_agent.doctor  # noqa: F401

    orders = socket.socket(fileno=number)
    running: dict[int, tuple[int, int]] = {}  # a descriptor of each process -> its number, and whom to tell of its end
    while True:
        for ready in select.select([orders, *running], [], [])[0]:
            if ready is not orders:
                pid, teller = running.pop(ready)
                os.close(ready)
                _tell(teller, os.waitpid(pid, 0)[1])
                os.close(teller)
                continue
            order, descriptors, *_ = socket.recv_fds(orders, _ORDER, 4)
            if not order:
                return
            *streams, teller = descriptors
            pid = os.fork()
            if pid == 0:
                os._exit(_obey(order, streams))
            _tell(teller, pid)
            running[os.pidfd_open(pid)] = pid, teller
            for each in streams:
                os.close(each)


def _tell(teller: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the test may have ended before its process
        os.write(teller, _NUMBER.pack(number))


def _obey(order: bytes, streams: Sequence[int]) -> int:
    """The process's side; its exit code."""
    words, folder, environment, dies_at = json.loads(order)
    for at, stream in enumerate(streams):
        os.dup2(stream, at)
    os.closerange(3, 1024)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if dies_at:
        (_make_mysql_mortal if any(word.startswith("mysql:") for word in words) else _make_mortal)(dies_at)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _make_mortal(dies_at: int) -> None:
    calls = 0

    class Mortal(sqlite3.Connection):
        """SQLite's own connection, whose process dies at a call of it."""

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            nonlocal calls
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*arguments)

    connect = sqlite3.connect

    def connect_mortally(database: Any, **options: Any) -> sqlite3.Connection:
        return connect(database, **options, factory=sqlite3.Connection if database == ":memory:" else Mortal)

    sqlite3.connect = connect_mortally  # type: ignore[assignment]


def _make_mysql_mortal(dies_at: int) -> None:
    from pymysql.connections import Connection

    send: Callable[[Any, int, Any], None] = Connection._execute_command
    calls = 0

    def send_mortally(connection: Any, command: int, sql: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        send(connection, command, sql)
        if calls == -dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    Connection._execute_command = send_mortally
