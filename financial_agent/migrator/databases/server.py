"""What the databases that are reached through a server have in common."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from financial_agent.migrator.databases.database import (
    Answer,
    Column,
    Effects,
    Orphan,
    Patience,
    Row,
    SchemaObject,
    StatementError,
    Stopped,
)
from financial_agent.migrator.databases.effects_by_words import find_effects
from financial_agent.migrator.databases.reach import reach as find_reach
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import MigratorError

if TYPE_CHECKING:
    from financial_agent.migrator.databases.rebuild import Rebuild, Rebuilding

_TICK = 0.1  # seconds between two questions whether to stop
_NOTICEABLE = 1.0  # seconds after which a person wonders what is being waited for
_ATTEMPT = "_migration_attempt"
LEDGER_TABLES = ("_migrations", "_migration_history", "_migration_progress", "_migration_attempt", "_migration_lock")

Result = TypeVar("Result")


class Worker:
    """Runs calls to a driver in a thread of its own, one at a time, so that the caller can stop meanwhile: a driver
    waits for its server, whatever signal comes."""

    def __init__(self, patience: Patience, cancel: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._patience = patience
        self._cancel = cancel
        """Asks the server to give up what it is working on."""

    def run(self, call: Callable[[], Result], purpose: str = "") -> Result:
        """Call, and wait for its end; what takes longer than one would notice is told. Raises what it raises, and
        Stopped once it was cancelled."""
        future = self._executor.submit(call)
        told_from = time.monotonic() + _NOTICEABLE
        while not wait([future], _TICK).done:
            if self._patience.stop(purpose if time.monotonic() > told_from else ""):
                self._cancel()
                future.exception()  # whatever became of it
                raise Stopped
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()


def with_marks(sql: str, parameters: Sequence[object]) -> str:
    """The engine's own SQL, as the drivers want it: with %s for each parameter."""
    return re.sub(r"\?", "%s", sql) if parameters else sql


class ServerDatabase:
    """One connection to a database of a server, in autocommit mode: every BEGIN and COMMIT is the engine's own."""

    dialect: str
    resumes = True
    knows_effects_by_words = True
    blocks_writers = False
    ledger_options = ""
    default_row = "DEFAULT VALUES"
    reads_text = True

    def __init__(self, address: str, url: Url, *, readonly: bool, patience: Patience) -> None:
        self.address = address
        self.url = url
        self.name = url.display
        self._readonly = readonly
        self._patience = patience
        self._is_cleaning = False
        self._worker = Worker(replace(patience, stop=self._stop), self._cancel)

    def _stop(self, purpose: str) -> bool:
        return not self._is_cleaning and self._patience.stop(purpose)

    @contextmanager
    def _to_the_end(self) -> Iterator[None]:
        """What is cleaned up behind a run that was asked to stop is not itself stopped."""
        before, self._is_cleaning = self._is_cleaning, True
        try:
            yield
        finally:
            self._is_cleaning = before

    # What each engine does in its own way.

    def _ask(self, sql: str, parameters: Sequence[object]) -> tuple[tuple[str, ...], list[Row], int]:
        """Run a statement: the names of its columns, its rows, and how many rows it changed. Raises StatementError,
        Busy, OutOfSpace, Stopped, DatabaseUnusable and DatabaseLocked."""
        raise NotImplementedError

    def _cancel(self) -> None:
        """Ask the server, on a connection of its own, to give up what this one is working on."""
        raise NotImplementedError

    def quoted(self, name: str) -> str:
        """A name as it is written in a statement."""
        raise NotImplementedError

    def written(self, table: str) -> str:
        """One of `tables()` as it is written in a statement."""
        return self.quoted(table)

    @property
    def ledger_types(self) -> Mapping[str, str]:
        raise NotImplementedError

    def columns(self, table: str) -> list[str]:
        raise NotImplementedError

    def objects(self) -> list[SchemaObject]:
        raise NotImplementedError

    def transaction(self, *, foreign_keys: bool = True) -> AbstractContextManager[Counter[Orphan]]:
        raise NotImplementedError

    @property
    def in_transaction(self) -> bool:
        raise NotImplementedError

    @property
    def home(self) -> str:
        """The schema, or the database, that a name without one is in."""
        raise NotImplementedError

    # What is the same.

    mend_hint = "Do what is told with each of them; what is damaged comes back from a backup: flask db backups"

    def effects(self, sql: str) -> Effects:
        return find_effects(sql, self.dialect, self.home)

    def reach(self, sql: str) -> str:
        return find_reach(sql, self.dialect)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        return self._ask(sql, parameters)[1]

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        return self._ask(sql, parameters)[2]

    def define(self, sql: str) -> None:
        self.execute(sql)

    def change(self, sql: str) -> int:
        return self._ask(sql, ())[2]

    def answer(self, sql: str) -> Answer:
        columns, rows, _ = self._ask(sql, ())
        return Answer(columns, len(rows), rows[0] if rows else None)

    def fillable(self) -> dict[str, str]:
        # The rows of a part of a table are its own, and those of a foreign table another server's.
        found = [each for each in self.objects() if each.type == "table"]
        return {each.name: each.sql for each in found if not re.search(r"^CREATE FOREIGN|\) PARTITION OF ", each.sql)}

    def counts_up(self, table: SchemaObject, column: Column) -> bool:
        numbers = rf"^\W*{re.escape(column.name)}\W.*(AUTO_INCREMENT|AS IDENTITY|nextval\()"
        return bool(re.search(numbers, table.sql, re.MULTILINE | re.IGNORECASE))

    def spelled_out(self, type_: str) -> str:
        return type_  # as it is, it has what ENUM lists

    def is_recent(self, table: str, column: str) -> bool:
        moment = "CURRENT_TIMESTAMP - INTERVAL '1' DAY"
        try:
            return bool(
                self.query(f"SELECT 1 FROM {self.written(table)} WHERE {self.quoted(column)} >= {moment} LIMIT 1")
            )
        except StatementError:  # it holds no moments
            return False

    def last_id(self, table: str) -> int:
        # What a sequence gave out last tells nothing of rows: a transaction that was rolled back leaves a gap.
        rows = self.query(f"SELECT max(id) FROM {self.ledger(table)}") if self.columns(table) else []
        return int(rows[0][0] or 0) if rows else 0

    def ledger(self, table: str) -> str:
        raise NotImplementedError

    def orphans(self) -> Counter[Orphan]:
        return Counter()  # the server lets none come about

    def note_attempt(self, text: str | None) -> None:
        # The history loses a line when this fails; a migration must not fail for it.
        with suppress(StatementError, MigratorError), self._to_the_end():
            is_there = bool(self.columns(_ATTEMPT))
            if text is None and not is_there:
                return
            with self.transaction():
                if not is_there:
                    note = f"note {self.ledger_types['required']}"
                    self.define(f"CREATE TABLE {self.ledger(_ATTEMPT)} ({note}){self.ledger_options}")
                self.execute(f"DELETE FROM {self.ledger(_ATTEMPT)}")
                if text is not None:
                    self.execute(f"INSERT INTO {self.ledger(_ATTEMPT)} (note) VALUES (?)", (text,))

    def attempt(self) -> str | None:
        rows = self.query(f"SELECT note FROM {self.ledger(_ATTEMPT)}") if self.columns(_ATTEMPT) else []
        return str(rows[0][0]) if rows else None

    def rebuild(self, rebuild: Rebuild) -> Rebuilding:
        raise StatementError("ALTER TABLE changes a table here: migrate:rebuild is for SQLite")

    def cascades(self, drop_table: str) -> tuple[str, list[str]]:
        return "", []  # DROP TABLE deletes no rows of other tables here
