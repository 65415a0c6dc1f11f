"""What `verify`, `history` and the schema differences look like: pure functions from values to text, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from financial_agent.cli_render import (
    amount,
    differences_text,
    environment_json,
    environment_lines,
    milliseconds,
    note_json,
    shown,
    table,
)
from financial_agent.migrator.history import Line
from financial_agent.migrator.schema import Difference
from financial_agent.migrator.verify import Report

_COMMIT = 10  # characters of a commit's name that a table shows


def difference_json(difference: Difference) -> dict[str, Any]:
    return asdict(difference)


def report_text(report: Report) -> str:
    """What was looked at, each finding with its differences, and how many there are."""
    applied = sum(item.entry is not None for item in report.items)
    pending = sum(item.state == "pending" for item in report.items)
    head = f", the newest with the SHA-256 {report.head}" if report.head else ""
    lines = [
        f"Database: {report.database}",
        *([f"Against:  {report.other}"] if report.other is not None else []),
        *environment_lines(report.environment, report.configured),
        f"{applied} applied, {pending} pending. The history has {amount(report.events, 'row')}{head}.",
    ]
    for finding in report.findings:
        subject = f"{finding.filename}: " if finding.filename else ""
        lines.append(f"{finding.kind}: {subject}{finding.message}")
        lines += [f"    {line}" for line in finding.diff]
        lines += differences_text(finding.differences, "    ").splitlines()
        lines += [f"    Next: {finding.hint}"] if finding.hint else []
    lines += [f"not checked: {note}" for note in report.notes]
    return shown([*lines, f"{amount(len(report.findings), 'finding')}." if report.findings else _well(report)])


def _well(report: Report) -> str:
    if report.other is None:
        return "All is well."
    return "All is well: schema, ledger and files are the same in both; rows are not compared."


def report_diagnostics(report: Report) -> list[dict[str, Any]]:
    return [
        *(
            {**note_json("error", f"{each.kind}: {each.message}", each.filename), "hint": each.hint or None}
            for each in report.findings
        ),
        *(note_json("warning", note) for note in report.notes),
    ]


def report_json(report: Report) -> dict[str, Any]:
    """What the envelope holds for `verify` alone."""
    return {
        "against": report.other,
        "environment": environment_json(report.environment, report.configured),
        "chain": {"rows": report.events, "head_sha256": report.head},
        "findings": [asdict(finding) for finding in report.findings],
    }


def history_text(lines: Sequence[Line], database: str) -> str:
    """A table of the events, without the columns that none of them fills."""
    if not lines:
        return shown([f"Nothing is recorded in {database}."])
    header = ("when (UTC)", "event", "migration", "took", "statements", "rows", "by", "tool", "commit", "notes")
    rows = [header, *(_history_row(line) for line in lines)]
    filled = [any(row[at] for row in rows[1:]) for at in range(len(header))]
    kept = [[cell for cell, keep in zip(row, filled, strict=True) if keep] for row in rows]
    return shown(table(kept))


def _history_row(line: Line) -> tuple[str, ...]:
    stamp = f"belongs to {line.environment}" if line.event == "environment" else None
    failure = f"exit {line.exit_code}: {line.error or ''}" if line.exit_code is not None else line.error
    return (
        (line.started_at or "")[:19].replace("T", " "),
        line.event or "",
        (line.filename or "").removesuffix(".sql"),
        "" if line.duration_ms is None else milliseconds(line.duration_ms),
        "" if line.statements is None else f"{line.statements:,}",
        "" if line.rows_changed is None else f"{line.rows_changed:,}",
        "@".join(part for part in (line.os_user, line.host) if part),
        line.tool_version or "",
        (line.git_commit or "")[:_COMMIT],
        " ".join("; ".join(part for part in (failure, stamp, line.note) if part).split()),
    )


def history_csv(lines: Sequence[Line]) -> str:
    """Every column of every event, for a spreadsheet (RFC 4180, but with line feeds)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Line))
    writer.writerows(astuple(line) for line in lines)
    return _encodable(text.getvalue())


def line_json(line: Line) -> dict[str, Any]:
    return asdict(line)


def _encodable(text: str) -> str:
    """What was not UTF-8 in the database stays legible."""
    return text.encode("utf-8", "backslashreplace").decode()
