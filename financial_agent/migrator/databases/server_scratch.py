"""Databases to try things in, made on the server beside one that matters, and dropped behind their use. Those that a
killed process left are dropped by the next one that makes some."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

from financial_agent.migrator.databases import url as urls
from financial_agent.migrator.databases.database import Database, OutOfSpace, Patience, StatementError
from financial_agent.migrator.databases.server import LEDGER_TABLES
from financial_agent.migrator.errors_server import ScratchRefused

PREFIX = "fa_scratch_"
_NAME = re.compile(PREFIX + r"([0-9a-f]{8})_([0-9a-f]{8})_\d+")


class Connect(Protocol):
    def __call__(self, database: str, *, readonly: bool, patience: Patience) -> Database: ...


class Scratches:
    """The databases that one process makes beside another. Each engine does in its own way what raises here."""

    def __init__(self, database: str, connect: Connect, patience: Patience) -> None:
        self.patience = patience
        self.beside = connect(database, readonly=False, patience=Patience(patience.seconds))
        """Whoever asks to stop must not stop the clearing up."""
        self._connect = connect
        self.token = secrets.token_hex(4)
        """What the databases of this process have in their names, and shows that it is there."""
        self.database = database
        self._is_tidy = False
        self._count = 0

    def close(self) -> None:
        self.beside.close()

    def make(self, source: str | None = None) -> str:
        """The URL of a new database: an empty one, or a copy of one of these. Raises ScratchRefused."""
        if not self._is_tidy:
            self.show_presence()
            self._tidy()
            self._is_tidy = True
        self._count += 1
        name = f"{PREFIX}{int(time.time()):08x}_{self.token}_{self._count}"
        try:
            with closing(self.opened(self.database)) as db:
                self.create(db, name, source)
        except OutOfSpace:
            raise
        except StatementError as error:
            raise ScratchRefused(database=self.beside.name, why=str(error), fix=self.fix()) from error
        return self.address(name)

    def address(self, name: str) -> str:
        """The URL of one of these databases."""
        return urlsplit(self.database)._replace(path=f"/{name}").geturl()

    def opened(self, url: str) -> Database:
        return self._connect(url, readonly=False, patience=self.patience)

    def name_of(self, url: str) -> str:
        return urls.parse(url).name

    def remove(self, url: str) -> None:
        self.drop(self.name_of(url))

    def ledger_tables(self) -> list[str]:
        """The ledger's tables that the database has."""
        return [table for table in LEDGER_TABLES if self.beside.columns(table)]

    def _tidy(self) -> None:
        """Drop what processes left that are not there any more."""
        for name in self.names():
            made = _NAME.fullmatch(name)
            if made and not self.is_present(made[2], time.time() - int(made[1], 16)):
                with suppress(StatementError):  # somebody else is dropping it, or looks into it
                    self.drop(name)

    # What each engine does in its own way.

    def show_presence(self) -> None:
        """Let others see that this process is there, for as long as its connection lasts."""
        raise NotImplementedError

    def is_present(self, token: str, age: float) -> bool:
        """Whether the process is there that has this token, and made a database so many seconds ago."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The names of all databases that were made in this way."""
        raise NotImplementedError

    def create(self, db: Database, name: str, source: str | None) -> None:
        """Make a database, which is a copy of the one at a URL, or empty. Raises StatementError."""
        raise NotImplementedError

    def fix(self) -> str:
        """What gives the right to make databases."""
        raise NotImplementedError

    def begin(self, url: str) -> None:
        """Make in a new, empty database what tables are made in."""

    def fill(self, url: str, *, rows: bool) -> None:
        """Give a new database the schema of the other one, and the rows of the ledger, or all. Raises ToolMissing,
        ToolFailed and Stopped."""
        raise NotImplementedError

    def drop(self, name: str) -> None:
        raise NotImplementedError

    def size(self, url: str) -> int:
        raise NotImplementedError


class ServerWorkspace:
    """Copies of a database, beside it."""

    def __init__(self, scratches: Scratches, stack: ExitStack, *, empty: bool, rows: bool) -> None:
        self._scratches = scratches
        self._stack = stack
        self._empty = empty
        self._rows = rows

    @property
    def space_hint(self) -> str:
        return self._scratches.beside.space_hint

    def original(self, progress: Callable[[int, int], None]) -> str:
        url = self._new()
        if self._empty:
            self._scratches.begin(url)
        else:
            self._scratches.fill(url, rows=self._rows)
        return url

    def clone(self, database: str) -> str:
        return self._new(database)

    def remove(self, database: str) -> None:
        self._scratches.remove(database)

    def size(self, database: str) -> int:
        return self._scratches.size(database)

    def _new(self, source: str | None = None) -> str:
        url = self._scratches.make(source)
        self._stack.callback(self._scratches.remove, url)
        return url


@contextmanager
def workspace(scratches: Scratches, *, empty: bool, rows: bool) -> Iterator[ServerWorkspace]:
    """See `databases.workspace`."""
    with closing(scratches), ExitStack() as stack:
        yield ServerWorkspace(scratches, stack, empty=empty, rows=rows)


@contextmanager
def scratch(scratches: Scratches, *, empty: bool) -> Iterator[Database]:
    """See `databases.scratch`."""
    with (
        workspace(scratches, empty=empty, rows=False) as copies,
        closing(scratches.opened(copies.original(lambda done, total: None))) as db,
    ):
        yield db
