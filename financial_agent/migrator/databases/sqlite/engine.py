"""What the seam asks of SQLite. The rarer things are imported where they are used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from financial_agent.migrator.databases import Database, Patience, TableChange, Workspace
from financial_agent.migrator.databases.sqlite import paths
from financial_agent.migrator.databases.sqlite.connection import SqliteDatabase
from financial_agent.migrator.databases.sqlite.paths import path_of


def connect(database: str, *, readonly: bool, patience: Patience) -> Database:
    return SqliteDatabase(path_of(database), readonly=readonly, patience=patience)


def exists(database: str) -> bool:
    return paths.exists(path_of(database))


@contextmanager
def scratch(database: str, patience: Patience, *, empty: bool) -> Iterator[Database]:
    from financial_agent.migrator.databases.sqlite.scratch import Scratch

    if empty or not exists(database):
        made = Scratch(None)
    else:
        with closing(SqliteDatabase(path_of(database), readonly=True, patience=patience)) as original:
            made = Scratch(original)
    with closing(made):
        yield made


def workspace(
    database: str, patience: Patience, *, empty: bool, rows: bool
) -> AbstractContextManager[Workspace]:  # a file's copy has its rows in any case
    from financial_agent.migrator.databases.sqlite import workspace

    return workspace.workspace(None if empty else path_of(database), patience)


def compare(before: str, after: str, tables: Collection[str] | None, patience: Patience) -> list[TableChange]:
    from financial_agent.migrator.databases.sqlite import compare

    return compare.compare(path_of(before), path_of(after), tables, patience)


@contextmanager
def locked(database: str, patience: Patience) -> Iterator[None]:
    from financial_agent.migrator.databases.sqlite.replace import Unopened

    with closing(Unopened(path_of(database), patience=patience)) as db, db.lock():
        yield
