"""What `verify`, `history` and the schema differences look like: pure functions from values to text and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from financial_agent.cli_render import shown
from financial_agent.migrator.schema import Difference

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def differences_text(differences: Sequence[Difference], indent: str = "") -> str:
    """A readable diff: an object a line, and below a changed one what became of it."""
    lines = []
    for each in differences:
        owner = f" on {each.table}" if each.type in ("index", "trigger") else ""
        lines.append(f"{_SIGNS[each.change]} {each.type} {each.name}{owner}")
        # The first two lines of a unified diff name files, of which there are none.
        lines += [f"    {line}" for line in (*each.columns, *each.diff[2:])]
    return shown([indent + line for line in lines])


def difference_json(difference: Difference) -> dict[str, Any]:
    return asdict(difference)
