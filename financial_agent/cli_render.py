"""What people and programs read: lines, tables, errors with the guilty line, and the JSON envelope.

Pure functions from values to text, without Click, because the plain runner shows the same.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from financial_agent.migrator.databases import display_name
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.events import BackedUp, Batched, Done, Recovered
from financial_agent.migrator.ledger import Progress
from financial_agent.migrator.plan import Item
from financial_agent.migrator.runner import Outcome, Status
from financial_agent.migrator.schema import Difference

SCHEMA = "financial-agent.db/1"
_WIDTH = 100  # characters of a line of SQL that an error shows
_LONGEST = 20  # lines of differences that an error shows
_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def error_text(error: MigratorError) -> str:
    """What failed, where, what state the database is in, and what to type next."""
    lines = [f"Error {error.code}: {error.message}"]
    if error.location:
        lines.append(f"  at {error.location}")
        lines += excerpt(error.location.excerpt, error.location.column)
    lines += _beginning(differences_text(error.fields.get("differences", ()), "    ").splitlines())
    lines += [f"    {line}" for line in error.fields.get("trace", ())]
    if error.state:
        lines.append(f"State: {error.state}.")
    lines += [f"Next:  {line}" if at == 0 else f"       {line}" for at, line in enumerate(error.hint.splitlines())]
    return shown(lines)


def differences_text(differences: Sequence[Difference], indent: str = "") -> str:
    """A readable diff: an object a line, and below a changed one what became of it."""
    lines = []
    for each in differences:
        owner = f" on {each.table}" if each.type in ("index", "trigger") else ""
        lines.append(f"{_SIGNS[each.change]} {each.type} {each.name}{owner}")
        lines += [f"    {line}" for line in (*each.columns, *each.diff)]
    return shown([indent + line for line in lines])


def hint_for(hint: str, options: Mapping[str, str | None]) -> str:
    """A hint whose commands have the options that were given, as they concern the same database and folder, but no
    password; `explain`, which concerns none, has no such option."""
    safe = {name: value and display_name(value) if name == "--database" else value for name, value in options.items()}
    given = "".join(f" {name} {shlex.quote(value)}" for name, value in safe.items() if value is not None)
    return re.sub(r"\bflask db (?!explain\b)\w+", lambda command: command[0] + given, hint)


def shown(lines: Sequence[str]) -> str:
    """Lines as one text that a terminal can be given."""
    return "\n".join(map(_printable, lines))


def _beginning(lines: list[str]) -> list[str]:
    more = len(lines) - _LONGEST
    return [*lines[:_LONGEST], f"    … and {amount(more, 'line')} more"] if more > 1 else lines


def _printable(line: str) -> str:
    """A file's name may hold what a terminal would obey."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def excerpt(line: str, column: int | None) -> list[str]:
    """A line of the file, cut to what fits around the column, with a caret below."""
    if not line.strip() or column is None:
        return []
    line = "".join(" " if character in "\t\r\f\v" else character for character in line)
    start = max(column - 1 - _WIDTH // 2, 0) if len(line) > _WIDTH else 0
    shown = line[start : start + _WIDTH].rstrip()
    return [f"    {shown}", "    " + " " * sum(map(_cells, line[start : column - 1])) + "^"]


def _cells(character: str) -> int:
    """How wide a terminal draws a character."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def status_text(status: Status) -> str:
    """A table of all migrations, and a summary."""
    rows = [_status_row(item) for item in status.items]
    header = ("migration", "state", "applied at (UTC)", "took")
    lines = [f"Database: {status.database}{'' if status.exists else ' (not there yet)'}"]
    lines += environment_lines(status.environment, status.configured)
    if rows:
        lines += table([header, *rows])
    counts = [
        f"{sum(item.state == state for item in status.items)} {state}"
        for state in ("applied", "edited", "missing", "started", "pending", "skipped")
        if state in ("applied", "pending") or any(item.state == state for item in status.items)
    ]
    return shown([*lines, ", ".join(counts) + "."])


def environment_lines(database: str | None, configured: str | None) -> list[str]:
    """The environment that a database belongs to, if it belongs to one."""
    if database in (None, configured):
        return [f"Environment: {database}"] if database else []
    says = f"the configuration says {configured}" if configured else "none is configured"
    return [f"Environment: {database} ({says})"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _status_row(item: Item) -> tuple[str, str, str, str]:
    notes: list[str] = [item.state]
    if item.so_far:
        undoing = "rollback started: " if item.so_far.direction == "down" else ""
        notes = [*([] if item.state == "started" else notes), f"{undoing or 'started: '}{item.so_far}"]
    if item.out_of_order:
        notes.append("out of order")
    if item.state == "skipped":
        notes.append(f"for {' and '.join(sorted(item.environments))}")
    elif item.reversible is False:
        notes.append("irreversible")
    entry = item.entry
    return (
        item.filename.removesuffix(".sql"),
        ", ".join(notes),
        entry.applied_at if entry else "",
        milliseconds(entry.duration_ms) if entry and entry.duration_ms is not None else "",
    )


def done_text(done: Done) -> str:
    verb = "Applied" if done.direction == "up" else "Rolled back"
    rows = f", {amount(done.rows_changed, 'row')}" if done.rows_changed else ""
    batches = f" in {amount(done.batches, 'batch')}" if done.batches else ""
    took = milliseconds(done.duration_ms)
    return f"{verb} {done.filename}: {amount(done.statements, 'statement')}{rows}{batches}, {took}"


def batched_text(event: Batched) -> str:
    of = "" if event.table_rows is None else f" of at most {event.table_rows:,}"
    return _printable(f"{event.filename}: {event.rows:,}{of} rows of {event.table}")


def backed_up_text(backup: BackedUp) -> str:
    return _printable(f"Backed up as {backup.path} ({backup.size / 1e6:.1f} MB)")


def recovered_text(event: Recovered) -> str:
    return f"Recovered {event.filename}: its schema is there; it was recorded, not run"


def outcome_text(outcome: Outcome) -> str:
    begin = "" if outcome.done else "Nothing to do: "
    where = f"is at {outcome.current.removesuffix('.sql')}" if outcome.current else "has no migration applied"
    return f"{begin}{outcome.database} {where}, {outcome.pending} pending."


def milliseconds(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def amount(count: int, noun: str) -> str:
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def envelope(
    command: str,
    *,
    exit_code: int,
    database: str,
    migrations: Sequence[dict[str, Any]],
    diagnostics: Sequence[dict[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """The one object that `--json` prints, whatever happened. `more` is what a command alone has to tell."""
    return {
        "schema": SCHEMA,
        "command": command,
        "ok": exit_code == 0,
        "exit_code": exit_code,
        "database": database,
        "migrations": list(migrations),
        **more,
        "diagnostics": list(diagnostics),
    }


def environment_json(database: str | None, configured: str | None) -> dict[str, Any]:
    """Which environment a database belongs to, and which one the configuration names."""
    return {"database": database, "configured": configured}


def item_json(item: Item) -> dict[str, Any]:
    return {
        "version": str(item.version),  # it may exceed what a JSON reader takes for a number
        "filename": item.filename,
        "state": item.state,
        "out_of_order": item.out_of_order,
        "environments": sorted(item.environments),
        "reversible": item.reversible,
        "applied_at": item.entry.applied_at if item.entry else None,
        "duration_ms": item.entry.duration_ms if item.entry else None,
        "checksum": item.entry.checksum if item.entry else None,
        "progress": _progress_json(item.so_far) if item.so_far else None,
    }


def _progress_json(so_far: Progress) -> dict[str, Any]:
    return {
        "direction": so_far.direction,
        "started_at": so_far.started_at,
        "statements": so_far.statements,
        "batches": so_far.batches,
        "rows_changed": so_far.rows_changed,
    }


def done_json(done: Done) -> dict[str, Any]:
    return {
        "filename": done.filename,
        "state": "applied" if done.direction == "up" else "rolled back",
        "duration_ms": done.duration_ms,
        "statements": done.statements,
        "rows_changed": done.rows_changed,
        "blocked_ms": done.blocked_ms,
        "batches": done.batches,
    }


def error_json(error: MigratorError) -> dict[str, Any]:
    location = error.location
    return {
        "severity": "error",
        "code": error.code,
        "message": error.message,
        "file": location.path if location else None,
        "line": location.line if location else None,
        "column": location.column if location else None,
        "state": error.state or None,
        "hint": error.hint or None,
    }


def error_diagnostics(error: MigratorError) -> list[dict[str, Any]]:
    """The error, and behind it the objects that it says differ, or the traceback of a Python migration."""
    more = (differences_text(error.fields.get("differences", ())), shown(error.fields.get("trace", ())))
    return [error_json(error), *(note_json("info", text) for text in more if text)]


def note_json(severity: str, message: str, filename: str | None = None) -> dict[str, Any]:
    return {
        "severity": severity,
        "code": None,
        "message": message,
        "file": filename,
        "line": None,
        "column": None,
        "state": None,
        "hint": None,
    }
