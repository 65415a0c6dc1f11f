"""What the seam asks of MySQL and MariaDB. The rarer things are imported where they are used."""

from __future__ import annotations

from financial_agent.migrator.databases import Database, Patience
from financial_agent.migrator.databases.mysql.connection import MysqlDatabase
from financial_agent.migrator.databases.url import parse


def connect(database: str, *, readonly: bool, patience: Patience) -> Database:
    return MysqlDatabase(parse(database), readonly=readonly, patience=patience)


def exists(database: str) -> bool:
    parse(database)
    return True
