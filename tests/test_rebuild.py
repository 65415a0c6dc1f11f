"""`-- migrate:rebuild`: a table gets a new definition, and everything else stays as it is."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from financial_agent.migrator import effects, rebuild, repair, replay, rollback, verify
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Effect, Patience
from financial_agent.migrator.databases.rebuild import Rebuild
from financial_agent.migrator.errors import Irreversible
from financial_agent.migrator.errors_run import MigrationFailed, RebuildBreaks, RowsDoNotFit
from financial_agent.migrator.plan import Step
from financial_agent.migrator.script import MigrationFile, read
from tests.helpers import CHAT, FLASK, ROOT, Site, rows_of, run, state

KEYS = "id INTEGER PRIMARY KEY AUTOINCREMENT, parent REFERENCES parents (id), above REFERENCES t (id)"
OLD = f"CREATE TABLE t ({KEYS}, a TEXT, b INT)"
NEW = f"CREATE TABLE t ({KEYS}, a TEXT CHECK (a <> ''), b INT)"
FAMILY = f"""\
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT);
{OLD};
CREATE TABLE children (t_id NOT NULL REFERENCES t (id) ON DELETE CASCADE);
CREATE INDEX t_by_b ON t (b) WHERE a IS NOT NULL;
CREATE TRIGGER t_counts AFTER INSERT ON t BEGIN UPDATE parents SET name = name || '+' WHERE id = new.parent; END;
CREATE TRIGGER parents_look AFTER UPDATE ON parents BEGIN UPDATE t SET b = b + 1 WHERE parent = new.id; END;
CREATE VIEW v AS SELECT a, b FROM t;
CREATE TRIGGER v_insert INSTEAD OF INSERT ON v BEGIN INSERT INTO t (a, b) VALUES (new.a, new.b); END;
INSERT INTO parents VALUES (1, 'p');
INSERT INTO t VALUES (1, 1, 2, 'x', 10), (2, 1, 2, 'y', 20), (3, NULL, NULL, NULL, 30);
INSERT INTO children VALUES (1), (2);
DELETE FROM t WHERE id = 3;
"""
PLAIN = "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2), (3, 4), (5, 6); DELETE FROM t WHERE a = 1;"


def site_of(root: Path, first: str, second: str) -> Site:
    """The first migration is applied, the second is not."""
    site = Site(root / "site", {"001_first": first})
    site.prepare()
    site.write({"002_second": second})
    return site


def rebuilt(*lines: str) -> str:
    """A rebuild of t: its new definition is the last line, those before it say what is copied."""
    return "\n".join(["-- migrate:rebuild t", *(f"-- migrate:copy {line}" for line in lines[:-1]), f"{lines[-1]};"])


def contents(database: Path) -> dict[str, Any]:
    """Everything that a sound database holds but the migrations' records, with rowids and sequences."""
    with closing(sqlite3.connect(database)) as connection:

        def query(sql: str) -> list[Any]:
            return connection.execute(sql).fetchall()

        assert query("PRAGMA integrity_check") == [("ok",)]
        schema = query("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name NOT GLOB '_migration*'")
        rows = {}
        for type_, name, *_ in schema:
            if type_ == "table":
                quoted = '"' + name.replace('"', '""') + '"'
                try:
                    rows[name] = query(f"SELECT rowid, * FROM {quoted}")
                except sqlite3.OperationalError:  # WITHOUT ROWID
                    rows[name] = query(f"SELECT * FROM {quoted}")
        rows["sqlite_sequence"] = [row[1:] for row in rows.get("sqlite_sequence", []) if row[1][:1] != "_"]
        orphans = sorted(query("PRAGMA foreign_key_check"), key=repr)
    return {"schema": {row[:2]: row[2:] for row in schema}, "rows": rows, "orphans": orphans}


def roll_back(site: Site) -> None:
    rollback.rollback(str(site.database), site.directory)


def up_of(site: Site, name: str) -> Step:
    file = MigrationFile(2, name, f"{name}.sql", site.directory / f"{name}.sql", "sqlite")
    return Step(file.filename, read(file).up)


def reversible(site: Site) -> bool | None:
    """What `status` says of the newest migration."""
    found: bool | None = json.loads(site.flask("status", "--json").stdout)["migrations"][-1]["reversible"]
    return found


# What stays.


@pytest.mark.parametrize("setting", ["", "PRAGMA legacy_alter_table = ON;\n", "PRAGMA legacy_alter_table = OFF;\n"])
def test_a_rebuild_changes_its_table_and_nothing_else(tmp_path: Path, setting: str) -> None:
    site = site_of(tmp_path, FAMILY, setting + rebuilt(NEW))
    before = contents(site.database)
    site.prepare()
    after = contents(site.database)
    assert after["schema"].pop(("table", "t")) == ("t", NEW)
    assert before["schema"].pop(("table", "t")) == ("t", OLD)
    assert after == before
    assert after["rows"]["sqlite_sequence"] == [("t", 3)]
    site.do("INSERT INTO t (a) VALUES ('z')")
    assert site.value("SELECT max(id) FROM t") == 4


def test_rowids_stay_where_no_column_is_one(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, rebuilt("CREATE TABLE t (a, b, rowid DEFAULT 'hidden')"))
    site.prepare()
    assert site.rows("SELECT _rowid_, a, b, rowid FROM t") == [(2, 3, 4, "hidden"), (3, 5, 6, "hidden")]


def test_rowids_become_the_key_that_is_new(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, rebuilt("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a, b)"))
    site.prepare()
    assert site.rows("SELECT * FROM t") == [(2, 3, 4), (3, 5, 6)]
    assert site.rows("SELECT * FROM sqlite_sequence WHERE name = 't'") == [("t", 3)]


def test_a_sequence_goes_on_when_no_row_is_left(tmp_path: Path) -> None:
    site = site_of(tmp_path, f"{FAMILY}DELETE FROM children; DELETE FROM t;", rebuilt(NEW))
    site.prepare()
    assert site.rows("SELECT * FROM sqlite_sequence WHERE name = 't'") == [("t", 3)]


def test_what_analyze_found_out_stays(tmp_path: Path) -> None:
    site = site_of(tmp_path, f"{FAMILY}ANALYZE;", rebuilt(NEW))
    before = site.rows("SELECT * FROM sqlite_stat1 ORDER BY tbl, idx")
    assert ("t", "t_by_b", "2 1") in before
    site.prepare()
    assert site.rows("SELECT * FROM sqlite_stat1 ORDER BY tbl, idx") == before


def test_triggers_fire_in_the_same_order_as_before(tmp_path: Path) -> None:
    log = "CREATE TABLE log (n); CREATE TABLE t (a, b);\n" + "".join(
        f"CREATE TRIGGER {name} AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('{name}'); END;\n" for name in "bca"
    )
    site = site_of(tmp_path, log, rebuilt("CREATE TABLE t (a, b, c)"))
    site.do("INSERT INTO t VALUES (1, 2)")
    before = site.rows("SELECT n FROM log")
    site.prepare()
    site.do("DELETE FROM log", "INSERT INTO t VALUES (1, 2, 3)")
    assert site.rows("SELECT n FROM log") == before


def test_a_temporary_trigger_of_the_migration_itself_stays(tmp_path: Path) -> None:
    trigger = "CREATE TEMP TRIGGER tr AFTER INSERT ON main.t BEGIN UPDATE t SET b = 'fired' WHERE a = new.a; END;\n"
    site = site_of(tmp_path, PLAIN, f"{trigger}{rebuilt('CREATE TABLE t (a, b, c)')}\nINSERT INTO t VALUES (7, 8, 9);")
    site.prepare()
    assert site.rows("SELECT a, b FROM t") == [(3, 4), (5, 6), (7, "fired")]


def test_the_same_table_is_rebuilt_twice_among_other_statements(tmp_path: Path) -> None:
    again = rebuilt("d = c || '!'", "CREATE TABLE t (a, d)")
    second = f"{rebuilt('c = b', 'CREATE TABLE t (a, c)')}\nUPDATE t SET c = 'x' WHERE a = 3;\n{again}"
    site = site_of(tmp_path, PLAIN, second)
    site.prepare()
    assert site.rows("SELECT * FROM t") == [(3, "x!"), (5, "6!")]


def test_names_that_need_quotes_are_found_whichever_way_they_are_quoted(tmp_path: Path) -> None:
    first = 'CREATE TABLE "a ""b" ("x y" TEXT); CREATE TABLE "a " (n); INSERT INTO "a ""b" VALUES (\'1\');'
    second = '-- migrate:rebuild [a "b]\n-- migrate:copy `z z` = "x y"\nCREATE TABLE main.`A "B` ([z z] TEXT);'
    site = site_of(tmp_path, first, second)
    before = contents(site.database)
    site.prepare()
    assert site.rows('SELECT * FROM "a ""b"') == [("1",)]
    roll_back(site)
    assert contents(site.database) == before


def test_a_full_text_index_on_the_table_still_finds_its_rows(tmp_path: Path) -> None:
    index = "CREATE VIRTUAL TABLE words USING fts5 (a, content = 't'); INSERT INTO words (words) VALUES ('rebuild');"
    first = f"CREATE TABLE t (a, b); INSERT INTO t VALUES ('gone', 1), ('gold', 2); DELETE FROM t WHERE b = 1; {index}"
    site = site_of(tmp_path, first, rebuilt("CREATE TABLE t (b, a TEXT)"))
    site.prepare()
    assert site.rows("SELECT rowid, a FROM words WHERE words MATCH 'gold'") == [(2, "gold")]


# What is copied.


def test_an_expression_sees_the_old_table(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, rebuilt("n = (SELECT max(a) FROM t) - t.a -- the rest", "CREATE TABLE t (a, n)"))
    site.prepare()
    assert site.rows("SELECT * FROM t") == [(3, 2), (5, 0)]


def test_two_columns_exchange_their_values(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, rebuilt("a = b", "b = a", "CREATE TABLE t (a, b)"))
    before = contents(site.database)
    site.prepare()
    assert site.rows("SELECT * FROM t") == [(4, 3), (6, 5)]
    roll_back(site)
    assert contents(site.database) == before


def test_a_conflict_clause_of_the_new_table_drops_no_row(tmp_path: Path) -> None:
    site = site_of(
        tmp_path, f"{PLAIN}INSERT INTO t VALUES (3, 9);", rebuilt("CREATE TABLE t (a UNIQUE ON CONFLICT REPLACE)")
    )
    before = state(site.database)
    with pytest.raises(RowsDoNotFit, match="1 of 3 rows of t do not fit its new definition: UNIQUE constraint"):
        site.prepare()
    assert state(site.database) == before


# What would break.

BREAKING = {
    "a trigger's body": ("CREATE TRIGGER x AFTER UPDATE ON t BEGIN SELECT new.b; END;", "a trigger of t"),
    "a trigger's columns": ('CREATE TRIGGER x AFTER UPDATE OF a, "b" ON t BEGIN SELECT 1; END;', "trigger x"),
    "another table's trigger": (
        "CREATE TABLE o (i); CREATE TRIGGER x AFTER DELETE ON o BEGIN UPDATE t SET b = 1; END;",
        "a trigger of o",
    ),
    "a view": ("CREATE VIEW x AS SELECT b FROM t;", "view x"),
}


@pytest.mark.parametrize(("sql", "what"), BREAKING.values(), ids=BREAKING.keys())
def test_what_uses_a_column_that_goes_away_is_named_and_nothing_changes(tmp_path: Path, sql: str, what: str) -> None:
    site = site_of(tmp_path, f"{PLAIN}{sql}", rebuilt("CREATE TABLE t (a)"))
    before = state(site.database)
    with pytest.raises(RebuildBreaks, match=f"{what} would no longer work"):
        site.prepare()
    assert state(site.database) == before


def test_what_was_broken_before_is_in_nobodys_way(tmp_path: Path) -> None:
    broken = "CREATE VIEW x AS SELECT * FROM nowhere; CREATE TRIGGER y INSTEAD OF INSERT ON x BEGIN SELECT 1; END;"
    site = site_of(tmp_path, f"{PLAIN}{broken}", rebuilt("CREATE TABLE t (a)"))
    site.prepare()
    assert site.rows("SELECT * FROM t") == [(3,), (5,)]


def test_a_trigger_that_a_temporary_table_would_catch_is_not_lost(tmp_path: Path) -> None:
    first = f"{PLAIN}CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END;"
    site = site_of(tmp_path, first, f"CREATE TEMP TABLE t (a);\n{rebuilt('CREATE TABLE t (a)')}")
    with pytest.raises(RebuildBreaks, match="trigger x would no longer work: it would not be as it was"):
        site.prepare()


def test_a_key_that_children_refer_to_cannot_go(tmp_path: Path) -> None:
    first = "CREATE TABLE t (id INTEGER PRIMARY KEY, k UNIQUE); CREATE TABLE c (k REFERENCES t (k));"
    site = site_of(tmp_path, first, rebuilt("j = k", "CREATE TABLE t (id INTEGER PRIMARY KEY, j UNIQUE)"))
    finished = site.migrate()
    assert finished.returncode == 3
    assert "Error FA303" in finished.stderr


def test_an_error_in_a_value_is_no_values_to_show(tmp_path: Path) -> None:
    site = site_of(
        tmp_path, "CREATE TABLE t (a); INSERT INTO t VALUES ('secret');", rebuilt("a = json(a)", "CREATE TABLE t (a)")
    )
    with pytest.raises(MigrationFailed) as error:
        site.prepare()
    assert "secret" not in str(error.value)


# The way back.


def test_a_rebuild_without_a_down_section_is_rolled_back_by_one_that_was_made(tmp_path: Path) -> None:
    site = site_of(tmp_path, FAMILY, rebuilt("c = b", f"CREATE TABLE t ({KEYS}, a TEXT, c INT)"))
    site.do("DROP INDEX t_by_b", "DROP VIEW v", "DROP TRIGGER parents_look")
    before = contents(site.database)
    assert reversible(site) is True
    rehearsed = site.flask("migrate", "--dry-run")
    assert "the down section brings schema and rows back" in rehearsed.stdout, rehearsed.stdout + rehearsed.stderr
    site.prepare()
    assert reversible(site) is True
    assert site.rows("SELECT c FROM t") == [row[-1:] for row in before["rows"]["t"]]
    roll_back(site)
    assert contents(site.database) == before


def test_several_rebuilds_are_undone_the_last_first(tmp_path: Path) -> None:
    other = "-- migrate:rebuild o\nCREATE TABLE o (x, y);\n"
    second = f"{rebuilt('c = b', 'CREATE TABLE t (a, c)')}\n{other}{rebuilt('d = c', 'CREATE TABLE t (a, d)')}"
    site = site_of(tmp_path, f"{PLAIN}CREATE TABLE o (x);", second)
    before = contents(site.database)
    site.prepare()
    roll_back(site)
    assert contents(site.database) == before


def test_a_column_comes_back_with_its_default_or_not_at_all(tmp_path: Path) -> None:
    first = "CREATE TABLE t (a INTEGER PRIMARY KEY, b NOT NULL DEFAULT 7, c); INSERT INTO t VALUES (1, 2, 3);"
    site = site_of(tmp_path, first, rebuilt("CREATE TABLE t (a INTEGER PRIMARY KEY)"))
    rehearsed = site.flask("migrate", "--dry-run").stdout
    assert "drops column t.b" in rehearsed
    assert "1 value of t.b would not come back" in rehearsed
    site.prepare()
    roll_back(site)
    assert site.rows("SELECT * FROM t") == [(1, 7, None)]


def test_a_column_that_must_have_a_value_makes_a_rebuild_irreversible(tmp_path: Path) -> None:
    site = site_of(
        tmp_path, "CREATE TABLE t (a, b NOT NULL); INSERT INTO t VALUES (1, 2);", rebuilt("CREATE TABLE t (a)")
    )
    assert reversible(site) is False
    assert "none: a column that it drops must have a value" in site.flask("migrate", "--dry-run").stdout
    site.prepare()
    assert reversible(site) is False
    with pytest.raises(Irreversible):
        roll_back(site)


def test_a_down_section_of_the_files_own_is_the_one_that_counts(tmp_path: Path) -> None:
    second = f"-- migrate:up\n{rebuilt('CREATE TABLE t (a, b, c)')}\n-- migrate:down\nALTER TABLE t DROP COLUMN c;"
    site = site_of(tmp_path, PLAIN, second)
    site.prepare()
    roll_back(site)
    assert site.value("SELECT sql FROM sqlite_schema WHERE name = 't'") == "CREATE TABLE t (a, b)"


def test_a_rebuild_beside_other_statements_has_no_way_back_made(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, f"{rebuilt('CREATE TABLE t (a, b, c)')}\nUPDATE t SET c = 1;")
    assert reversible(site) is False
    site.prepare()
    assert reversible(site) is False


def test_the_way_back_that_was_made_outlives_an_edit_of_the_file_and_its_repair(tmp_path: Path) -> None:
    second = rebuilt("CREATE TABLE t (a, b, c)")
    site = site_of(tmp_path, PLAIN, second)
    before = contents(site.database)
    site.prepare()
    site.write({"002_second": f"-- Why.\n{second}"})
    report = verify.verify(str(site.database), site.directory, control=Control())
    assert [finding.message.partition("; ")[2] for finding in report.findings] == [
        "only comments or white space differ"
    ]
    repair.repair(str(site.database), site.directory, "2", "a comment", Control())
    roll_back(site)
    assert contents(site.database) == before


def test_a_string_that_reads_like_a_dropped_column_is_not_taken_for_it_on_the_way_back(tmp_path: Path) -> None:
    site = site_of(
        tmp_path, "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2);", rebuilt("c = 'a'", "CREATE TABLE t (b, c)")
    )
    site.prepare()
    assert site.rows("SELECT b, c FROM t") == [(2, "a")]
    roll_back(site)
    assert site.rows("SELECT a, b FROM t") == [(None, 2)]


def test_an_edit_of_what_is_copied_is_an_edit_of_what_ran(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, rebuilt("c = a", "CREATE TABLE t (a, b, c)"))
    site.prepare()
    site.write({"002_second": rebuilt("c = b", "CREATE TABLE t (a, b, c)")})
    report = verify.verify(str(site.database), site.directory, control=Control())
    assert [each.message.partition("; ")[2] for each in report.findings] == ["its statements are not those that ran"]


@pytest.mark.parametrize(
    "reverse",
    [
        Rebuild("two\nlines", 'CREATE TABLE "two\nlines" (a);'),
        Rebuild("t", "CREATE TABLE t (a -- migrate:up\n);"),
        Rebuild("t", "CREATE TABLE t (a);", (("a", '"x\ny"'),)),
    ],
)
def test_what_cannot_be_written_into_a_file_has_no_way_back(reverse: Rebuild) -> None:
    assert rebuild.down_text([reverse]) is None
    assert rebuild.down_text([Rebuild("t", "CREATE TABLE t (a);", (("a", '"b"'),))]) is not None


def test_a_check_proves_the_way_back_that_is_made(tmp_path: Path) -> None:
    first = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL);"
    site = Site(
        tmp_path / "site",
        {"001_first": first, "002_second": rebuilt("b = a", "CREATE TABLE t (id INTEGER PRIMARY KEY, b TEXT)")},
    )
    told = run([*FLASK, "check", "--directory", str(site.directory)], site.root).stdout
    assert "FA658: 002_second.sql: its down section fails once there are rows in what its up section made" in told
    assert "FA603: 001_first.sql: CREATE TABLE t without IF NOT EXISTS" in told
    assert "FA603: 002_second.sql" not in told
    assert "FA660: 002_second.sql" not in told  # it can be rolled back


@pytest.mark.parametrize("other", ["CREATE VIEW o AS SELECT 1 AS a", "CREATE VIRTUAL TABLE o USING fts5 (a)"])
def test_only_an_ordinary_table_can_be_rebuilt(tmp_path: Path, other: str) -> None:
    site = site_of(tmp_path, f"{other};", "-- migrate:rebuild O\nCREATE TABLE O (a);")
    with pytest.raises(MigrationFailed, match="O is no ordinary table"):
        site.prepare()


# What is known beforehand.


@pytest.mark.parametrize(
    ("lines", "destroyed"),
    [
        (("CREATE TABLE t (a TEXT, b INT, c)",), []),
        (("c = b", "CREATE TABLE t (a TEXT, c INT)"), []),
        (("CREATE TABLE t (b INT)",), [Effect("drop column", "t", "a")]),
        (("a = upper(a)", "CREATE TABLE t (a TEXT, b INT)"), [Effect("update", "t", "a", everywhere=True)]),
        (("a = [A]", "CREATE TABLE t (a TEXT, b INT)"), []),
        (("CREATE TABLE t (a INT, b INTEGER)",), [Effect("update", "t", "a", everywhere=True)]),
        (("CREATE TABLE t (a TEXT AS ('x'), b INT)",), [Effect("update", "t", "a", everywhere=True)]),
        (("c = 'a'", "CREATE TABLE t (c TEXT, b INT)"), [Effect("drop column", "t", "a")]),
        (("a = 'a'", "CREATE TABLE t (a TEXT, b INT)"), [Effect("update", "t", "a", everywhere=True)]),
        (("c = a", "CREATE TABLE t (c INT, b INT)"), [Effect("update", "t", "a", everywhere=True)]),
        (("a = a", "CREATE TABLE t (a INT, b INT)"), [Effect("update", "t", "a", everywhere=True)]),
        (("a = b", "b = a", "CREATE TABLE t (a INT, b TEXT)"), []),
    ],
)
def test_it_is_foreseen_what_a_rebuild_destroys(
    tmp_path: Path, lines: tuple[str, ...], destroyed: list[Effect]
) -> None:
    site = site_of(tmp_path, "CREATE TABLE t (a TEXT, b INT);", rebuilt(*lines))
    assert effects.foresee(str(site.database), [up_of(site, "002_second")], Patience()) == destroyed


def test_it_is_foreseen_that_any_converts_once_a_table_is_no_longer_strict(tmp_path: Path) -> None:
    site = site_of(tmp_path, "CREATE TABLE t (a ANY, b INT) STRICT;", rebuilt("CREATE TABLE t (a any, b INT)"))
    destroyed = effects.foresee(str(site.database), [up_of(site, "002_second")], Patience())
    assert destroyed == [Effect("update", "t", "a", everywhere=True)]
    site.write({"002_second": rebuilt("CREATE TABLE t (a, b INT)")})
    assert effects.foresee(str(site.database), [up_of(site, "002_second")], Patience()) == []


def test_a_replay_makes_the_same_schema_so_that_nothing_has_drifted(tmp_path: Path) -> None:
    site = site_of(tmp_path, FAMILY, rebuilt(NEW))
    site.prepare()
    assert verify.verify(str(site.database), site.directory, control=Control()).findings == ()
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history")
    site.prepare()  # the ledger is found again by the schema
    assert site.applied() == ["001_first", "002_second"]


def test_a_replay_of_a_rebuild_that_fails_says_so(tmp_path: Path) -> None:
    site = site_of(tmp_path, PLAIN, rebuilt("c = nope", "CREATE TABLE t (c)"))
    with pytest.raises(replay.CannotReplay, match=r"002_second\.sql cannot be replayed"):
        replay.result("sqlite:", [up_of(site, "001_first"), up_of(site, "002_second")], Patience())


# The documentation, and a large table.


def test_the_example_of_the_documentation_rebuilds_a_table_of_the_chat_store(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "migrations.md").read_text(encoding="utf-8")
    example = re.search(r"## Rebuilding a table\n.*?```sql\n(.*?)```", page, re.DOTALL)
    assert example
    site = Site(tmp_path / "site", {path.stem: path.read_text() for path in CHAT})
    site.prepare()
    site.do(
        "INSERT INTO conversations (session_id) VALUES ('s'), ('s')",
        "INSERT INTO conversation_summaries (conversation_id, title, summary) VALUES (2, 'Gold', 'Nine char')",
    )
    before = contents(site.database)
    site.write({"005_titles": example[1]})
    site.prepare()
    assert site.rows("SELECT conversation_id, title, tokens FROM conversation_summaries") == [(2, "Gold", 3)]
    site.do("UPDATE conversation_summaries SET title = 'Silver'")
    assert site.value("SELECT updated_at >= created_at FROM conversation_summaries") == 1
    site.do("UPDATE conversation_summaries SET title = 'Gold', updated_at = created_at")
    roll_back(site)
    after = contents(site.database)
    assert after["schema"] == before["schema"]
    assert len(after["rows"]["conversation_summaries"]) == 1


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_call_leaves_the_table_as_it_was_or_rebuilt(tmp_path: Path) -> None:
    site = site_of(
        tmp_path, FAMILY + rows_of(2000, "t (b, a)"), rebuilt("c = b + 1", f"CREATE TABLE t ({KEYS}, a, b, c)")
    )
    before = contents(site.database)
    deaths = 0
    for dies_at in range(1, 400):
        copy = site.copy(tmp_path / str(dies_at))
        code = copy.migrate(dies_at=dies_at).returncode
        found = contents(copy.database)
        if code == 0:
            break
        deaths += 1
        if copy.applied() == ["001_first"]:
            assert found == before
        assert copy.migrate().returncode == 0
        assert copy.value("SELECT count(*) FROM t WHERE c = b + 1") == 2002
    assert deaths > 30


@pytest.mark.slow
def test_a_rebuild_of_a_large_table_holds_no_rows_in_memory(tmp_path: Path) -> None:
    site = site_of(
        tmp_path, "CREATE TABLE t (b, a);" + rows_of(600_000, "t"), rebuilt("CREATE TABLE t (a TEXT, b INT)")
    )
    # Not ru_maxrss: that begins with what the process had that started this one.
    code = (
        "import re, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    import subprocess
    import sys

    script = ROOT / "financial_agent" / "migrations" / "run_migrations.py"
    finished = subprocess.run(
        [sys.executable, "-c", code, str(script), *site.options()], capture_output=True, text=True, check=True
    )
    assert site.value("SELECT count(*) FROM t WHERE a = printf('%0100d', b)") == 600_000
    assert int(finished.stdout.split()[-1]) < 100_000  # KB; the table has 66 MB
