"""Runs the programs that come with a server's client, such as pg_dump. A password is never among their arguments,
which every user of the machine can see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from financial_agent.migrator.databases.database import Patience, Stopped
from financial_agent.migrator.errors_server import ToolFailed, ToolMissing

_TICK = 0.1  # seconds between two questions whether to stop
_GRACE = 5.0  # seconds that a program has to end by itself
_LONGEST = 300  # characters of what a program said
# What stands there may be a row's content: PostgreSQL's DETAIL and CONTEXT, and what MySQL quotes.
_ROWS = re.compile(r"^(DETAIL|CONTEXT):|^LINE \d+:")
_QUOTED_ROW = re.compile(r"(?<=entry )'.*'(?= for key)|(?<=value: )'.*'")


@dataclass(frozen=True)
class Tool:
    """A program, as `find` found it, its arguments, and what is added to its environment."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return Path(self.program).name


def find(programs: Sequence[str], package: str) -> str:
    """The path of the first of these programs that is on PATH. Raises ToolMissing with the package to install."""
    found = next(filter(None, map(shutil.which, programs)), None)
    if not found:
        raise ToolMissing(program=programs[0], package=package)
    return found


def version(program: str) -> tuple[int, ...]:
    """The version that a program says it has. Raises ToolFailed."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", check=False)
    # mariadb-dump tells its own version first, and then, behind Distrib, that of the server that it came with.
    numbers = re.search(r"(?:.*Distrib )?\D*(\d+(?:\.\d+)+)", said.stdout)
    if not numbers:
        raise ToolFailed(program=Path(program).name, cause="it does not tell its version", fix=f"{program} --version")
    return tuple(map(int, numbers[1].split(".")))


def run(tool: Tool, patience: Patience, *, source: IO[bytes] | None = None, target: IO[bytes] | None = None) -> None:
    """Run a program to its end, reading from one file and writing to another. Raises ToolFailed and Stopped."""
    with started(tool, stdin=source, stdout=target) as one:
        finish([one], patience)


def pipe(source: Tool, sink: Tool, patience: Patience) -> None:
    """Let one program read what another writes. Raises ToolFailed for the first of the two that fails, and Stopped."""
    with started(source, stdout=subprocess.PIPE) as first, started(sink, stdin=first.process.stdout) as second:
        assert first.process.stdout
        first.process.stdout.close()  # or it would not be told that its reader has ended
        finish([second, first], patience)


@contextmanager
def secret_file(text: str) -> Iterator[Path]:
    """A file that only this user can read, for what a program must not be told by its arguments."""
    descriptor, name = tempfile.mkstemp()  # with the mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield Path(name)
    finally:
        os.unlink(name)


class Started(NamedTuple):
    """A program at work."""

    tool: Tool
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def refuse_failure(self) -> None:
        if self.process.returncode:
            self.said.seek(0)
            cause = _told(self.said.read().decode(errors="replace"), self.tool.environment)
            raise ToolFailed(program=self.tool.name, cause=cause, fix="Look at what it says, and try again")


@contextmanager
def started(
    tool: Tool, *, stdin: IO[bytes] | int | None = None, stdout: IO[bytes] | int | None = None
) -> Iterator[Started]:
    """A program in a session of its own: Ctrl-C is for this process to pass on."""
    with ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile())
        process = stack.enter_context(
            subprocess.Popen(
                [tool.program, *tool.arguments],
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or subprocess.DEVNULL,
                stderr=said,
                # In English, whatever the person speaks: what it says is looked into.
                env={**os.environ, "LC_ALL": "C.UTF-8", **tool.environment},
                start_new_session=True,
            )
        )
        stack.callback(_end, process)
        yield Started(tool, process, said)


def finish(all_started: Sequence[Started], patience: Patience) -> None:
    """Wait for the end of programs. Raises ToolFailed for the first of them that failed, and Stopped."""
    for started in all_started:
        while True:
            try:
                started.process.wait(_TICK)
                break
            except subprocess.TimeoutExpired:
                if patience.stop(""):
                    raise Stopped from None
    # The reader's failure comes first: that nobody reads any more is the other one's.
    for started in all_started:
        started.refuse_failure()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


def _told(said: str, environment: Mapping[str, str]) -> str:
    """The line of a program's last words that tells why, without a row's content."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _ROWS.match(line.strip())]
    lines = [line for line in lines if "warning" not in line.lower()] or lines
    errors = [line for line in lines if re.search(r"error|fatal|failed", line, re.IGNORECASE)]
    told = (errors or lines or ["it said nothing"])[0]
    told = _QUOTED_ROW.sub("'…'", told)
    for secret in environment.values():
        told = told.replace(secret, "…") if secret else told
    return told[:_LONGEST]
