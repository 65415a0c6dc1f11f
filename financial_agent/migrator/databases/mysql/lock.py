"""Lets one run at a time work on a ledger: GET_LOCK, which dies with its session.

A session of its own holds the lock for the whole run. The session that works holds a second one: when a client is
killed, the server goes on with what that was running, and the next run waits for its end. Both are a single server's:
for the nodes of a cluster there is a lease besides.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

from financial_agent.migrator.databases.database import Patience, Row, StatementError, Stopped
from financial_agent.migrator.databases.mysql.dial import Connection, ask, dial, is_node
from financial_agent.migrator.databases.mysql.lease import Lease
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import RunLocked
from financial_agent.migrator.errors_run import LockLost

_POLL = 0.1  # seconds between two tries
_PURPOSE = "for the other migration run to end"

Query = Callable[[str, Sequence[object]], list[Row]]


class RunLock:
    """The right to be the only run. `work` asks on the connection that works; `table` is the lease's."""

    def __init__(self, url: Url, patience: Patience, work: Query, table: str) -> None:
        # A lock's name has 64 characters at most, and is the whole server's.
        digest = hashlib.sha256(f"{url.ledger_schema or url.name}".encode()).hexdigest()[:32]
        self._run, self._working = f"financial_agent:{digest}", f"financial_agent:{digest}:w"
        self._url = url
        self._patience = patience
        self._deadline = time.monotonic() + patience.seconds
        self._work = work
        self._table = table
        self._holder: Connection = None
        self._lease: Lease | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for as long as the context lasts. Raises RunLocked, Stopped, DatabaseUnusable."""
        with ExitStack() as stack:
            self._holder = stack.enter_context(closing(dial(self._url)))
            self._until(partial(self._take, self._hold, self._run), self._by_session)
            self._until(partial(self._take, self._work, self._working), self._by_session)
            stack.callback(self._release)
            if is_node(self._holder):
                lease = Lease(self._table, self._holder)
                self._until(lease.take, lambda: lease.seen)
                stack.enter_context(lease.kept(self._url))
                self._lease = lease
            yield

    def renew(self) -> None:
        """Hold it also on the session that is the working one now. Raises LockLost."""
        self.ensure()
        self._deadline = time.monotonic() + self._patience.seconds
        self._until(partial(self._take, self._work, self._working), self._by_session)

    def ensure(self) -> None:
        """Raises LockLost unless it is still held."""
        if self._hold("SELECT IS_USED_LOCK(?) = CONNECTION_ID()", (self._run,)) != [(1,)]:
            raise LockLost(database=self._url.display)

    def fence(self) -> None:
        """As `ensure`; and let what the working session is about to commit fail if the lease is taken over by then."""
        self.ensure()
        if self._lease and not self._lease.touch(self._work):
            raise LockLost(database=self._url.display)

    def _take(self, on: Query, name: str) -> bool:
        return on("SELECT GET_LOCK(?, 0)", (name,)) == [(1,)]

    def _until(self, attempt: Callable[[], bool], holder: Callable[[], str]) -> None:
        # Polled: a GET_LOCK that waits would not let Ctrl-C through.
        while not attempt():
            if time.monotonic() > self._deadline:
                seconds, look = self._patience.seconds, "SHOW FULL PROCESSLIST;"
                raise RunLocked(lock=holder() or self._url.display, seconds=seconds, look=look)
            if self._patience.stop(_PURPOSE):
                raise Stopped
            time.sleep(_POLL)

    def _by_session(self) -> str:
        """Who holds it, as far as the server tells."""
        sql = "SELECT coalesce(IS_USED_LOCK(?), IS_USED_LOCK(?))"
        ((session,),) = self._hold(sql, (self._run, self._working))
        if session is None:
            return ""
        rows = self._hold("SELECT user, host FROM information_schema.processlist WHERE id = ?", (session,))
        return f"session {session} of the server" + (f" ({rows[0][0]} from {rows[0][1]})" if rows else "")

    def _release(self) -> None:
        with suppress(StatementError):  # a session that ended holds nothing
            self._work("SELECT RELEASE_LOCK(?)", (self._working,))

    def _hold(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        try:
            return ask(self._holder, sql, parameters)
        except StatementError:
            raise LockLost(database=self._url.display) from None
