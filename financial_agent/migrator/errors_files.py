"""Files that cannot be used as they are: exit code 4, and the database was not touched."""

from __future__ import annotations

from financial_agent.migrator.errors import MigratorError


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


class RequirementMissing(FileRefused):
    code = "FA218"
    text = "{name} requires {required}, which is neither in the folder nor applied: {path}"


class RequirementsCyclic(FileRefused):
    code = "FA219"
    text = "these migrations require each other: {path}"
    advice = "Take one of the requirements away, most likely the one in {last}"


class RequirementExcluded(FileRefused):
    code = "FA220"
    text = "{name} requires {required}, which {why}: {path}"


class FileChanged(FileRefused):
    code = "FA217"
    text = "{name} changed while it was being read"
    advice = "Run the command again: flask db migrate"


class BatchInvalid(FileRefused):
    code = "FA221"
    text = "{problem}"


class AssertionInvalid(FileRefused):
    code = "FA222"
    text = "this is no assertion: {problem}"
    advice = "Write one query behind the word, and inside a section: -- migrate:assert SELECT …"


class PythonInvalid(FileRefused):
    code = "FA223"
    text = "the file is not Python: {problem}"
    advice = "Correct it, then: flask db migrate"


class UpFunctionInvalid(FileRefused):
    code = "FA224"
    text = "the file is no migration: {problem}"


class RebuildInvalid(FileRefused):
    code = "FA227"
    text = "{problem}"


class IndexOfLostColumn(FileRefused):
    code = "FA229"
    text = "the index {index} of {table} cannot be kept: {cause}"
    advice = "Put above the rebuild: DROP INDEX {index};"


class ClientCommand(FileRefused):
    code = "FA230"
    text = "{command} is a command of {client}, not of the server"


class DatabaseSwitched(FileRefused):
    code = "FA231"
    text = "USE would go on in another database, which has no record of this migration"
    advice = "Remove it; name what is elsewhere with its database: other.customers"


class SQLiteOnly(FileRefused):
    code = "FA232"
    text = "migrate:{word} is for SQLite"


class TablesLocked(FileRefused):
    code = "FA233"
    text = "{keyword} would keep the run from recording what it does"
    advice = "Remove LOCK TABLES and UNLOCK TABLES: one run at a time is seen to (mariadb-dump --skip-add-locks)"


class ReadingChanged(FileRefused):
    code = "FA234"
    text = "{setting} would change where the statements behind it end, which were told apart without it"


class CopyInvalid(FileRefused):
    code = "FA235"
    text = "the rows of a COPY begin on the next line"
    advice = "Move what stands behind it below the line \\. that ends the rows"


class DelimiterLeft(FileRefused):
    code = "FA236"
    text = "a section begins while statements still end with {separator}"
    advice = "Write above it: DELIMITER ;"
