"""Backups of databases on servers: made and read by the server's own programs, put back whole, and nothing tells the
password."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from financial_agent.config import DEFAULTS, backups
from financial_agent.migrator import backup, backup_files, ledger, restore, runner
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.backup_files import Backup
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect, locked, server_backups
from financial_agent.migrator.errors import (
    BackupFailed,
    BackupUnusable,
    DatabaseLocked,
    RunLocked,
)
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.restore import Prepared, Restored
from tests import servers
from tests.helpers import FLASK, run, until

FILES = {
    "001_one": "CREATE TABLE one (n integer PRIMARY KEY, t varchar(50));",
    "002_two": "-- migrate:up\nCREATE TABLE two (n integer PRIMARY KEY);\n-- migrate:down\nDROP TABLE two;",
}
ROWS = ", ".join(f"({n}, 'row {n}')" for n in range(1, 501))
CONTROL = Control(wait=1)
SUFFIX = {"postgresql": "dump", "mysql": "sql"}
SPECIAL = "p@ss:/?#[]!$&'()*+,;=% \"\\^{}|~<>äß"


class Place:
    """A database on a server, at version 001 with 500 rows; 002 is pending."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = f"{url}{'&' if '?' in url else '?'}lock_timeout=1s"
        self.plain = url
        self.dialect = urlsplit(url).scheme
        self.name = urlsplit(url).path.removeprefix("/")
        self.root = root
        self.policy = Policy("destructive", root / "backups", 3)
        self.directory = root / "migrations"
        self.directory.mkdir()
        for name, sql in FILES.items():
            (self.directory / f"{name}.sql").write_text(sql)
        self.migrate("1")
        self.do(f"INSERT INTO one VALUES {ROWS}")

    def migrate(self, target: str | None = None, **options: Any) -> None:
        runner.migrate(self.url, self.directory, target=target, control=CONTROL, **options)

    def do(self, *statements: str) -> None:
        servers.run(self.plain, *statements)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return servers.rows(self.plain, sql)

    def backup(self, control: Control = CONTROL) -> Backup:
        return backup.make(self.url, self.policy, "manual", control)

    def listed(self) -> list[Backup]:
        return backup_files.listed(self.url, self.policy.folder)

    def kept(self) -> list[Backup]:
        return [each for each in self.listed() if each.kind == "restore"]

    @contextmanager
    def prepared(self, word: str, control: Control = CONTROL) -> Iterator[Prepared]:
        with restore.prepared(self.url, self.policy, word, control) as found:
            yield found

    def put_back(self, made: Backup, control: Control = CONTROL) -> Restored:
        with self.prepared(made.name) as found:
            return restore.restore(self.url, self.policy, found, control)

    def state(self) -> tuple[object, ...]:
        """The schema, all rows, and the whole ledger."""
        with closing(connect(self.url, readonly=True)) as db:
            tables = [db.query(f"SELECT * FROM {db.written(name)} ORDER BY 1") for name in sorted(db.tables())]
            entries = [(entry.filename, entry.checksum) for entry in ledger.entries(db)]
            return db.fingerprint(), tables, entries, ledger.history(db)

    def databases(self) -> set[str]:
        sql = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}[self.dialect]
        return {name for (name,) in self.rows(sql)}

    def events(self) -> list[tuple[str, str]]:
        rows = self.rows("SELECT event, filename FROM _migration_history ORDER BY id")
        return [(event, filename.removesuffix(".sql")) for event, filename in rows]


@pytest.fixture(params=["postgresql", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def made(place: Place) -> Backup:
    """A backup at 001; the database went on to 002, and has other rows, since."""
    made = place.backup()
    place.migrate()
    place.do("DELETE FROM one WHERE n > 20", "INSERT INTO two VALUES (1)")
    return made


# Making one.


def test_a_backup_is_named_by_database_version_time_and_kind(place: Place) -> None:
    made = place.backup()
    stamp = f"{made.made_at:%Y%m%dT%H%M%S}.{made.made_at.microsecond // 1000:03}Z"
    assert made.name == f"{place.name}-001-{stamp}-manual.{SUFFIX[place.dialect]}"
    assert (made.version, made.checked, made.size) == ("001", True, made.path.stat().st_size)
    assert place.listed() == [made]
    assert made.path.stat().st_mode & 0o777 == 0o600


def test_a_backup_changes_nothing_in_the_database(place: Place) -> None:
    before = place.state()
    place.backup()
    assert place.state() == before


def test_nothing_but_the_backup_and_its_checksum_stays_in_the_folder(place: Place) -> None:
    made = place.backup()
    assert {each.name for each in place.policy.folder.iterdir()} == {made.name, f"{made.name}.sha256"}


def test_a_run_that_destroys_something_makes_one_first(place: Place) -> None:
    (place.directory / "002_two.sql").write_text("DELETE FROM one;")
    place.migrate(backups=place.policy)
    (made,) = place.listed()
    assert (made.kind, made.version) == ("migrate", "001")
    place.put_back(made)
    assert place.rows("SELECT count(*) FROM one") == [(500,)]


def test_without_the_program_a_run_that_destroys_something_does_not_begin(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (place.directory / "002_two.sql").write_text("DELETE FROM one;")
    before = place.state()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupFailed) as caught:
        place.migrate(backups=place.policy)
    program = {"postgresql": "pg_dump", "mysql": "mariadb-dump"}[place.dialect]
    assert f"nothing was changed: {program} is needed, and is not on PATH" in caught.value.message
    package = {"postgresql": "postgresql-client", "mysql": "mariadb-client"}[place.dialect]
    assert caught.value.hint == (
        f"Install it: apt-get install {package}, or what has it on this system\n"
        "Or run without a backup: FINANCIAL_AGENT_BACKUP=never"
    )
    assert place.state() == before
    monkeypatch.undo()
    place.migrate(backups=Policy("never", place.policy.folder, 1))
    assert place.rows("SELECT count(*) FROM one") == [(0,)]


def test_a_program_that_is_older_than_the_server_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_backups, "version", lambda _: (9, 6))
    with pytest.raises(BackupFailed, match=r"is of version 9\.6, and the server of 1\d"):
        place.backup()
    assert place.listed() == []


def test_a_backup_waits_for_a_run_as_it_could_not_tell_the_version(place: Place) -> None:
    with locked(place.url, CONTROL.patience()), pytest.raises(RunLocked):
        place.backup()
    assert place.listed() == []


def test_an_interruption_leaves_no_backup(place: Place) -> None:
    with pytest.raises(Interrupted):
        place.backup(Control(stop=lambda: 15))
    assert place.listed() == []


def test_the_backups_of_a_database_on_a_server_lie_in_the_instance_folder(tmp_path: Path) -> None:
    url = "postgresql://user:secret@host/app"
    assert backups(DEFAULTS, url, tmp_path).folder == tmp_path / "backups"


# Restoring.


def test_a_restore_brings_back_what_the_backup_holds(place: Place) -> None:
    before = place.state()
    made = place.backup()
    place.migrate()
    place.do("DELETE FROM one WHERE n > 20", "UPDATE one SET t = 'other'", "INSERT INTO two VALUES (1)")
    restored = place.put_back(made)
    assert place.state()[:3] == before[:3]
    assert (restored.newest, restored.continues_history) == ("001_one.sql", True)
    assert place.events() == [("apply", "001_one"), ("apply", "002_two"), ("restore", "001_one")]


def test_the_comparison_tells_each_tables_rows_now_and_in_the_backup(place: Place, made: Backup) -> None:
    before = place.state()
    with place.prepared(made.name) as found:
        assert found.rows == {"one": (20, 500), "two": (1, None)}
        assert (found.changes["one"].inserted, found.changes["two"].deleted) == (480, 1)
        assert (found.contents.newest, found.current and found.current.newest) == ("001_one.sql", "002_two.sql")
    assert place.state() == before


def test_a_restore_can_be_undone_by_restoring_what_it_replaced(place: Place, made: Backup) -> None:
    before = place.state()
    restored = place.put_back(made)
    (kept,) = place.kept()
    assert (kept.path, kept.version, kept.checked) == (restored.kept, "002", True)
    place.put_back(kept)
    assert place.state()[:3] == before[:3]


def test_runs_go_on_after_a_restore(place: Place, made: Backup) -> None:
    place.put_back(made)
    place.migrate()
    assert place.events()[-2:] == [("restore", "001_one"), ("apply", "002_two")]


def test_a_restore_leaves_no_other_database_behind(place: Place, made: Backup) -> None:
    with place.prepared(made.name) as found:
        draft = urlsplit(found.draft).path.removeprefix("/")
        assert draft in place.databases()
        restore.restore(place.url, place.policy, found, CONTROL)
    assert draft not in place.databases()
    assert [name for name in place.databases() if "replaced" in name] == []


def test_a_backup_that_lost_its_end_is_refused(place: Place, made: Backup) -> None:
    backup_files.sum_of(made.path).unlink()
    made.path.write_bytes(made.path.read_bytes()[:-200])
    before = place.state()
    with pytest.raises(BackupUnusable):
        place.put_back(made)
    assert place.state() == before


def test_a_file_of_something_else_is_no_backup(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("SELECT 1;\n")
    with pytest.raises(BackupUnusable), place.prepared(str(tmp_path / "other")):
        pass


@pytest.mark.parametrize("reading", [True, False], ids=["a reader", "a writer"])
def test_a_restore_is_refused_while_others_hold_a_table(place: Place, made: Backup, reading: bool) -> None:
    before = place.state()
    with (
        place.prepared(made.name) as found,
        closing(servers.connect(place.plain)) as other,
        closing(other.cursor()) as cursor,
    ):
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM one" if reading else "DELETE FROM one WHERE n = 1")
        with pytest.raises(DatabaseLocked):
            restore.restore(place.url, place.policy, found, CONTROL)
        cursor.execute("ROLLBACK")
    assert place.state() == before
    assert place.kept() == []


def test_a_connection_that_was_open_before_sees_what_was_restored(place: Place, made: Backup) -> None:
    with closing(servers.connect(place.plain)) as other, closing(other.cursor()) as cursor:
        cursor.execute("SELECT count(*) FROM one")
        assert [tuple(row) for row in cursor.fetchall()] == [(20,)]
        place.put_back(made)
        cursor.execute("SELECT count(*) FROM one")
        assert [tuple(row) for row in cursor.fetchall()] == [(500,)]


def test_what_others_write_meanwhile_is_in_what_is_kept_or_in_what_is_restored(place: Place, made: Backup) -> None:
    """Nobody writes in between."""
    written: list[int] = []
    done = threading.Event()

    def write() -> None:
        with (
            closing(servers.connect(place.plain)) as other,
            closing(other.cursor()) as cursor,
        ):
            for number in range(1000, 1_000_000):
                if done.is_set():
                    return
                cursor.execute(f"INSERT INTO one VALUES ({number}, 'late')")
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len(written) > 10)
        place.put_back(made, Control(wait=30))
        count = len(written)
        until(lambda: len(written) > count + 10)
    finally:
        done.set()
        writer.join()
    restored = {n for (n,) in place.rows("SELECT n FROM one WHERE n >= 1000")}
    place.put_back(place.kept()[0])
    kept = {n for (n,) in place.rows("SELECT n FROM one WHERE n >= 1000")}
    assert kept
    assert kept.isdisjoint(restored)
    assert sorted(kept | restored) == written


# The password.


@pytest.fixture
def secret(place: Place) -> Iterator[str]:
    """The URL of the same database, for a user with a password that has every special character."""
    parts = urlsplit(place.url)
    user = f"u_{place.name}"[:30]
    literal = SPECIAL.replace("\\", "\\\\" if place.dialect == "mysql" else "\\").replace("'", "''")
    if place.dialect == "postgresql":
        made = (f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{literal}'",)
        gone = (f"REASSIGN OWNED BY {user} TO CURRENT_USER", f"DROP OWNED BY {user}", f"DROP ROLE {user}")
    else:
        made = (f"CREATE USER {user}@'%' IDENTIFIED BY '{literal}'", f"GRANT ALL ON *.* TO {user}@'%'")
        gone = (f"DROP USER {user}@'%'",)
    place.do(*made)
    host = parts.netloc.rpartition("@")[2]
    try:
        yield parts._replace(netloc=f"{user}:{quote(SPECIAL, safe='')}@{host}").geturl()
    finally:
        place.do(*gone)


@contextmanager
def watched_arguments() -> Iterator[set[bytes]]:
    """The arguments of all processes that run meanwhile (Linux)."""
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(path.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def tells(texts: Sequence[str]) -> list[str]:
    """Those in which the password stands, plain or as in a URL."""
    return [text for text in texts if SPECIAL in text or quote(SPECIAL, safe="") in text or "p%40ss" in text]


def test_the_password_is_in_no_argument_no_output_and_no_row(place: Place, secret: str, tmp_path: Path) -> None:
    (place.directory / "002_two.sql").write_text("DELETE FROM one;")
    settings = f"FINANCIAL_AGENT_DATABASE={secret}\nFINANCIAL_AGENT_BACKUP_DIRECTORY={place.policy.folder}\n"
    (tmp_path / ".flaskenv").write_text(settings)
    folder = ["--directory", str(place.directory)]
    said = []
    with watched_arguments() as seen:
        for words in (["backup"], ["migrate"], ["backups"]):
            finished = run([*FLASK, *words, *folder], tmp_path)
            assert finished.returncode == 0, finished.stderr
            said += [finished.stdout, finished.stderr]
        policy = place.policy
        (made,) = [each for each in backup_files.listed(secret, policy.folder) if each.kind == "manual"]
        with restore.prepared(secret, policy, made.name, CONTROL) as found:
            restore.restore(secret, policy, found, CONTROL)
    programs = {"postgresql": b"pg_dump", "mysql": b"dump"}[place.dialect]
    assert any(programs in arguments for arguments in seen)
    assert tells([arguments.decode(errors="replace") for arguments in seen]) == []
    assert tells(said) == []
    assert tells([str(place.rows("SELECT * FROM _migration_history"))]) == []
    assert place.rows("SELECT count(*) FROM one") == [(500,)]


def test_what_a_program_says_when_it_fails_has_no_password(place: Place, secret: str) -> None:
    made = backup.make(secret, place.policy, "manual", CONTROL)
    backup_files.sum_of(made.path).unlink()
    data = made.path.read_bytes()
    made.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BackupUnusable) as caught, restore.prepared(secret, place.policy, made.name, CONTROL):
        pass
    assert tells([str(caught.value), caught.value.hint, repr(caught.value.__cause__)]) == []
