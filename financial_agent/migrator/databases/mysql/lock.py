"""Lets one run at a time work on the ledger of a single server: GET_LOCK, which dies with its session.

A session of its own holds the lock for the whole run. The session that works holds a second one: when a client is
killed, the server goes on with what that was running, and the next run waits for its end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from financial_agent.migrator.databases.database import Patience, Row, StatementError, Stopped
from financial_agent.migrator.databases.mysql.dial import Connection, ask, dial
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import RunLocked
from financial_agent.migrator.errors_run import LockLost

_POLL = 0.1  # seconds between two tries
_PURPOSE = "for the other migration run to end"

Query = Callable[[str, Sequence[object]], list[Row]]


def until(attempt: Callable[[], bool], holder: Callable[[], str], url: Url, patience: Patience) -> None:
    """Try until it works; `holder` tells who has what is waited for. Raises RunLocked and Stopped."""
    deadline = time.monotonic() + patience.seconds
    while not attempt():
        if time.monotonic() > deadline:
            look = "SHOW FULL PROCESSLIST;"
            raise RunLocked(lock=holder() or url.display, seconds=patience.seconds, look=look)
        if patience.stop(_PURPOSE):
            raise Stopped
        time.sleep(_POLL)


class SessionLock:
    """The right to be the only run. `work` asks on the session that works."""

    def __init__(self, url: Url, patience: Patience, work: Query) -> None:
        # A lock's name has 64 characters at most, and is the whole server's.
        digest = hashlib.sha256((url.ledger_schema or url.name).encode()).hexdigest()[:32]
        self._run, self._working = f"financial_agent:{digest}", f"financial_agent:{digest}:w"
        self._url = url
        self._patience = patience
        self._work = work
        self._holder: Connection = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for as long as the context lasts. Raises RunLocked, Stopped, DatabaseUnusable."""
        with closing(dial(self._url)) as self._holder:
            self._take(self._ask, self._run)
            self._take(self._work, self._working)
            try:
                yield
            finally:
                with suppress(StatementError):  # a session that ended holds nothing
                    self._work("SELECT RELEASE_LOCK(?)", (self._working,))

    def renew(self) -> None:
        """Hold it also on the session that is the working one now. Raises LockLost."""
        self.ensure()
        self._take(self._work, self._working)

    def ensure(self) -> None:
        """Raises LockLost unless it is still held."""
        try:
            is_held = self._ask("SELECT IS_USED_LOCK(?) = CONNECTION_ID()", (self._run,)) == [(1,)]
        except StatementError:
            is_held = False
        if not is_held:
            raise LockLost(database=self._url.display)

    def fence(self) -> None:
        """To be called just before something is committed. As the session that commits holds a lock itself, no other
        run can have begun by then. Raises LockLost."""
        self.ensure()

    def _take(self, on: Query, name: str) -> None:
        # Polled: a GET_LOCK that waits would not let Ctrl-C through.
        until(lambda: on("SELECT GET_LOCK(?, 0)", (name,)) == [(1,)], self._by_whom, self._url, self._patience)

    def _by_whom(self) -> str:
        sql = "SELECT coalesce(IS_USED_LOCK(?), IS_USED_LOCK(?))"
        ((session,),) = self._ask(sql, (self._run, self._working))
        rows = self._ask("SELECT user, host FROM information_schema.processlist WHERE id = ?", (session,))
        return f"session {session} of the server ({rows[0][0]} from {rows[0][1]})" if rows else ""

    def _ask(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        return ask(self._holder, sql, parameters)
