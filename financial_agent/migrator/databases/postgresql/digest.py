"""A number for the values of a row, which PostgreSQL makes."""

from __future__ import annotations

from collections.abc import Sequence


def digest(columns: Sequence[str]) -> str:
    """An SQL expression for the values of some columns: 60 bits, and the same on every server of a version."""
    return f"(hashtextextended(ROW({', '.join(columns)})::text, 0) & 1152921504606846975)"
