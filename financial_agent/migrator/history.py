"""What ever happened to a database: the rows of `_migration_history`, as they can be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

from financial_agent.migrator import ledger, plan
from financial_agent.migrator.databases import connect, exists
from financial_agent.migrator.errors_run import BatchFailed, MigrationFailedHalfway
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.session import ASKING, explained


@dataclass(frozen=True)
class Line:
    """One event. Times are UTC; what an older version did not record is None."""

    id: int | None
    started_at: str | None
    event: str | None
    filename: str | None
    duration_ms: int | None
    statements: int | None
    rows_changed: int | None
    os_user: str | None
    host: str | None
    tool_version: str | None
    git_commit: str | None
    environment: str | None
    error: str | None
    exit_code: int | None
    note: str | None
    checksum: str | None
    entry_sha256: str | None
    previous_sha256: str | None


_NUMBERS = {field.name for field in fields(Line) if field.type == "int | None"}


def read(database: str, target: str | None = None) -> list[Line]:
    """The events, the oldest first: all, or those of the migration that the target names. Writes nothing.

    Raises TargetUnknown, TargetAmbiguous, LedgerUnusable, and what opening the database raises.
    """
    if not exists(database):
        return _of([], target)
    with explained(database, ASKING), closing(connect(database, readonly=True, patience=ASKING.patience())) as db:
        return _of([_line(row) for row in ledger.history(db)], target)


def slowest(lines: Sequence[Line]) -> list[Line]:
    """The same, the longest first; what took no time that is known stands last."""
    return sorted(lines, key=lambda line: -1 if line.duration_ms is None else line.duration_ms, reverse=True)


def _of(lines: list[Line], target: str | None) -> list[Line]:
    if target is None:
        return lines
    filename = plan.resolve(target, list(dict.fromkeys(line.filename for line in lines if line.filename)))
    return [line for line in lines if line.filename == filename]


def _line(row: dict[str, object]) -> Line:
    """SQLite keeps whatever is put into a column, whatever its type: what is no number of text is none."""
    values: dict[str, Any] = {
        field.name: value if isinstance(value := row.get(field.name), int if field.name in _NUMBERS else str) else None
        for field in fields(Line)
    }
    return Line(**values)


# Whether the past was changed.

_IN_PART = (MigrationFailedHalfway.code, BatchFailed.code)
_APPLIED = ("apply", "baseline", "repair", "recover", "takeover")


def broken_links(rows: Sequence[Mapping[str, object]], last_id: int) -> list[str]:
    """What the chain tells of rows that were changed or removed; `last_id` is the highest id ever given out.

    The newest row has no successor that would keep its hash, and a chain that was rewritten as a whole is sound: only
    a note of the newest row's hash that is kept elsewhere shows either.
    """
    found = []
    before: Mapping[str, object] = {"id": 0}
    for row in rows:
        is_next = row["id"] == _number(before["id"]) + 1
        if not is_next:
            found.append(f"rows of the history are gone between {_name(before)} and {_name(row)}")
        elif row["previous_sha256"] != hash_of(before):
            found.append(f"{_name(before)} was changed: its hash is not the one that the next row keeps")
        before = row
    if last_id > _number(before["id"]):
        found.append(f"rows of the history are gone behind {_name(before)}: the last one had the number {last_id}")
    return found


def contradictions(entries: Sequence[tuple[Entry, str | None]], rows: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """By filename, where the ledger's entries (each with the hash of its row) are not what the newest event says.

    Entries of the first runner have neither checksum nor event until a run takes them over; they come first.
    """
    newest = _newest(rows)
    found = {}
    is_taken_over = False
    for entry, entry_sha256 in entries:
        row = newest.pop(entry.filename, None)
        if row is None:
            if is_taken_over or entry.checksum is not None:
                found[entry.filename] = "the ledger has it as applied, and the history knows nothing of it"
            continue
        is_taken_over = True
        if row["event"] == "rollback":
            found[entry.filename] = f"the ledger has it as applied, and the history as rolled back: {_name(row)}"
        elif row.get("entry_sha256") not in (None, entry_sha256) or row.get("checksum") != entry.checksum:
            found[entry.filename] = f"its row in the ledger was changed after the history's {_name(row)} was written"
    for filename, row in newest.items():
        if row["event"] != "rollback":
            found[str(filename)] = f"the ledger has no row of it, and the history has it as applied: {_name(row)}"
    return found


def applied(rows: Sequence[Mapping[str, object]]) -> set[str]:
    """The migrations that the history's events leave applied."""
    return {str(filename) for filename, row in _newest(rows).items() if row["event"] != "rollback"}


def ran(rows: Sequence[Mapping[str, object]]) -> set[str]:
    """The migrations that are applied because they ran, and were not only recorded."""
    return {str(filename) for filename, row in _newest(rows).items() if row["event"] == "apply"}


def explains_emptiness(rows: Sequence[Mapping[str, object]]) -> bool:
    """Whether the events tell why tables are there while no migration is recorded: those that ran were rolled back, one
    took effect in part, or a baseline says that none has run."""
    told = _leading_here(rows)
    return not applied(rows) and any(
        row["event"] == "rollback"
        or (row["event"] == "baseline" and row["filename"] == "")
        or (row["event"] == "failure" and str(row.get("error")).startswith(_IN_PART))
        for row in told
    )


def unfinished(rows: Sequence[Mapping[str, object]]) -> str | None:
    """The migration that a killed process was running last, if nothing has come behind that."""
    last = rows[-1] if rows else {}
    was_killed = last.get("event") == "failure" and last.get("exit_code") is None
    return str(last["filename"]) if was_killed else None


def _newest(rows: Sequence[Mapping[str, object]]) -> dict[object, Mapping[str, object]]:
    """By filename, the event that wrote the ledger's entry, or removed it. A baseline of no migration begins anew."""
    newest: dict[object, Mapping[str, object]] = {}
    for row in _leading_here(rows):
        if row["event"] == "baseline" and row["filename"] == "":
            newest = {}
        elif row["event"] in (*_APPLIED, "rollback"):
            newest[row["filename"]] = row
    return newest


def _leading_here(rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The events that made the database what it is: a restore takes back those after the row that it names by its
    hash, and all when the backup had no history."""
    returned_to = {row.get("entry_sha256") for row in rows if row["event"] == "restore"}
    path: list[Mapping[str, object]] = []
    then: dict[object, list[Mapping[str, object]]] = {"": []}
    for row in rows:
        if row["event"] == "restore":
            path = list(then.get(row.get("entry_sha256"), path))
        else:
            path.append(row)
        if returned_to and (sha256 := hash_of(row)) in returned_to:
            then[sha256] = list(path)
    return path


def hash_of(row: Mapping[str, object]) -> str:
    """What the next row keeps of a row; empty for the beginning, before the first."""
    return ledger.row_hash(list(row), tuple(row.values())) if "event" in row else ""


def _name(row: Mapping[str, object]) -> str:
    if "event" not in row:
        return "the beginning"
    return f"row {row['id']} ({row['event']} {row['filename']})"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
