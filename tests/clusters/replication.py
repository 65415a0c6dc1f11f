"""A PostgreSQL server with a streaming replica, and the fail-over from the first to the second.

To try it by hand: `python -m tests.clusters.replication [on|remote_apply|local|…]`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import daemons, throwaway
from tests.servers import Server, rows, run

WAITS_FOR_THE_REPLICA = {"on", "remote_write", "remote_apply"}  # values of synchronous_commit


class Replication:
    """A primary and its replica. `url` is always the primary's, as an address that moves with the service would be."""

    def __init__(self, owner: str, folder: Path, synchronous_commit: str) -> None:
        self._owner = owner
        self._folder = folder
        self._address = folder / "primary"  # a link to the folder with the primary's socket
        self._synchronous_commit = synchronous_commit
        self._daemons: dict[Path, daemons.Daemon] = {}
        self._made = 0
        self.url = throwaway.postgresql_url(self._address)

        first = self._new_folder()
        throwaway.initdb(owner, first)
        self._start(first)
        self._direct_to(first)
        self.add_replica()

    @property
    def primary(self) -> str:
        """The URL of the server that is the primary now."""
        return throwaway.postgresql_url(self._primary)

    @property
    def replica(self) -> str:
        """The URL of the replica. There must be one."""
        folder = self._replica
        assert folder, "there is no replica"
        return throwaway.postgresql_url(folder)

    @property
    def _primary(self) -> Path:
        return self._address.resolve()

    @property
    def _replica(self) -> Path | None:
        return next((folder for folder in self._daemons if folder != self._primary), None)

    def kill_primary(self) -> None:
        """End the primary at once, with all its processes, as a crash of its machine does."""
        # PostgreSQL's "immediate shutdown": kill -9 of the postmaster alone leaves its children at work for a while.
        self._daemons[self._primary].end(signal.SIGQUIT)

    def fail_over(self) -> None:
        """Make the replica the primary; the old primary, which is killed if it still runs, never comes back."""
        old, new = self._primary, self._replica
        assert new, "there is no replica"
        self.kill_primary()
        url = throwaway.postgresql_url(new)
        if self._synchronous_commit in WAITS_FOR_THE_REPLICA:
            # It has no replica yet, for which its commits would wait for ever.
            run(url, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
        run(url, "SELECT pg_promote()")
        self._direct_to(new)
        del self._daemons[old]
        shutil.rmtree(old)

    def add_replica(self) -> None:
        """Copy the primary and let the copy follow it."""
        folder, primary = self._new_folder(), self._daemons[self._primary]
        copy = [f"--pgdata={folder / 'data'}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        source = [f"--host={self._primary}", "--username=postgres"]
        daemons.run(self._owner, [throwaway.postgresql_binaries() / "pg_basebackup", *copy, *source], folder)
        self._start(folder)
        primary.wait_until(lambda: rows(self.url, "SELECT state FROM pg_stat_replication") == [("streaming",)])
        if self._synchronous_commit in WAITS_FOR_THE_REPLICA:
            run(self.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            primary.wait_until(lambda: rows(self.url, "SELECT sync_state FROM pg_stat_replication") == [("sync",)])

    def heal(self) -> None:
        """See to it that there is a replica."""
        if self._daemons[self._primary].process.poll() is not None:
            self.fail_over()
        if not self._replica:
            self.add_replica()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of an empty database, on whichever server is the primary."""
        with Server("postgresql", self.url).fresh() as url:
            try:
                yield url
            finally:
                self.heal()

    def end(self) -> None:
        """End both servers."""
        for daemon in self._daemons.values():
            daemon.end(signal.SIGQUIT)

    def _start(self, folder: Path) -> None:
        command = [*throwaway.postgres(folder), f"--synchronous_commit={self._synchronous_commit}"]
        daemon = self._daemons[folder] = daemons.Daemon(self._owner, command, folder / "log")
        daemon.wait_until(lambda: throwaway.postgresql_answers(folder))

    def _direct_to(self, folder: Path) -> None:
        link = self._address.with_name("next")
        link.symlink_to(folder)
        os.replace(link, self._address)

    def _new_folder(self) -> Path:
        self._made += 1
        folder = self._folder / f"server{self._made}"
        daemons.make(folder, self._owner)
        return folder


@contextmanager
def replication(synchronous_commit: str = "on") -> Iterator[Replication]:
    """A primary with a replica. Commits wait for the replica as `synchronous_commit` says; with "local" they do not.

    Raises NotInstalled.
    """
    owner = daemons.user("postgres")
    with daemons.folder(owner) as folder:
        pair = Replication(owner, folder, synchronous_commit)
        try:
            yield pair
        finally:
            pair.end()


if __name__ == "__main__":
    with replication(*sys.argv[1:]) as by_hand:
        daemons.show([f"primary: {by_hand.url}", f"replica: {by_hand.replica}"])
