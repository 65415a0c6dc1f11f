"""The programs of PostgreSQL's client, told where the database is, and the password by the environment alone."""

from __future__ import annotations

from financial_agent.migrator.databases.server_tools import Tool, find
from financial_agent.migrator.databases.url import Url

PACKAGE = "postgresql-client"
_SECRETS = ("password", "sslpassword")


def tool(url: Url, program: str, *arguments: str) -> Tool:
    """A program of the client's that is to work on a database. Raises ToolMissing."""
    from psycopg.conninfo import make_conninfo

    found = find([program], PACKAGE)
    known = {"host": url.host, "port": url.port, "user": url.user, "dbname": url.name, **url.options}
    place = make_conninfo("", **{name: value for name, value in known.items() if value and name not in _SECRETS})
    secret = url.password or url.options.get("password")
    return Tool(found, (*arguments, f"--dbname={place}"), {"PGPASSWORD": secret} if secret else {})
