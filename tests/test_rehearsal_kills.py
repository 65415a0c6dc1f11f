"""Rehearsals that are killed, stopped, or run out of space, while others write: the database is as it was, and no copy
stays."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import (
    FLASK,
    Process,
    Site,
    finish,
    rows_of,
    snapshot,
    started,
    state,
    until,
    wait_for_line,
)
from tests.test_environment_faults import NAMESPACE, needs_a_mount

pytestmark = pytest.mark.slow

ROWS = 60_000
FILES = {
    "002_more": f"-- migrate:up\nCREATE TABLE more (n, text);\n{rows_of(ROWS, 'more')};\n"
    "-- migrate:down\nDROP TABLE more;",
    "003_less": "-- migrate:up\nUPDATE chats SET text = 'x' WHERE n % 2;\nDELETE FROM chats WHERE n % 3 = 0;\n"
    "-- migrate:down\nSELECT 1;",
}
WRITER = """\
import itertools, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for turn in itertools.count():
    connection.execute("INSERT INTO log VALUES (?)", (turn,))
    print(turn, flush=True)
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Eight megabytes of chats, and two migrations that are pending."""
    site = Site(tmp_path / "site", {"001_chats": "CREATE TABLE chats (n INTEGER PRIMARY KEY, text);"})
    site.prepare()
    site.do("CREATE TABLE log (turn)", rows_of(ROWS, "chats"))
    site.write(FILES)
    return site


def copies(site: Site) -> list[Path]:
    return list(site.data.glob(".financial_agent-private-*"))


def duration(site: Site) -> float:
    """How long a rehearsal takes here, in seconds."""
    clock = time.monotonic()
    assert site.flask("migrate", "--dry-run").returncode == 0
    return time.monotonic() - clock


def test_killed_at_any_time_it_leaves_the_database_and_no_copy(site: Site) -> None:
    before, whole = snapshot(site.data), duration(site)
    for _ in range(12):
        with site.flasking("migrate", "--dry-run") as process:
            until(lambda: bool(copies(site)) or process.poll() is not None)
            time.sleep(random.random() * whole)
            process.send_signal(signal.SIGKILL)
        until(lambda: not copies(site))
        assert snapshot(site.data) == before


def test_killed_at_any_call_of_sqlite_it_leaves_the_database_and_no_copy(tmp_path: Path) -> None:
    small = {name: text.replace(str(ROWS), "10") for name, text in FILES.items()}
    site = Site(tmp_path / "site", {"001_chats": "CREATE TABLE chats (n INTEGER PRIMARY KEY, text);"})
    site.prepare()
    site.do(rows_of(10, "chats"))
    site.write(small)
    before = snapshot(site.data)
    deaths = 0
    for dies_at in range(1, 1000, 7):
        finished = site.flask("migrate", "--dry-run", dies_at=dies_at)
        until(lambda: not copies(site))
        assert snapshot(site.data) == before
        if finished.returncode == 0:
            break
        assert finished.returncode == -signal.SIGKILL
        deaths += 1
    assert deaths > 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_any_time_it_ends_in_good_order(site: Site, number: signal.Signals) -> None:
    before, whole = snapshot(site.data), duration(site)
    interrupted = 0
    for _ in range(6):
        with site.flasking("migrate", "--dry-run") as process:
            until(lambda: bool(copies(site)) or process.poll() is not None)
            time.sleep(random.random() * whole / 2)
            process.send_signal(number)
            finished = finish(process)
        assert finished.returncode in (0, 128 + number) or "was not touched" in finished.stdout, finished.stderr
        interrupted += finished.returncode != 0
        assert copies(site) == []
        assert snapshot(site.data) == before
    assert interrupted


def test_killed_together_with_its_remover_it_is_swept_by_the_next_one(site: Site) -> None:
    with site.flasking("migrate", "--dry-run") as process:
        until(lambda: bool(copies(site)) and bool(children(process)))
        for each in (*children(process), process.pid):
            os.kill(each, signal.SIGKILL)
    if not copies(site):
        pytest.fail("it was gone before it was killed")
    duration(site)
    assert copies(site) == []


def children(process: Process) -> list[int]:
    """The processes that a process has started (Linux)."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_a_rehearsal_that_runs_is_not_swept_by_another(site: Site) -> None:
    with site.flasking("migrate", "--dry-run") as first, site.flasking("migrate", "--dry-run") as second:
        ends = finish(first), finish(second)
    assert [each.returncode for each in ends] == [0, 0], [each.stderr for each in ends]
    assert copies(site) == []


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_another_process_writes_all_the_while(site: Site, journal_mode: str) -> None:
    site.do(f"PRAGMA journal_mode = {journal_mode}")
    with started([sys.executable, "-c", WRITER, str(site.database)], site.root) as writer:
        assert writer.stdout
        wait_for_line(writer.stdout, "5")
        for _ in range(3):
            finished = site.flask("migrate", "--dry-run")
            assert finished.returncode == 0, finished.stderr
            assert f"more: {ROWS:,} inserted" in finished.stdout
            assert "chats: 20,000 updated, 20,000 deleted" in finished.stdout
        assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
        written = [int(line) for line in writer.stdout]
    assert [turn for (turn,) in site.rows("SELECT turn FROM log ORDER BY turn")][: written[-1]] == list(
        range(written[-1])
    )
    assert site.applied() == ["001_chats"]
    assert state(site.database)


# A full disk: the folder $1 becomes a disk of its own with the files of $2, of which $3 KB are free.
ON_A_DISK = """\
set -e
disk=$1 origin=$2 free=$3
shift 3
mount -t tmpfs -o size=64m none "$disk"
cp -a "$origin/." "$disk"
available=$(df --output=avail -k "$disk" | tail -n 1)
head -c $(( (available - free) * 1024 )) /dev/zero > "$disk/filler"
sum=$(sha256sum "$disk/app.db"; stat -c %y "$disk/app.db")
set +e
"$@"
code=$?
test "$sum" = "$(sha256sum "$disk/app.db"; stat -c %y "$disk/app.db")" || exit 99
test -z "$(ls -d "$disk"/*rehearsal* 2> /dev/null)" || exit 98
exit $code
"""


@needs_a_mount
@pytest.mark.parametrize(
    ("free", "code", "text"),
    [
        (0, "FA433", "too little space"),
        (4_000, "FA433", "too little space"),
        (12_000, "FA433", "too little space"),
        (15_000, "FA305", "full"),
        (18_000, "FA305", "full"),
        (25_000, "FA433", "too little space"),
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing(site: Site, free: int, code: str, text: str) -> None:
    disk = site.root / "disk"
    disk.mkdir()
    script = ["sh", "-c", ON_A_DISK, "sh", str(disk), str(site.data), str(free)]
    words = [*FLASK, "migrate", "--dry-run", "--database", str(disk / "app.db"), "--directory", str(site.directory)]
    with started([*NAMESPACE, *script, *words], site.root) as process:
        finished = finish(process)
    assert finished.returncode in (3, 4), finished.stderr
    assert code in finished.stderr
    assert text in finished.stderr
    assert f"df -h {disk}\n" in finished.stderr
