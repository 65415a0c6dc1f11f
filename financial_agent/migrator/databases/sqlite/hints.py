"""What a person can type to look at a SQLite database."""

from __future__ import annotations

import shlex
from pathlib import Path

from financial_agent.migrator.errors import DatabaseLocked


class Hints:
    """The same for every database in a file."""

    path: Path

    @property
    def space_hint(self) -> str:
        return f"df -h {shlex.quote(str(self.path.parent))}"

    @property
    def mend_hint(self) -> str:
        return f"Restore a backup, or try: sqlite3 {self._file} .recover"

    def look_hint(self, table: str) -> str:
        return f"sqlite3 {self._file} '.schema {table}'"

    @property
    def _file(self) -> str:
        return shlex.quote(str(self.path))


def holders(path: Path) -> str:
    """Which processes have a file open."""
    return f"fuser -v {shlex.quote(str(path))}"


def locked(path: Path, seconds: float, purpose: str) -> DatabaseLocked:
    """Another process holds a lock on a file."""
    return DatabaseLocked(database=path, seconds=seconds, purpose=purpose, look=holders(path))
