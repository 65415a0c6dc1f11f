"""Puts another content into a MariaDB or MySQL database while others are connected to it.

RENAME TABLE exchanges all tables at once. Nobody writes between the backup of what is replaced and that: who waits for
an exclusive lock goes before those that wait to write, so each statement waits for the locks that the one before holds,
and only then are those released. Triggers, views, routines and events follow one by one, so a note is kept meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from financial_agent.migrator.databases import Busy, Patience, ReplacedHalfway, StatementError, workspace
from financial_agent.migrator.databases.mysql import backups
from financial_agent.migrator.databases.mysql.connection import MysqlDatabase
from financial_agent.migrator.databases.mysql.tools import client
from financial_agent.migrator.databases.server_backups import Progress
from financial_agent.migrator.databases.server_tools import run
from financial_agent.migrator.databases.url import parse
from financial_agent.migrator.errors import DatabaseLocked, MigratorError

_TICK = 0.02  # seconds between two looks whether a statement waits
_PAUSE = 0.5  # seconds between two tries for the locks
_NOTE = "_migration_attempt"

_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type <> 'VIEW'"
_VIEWS = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type = 'VIEW'"
_TRIGGERS = "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = ?"
_PROGRAMS = """\
SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = ?
UNION ALL SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = ?"""
_STATE = "SELECT state FROM information_schema.processlist WHERE id = ?"


class _Trigger(NamedTuple):
    name: str
    sql_mode: str
    definition: str


class Sole(MysqlDatabase):
    """The only one who writes to a database, while others go on reading: until it is closed, its locks are held."""

    def __init__(self, database: str, patience: Patience) -> None:
        self._stack = ExitStack()
        super().__init__(database, parse(database), patience=patience)
        try:
            self._holder = self._another()
            self._keep_others_from_writing()
        except BaseException:
            self.close()
            raise

    def _another(self) -> MysqlDatabase:
        return self._stack.enter_context(closing(MysqlDatabase(self.address, self.url, patience=self._patience)))

    def _keep_others_from_writing(self) -> None:
        deadline = time.monotonic() + self._patience.seconds
        while True:
            if not (locks := self._locks("READ")):
                return
            try:
                self._holder.execute(locks)
                return
            except Busy as error:
                if time.monotonic() > deadline:
                    raise self._locked() from error
            time.sleep(_PAUSE)

    def _locks(self, kind: str) -> str:
        """The note is written meanwhile."""
        names = [name for name in self._names(_TABLES) if name != _NOTE]
        return f"LOCK TABLES {', '.join(f'{self.quoted(name)} {kind}' for name in names)}" if names else ""

    def _locked(self) -> DatabaseLocked:
        purpose = "for others to end what they do with its tables"
        return DatabaseLocked(database=self.name, seconds=self._patience.seconds, purpose=purpose)

    def _names(self, sql: str, database: str | None = None) -> list[str]:
        return [name for (name,) in self.query(sql, (database or self.url.name,))]

    def copy(self, target: Path, mode: int, progress: Progress) -> None:
        backups.write(self, self.address, target, self._patience, progress)

    def replace_by(self, other: str, progress: Progress, note: str) -> None:
        triggers = self._read_triggers()
        with (
            TemporaryFile() as programs,
            workspace(self.address, self._patience, empty=True) as copies,
            closing(MysqlDatabase(other, parse(other), patience=self._patience)) as draft,
        ):
            place = parse(copies.original(lambda done, total: None)).name
            _write_programs(draft, programs, self._patience)
            for each in draft.query(_TRIGGERS, (draft.url.name,)):
                draft.execute(f"DROP TRIGGER {self.quoted(each[0])}")
            for db in (self, draft):
                db.note_attempt(note)
            try:
                self._exchange(draft.url.name, place, triggers)
            except BaseException as error:
                self._take_back(triggers)
                if isinstance(error, Busy):
                    raise self._locked() from error
                raise
            try:
                self._load_programs(programs)
            except (StatementError, MigratorError) as error:
                raise ReplacedHalfway(str(error)) from error
            self.note_attempt(None)

    def _exchange(self, other: str, place: str, triggers: Sequence[_Trigger]) -> None:
        """Let the tables of another database be this one's, and these another's. Raises Busy."""
        holder = self._holder
        if triggers:  # they keep a table from leaving its database
            holder = self._another()
            _hand_over(self._holder, holder, self._locks("WRITE"))
            for trigger in triggers:
                holder.execute(f"DROP TRIGGER {self.quoted(trigger.name)}")
        moves = [(self.url.name, name, place) for name in self._names(_TABLES)]
        moves += [(other, name, self.url.name) for name in self._names(_TABLES, other)]
        q = self.quoted
        renames = ", ".join(f"{q(source)}.{q(name)} TO {q(target)}.{q(name)}" for source, name, target in moves)
        _hand_over(holder, self, f"RENAME TABLE {renames}")

    def _read_triggers(self) -> list[_Trigger]:
        found = []
        for name in self._names(_TRIGGERS):
            _, mode, definition, *_ = self.query(f"SHOW CREATE TRIGGER {self.quoted(name)}")[0]
            found.append(_Trigger(name, mode, definition))
        return found

    def _take_back(self, triggers: Sequence[_Trigger]) -> None:
        """Nothing was exchanged: what was dropped before comes back. What fails here must not hide why."""
        with suppress(StatementError, MigratorError), closing(self._another()) as db:
            present = self._names(_TRIGGERS)
            for trigger in triggers:
                if trigger.name not in present:
                    db.execute(f"SET SESSION sql_mode = '{trigger.sql_mode}'")
                    db.execute(trigger.definition)
            db.note_attempt(None)

    def _load_programs(self, programs: IO[bytes]) -> None:
        """Exchange what follows the tables: those of this database go, and those that were written down come."""
        for view in self._names(_VIEWS):
            self.execute(f"DROP VIEW IF EXISTS {self.quoted(view)}")
        for kind, name in self.query(_PROGRAMS, (self.url.name, self.url.name)):
            self.execute(f"DROP {kind} IF EXISTS {self.quoted(name)}")
        with client(self.url) as tools:
            programs.seek(0)
            run(tools.tool("mariadb", self.url.name), self._patience, source=programs)

    def close(self) -> None:
        self._stack.close()
        super().close()


def _write_programs(draft: MysqlDatabase, target: IO[bytes], patience: Patience) -> None:
    """Write down what the exchange of tables leaves behind: triggers, routines, events, and views."""
    name = draft.url.name
    views = [view for (view,) in draft.query(_VIEWS, (name,))]
    with client(draft.url) as tools:
        run(tools.tool("mariadb-dump", *backups.DUMP, "--no-create-info", "--no-data", name), patience, target=target)
        if views:
            words = (*backups.DUMP[:2], "--no-data", "--skip-triggers", "--no-tablespaces", name, *views)
            run(tools.tool("mariadb-dump", *words), patience, target=target)


def _hand_over(holder: MysqlDatabase, waiting: MysqlDatabase, sql: str) -> None:
    """Run a statement that waits for what another connection has locked, and release that once it waits."""

    def release() -> None:
        while True:
            rows = holder.query(_STATE, (waiting.identity,))
            if not rows or "aiting" in str(rows[0][0]) or finished:
                break
            time.sleep(_TICK)
        holder.execute("UNLOCK TABLES")

    finished: list[bool] = []
    with ThreadPoolExecutor(max_workers=1) as executor:
        releasing = executor.submit(release)
        try:
            waiting.execute(sql)
        finally:
            finished.append(True)
            releasing.result()
