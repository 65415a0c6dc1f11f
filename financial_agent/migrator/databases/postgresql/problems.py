"""What PostgreSQL finds damaged, or left half done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from financial_agent.migrator.databases.database import Row, StatementError

_BROKEN = """\
SELECT 'the index ' || i.indexrelid::regclass || ' is invalid, as its creation was cut off or failed: '
|| 'DROP INDEX CONCURRENTLY ' || i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i' AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
WHERE p.index_relid = i.indexrelid)
UNION ALL
SELECT 'the constraint ' || k.conname || ' of ' || k.conrelid::regclass || ' was not checked on the rows there are: '
|| 'ALTER TABLE ' || k.conrelid::regclass || ' VALIDATE CONSTRAINT ' || quote_ident(k.conname)
FROM pg_constraint k WHERE NOT k.convalidated AND k.conrelid <> 0
UNION ALL
SELECT 'pages with a wrong checksum were read: ' || checksum_failures FROM pg_stat_database
WHERE datname = current_database() AND checksum_failures > 0
ORDER BY 1"""
_CHECKER = """\
SELECT quote_ident(n.nspname) || '.bt_index_check' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = 'bt_index_check' AND p.pronargs = 1 AND has_function_privilege(p.oid, 'EXECUTE')"""
_TREES = """\
SELECT i.indexrelid::bigint, i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam WHERE m.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid
AND c.relpersistence <> 't' ORDER BY 1"""


def find_problems(query: Callable[[str], list[Row]], *, quick: bool) -> list[str]:
    """What the catalogue tells; and, unless it must be quick, what the extension amcheck finds where it is there."""
    found = [text for (text,) in query(_BROKEN)]
    with suppress(StatementError):  # it is of an extension, and may be anything
        for (check,) in [] if quick else query(_CHECKER):
            found += _damaged(query, check)
    return found


def _damaged(query: Callable[[str], list[Row]], check: str) -> Iterator[str]:
    for number, name in query(_TREES):
        try:
            query(f"SELECT {check}({number}::regclass)")
        except StatementError as error:
            yield f"the index {name} is damaged: {error}"
