"""What `check` looks like: pure functions from its report to text, JSON, GitHub's annotations and SARIF."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from financial_agent import __version__
from financial_agent.cli_render import amount, excerpt, note_json, shown
from financial_agent.migrator import lockfile
from financial_agent.migrator.check import Report
from financial_agent.migrator.explain import Explanation, explanations
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.lint.silence import Silenced

# https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
_GITHUB = {"error": "error", "warning": "warning", "note": "notice"}


def report_text(report: Report) -> str:
    """Each finding with its place and what to do next, and how many there are."""
    return shown([*(line for each in report.findings for line in finding_lines(each)), _summary(report)])


def _summary(report: Report) -> str:
    failing = sum(each.fails for each in report.findings)
    silenced = f" {amount(len(report.silenced), 'finding')} silenced." if report.silenced else ""
    verdict = f"{amount(failing, 'finding')}." if failing else "All is well."
    return f"{amount(len(report.files), 'migration')} checked. {verdict}{silenced}"


def finding_lines(found: Finding) -> list[str]:
    subject = f"{found.filename}: " if found.filename else ""
    place = found.location
    return [
        f"{found.severity} {found.code}: {subject}{found.message}",
        *([f"    at {place}", *(excerpt(place.excerpt, place.column))] if place else []),
        *(f"    {line}" for line in found.details),
        *(f"    Next: {line}" for line in found.hint.splitlines()),
    ]


def finding_json(found: Finding) -> dict[str, Any]:
    severity = "info" if found.severity == "note" else found.severity
    place = found.location
    return {
        **note_json(severity, found.message, place.path if place else found.filename),
        "code": found.code,
        "migration": found.filename,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "hint": found.hint or None,
        "details": list(found.details),
    }


def silenced_json(silenced: Silenced) -> dict[str, Any]:
    return {**finding_json(silenced.finding), "reason": silenced.reason}


def report_github(report: Report) -> str:
    """A workflow command a line, which GitHub shows beside the line of the file, and the summary for the log."""
    return shown([*(_command(report, each) for each in report.findings), _summary(report)])


def _command(report: Report, found: Finding) -> str:
    path, line, column = _place(report, found)
    properties = {"file": path, "line": line, "col": column, "title": found.code}
    given = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items() if value is not None)
    text = "\n".join([_said(found), *found.details, *found.hint.splitlines()])
    return f"::{_GITHUB[found.severity]} {given}::{_data(text)}"


def _said(found: Finding) -> str:
    """The message, with the migration's name where it is told at a place in the lock file."""
    in_lock = found.location and Path(found.location.path).name == lockfile.NAME != found.filename
    return f"{found.filename}: {found.message}" if in_lock else found.message


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def report_sarif(report: Report) -> str:
    """SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html)."""
    known = explanations()
    found = [*((each, None) for each in report.findings), *((each.finding, each) for each in report.silenced)]
    codes = sorted({each.code for each, _ in found})
    driver = {
        "name": "financial_agent",
        "version": __version__,
        "rules": [_sarif_rule(known[code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(report, each, silenced, codes) for each, silenced in found],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_rule(explained: Explanation) -> dict[str, Any]:
    return {
        "id": explained.code,
        "shortDescription": {"text": explained.title},
        "fullDescription": {"text": explained.why},
        "help": {"text": "\n".join(filter(None, (explained.why, explained.advice, explained.silence)))},
        **({"helpUri": explained.source} if explained.source else {}),
        "defaultConfiguration": {"level": explained.severity},
    }


def _sarif_result(report: Report, found: Finding, silenced: Silenced | None, codes: list[str]) -> dict[str, Any]:
    path, line, column = _place(report, found)
    text = "\n".join([_said(found), *found.details, *found.hint.splitlines()])
    result: dict[str, Any] = {
        "ruleId": found.code,
        "ruleIndex": codes.index(found.code),
        "level": found.severity,
        "message": {"text": text},
    }
    if path is not None:
        place: dict[str, Any] = {"artifactLocation": {"uri": _uri(path)}}
        if line is not None:
            place["region"] = {"startLine": line, **({"startColumn": column} if column is not None else {})}
        result["locations"] = [{"physicalLocation": place}]
    if silenced:
        kind = "inSource" if silenced.is_in_file else "external"
        result["suppressions"] = [{"kind": kind, "status": "accepted", "justification": silenced.reason}]
    return result


def _uri(path: str) -> str:
    return Path(path).as_uri() if os.path.isabs(path) else quote(path)


def _place(report: Report, found: Finding) -> tuple[str | None, int | None, int | None]:
    """File, line and column. A file below the current folder is named from there: in CI that is the repository."""
    place = found.location
    if place is None and found.filename is None:
        return None, None, None
    path = Path(place.path if place else report.directory / (found.filename or "")).absolute()
    here = Path.cwd()
    name = path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)
    return name, place.line if place else None, place.column if place else None


RENDERERS: dict[str, Callable[[Report], str]] = {
    "text": report_text,
    "github": report_github,
    "sarif": report_sarif,
}
