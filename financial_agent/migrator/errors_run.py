"""Failures while a migration runs: exit code 3, and nothing of the failing one remains unless the text says so."""

from __future__ import annotations

from typing import Any

from financial_agent.migrator.errors import MigratorError


class RunFailed(MigratorError):
    exit_code = 3


class MigrationFailed(RunFailed):
    code = "FA301"
    text = "{name} failed: {cause}"
    advice = "Correct its SQL, {then}"


class TransactionEnded(RunFailed):
    code = "FA302"
    text = "{name} failed: the statement ended the transaction: {cause}"
    advice = "Use ABORT where ROLLBACK stands (OR ROLLBACK, RAISE(ROLLBACK, ...)), {then}"


class ForeignKeysViolated(RunFailed):
    code = "FA303"
    text = "{name} failed: it would leave rows without their parent: {summary}"
    advice = "Keep or re-create the parent rows, or delete the children in the same file, {then}"


class MigrationFailedHalfway(RunFailed):
    code = "FA304"
    text = "{name} failed outside a transaction: {cause}"
    advice = "Make what is in effect safe to repeat (IF NOT EXISTS), or remove it from the file, {then}"


class DiskFull(RunFailed):
    code = "FA305"
    text = "{name} failed: {cause}"
    advice = "Free some space: {look}"


class Interrupted(MigratorError):
    code = "FA306"
    exit_code = 130
    text = "interrupted {what}"
    advice = "See where it stands with: flask db status"

    def __init__(self, *, signal: int = 2, **fields: Any) -> None:
        super().__init__(**fields)
        self.exit_code = 128 + signal  # type: ignore[misc]  # the shell's convention: 130 for Ctrl-C, 143 for SIGTERM


class AssertionFailed(RunFailed):
    code = "FA307"
    text = "{name} failed: what it asserts does not hold: {found}"
    advice = (
        "Look at what the query finds: it must find no row, or be one condition that is true (SELECT count(*) = 0 …)\n"
        "Correct the data or the SQL, {then}"
    )


class PythonForbidden(RunFailed):
    """A Python migration tried what its connection does not allow, and was undone, whatever it made of the refusal."""

    code = "FA311"
    text = "{name} failed: {what}"
    advice = "{fix}\n{then}"


class PythonFailed(RunFailed):
    """Carries `trace`: the lines of a traceback that begins in the migration's file. Only these may hold what a row
    holds, as the exception's own message may."""

    code = "FA312"
    text = "{name} failed: {kind}"
    advice = "Correct it, {then}"


class ValueMissing(RunFailed):
    code = "FA228"
    text = "{name} failed: {table} has rows, and nothing says what they hold in {columns}: NOT NULL without a default"
    advice = "Say it below migrate:rebuild (-- migrate:copy {first} = EXPRESSION), {then}"


class RebuildLosesRows(RunFailed):
    code = "FA314"
    text = "{name} failed: {table} had {before:,} rows, and {after:,} of them would be left"
    advice = "Take the aggregate function out of migrate:copy (in a subquery it may stand), {then}"


class RebuildBreaks(RunFailed):
    code = "FA315"
    text = "{name} failed: {what} would no longer work: {cause}"
    advice = "DROP it above the rebuild and create it anew, corrected, below, {then}"


class RowsDoNotFit(RunFailed):
    code = "FA316"
    text = "{name} failed: {rows} of {table} do not fit its new definition: {cause}"
    advice = "Correct the rows above the rebuild, or say what to make of them with migrate:copy, {then}"


class BatchFailed(RunFailed):
    """Carries `so_far`: what the finished batches did, and stays."""

    code = "FA308"
    text = "{name} {how}; {so_far.in_effect}"


class BatchesUnfinished(BatchFailed):
    """It was begun, and this run would not finish it. Nothing was changed."""

    exit_code = 4


class BatchEndless(RunFailed):
    code = "FA309"
    text = "{name} never comes to an end: its batches changed {changed:,} rows of {table}, which has {present:,}"
    advice = (
        "Its WHERE must leave out what was changed: SET done = 1 WHERE id IN (SELECT id … WHERE done IS NULL …)\n"
        "Correct its SQL, {then}"
    )


class LockLost(RunFailed):
    """Another run may have begun since: this one commits nothing more."""

    code = "FA320"
    text = "the connection to {database} that holds the lock of this run was lost"
    advice = "Look what ended it (the server's log), then: flask db migrate"


class CommitUnknown(RunFailed):
    """Whether it took place was looked for anew, and is told as the state, if the server answers by now."""

    code = "FA321"
    text = "{name}: the connection was lost during its commit"
    advice = "See where it stands with: flask db status, then: flask db {again}"


class ServerLost(RunFailed):
    """The server went away, or the way to it: nobody can say more than what the state says, if there is one."""

    code = "FA509"
    text = "{name}: {cause}"
    advice = "When the server answers again: flask db status, then: flask db {again}"


class StatementUncertain(RunFailed):
    """A run was cut off in a statement whose effect the schema does not show. Nothing was changed."""

    code = "FA317"
    exit_code = 4
    text = "{name} was cut off in its statement {number}, and whether that took effect cannot be told"
    advice = (
        "Look at the database: if it took effect, take the statement out of the file\n"
        "Then accept the file, and go on: flask db repair {version} --reason WHY, then: flask db {again}"
    )


class SessionLost(RunFailed):
    """Statements need what a run that failed had made for its own connection. Nothing was changed."""

    code = "FA325"
    exit_code = 4
    text = "{name} cannot go on: it needs {names}, which went with the connection of the run that failed"
    advice = (
        "Make that anew in a statement of its own in front of its statement {number}, behind those that are done\n"
        "Then: flask db {again}"
    )
