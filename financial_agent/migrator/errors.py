"""Every failure of the engine: its stable code, its exit code, its text and what to type next.

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
    text = "{database!r} does not name a SQLite database: {why}"
    advice = "Give a file's path, or sqlite:///PATH (three slashes, and a fourth before an absolute path)"


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


class TargetUnknown(MigratorError):
    code = "FA106"
    text = "no migration matches {target!r}"


class TargetAmbiguous(MigratorError):
    code = "FA107"
    text = "{target!r} matches {matches}"
    advice = "Give the number of the one you mean"


class FolderMissing(MigratorError):
    code = "FA108"
    text = "the migration folder {folder} {problem}"
    advice = "Name the folder that holds the numbered .sql files with --directory"


class NameUnusable(MigratorError):
    code = "FA109"
    text = "{name!r} cannot be a migration's name: {why}"
    advice = "Use words, as in: flask db new add_risk_profile"


class DatabaseMissing(MigratorError):
    code = "FA112"
    text = "there is no database at {database}"


class BackupUnknown(MigratorError):
    code = "FA114"
    text = "{backup!r} is neither a backup of this database nor a file"
    advice = "flask db backups"


# Files that cannot be used as they are: exit 4, and the database was not touched.


class FileRefused(MigratorError):
    exit_code = 4


class FileNameInvalid(FileRefused):
    code = "FA201"
    text = "{name} is not named like a migration: {why}"


class VersionDuplicated(FileRefused):
    code = "FA202"
    text = "{first} and {second} have the same number, {version}"
    advice = "Give the newer one the next free number: flask db renumber {second}\nor: flask db renumber {first}"


class FileOutsideFolder(FileRefused):
    code = "FA203"
    text = "{name} is a symbolic link that leads out of the migration folder"
    advice = "Put the file itself into the folder: what runs must be what was reviewed"


class FileUnreadable(FileRefused):
    code = "FA204"
    text = "cannot read {name}: {cause}"


class EncodingInvalid(FileRefused):
    code = "FA205"
    text = "the file is not UTF-8: {cause}"
    advice = "Save it as UTF-8"


class NulByte(FileRefused):
    code = "FA206"
    text = "the file holds a NUL byte"
    advice = "Remove it: SQLite would stop reading there"


class Unterminated(FileRefused):
    code = "FA207"
    text = "this {what} is never closed"
    advice = "Close it with {closer}"


class DirectiveUnknown(FileRefused):
    code = "FA208"
    text = "{problem}"


class DirectiveInvalid(FileRefused):
    code = "FA209"
    text = "{problem}"


class SectionsInvalid(FileRefused):
    code = "FA210"
    text = "{problem}"


class SectionEmpty(FileRefused):
    code = "FA211"
    text = "there is no statement to run"
    advice = "Write the migration before you run it, or delete the file"


class TransactionControl(FileRefused):
    code = "FA212"
    text = "{keyword} would end or split the transaction that keeps this migration and its record together"
    advice = (
        "Remove it: every migration runs in a transaction already. "
        "A section that needs its own says `-- migrate:{section} transaction:false`"
    )


class AttachRefused(FileRefused):
    code = "FA214"
    text = "{keyword} reaches another database, which this migration's transaction does not cover"
    advice = "If it is meant, add the line: -- migrate:allow attach"


class LedgerTouched(FileRefused):
    code = "FA215"
    text = "a migration must not touch {table}, which records the migrations"
    advice = "Remove the statement; `flask db status` shows what is recorded"


class NeedsNoTransaction(FileRefused):
    code = "FA216"
    text = "{what} cannot run inside a transaction"
    advice = "Put it into a migration of its own whose section begins with: -- migrate:{section} transaction:false"


class FileChanged(FileRefused):
    code = "FA217"
    text = "{name} changed while it was being read"
    advice = "Run the command again: flask db migrate"


# Failures while running: exit 3, and nothing of the failing migration remains.


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
    advice = "Free some space: df -h {folder}"


class Interrupted(MigratorError):
    code = "FA306"
    exit_code = 130
    text = "interrupted {what}"
    advice = "See where it stands with: flask db status"

    def __init__(self, *, signal: int = 2, **fields: Any) -> None:
        super().__init__(**fields)
        self.exit_code = 128 + signal  # type: ignore[misc]  # the shell's convention: 130 for Ctrl-C, 143 for SIGTERM


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


class LedgerUnusable(Refused):
    code = "FA407"
    text = "the table {table} is not a migration ledger: {why}"
    advice = "Look at it with: sqlite3 {database} '.schema {table}'"


# Busy: exit 5.


class RunLocked(MigratorError):
    code = "FA501"
    exit_code = 5
    text = "another migration run holds {lock}: waited {seconds:g} s for it to end"
    advice = "Wait longer (--wait SECONDS), or see which process it is: fuser -v {lock}"


class DatabaseLocked(MigratorError):
    code = "FA502"
    exit_code = 5
    text = "another process holds a lock on {database}: waited {seconds:g} s {purpose}"
    advice = "Wait longer (--wait SECONDS), or see which process it is: fuser -v {database}"
