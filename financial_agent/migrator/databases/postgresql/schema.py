"""What PostgreSQL's catalogue tells of a schema: the user's objects, each with the SQL that makes it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from psycopg.pq.abc import PGresult

from financial_agent.migrator.databases.database import Column, Row, SchemaObject
from financial_agent.migrator.databases.postgresql import results


def objects(answers: Iterable[PGresult]) -> list[SchemaObject]:
    """The user's objects, by type and name, from the answers to these questions."""
    home, columns, constraints, tables, others = (results.rows(each) for each in answers if each.nfields)
    ((here,),) = home
    found = [*_tables(here, columns, constraints, tables), *_others(here, others)]
    return sorted(found, key=lambda each: (each.type, each.name, each.table))


def fingerprint(found: Iterable[SchemaObject]) -> str:
    """SHA-256, in hexadecimal, of a schema."""
    told = [(each.type, each.name, each.table, each.sql) for each in found]
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()


def _tables(
    here: str, columns: Sequence[Row], constraints: Sequence[Row], tables: Sequence[Row]
) -> Iterator[SchemaObject]:
    parts = defaultdict[tuple[str, str], list[str]](list)
    its_columns = defaultdict[tuple[str, str], list[Column]](list)
    for schema, table, name, type_, not_null, default, key, generated, identity, collation in columns:
        its_columns[schema, table].append(Column(name, type_, not_null, default, key, bool(generated)))
        parts[schema, table].append(_column(name, type_, not_null, default, generated, identity, collation))
    for schema, table, text in constraints:
        parts[schema, table].append(text)
    for schema, table, kind, behind in tables:
        name = _name(here, schema, _identifier(table))
        lines = ",\n".join(f"  {part}" for part in parts[schema, table])
        sql = f"CREATE {kind}TABLE {name} (\n{lines}\n) {behind}".rstrip()
        yield SchemaObject("table", name, name, sql, tuple(its_columns[schema, table]))


def _column(
    name: str, type_: str, not_null: bool, default: str | None, generated: str, identity: str, collation: str | None
) -> str:
    parts = [_identifier(name), type_]
    if collation:
        parts.append(f"COLLATE {collation}")
    if generated:
        parts.append(f"GENERATED ALWAYS AS ({default}) {'STORED' if generated == 's' else 'VIRTUAL'}")
    elif default is not None:
        parts.append(f"DEFAULT {default}")
    if identity:
        parts.append(f"GENERATED {'ALWAYS' if identity == 'a' else 'BY DEFAULT'} AS IDENTITY")
    if not_null:
        parts.append("NOT NULL")
    return " ".join(parts)


def _others(here: str, rows: Sequence[Row]) -> Iterator[SchemaObject]:
    for type_, schema, name, table, sql in rows:
        written = name if "(" in name or type_ == "comment" else _identifier(name)
        named = _name(here, schema, written)
        yield SchemaObject(type_, named, table or named, sql.rstrip().removesuffix(";"))


def _name(here: str, schema: str | None, written: str) -> str:
    return written if schema in (here, None) else f"{_identifier(str(schema))}.{written}"


def _identifier(name: str) -> str:
    """A name as it is written: without quotes where it is a plain one."""
    is_plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower() and not name[0].isdigit()
    return name if is_plain else '"' + name.replace('"', '""') + '"'
