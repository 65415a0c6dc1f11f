"""Puts a backup back: what it would bring and take away, and the exchange, of which nobody ever sees a half."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from financial_agent.migrator import attempt, backup, backup_files, ledger, session
from financial_agent.migrator.backup import Contents, Policy
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import (
    CommitLost,
    Database,
    OutOfSpace,
    ReplacedHalfway,
    SoleDatabase,
    StatementError,
    TableChange,
    compare,
    connect,
    connect_alone,
    display_name,
    exists,
    file_of,
    is_file,
    loaded,
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
    LedgerUnusable,
    NoSpace,
    RestoreRefused,
)
from financial_agent.migrator.errors_server import RestoreUncertain, RestoreUnfinished
from financial_agent.migrator.events import Copying, Warned

_ANOTHER = "Choose another one: flask db backups"


@dataclass(frozen=True)
class Prepared:
    """A backup that was found sound, and what putting it back would change."""

    backup: Path
    draft: str
    """What it holds as a database of its own, by path or URL, which nobody else knows of."""
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
    patience = control.patience()
    path = _find(database, policy, word)
    with ExitStack() as stack:
        with _explained(database, path, control):
            backup_files.verify(path, patience)
            draft = stack.enter_context(loaded(database, path, patience, _reporter(control, "reading the backup")))
            contents = backup.contents_of(draft, patience)
            if contents.flaw:
                raise BackupUnusable(backup=path, why=contents.flaw, fix=_ANOTHER)
            refuse_another(str(path), contents.environment, environment)
            current, now, changes = _look_at(database, draft, control)
            refuse_another(display_name(database), current.environment if current else None, environment)
            then = _counts(draft, control)
            if not then:
                raise BackupUnusable(backup=path, why="it holds no table", fix=_ANOTHER)
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
        backup_files.make_folder(policy.folder, database)
        live = _open_alone(database, control)
        if live is None:
            return _put_in_place(database, policy, prepared, git_commit)
        with closing(live):
            with suppress(StatementError, DatabaseDamaged):  # what is damaged may not be readable
                refuse_another(live.name, ledger.environment(live), prepared.environment)
            return _exchange(live, database, policy, prepared, control, git_commit)


# Before.


def _find(database: str, policy: Policy, word: str) -> Path:
    named = [each.path for each in backup_files.listed(database, policy.folder) if each.name == word]
    path = named[0] if named else Path(word)
    if not word or not os.path.isfile(path):
        raise BackupUnknown(backup=word)
    if is_file(database) and path.resolve() == file_of(database):
        raise RestoreRefused(backup=path, why="it is the database itself", fix="Choose a backup: flask db backups")
    return path


def _look_at(
    database: str, draft: str, control: Control
) -> tuple[Contents | None, dict[str, int], dict[str, TableChange]]:
    """What a database is at, how many rows its tables have, and how the draft's differ."""
    if not exists(database):
        return None, {}, {}
    patience = control.patience()
    try:
        with _readable(database, control) as found:
            with closing(connect(found, readonly=True, patience=patience)) as db:
                contents = Contents(backup.newest(db), environment=ledger.environment(db))
            changes = {change.table: change for change in compare(found, draft, None, patience)}
            return contents, _counts(found, control), changes
    except (DatabaseDamaged, LedgerUnusable) as error:
        return Contents(flaw=error.message), {}, {}
    except StatementError as error:
        return Contents(flaw=str(error)), {}, {}


@contextmanager
def _readable(database: str, control: Control) -> Iterator[str]:
    """What can be read at length: a copy of what is a file, as its readers keep writers waiting."""
    if not is_file(database):
        yield database
        return
    with workspace(database, control.patience()) as copies:
        yield copies.original(_reporter(control, "reading the database"))


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
    """Exchange the content; the file, or the server's database, and the connections to it stay."""
    patience = control.patience()
    kept = backup_files.unused_path(policy.folder, database, _version(live), "restore", backup_files.now())

    def keep() -> None:
        with private_folder(policy.folder) as drafts:
            draft = drafts / "backup.db"
            try:
                live.copy(draft, 0o777, _reporter(control, "keeping the database"))
            except NoSpace as error:  # the draft's own folder is gone when that is read
                raise NoSpace(**{**error.fields, "folder": policy.folder}) from error
            is_sound = not backup.look_into(database, draft, patience).flaw
            backup_files.publish(
                draft, database, policy.folder, "restore", None, patience, is_sound=is_sound, path=kept
            )

    continues = _finish(prepared, kept, live, git_commit)
    if not continues:
        control.report(
            Warned(prepared.backup.name, "its history is another one: what came since is told in the kept one")
        )
    try:
        live.replace_by(prepared.draft, keep, _reporter(control, "restoring"), attempt.of_restore(prepared.backup))
    except ReplacedHalfway as error:
        raise RestoreUnfinished(database=live.name, backup=prepared.backup, why=error) from error
    except CommitLost as error:
        raise RestoreUncertain(database=live.name, cause=error) from error
    except BaseException:
        backup_files.remove(kept)  # nothing was replaced
        raise
    return Restored(prepared.contents.newest, kept, continues)


def _version(live: Database) -> str | None:
    """None, too, for what is damaged, and may not be readable."""
    with suppress(StatementError, DatabaseDamaged, LedgerUnusable):
        return Contents(backup.newest(live)).version
    return None


def _put_in_place(database: str, policy: Policy, prepared: Prepared, git_commit: str | None) -> Restored:
    """Put the file itself in the place of one that is missing, or that no longer is a database."""
    place, draft = file_of(database), Path(prepared.draft)
    with backup_files.locked(policy.folder):
        kept = backup_files.unused_path(policy.folder, database, None, "restore", backup_files.now())
        was_there = exists(database)
        _finish(prepared, kept if was_there else None, None, git_commit)
        if was_there:  # who may not read the one may not read the other
            draft.chmod(place.stat().st_mode & 0o777)
            give_to(place.stat(), draft)
        backup_files.sync(draft)
        put_in_place(database, draft, kept)
        backup_files.sync(policy.folder)
        backup_files.sync(place.parent)
    return Restored(prepared.contents.newest, kept if was_there else None, continues_history=False)


def _finish(prepared: Prepared, kept: Path | None, live: Database | None, git_commit: str | None) -> bool:
    """Let the history tell what came after the backup, and the restore. Whether it could tell the former."""
    before = f"what was there is kept as {kept.name}" if kept else "nothing was there"
    note = f"from {prepared.backup.name}; {before}"
    continues = False
    with closing(connect(prepared.draft)) as db:
        ledger.prepare(db)
        with db.transaction():
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
    folder = file_of(database).parent if is_file(database) else path.parent
    try:
        with session.explained(database, control):
            try:
                yield
            except OutOfSpace as error:
                free = shutil.disk_usage(folder).free
                raise NoSpace(folder=folder, needed=path.stat().st_size, free=free) from error
    except LedgerUnusable as error:
        raise BackupUnusable(backup=path, why=error.message, fix=_ANOTHER) from error
    except OSError as error:
        fix = f"ls -ld {shlex.quote(str(folder))}; df -h {shlex.quote(str(folder))}"
        raise RestoreRefused(backup=path, why=f"{error.filename or folder}: {error.strerror}", fix=fix) from error
