"""Runs a statement in batches: each a short transaction together with its progress, with pauses for other writers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from financial_agent.migrator import ledger, progress
from financial_agent.migrator.assertions import main_verb
from financial_agent.migrator.batches import batch_of, size, with_size
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Database, Effects, Stopped
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import BatchInvalid
from financial_agent.migrator.errors_run import BatchEndless
from financial_agent.migrator.events import Batched
from financial_agent.migrator.guard import in_transaction
from financial_agent.migrator.ledger import Progress
from financial_agent.migrator.lexer import Statement, locate, tokens
from financial_agent.migrator.plan import Step, version_of
from financial_agent.migrator.retry import patiently

_SHORTEST_PAUSE = 0.02  # seconds
_ASKING = 0.02  # seconds between two questions whether to stop


class Backfill:
    """The batches of one script. `progress` is what is committed, also by earlier runs."""

    def __init__(self, db: Database, step: Step, statements: Sequence[Statement], control: Control) -> None:
        self._db = db
        self._step = step
        self._statements = statements
        self._control = control
        begun = progress.find(db, step.filename)
        self.progress = begun or progress.first(step, statements, ledger.now())
        self._took = 0.0  # seconds
        self.longest = 0.0  # seconds that a batch kept other writers waiting

    def run(self, statement: Statement, at: int) -> None:
        """Run the statement at that place of the script until it changes nothing. Raises BatchInvalid when it could
        never come to that, and BatchEndless when it does not."""
        effects = refuse_unfit(self._db, self._step, statement)
        table = effects.target
        adds = _adds(statement)
        before = limit = self._db.size(table)
        changed = 0
        while rows := patiently(partial(self._batch, statement, at), self._control):
            changed += rows
            self._control.report(Batched(self._step.filename, table, changed, None if adds else before))
            if changed > limit:
                # What an INSERT adds to its table is no more than that has now, unless it copies its own rows.
                present = before if adds and effects.read == {table} else self._db.size(table)
                self._refuse_endless(statement, table, changed, present)
                limit = 2 * present  # as a table that grows would be counted after each batch
            self._pause()

    def _batch(self, statement: Statement, at: int) -> int:
        directive = batch_of(statement)
        assert directive
        with self._db.transaction():
            begun = time.perf_counter()
            sql = with_size(statement, size(directive))
            rows = in_transaction(self._db, lambda: self._db.change(sql))
            now = self._after(rows, at)
            progress.save(self._db, now)
        self.progress = now
        self._took = time.perf_counter() - begun
        self.longest = max(self.longest, self._took)
        return rows

    def _after(self, rows: int, at: int) -> Progress:
        """The progress once a batch has changed so many rows; when there is none, its statement is finished, and in any
        case what stands above it: an assertion there need not hold half-way."""
        so_far = self.progress
        if rows:
            so_far = replace(so_far, batches=so_far.batches + 1, rows_changed=so_far.rows_changed + rows)
        statements = at if rows else at + 1
        if statements == so_far.statements:
            return so_far
        return replace(so_far, statements=statements, finished=progress.checksum_of(self._statements, statements))

    def _pause(self) -> None:
        """Let other writers in for as long as the batch kept them out."""
        end = time.monotonic() + (max(self._took, _SHORTEST_PAUSE) if self._control.pauses else 0)
        while True:
            if self._control.stop() is not None:
                raise Stopped
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _ASKING))

    def _refuse_endless(self, statement: Statement, table: str, changed: int, present: int) -> None:
        if changed > present:
            raise BatchEndless(
                location=_at(self._step, statement),
                name=self._step.filename,
                changed=changed,
                table=table,
                present=present,
                then=accept_first(self._step),
            )


def refuse_unfit(db: Database, step: Step, statement: Statement) -> Effects:
    """Raise BatchInvalid for a statement whose batches would change something on and on, or of which that cannot be
    told. Returns what else it would do."""
    effects = db.effects(statement.text)
    table = effects.target
    if table not in db.tables():
        problem = f"what it changes is no table of this database{f': {table}' if table else ''}"
        with db.transaction():
            if not table:
                db.change(with_size(statement, 1))  # the database says what is wrong with it, if anything is
            raise BatchInvalid(location=_at(step, statement), problem=problem, fix="Change the table itself")
    if _adds(statement) and not (table in effects.read or _passes_over(statement)):
        problem = f"the statement would add the same rows again and again: it does not look at what {table} has"
        fix = f"Leave out what is there: … WHERE NOT EXISTS (SELECT 1 FROM {table} …) LIMIT :batch"
        raise BatchInvalid(location=_at(step, statement), problem=problem, fix=fix)
    return effects


def _at(step: Step, statement: Statement) -> Location:
    return locate(step.script.source.name, statement, 0)


def accept_first(step: Step) -> str:
    """What is to be done once the statements of a script that has finished batches are corrected."""
    again = "migrate" if step.migration else "rollback"
    return f"accept the file (flask db repair {version_of(step.filename)} --reason WHY), then: flask db {again}"


def _adds(statement: Statement) -> bool:
    return main_verb(statement) in ("INSERT", "REPLACE")


def _passes_over(statement: Statement) -> bool:
    """Whether an INSERT may leave alone what is there."""
    words = [word.upper() for word in tokens(statement.text, statement.dialect)]
    return any(pair in (("OR", "IGNORE"), ("ON", "CONFLICT")) for pair in pairwise(words))
