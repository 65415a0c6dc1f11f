"""The statements that make a schema anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from financial_agent.migrator.databases import Row, SchemaObject

_KINDS = ("table", "virtual table", "index", "view", "trigger")
_virtual = re.compile(r"CREATE\s+VIRTUAL\b", re.IGNORECASE)


def text(objects: Sequence[SchemaObject], query: Callable[[str], list[Row]]) -> str:
    """The SQL of the objects, by kind and name: what a kind needs is of the kinds before it. Tables may name others in
    foreign keys that are not there yet, and so may views."""
    # A virtual table makes its shadow tables itself.
    shadows = {name for (name,) in query("SELECT name FROM pragma_table_list WHERE type = 'shadow'")}
    wanted = [each for each in objects if each.sql and not shadows & {each.name, each.table}]
    in_order = sorted(wanted, key=lambda each: (_KINDS.index(_kind(each)), each.name))
    return "\n".join(f"{each.sql}{_end(each.sql)}\n" for each in in_order)


def _kind(each: SchemaObject) -> str:
    return "virtual table" if _virtual.match(each.sql) else each.type


def _end(sql: str) -> str:
    """A comment may stand behind the last word."""
    return "\n;" if "--" in sql.rpartition("\n")[2] else ";"
