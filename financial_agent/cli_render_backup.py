"""What people and programs read of backups. Pure functions, as in `cli_render`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from financial_agent.cli_render import amount, shown
from financial_agent.migrator import backup
from financial_agent.migrator.backup import Backup
from financial_agent.migrator.restore import Prepared, Restored


def made_text(made: Backup) -> str:
    version = f"version {made.version}" if made.version else "no migration applied"
    return shown([f"Backed up as {made.path}: {version}, {_size(made.size)}, checked."])


def list_text(backups: Sequence[Backup], folder: Path, now: datetime) -> str:
    """A table, the newest first."""
    if not backups:
        return shown([f"No backups in {folder}. Make one with: flask db backup"])
    header = ("backup", "version", "size", "age", "checked")
    rows = [
        (each.name, each.version or "none", _size(each.size), _age(now - each.made_at), "yes" if each.checked else "no")
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
    lines += [f"  {table}: {_rows(now, then)}" for table, (now, then) in prepared.rows.items()]
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


def restored_json(prepared: Prepared, restored: Restored) -> dict[str, Any]:
    return {
        "backup": str(prepared.backup),
        "newest": restored.newest,
        "kept": str(restored.kept) if restored.kept else None,
        "continues_history": restored.continues_history,
        "tables": {table: {"before": before, "after": after} for table, (before, after) in prepared.rows.items()},
    }


def _at(newest: str | None) -> str:
    return f"at {newest.removesuffix('.sql')}" if newest else "without any migration applied"


def _made_at(prepared: Prepared) -> str:
    made_at = backup.made_at(prepared.backup)
    return f", made {made_at:%Y-%m-%d %H:%M:%S} UTC" if made_at else ""


def _rows(now: int | None, then: int | None) -> str:
    """How many rows there are now and will be, and which way that goes."""
    if now is None:
        return f"{amount(then or 0, 'row')} in the backup"
    if then is None:
        return f"{amount(now, 'row')} now, and the table will be gone"
    if now == then:
        return f"{amount(now, 'row')}, as many as now"
    change = (
        f"{amount(now - then, 'row')} will be gone" if now > then else f"{amount(then - now, 'row')} will come back"
    )
    return f"{now:,} now, {then:,} in the backup: {change}"


def _size(count: int) -> str:
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
