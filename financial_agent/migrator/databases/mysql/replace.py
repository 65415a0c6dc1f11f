"""Puts another content into a MariaDB or MySQL database while others are connected to it.

RENAME TABLE exchanges all tables at once, and those that were there go into a database of their own, where nobody else
writes: what is kept of them is all that was ever written. Triggers, views, routines and events follow one by one, so a
note is kept meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from financial_agent.migrator.databases import Busy, Patience, ReplacedHalfway, StatementError, Stopped
from financial_agent.migrator.databases.mysql import backups
from financial_agent.migrator.databases.mysql.connection import MysqlDatabase
from financial_agent.migrator.databases.mysql.tools import LOADING, client
from financial_agent.migrator.databases.server_backups import Progress
from financial_agent.migrator.databases.server_scratch import PREFIX
from financial_agent.migrator.databases.server_tools import run
from financial_agent.migrator.databases.url import parse
from financial_agent.migrator.errors import DatabaseLocked, MigratorError

_PAUSE = 0.2  # seconds between two tries for the locks

_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type <> 'VIEW'"
_VIEWS = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type = 'VIEW'"
_TRIGGERS = "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = ?"
_PROGRAMS = """\
SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = ?
UNION ALL SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = ?"""


class _Trigger(NamedTuple):
    name: str
    sql_mode: str
    definition: str


class Sole(MysqlDatabase):
    """A database whose tables leave it as they are, so that nobody has to be kept from it before."""

    def __init__(self, database: str, patience: Patience) -> None:
        super().__init__(database, parse(database), patience=patience)
        # Not named as a scratch database, which others would clear away; and a name has 64 characters at most.
        self._place = f"{PREFIX}replaced_{time.time_ns():x}_{self.url.name[:24]}"

    def copy(self, target: Path, mode: int, progress: Progress) -> None:
        """What was replaced: its tables, and then what was written down of it."""
        with open(target, "xb") as file, client(self.url) as tools:
            target.chmod(0o600)
            run(tools.tool("mariadb-dump", *backups.TABLES, self._place), self._patience, target=file)
            self._programs.seek(0)
            file.seek(0, 2)
            while data := self._programs.read(1 << 20):
                file.write(data)

    def replace_by(self, other: str, keep: Callable[[], None], progress: Progress, note: str) -> None:
        with (
            TemporaryFile() as self._programs,
            TemporaryFile() as new_programs,
            closing(MysqlDatabase(other, parse(other), patience=self._patience)) as draft,
        ):
            _write_programs(self, self._programs, self._patience)
            _write_programs(draft, new_programs, self._patience)
            for (name,) in draft.query(_TRIGGERS, (draft.url.name,)):
                draft.execute(f"DROP TRIGGER {self.quoted(name)}")
            for db in (self, draft):
                db.note_attempt(note)
            with self._prepared():
                self._exchange(draft.url.name)
            try:
                keep()
                self.execute(f"DROP DATABASE {self.quoted(self._place)}")
                self._load(new_programs)
            except (StatementError, MigratorError, Stopped, OSError) as error:
                raise ReplacedHalfway(f"{error} (what was there is in the database {self._place})") from error
            self.note_attempt(None)

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """Without triggers, which keep a table from leaving its database, and with a place to leave for. When that
        fails, all is as before."""
        triggers = self._read_triggers()
        self.execute(f"CREATE DATABASE {self.quoted(self._place)}")
        try:
            for trigger in triggers:
                self.execute(f"DROP TRIGGER {self.quoted(trigger.name)}")
            yield
        except BaseException:
            with suppress(StatementError, MigratorError):  # it must not hide what led to it
                self._take_back(triggers)
            raise

    def _read_triggers(self) -> list[_Trigger]:
        found = []
        for (name,) in self.query(_TRIGGERS, (self.url.name,)):
            _, mode, definition, *_ = self.query(f"SHOW CREATE TRIGGER {self.quoted(name)}")[0]
            found.append(_Trigger(name, mode, definition))
        return found

    def _take_back(self, triggers: Sequence[_Trigger]) -> None:
        with closing(MysqlDatabase(self.address, self.url, patience=Patience(self._patience.seconds))) as db:
            present = {name for (name,) in db.query(_TRIGGERS, (self.url.name,))}
            for trigger in triggers:
                if trigger.name not in present:
                    db.query(f"SET SESSION sql_mode = '{trigger.sql_mode}'")
                    db.query(trigger.definition)
            db.query(f"DROP DATABASE {self.quoted(self._place)}")
            db.note_attempt(None)

    def _exchange(self, other: str) -> None:
        """Let the tables of another database be this one's. Raises DatabaseLocked."""
        home, q = self.url.name, self.quoted
        moves = [(home, name, self._place) for (name,) in self.query(_TABLES, (home,))]
        moves += [(other, name, home) for (name,) in self.query(_TABLES, (other,))]
        renames = ", ".join(f"{q(source)}.{q(name)} TO {q(target)}.{q(name)}" for source, name, target in moves)
        deadline = time.monotonic() + self._patience.seconds
        while True:
            try:
                self.execute(f"RENAME TABLE {renames}")
                return
            except Busy as error:
                if time.monotonic() > deadline:
                    raise self._locked() from error
            time.sleep(_PAUSE)

    def _locked(self) -> DatabaseLocked:
        purpose = "for others to end what they do with its tables"
        look = "SHOW FULL PROCESSLIST;"
        return DatabaseLocked(database=self.name, seconds=self._patience.seconds, purpose=purpose, look=look)

    def _load(self, programs: IO[bytes]) -> None:
        """Exchange what follows the tables: those of this database go, and those that were written down come."""
        for (view,) in self.query(_VIEWS, (self.url.name,)):
            self.execute(f"DROP VIEW IF EXISTS {self.quoted(view)}")
        for kind, name in self.query(_PROGRAMS, (self.url.name, self.url.name)):
            self.execute(f"DROP {kind} IF EXISTS {self.quoted(name)}")
        with client(self.url) as tools:
            programs.seek(0)
            run(tools.tool("mariadb", *LOADING, self.url.name), self._patience, source=programs)


def _write_programs(db: MysqlDatabase, target: IO[bytes], patience: Patience) -> None:
    """Write down what the exchange of tables leaves behind: triggers, routines, events, and views."""
    name = db.url.name
    views = [view for (view,) in db.query(_VIEWS, (name,))]
    with client(db.url) as tools:
        run(tools.tool("mariadb-dump", *backups.PROGRAMS, name), patience, target=target)
        if views:
            run(tools.tool("mariadb-dump", *backups.TABLES, "--no-data", name, *views), patience, target=target)
