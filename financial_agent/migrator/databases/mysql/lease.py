"""The lock of a run on a Galera cluster, of which GET_LOCK knows one node alone: a row that its holder renews.

Two nodes may change one row at once; the cluster lets the one of them commit that comes first
(https://mariadb.com/kb/en/about-galera-replication/). So whoever takes the lease commits a change of the row as it was
seen; and what its holder commits changes the row, too, and fails where another has taken it over.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from financial_agent.migrator.databases.database import Busy, Row, StatementError
from financial_agent.migrator.databases.mysql.dial import Connection, ask, change, dial
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import MigratorError

LASTS = 15  # seconds, by the clock of the node that is asked
_BEAT = 3.0  # seconds between two renewals
# How long a lease that has ended must stay as it is before another may have it: while a definition is made, the whole
# cluster stands still, and its holder cannot renew it.
_GRACE = 3 * _BEAT

_COLUMNS = (
    "(id INT PRIMARY KEY, holder VARCHAR(64) NOT NULL, who VARCHAR(255) NOT NULL, beat BIGINT NOT NULL,"
    " expires DATETIME(6) NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
)
_END = f"UTC_TIMESTAMP(6) + INTERVAL {LASTS} SECOND"


class Lease:
    """A lease that is taken, renewed and given back. `seen` is who had it when it was looked at last."""

    def __init__(self, table: str, connection: Connection) -> None:
        self.seen = ""
        self._table = table
        self._connection = connection
        self._token = secrets.token_hex(16)
        self._who = f"process {os.getpid()} on {platform.node()}"[:255]
        self._ended: tuple[str, int, float] | None = None  # a lease that has ended, and when it was seen first
        with suppress(Busy):
            change(connection, f"CREATE TABLE IF NOT EXISTS {table} {_COLUMNS}")

    def take(self) -> bool:
        """Try to get it. What another node did at the same moment is no failure, and tried again."""
        try:
            return self._try()
        except Busy:
            return False
        except StatementError as error:
            if error.constraint:  # another inserted the row
                return False
            raise

    def _try(self) -> bool:
        table = self._table
        rows = ask(
            self._connection, f"SELECT holder, beat, who, expires < UTC_TIMESTAMP(6) FROM {table} WHERE id = 1", ()
        )
        if not rows:
            mine = (self._token, self._who)
            sql = f"INSERT INTO {table} (id, holder, who, beat, expires) VALUES (1, ?, ?, 0, {_END})"
            return change(self._connection, sql, mine) == 1
        holder, beat, who, has_ended = rows[0]
        self.seen = f"{who}, by a lease" if holder else ""
        if holder and not (has_ended and self._stays(holder, beat)):
            return False
        sql = (
            f"UPDATE {table} SET holder = ?, who = ?, beat = beat + 1, expires = {_END}"
            " WHERE id = 1 AND holder = ? AND beat = ?"
        )
        return change(self._connection, sql, (self._token, self._who, holder, beat)) == 1

    def _stays(self, holder: str, beat: int) -> bool:
        if self._ended is None or self._ended[:2] != (holder, beat):
            self._ended = (holder, beat, time.monotonic())
        return time.monotonic() - self._ended[2] > _GRACE

    @contextmanager
    def kept(self, url: Url) -> Iterator[None]:
        """Renew it from a thread for as long as the context lasts, and give it back then."""
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(url, done), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            self._give_back()

    def touch(self, ask_working: Callable[[str, Sequence[object]], list[Row]]) -> bool:
        """Change the row in the transaction that is open; whether it is still this one's."""
        sql = f"UPDATE {self._table} SET beat = beat + 1 WHERE id = 1 AND holder = ?"
        ask_working(sql, (self._token,))
        return ask_working("SELECT ROW_COUNT()", ()) == [(1,)]

    def _keep(self, url: Url, done: threading.Event) -> None:
        sql = f"UPDATE {self._table} SET beat = beat + 1, expires = {_END} WHERE id = 1 AND holder = ?"
        connection: Connection = None
        while not done.wait(_BEAT):
            # Whether it is still held is asked by whoever commits: here every failure is only tried again.
            with suppress(StatementError, MigratorError):
                if connection is None or not connection.open:
                    connection = dial(url)
                change(connection, sql, (self._token,))
        if connection is not None and connection.open:
            connection.close()

    def _give_back(self) -> None:
        sql = f"UPDATE {self._table} SET holder = '' WHERE id = 1 AND holder = ?"
        for _ in range(5):
            try:
                change(self._connection, sql, (self._token,))
            except Busy:
                time.sleep(secrets.randbelow(200) / 1000)
                continue
            except StatementError:  # then it ends by itself
                return
            return
