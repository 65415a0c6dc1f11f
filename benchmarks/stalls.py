"""Runs commands on a database while another process writes messages, and tells how long they made it wait.

Beside the commands, and as measures for them, it runs a plain copy of the file (which is no backup: others write) and
SQLite's own backup in one step. All work on a copy of the given database, in each journal mode.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from generate_chats import Talk

PATIENCE = 600.0  # seconds that the writer waits for a lock: every stall is measured to its end
SETTLING = 0.5  # seconds between a command and its idle time

Task = Callable[[Path], int]
"""Does something to a database; an exit code."""


Work = Callable[[str, float, Connection], None]
"""Writes to a database, pausing for so many seconds, until it is told to stop."""


@dataclass(frozen=True)
class Span:
    """A stretch of time, in seconds of the system's monotonic clock, which all processes share."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def meets(self, other: Span) -> bool:
        return self.began < other.ended and other.began < self.ended


@dataclass(frozen=True)
class Waits:
    """How long the writer's transactions took, from their first statement to the end of their commit."""

    commits: int
    median_ms: float
    p99_ms: float
    longest_ms: float


@dataclass(frozen=True)
class Result:
    journal_mode: str
    command: str
    exit_code: int
    seconds: float
    """The median of all rounds."""
    times_copy: float
    """Those seconds, divided by those of the plain copy."""
    busy: Waits
    """While the command ran, in all rounds."""
    idle: Waits
    """In as much time after it."""


@dataclass(frozen=True)
class Round:
    exit_code: int
    busy: Span
    idle: Span


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path, help="as generate_chats.py makes it; it is copied, and left alone")
    parser.add_argument("commands", nargs="*", help="shell commands, such as 'flask db backup'")
    parser.add_argument(
        "--journal-mode", action="append", choices=["delete", "wal"], help="default: one after the other"
    )
    parser.add_argument("--pace", type=float, default=5, metavar="MS", help="pause between transactions (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each command runs (default: 3)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.database.is_file():
        parser.error(f"there is no file {options.database}")
    tasks: dict[str, Task] = {"(plain copy)": copy, "(backup in one step)": one_step_backup}
    tasks |= {command: shell(command) for command in options.commands}
    modes = options.journal_mode or ["delete", "wal"]
    results = [
        result
        for mode in modes
        for result in measure(options.database, mode, tasks, options.rounds, options.pace / 1000)
    ]
    print(json.dumps([asdict(result) for result in results], indent=2) if options.json else table(results))


def measure(original: Path, journal_mode: str, tasks: dict[str, Task], rounds: int, pause: float) -> list[Result]:
    """Every task's result; the first is the one that the others are compared with."""
    done: dict[str, list[Round]] = {name: [] for name in tasks}
    with tempfile.TemporaryDirectory(dir=original.absolute().parent, prefix="stalls-") as folder:
        database = Path(folder, "chats.db")
        shutil.copyfile(original, database)
        with closing(sqlite3.connect(database)) as db:
            db.execute(f"PRAGMA journal_mode = {journal_mode}")
        os.sync()
        with writer(database, pause, write) as stop:
            for _ in range(rounds):  # one round of all after the other, so that a slow minute hits all alike
                for name, task in tasks.items():
                    done[name].append(play(task, database))
            commits = stop()
    yardstick = median_seconds(done[next(iter(tasks))])
    return [result_of(journal_mode, name, rounds_, yardstick, commits) for name, rounds_ in done.items()]


def play(task: Task, database: Path) -> Round:
    time.sleep(SETTLING)
    began = time.monotonic()
    code = task(database)
    busy = Span(began, time.monotonic())
    time.sleep(SETTLING)
    idle = Span(time.monotonic(), time.monotonic() + busy.seconds)
    time.sleep(busy.seconds)
    return Round(code, busy, idle)


def result_of(mode: str, name: str, rounds: list[Round], yardstick: float, commits: list[Span]) -> Result:
    return Result(
        mode,
        name,
        max(each.exit_code for each in rounds),
        median_seconds(rounds),
        median_seconds(rounds) / yardstick,
        waits([each.busy for each in rounds], commits),
        waits([each.idle for each in rounds], commits),
    )


def median_seconds(rounds: list[Round]) -> float:
    return statistics.median(each.busy.seconds for each in rounds)


def waits(spans: list[Span], commits: list[Span]) -> Waits:
    """What the transactions that were under way during these spans took."""
    took = sorted(commit.seconds * 1000 for commit in commits if any(commit.meets(span) for span in spans))
    if not took:
        return Waits(0, 0, 0, 0)
    return Waits(len(took), statistics.median(took), took[math.ceil(len(took) * 0.99) - 1], took[-1])


# The writer: a process of its own, because a lock belongs to a process.


@contextmanager
def writer(database: Path, pause: float, work: Work) -> Iterator[Callable[[], list[Span]]]:
    """A process that writes until the yielded function is called, which returns its transactions."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(str(database), pause, there), daemon=True)
    process.start()
    here.recv()  # its first commit is done

    def stop() -> list[Span]:
        here.send("stop")
        return [Span(*times) for times in here.recv()]

    try:
        yield stop
    finally:
        process.kill()
        process.join()


def write(database: str, pause: float, orders: Connection) -> None:
    """Add a message, pause, and so on until told to stop; then send when each transaction began and ended."""
    talk, times = Talk(seed=0), []
    sql = "INSERT INTO chat_messages (conversation_id, role, content) VALUES (?, 'assistant', ?)"
    with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as db:
        newest = db.execute("SELECT max(id) FROM conversations").fetchone()[0]
        while not orders.poll():
            message = (talk.rng.randint(1, newest), talk.answer())
            began = time.monotonic()
            db.execute(sql, message)
            times.append((began, time.monotonic()))
            if len(times) == 1:
                orders.send("writing")
            time.sleep(pause)
    orders.send(times)


# The tasks.


def copy(database: Path) -> int:
    target = database.with_name("copy.db")
    shutil.copyfile(database, target)
    return settle(target)


def one_step_backup(database: Path) -> int:
    target = database.with_name("backup.db")
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as source, closing(sqlite3.connect(target)) as backup:
        source.backup(backup)
    return settle(target)


def settle(target: Path) -> int:
    """Count what a copy costs until it is on the disk, and remove it."""
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    target.unlink()
    return 0


def shell(command: str) -> Task:
    """A command line that finds the database by its setting, and `flask` beside this Python."""

    def run(database: Path) -> int:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        settings = {"FLASK_APP": "financial_agent", "FINANCIAL_AGENT_DATABASE": str(database), "PATH": path}
        environ = {**os.environ, **settings}
        ended = subprocess.run(command, shell=True, check=False, cwd=database.parent, env=environ, capture_output=True)
        if ended.returncode:
            sys.stderr.buffer.write(ended.stderr)
        return ended.returncode

    return run


def table(results: list[Result]) -> str:
    heads = "journal,command,exit,seconds,× copy,commits,median,p99,longest ms,idle: commits,median,p99,longest ms"
    rows = [heads.split(",")] + [
        [each.journal_mode, each.command, str(each.exit_code), f"{each.seconds:.2f}", f"{each.times_copy:.1f}"]
        + [text for waits in (each.busy, each.idle) for text in waits_texts(waits)]
        for each in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(f"{{:{'<' if at < 2 else '>'}{width}}}" for at, width in enumerate(widths))
    return "\n".join(line.format(*row) for row in rows)


def waits_texts(waits: Waits) -> list[str]:
    return [str(waits.commits), f"{waits.median_ms:.1f}", f"{waits.p99_ms:.1f}", f"{waits.longest_ms:.1f}"]


if __name__ == "__main__":
    main()
