"""Puts another content into a PostgreSQL database, in one transaction, while others are connected to it."""

from __future__ import annotations

import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from financial_agent.migrator.databases import CommitLost, Patience, StatementError, Stopped
from financial_agent.migrator.databases.postgresql import backups
from financial_agent.migrator.databases.postgresql.connection import PostgresqlDatabase
from financial_agent.migrator.databases.postgresql.tools import tool
from financial_agent.migrator.databases.server_backups import Progress
from financial_agent.migrator.databases.server_tools import Started, Tool, finish, started
from financial_agent.migrator.databases.url import Url, parse
from financial_agent.migrator.errors import DatabaseLocked
from financial_agent.migrator.errors_server import ToolFailed

_TICK = 0.1  # seconds between two questions whether to stop
_PAUSE = 0.5  # seconds between two tries for the locks

# What is the user's: not the system's, nor an extension's, nor made with something else, as a range's functions are.
_OWN = """NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = {object}.classid AND e.objid = {object}.objid
AND e.deptype IN ('e', 'i') AND (e.refclassid, e.refobjid) <> (e.classid, e.objid))"""
_SCHEMAS = "SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
_TABLES = f"""\
SELECT string_agg(format('%I.%I', nspname, relname), ', ' ORDER BY nspname, relname)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace, LATERAL (SELECT 'pg_class'::regclass AS classid,
c.oid AS objid) AS o WHERE relkind IN ('r', 'p') AND n.oid IN ({_SCHEMAS}) AND {_OWN.format(object="o")}"""
# In an order in which nothing fires any more: event triggers first. What goes with something else need not be there.
_DROPS = f"""\
WITH own (rank, classid, objid) AS (
SELECT 1, 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
UNION ALL SELECT 2, 'pg_publication'::regclass, oid FROM pg_publication
UNION ALL SELECT 3, 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
UNION ALL SELECT 4, 'pg_cast'::regclass, oid FROM pg_cast WHERE oid >= 16384
UNION ALL SELECT 5, classid, objid FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass
AND refobjid = to_regnamespace('public') AND deptype = 'n' AND objsubid = 0 AND classid <> 'pg_extension'::regclass
UNION ALL SELECT 6, 'pg_namespace'::regclass, oid FROM pg_namespace WHERE oid IN ({_SCHEMAS}) AND nspname <> 'public'
UNION ALL SELECT 7, 'pg_language'::regclass, oid FROM pg_language WHERE oid >= 16384)
SELECT format('DROP %s IF EXISTS %s CASCADE', CASE type WHEN 'composite type' THEN 'TYPE'
WHEN 'statistics object' THEN 'STATISTICS' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
ELSE upper(type) END, identity)
FROM own, pg_identify_object(classid, objid, 0) WHERE {_OWN.format(object="own")} ORDER BY rank, objid"""
_LARGE_OBJECTS = "SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata"
_ANSWERED = re.compile(r":\s+[0-9A-Z]{5}:")  # the server's SQLSTATE
_BUSY = ("55P03", "40P01")  # lock_not_available, deadlock_detected


class Sole(PostgresqlDatabase):
    """The only one who writes to a database, while others go on reading: until it is closed, psql holds the locks."""

    def __init__(self, database: str, patience: Patience) -> None:
        super().__init__(database, parse(database), readonly=True, patience=patience)
        self._stack = ExitStack()
        try:
            self._psql = self._alone(self._stack)
        except BaseException:
            self.close()
            raise

    def _alone(self, stack: ExitStack) -> _Psql:
        """A session in a transaction that keeps all others from writing."""
        deadline = time.monotonic() + self._patience.seconds
        begin = f"BEGIN; SET LOCAL lock_timeout = {max(1, round(self.url.lock_timeout * 1000))}"
        while True:
            ((tables,),) = self.query(_TABLES)
            session = stack.enter_context(_psql(self.url, self._patience))
            try:
                session.run(f"{begin}; LOCK TABLE {tables} IN EXCLUSIVE MODE" if tables else begin)
                return session
            except ToolFailed as error:
                if not _is_busy(error):
                    raise
            if time.monotonic() > deadline:
                raise self._locked()
            time.sleep(_PAUSE)

    def _locked(self) -> DatabaseLocked:
        purpose = "for others to end what they do with its tables"
        look = "SELECT * FROM pg_stat_activity WHERE datname = current_database();"
        return DatabaseLocked(database=self.name, seconds=self._patience.seconds, purpose=purpose, look=look)

    def copy(self, target: Path, mode: int, progress: Progress) -> None:
        backups.write(self, self.address, target, self._patience, progress)

    def replace_by(self, other: str, keep: Callable[[], None], progress: Progress, note: str) -> None:
        keep()
        drops = "; ".join(sql for (sql,) in self.query(_DROPS))
        try:
            self._psql.run(f"SET client_min_messages = warning; {_LARGE_OBJECTS}; {drops}")
            dump = tool(parse(other), "pg_dump", "--no-subscriptions", "--no-password")
            self._psql.read(dump)
            # What the dump has set would stay on the connection of a pooler.
            self._psql.run("RESET ALL")
        except ToolFailed as error:
            if _is_busy(error):
                raise self._locked() from error
            raise StatementError(error.message) from error
        try:
            self._psql.run("COMMIT")
        except ToolFailed as error:
            lost = StatementError if _ANSWERED.search(error.message) else CommitLost
            raise lost(error.message) from error

    def close(self) -> None:
        self._stack.close()
        super().close()


def _is_busy(error: ToolFailed) -> bool:
    return re.search(rf"\b({'|'.join(_BUSY)})\b", error.message) is not None


class _Psql:
    """A psql that is told what to do bit by bit, and ends with the first error."""

    def __init__(self, process: Started, patience: Patience) -> None:
        self._started = process
        self._patience = patience

    def run(self, sql: str) -> None:
        """Run statements to their end. Raises ToolFailed and Stopped."""
        process = self._started.process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(f"{sql};\n\\echo done\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        while not select.select([process.stdout], [], [], _TICK)[0]:
            if self._patience.stop(""):
                raise Stopped
        if not process.stdout.readline():
            self._fail()

    def read(self, source: Tool) -> None:
        """Run what another program writes. Raises ToolFailed and Stopped."""
        with started(source, stdout=self._started.process.stdin) as writer:
            try:
                finish([writer], self._patience)
            except ToolFailed:
                if self._started.process.poll() is not None:  # that nobody reads any more is not why
                    self._fail()
                raise

    def _fail(self) -> None:
        finish([self._started], self._patience)
        raise ToolFailed(program="psql", cause="it ended", fix="See what the server's log says")


@contextmanager
def _psql(url: Url, patience: Patience) -> Iterator[_Psql]:
    strictly = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose", "--output=/dev/null")
    with started(tool(url, "psql", *strictly), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield _Psql(process, patience)
