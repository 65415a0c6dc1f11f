"""The lock of a run on a single server: GET_LOCK, which dies with its session.

A session of its own holds it for the whole run. The one that works holds a second lock: when a client is killed, the
server goes on with what that was running, and the next run waits for its end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from financial_agent.migrator.databases import Patience, Row, StatementError, Stopped
from financial_agent.migrator.databases.database import ConnectionLost
from financial_agent.migrator.databases.mysql.dial import Connection, dial
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.errors import RunLocked

_POLL = 0.1  # seconds between two tries

Query = Callable[[str, Sequence[object]], list[Row]]


class RunLock:
    """The right to be the only run. `work` asks on the connection that works."""

    def __init__(self, url: Url, patience: Patience, work: Query) -> None:
        # A lock's name has 64 characters at most, and is the whole server's.
        digest = hashlib.sha256(f"{url.ledger_schema or url.name}".encode()).hexdigest()[:32]
        self._run, self._working = f"financial_agent:{digest}", f"financial_agent:{digest}:w"
        self._url = url
        self._patience = patience
        self._work = work
        self._holder: Connection = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for as long as the context lasts. Raises RunLocked, Stopped, DatabaseUnusable."""
        deadline = time.monotonic() + self._patience.seconds
        with closing(dial(self._url)) as self._holder:
            self._wait(self._ask, self._run, deadline)
            self._wait(self._work, self._working, deadline)
            try:
                yield
            finally:
                with suppress(StatementError):  # a session that ended holds nothing
                    self._work("SELECT RELEASE_LOCK(?)", (self._working,))

    def renew(self) -> None:
        """Hold it also on the session that is the working one now."""
        self.check()
        self._wait(self._work, self._working, time.monotonic() + self._patience.seconds)

    def check(self) -> None:
        """Raises ConnectionLost when it was lost."""
        if self._ask("SELECT IS_USED_LOCK(?) = CONNECTION_ID()", (self._run,)) != [(1,)]:
            raise ConnectionLost("the lock of the run was lost, and another run may have begun")

    def _wait(self, ask: Query, name: str, deadline: float) -> None:
        # Polled: a GET_LOCK that waits would not let Ctrl-C through.
        while ask("SELECT GET_LOCK(?, 0)", (name,)) != [(1,)]:
            if time.monotonic() > deadline:
                raise RunLocked(lock=self._url.display, seconds=self._patience.seconds, look="SHOW PROCESSLIST;")
            if self._patience.stop("for the other migration run to end"):
                raise Stopped
            time.sleep(_POLL)

    def _ask(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        import pymysql

        try:
            with self._holder.cursor() as cursor:
                cursor.execute(sql.replace("?", "%s"), parameters)
                return [tuple(row) for row in cursor.fetchall()]
        except pymysql.Error:
            raise ConnectionLost("the lock of the run was lost, and another run may have begun") from None
