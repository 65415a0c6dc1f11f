"""Backups of a PostgreSQL database, in pg_dump's own form. What the seam asks of them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, closing
from pathlib import Path

from financial_agent.migrator.databases import Database, Patience, SoleDatabase, connect, server_backups
from financial_agent.migrator.databases.postgresql.tools import PACKAGE, tool
from financial_agent.migrator.databases.server_backups import Progress
from financial_agent.migrator.databases.server_tools import Tool, find, run
from financial_agent.migrator.databases.url import parse
from financial_agent.migrator.errors_server import ToolFailed


def backup_names(database: str) -> tuple[str, str]:
    return server_backups.name_of(database), ".dump"


def need_programs(database: str) -> None:
    for program in ("pg_dump", "pg_restore", "psql"):
        find([program], PACKAGE)


def copy(database: str, target: Path, patience: Patience, progress: Progress, *, mode: int) -> None:
    with closing(connect(database, readonly=True, patience=patience)) as db:
        write(db, database, target, patience, progress)


def write(db: Database, database: str, target: Path, patience: Patience, progress: Progress) -> None:
    """Write a backup of a database that a connection is open to."""
    ((number, size),) = db.query(
        "SELECT current_setting('server_version_num')::int, pg_database_size(current_database())"
    )
    major = number // 10_000
    waiting = f"--lock-wait-timeout={max(1, round(patience.seconds * 1000))}"  # 0 would wait for ever
    dump = tool(parse(database), "pg_dump", "--format=custom", "--no-password", waiting)
    server_backups.refuse_older(dump, (major,), f"{PACKAGE}-{major}")
    server_backups.write(dump, target, size, patience, progress)


def find_flaw(backup: Path, patience: Patience) -> str | None:
    """Let the program that reads it read it from end to end."""
    try:
        run(Tool(find(["pg_restore"], PACKAGE), (f"--file={os.devnull}", str(backup.absolute()))), patience)
    except ToolFailed as error:
        return error.message
    return None


def loaded(database: str, backup: Path, patience: Patience, progress: Progress) -> AbstractContextManager[str]:
    def load(draft: str) -> None:
        strictly = ("--exit-on-error", "--single-transaction", "--no-password", "--no-subscriptions")
        run(tool(parse(draft), "pg_restore", *strictly, str(backup.absolute())), patience)

    return server_backups.loaded(database, backup, patience, load)


def connect_alone(database: str, patience: Patience) -> SoleDatabase:
    from financial_agent.migrator.databases.postgresql.replace import Sole

    return Sole(database, patience)
