"""Every failure of the engine: its stable code, its exit code, its text and what to type next. Those of the files
themselves (FA2xx) are in `errors_files`, those of a run (FA3xx) in `errors_run`.

An error carries data; `str(error)` is one line of text. Excerpts, carets and colour belong to the front ends.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from financial_agent.migrator.events import Done


@dataclass(frozen=True)
class Location:
    """A place in a migration file. `line` and `column` count from 1, in characters; `excerpt` is that line's text."""

    path: str
    line: int | None = None
    column: int | None = None
    excerpt: str = ""

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


class MigratorError(Exception):
    """Base of all failures. `text` and `advice` are format strings over the keyword arguments of the constructor."""

    code: ClassVar[str]
    exit_code: ClassVar[int] = 2
    text: ClassVar[str]
    advice: ClassVar[str] = "{fix}"

    def __init__(self, *, location: Location | None = None, **fields: Any) -> None:
        self.location = location
        self.fields = fields
        self.message = self.text.format(**fields)
        # A hint is to be typed: paths in it survive a shell.
        self.hint = self.advice.format(
            **{name: shlex.quote(str(value)) if isinstance(value, Path) else value for name, value in fields.items()}
        )
        self.state = ""
        """What the database was verified to be in after the failure; empty when nothing was verified."""
        self.done: list[Done] = []
        """What the run had committed before it failed."""
        super().__init__(self.message)


# Configuration and usage: exit 2.


class ConfigurationInvalid(MigratorError):
    code = "FA101"
    text = "{setting} {problem}"


class DatabaseUnsupported(MigratorError):
    code = "FA102"
    text = "{database!r} does not name a database: {why}"
    advice = (
        "Give a file's path, or sqlite:///PATH (three slashes, and a fourth before an absolute path)\n"
        "or a server's: postgresql://USER:PASSWORD@HOST:PORT/NAME, or mysql://…"
    )


class DatabaseFolderMissing(MigratorError):
    code = "FA103"
    text = "cannot create {database}: its folder does not exist"
    advice = "mkdir -p {folder}"


class DatabaseUnusable(MigratorError):
    code = "FA104"
    text = "cannot use {database}: {cause}"


class DatabaseDamaged(DatabaseUnusable):
    """It is no database, or so damaged that it cannot be opened."""


class DatabaseReadOnly(MigratorError):
    code = "FA105"
    text = "cannot write to {database}: {cause}"
    advice = "SQLite writes to the file and to its folder: ls -ld {database} {folder}"


class UrlInvalid(MigratorError):
    code = "FA118"
    text = "{database} is not the URL of a database: {why}"
    advice = (
        "Write postgresql://USER:PASSWORD@HOST:PORT/NAME, or mysql://…\n"
        "In the user and the password, write what is no letter, digit, - or _ percent-encoded (@ is %40, / is %2F)"
    )


class DriverMissing(MigratorError):
    code = "FA119"
    text = "the driver for {database} is not installed: {driver}"
    advice = "pip install 'financial_agent[{extra}]'"


class TargetUnknown(MigratorError):
    code = "FA106"
    text = "no migration matches {target!r}"


class TargetAmbiguous(MigratorError):
    code = "FA107"
    text = "{target!r} matches {matches}"
    advice = "Give the whole name of the one you mean"


class FolderMissing(MigratorError):
    code = "FA108"
    text = "the migration folder {folder} {problem}"
    advice = "Name the folder that holds the numbered .sql files with --directory"


class NameUnusable(MigratorError):
    code = "FA109"
    text = "{name!r} cannot be a migration's name: {why}"
    advice = "Use words, as in: flask db new add_risk_profile"


class EnvironmentMissing(MigratorError):
    code = "FA110"
    text = "no environment is configured that the database could be changed to"
    advice = "Name it: --environment NAME, or FINANCIAL_AGENT_ENVIRONMENT"


class DatabaseMissing(MigratorError):
    code = "FA112"
    text = "there is no database at {database}"


class SchemaFileUnusable(MigratorError):
    code = "FA113"
    text = "the schema file {path} cannot be {doing}: {cause}"
    advice = "ls -ld {folder} {path}"


class BackupUnknown(MigratorError):
    code = "FA114"
    text = "{backup!r} is neither a backup of this database nor a file"
    advice = "flask db backups"


class CodeUnknown(MigratorError):
    code = "FA117"
    text = "no error, rule or finding has the code {unknown!r}"
    advice = "Did you mean {near}? All codes: flask db explain"


# Refused to protect data: exit 4, and nothing was changed.


class Refused(MigratorError):
    exit_code = 4


class CascadeRefused(Refused):
    code = "FA401"
    text = "DROP TABLE {table} would delete or clear rows of {children} through ON DELETE"
    advice = (
        "To rebuild the table and keep those rows, add the line: -- migrate:foreign_keys off\n"
        "If the rows should go, add the line: -- migrate:allow cascade\n"
        "{then}"
    )


class CascadeTakesAlong(CascadeRefused):
    """The statement says CASCADE, and not what that reaches."""

    text = "{table} CASCADE would take along: {children}"
    advice = "If they should go, add the line: -- migrate:allow cascade\n{then}"


class Irreversible(Refused):
    code = "FA402"
    text = "{names} cannot be rolled back: {why}"


class ConfirmationNeeded(Refused):
    code = "FA403"
    text = "{action} needs a confirmation"


class FileRenamed(Refused):
    code = "FA404"
    text = "migration {version} was applied as {applied}, but the folder now has {found}"
    advice = "Rename the file back to {applied}. If it is a new migration: flask db renumber {found}"


class FileAppliedAlready(Refused):
    code = "FA416"
    text = "{found} is the same file as {applied}, which was applied and is gone from the folder"
    advice = "Rename it back to {applied}"


class EntryMissing(Refused):
    code = "FA417"
    text = "the ledger has no row of {names}, but the history has it as applied: it would run twice"
    advice = "To record it again, and run nothing: flask db repair {first} --reason WHY"


class MigrationsPending(Refused):
    code = "FA405"
    text = "refusing to serve: {count} pending, the first is {first}"
    advice = "flask db migrate"


class BaselineRefused(Refused):
    code = "FA409"
    text = "{database} cannot be adopted: {why}"


class RepairRefused(Refused):
    code = "FA410"
    text = "{name} cannot be repaired: {why}"
    advice = "See where it stands with: flask db status"


class PlanChanged(Refused):
    code = "FA406"
    text = "another run changed the database meanwhile: {expected} is no longer what would be rolled back"
    advice = "Look again with: flask db status"


class StoredScriptInvalid(Refused):
    code = "FA408"
    text = "the down section that the ledger keeps for {name} cannot be used: {cause}"
    advice = "Put the file as it was applied back into the folder, then: flask db rollback"


class Declined(Refused):
    code = "FA411"
    text = "not confirmed: nothing was changed"
    advice = "See where it stands with: flask db status"


class OutOfOrder(Refused):
    code = "FA412"
    text = "{names} would run behind {newest}, which is applied"
    advice = (
        "If that is right: flask db migrate --out-of-order\nTo give it the next free number: flask db renumber {first}"
    )


class RenumberRefused(Refused):
    code = "FA413"
    text = "{name} cannot be renumbered: {why}"


class RecoveryRefused(Refused):
    """Carries `differences` between the nearest schema and the database's."""

    code = "FA414"
    text = "{database} has tables, but no ledger: {why}"


class RehearsalRefused(Refused):
    code = "FA415"
    text = "{name} cannot be rehearsed: {what} reaches beyond the copy"
    advice = "Read what it does to the other database, and run it without a rehearsal (a rollback: with --yes)"


class EnvironmentDiffers(Refused):
    code = "FA418"
    text = "{database} belongs to the environment {stamp}, and {configured}"
    advice = (
        "Look which database it is: flask db status\n"
        "If it is the right one, go on as {stamp}: --environment {stamp}\n"
        "If it is to belong to another environment from now on: --environment {name} --change-environment"
    )


class DependentsStay(Refused):
    code = "FA419"
    text = "{name} would stay, and requires {required}, which would be rolled back: {path}"
    advice = "To take it along: flask db rollback --steps {steps}"


class BackupFailed(Refused):
    code = "FA430"
    text = "no backup could be made in {folder}, and nothing was changed: {why}"


class BackupUnusable(Refused):
    code = "FA431"
    text = "cannot use the backup {backup}: {why}"


class RestoreRefused(Refused):
    code = "FA432"
    text = "cannot restore {backup}: {why}"


class NoSpace(Refused):
    code = "FA433"
    text = "{folder} has too little space for a copy of the database: {needed:,} bytes are needed, {free:,} are free"
    advice = "Free some space: df -h {folder}"


class LockFileUnusable(Refused):
    code = "FA435"
    text = "{path} cannot be {doing}: {cause}"
    advice = "ls -ld {path} {folder}"


class DumpRefused(Refused):
    code = "FA434"
    text = "{path} was not written by `flask db dump`, and is left as it is"
    advice = "Name another file, or remove that one: ls -l {path}"


class LedgerUnusable(Refused):
    code = "FA407"
    text = "the table {table} is not a migration ledger: {why}"
    advice = "Look at it with: {look}"


# Busy: exit 5.


class RunLocked(MigratorError):
    code = "FA501"
    exit_code = 5
    text = "another migration run holds {lock}: waited {seconds:g} s for it to end"
    advice = "Wait longer (--wait SECONDS), or see which process it is: {look}"


class DatabaseLocked(MigratorError):
    code = "FA502"
    exit_code = 5
    text = "another process holds a lock on {database}: waited {seconds:g} s {purpose}"
    advice = "Wait longer (--wait SECONDS), or see which process it is: {look}"


class LockHeld(DatabaseLocked):
    """Another connection to the server has what is needed, for longer than this run waits."""

    code = "FA503"
    text = "{name} could not get a lock that another connection holds: {cause}"
    advice = "Wait longer (--wait SECONDS), or end what holds it, {then}"
