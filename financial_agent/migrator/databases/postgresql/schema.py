"""What PostgreSQL's catalogue tells of a schema, in one round trip, and in texts that do not depend on what a session
has set."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from psycopg.pq.abc import PGresult

from financial_agent.migrator.databases.database import Column, Row, SchemaObject, StatementError
from financial_agent.migrator.databases.postgresql import results
from financial_agent.migrator.databases.server import LEDGER_TABLES

COLUMNS_OF = """\
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
TRIGGERS_OF = "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(?) AND NOT tgisinternal ORDER BY tgname"

_LEDGER = ", ".join(f"'{name}'" for name in LEDGER_TABLES)


def _own(catalog: str, oid: str) -> str:
    """Neither the server's own objects nor those of an extension."""
    return f"""\
n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalog}'::regclass AND d.objid = {oid} AND d.deptype = 'e')"""


_RELATION = f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname NOT IN ({_LEDGER}) AND {_own('pg_class', 'c.oid')}"

_COLUMNS = f"""\
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
pg_get_expr(e.adbin, e.adrelid), coalesce(array_position(k.conkey, a.attnum), 0), a.attgenerated::text,
a.attidentity::text, CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(l.collname) END
FROM pg_class c {_RELATION.replace(' WHERE ', '''
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef e ON e.adrelid = c.oid AND e.adnum = a.attnum
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
LEFT JOIN pg_collation l ON l.oid = a.attcollation WHERE ''', 1)}
AND c.relkind IN ('r', 'p', 'f', 'c') ORDER BY 1, 2, a.attnum"""

# What stands below a table's columns, a part a line. From version 18 on NOT NULL is a constraint, too.
_CONSTRAINTS = f"""\
SELECT n.nspname, c.relname, 'CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid)
FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype NOT IN ('t', 'n') {_RELATION} ORDER BY 1, 2, k.conname"""

# How a table is what it is beside its columns; what follows them.
_TABLES = f"""\
SELECT n.nspname, c.relname,
CASE c.relkind WHEN 'f' THEN 'FOREIGN ' ELSE CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END END,
concat_ws(' ',
  (SELECT 'INHERITS (' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) || ')' FROM pg_inherits i
   WHERE i.inhrelid = c.oid AND NOT c.relispartition),
  (SELECT 'PARTITION OF ' || i.inhparent::regclass || ' ' || pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i
   WHERE i.inhrelid = c.oid AND c.relispartition),
  'PARTITION BY ' || pg_get_partkeydef(c.oid),
  'WITH (' || array_to_string(c.reloptions, ', ') || ')',
  CASE WHEN c.relrowsecurity THEN 'ROW LEVEL SECURITY' || CASE WHEN c.relforcerowsecurity THEN ' FORCED' ELSE '' END END)
FROM pg_class c {_RELATION} AND c.relkind IN ('r', 'p', 'f') ORDER BY 1, 2"""

# Everything else: its type, schema, name, table, and definition.
_OTHERS = (
    # An index that was not finished is as good as none. Those of constraints are told by these.
    f"""\
SELECT 'index', n.nspname, c.relname, t.oid::regclass::text, pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid {_RELATION}
AND t.relname NOT IN ({_LEDGER}) AND (i.indisvalid OR c.relkind = 'I')
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))""",
    f"""\
SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, n.nspname, c.relname, '',
'CREATE ' || CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END || ' ' || c.oid::regclass
|| coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '') || ' AS' || chr(10) || pg_get_viewdef(c.oid)
FROM pg_class c {_RELATION} AND c.relkind IN ('v', 'm')""",
    f"""\
SELECT 'sequence', n.nspname, c.relname, '', format('CREATE SEQUENCE %s AS %s START %s INCREMENT %s MINVALUE %s '
'MAXVALUE %s CACHE %s%s', c.oid::regclass, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin,
s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid {_RELATION} AND NOT EXISTS (SELECT FROM pg_depend d
WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('i', 'a') AND d.refobjsubid > 0)""",
    f"""\
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END, n.nspname,
quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')', '',
CASE p.prokind WHEN 'a' THEN format('CREATE AGGREGATE %s (SFUNC = %s, STYPE = %s)', p.oid::regprocedure,
a.aggtransfn::regproc, format_type(a.aggtranstype, NULL)) ELSE pg_get_functiondef(p.oid) END
FROM pg_proc p LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {_own('pg_proc', 'p.oid')}""",
    # One on the ledger counts, as it may do anything. A partition's is told by the one of the whole.
    f"""\
SELECT 'trigger', n.nspname, g.tgname, c.oid::regclass::text, pg_get_triggerdef(g.oid)
|| CASE g.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA' ELSE ' ALWAYS' END
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND {_own('pg_trigger', 'g.oid')}""",
    f"""\
SELECT 'type', n.nspname, t.typname, '', 'CREATE TYPE ' || format_type(t.oid, NULL) || ' AS ' || CASE t.typtype
WHEN 'e' THEN 'ENUM (' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
  FROM pg_enum e WHERE e.enumtypid = t.oid) || ')'
WHEN 'r' THEN 'RANGE (SUBTYPE = ' || (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid) || ')'
ELSE '(' || (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', '
  ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND NOT a.attisdropped) || ')' END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE (t.typtype IN ('e', 'r') OR c.relkind = 'c') AND {_own('pg_type', 't.oid')}""",
    f"""\
SELECT 'domain', n.nspname, t.typname, '', 'CREATE DOMAIN ' || format_type(t.oid, NULL) || ' AS '
|| format_type(t.typbasetype, t.typtypmod) || coalesce(' DEFAULT ' || t.typdefault, '')
|| CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END || coalesce((SELECT string_agg(' CONSTRAINT '
|| quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), '' ORDER BY k.conname) FROM pg_constraint k
WHERE k.contypid = t.oid AND k.contype <> 'n'), '')
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND {_own('pg_type', 't.oid')}""",
    f"""\
SELECT 'policy', n.nspname, p.polname, c.oid::regclass::text, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s',
p.polname, c.oid::regclass, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
(SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r)::text END, ', ' ORDER BY r)
 FROM unnest(p.polroles) r),
coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ''),
coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''))
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid {_RELATION}""",
    f"""\
SELECT 'rule', n.nspname, w.rulename, c.oid::regclass::text, pg_get_ruledef(w.oid)
FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class {_RELATION} AND w.rulename <> '_RETURN'""",
    f"""\
SELECT 'statistics', n.nspname, s.stxname, s.stxrelid::regclass::text, pg_get_statisticsobjdef(s.oid)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {_own('pg_statistic_ext', 's.oid')}""",
    "SELECT 'extension', NULL, e.extname, '', format('CREATE EXTENSION %I', e.extname) FROM pg_extension e",
    f"""\
SELECT 'schema', NULL, n.nspname, '', format('CREATE SCHEMA %I', n.nspname) FROM pg_namespace n
WHERE n.nspname <> 'public' AND {_own('pg_namespace', 'n.oid')}""",
    f"""\
SELECT 'comment', n.nspname, c.relname || coalesce('.' || a.attname, ''), c.oid::regclass::text,
format('COMMENT ON %s IS %L', c.oid::regclass || coalesce('.' || quote_ident(a.attname), ''), d.description)
FROM pg_description d JOIN pg_class c ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
LEFT JOIN pg_attribute a ON d.objsubid > 0 AND a.attrelid = c.oid AND a.attnum = d.objsubid {_RELATION}""",
)


def catalogue(home: str, *, is_inside: bool) -> str:
    """The questions, in one string. Names that are not of the home schema come with their own: for that the search path
    is set, and set back, whatever happens."""
    quoted = '"' + home.replace('"', '""') + '"'
    before, behind = ("SAVEPOINT catalogue", "ROLLBACK TO catalogue; RELEASE catalogue")
    if not is_inside:
        before, behind = "BEGIN READ ONLY", "ROLLBACK"
    questions = "; ".join((_COLUMNS, _CONSTRAINTS, _TABLES, " UNION ALL ".join(_OTHERS)))
    return f"{before}; SET LOCAL search_path = {quoted}; SELECT {_literal(home)}; {questions}; {behind}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


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


_BROKEN = """\
SELECT 'the index ' || i.indexrelid::regclass || ' is invalid, as its creation was cut off or failed: '
|| 'DROP INDEX CONCURRENTLY ' || i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i' AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
WHERE p.index_relid = i.indexrelid)
UNION ALL
SELECT 'the constraint ' || k.conname || ' of ' || k.conrelid::regclass || ' was not checked on the rows that were there: '
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


def problems(query: Callable[[str], list[Row]], *, quick: bool) -> list[str]:
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
