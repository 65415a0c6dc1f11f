"""Lets one run at a time work on a ledger: an advisory lock on a connection of its own.

It is one of a transaction, which a pooler keeps on one connection of the server; a session's would stay behind in the
pool. It is asked for again and again, never waited for: who waits in PostgreSQL's queue holds a snapshot, for whose end
CREATE INDEX CONCURRENTLY of the holder would wait. No parameters are sent, as they would leave a snapshot, too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import psycopg
from psycopg.pq import TransactionStatus

from financial_agent.migrator.databases.database import Patience, Row, Stopped
from financial_agent.migrator.databases.postgresql import dial
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import RunLocked
from financial_agent.migrator.errors_run import LockLost

_POLL = 0.1  # seconds between two tries for the lock
_PURPOSE = "for the other migration run to end"
_HOLDERS = """\
SELECT a.pid, a.application_name, a.client_addr FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (l.classid::bigint << 32 | l.objid::bigint) = {key}"""
# What a killed process had sent goes on in the server.
_OTHERS = f"""\
SELECT pid, application_name, client_addr FROM pg_stat_activity
WHERE datname = current_database() AND application_name = '{dial.RUNNING}' AND state <> 'idle'
AND pid <> pg_backend_pid()"""


class RunLock:
    """The lock, and the connection that holds it."""

    def __init__(self, url: Url, schema: str, patience: Patience) -> None:
        self._url = url
        self._patience = patience
        self._deadline = time.monotonic() + patience.seconds
        self._key = int.from_bytes(hashlib.sha256(f"migrations of {schema}".encode()).digest()[:8], signed=True)
        self._connection = dial.dial(url, dial.LOCKING)

    def __enter__(self) -> RunLock:
        try:
            self._until(self._take, lambda: self._ask(_HOLDERS.format(key=self._key)))
        except BaseException as error:
            self._connection.close()
            if isinstance(error, psycopg.Error):
                raise self._lost(error) from None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ensure(self) -> None:
        """Raise LockLost unless the lock is still held."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise self._lost(error) from None
        if self._connection.info.transaction_status != TransactionStatus.INTRANS:
            raise self._lost(None)

    def ask(self, sql: str) -> Sequence[Row]:
        """A question beside the run, which nothing of it waits for; no rows when it cannot be answered."""
        try:
            return self._ask(sql)
        except psycopg.Error:
            return ()

    def wait_for_others(self, query: Callable[[str], Sequence[Row]]) -> None:
        """Wait until the server has ended what runs before this one left there. Raises RunLocked and Stopped."""
        self._until(lambda: not query(_OTHERS), lambda: query(_OTHERS))

    def _take(self) -> bool:
        # Who has not got it leaves the transaction at once, and with it the pooler's connection to the server: the
        # holder may need that.
        self._connection.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
        if self._ask(f"SELECT pg_try_advisory_xact_lock({self._key})") == [(True,)]:
            return True
        self._connection.execute("ROLLBACK")
        return False

    def _ask(self, sql: str) -> Sequence[Row]:
        return self._connection.execute(sql).fetchall()

    def _until(self, attempt: Callable[[], bool], holders: Callable[[], Sequence[Row]]) -> None:
        while not attempt():
            if time.monotonic() > self._deadline:
                raise self._locked(holders())
            if self._patience.stop(_PURPOSE):
                raise Stopped
            time.sleep(_POLL)

    def _locked(self, holders: Sequence[Row]) -> RunLocked:
        told = [
            f"process {pid} of the server, {name or 'unnamed'}, from {address or 'its machine'}"
            for pid, name, address in holders
        ]
        pids = ", ".join(str(pid) for pid, *_ in holders) or "…"
        return RunLocked(
            lock=f"{self._url.display} ({'; '.join(told)})" if told else self._url.display,
            seconds=self._patience.seconds,
            look=f"SELECT * FROM pg_stat_activity WHERE pid IN ({pids});",
        )

    def _lost(self, error: psycopg.Error | None) -> LockLost:
        return LockLost(database=self._url.display)
