"""The schema as a file of SQL for the mariadb or mysql client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from financial_agent.migrator.databases import Row, SchemaObject
from financial_agent.migrator.databases.mysql.schema import in_order

# Each remembers the mode that it was made in.
_MODES = """\
SELECT 'trigger', trigger_name, sql_mode FROM information_schema.triggers WHERE trigger_schema = DATABASE()
UNION ALL SELECT lower(routine_type), routine_name, sql_mode FROM information_schema.routines
WHERE routine_schema = DATABASE()
UNION ALL SELECT 'event', event_name, sql_mode FROM information_schema.events WHERE event_schema = DATABASE()"""


def text(objects: Collection[SchemaObject], query: Callable[[str], Sequence[Row]]) -> str:
    """The definitions, in an order in which they run."""
    modes = {(kind, name): mode for kind, name, mode in query(_MODES)}
    # Two tables may name each other in their foreign keys.
    statements = ["SET foreign_key_checks = 0;\n"] if objects else []
    current = None
    for each in in_order(objects):
        mode = modes.get((each.type, each.name))
        if mode is None:
            statements.append(f"{each.sql};\n")
            continue
        if mode != current:
            statements.append(f"SET sql_mode = '{mode}';\n")
            current = mode
        statements.append(f"DELIMITER ;;\n{each.sql}\n;;\nDELIMITER ;\n")
    return "\n".join(statements)
