"""Foreign keys are enforced, and a migration does not take rows from other tables without saying so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import Site, snapshot

FAMILY = """\
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE cascaded (id INTEGER PRIMARY KEY, parent_id INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE);
CREATE TABLE nulled (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parents (id) ON DELETE SET NULL);
CREATE TABLE defaulted (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parents (id) ON DELETE SET DEFAULT);
INSERT INTO parents VALUES (1, 'Ada'), (2, 'Bob');
INSERT INTO cascaded VALUES (1, 1), (2, 2), (3, 2);
INSERT INTO nulled VALUES (1, 1), (2, 2);
INSERT INTO defaulted VALUES (1, 2);
"""
CHILDREN = {"cascaded": [(1, 1), (2, 2), (3, 2)], "nulled": [(1, 1), (2, 2)], "defaulted": [(1, 2)]}
REBUILD = """\
CREATE TABLE new_parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT '');
INSERT INTO new_parents (id, name) SELECT id, name FROM parents;
DROP TABLE parents;
ALTER TABLE new_parents RENAME TO parents;
"""
OFF, ON = "PRAGMA foreign_keys=OFF;", "PRAGMA foreign_keys=ON;"

SPELLINGS = {
    "the PRAGMA, bare": f"{OFF}\n{REBUILD}{ON}",
    "the PRAGMA around a transaction": f"{OFF}\nBEGIN TRANSACTION;\n{REBUILD}COMMIT;\n{ON}",
    "the PRAGMA, never switched on again": f"{OFF}\n{REBUILD}",
    "the PRAGMA in odd spelling": f"pragma /* of main */ main.foreign_keys ( 'off' );\n{REBUILD}",
    "the directive": f"-- migrate:foreign_keys off\n{REBUILD}",
    "outside a transaction": (
        f"-- migrate:SECTION transaction:false\n{OFF}\nBEGIN;\n{REBUILD}PRAGMA foreign_key_check;\nCOMMIT;\n{ON}"
    ),
}
each_spelling = pytest.mark.parametrize("rebuild", SPELLINGS.values(), ids=SPELLINGS.keys())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A database with parents and children, migrated."""
    site = Site(tmp_path / "site", {"001_family": FAMILY})
    site.prepare()
    return site


def children(site: Site) -> dict[str, list[tuple[int, int]]]:
    return {table: site.rows(f"SELECT id, parent_id FROM {table} ORDER BY id") for table in CHILDREN}


def is_rebuilt(site: Site) -> bool:
    return "NOT NULL" in site.value("SELECT sql FROM sqlite_schema WHERE name = 'parents'")


# A rebuild keeps the children.


def up(sql: str) -> str:
    """The same statements as an up section, which takes directives only where they belong."""
    return sql.replace("SECTION", "up") if "SECTION" in sql else f"-- migrate:up\n{sql}"


def down(sql: str) -> str:
    """A migration whose down section they are."""
    head = "-- migrate:up\nCREATE TABLE extra (x);\n"
    return head + (sql.replace("SECTION", "down") if "SECTION" in sql else f"-- migrate:down\n{sql}")


@each_spelling
def test_rebuilding_a_parent_table_keeps_every_child_row(site: Site, rebuild: str) -> None:
    site.write({"002_rebuild": up(rebuild)})
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert is_rebuilt(site)
    assert children(site) == CHILDREN
    assert site.rows("SELECT id, name FROM parents") == [(1, "Ada"), (2, "Bob")]
    assert site.rows("PRAGMA foreign_key_check") == []


@each_spelling
def test_rolling_back_by_a_rebuild_keeps_every_child_row(site: Site, rebuild: str) -> None:
    site.write({"002_rebuild": down(rebuild)})
    site.prepare()
    finished = site.flask("rollback", "--yes")
    assert finished.returncode == 0, finished.stderr
    assert is_rebuilt(site)
    assert children(site) == CHILDREN
    assert site.applied() == ["001_family"]


def test_the_stored_down_section_keeps_the_directive(site: Site) -> None:
    site.write({"002_rebuild": down(SPELLINGS["the directive"])})
    site.prepare()
    (site.directory / "002_rebuild.sql").unlink()
    assert site.flask("rollback", "--yes").returncode == 0
    assert is_rebuilt(site)
    assert children(site) == CHILDREN


def test_a_directive_before_the_sections_holds_for_both(site: Site) -> None:
    back = REBUILD.replace("TEXT NOT NULL DEFAULT ''", "TEXT")
    site.write({"002_rebuild": f"-- migrate:foreign_keys off\n-- migrate:up\n{REBUILD}\n-- migrate:down\n{back}"})
    site.prepare()
    assert is_rebuilt(site)
    assert site.flask("rollback", "--yes").returncode == 0
    assert not is_rebuilt(site)
    assert children(site) == CHILDREN


# Without a word about foreign keys the rebuild is refused.


def test_a_drop_that_would_reach_children_is_refused_before_anything_is_touched(site: Site) -> None:
    site.write({"002_fine": "CREATE TABLE fine (x);", "003_rebuild": REBUILD})
    before = snapshot(site.root)
    finished = site.migrate()
    assert finished.returncode == 4
    assert "FA401" in finished.stderr
    assert "003_rebuild.sql:3:1" in finished.stderr
    assert "DROP TABLE parents would delete or clear rows of cascaded, defaulted, nulled" in finished.stderr
    assert "-- migrate:foreign_keys off" in finished.stderr
    assert "-- migrate:allow cascade" in finished.stderr
    assert snapshot(site.root) == before


def test_a_drop_in_a_down_section_that_would_reach_children_is_refused(site: Site) -> None:
    site.write({"002_rebuild": down(REBUILD)})
    site.prepare()
    before = snapshot(site.root)
    finished = site.flask("rollback", "--yes")
    assert finished.returncode == 4
    assert "FA401" in finished.stderr
    assert "Next:  To rebuild the table" in finished.stderr
    assert snapshot(site.root) == before


def test_a_drop_is_refused_although_the_tables_are_made_in_the_same_run(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_family": FAMILY, "002_rebuild": REBUILD})
    assert site.migrate().returncode == 4
    assert site.tables() == set()


def test_a_drop_that_only_the_rows_would_reveal_is_refused_within_its_transaction(site: Site) -> None:
    """The definitions alone do not run on an empty copy of the schema: the index is on rows that exist only here."""
    site.write({"002_rebuild": f"CREATE TEMP TABLE t AS SELECT 1; CREATE TABLE u AS SELECT * FROM t;\n{REBUILD}"})
    assert site.migrate().returncode == 4
    assert children(site) == CHILDREN
    assert site.applied() == ["001_family"]
    assert site.tables() == {"parents", *CHILDREN}


DROPS = {
    "quoted": 'DROP TABLE "parents";',
    "in brackets": "DROP TABLE [parents];",
    "with its schema": "DROP TABLE main . parents;",
    "if it exists": "drop table if exists PARENTS;",
    "with comments": "DROP /* it */ TABLE -- really\n parents;",
    "renamed before": "ALTER TABLE parents RENAME TO old_parents; DROP TABLE old_parents;",
    "parent before child": "DROP TABLE parents; DROP TABLE cascaded; DROP TABLE nulled; DROP TABLE defaulted;",
    "outside a transaction": "-- migrate:up transaction:false\nDROP TABLE parents;",
    "foreign keys on": f"{ON} DROP TABLE parents;",
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS.keys())
def test_a_drop_is_known_however_it_is_spelled(site: Site, drop: str) -> None:
    site.write({"002_drop": drop})
    finished = site.migrate()
    assert finished.returncode == 4
    assert "FA401" in finished.stderr
    assert children(site) == CHILDREN
    assert "parents" in site.tables()


def test_children_may_be_dropped_before_their_parent(site: Site) -> None:
    site.write({"002_drop": "DROP TABLE cascaded; DROP TABLE nulled; DROP TABLE defaulted; DROP TABLE parents;"})
    assert site.migrate().returncode == 0
    assert site.tables() == set()


def test_allow_cascade_lets_the_rows_go(site: Site) -> None:
    site.write({"002_drop": "-- migrate:allow cascade\nDROP TABLE defaulted; DROP TABLE parents;"})
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert site.rows("SELECT * FROM cascaded") == []
    assert site.rows("SELECT * FROM nulled") == [(1, None), (2, None)]


def test_allow_cascade_lets_a_parent_be_dropped_before_its_children(site: Site) -> None:
    site.write({"002_drop": f"-- migrate:allow cascade\nDROP TABLE defaulted; {DROPS['parent before child'][:-22]}"})
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert site.tables() == set()


def test_a_table_that_no_action_reaches_may_be_dropped(site: Site) -> None:
    """RESTRICT and NO ACTION protect rows themselves: the DROP fails when there are any."""
    site.write({"002_more": "CREATE TABLE kept (p REFERENCES parents (id)); CREATE TABLE alone (x); DROP TABLE alone;"})
    assert site.migrate().returncode == 0


def test_a_drop_of_a_parent_with_rows_that_restrict_it_fails(site: Site) -> None:
    site.do(
        "CREATE TABLE strict (parent_id REFERENCES parents (id) ON DELETE RESTRICT)", "INSERT INTO strict VALUES (1)"
    )
    site.write({"002_drop": "DROP TABLE cascaded; DROP TABLE nulled; DROP TABLE defaulted; DROP TABLE parents;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "FOREIGN KEY constraint failed" in finished.stderr
    assert children(site) == CHILDREN


def test_a_delete_that_says_so_cascades(site: Site) -> None:
    site.write({"002_delete": "DELETE FROM parents WHERE id = 2;"})
    assert site.migrate().returncode == 0
    assert site.rows("SELECT id FROM cascaded") == [(1,)]


TREE = "CREATE TABLE nodes (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES nodes (id) ON DELETE CASCADE);"
NEW_TREE = TREE.replace("nodes (id INTEGER PRIMARY KEY", "new_nodes (id INTEGER PRIMARY KEY, name TEXT")
REBUILD_TREE = (
    f"{NEW_TREE}\nINSERT INTO new_nodes (id, parent_id) SELECT id, parent_id FROM nodes;\n"
    "DROP TABLE nodes;\nALTER TABLE new_nodes RENAME TO nodes;"
)


def test_rebuilding_a_table_that_refers_to_itself_keeps_every_row(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_tree": f"{TREE} INSERT INTO nodes VALUES (1, NULL), (2, 1), (3, 2);"})
    site.prepare()
    site.write({"002_rebuild": REBUILD_TREE})
    refused = site.migrate()
    assert refused.returncode == 4
    assert "rows of new_nodes" in refused.stderr
    assert site.rows("SELECT * FROM nodes") == [(1, None), (2, 1), (3, 2)]
    site.write({"002_rebuild": f"-- migrate:foreign_keys off\n{REBUILD_TREE}"})
    assert site.migrate().returncode == 0
    assert site.rows("SELECT id, parent_id, name FROM nodes") == [(1, None, None), (2, 1, None), (3, 2, None)]


def test_a_table_that_refers_to_itself_may_be_dropped(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_tree": f"{TREE} INSERT INTO nodes VALUES (1, NULL), (2, 1);"})
    site.prepare()
    site.write({"002_drop": "DROP TABLE nodes;"})
    assert site.migrate().returncode == 0


# Orphans.


def test_enforcement_is_on_without_a_word(site: Site) -> None:
    site.write({"002_orphan": "INSERT INTO cascaded VALUES (9, 99);"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "FOREIGN KEY constraint failed" in finished.stderr
    assert children(site) == CHILDREN


@pytest.mark.parametrize("directive", [f"{OFF}\n", "-- migrate:foreign_keys off\n"], ids=["PRAGMA", "directive"])
def test_new_orphans_are_refused_before_the_commit_with_their_number(site: Site, directive: str) -> None:
    site.write({"002_lose": f"{directive}DELETE FROM parents WHERE id = 2;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "FA303" in finished.stderr
    assert (
        "2 rows of cascaded without parents, 1 row of defaulted without parents, 1 row of nulled without parents"
        in finished.stderr
    )
    assert children(site) == CHILDREN
    assert site.rows("SELECT id FROM parents") == [(1,), (2,)]
    assert site.applied() == ["001_family"]


def test_new_orphans_of_a_down_section_are_refused(site: Site) -> None:
    site.write({"002_lose": down(f"{OFF} DELETE FROM parents WHERE id = 2;")})
    site.prepare()
    finished = site.flask("rollback", "--yes")
    assert finished.returncode == 3
    assert "2 rows of cascaded without parents" in finished.stderr
    assert children(site) == CHILDREN
    assert site.applied() == ["001_family", "002_lose"]


def test_a_deferred_key_that_fails_at_the_commit_is_told_without_old_orphans(site: Site) -> None:
    site.do("INSERT INTO cascaded VALUES (8, 88)")
    site.write(
        {
            "002_fine": "CREATE TABLE late (parent_id REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);",
            "003_guilty": "INSERT INTO late VALUES (98), (99);",
        }
    )
    finished = site.migrate()
    assert finished.returncode == 3
    assert (
        "003_guilty.sql failed: it would leave rows without their parent: 2 rows of late without parents"
        in finished.stderr
    )
    assert site.applied() == ["001_family", "002_fine"]
    assert site.rows("SELECT * FROM late") == []


# Children with an orphan in them, and a rebuild that keeps it: with another rowid where there is one.
RENUMBERED = """\
CREATE TABLE new_children AS SELECT * FROM children ORDER BY rowid DESC;
DELETE FROM children; INSERT INTO children SELECT * FROM new_children; DROP TABLE new_children;
"""
ORPHANS = {
    "rowid": (
        "CREATE TABLE children (code TEXT, parent_id INTEGER REFERENCES parents (id));",
        "'a', 1), ('b', 98), ('c', 99), ('d', 2",
        RENUMBERED,
        "2 rows of children without parents",
    ),
    "WITHOUT ROWID": (
        "CREATE TABLE children (code TEXT PRIMARY KEY, parent_id INTEGER REFERENCES parents (id)) WITHOUT ROWID;",
        "'a', 1), ('b', 98), ('c', 99), ('d', 2",
        "UPDATE children SET code = code || code;",
        "2 rows of children without parents",
    ),
    "a composite key": (
        "CREATE TABLE pairs (a, b, PRIMARY KEY (a, b));"
        "CREATE TABLE children (a, b, FOREIGN KEY (a, b) REFERENCES pairs (a, b));",
        "1, 98), (NULL, 7), (2, 99",
        RENUMBERED,
        "2 rows of children without pairs",
    ),
    "a column named rowid": (
        "CREATE TABLE children (rowid TEXT, parent_id INTEGER REFERENCES parents (id));",
        "'x', 98), ('y', 99), ('z', 1",
        RENUMBERED.replace("BY rowid", "BY parent_id"),
        "2 rows of children without parents",
    ),
    "a missing parent table": (
        "CREATE TABLE children (code TEXT, parent_id INTEGER REFERENCES nowhere (id));",
        "'a', 98), ('b', 99",
        RENUMBERED,
        "2 rows of children without nowhere",
    ),
}
each_orphan = pytest.mark.parametrize(("tables", "rows", "rebuild", "told"), ORPHANS.values(), ids=ORPHANS.keys())


@each_orphan
def test_old_orphans_are_reported_and_do_not_block(site: Site, tables: str, rows: str, rebuild: str, told: str) -> None:
    site.do(*tables.split(";"), f"INSERT INTO children VALUES ({rows})")
    before = sorted(site.rows("SELECT parent_id FROM children" if "parent_id" in tables else "SELECT b FROM children"))
    site.write({"002_rebuild": f"{OFF}\n{rebuild}\n{REBUILD}"})
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr
    assert f"were there before and stay as they are: {told}" in finished.stderr
    assert (
        sorted(site.rows("SELECT parent_id FROM children" if "parent_id" in tables else "SELECT b FROM children"))
        == before
    )


@each_orphan
def test_a_new_orphan_is_found_among_old_ones_also_when_one_of_those_goes(
    site: Site, tables: str, rows: str, rebuild: str, told: str
) -> None:
    """Comparing their numbers would not show it."""
    site.do(*tables.split(";"), f"INSERT INTO children VALUES ({rows})")
    key = "parent_id" if "parent_id" in tables else "b"
    site.write({"002_swap": f"{OFF}\nUPDATE children SET {key} = 77 WHERE {key} = 98;"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert told.replace("2 rows", "1 row") in finished.stderr
    assert site.value(f"SELECT count(*) FROM children WHERE {key} = 77") == 0


def test_removing_old_orphans_is_no_violation(site: Site) -> None:
    site.do("INSERT INTO cascaded VALUES (8, 88)")
    site.write({"002_clean": f"{OFF} DELETE FROM cascaded WHERE parent_id = 88;"})
    assert site.migrate().returncode == 0


RENAMES = {
    "the child's column": "ALTER TABLE cascaded RENAME COLUMN parent_id TO elder_id;",
    "the child's type": (
        "CREATE TABLE kids (id INTEGER PRIMARY KEY, parent_id TEXT REFERENCES parents (id));"
        "INSERT INTO kids SELECT * FROM cascaded; DROP TABLE cascaded; ALTER TABLE kids RENAME TO cascaded;"
    ),
}


@pytest.mark.parametrize("rename", RENAMES.values(), ids=RENAMES.keys())
def test_renaming_and_retyping_do_not_make_an_old_orphan_new(site: Site, rename: str) -> None:
    site.do("INSERT INTO cascaded VALUES (8, 88)")
    site.write({"002_rename": f"{OFF} {rename}"})
    finished = site.migrate()
    assert finished.returncode == 0, finished.stderr


def test_new_orphans_outside_a_transaction_are_told_before_their_own_commit(site: Site) -> None:
    section = (
        "-- migrate:up transaction:false\n-- migrate:foreign_keys off\nBEGIN; DELETE FROM parents WHERE id = 2; COMMIT;"
    )
    site.write({"002_lose": section})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "2 rows of cascaded without parents" in finished.stderr
    assert children(site) == CHILDREN
    assert site.rows("SELECT id FROM parents") == [(1,), (2,)]


def test_switching_foreign_keys_off_ends_with_the_migration(site: Site) -> None:
    site.write({"002_rebuild": f"{OFF}\n{REBUILD}", "003_orphan": "INSERT INTO cascaded VALUES (9, 99);"})
    finished = site.migrate()
    assert finished.returncode == 3
    assert "003_orphan.sql" in finished.stderr
    assert site.applied() == ["001_family", "002_rebuild"]
    assert children(site) == CHILDREN
