"""A server's database is verified against its migrations, its records, and other databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from financial_agent.migrator import runner, verify
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Patience, scratch
from financial_agent.migrator.errors_server import ScratchRefused
from tests import servers

pytestmark = pytest.mark.slow

FIRST = """\
-- People, and what they order.
-- migrate:up
CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(30) NOT NULL, town VARCHAR(30));
CREATE TABLE orders (id INT PRIMARY KEY, person INT NOT NULL REFERENCES people (id));
INSERT INTO people VALUES (1, 'Ada', NULL);
-- migrate:down
DROP TABLE orders;
DROP TABLE people;
"""


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest) -> str:
    made: str = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "001_create_people.sql").write_text(FIRST)
    (tmp_path / "002_add_age.sql").write_text("-- migrate:up\nALTER TABLE people ADD COLUMN age INT;\n")
    return tmp_path


def found(url: str, folder: Path, against: str | None = None) -> list[tuple[str, str]]:
    report = verify.verify(url, folder, against=against, control=Control())
    return [(each.kind, each.message) for each in report.findings]


def test_a_migrated_database_is_well(url: str, folder: Path) -> None:
    runner.migrate(url, folder)
    report = verify.verify(url, folder, control=Control())
    assert (report.findings, report.notes) == ((), ())


def test_drift_is_found_by_making_the_schema_anew(url: str, folder: Path) -> None:
    runner.migrate(url, folder)
    servers.run(url, "ALTER TABLE people ADD COLUMN shoes INT", "CREATE TABLE extra (id INT)")
    (drift,) = verify.verify(url, folder, control=Control()).findings
    assert drift.kind == "drift"
    assert [(each.change, each.name) for each in drift.differences] == [("added", "extra"), ("changed", "people")]


def test_an_edited_file_and_a_forged_record_are_found(url: str, folder: Path) -> None:
    runner.migrate(url, folder)
    (folder / "002_add_age.sql").write_text("-- migrate:up\nALTER TABLE people ADD COLUMN years INT;\n")
    servers.run(url, "UPDATE _migration_history SET duration_ms = 12345 WHERE id = 1")
    assert {kind for kind, _ in found(url, folder)} == {"edited", "history"}


@pytest.fixture
def without_rights(url: str) -> Iterator[str]:
    """The database's URL, for a user who may not make others."""
    parts, name = urlsplit(url), f"fa_{abs(hash(url)) % 10**8}"
    database = parts.path.removeprefix("/")
    if parts.scheme == "postgresql":
        servers.run(url, f"CREATE ROLE {name} LOGIN", f'ALTER DATABASE "{database}" OWNER TO {name}')
        servers.run(url, f"ALTER SCHEMA public OWNER TO {name}")
        gone = [f'ALTER DATABASE "{database}" OWNER TO CURRENT_USER', f"REASSIGN OWNED BY {name} TO CURRENT_USER"]
        gone.append(f"DROP ROLE {name}")
    else:
        servers.run(url, f"CREATE USER {name}@localhost", f"GRANT ALL ON {database}.* TO {name}@localhost")
        gone = [f"DROP USER {name}@localhost"]
    yield parts._replace(netloc=f"{name}@{parts.netloc.rpartition('@')[2]}").geturl()
    servers.run(url, *gone)


def test_who_may_make_no_database_is_told_so_and_the_fingerprint_decides(without_rights: str, folder: Path) -> None:
    runner.migrate(without_rights, folder)
    report = verify.verify(without_rights, folder, control=Control())
    assert report.findings == ()
    (note,) = report.notes
    assert note.startswith("the schema is the one that was recorded last, but could not be made anew: ")
    assert "cannot have a database beside it to try things in" in note
    servers.run(without_rights, "ALTER TABLE people ADD COLUMN shoes INT")
    assert [kind for kind, _ in found(without_rights, folder)] == ["drift"]


def test_who_may_make_no_database_is_told_what_gives_the_right(without_rights: str) -> None:
    with pytest.raises(ScratchRefused) as refused, scratch(without_rights, Patience()):
        pass
    assert refused.value.code == "FA450"
    right = "CREATEDB" if without_rights.startswith("postgresql") else r"GRANT ALL ON `fa\_scratch\_%`.* TO"
    assert refused.value.hint.startswith("As an administrator: ")
    assert right in refused.value.hint


def test_two_databases_of_one_engine_are_compared(
    url: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runner.migrate(url, folder)
    dialect = "postgresql" if url.startswith("postgresql") else "mysql"
    with servers.server(dialect, tmp_path_factory.getbasetemp().parent).fresh() as other:
        runner.migrate(other, folder, target="1")
        (missing, differing) = verify.verify(url, folder, against=other, control=Control()).findings
    assert missing.filename == "002_add_age.sql"
    assert differing.differences[0].columns[0].startswith("column age int")


def test_databases_of_two_engines_are_compared_by_what_they_have_in_common(
    url: str, folder: Path, tmp_path: Path
) -> None:
    runner.migrate(url, folder)
    other = str(tmp_path / "app.db")
    runner.migrate(other, folder)
    report = verify.verify(url, folder, against=other, control=Control())
    assert report.findings == ()
    assert any("two engines" in note for note in report.notes)
    servers.run(url, "ALTER TABLE people ADD COLUMN shoes INT")
    findings = verify.verify(url, folder, against=other, control=Control()).findings
    (between,) = [each for each in findings if each.kind == "environments"]
    assert [each.columns for each in between.differences] == [("column shoes was added",)]


def test_a_schema_of_another_name_is_made_anew_under_its_name(postgresql: str, folder: Path) -> None:
    """Which one that is the URL may say, with libpq's own option."""
    servers.run(postgresql, "CREATE SCHEMA shop")
    url = f"{postgresql}{'&' if '?' in postgresql else '?'}options=-csearch_path%3Dshop"
    runner.migrate(url, folder)
    assert servers.rows(postgresql, "SELECT count(*) FROM shop.people") == [(1,)]
    report = verify.verify(url, folder, control=Control())
    assert (report.findings, report.notes) == ((), ())
    servers.run(postgresql, "ALTER TABLE shop.people ADD COLUMN shoes INT")
    assert [kind for kind, _ in found(url, folder)] == ["drift"]
