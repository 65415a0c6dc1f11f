"""A MariaDB Galera cluster on this machine, from Debian's packages.

To try it by hand: `python -m tests.clusters.galera`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests import daemons, throwaway
from tests.servers import Server, rows, run

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")


@dataclass(frozen=True)
class Node:
    """One of the servers. Its ports are for its group, for single changes and for whole states."""

    folder: Path
    group: int
    changes: int
    state: int

    @property
    def url(self) -> str:
        """The URL of its root."""
        return throwaway.mysql_url(self.folder)


class Galera:
    """A cluster; nodes go by their index. All of them are up at the beginning."""

    def __init__(self, owner: str, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._owner = owner
        self._daemons: dict[int, daemons.Daemon] = {}

    def start(self, index: int, *, alone: bool = False) -> None:
        """Start a node, and wait until it has what the others have. `alone`, it begins a new cluster."""
        command = [*_mariadbd(self.nodes[index], self.nodes), *(["--wsrep-new-cluster"] if alone else [])]
        daemon = daemons.Daemon(self._owner, command, self.nodes[index].folder / "log")
        self._daemons[index] = daemon
        daemon.wait_until(lambda: self.is_ready(index))

    def kill(self, index: int) -> None:
        """kill -9 a node; when it is started again, it has nothing left, as a machine that replaces a dead one."""
        self._daemons[index].end(signal.SIGKILL)
        # With its files, one that died in a CREATE TABLE of another node's can come back without the table, and say
        # "Synced": rsync leaves its old ddl_recovery.log, and the crash recovery undoes what the others just sent.
        data = self.nodes[index].folder / "data"
        shutil.rmtree(data)
        daemons.make(data, self._owner)

    def stop(self, index: int) -> None:
        """Shut a node down: it takes its leave of the others."""
        self._daemons[index].end(signal.SIGTERM)

    def pause(self, index: int) -> None:
        """Let a node hang, as an overloaded or unreachable machine does."""
        self._daemons[index].signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """Let a node that hangs go on."""
        self._daemons[index].signal(signal.SIGCONT)

    def running(self) -> list[int]:
        """The nodes whose process runs."""
        return [index for index, daemon in self._daemons.items() if daemon.process.poll() is None]

    def status(self, index: int, name: str) -> str:
        """What a node says of itself, such as `wsrep_cluster_size`; nothing when it does not answer."""
        query = f"SHOW GLOBAL STATUS LIKE '{name}'"
        client = ["mariadb", "--no-defaults", f"--socket={self.nodes[index].folder / 'socket'}", "--user=root"]
        asked = subprocess.run([*client, "-Nse", query], capture_output=True, text=True, check=False)
        return asked.stdout.rstrip("\n").partition("\t")[2]

    def is_ready(self, index: int) -> bool:
        """Whether a node belongs to a majority, has all that the others have, and takes statements."""
        return self.status(index, "wsrep_ready") == "ON" and self.status(index, "wsrep_local_state_comment") == "Synced"

    def heal(self) -> None:
        """Bring all nodes back, if at least one is left, and wait until each knows of the others."""
        alive = self.running()
        for index in alive:
            self.resume(index)
        self._wait_for_a_group_of(len(alive))
        if alive and self.status(alive[0], "wsrep_cluster_status") != "Primary":
            # The majority is gone, and whoever is left waits for it. Those who are dead must not be asked.
            run(self.nodes[alive[0]].url, "SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
        for index in range(len(self.nodes)):
            if index not in alive:
                self.start(index, alone=not self.running())
        self._wait_for_a_group_of(len(self.nodes))
        for index in range(len(self.nodes)):
            self._daemons[index].wait_until(partial(self.is_ready, index))

    def _wait_for_a_group_of(self, size: int) -> None:
        def all_know() -> bool:
            return {self.status(index, "wsrep_cluster_size") for index in self.running()} <= {str(size)}

        for index in self.running():
            self._daemons[index].wait_until(all_know)

    @contextmanager
    def fresh(self) -> Iterator[list[str]]:
        """An empty database; its URL on each node."""
        first = self.nodes[0]
        with Server("mysql", first.url).fresh() as url:
            there = f"SELECT 1 FROM information_schema.schemata WHERE schema_name = '{urlsplit(url).path[1:]}'"
            # What one node commits is on the others a moment later.
            for index, node in enumerate(self.nodes):
                self._daemons[index].wait_until(partial(_finds, node.url, there))
            try:
                yield [url.replace(str(first.folder), str(node.folder)) for node in self.nodes]
            finally:
                self.heal()

    def process(self, index: int) -> int:
        """The process of a node, which may be killed."""
        return self._daemons[index].process.pid

    def end(self) -> None:
        for daemon in self._daemons.values():
            daemon.end(signal.SIGKILL)


@contextmanager
def galera(size: int = 3) -> Iterator[Galera]:
    """A cluster of that many nodes. Raises NotInstalled."""
    if not PROVIDER.exists() or not shutil.which("rsync"):
        raise daemons.NotInstalled("Galera is not installed: apt-get install mariadb-server galera-4 rsync")
    owner = daemons.user("mysql")
    with daemons.folder(owner) as folder:
        nodes = [_made(owner, folder / f"node{index}") for index in range(size)]
        throwaway.mariadb_install_db(owner, nodes[0].folder)  # the others get what the first one has
        cluster = Galera(owner, nodes)
        try:
            cluster.heal()
            yield cluster
        finally:
            cluster.end()


def _made(owner: str, folder: Path) -> Node:
    daemons.make(folder, owner)
    daemons.make(folder / "data", owner)
    return Node(folder, *daemons.free_ports(3))


def _finds(url: str, query: str) -> bool:
    return rows(url, query) != []


def _mariadbd(node: Node, nodes: list[Node]) -> list[str | Path]:
    options = {
        "datadir": node.folder / "data",
        "socket": node.folder / "socket",
        "tmpdir": node.folder,
        "pid-file": node.folder / "pid",
        "binlog-format": "ROW",
        "innodb-autoinc-lock-mode": 2,
        "innodb-flush-log-at-trx-commit": 2,
        "innodb-log-file-size": "16M",
        "max-connections": 200,
        "wsrep-on": "ON",
        "wsrep-provider": PROVIDER,
        "wsrep-cluster-name": node.folder.parent.name,
        "wsrep-cluster-address": "gcomm://" + ",".join(f"127.0.0.1:{other.group}" for other in nodes),
        "wsrep-node-name": node.folder.name,
        "wsrep-node-address": "127.0.0.1",
        "wsrep-provider-options": f"gmcast.listen_addr=tcp://127.0.0.1:{node.group};"
        f"ist.recv_addr=127.0.0.1:{node.changes};gcache.size=32M",
        "wsrep-sst-method": "rsync",
        "wsrep-sst-receive-address": f"127.0.0.1:{node.state}",
    }
    flags = ["--no-defaults", "--skip-networking", "--character-set-server=utf8mb4"]
    program, _, _ = throwaway.mariadb_binaries()
    return [program, *flags, *(f"--{name}={value}" for name, value in options.items())]


if __name__ == "__main__":
    with galera() as by_hand:
        daemons.show([f"{node.url} (process {by_hand.process(at)})" for at, node in enumerate(by_hand.nodes)])
