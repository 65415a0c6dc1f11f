"""What people and programs read of backups. Pure functions, as in `cli_render`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from financial_agent.cli_render import amount, milliseconds, shown
from financial_agent.migrator import backup_files
from financial_agent.migrator.backup_files import Backup
from financial_agent.migrator.databases import TableChange
from financial_agent.migrator.restore import Prepared, Restored


def made_text(made: Backup, seconds: float) -> str:
    version = f"version {made.version}" if made.version else "no migration applied"
    took = milliseconds(round(seconds * 1000))
    return shown([f"Backed up as {made.path}: {version}, {size_text(made.size)}, checked, in {took}."])


def list_text(backups: Sequence[Backup], folder: Path, now: datetime) -> str:
    """A table, the newest first."""
    if not backups:
        return shown([f"No backups in {folder}. Make one with: flask db backup"])
    header = ("backup", "version", "size", "age", "checked")
    rows = [
        (
            each.name,
            each.version or "none",
            size_text(each.size),
            _age(now - each.made_at),
            "yes" if each.checked else "no",
        )
        for each in backups
    ]
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return shown([f"Folder: {folder}", *table])


def preview_text(prepared: Prepared, database: str) -> str:
    """What a restore would bring and take away, table by table."""
    lines = [f"This puts back {prepared.backup}{_made_at(prepared)}: {_at(prepared.contents.newest)}."]
    if prepared.current is None:
        lines.append(f"{database} is not there.")
    elif prepared.current.flaw:
        lines.append(f"{database} cannot be read: {prepared.current.flaw}.")
    else:
        lines.append(f"{database} is {_at(prepared.current.newest)}; it will be kept as a backup.")
    lines += [
        f"  {table}: {_rows(now, then, prepared.changes.get(table))}" for table, (now, then) in prepared.rows.items()
    ]
    return shown(lines)


def restored_text(prepared: Prepared, restored: Restored, database: str) -> str:
    lines = [f"Restored {prepared.backup.name}: {database} is {_at(restored.newest)}."]
    if restored.kept:
        lines.append(f"What it replaced is kept as {restored.kept}.")
    return shown(lines)


def backup_json(each: Backup) -> dict[str, Any]:
    return {
        "name": each.name,
        "path": str(each.path),
        "version": str(int(each.version)) if each.version else None,
        "made_at": each.made_at.isoformat(timespec="milliseconds"),
        "kind": each.kind,
        "size": each.size,
        "checked": each.checked,
    }


def preview_json(prepared: Prepared) -> dict[str, Any]:
    return {
        "backup": str(prepared.backup),
        "newest": prepared.contents.newest,
        "tables": {
            table: _table_json(before, after, prepared.changes.get(table, TableChange(table)))
            for table, (before, after) in prepared.rows.items()
        },
    }


def _table_json(before: int | None, after: int | None, change: TableChange) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "inserted": change.inserted,
        "updated": change.updated,
        "deleted": change.deleted,
    }


def restored_json(prepared: Prepared, restored: Restored) -> dict[str, Any]:
    return {
        **preview_json(prepared),
        "kept": str(restored.kept) if restored.kept else None,
        "continues_history": restored.continues_history,
    }


def _at(newest: str | None) -> str:
    return f"at {newest.removesuffix('.sql')}" if newest else "without any migration applied"


def _made_at(prepared: Prepared) -> str:
    made_at = backup_files.made_at(prepared.backup)
    return f", made {made_at:%Y-%m-%d %H:%M:%S} UTC" if made_at else ""


def _rows(now: int | None, then: int | None, change: TableChange | None) -> str:
    """How many rows there are now and will be, and which come and go."""
    if now is None:
        return f"{amount(then or 0, 'row')} in the backup"
    if then is None:
        return f"{amount(now, 'row')} now, and the table will be gone"
    if change is None and now == then:
        return f"{amount(now, 'row')}, as many as now"
    counts = f"{now:,} now, {then:,} in the backup"
    if change is None:  # what a virtual table keeps is not compared
        return counts
    parts = [
        (change.inserted, "will come back"),
        (change.deleted, "will be gone"),
        (change.updated, "will be as before"),
    ]
    told = ", ".join(f"{amount(count, 'row')} {verb}" for count, verb in parts if count)
    return f"{counts}: {told or 'values of columns will be others'}"


def size_text(count: int) -> str:
    """In the units of a disk's maker."""
    if count < 1_000_000:
        return f"{count / 1000:.0f} KB"
    return f"{count / 1e6:,.1f} MB"


def _age(age: timedelta) -> str:
    seconds = max(age.total_seconds(), 0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}s"
    return f"{seconds:.0f} s"
