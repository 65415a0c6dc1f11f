"""What the seam asks of MySQL and MariaDB. The rarer things are imported where they are used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from financial_agent.migrator.databases import Database, Patience, TableChange, Workspace
from financial_agent.migrator.databases.mysql.connection import MysqlDatabase
from financial_agent.migrator.databases.url import parse


def connect(database: str, *, readonly: bool, patience: Patience) -> Database:
    return MysqlDatabase(database, parse(database), readonly=readonly, patience=patience)


def exists(database: str) -> bool:
    parse(database)
    return True


def scratch(database: str, patience: Patience, *, empty: bool) -> AbstractContextManager[Database]:
    from financial_agent.migrator.databases import server_scratch
    from financial_agent.migrator.databases.mysql.scratch import MysqlScratches

    return server_scratch.scratch(MysqlScratches(database, connect, patience), empty=empty)


def workspace(database: str, patience: Patience, *, empty: bool, rows: bool) -> AbstractContextManager[Workspace]:
    from financial_agent.migrator.databases import server_scratch
    from financial_agent.migrator.databases.mysql.scratch import MysqlScratches

    return server_scratch.workspace(MysqlScratches(database, connect, patience), empty=empty, rows=rows)


def compare(before: str, after: str, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    from financial_agent.migrator.databases import server_compare
    from financial_agent.migrator.databases.mysql.digest import digest

    with (
        closing(connect(before, readonly=True, patience=patience)) as old,
        closing(connect(after, readonly=True, patience=patience)) as new,
    ):
        return server_compare.compare(old, new, tables, digest)


@contextmanager
def locked(database: str, patience: Patience) -> Iterator[None]:
    with closing(connect(database, readonly=False, patience=patience)) as db, db.lock():
        yield
