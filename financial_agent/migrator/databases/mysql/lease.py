"""Lets one run at a time work on the ledger of a Galera cluster, of which GET_LOCK knows one node alone: a row that its
holder renews.

Two nodes may change one row at once; the cluster lets the one of them commit that comes first
(https://mariadb.com/kb/en/about-galera-replication/). So whoever takes the lease commits a change of the row as it was
seen; and what its holder commits changes the row, too, and fails where another has taken it over meanwhile.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from financial_agent.migrator.databases.database import Busy, Patience, StatementError
from financial_agent.migrator.databases.mysql.dial import Connection, ask, change, dial
from financial_agent.migrator.databases.mysql.lock import Query, until
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_run import LockLost

_LASTS = 15  # seconds, by the clock of the node that is asked
_BEAT = 3.0  # seconds between two renewals
# How long a lease that has ended must stay as it is before another may have it: while a definition is made, the whole
# cluster stands still, and its holder cannot renew it.
_GRACE = 3 * _BEAT
_TRIES = 10  # to give it back, against whoever is trying to get it

_COLUMNS = (
    "(id INT PRIMARY KEY, holder VARCHAR(64) NOT NULL, who VARCHAR(255) NOT NULL, beat BIGINT NOT NULL,"
    " expires DATETIME(6) NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
)
_END = f"UTC_TIMESTAMP(6) + INTERVAL {_LASTS} SECOND"


class Lease:
    """The right to be the only run. `work` asks on the session that works; `table` is the lease's, ready for SQL."""

    def __init__(self, url: Url, patience: Patience, work: Query, table: str, *, is_there: bool) -> None:
        self._url = url
        self._patience = patience
        self._work = work
        self._table = table
        self._is_there = is_there
        self._token = secrets.token_hex(16)
        self._who = f"process {os.getpid()} on {platform.node()}"[:255]
        self._holder: Connection = None
        self._seen = ""
        self._ended: tuple[str, int, float] | None = None  # a lease that has ended, and when it was seen first

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for as long as the context lasts. Raises RunLocked, Stopped, DatabaseUnusable."""
        self._holder = dial(self._url)
        try:
            until(self._take, lambda: self._seen, self._url, self._patience)
            try:
                with self._renewed():
                    yield
            finally:
                self._give_back()
        finally:
            self._holder.close()  # which may be another by now

    def renew(self) -> None:
        """It is no session's: a new one that works changes nothing. Raises LockLost."""
        self.ensure()

    def ensure(self) -> None:
        """Raises LockLost unless it is still held."""
        sql = f"SELECT 1 FROM {self._table} WHERE id = 1 AND holder = ?"
        try:
            is_held = self._work(sql, (self._token,)) == [(1,)]
        except StatementError:
            is_held = False
        if not is_held:
            raise LockLost(database=self._url.display)

    def fence(self) -> None:
        """To be called just before something is committed, in its transaction: that fails where another has taken the
        lease over. Raises LockLost, Busy and ConnectionLost."""
        self._work(f"UPDATE {self._table} SET beat = beat + 1 WHERE id = 1 AND holder = ?", (self._token,))
        self.ensure()

    # Taking it.

    def _take(self) -> bool:
        """Try once. What another node did at the same moment is no failure."""
        try:
            if not self._is_there:
                change(self._holder, f"CREATE TABLE IF NOT EXISTS {self._table} {_COLUMNS}")
                self._is_there = True
            return self._try()
        except Busy:
            return False
        except StatementError as error:
            if error.constraint:  # another inserted the row
                return False
            raise

    def _try(self) -> bool:
        table = self._table
        rows = ask(self._holder, f"SELECT holder, beat, who, expires < UTC_TIMESTAMP(6) FROM {table} WHERE id = 1")
        if not rows:
            sql = f"INSERT INTO {table} (id, holder, who, beat, expires) VALUES (1, ?, ?, 0, {_END})"
            return change(self._holder, sql, (self._token, self._who)) == 1
        holder, beat, self._seen, has_ended = rows[0]
        if holder and not (has_ended and self._stays(holder, beat)):
            return False
        sql = (
            f"UPDATE {table} SET holder = ?, who = ?, beat = beat + 1, expires = {_END}"
            " WHERE id = 1 AND holder = ? AND beat = ?"
        )
        return change(self._holder, sql, (self._token, self._who, holder, beat)) == 1

    def _stays(self, holder: str, beat: int) -> bool:
        if self._ended is None or self._ended[:2] != (holder, beat):
            self._ended = (holder, beat, time.monotonic())
        return time.monotonic() - self._ended[2] > _GRACE

    # Keeping it, and giving it back.

    @contextmanager
    def _renewed(self) -> Iterator[None]:
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(done,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _keep(self, done: threading.Event) -> None:
        sql = f"UPDATE {self._table} SET beat = beat + 1, expires = {_END} WHERE id = 1 AND holder = ?"
        while not done.wait(_BEAT):
            # Whether it is still held is asked by whoever commits: here every failure is only tried again.
            with suppress(StatementError, MigratorError):
                if not self._holder.open:
                    self._holder = dial(self._url)
                change(self._holder, sql, (self._token,))

    def _give_back(self) -> None:
        sql = f"UPDATE {self._table} SET holder = '' WHERE id = 1 AND holder = ?"
        for _ in range(_TRIES):
            try:
                change(self._holder, sql, (self._token,))
            except Busy:
                time.sleep(secrets.randbelow(100) / 1000)
            except StatementError:  # it ends by itself
                return
            else:
                return
