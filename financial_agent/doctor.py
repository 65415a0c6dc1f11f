"""Looks for what keeps the commands from working: the environment, the folder, the database."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from financial_agent.cli_render import note_json
from financial_agent.cli_render_backup import size_text
from financial_agent.config import Settings
from financial_agent.migrator import adoption, backup_files, discovery, ledger, progress, session
from financial_agent.migrator.databases import (
    StatementError,
    connect,
    dialect_of,
    display_name,
    exists,
    is_file,
    need_programs,
)
from financial_agent.migrator.environment import refuse_another
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.script import read
from financial_agent.migrator.survey import survey

_LOW_SPACE = 100 << 20  # bytes


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what to do about it."""

    verdict: Literal["ok", "warn", "fail"]
    subject: str
    finding: str
    fix: str = ""


def examine(settings: Settings) -> list[Check]:
    """Look at everything; one thing that is wrong does not hide the next."""
    return [*_versions(), *_flask_commands(), *_folder(settings), *_database(settings)]


def check_text(check: Check) -> str:
    line = f"{check.verdict:<4}  {check.subject}: {check.finding}"
    return "\n      ".join([line, *check.fix.splitlines()])


def check_json(check: Check) -> dict[str, Any]:
    severity = {"ok": "info", "warn": "warning", "fail": "error"}[check.verdict]
    return {**note_json(severity, f"{check.subject}: {check.finding}"), "hint": check.fix or None}


def _versions() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check(
        "ok", "versions", f"Python {python}, SQLite {sqlite3.sqlite_version}, Flask {metadata.version('flask')}"
    )


def _flask_commands() -> Iterator[Check]:
    try:
        stray = metadata.version("Flask-CLI")
    except metadata.PackageNotFoundError:
        yield Check("ok", "flask command", "it is Flask's own")
    else:
        yield Check(
            "fail",
            "flask command",
            f"Flask-CLI {stray}, a backport for Flask 0.x, has replaced it",
            "pip uninstall Flask-CLI && pip install --force-reinstall --no-deps flask "
            "(until then: python -m flask db …, or financial-agent db …)",
        )
    others = [
        point.value
        for point in metadata.entry_points(group="flask.commands", name="db")
        if not point.value.startswith("financial_agent.")
    ]
    if others:
        yield Check(
            "warn",
            "flask db",
            f"{', '.join(others)} registers a command of that name, too",
            "Uninstall what you no longer use (pip uninstall Flask-Migrate), or say: financial-agent db …",
        )


def _folder(settings: Settings) -> Iterator[Check]:
    try:
        files = discovery.discover(settings.directory, dialect_of(settings.database))
        for file in files:
            read(file)
        survey(files, _applied(settings), settings.environment.name)
    except MigratorError as error:
        yield _failed("migrations", error)
    else:
        verdict: Literal["ok", "warn"] = "ok" if files else "warn"
        yield Check(verdict, "migrations", f"{len(files)} in {settings.directory}")


def _applied(settings: Settings) -> list[str]:
    """What meets a requirement; a database that cannot be read is told of by itself."""
    try:
        return [entry.filename for entry in session.recorded(settings.database, session.ASKING).entries]
    except MigratorError:
        return []


def _database(settings: Settings) -> Iterator[Check]:
    name = display_name(settings.database)
    try:
        if not exists(settings.database):
            yield Check("warn", "database", f"{name} is not there yet", "Make it with: flask db migrate")
            return
        with closing(connect(settings.database, readonly=True)) as db:
            applied = ledger.entries(db)
            lost = adoption.is_lost(db)
            about = db.about()
            problems, mend = db.problems(quick=True)[:5], db.mend_hint
            orphans = db.orphans().total()
            stamp = ledger.environment(db)
            begun = progress.read(db)
    except MigratorError as error:
        yield _failed("database", error)
        return
    except StatementError as error:
        yield Check("fail", "database", str(error), "Look at it with: flask db verify")
        return
    yield Check("ok", "database", f"{name}, {len(applied)} applied, {about}")
    yield from _environment(stamp, settings)
    if lost:
        fix = "Record what the schema shows to have run, or learn what differs: flask db migrate"
        yield Check("warn", "ledger", "it is lost: there are tables, and nothing is recorded as applied", fix)
    for each in begun:
        what = f"{each.filename} was begun and is not done: {each}"
        fix = f"Go on with it: flask db {'migrate' if each.direction == 'up' else 'rollback'}"
        yield Check("warn", "started", what, fix)
    if is_file(settings.database):
        yield from _permissions(Path(settings.database))
    yield _backups(settings)
    if problems:
        yield Check("fail", "integrity", "; ".join(problems), mend)
    else:
        yield Check("ok", "integrity", "the quick check finds nothing")
    if orphans:
        fix = "See of which tables with: flask db verify"
        yield Check("warn", "foreign keys", f"{orphans} rows without their parent", fix)


def _environment(stamp: str | None, settings: Settings) -> Iterator[Check]:
    try:
        refuse_another(display_name(settings.database), stamp, settings.environment)
    except MigratorError as error:
        yield _failed("environment", error)
    else:
        if name := stamp or settings.environment.name:
            yield Check("ok", "environment", name if stamp else f"{name}, which the database does not know yet")


def _backups(settings: Settings) -> Check:
    folder = settings.backups.folder
    try:
        found = backup_files.listed(settings.database, folder)
        need_programs(settings.database)
    except MigratorError as error:
        return _failed("backups", error)
    return Check("ok", "backups", f"{len(found)} in {folder}, {size_text(sum(each.size for each in found))}")


def _permissions(path: Path) -> Iterator[Check]:
    for place in (path, path.parent):
        if not os.access(place, os.W_OK):
            yield Check("fail", "permissions", f"{place} cannot be written", f"ls -ld {shlex.quote(str(place))}")
    free = shutil.disk_usage(path.parent).free
    if free < max(_LOW_SPACE, path.stat().st_size):
        yield Check(
            "warn",
            "disk",
            f"{free >> 20} MB free, less than a rebuild may need",
            f"df -h {shlex.quote(str(path.parent))}",
        )


def _failed(subject: str, error: MigratorError) -> Check:
    where = f" ({error.location})" if error.location else ""
    return Check("fail", subject, f"{error.code} {error.message}{where}", error.hint)
