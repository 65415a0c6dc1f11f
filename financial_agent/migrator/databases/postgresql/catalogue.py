"""What PostgreSQL's catalogue is asked, in texts whose answers do not depend on what a session has set."""

from __future__ import annotations

from financial_agent.migrator.databases.server import LEDGER_TABLES

COLUMNS_OF = """\
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
TRIGGERS_OF = "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(?) AND NOT tgisinternal ORDER BY tgname"

# The columns of a key, in their order, stand a line each.
FOREIGN_KEYS_OF = """\
SELECT CASE WHEN n.nspname = ? THEN '' ELSE quote_ident(n.nspname) || '.' END
|| CASE WHEN c.relname ~ '^[a-z_][a-z0-9_]*$' THEN c.relname ELSE quote_ident(c.relname) END,
(SELECT string_agg(a.attname, E'\\n' ORDER BY k.place) FROM unnest(o.conkey) WITH ORDINALITY AS k (number, place)
 JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.number),
(SELECT string_agg(a.attname, E'\\n' ORDER BY k.place) FROM unnest(o.confkey) WITH ORDINALITY AS k (number, place)
 JOIN pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.number)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE o.contype = 'f' AND o.conrelid = to_regclass(?) ORDER BY o.conname"""

_OURS = "«ours»"  # stands for the schemas that this application's own objects may be in beside its ledger
_LEDGER = ", ".join(f"'{name}'" for name in LEDGER_TABLES)


def _own(catalog: str, oid: str) -> str:
    """Neither the server's own objects nor those of an extension, nor of an application with a ledger of its own."""
    return f"""\
n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
AND n.nspname NOT IN (SELECT o.nspname FROM pg_class m JOIN pg_namespace o ON o.oid = m.relnamespace
WHERE m.relname = '_migrations' AND m.relkind = 'r' AND o.nspname NOT IN ({_OURS}))
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalog}'::regclass AND d.objid = {oid}
AND d.deptype = 'e')"""


_RELATION = (
    f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname NOT IN ({_LEDGER}) AND {_own('pg_class', 'c.oid')}"
)

_COLUMNS = f"""\
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
pg_get_expr(e.adbin, e.adrelid), coalesce(array_position(k.conkey, a.attnum), 0), a.attgenerated::text,
a.attidentity::text, CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(l.collname) END
FROM pg_class c {
    _RELATION.replace(
        " WHERE ",
        '''
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef e ON e.adrelid = c.oid AND e.adnum = a.attnum
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
LEFT JOIN pg_collation l ON l.oid = a.attcollation WHERE ''',
        1,
    )
}
AND c.relkind IN ('r', 'p', 'f') ORDER BY 1, 2, a.attnum"""

# What stands below a table's columns, a part a line. From version 18 on NOT NULL is a constraint, too.
_CONSTRAINTS = f"""\
SELECT n.nspname, c.relname, 'CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid)
FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype NOT IN ('t', 'n') {_RELATION}
ORDER BY 1, 2, k.conname"""

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
  CASE WHEN c.relrowsecurity THEN 'ROW LEVEL SECURITY' ||
    CASE WHEN c.relforcerowsecurity THEN ' FORCED' ELSE '' END END)
FROM pg_class c {_RELATION} AND c.relkind IN ('r', 'p', 'f') ORDER BY 1, 2"""

# Everything else: its type, schema, name, table, and definition.
_OTHERS = (
    # An index that was not finished is as good as none. Those of constraints are told by these.
    f"""\
SELECT 'index', n.nspname, c.relname, t.oid::regclass::text, pg_get_indexdef(i.indexrelid, 0, true)
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
WHERE {_own("pg_proc", "p.oid")}""",
    # One on the ledger counts, as it may do anything. A partition's is told by the one of the whole.
    f"""\
SELECT 'trigger', n.nspname, g.tgname, c.oid::regclass::text, pg_get_triggerdef(g.oid, true)
|| CASE g.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA' ELSE ' ALWAYS' END
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND {_own("pg_trigger", "g.oid")}""",
    f"""\
SELECT 'type', n.nspname, t.typname, '', 'CREATE TYPE ' || format_type(t.oid, NULL) || ' AS ' || CASE t.typtype
WHEN 'e' THEN 'ENUM (' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
  FROM pg_enum e WHERE e.enumtypid = t.oid) || ')'
WHEN 'r' THEN 'RANGE (SUBTYPE = ' ||
  (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid) || ')'
ELSE '(' || (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', '
  ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND NOT a.attisdropped) || ')' END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE (t.typtype IN ('e', 'r') OR c.relkind = 'c') AND {_own("pg_type", "t.oid")}""",
    f"""\
SELECT 'domain', n.nspname, t.typname, '', 'CREATE DOMAIN ' || format_type(t.oid, NULL) || ' AS '
|| format_type(t.typbasetype, t.typtypmod) || coalesce(' DEFAULT ' || t.typdefault, '')
|| CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END || coalesce((SELECT string_agg(' CONSTRAINT '
|| quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), '' ORDER BY k.conname) FROM pg_constraint k
WHERE k.contypid = t.oid AND k.contype <> 'n'), '')
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND {_own("pg_type", "t.oid")}""",
    f"""\
SELECT 'policy', n.nspname, p.polname, c.oid::regclass::text, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s',
p.polname, c.oid::regclass, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
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
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {_own("pg_statistic_ext", "s.oid")}""",
    "SELECT 'extension', NULL, e.extname, '', format('CREATE EXTENSION %I', e.extname) FROM pg_extension e",
    f"""\
SELECT 'schema', NULL, n.nspname, '', format('CREATE SCHEMA %I', n.nspname) FROM pg_namespace n
WHERE n.nspname <> 'public' AND {_own("pg_namespace", "n.oid")}""",
    f"""\
SELECT 'comment', n.nspname, c.relname || coalesce('.' || a.attname, ''), c.oid::regclass::text,
format('COMMENT ON %s IS %L', c.oid::regclass || coalesce('.' || quote_ident(a.attname), ''), d.description)
FROM pg_description d JOIN pg_class c ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
LEFT JOIN pg_attribute a ON d.objsubid > 0 AND a.attrelid = c.oid AND a.attnum = d.objsubid {_RELATION}""",
)


def questions(home: str, ledger: str, *, is_inside: bool) -> str:
    """The questions, in one string. Names that are not of the home schema come with their own: for that the search path
    is set, and set back, whatever happens."""
    quoted = '"' + home.replace('"', '""') + '"'
    before, behind = ("SAVEPOINT catalogue", "ROLLBACK TO catalogue; RELEASE catalogue")
    if not is_inside:
        before, behind = "BEGIN READ ONLY", "ROLLBACK"
    asked = "; ".join((_COLUMNS, _CONSTRAINTS, _TABLES, " UNION ALL ".join(_OTHERS)))
    asked = asked.replace(_OURS, f"{_literal(home)}, {_literal(ledger)}")
    # Compiling the questions would take longer than answering them.
    settings = f"SET LOCAL jit = off; SET LOCAL search_path = {quoted}"
    return f"{before}; {settings}; SELECT {_literal(home)}; {asked}; {behind}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
