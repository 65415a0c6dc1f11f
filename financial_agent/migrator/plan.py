"""Migrations + ledger entries -> what is pending, what each one's state is, and the steps of a run.

Everything here is a pure function: no database, no files, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from financial_agent.migrator.errors import (
    EntryMissing,
    FileAppliedAlready,
    FileRenamed,
    OutOfOrder,
    TargetAmbiguous,
    TargetUnknown,
)
from financial_agent.migrator.ledger import Entry, Progress
from financial_agent.migrator.script import Migration, MigrationFile, Script

_number = re.compile(r"[0-9]+")

State = Literal["applied", "pending", "started", "skipped", "edited", "missing"]


@dataclass(frozen=True)
class Item:
    """One migration as `status` shows it: what the folder has, what the ledger has, or both."""

    version: int
    filename: str
    state: State
    file: MigrationFile | None
    entry: Entry | None
    out_of_order: bool = False
    """It is pending below a version that is applied, and requires nothing that is as new as that."""
    environments: frozenset[str] = frozenset()
    """Those that it is skipped for not being one of; none unless it is skipped."""
    reversible: bool | None = None
    """Whether it has a down section; None when that is not known."""
    so_far: Progress | None = None
    """What the finished batches did of a migration, or of a rollback, that was started and is not done."""


@dataclass(frozen=True)
class Step:
    """One script to run, and what to record: the migration as applied, or, when that is None, as rolled back."""

    filename: str
    script: Script
    migration: Migration | None = None
    has_file: bool = True
    """The folder still has the migration's file."""


def version_of(filename: str) -> int:
    """The number that a ledger's filename begins with; names of other tools, which have none, sort first."""
    digits = _number.match(filename)
    return int(digits[0]) if digits else -1


def pending(files: Sequence[MigrationFile], entries: Sequence[Entry]) -> list[MigrationFile]:
    """Files that no ledger entry records, in order: a set difference, so a late merge is never skipped.

    Raises FileRenamed when one of them bears the number of an applied migration whose own file is gone: it would
    run a second time.
    """
    recorded = {entry.filename for entry in entries}
    missing = {version_of(name): name for name in recorded - {file.filename for file in files}}
    found = [file for file in files if file.filename not in recorded]
    for file in found:
        if file.version in missing:
            raise FileRenamed(version=file.version, applied=missing[file.version], found=Path(file.filename))
    return found


def refuse_renumbered(
    migrations: Sequence[Migration], files: Sequence[MigrationFile], entries: Sequence[Entry]
) -> None:
    """Raise FileAppliedAlready for a migration that was applied under another name, whose file is gone: it would run
    twice."""
    present = {file.filename for file in files}
    gone = {entry.checksum: entry.filename for entry in entries if entry.checksum and entry.filename not in present}
    for migration in migrations:
        if applied := gone.get(migration.checksum):
            raise FileAppliedAlready(applied=applied, found=migration.file.filename)


def refuse_forgotten(todo: Sequence[Migration], told: Collection[str]) -> None:
    """Raise EntryMissing for migrations that the history has as applied (`told`), whatever the ledger says."""
    if forgotten := [migration.file.filename for migration in todo if migration.file.filename in told]:
        raise EntryMissing(names=", ".join(forgotten), first=Path(forgotten[0]))


def refuse_out_of_order(todo: Sequence[Migration], entries: Sequence[Entry], heights: Mapping[str, int]) -> None:
    """Raise OutOfOrder for migrations that would run behind an applied one with a higher number: it was written, and
    tested, without them. A file may allow itself that, and one that requires a newer one (`heights`) is as new as that.
    """
    newest = max((entry.filename for entry in entries), key=version_of, default="")
    late = [
        migration.file.filename
        for migration in todo
        if heights[migration.file.filename] < version_of(newest) and not migration.up.out_of_order
    ]
    if late:
        raise OutOfOrder(names=", ".join(late), newest=newest, first=Path(late[0]))


def overview(
    files: Sequence[MigrationFile],
    entries: Sequence[Entry],
    checksums: Mapping[str, str],
    heights: Mapping[str, int],
    skipped: Mapping[str, frozenset[str]],
) -> list[Item]:
    """Every migration of the folder and of the ledger with its state, by version. What is pending has its height, what
    is skipped its environments."""
    by_name = {entry.filename: entry for entry in entries}
    newest = max((version_of(entry.filename) for entry in entries), default=-1)
    items = []
    for file in files:
        entry = by_name.pop(file.filename, None)
        if file.filename in skipped:
            environments = skipped[file.filename]
            items.append(Item(file.version, file.filename, "skipped", file, None, environments=environments))
        elif entry is None:
            is_late = heights[file.filename] < newest
            items.append(Item(file.version, file.filename, "pending", file, None, is_late))
        else:
            edited = entry.checksum is not None and checksums[file.filename] != entry.checksum
            items.append(Item(file.version, file.filename, "edited" if edited else "applied", file, entry))
    items += [Item(version_of(name), name, "missing", None, entry) for name, entry in by_name.items()]
    return sorted(items, key=lambda item: (item.version, item.filename))


def up_to(files: Sequence[MigrationFile], pending: Sequence[MigrationFile], target: str | None) -> list[MigrationFile]:
    """The pending migrations that lead up to the target, or all of them. Raises TargetUnknown and TargetAmbiguous."""
    if target is None:
        return list(pending)
    last = version_of(resolve(target, [file.filename for file in files]))
    return [file for file in pending if file.version <= last]


def to_roll_back(
    entries: Sequence[Entry], *, steps: int = 1, to: str | None = None, files: Sequence[MigrationFile] = ()
) -> list[Entry]:
    """The entries to undo, the last applied first: it may build on any of those before it.

    `to` names the newest version that shall stay; `0` stands for before the first. Raises TargetUnknown and
    TargetAmbiguous.
    """
    latest_first = list(reversed(entries))
    if to is None:
        return latest_first[:steps]
    names = list(dict.fromkeys([entry.filename for entry in entries] + [file.filename for file in files]))
    if is_before_first(to, names):
        return latest_first
    last = version_of(resolve(to, names))
    return [entry for entry in latest_first if version_of(entry.filename) > last]


def is_before_first(target: str, names: Sequence[str]) -> bool:
    """`0` stands for before the first migration, unless one has that number."""
    return set(target) == {"0"} and 0 not in map(version_of, names)


def resolve(target: str, names: Sequence[str]) -> str:
    """The name that a target means: `4`, `004`, a full name, or a unique part of one."""
    if _number.fullmatch(target):
        # As text: Python does not convert numbers of thousands of digits.
        matches = [name for name in names if str(version_of(name)) == (target.lstrip("0") or "0")]
    else:
        matches = [name for name in names if target in (name, name.rpartition(".")[0])]
        matches = matches or [name for name in names if target.lower() in name.lower()]
    if not matches or not target:
        known = sorted(names, key=version_of)
        fix = f"The versions are {known[0]} to {known[-1]}: flask db status" if known else "flask db status"
        raise TargetUnknown(target=target, fix=fix)
    if len(matches) > 1:
        raise TargetAmbiguous(target=target, matches=", ".join(matches))
    return matches[0]
