"""A connection to PostgreSQL of which nothing remains: one transaction, which is rolled back in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

from financial_agent.migrator.databases import url as urls
from financial_agent.migrator.databases.database import Orphan, Patience, SchemaObject, StatementError, TableChange
from financial_agent.migrator.databases.postgresql.connection import PostgresqlDatabase
from financial_agent.migrator.databases.postgresql.digest import digest
from financial_agent.migrator.databases.server import LEDGER_TABLES
from financial_agent.migrator.databases.server_compare import difference, rows_of

_LARGE = 200_000  # rows: of as many it is known in memory what they were
_OURS = ", ".join(f"'{table}'" for table in LEDGER_TABLES)
_TALLY = f"""\
SELECT CASE WHEN schemaname = ? THEN '' ELSE quote_ident(schemaname) || '.' END
|| CASE WHEN relname ~ '^[a-z_][a-z0-9_]*$' THEN relname ELSE quote_ident(relname) END,
n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables
WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND relname NOT IN ({_OURS})"""


class UndonePostgresqlDatabase(PostgresqlDatabase):
    def begin(self) -> None:
        self._run(f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._local_limits()}")
        self._inside = True

    @contextmanager
    def transaction(self, *, foreign_keys: bool = True) -> Iterator[Counter[Orphan]]:
        self._run("SAVEPOINT a_transaction")
        try:
            if self.url.ledger_schema:
                self._make_schema()
            yield Counter()
            self._run("RELEASE a_transaction")
        except BaseException:
            self._undo("a_transaction")
            raise

    @contextmanager
    def part(self) -> Iterator[None]:
        self._run("SAVEPOINT a_part")
        try:
            yield
        finally:
            self._undo("a_part")

    def _undo(self, savepoint: str) -> None:
        with suppress(StatementError):  # the end of the connection does the same
            self._run(f"ROLLBACK TO {savepoint}; RELEASE {savepoint}")

    def tally(self) -> dict[str, tuple[int, int, int]]:
        rows = self.query(_TALLY, (self.home,))
        return {str(table): (int(inserted), int(updated), int(deleted)) for table, inserted, updated, deleted in rows}

    def remember(self, table: SchemaObject) -> Callable[[], TableChange] | None:
        if self.size(table.name) > _LARGE:
            return None
        before = rows_of(self, table, digest)
        return lambda: difference(before, rows_of(self, table, digest))


@contextmanager
def undone(database: str, patience: Patience) -> Iterator[UndonePostgresqlDatabase]:
    """See `databases.undone`."""
    with closing(UndonePostgresqlDatabase(database, urls.parse(database), readonly=False, patience=patience)) as db:
        db.begin()
        yield db
