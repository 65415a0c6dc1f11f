"""Fills a column of a large table while another process writes: in batches, and as one statement; killed on its way."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from stalls import PATIENCE, Span, Waits, waits, waits_texts, writer

RUNNER = Path(__file__).resolve().parents[1] / "financial_agent" / "migrations" / "run_migrations.py"
TABLE = """\
CREATE TABLE messages (id INTEGER PRIMARY KEY, content TEXT NOT NULL, n INTEGER NOT NULL DEFAULT 0, done INTEGER);
CREATE TABLE written (id INTEGER PRIMARY KEY, at TEXT NOT NULL);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows})
INSERT INTO messages (id, content) SELECT i, printf('%0{width}d', i) FROM c;
{index}
"""
INDEX = "CREATE INDEX to_do ON messages (id) WHERE done IS NULL;"
BATCHED = """\
-- migrate:batch {size}
UPDATE messages SET n = n + 1, done = 1 WHERE id IN (SELECT id FROM messages WHERE done IS NULL LIMIT :batch);
-- migrate:assert SELECT id FROM messages WHERE done IS NULL
"""
AT_ONCE = "UPDATE messages SET n = n + 1, done = 1 WHERE done IS NULL;\n"


@dataclass(frozen=True)
class Result:
    journal_mode: str
    how: str
    rows: int
    kills: int
    seconds: float
    """While the runs were at work, and the writer beside them."""
    each_row_once: bool
    """No row was left out, and none was changed twice."""
    writer: Waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the databases are made, and removed again")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the table (default: 2,000,000)")
    parser.add_argument("--width", type=int, default=100, help="bytes of text in a row (default: 100)")
    parser.add_argument("--batch", type=int, default=5000, help="rows of a batch (default: 5000)")
    parser.add_argument("--kills", type=int, default=3, help="how often kill -9 hits a run in batches (default: 3)")
    parser.add_argument("--no-index", action="store_true", help="let every batch look for its rows from the beginning")
    parser.add_argument("--journal-mode", action="append", choices=["delete", "wal"], help="default: both")
    parser.add_argument("--pace", type=float, default=5, metavar="MS", help="the writer's pause (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="decides when the kills come")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [result for mode in options.journal_mode or ["delete", "wal"] for result in measure(options, mode)]
    print(json.dumps([asdict(result) for result in results], indent=2) if options.json else table(results))


def measure(options: argparse.Namespace, mode: str) -> list[Result]:
    """The same table filled in batches, in batches that are killed, and at once."""
    batched = BATCHED.format(size=options.batch)
    whole = f"batches of {options.batch:,}"
    ways = [(whole, batched, 0), ("one statement", AT_ONCE, 0)]
    if options.kills:
        ways.insert(1, (f"{whole}, killed", batched, options.kills))
    results, usual = [], 0.0
    for how, sql, kills in ways:
        results.append(fill(options, mode, how, sql, kills, usual))
        usual = usual or results[0].seconds
    return results


def fill(options: argparse.Namespace, mode: str, how: str, sql: str, kills: int, usual: float) -> Result:
    """Migrate until it is done. Kills come at random moments of the time that a run takes without one."""
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="backfill-") as folder:
        database, migrations = Path(folder, "chats.db"), Path(folder, "migrations")
        make(options, database, mode)
        migrations.mkdir()
        Path(migrations, "001_fill.sql").write_text(sql)
        command = [sys.executable, str(RUNNER), "--database", str(database), "--directory", str(migrations)]
        with writer(database, options.pace / 1000, write) as stop:
            began = time.monotonic()
            for _ in range(kills):
                kill_after(command, chance.uniform(0.05, 0.9 / kills) * usual)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            busy = Span(began, time.monotonic())
            commits = stop()
        with closing(sqlite3.connect(database)) as db:
            changed = db.execute("SELECT n, done, count(*) FROM messages GROUP BY 1, 2").fetchall()
    once = changed == [(1, 1, options.rows)]
    return Result(mode, how, options.rows, kills, busy.seconds, once, waits([busy], commits))


def make(options: argparse.Namespace, database: Path, mode: str) -> None:
    """The table, and the ledger's note that no migration made it."""
    with closing(sqlite3.connect(database)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        index = "" if options.no_index else INDEX
        db.executescript(TABLE.format(rows=options.rows, width=options.width, index=index))
    from financial_agent.migrator import repair
    from financial_agent.migrator.control import Control

    with tempfile.TemporaryDirectory() as none:
        repair.baseline(str(database), Path(none), "0", Control())


def write(database: str, pause: float, orders: Connection) -> None:
    """Add a row, pause, and so on until told to stop; then send when each transaction began and ended."""
    times = []
    with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as db:
        while not orders.poll():
            began = time.monotonic()
            db.execute("INSERT INTO written (at) VALUES (datetime('now'))")
            times.append((began, time.monotonic()))
            if len(times) == 1:
                orders.send("writing")
            time.sleep(pause)
    orders.send(times)


def kill_after(command: list[str], seconds: float) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit("the run was done before it was killed: take more rows, or another seed")


def table(results: list[Result]) -> str:
    heads = "journal,how,rows,kills,seconds,each row once,commits,median,p99,longest ms"
    rows = [heads.split(",")]
    for each in results:
        once = "yes" if each.each_row_once else "NO"
        told = [each.journal_mode, each.how, f"{each.rows:,}", str(each.kills), f"{each.seconds:.1f}", once]
        rows.append([*told, *waits_texts(each.writer)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(f"{{:{'<' if at < 2 else '>'}{width}}}" for at, width in enumerate(widths))
    return "\n".join(line.format(*row) for row in rows)


if __name__ == "__main__":
    main()
