"""What a DROP or TRUNCATE that says CASCADE would take along, as the catalogue tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from financial_agent.migrator.databases.database import Effects, Row

_FINDERS = {
    "drop schema": ("pg_namespace", "to_regnamespace"),
    "drop type": ("pg_type", "to_regtype"),
    "drop routine": ("pg_proc", "to_regproc"),
}
# Children of children, too. A table that refers to itself is not taken along.
_EMPTIED = """\
WITH RECURSIVE named AS (SELECT to_regclass(name)::oid AS oid FROM unnest({names}) AS name),
reached AS (SELECT oid FROM named UNION SELECT c.conrelid FROM reached
  JOIN pg_constraint AS c ON c.confrelid = reached.oid AND c.contype = 'f')
SELECT oid::regclass::text FROM reached WHERE oid NOT IN (SELECT oid FROM named WHERE oid IS NOT NULL) ORDER BY 1"""
# A view depends on its tables through its rule. What is a part of what is named, such as a table's own indexes, is not
# taken along; what depends on a part is. (https://www.postgresql.org/docs/current/catalog-pg-depend.html)
_DROPPED = """\
WITH RECURSIVE
named AS (SELECT {catalog}::regclass::oid AS class, {finder}(name)::oid AS oid FROM unnest({names}) AS name),
reached AS (
  SELECT class, oid, 0 AS part, false AS is_direct, true AS is_own FROM named WHERE oid IS NOT NULL
  UNION
  SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass::oid END, coalesce(r.ev_class, d.objid),
    d.objsubid, depends, reached.is_own AND NOT depends
  FROM reached JOIN pg_depend AS d ON d.refclassid = reached.class AND d.refobjid = reached.oid
  LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid,
  LATERAL (SELECT d.deptype = 'n' AND coalesce(r.ev_class, 0) <> reached.oid AS depends) AS how
  WHERE d.deptype IN ('n', 'a', 'i', 'P', 'S'))
SELECT DISTINCT pg_describe_object(class, oid, part) FROM reached
WHERE is_direct AND (class, oid) NOT IN (SELECT class, oid FROM reached WHERE is_own) ORDER BY 1"""


def find_cascades(query: Callable[[str, Sequence[object]], list[Row]], effects: Effects, verb: str) -> list[str]:
    """What the statement with these effects would take along, in the server's words."""
    names = [effect.name for effect in effects.destroyed]
    array = f"ARRAY[{', '.join('?' * len(names))}]::text[]"
    if verb == "TRUNCATE":
        sql = _EMPTIED.format(names=array)
    else:
        catalog, finder = _FINDERS.get(effects.destroyed[0].kind, ("pg_class", "to_regclass"))
        sql = _DROPPED.format(names=array, catalog=f"'{catalog}'", finder=finder)
    return [told for (told,) in query(sql, names)]
