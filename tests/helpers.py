"""What the fault tests share: real processes, also such as die at a chosen moment, locks that others hold, and
everything that a database holds, in a form that can be compared."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

from financial_agent.migrator import discovery, repair, runner
from financial_agent.migrator.control import Control
from tests.forks import ROOT, Fork

PLAIN = [sys.executable, str(ROOT / "financial_agent" / "migrations" / "run_migrations.py")]
FLASK = [sys.executable, "-m", "flask", "--app", "financial_agent", "db"]
# The package's own migrations, as SQLite takes them.
CHAT = [file.path for file in discovery.discover(ROOT / "financial_agent" / "migrations", "sqlite")]
PATIENCE = 60.0  # seconds after which a test no longer believes that a process will do what it waits for

# Hours of work for SQLite that take no space.
ENDLESS = (
    "SELECT count(*) FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000000000)"
    " SELECT n FROM c)"
)
# A table of the first runner.
FIRST_LEDGER = (
    "CREATE TABLE _migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, filename TEXT UNIQUE NOT NULL,"
    " applied_at DATETIME DEFAULT (datetime('now')))"
)

Process = subprocess.Popen[str]
Finished = subprocess.CompletedProcess[str]


def rows_of(count: int, table: str = "") -> str:
    """A SELECT of so many rows of a hundred bytes, or with a table the INSERT of them."""
    numbers = f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count})"
    rows = f"{numbers} SELECT n, printf('%0100d', n) FROM c"
    return f"INSERT INTO {table} {rows}" if table else rows


class Site:
    """A database, which need not exist yet, in a folder of its own, and the folder of its migrations."""

    def __init__(self, root: Path, files: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.data = root / "data"
        self.database = self.data / "app.db"
        self.directory = root / "migrations"
        self.data.mkdir(parents=True)
        self.directory.mkdir()
        self.write(files or {})

    def write(self, files: Mapping[str, str]) -> None:
        for name, sql in files.items():
            (self.directory / f"{name}.sql").write_text(sql, encoding="utf-8")

    def prepare(self) -> None:
        """Apply all, without a process of its own: for what a test begins with."""
        runner.migrate(str(self.database), self.directory)

    # Commands, each a process of its own. The first two wait for its end; with `dies_at`, it dies on the way.

    def migrate(self, *, dies_at: int = 0) -> Finished:
        """The plain runner, which starts faster than Flask."""
        return run([*PLAIN, *self.options()], self.root, dies_at=dies_at)

    def flask(self, *words: str, dies_at: int = 0) -> Finished:
        """`flask db …`"""
        return run([*FLASK, *words, *self.options()], self.root, dies_at=dies_at)

    def migrating(self) -> AbstractContextManager[Process]:
        return forked([*PLAIN, *self.options()], self.root)

    def flasking(self, *words: str, stdin: int = subprocess.DEVNULL) -> AbstractContextManager[Process]:
        return forked([*FLASK, *words, *self.options()], self.root, stdin=stdin)

    def options(self) -> list[str]:
        return ["--database", str(self.database), "--directory", str(self.directory)]

    def status(self) -> dict[str, str]:
        """Each migration's state, as `flask db status` tells it."""
        finished = self.flask("status", "--json")
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return {
            item["filename"].removesuffix(".sql"): item["state"] for item in json.loads(finished.stdout)["migrations"]
        }

    # The database, past the engine.

    def do(self, *statements: str) -> None:
        """Run statements on a connection that does not enforce foreign keys, as SQLite's own default is."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def begin_with(self, *statements: str) -> None:
        """Run statements past the engine, and record that what they make is no migration's."""
        self.do(*statements)
        repair.baseline(str(self.database), self.directory, "0", Control())
        (self.data / "app.db-migrate-lock").unlink()  # tests wait for the one of the process that they start

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def value(self, sql: str) -> Any:
        return self.rows(sql)[0][0]

    def tables(self) -> set[str]:
        """The tables that migrations made."""
        sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '_migration*'"
        names = self.rows(sql) if self.database.exists() else []
        return {name for (name,) in names if not name.startswith("sqlite_")}

    def applied(self) -> list[str]:
        """What the ledger records, without suffix, in the order in which it was applied."""
        if not (self.database.exists() and self.rows("SELECT 1 FROM sqlite_schema WHERE name = '_migrations'")):
            return []
        return [name.removesuffix(".sql") for (name,) in self.rows("SELECT filename FROM _migrations ORDER BY id")]

    def history(self) -> list[tuple[str, str]]:
        """What ever happened: event and migration."""
        rows = self.rows("SELECT event, filename FROM _migration_history ORDER BY id")
        return [(event, name.removesuffix(".sql")) for event, name in rows]

    def copy(self, root: Path) -> Site:
        """The same folder of migrations and, if it exists, the same database, elsewhere."""
        other = Site(root)
        for source in (*self.directory.iterdir(), *self.data.iterdir()):
            target = other.directory if source.parent == self.directory else other.data
            (target / source.name).write_bytes(source.read_bytes())
        return other


def site_with_a_draft(root: Path) -> Site:
    """Two migrations that were applied, and a row that the second would delete if it ran again."""
    site = Site(
        root,
        {
            "001_chat": "CREATE TABLE IF NOT EXISTS chat (id INTEGER PRIMARY KEY, msg);",
            "002_clean": "DELETE FROM chat WHERE msg LIKE 'draft%';",
        },
    )
    site.prepare()
    site.do("INSERT INTO chat (msg) VALUES ('draft of a letter'), ('hello')")
    return site


# Processes.


@contextmanager
def started(
    command: Sequence[str], folder: Path, *, stdin: int = subprocess.DEVNULL, patience: float = PATIENCE
) -> Iterator[Process]:
    """A process that is killed, if it still runs, when the context or patience ends."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    with killed_in_the_end(process, patience):
        yield process


@contextmanager
def forked(command: Sequence[str], folder: Path, **options: Any) -> Iterator[Process]:
    """The same of a Python command, which begins sooner. The options are those of a Fork."""
    with killed_in_the_end(process := Fork(command, folder, environment(), **options), PATIENCE):
        yield process


def environment() -> dict[str, str]:
    """The environment without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINANCIAL_AGENT_", "FLASK_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


@contextmanager
def killed_in_the_end(process: Process, patience: float) -> Iterator[None]:
    deadline = Timer(patience, process.kill)
    deadline.daemon = True
    deadline.start()
    with process:
        try:
            yield
        finally:
            deadline.cancel()
            process.kill()


def finish(process: Process) -> Finished:
    """Wait for the end of a process; what it printed since it was last read."""
    out, err = process.communicate(timeout=PATIENCE)
    return _without_traceback(subprocess.CompletedProcess(process.args, process.returncode, out, err))


def run(command: Sequence[str], folder: Path, **options: Any) -> Finished:
    """A Python command to its end, in a process of its own. The options are those of a Fork."""
    with forked(command, folder, **options) as process:
        return finish(process)


def run_with(prefix: Sequence[str], command: Sequence[str], site: Site) -> Finished:
    """A command of the site's to its end, started by another one: with fewer privileges, less space, …"""
    return run([*command, *site.options()], site.root, prefix=prefix)


def _without_traceback(finished: Finished) -> Finished:
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished


def wait_for_line(stream: Any, text: str) -> str:
    """Read a process's output up to the line that holds a text, and return that line."""
    for line in stream:
        if text in line:
            return str(line)
    raise AssertionError(f"the process ended without saying {text!r}")


def until(condition: Callable[[], bool]) -> None:
    """Poll for what a process brings about and does not tell."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.002)


def cpu_seconds(process: Process) -> float:
    """What a process has worked so far (Linux)."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def has_open(process: Process, path: Path) -> bool:
    """Whether a process has a file open (Linux)."""
    try:
        return any(os.readlink(link) == str(path) for link in Path(f"/proc/{process.pid}/fd").iterdir())
    except FileNotFoundError:  # a descriptor was closed between listing and reading
        return False


@contextmanager
def held(database: Path, *statements: str) -> Iterator[Callable[[], None]]:
    """Another process that has run the statements and holds what they locked, until the function that the context
    gives releases it, or the context ends."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: connection.execute(statement).fetchall()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(database), *statements]
    with started(command, database.parent, stdin=subprocess.PIPE) as holder:
        assert holder.stdout
        wait_for_line(holder.stdout, "held")

        def release() -> None:
            assert holder.stdin
            holder.stdin.close()
            holder.wait(timeout=PATIENCE)

        yield release


# What a database and a folder hold.


class State(NamedTuple):
    """All that a run may change, without times and durations, and without what the history tells of failures."""

    schema: tuple[Any, ...] = ()
    rows: tuple[Any, ...] = ()
    ledger: tuple[Any, ...] = ()
    history: tuple[Any, ...] = ()


def state(database: Path) -> State:
    """What a database holds. It must open and be sound; one that does not exist holds nothing."""
    if not database.exists():
        return State()
    with closing(sqlite3.connect(database)) as connection:

        def query(sql: str) -> tuple[Any, ...]:
            return tuple(connection.execute(sql))

        assert query("PRAGMA integrity_check") == (("ok",),)
        schema = query("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
        tables = [name for kind, name, _, _ in schema if kind == "table"]
        users = [name for name in tables if not name.startswith(("_migration", "sqlite_"))]
        schema = tuple(row for row in schema if not row[2].startswith(("_migration", "sqlite_sequence")))
        ledger = history = ()
        if "_migrations" in tables:
            ledger = query("SELECT filename FROM _migrations ORDER BY id")
        if "_migration_history" in tables:
            history = query(
                "SELECT event, filename, statements, rows_changed, checksum FROM _migration_history"
                " WHERE event NOT IN ('failure', 'takeover') ORDER BY id"
            )
        contents = [(name, query(f'SELECT * FROM "{name}"')) for name in users]
        # A hash, because pytest would print a million rows.
        return State(schema, tuple((name, len(rows), hash(rows)) for name, rows in contents), ledger, history)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its bytes and its time of modification."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
