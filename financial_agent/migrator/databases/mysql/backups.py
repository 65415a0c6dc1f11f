"""Backups of a MariaDB or MySQL database: what mariadb-dump writes, and the client runs. What the seam asks of them."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, closing
from pathlib import Path

from financial_agent.migrator.databases import Database, Patience, SoleDatabase, connect, server_backups
from financial_agent.migrator.databases.mysql.tools import LOADING, PACKAGE, client
from financial_agent.migrator.databases.server_backups import Progress
from financial_agent.migrator.databases.server_tools import run
from financial_agent.migrator.databases.url import Url, parse
from financial_agent.migrator.errors import DatabaseUnusable, RestoreRefused

# As of one moment, as far as the tables' engine knows any. What only one of the two programs knows is loose: the other
# one passes over it.
_COMMON = (
    "--single-transaction",
    "--quick",
    "--hex-blob",
    "--no-tablespaces",
    "--loose-set-gtid-purged=OFF",
    "--loose-column-statistics=0",
)
TABLES = (*_COMMON, "--skip-triggers")
_ALL = (*_COMMON, "--triggers", "--routines", "--events")
PROGRAMS = (*_ALL, "--no-create-info", "--no-data")
_END = b"-- Dump completed"
_TAIL = 4096  # bytes


def backup_names(database: str) -> tuple[str, str]:
    return server_backups.name_of(database), ".sql"


def need_programs(database: str) -> None:
    with client(parse(database)) as programs:
        for program in ("mariadb-dump", "mariadb"):
            programs.tool(program)


def copy(database: str, target: Path, patience: Patience, progress: Progress, *, mode: int) -> None:
    with closing(connect(database, readonly=True, patience=patience)) as db:
        write(db, database, target, patience, progress)


def write(db: Database, database: str, target: Path, patience: Patience, progress: Progress) -> None:
    """Write a backup of a database that a connection is open to. Raises DatabaseUnusable where it could not be put
    back."""
    url = parse(database)
    if is_split(url):
        cause = "the ledger is in another database (ledger_schema), which a backup would not hold"
        fix = 'Back both up with mariadb-dump --databases …; with BACKUP = "never" runs go on without'
        raise DatabaseUnusable(database=url.display, cause=cause, fix=fix)
    ((server, size),) = db.query(
        "SELECT version(), (SELECT coalesce(sum(data_length), 0) FROM information_schema.tables"
        " WHERE table_schema = database())"
    )
    with client(url) as programs:
        dump = programs.tool("mariadb-dump", *_ALL, url.name)
        found = re.match(r"(\d+)\.(\d+)", server)
        if found:
            server_backups.refuse_older(dump, (int(found[1]), int(found[2])), PACKAGE)
        server_backups.write(dump, target, int(size), patience, progress)


def find_flaw(backup: Path, patience: Patience) -> str | None:
    """Whether its last line is there, which says that the program came to its end."""
    with backup.open("rb") as file:
        file.seek(max(0, backup.stat().st_size - _TAIL))
        tail = file.read()
    return None if _END in tail else "it is no dump of mariadb-dump's or mysqldump's, or has lost its end"


def loaded(database: str, backup: Path, patience: Patience, progress: Progress) -> AbstractContextManager[str]:
    if is_split(parse(database)):
        why = "the ledger is in another database (ledger_schema), which this one's backups do not hold"
        raise RestoreRefused(backup=backup, why=why, fix="Load it by hand: mariadb NAME < FILE")

    def load(draft: str) -> None:
        url = parse(draft)
        # A dump of several databases would change those themselves.
        with client(url) as programs, backup.open("rb") as source:
            run(programs.tool("mariadb", *LOADING, "--one-database", url.name), patience, source=source)

    return server_backups.loaded(database, backup, patience, load)


def is_split(url: Url) -> bool:
    """Whether the ledger is in another database than what it tells of."""
    return url.ledger_schema not in (None, url.name)


def connect_alone(database: str, patience: Patience) -> SoleDatabase:
    from financial_agent.migrator.databases.mysql.replace import Sole

    return Sole(database, patience)
