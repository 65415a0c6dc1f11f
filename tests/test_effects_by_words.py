"""What a statement for a server destroys or overwrites is told by its words alone."""

from __future__ import annotations

import pytest

from financial_agent.migrator.databases.effects_by_words import find_effects
from tests.test_effects import told

BOTH = ("postgresql", "mysql")
P, M = ("postgresql",), ("mysql",)
CASES = [
    (BOTH, "CREATE TABLE t (id int)", []),
    (M, "CREATE OR REPLACE TABLE t (id int)", ["drop table t"]),
    (BOTH, "CREATE OR REPLACE VIEW v AS SELECT 1", []),
    (BOTH, "INSERT INTO t VALUES (1)", []),
    (BOTH, "SELECT * FROM t FOR UPDATE", []),
    (BOTH, "GRANT DELETE ON t TO somebody", []),
    (BOTH, "DROP TABLE t", ["drop table t"]),
    (BOTH, "DROP TABLE IF EXISTS a, b CASCADE", ["drop table a", "drop table b"]),
    (P, 'DROP TABLE "Odd ""name", sales.Orders', ['drop table "Odd ""name"', "drop table sales.orders"]),
    (M, "DROP TABLE `Odd ``name`, home.Orders", ["drop table Odd `name", "drop table Orders"]),
    (M, "DROP TEMPORARY TABLE t", []),
    (BOTH, "DROP VIEW v", ["drop view v"]),
    (P, "DROP MATERIALIZED VIEW IF EXISTS v", ["drop view v"]),
    (P, "DROP INDEX CONCURRENTLY IF EXISTS i", ["drop index i"]),
    (M, "DROP INDEX i ON t", ["drop index i"]),
    (P, "DROP TRIGGER g ON t", ["drop trigger g"]),
    (P, "DROP SCHEMA sales CASCADE", ["drop schema sales"]),
    (M, "DROP DATABASE sales", ["drop schema sales"]),
    (BOTH, "DROP FUNCTION f", ["drop routine f"]),
    (P, "DROP FUNCTION f (int, text), g()", ["drop routine f", "drop routine g"]),
    (P, "DROP SEQUENCE s", ["drop sequence s"]),
    (P, "DROP TYPE mood", ["drop type mood"]),
    (P, "DROP EXTENSION hstore", ["unknown"]),
    (P, "TRUNCATE a, ONLY b RESTART IDENTITY CASCADE", ["delete a everywhere", "delete b everywhere"]),
    (BOTH, "TRUNCATE TABLE t", ["delete t everywhere"]),
    (BOTH, "ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT 1", []),
    (BOTH, "ALTER TABLE t ADD COLUMN a int, DROP COLUMN b", ["drop column t.b"]),
    (
        BOTH,
        "ALTER TABLE t ADD FOREIGN KEY (p) REFERENCES parents (id) ON DELETE CASCADE, DROP COLUMN b",
        ["drop column t.b"],
    ),
    (P, "ALTER TABLE IF EXISTS ONLY t DROP IF EXISTS b", ["drop column t.b"]),
    (BOTH, "ALTER TABLE t DROP CONSTRAINT c", []),
    (M, "ALTER TABLE t DROP PRIMARY KEY, DROP FOREIGN KEY f, DROP INDEX i", ["drop index i"]),
    (M, "ALTER TABLE t DROP PARTITION p", ["delete t"]),
    (P, "ALTER TABLE t ALTER COLUMN c TYPE int USING c::int", ["update t.c everywhere"]),
    (P, "ALTER TABLE t ALTER c SET DATA TYPE int", ["update t.c everywhere"]),
    (P, "ALTER TABLE t ALTER COLUMN c SET NOT NULL", []),
    (M, "ALTER TABLE t MODIFY COLUMN c int, CHANGE d e text", ["update t.c everywhere", "update t.d everywhere"]),
    (BOTH, "ALTER TABLE t RENAME TO u", []),
    (BOTH, "DELETE FROM t", ["delete t everywhere"]),
    (BOTH, "DELETE FROM t WHERE id = 1", ["delete t"]),
    (P, "DELETE FROM ONLY t USING a, b WHERE t.id = a.id", ["delete t"]),
    (M, "DELETE x, b FROM t AS x JOIN b ON x.id = b.id WHERE b.c", ["delete t", "delete b"]),
    (M, "DELETE QUICK FROM t ORDER BY id LIMIT 5", ["delete t"]),
    (
        BOTH,
        "UPDATE t SET a = 1, b = (SELECT max(c) FROM u WHERE d)",
        ["update t.a everywhere", "update t.b everywhere"],
    ),
    (P, "UPDATE t AS x SET (a, b) = (1, 2) FROM u WHERE u.id = x.id", ["update t.a", "update t.b"]),
    (M, "UPDATE t x JOIN u ON x.id = u.id SET x.a = 1, u.b = 2 WHERE u.c", ["update t.a", "update u.b"]),
    (M, "REPLACE INTO t VALUES (1)", ["replace t"]),
    (M, "REPLACE t (a) VALUES (1)", ["replace t"]),
    (BOTH, "SELECT replace(a, 'b', 'c') FROM t", []),
    (P, "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", []),
    (P, "INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1, b = 2 WHERE t.c", ["update t.a", "update t.b"]),
    (M, "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a)", ["update t.a"]),
    (M, "INSERT IGNORE INTO t VALUES (1)", []),
    (
        P,
        "WITH gone AS (DELETE FROM a WHERE x RETURNING *), n AS (UPDATE b SET c = 1) INSERT INTO d SELECT * FROM gone",
        ["delete a", "update b.c everywhere"],
    ),
    (P, "WITH x AS (SELECT 1) UPDATE t SET a = 1 WHERE b", ["update t.a"]),
    (
        P,
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.gone THEN DELETE WHEN MATCHED THEN UPDATE SET a = s.a "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.id)",
        ["delete t", "update t.a"],
    ),
    (P, "EXPLAIN ANALYZE DELETE FROM t", ["delete t everywhere"]),
    (P, "EXPLAIN DELETE FROM t", []),
    (BOTH, "CALL tidy()", ["unknown"]),
    (P, "DO $$ BEGIN DELETE FROM t; END $$", ["unknown"]),
    (M, "LOAD DATA INFILE 'x' REPLACE INTO TABLE t", ["unknown"]),
    (BOTH, "EXECUTE prepared", ["unknown"]),
]


@pytest.mark.parametrize(
    ("dialect", "sql", "expected"),
    [(dialect, sql, expected) for dialects, sql, expected in CASES for dialect in dialects],
)
def test_a_statement_tells_what_it_destroys(dialect: str, sql: str, expected: list[str]) -> None:
    assert [told(effect) for effect in find_effects(sql, dialect, "home").destroyed] == expected


@pytest.mark.parametrize(
    ("sql", "target", "written", "created", "read"),
    [
        ("INSERT INTO a SELECT * FROM b JOIN c ON b.id = c.id", "a", {"a"}, set(), {"b", "c"}),
        ("INSERT INTO a SELECT x.id FROM b AS x, c WHERE x.id NOT IN (SELECT id FROM a)", "a", {"a"}, set(), {*"abc"}),
        ("DELETE FROM a WHERE id IN (SELECT id FROM b)", "a", {"a"}, set(), {"b"}),
        ("UPDATE a SET x = 1", "a", {"a"}, set(), set()),
        ("CREATE TABLE a AS SELECT * FROM b", "", set(), {"a"}, {"b"}),
        ("CREATE UNIQUE INDEX i ON a (x)", "", set(), {"i"}, set()),
        ("ALTER TABLE a ADD COLUMN x int", "a", {"a"}, set(), set()),
    ],
)
@pytest.mark.parametrize("dialect", BOTH)
def test_a_statement_tells_what_it_writes_makes_and_reads(
    dialect: str, sql: str, target: str, written: set[str], created: set[str], read: set[str]
) -> None:
    found = find_effects(sql, dialect, "home")
    assert (found.target, found.written, found.created, found.read) == (target, written, created, read)
