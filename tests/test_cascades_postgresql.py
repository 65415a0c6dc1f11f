"""What CASCADE would take along is asked of PostgreSQL's catalogue, and refused unless the file allows it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import runner
from financial_agent.migrator.databases import connect
from financial_agent.migrator.errors import CascadeRefused
from tests import servers

SCHEMA = (
    "CREATE TABLE parents (id int PRIMARY KEY, boss int REFERENCES parents)",
    "CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)",
    'CREATE TABLE "Grand children" (child int REFERENCES children)',
    "CREATE VIEW names AS SELECT id FROM parents",
    "CREATE VIEW more_names AS SELECT id FROM names",
    "CREATE TYPE mood AS ENUM ('good')",
    "CREATE TABLE moods (of mood)",
    "CREATE TABLE alone (id serial PRIMARY KEY, x int)",
    "CREATE INDEX alone_by_x ON alone (x)",
    "CREATE SCHEMA sales",
    "CREATE TABLE sales.deals (id int)",
)


@pytest.fixture
def url(postgresql: str) -> str:
    servers.run(postgresql, *SCHEMA)
    return postgresql


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("TRUNCATE parents CASCADE", ['"Grand children"', "children"]),
        ("TRUNCATE parents, children CASCADE", ['"Grand children"']),
        ("TRUNCATE alone CASCADE", []),
        ("TRUNCATE parents", []),
        (
            "DROP TABLE parents CASCADE",
            ["constraint children_parent_fkey on table children", "view more_names", "view names"],
        ),
        ("DROP TABLE children CASCADE", ['constraint Grand children_child_fkey on table "Grand children"']),
        ("DROP TABLE alone CASCADE", []),
        ("DROP TABLE IF EXISTS missing CASCADE", []),
        ("DROP VIEW names CASCADE", ["view more_names"]),
        ("DROP TYPE mood CASCADE", ["column of of table moods"]),
        ("DROP SCHEMA sales CASCADE", ["table sales.deals"]),
        ("DROP TABLE parents", []),
    ],
)
def test_what_a_cascade_takes_along_is_known(sql: str, expected: list[str], url: str) -> None:
    with closing(connect(url)) as db:
        assert db.cascades(sql)[1] == expected


def test_a_cascade_is_refused_unless_the_file_allows_it(postgresql: str, tmp_path: Path) -> None:
    (tmp_path / "001_create_parents.sql").write_text(";\n".join(SCHEMA))
    runner.migrate(postgresql, tmp_path)
    file = tmp_path / "002_drop_parents.sql"
    file.write_text("-- migrate:up\nDROP TABLE parents CASCADE;\n")
    with pytest.raises(CascadeRefused) as refused:
        runner.migrate(postgresql, tmp_path)
    assert refused.value.message == (
        "DROP parents CASCADE would take along: "
        "constraint children_parent_fkey on table children, view more_names, view names"
    )
    assert refused.value.hint.startswith("If they should go, add the line: -- migrate:allow cascade\n")
    file.write_text("-- migrate:allow cascade\n-- migrate:up\nDROP TABLE parents CASCADE;\n")
    runner.migrate(postgresql, tmp_path)
    with closing(connect(postgresql)) as db:
        assert "parents" not in db.tables()
