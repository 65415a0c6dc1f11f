"""Whether a database is what its migrations and its own records say, and whether two databases are alike."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from financial_agent.migrator import (
    heads,
    history,
    ledger,
    plan,
    progress,
    python_script,
    rebuild,
    replay,
    runner,
    schema,
    session,
)
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    StatementError,
    connect,
    dialect_of,
    display_name,
    exists,
    workspace,
)
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors import DatabaseMissing, DatabaseUnusable, NoSpace
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.errors_server import ScratchRefused
from financial_agent.migrator.events import Copying
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.lexer import Statement, tokens
from financial_agent.migrator.plan import Item, Step
from financial_agent.migrator.replay import CannotReplay
from financial_agent.migrator.schema import Difference, Schema
from financial_agent.migrator.script import MigrationFile, Script, parse_stored, read
from financial_agent.migrator.source import decode, normalised

Kind = Literal[
    "edited",
    "missing",
    "excluded",
    "started",
    "out of order",
    "ledger",
    "history",
    "drift",
    "integrity",
    "foreign keys",
    "environments",
]


_ONLY_DOWN = "its down section differs, the statements that ran do not"
_NO_STATEMENT = "only comments or white space differ"
_OF_TWO_ENGINES = (
    "the databases are of two engines: compared are the names of the migrations, the tables, and of their columns the "
    "names, which may be NULL, and the primary keys"
)
_UNDO = "undo the edit, and put the change into a new migration: flask db new NAME"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. `diff` is a unified diff of a file; `differences` are between two schemas,
    of which the message says which is which; `hint` is what to do next, where that is one thing."""

    kind: Kind
    message: str
    filename: str | None = None
    diff: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found. `notes` say what could not be looked at; `head` is the SHA-256 of the
    history's newest row, for an auditor to keep elsewhere."""

    database: str
    other: str | None
    items: tuple[Item, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    events: int
    head: str | None
    environment: str | None
    """The one that the database belongs to."""
    configured: str | None
    """The one that the configuration names."""


def verify(
    database: str, directory: Path, *, environment: str | None = None, against: str | None = None, control: Control
) -> Report:
    """Compare a database with the folder, with its own records, and with another database. Writes nothing.

    Raises DatabaseMissing, and what reading the folder and the databases raises.
    """
    files = discover(directory, dialect_of(database))
    with _opened(database, "Make it with: flask db migrate", control) as db:
        with db.snapshot():
            rows = ledger.history(db)
            entries = ledger.entries(db)
            items = runner.overview(files, entries, environment)
            stamped = ledger.environment(db)
            drift, notes = _drift(database, db, items, entries, control)
            findings = [
                *_files(db, items, directory),
                *_excluded(items, environment),
                *_started(db),
                *_records(db, entries, rows),
                *drift,
            ]
            found = schema.read(db)
        found_wrong, hindered = _examined(database, db, control)
        findings += found_wrong
        notes += hindered
    if against is not None:
        with _opened(against, "Name another file with --against", control) as other, other.snapshot():
            names = (display_name(database), display_name(against))
            is_one_engine = other.dialect == dialect_of(database)
            if not is_one_engine:
                notes = [*notes, _OF_TWO_ENGINES]
            findings += _compared(
                names, entries, ledger.entries(other), found, schema.read(other), is_one_engine=is_one_engine
            )
    return Report(
        database=display_name(database),
        other=None if against is None else display_name(against),
        items=tuple(items),
        findings=tuple(findings),
        notes=tuple(notes),
        events=len(rows),
        head=history.hash_of(rows[-1]) if rows else None,
        environment=stamped,
        configured=environment,
    )


@contextmanager
def _opened(database: str, fix: str, control: Control) -> Iterator[Database]:
    if not exists(database):
        raise DatabaseMissing(database=display_name(database), fix=fix)
    with (
        session.explained(database, control, "while the database was being looked at"),
        closing(connect(database, readonly=True, patience=control.patience())) as db,
    ):
        yield db


# The files.


def _files(db: Database, items: Sequence[Item], directory: Path) -> Iterator[Finding]:
    for item in items:
        if item.file and item.state == "edited":
            yield _edited(db, item.file)
        elif item.state == "missing":
            yield Finding("missing", f"it is applied, and its file is not in {directory}", item.filename)
        elif item.out_of_order:
            yield Finding("out of order", "it is pending below a version that is applied", item.filename)


def _excluded(items: Sequence[Item], environment: str | None) -> Iterator[Finding]:
    """What is applied, and is not for the environment that is configured."""
    for item in items:
        if item.entry and item.file and (head := heads.peek(item.file)).is_excluded(environment):
            here = f"this is {environment}" if environment else "none is configured"
            message = f"it is applied, and is for {' and '.join(sorted(head.environments))} alone, and {here}"
            yield Finding("excluded", message, item.filename)


def _started(db: Database) -> Iterator[Finding]:
    for each in progress.read(db):
        message = f"it was begun and is not done: {each.in_effect}"
        hint = f"flask db {'migrate' if each.direction == 'up' else 'rollback'}"
        yield Finding("started", message, each.filename, hint=hint)


def _edited(db: Database, file: MigrationFile) -> Finding:
    """What was changed in a file since it was applied, as far as the ledger keeps what it was."""
    name = file.filename
    try:
        up_text, down_text = ledger.kept_text(db, name, "up"), ledger.kept_text(db, name, "down")
        down_text = None if rebuild.is_generated(down_text) else down_text
        if up_text is None:
            message = "its file was edited after it was applied; the ledger keeps no text to compare it with"
            return Finding("edited", message, name)
        up = parse_stored(up_text, name, "up", dialect=db.dialect)
        down = parse_stored(down_text, name, "down", dialect=db.dialect) if down_text else None
    except (ValueError, FileRefused) as error:
        message = f"its file was edited after it was applied; what the ledger keeps of it cannot be read: {error}"
        return Finding("edited", message, name)
    before = up_text + (down_text[down.start :] if down and down_text and not up.is_python else "")
    after = "".join(decode(normalised(file.path), name))
    try:
        now = read(file)
    except FileRefused as error:
        what = f"it is no migration any more: {error}"
    else:
        what = _what_differs((up, down), (now.up, now.down))
        if now.down is None:  # an empty down section is not kept
            after = after[: now.up.end]
    diff = difflib.unified_diff(before.split("\n"), after.split("\n"), f"{name} as applied", f"{name} now", lineterm="")
    hint = f"flask db repair {file.version} --reason WHY" if what in (_ONLY_DOWN, _NO_STATEMENT) else _UNDO
    return Finding("edited", f"its file was edited after it was applied; {what}", name, tuple(diff), hint=hint)


def _what_differs(before: tuple[Script, Script | None], after: tuple[Script, Script | None]) -> str:
    if _meaning(before[0]) != _meaning(after[0]):
        return "its statements are not those that ran"
    if _meaning(before[1]) != _meaning(after[1]):
        return _ONLY_DOWN
    return _NO_STATEMENT


def _meaning(script: Script | None) -> object:
    if script is None:
        return None
    if script.is_python:
        text = "".join(script.source.chunks())
        return python_script.meaning(text, script.source.name, script.direction), script.foreign_keys, script.allow
    statements = [_meaning_of(statement) for statement in script.statements()]
    return statements, script.transaction, script.foreign_keys, script.allow


def _meaning_of(statement: Statement) -> object:
    directives = [(each.word, each.text) for each in statement.directives if each.word != "ignore"]
    return tokens(statement.text.removesuffix(";"), statement.dialect), statement.data, directives


# The records.


def _records(db: Database, entries: Sequence[Entry], rows: list[dict[str, object]]) -> Iterator[Finding]:
    if not db.columns("_migrations") and (tables := db.tables()):
        message = f"the database has {len(tables)} {'table' if len(tables) == 1 else 'tables'}, but no ledger"
        yield Finding("ledger", message)
    for message in history.broken_links(rows, db.last_id("_migration_history")):
        yield Finding("history", message)
    hashed = [(entry, ledger.entry_hash(db, entry.filename)) for entry in entries]
    for filename, message in history.contradictions(hashed, rows).items():
        yield Finding("ledger", message, filename)


# The schema.


def _drift(
    database: str, db: Database, items: Sequence[Item], entries: Sequence[Entry], control: Control
) -> tuple[list[Finding], list[str]]:
    """How the schema differs from what the migrations make, and what hindered the comparison."""
    if not db.columns("_migrations"):
        return [], []
    if begun := [each.filename for each in progress.read(db) if not each.batches]:
        return [], [f"whether the schema has drifted is not known while {' and '.join(begun)} is not done"]
    try:
        made = replay.result(database, _applied(db, items, entries), control.patience())
    except (CannotReplay, ScratchRefused) as error:
        return _drift_by_fingerprint(db, error)
    differences = schema.differences(made, schema.read(db))
    if not differences:
        return [], []
    message = "the schema is not what the migrations make (+ only the database has it, - only the migrations make it)"
    hint = "undo it by hand, or write a migration that does the same on the other databases"
    return [Finding("drift", message, differences=tuple(differences), hint=hint)], []


def _drift_by_fingerprint(db: Database, error: CannotReplay | ScratchRefused) -> tuple[list[Finding], list[str]]:
    recorded = ledger.last_fingerprint(db)
    if not recorded:
        return [], [f"whether the schema has drifted is not known: {error}"]
    if recorded == db.fingerprint():
        return [], [f"the schema is the one that was recorded last, but could not be made anew: {error}"]
    message = f"the schema is not the one that was recorded last; how it differs is not known: {error}"
    return [Finding("drift", message)], []


def _applied(db: Database, items: Sequence[Item], entries: Sequence[Entry]) -> Iterator[Step]:
    """What ran, in the order in which it did: as the ledger keeps it, else from the file while that is unchanged."""
    unchanged = {item.filename: item.file for item in items if item.state == "applied"}
    schema_kept = ledger.schema_kept(db) & history.ran(ledger.history(db))
    for entry in entries:
        name = entry.filename
        try:
            text = ledger.kept_text(db, name, "up")
            if text is not None:
                script = parse_stored(text, name, "up", dialect=db.dialect)
            elif file := unchanged.get(name):
                script = read(file).up
            else:
                raise CannotReplay(name, "the ledger does not keep its SQL, and its file is edited or gone")
        except (ValueError, FileRefused) as error:
            raise CannotReplay(name, str(error)) from error
        if not (script.is_python and name in schema_kept):  # Python is not run for a question
            yield Step(name, script)


# The database itself.


def _examined(database: str, db: Database, control: Control) -> tuple[list[Finding], list[str]]:
    """What is damaged, and the rows without a parent. Reading the whole of a large database takes long: where others
    would have to wait with their commits, a copy is read, while there is space for one."""
    if not db.blocks_writers:
        return list(_health(db)), []
    try:
        with workspace(database, control.patience()) as copies:
            copy = copies.original(lambda done, total: control.report(Copying("copying", done, total)))
            with closing(connect(copy, readonly=True, patience=control.patience())) as examined:
                return list(_health(examined)), []
    except (NoSpace, DatabaseUnusable, StatementError) as error:
        why = f"the database itself was examined, and no copy, while writers had to wait: {error}"
        return list(_health(db)), [why]


def _health(db: Database) -> Iterator[Finding]:
    for problem in db.problems():
        yield Finding("integrity", problem)
    try:
        orphans = db.orphans()
    except (StatementError, DatabaseUnusable) as error:  # damage must not hide what was found before
        yield Finding("foreign keys", f"the foreign keys cannot be checked: {error}")
        return
    counts: Counter[tuple[str, str]] = Counter()
    for orphan, count in orphans.items():
        counts[orphan.table, orphan.parent] += count
    for (table, parent), count in sorted(counts.items()):
        yield Finding("foreign keys", f"{count:,} {'row' if count == 1 else 'rows'} of {table} without {parent}")


# Another database.


def _compared(
    names: tuple[str, str],
    entries: Sequence[Entry],
    others: Sequence[Entry],
    here: Schema,
    there: Schema,
    *,
    is_one_engine: bool,
) -> Iterator[Finding]:
    """Of two engines, each has its own variants of the files, and its own types."""
    first, second = names
    ours, theirs = ({entry.filename: entry.checksum for entry in each} for each in (entries, others))
    for filename in sorted(ours.keys() | theirs.keys(), key=plan.version_of):
        if filename not in theirs:
            yield Finding("environments", f"it is applied in {first}, and not in {second}", filename)
        elif filename not in ours:
            yield Finding("environments", f"it is applied in {second}, and not in {first}", filename)
        elif is_one_engine and None not in (ours[filename], theirs[filename]) and ours[filename] != theirs[filename]:
            message = f"it is not the same file that was applied in {first} and in {second}"
            yield Finding("environments", message, filename)
    if not is_one_engine:
        here, there = schema.outline(here), schema.outline(there)
    if differences := schema.differences(there, here):
        message = f"the schemas differ (+ only in {first}, - only in {second})"
        yield Finding("environments", message, differences=tuple(differences))
