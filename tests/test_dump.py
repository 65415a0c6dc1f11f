"""`schema.sql`: the same for equal schemas, loadable, and a beginning from which `migrate` goes on."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import dump, rollback, runner, schema, verify
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import DatabaseMissing, DumpRefused
from tests.helpers import FLASK, Site, run, snapshot

CONTROL = Control()
# What SQLite has to offer; each line makes one object, in no good order.
OBJECTS = """\
CREATE TABLE zoo (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE NOT NULL DEFAULT 'it''s; -- none');
CREATE TABLE animals (id INTEGER PRIMARY KEY, zoo_id REFERENCES zoo (id) ON DELETE CASCADE, twin REFERENCES animals);
CREATE TABLE "odd ""name"", größe" ("select" PRIMARY KEY, [a b] TEXT CHECK ([a b] <> ';')) WITHOUT ROWID;
CREATE TABLE strict_one (a INTEGER NOT NULL, b TEXT GENERATED ALWAYS AS (a || 'x') STORED, c INTEGER AS (a * 2)) STRICT;
CREATE VIRTUAL TABLE search USING fts5(name, content='zoo', content_rowid='id');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
CREATE VIEW a_view AS SELECT * FROM z_view -- all of them
;
CREATE VIEW z_view AS SELECT name FROM zoo;
CREATE UNIQUE INDEX a_index ON zoo (lower(name)) WHERE name <> '';
CREATE INDEX "index of odd" ON "odd ""name"", größe" ([a b] DESC);
CREATE TRIGGER on_view INSTEAD OF INSERT ON a_view BEGIN INSERT INTO zoo (name) VALUES (new.name); SELECT 1; END;
CREATE TRIGGER after_zoo AFTER INSERT ON zoo BEGIN
  -- kept as it is
  INSERT INTO search (rowid, name) VALUES (new.id, new.name);
END;
INSERT INTO zoo (name) VALUES ('Basel');
ALTER TABLE zoo ADD COLUMN city TEXT;
ALTER TABLE strict_one RENAME TO "renamed one";
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(
        tmp_path, {"001_objects": OBJECTS, "002_rows": "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n"}
    )
    site.prepare()
    return site


def text_of(site: Site) -> str:
    return dump.of_database(str(site.database), CONTROL)


def with_sqlite3(path: Path, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(text)


def with_the_shell(path: Path, text: str) -> None:
    subprocess.run(["sqlite3", "-bail", str(path)], input=text.encode(), check=True, timeout=60)


def schema_of(path: Path) -> tuple[object, ...]:
    with closing(connect(str(path))) as db:
        return schema.read(db).objects


@pytest.mark.parametrize("load", [with_sqlite3, with_the_shell])
def test_what_is_loaded_from_it_has_an_equal_schema_and_dumps_the_same(load: object, site: Site) -> None:
    assert callable(load)
    path = site.root / "new.db"
    load(path, text_of(site))
    assert schema_of(path) == schema_of(site.database)
    assert dump.of_database(str(path), CONTROL) == text_of(site)


def test_a_loaded_database_is_not_migrated_twice_and_goes_on_from_there(site: Site) -> None:
    path = site.root / "new.db"
    with_sqlite3(path, text_of(site))
    assert verify.verify(str(path), site.directory, control=CONTROL).findings == ()
    assert runner.migrate(str(path), site.directory).done == []
    site.write({"003_more": "-- migrate:up\nCREATE TABLE more (id);\n-- migrate:down\nDROP TABLE more;\n"})
    assert [done.filename for done in runner.migrate(str(path), site.directory).done] == ["003_more.sql"]
    assert verify.verify(str(path), site.directory, control=CONTROL).findings == ()
    assert rollback.rollback(str(path), site.directory, steps=2).current == "001_objects.sql"


def test_it_does_not_depend_on_the_order_in_which_objects_were_made(site: Site, tmp_path: Path) -> None:
    parts = [
        "CREATE TABLE a (x);",
        "CREATE TABLE b (x);",
        "CREATE INDEX i ON b (x);",
        "CREATE VIEW v AS SELECT * FROM a;",
    ]
    texts = set()
    for at, order in enumerate((parts, [parts[1], parts[2], parts[0], parts[3]])):
        path = tmp_path / f"{at}.db"
        with_sqlite3(path, "".join(order))
        texts.add(dump.of_database(str(path), CONTROL))
    assert len(texts) == 1


def test_it_holds_no_row_but_which_migrations_are_applied(site: Site) -> None:
    text = text_of(site)
    assert "Basel" not in text
    assert text.endswith("VALUES\n  ('001_objects.sql'),\n  ('002_rows.sql');\n")
    assert "sqlite_sequence" not in text
    assert "_migration_history" not in text
    assert "search_data" not in text


def test_asking_for_it_writes_nothing_to_the_database(site: Site) -> None:
    before = site.database.read_bytes()
    text_of(site)
    assert site.database.read_bytes() == before


def test_the_files_alone_give_the_same_without_any_database(site: Site) -> None:
    wanted = text_of(site)
    assert dump.of_files(str(site.database), site.directory, Environment(), CONTROL) == wanted
    site.database.unlink()
    with pytest.raises(DatabaseMissing):
        text_of(site)
    assert dump.of_files(str(site.database), site.directory, Environment(), CONTROL) == wanted


# The file.


def test_it_is_written_beside_the_migrations_and_again_only_when_it_differs(site: Site) -> None:
    assert site.flask("dump").stdout == f"Wrote {site.root / 'schema.sql'}.\n"
    path = site.root / "schema.sql"
    assert path.read_text() == text_of(site)
    path.chmod(0o640)
    os.utime(path, ns=(1, 1))
    assert "is current" in site.flask("dump").stdout
    assert path.stat().st_mtime_ns == 1
    site.do("DROP VIEW a_view")
    site.flask("dump")
    assert "a_view" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in site.root.iterdir()) == ["data", "migrations", "schema.sql"]


def test_a_file_that_no_dump_has_written_is_left_as_it_is(site: Site) -> None:
    before = site.database.read_bytes()
    with pytest.raises(DumpRefused):
        dump.write(site.database, text_of(site))
    assert site.database.read_bytes() == before


def test_a_link_stays_one(site: Site) -> None:
    real, link = site.root / "real.sql", site.root / "schema.sql"
    link.symlink_to(real)
    assert dump.write(link, text_of(site))
    assert link.is_symlink()
    assert real.read_text() == text_of(site)


def test_check_says_no_with_a_diff_until_the_file_is_current(site: Site) -> None:
    path = site.root / "mine.sql"
    finished = site.flask("dump", str(path), "--check")
    assert finished.returncode == 1
    assert not path.exists()
    site.flask("dump", str(path))
    assert site.flask("dump", str(path), "--check").stdout == f"{path} is current.\n"
    site.do("CREATE TABLE late (x)")
    finished = site.flask("dump", str(path), "--check", "--json")
    assert finished.returncode == 1
    found = json.loads(finished.stdout)
    assert not found["ok"]
    assert "+CREATE TABLE late (x);" in found["dump"]["diff"]
    assert site.flask("dump", str(path), "--check", "--from-files").returncode == 0


def test_migrate_and_rollback_refresh_it_when_the_configuration_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.root / "schema.sql"
    site.write({"003_more": "-- migrate:up\nCREATE TABLE more (id);\n-- migrate:down\nDROP TABLE more;\n"})
    assert site.flask("migrate", "2").returncode == 0
    assert not path.exists()
    (site.root / ".flaskenv").write_text("FINANCIAL_AGENT_DUMP_AFTER_MIGRATE=true\n")
    assert site.flask("migrate").returncode == 0
    assert "CREATE TABLE more" in path.read_text()
    assert site.flask("rollback", "--yes").returncode == 0
    assert "CREATE TABLE more" not in path.read_text()


def test_a_file_that_cannot_be_refreshed_is_a_warning_as_the_run_is_over(site: Site) -> None:
    (site.root / ".flaskenv").write_text("FINANCIAL_AGENT_DUMP_AFTER_MIGRATE=true\n")
    (site.root / "schema.sql").write_text("mine")
    site.write({"003_more": "CREATE TABLE more (id);"})
    finished = site.flask("migrate")
    assert finished.returncode == 0
    assert "Warning: the schema file was not refreshed" in finished.stderr
    assert site.applied()[-1] == "003_more"


def test_the_example_of_the_documents_is_what_dump_writes(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "operations.md").read_text()
    (example,) = [block for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if "flask db dump" in block]
    path = tmp_path / "new.db"
    with_sqlite3(path, example)
    assert dump.of_database(str(path), CONTROL) == example


def test_a_dump_of_the_files_changes_no_other_file_and_asserts_nothing_of_rows(tmp_path: Path) -> None:
    site = Site(tmp_path, {"001_first": "CREATE TABLE t (id INTEGER);\n-- migrate:assert SELECT count(*) > 0 FROM t\n"})
    words = ["dump", "--from-files", "--directory", str(site.directory), "schema.sql"]
    finished = run([*FLASK, *words], site.root)
    assert (finished.returncode, finished.stderr) == (0, "")
    attach = "-- migrate:up transaction:false\nATTACH 'other.db' AS o;\nCREATE TABLE o.t (id INTEGER);\n"
    site.write({"002_second": f"-- migrate:allow attach\n{attach}"})
    before = snapshot(site.root)
    finished = run([*FLASK, *words], site.root)
    assert finished.returncode == 4
    assert "ATTACH reaches beyond" in finished.stderr
    assert snapshot(site.root) == before
