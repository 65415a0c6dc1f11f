"""The programs of the client of MariaDB or MySQL, told where the server is, and the password, by a file that only this
user can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from financial_agent.migrator.databases.server_tools import Tool, find, secret_file
from financial_agent.migrator.databases.url import Url

PACKAGE = "mariadb-client"
LOADING = ("--comments",)  # else the client takes the comments out of triggers and routines
_OPTIONS = {"unix_socket": "socket", "ssl_ca": "ssl-ca", "ssl_cert": "ssl-cert", "ssl_key": "ssl-key"}


@contextmanager
def client(url: Url) -> Iterator[Client]:
    """The programs, for as long as the file is there."""
    known = {"host": url.host, "port": url.port, "user": url.user, "password": url.password}
    known |= {_OPTIONS[name]: value for name, value in url.options.items() if name in _OPTIONS}
    lines = [f"{name}={_quoted(str(value))}" for name, value in known.items() if value]
    with secret_file("\n".join(["[client]", *lines, "default-character-set=utf8mb4", ""])) as file:
        yield Client(str(file))


class Client:
    def __init__(self, file: str) -> None:
        self._file = file

    def tool(self, program: str, *arguments: str) -> Tool:
        """`mariadb` or `mariadb-dump`, or what MySQL calls it. Raises ToolMissing."""
        found = find([program, program.replace("mariadb-dump", "mysqldump").replace("mariadb", "mysql")], PACKAGE)
        return Tool(found, (f"--defaults-file={self._file}", *arguments))


def _quoted(value: str) -> str:
    """A value as it stands in an option file (https://mariadb.com/kb/en/configuring-mariadb-with-option-files/)."""
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        value = value.replace(character, written)
    return f'"{value}"'
