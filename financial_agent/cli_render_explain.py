"""What `explain` looks like: pure functions from explanations to text and JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from financial_agent.cli_render import shown
from financial_agent.migrator.explain import Explanation
from financial_agent.migrator.lint.rule import Files

_WIDTH = 100


def explanation_text(explained: Explanation) -> str:
    lines = [f"{explained.code} ({explained.severity}): {explained.title}", ""]
    lines += textwrap.wrap(explained.why, _WIDTH)
    if explained.advice:
        lines += ["", "What to do", *(f"    {line}" for line in explained.advice.splitlines())]
    for title, files in (("Wrong", explained.wrong), ("Right", explained.right)):
        lines += _example(title, files)
    if explained.kind != "error":
        silenced = explained.silence or "It cannot be silenced."
        lines += ["", "To silence it", f"    {silenced}"]
    if explained.source:
        lines += ["", f"More: {explained.source}"]
    return shown(lines)


def list_text(explained: Sequence[Explanation]) -> str:
    return shown([f"{each.code}  {each.title}" for each in explained])


def explanation_json(explained: Explanation) -> dict[str, Any]:
    files = {side: [{"file": name, "text": text} for name, text in getattr(explained, side)] for side in _SIDES}
    return {**{name: value or None for name, value in asdict(explained).items() if name not in _SIDES}, **files}


_SIDES = ("wrong", "right")


def _example(title: str, files: Files) -> list[str]:
    lines = []
    for name, text in files:
        lines += ["", f"{title}: {name}", *(f"    {line}".rstrip() for line in text.rstrip("\n").splitlines())]
    return lines
