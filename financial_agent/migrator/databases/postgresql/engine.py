"""What the seam asks of PostgreSQL. The driver is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from financial_agent.migrator.databases import url as urls
from financial_agent.migrator.databases.database import Database, Patience
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
