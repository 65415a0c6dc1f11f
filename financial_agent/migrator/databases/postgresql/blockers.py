"""Who keeps a run waiting: to be asked while it waits, as nothing tells afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from financial_agent.migrator.databases.database import Row
from financial_agent.migrator.databases.postgresql import dial

_EVERY = 1.0  # seconds between two questions
# Behind a pooler the number of the server's process that works for this run is not known, but its name is.
_BLOCKERS = f"""\
SELECT DISTINCT p.pid, coalesce(nullif(b.application_name, ''), 'unnamed'), coalesce(b.state, 'another user''s'),
(SELECT min(l.relation::regclass::text) FROM pg_locks l WHERE l.pid = w.pid AND NOT l.granted)
FROM pg_stat_activity w CROSS JOIN unnest(pg_blocking_pids(w.pid)) AS p (pid)
LEFT JOIN pg_stat_activity b ON b.pid = p.pid
WHERE w.datname = current_database() AND w.application_name = '{dial.RUNNING}' ORDER BY 1"""


class Blockers:
    """Those that were in the way of one statement, as far as they could be seen."""

    def __init__(self, ask: Callable[[str], Sequence[Row]], first: float) -> None:
        self._ask = ask
        self._next = time.monotonic() + first
        self._found: Sequence[Row] = ()

    def look(self) -> None:
        """To be called again and again while the statement runs."""
        if time.monotonic() > self._next:
            self._next = time.monotonic() + _EVERY
            self._found = self._ask(_BLOCKERS) or self._found

    def __str__(self) -> str:
        """What there is to say of them, and how to see more; empty when none was seen."""
        if not self._found:
            return ""
        told = [
            f"process {pid} ({name}, {state}){f' at {table}' if table else ''}"
            for pid, name, state, table in self._found
        ]
        pids = ", ".join(str(pid) for pid, *_ in self._found)
        return f"; in the way: {', '.join(told)}: SELECT * FROM pg_stat_activity WHERE pid IN ({pids})"
