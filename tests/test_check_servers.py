"""Files for a server are checked as it runs them, on databases that are made beside the configured one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from financial_agent.migrator import check, sample_rows
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import connect
from tests import servers

pytestmark = pytest.mark.slow

FIRST = """\
-- Whoever buys something is kept, with the orders.
-- migrate:up
CREATE TABLE IF NOT EXISTS people (id INT PRIMARY KEY, name VARCHAR(30) NOT NULL);
-- migrate:down
DROP TABLE IF EXISTS people;
"""


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest) -> str:
    made: str = request.getfixturevalue(request.param)
    return made


def codes(url: str, folder: Path, **files: str) -> list[tuple[str, str]]:
    """What is found, with the number of the file."""
    (folder / "001_create_people.sql").write_text(FIRST)
    for name, text in files.items():
        (folder / f"{name.removeprefix('f')}.sql").write_text(text)
    report = check.check(folder, database=url, write_lock=True, control=Control())
    return [(each.code, (each.filename or "")[:3]) for each in report.findings]


def test_a_migration_that_goes_there_and_back_is_well_and_the_database_is_not_touched(url: str, tmp_path: Path) -> None:
    assert codes(url, tmp_path) == []
    with closing(connect(url)) as db:
        assert db.tables() == {}


def test_the_proof_and_the_rules_find_what_is_wrong(url: str, tmp_path: Path) -> None:
    found = codes(
        url,
        tmp_path,
        f002_add_age="-- How old people are, for the letters.\n-- migrate:up\n"
        "ALTER TABLE people ADD COLUMN age INT;\n-- migrate:down\nSELECT 1;\n",
        f003_drop_name="-- migrate:up\nALTER TABLE people DROP COLUMN name;\n",
        f004_wrong="-- Nobody knows why this one is here.\n-- migrate:up\nALTER TABLE missing ADD COLUMN x INT;\n",
    )
    assert ("FA653", "002") in found  # the down section leaves the column
    assert {code for code, number in found if number == "003"} >= {"FA605", "FA607", "FA609", "FA660"}
    assert ("FA650", "004") in found


def test_generated_rows_show_what_only_works_on_empty_tables(url: str, tmp_path: Path) -> None:
    found = codes(
        url,
        tmp_path,
        f002_be_strict="-- Two people cannot have one name any more.\n-- migrate:up\n"
        "UPDATE people SET name = 'same';\nALTER TABLE people ADD CONSTRAINT one_name UNIQUE (name);\n"
        "-- migrate:down\nALTER TABLE people DROP CONSTRAINT one_name;\n",
    )
    assert ("FA651", "002") in found


TABLES = {
    "postgresql": """\
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE parents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE children (id uuid PRIMARY KEY, parent bigint NOT NULL REFERENCES parents, of mood NOT NULL,
    born date NOT NULL, seen timestamptz DEFAULT now() NOT NULL, tags text[] NOT NULL, raw bytea NOT NULL,
    settings jsonb NOT NULL, is_here boolean NOT NULL, price numeric(8, 2) NOT NULL, code varchar(3) NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'closed')), ip inet NOT NULL, "Odd name" int NOT NULL)""",
    "mysql": """\
CREATE TABLE parents (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(30) NOT NULL UNIQUE);
CREATE TABLE children (id CHAR(3) PRIMARY KEY, parent BIGINT NOT NULL, mood ENUM ('good', 'bad') NOT NULL,
    born DATE NOT NULL, seen DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, raw BLOB NOT NULL, settings JSON NOT NULL,
    is_here BOOLEAN NOT NULL, price DECIMAL(8, 2) NOT NULL, code VARCHAR(3) NOT NULL,
    status VARCHAR(10) NOT NULL CHECK (status IN ('open', 'closed')), `Odd name` INT NOT NULL,
    FOREIGN KEY (parent) REFERENCES parents (id))""",
}


def test_tables_of_all_types_are_given_rows(url: str) -> None:
    with closing(connect(url)) as db:
        servers.run(url, *TABLES[db.dialect].split(";\n"))
        assert sample_rows.fill(db, set(db.fillable())) == []
        assert db.counts("children", []) == [sample_rows.ROWS]


def test_the_migrations_that_are_shipped_are_well_on_a_server(url: str) -> None:
    folder = Path(check.__file__).parents[1] / "migrations"
    report = check.check(folder, database=url, control=Control())
    assert [each for each in report.findings if each.fails or each.code == "FA662"] == []
