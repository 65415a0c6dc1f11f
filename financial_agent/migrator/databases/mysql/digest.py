"""A number for the values of a row, which MariaDB or MySQL makes."""

from __future__ import annotations

from collections.abc import Sequence


def digest(columns: Sequence[str]) -> str:
    """An SQL expression for the values of some columns, of 60 bits."""
    each = ", ".join(f"coalesce(md5(CAST({column} AS BINARY)), '-')" for column in columns)
    return f"CAST(conv(left(md5(concat({each or repr('')})), 15), 16, 10) AS UNSIGNED)"
