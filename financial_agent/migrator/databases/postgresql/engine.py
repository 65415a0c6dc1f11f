"""What the seam asks of PostgreSQL. The driver is imported when it is used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from financial_agent.migrator.databases import url as urls
from financial_agent.migrator.databases.database import Database, Patience, TableChange
from financial_agent.migrator.databases.others import Workspace
from financial_agent.migrator.errors import DriverMissing


def connect(database: str, *, readonly: bool, patience: Patience) -> Database:
    url = urls.parse(database)
    try:
        import psycopg  # noqa: F401
    except ImportError as error:  # also when its own library is missing
        raise DriverMissing(database=url.display, driver=str(error).splitlines()[0], extra="postgresql") from None
    from financial_agent.migrator.databases.postgresql.connection import PostgresqlDatabase

    return PostgresqlDatabase(database, url, readonly=readonly, patience=patience)


def exists(database: str) -> bool:
    return True  # a person makes it


@contextmanager
def locked(database: str, patience: Patience) -> Iterator[None]:
    with closing(connect(database, readonly=False, patience=patience)) as db, db.lock():
        yield


def scratch(database: str, patience: Patience, *, empty: bool) -> AbstractContextManager[Database]:
    from financial_agent.migrator.databases import server_scratch
    from financial_agent.migrator.databases.postgresql.scratch import PostgresqlScratches

    return server_scratch.scratch(PostgresqlScratches(database, connect, patience), empty=empty)


def workspace(database: str, patience: Patience, *, empty: bool, rows: bool) -> AbstractContextManager[Workspace]:
    from financial_agent.migrator.databases import server_scratch
    from financial_agent.migrator.databases.postgresql.scratch import PostgresqlScratches

    return server_scratch.workspace(PostgresqlScratches(database, connect, patience), empty=empty, rows=rows)


def compare(before: str, after: str, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    from financial_agent.migrator.databases import server_compare
    from financial_agent.migrator.databases.postgresql.digest import digest

    with (
        closing(connect(before, readonly=True, patience=patience)) as old,
        closing(connect(after, readonly=True, patience=patience)) as new,
    ):
        return server_compare.compare(old, new, tables, digest)
