"""Puts a backup back: what it would bring and take away, and the exchange, of which nobody ever sees a half."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from financial_agent.migrator import backup, ledger, session
from financial_agent.migrator.backup import Contents, Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    Database,
    OutOfSpace,
    SoleDatabase,
    StatementError,
    Stopped,
    TableChange,
    compare,
    connect,
    connect_alone,
    copy,
    exists,
    file_of,
    locked,
    put_in_place,
    workspace,
)
from financial_agent.migrator.databases.owner import give_to
from financial_agent.migrator.databases.private_folder import private_folder
from financial_agent.migrator.environment import Environment, refuse_another
from financial_agent.migrator.errors import (
    BackupUnknown,
    BackupUnusable,
    DatabaseDamaged,
    DatabaseFolderMissing,
    DatabaseUnusable,
    LedgerUnusable,
    NoSpace,
    RestoreRefused,
)
from financial_agent.migrator.events import Copying, Warned


@dataclass(frozen=True)
class Prepared:
    """A backup that was found sound, and what putting it back would change."""

    backup: Path
    draft: Path
    """A copy of it beside the database, which nobody else sees."""
    contents: Contents
    current: Contents | None
    """What the database holds now; None when there is none."""
    rows: dict[str, tuple[int | None, int | None]]
    """For each table the number of its rows now and in the backup; None where it is not there, or cannot be counted."""
    changes: dict[str, TableChange]
    """What would become of the rows of the tables that differ, where there is a database that can be read."""
    environment: Environment
    """The one that the database is to belong to."""


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    newest: str | None
    """The newest migration that is applied now."""
    kept: Path | None
    """The database that was replaced; None when there was none."""
    continues_history: bool
    """The history of what was replaced is still told."""


@contextmanager
def prepared(
    database: str, policy: Policy, word: str, control: Control, environment: Environment | None = None
) -> Iterator[Prepared]:
    """Copy and check a backup, by its name or path, and compare it with the database; changes nothing.

    Raises BackupUnknown, BackupUnusable, RestoreRefused, NoSpace, EnvironmentDiffers when either of them belongs to
    another environment, and what reading the database raises.
    """
    environment = environment or Environment()
    place = file_of(database)
    if not place.parent.is_dir():
        raise DatabaseFolderMissing(database=place, folder=place.parent)
    path = _find(database, policy, word)
    with ExitStack() as stack:
        with _explained(database, path, control):
            draft = stack.enter_context(private_folder(place.parent)) / place.name
            contents = _copy(path, draft, control)
            refuse_another(str(path), contents.environment, environment)
            current, now, changes = _look_at(database, draft, control)
            refuse_another(database, current.environment if current else None, environment)
            then = _counts(str(draft), control)
            if not then:
                fix = "Choose another one: flask db backups"
                raise BackupUnusable(backup=path, why="it holds no table", fix=fix)
        rows = {table: (now.get(table), then.get(table)) for table in sorted(now | then)}
        yield Prepared(path, draft, contents, current, rows, changes, environment)


def restore(
    database: str, policy: Policy, prepared: Prepared, control: Control, git_commit: str | None = None
) -> Restored:
    """Put a prepared backup back and keep what it replaces as a backup. Whatever happens, the database is afterwards
    the old or the new one as a whole; the other processes that are connected to it see the new one, too.

    Raises RunLocked, DatabaseLocked, RestoreRefused, EnvironmentDiffers, NoSpace, Interrupted, and what opening the
    database raises.
    """
    with _explained(database, prepared.backup, control), locked(database, control.patience()):
        backup.make_folder(policy.folder, file_of(database))
        live = _open_alone(database, control)
        if live is None:
            return _put_in_place(database, policy, prepared, git_commit)
        with closing(live):
            with suppress(StatementError, DatabaseDamaged):  # what is damaged may not be readable
                refuse_another(live.name, ledger.environment(live), prepared.environment)
            return _exchange(live, database, policy, prepared, control, git_commit)


# Before.


def _find(database: str, policy: Policy, word: str) -> Path:
    named = [each.path for each in backup.listed(database, policy.folder) if each.name == word]
    path = named[0] if named else Path(word)
    if not word or not os.path.isfile(path):
        raise BackupUnknown(backup=word)
    if path.resolve() == file_of(database):
        raise RestoreRefused(backup=path, why="it is the database itself", fix="Choose a backup: flask db backups")
    return path


def _copy(path: Path, draft: Path, control: Control) -> Contents:
    """Take a copy that can be changed, and check it. Raises BackupUnusable, NoSpace, Stopped."""
    fix = "Choose another one: flask db backups"
    patience = control.patience()
    backup.verify(path, patience)
    try:
        copy(str(path), draft, patience, _reporter(control, "reading the backup"), mode=0o777)
    except DatabaseUnusable as error:
        raise BackupUnusable(backup=path, why=error.fields["cause"], fix=fix) from error
    contents = backup.look_into(draft, patience)
    if contents.flaw:
        raise BackupUnusable(backup=path, why=contents.flaw, fix=fix)
    return contents


def _look_at(
    database: str, draft: Path, control: Control
) -> tuple[Contents | None, dict[str, int], dict[str, TableChange]]:
    """What a database is at, how many rows its tables have, and how the draft's differ. Reads a copy: comparing takes
    long."""
    if not exists(database):
        return None, {}, {}
    patience = control.patience()
    try:
        with workspace(database, patience) as copies:
            copied = copies.original(_reporter(control, "reading the database"))
            with closing(connect(copied, readonly=True, patience=patience)) as db:
                contents = Contents(backup.newest(db), environment=ledger.environment(db))
            changes = {change.table: change for change in compare(copied, str(draft), None, patience)}
            return contents, _counts(copied, control), changes
    except (DatabaseDamaged, LedgerUnusable) as error:
        return Contents(flaw=error.message), {}, {}
    except StatementError as error:
        return Contents(flaw=str(error)), {}, {}


def _counts(database: str, control: Control) -> dict[str, int]:
    with closing(connect(database, readonly=True, patience=control.patience())) as db:
        return {table: db.counts(table, [])[0] for table in db.tables()}


# The exchange.


def _open_alone(database: str, control: Control) -> SoleDatabase | None:
    """None when there is no database that could be opened."""
    if not exists(database):
        return None
    with suppress(DatabaseDamaged):
        return connect_alone(database, control.patience())
    return None


def _exchange(
    live: SoleDatabase,
    database: str,
    policy: Policy,
    prepared: Prepared,
    control: Control,
    git_commit: str | None,
) -> Restored:
    """Exchange the content; the file and the connections to it stay. Nobody can write between keeping and replacing."""
    patience = control.patience()
    with private_folder(policy.folder) as drafts:
        draft = drafts / "backup.db"
        live.copy(draft, 0o777, _reporter(control, "keeping the database"))
        contents = backup.look_into(draft, patience)
        kept = backup.publish(draft, backup.label(database), policy.folder, "restore", contents, patience)
    continues = _finish(prepared, kept.path, live, git_commit)
    if not continues:
        control.report(
            Warned(prepared.backup.name, "its history is another one: what came since is told in the kept one")
        )
    try:
        live.replace_by(prepared.draft, _reporter(control, "restoring"))
    except (OutOfSpace, StatementError, Stopped):
        backup.remove(kept)  # nothing was replaced
        raise
    return Restored(prepared.contents.newest, kept.path, continues)


def _put_in_place(database: str, policy: Policy, prepared: Prepared, git_commit: str | None) -> Restored:
    """Put the file itself in the place of one that is missing, or that no longer is a database."""
    place = file_of(database)
    with backup.locked(policy.folder):
        kept = backup.unused_path(policy.folder, backup.label(database), None, "restore", backup.now())
        was_there = exists(database)
        _finish(prepared, kept if was_there else None, None, git_commit)
        if was_there:  # who may not read the one may not read the other
            prepared.draft.chmod(place.stat().st_mode & 0o777)
            give_to(place.stat(), prepared.draft)
        backup.sync(prepared.draft)
        put_in_place(database, prepared.draft, kept)
        backup.sync(policy.folder)
        backup.sync(place.parent)
    return Restored(prepared.contents.newest, kept if was_there else None, continues_history=False)


def _finish(prepared: Prepared, kept: Path | None, live: Database | None, git_commit: str | None) -> bool:
    """Let the history tell what came after the backup, and the restore. Whether it could tell the former."""
    before = f"what was there is kept as {kept.name}" if kept else "nothing was there"
    note = f"from {prepared.backup.name}; {before}"
    continues = False
    with closing(connect(str(prepared.draft))) as db:
        db.query("PRAGMA journal_mode = DELETE")  # the database keeps its own journal mode
        with db.transaction():
            ledger.prepare(db)
            head = ledger.head(db)
            if live:
                with suppress(StatementError, DatabaseDamaged):  # what is damaged may not be readable
                    continues = ledger.carry_over(live, db)
            newest = prepared.contents.newest or ""
            event = ledger.Event("restore", newest, ledger.now(), note=note, git_commit=git_commit)
            ledger.append_restore(db, event, head, prepared.environment.name)
    return continues


def _reporter(control: Control, purpose: str) -> Callable[[int, int], None]:
    return lambda done, total: control.report(Copying(purpose, done, total))


@contextmanager
def _explained(database: str, path: Path, control: Control) -> Iterator[None]:
    place = file_of(database)
    try:
        with session.explained(database, control):
            try:
                yield
            except OutOfSpace as error:
                free = shutil.disk_usage(place.parent).free
                raise NoSpace(folder=place.parent, needed=path.stat().st_size, free=free) from error
            except NoSpace as error:  # a draft's folder, which is gone again
                raise NoSpace(**{**error.fields, "folder": error.fields["folder"].parent}) from error
    except LedgerUnusable as error:
        raise BackupUnusable(backup=path, why=error.message, fix="Choose another one: flask db backups") from error
    except OSError as error:
        fix = f"ls -ld {shlex.quote(str(place.parent))}; df -h {shlex.quote(str(place.parent))}"
        why = f"{error.filename or place}: {error.strerror}"
        raise RestoreRefused(backup=path, why=why, fix=fix) from error
