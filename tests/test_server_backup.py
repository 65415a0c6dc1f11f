"""Backups of databases on servers: made and read by the server's own programs, and nothing tells the password."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from financial_agent.config import DEFAULTS, backups
from financial_agent.migrator import backup, backup_files, restore
from financial_agent.migrator.backup import Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect, locked, server_backups
from financial_agent.migrator.errors import (
    BackupFailed,
    BackupUnusable,
    RunLocked,
)
from financial_agent.migrator.errors_run import Interrupted
from tests.helpers import FLASK, run
from tests.server_place import CONTROL, SUFFIX, Place

pytestmark = pytest.mark.slow

SPECIAL = "p@ss:/?#[]!$&'()*+,;=% \"\\^{}|~<>äß"


@pytest.fixture(params=["postgresql", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.getfixturevalue(request.param), tmp_path)


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
    assert getattr(caught.value.__cause__, "code", None) == "FA451"
    assert place.state() == before
    monkeypatch.undo()
    place.migrate(backups=Policy("never", place.policy.folder, 1))
    assert place.rows("SELECT count(*) FROM one") == [(0,)]


def test_a_program_that_is_older_than_the_server_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_backups, "version", lambda _: (9, 6))
    with pytest.raises(BackupFailed, match=r"is of version 9\.6, and the server of 1\d") as caught:
        place.backup()
    assert getattr(caught.value.__cause__, "code", None) == "FA436"
    assert caught.value.hint.startswith("Install the newer one: apt-get install ")
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


# With no more rights than the page on servers gives.


@pytest.fixture
def owner(place: Place) -> Iterator[str]:
    """The URL of the database for a user who owns it, and may make databases to try things in."""
    user = f"o_{place.name}"[:32]
    if place.dialect == "postgresql":
        made = (f"CREATE ROLE {user} LOGIN CREATEDB", f"ALTER DATABASE {place.name} OWNER TO {user}", *_to(place, user))
        gone = (f"REASSIGN OWNED BY {user} TO CURRENT_USER", f"DROP OWNED BY {user}", f"DROP ROLE {user}")
    else:
        made = (
            f"CREATE USER {user}@'%'",
            f"GRANT ALL ON `{place.name}`.* TO {user}@'%'",
            rf"GRANT ALL ON `fa\_scratch\_%`.* TO {user}@'%'",
        )
        gone = (f"DROP USER {user}@'%'",)
    place.do(*made)
    parts = urlsplit(place.url)
    try:
        yield parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()
    finally:
        place.do(*gone)


def _to(place: Place, user: str) -> list[str]:
    tables = ("one", "_migrations", "_migration_history", "_migration_attempt", "_migration_progress")
    return [
        f"ALTER TABLE {table} OWNER TO {user}"
        for table in tables
        if place.rows(f"SELECT to_regclass('{table}')") != [(None,)]
    ]


def test_who_owns_the_database_can_restore_it(place: Place, owner: str) -> None:
    place.url = owner
    with closing(connect(owner)) as db:
        if place.dialect == "mysql":
            db.execute("CREATE TRIGGER stamp BEFORE INSERT ON one FOR EACH ROW SET NEW.t = 'x'")
            db.execute("CREATE PROCEDURE clear() DELETE FROM one")
            db.execute("CREATE EVENT later ON SCHEDULE EVERY 1 YEAR DO DELETE FROM one")
        else:
            db.execute("CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$")
        db.execute("CREATE VIEW v AS SELECT n FROM one")
    before = place.state()
    made = place.backup()
    place.migrate()
    place.put_back(made)
    assert place.state()[:3] == before[:3]
