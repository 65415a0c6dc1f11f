"""What the statements of an engine mean for the section in which they stand. One module for each engine."""

from __future__ import annotations

from financial_agent.migrator.dialects import sqlite
from financial_agent.migrator.dialects.rules import Rules


def rules_of(dialect: str) -> Rules:
    """Those of servers are imported when they are used: they would cost every start-up."""
    match dialect:
        case "postgresql":
            from financial_agent.migrator.dialects import postgresql

            return postgresql.RULES
        case "mysql":
            from financial_agent.migrator.dialects import mysql

            return mysql.RULES
        case _:
            return sqlite.RULES
