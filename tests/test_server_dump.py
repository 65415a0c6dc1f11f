"""The schema of a database on a server as a file: equal for equal schemas, and a client makes the same from it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from financial_agent.migrator import dump, runner
from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Patience, connect, server_tools
from financial_agent.migrator.databases.mysql.tools import client
from financial_agent.migrator.databases.postgresql.tools import tool
from financial_agent.migrator.databases.url import parse
from financial_agent.migrator.environment import Environment
from tests import servers
from tests.helpers import FLASK, run

pytestmark = pytest.mark.slow

CONTROL = Control(wait=5)
OBJECTS = {
    "postgresql": """\
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE SCHEMA sales;
CREATE TYPE sales.mood AS ENUM ('good', 'it''s bad');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE sales.orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood sales.mood, price positive);
CREATE TABLE "Big ""na"" me" (id integer REFERENCES sales.orders (id), kind text, PRIMARY KEY (id, kind))
PARTITION BY LIST (kind);
CREATE TABLE part PARTITION OF "Big ""na"" me" FOR VALUES IN ('a');
CREATE INDEX by_price ON sales.orders (price DESC) WHERE price > 5;
CREATE VIEW cheap AS SELECT id FROM sales.orders WHERE price < 3;
CREATE VIEW cheaper AS SELECT id FROM cheap;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Name: stamp; Type: TABLE; Schema: public; Owner: -
  SET LOCAL default_tablespace = '';
  RETURN NEW; -- ;
END $$;
CREATE TRIGGER stamp BEFORE INSERT ON sales.orders FOR EACH ROW EXECUTE FUNCTION stamp();
COMMENT ON TABLE sales.orders IS 'SET; what was ordered';
""",
    "mysql": """\
CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, price DECIMAL(8, 2) NOT NULL DEFAULT 1.5, note TEXT,
KEY by_price (price DESC), CHECK (price > 0)) COMMENT 'what was ordered; all of it';
CREATE TABLE aaa_items (id INT PRIMARY KEY, order_id INT,
FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE);
CREATE VIEW cheap AS SELECT id FROM orders WHERE price < 3;
CREATE VIEW a_cheaper AS SELECT id FROM cheap;
CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW BEGIN SET NEW.note = 'a;b'; -- ;
SET NEW.price = NEW.price + 1; END;
CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
CREATE PROCEDURE clear() BEGIN DELETE FROM orders; DELETE FROM aaa_items; END;
INSERT INTO orders (price) VALUES (7);
""",
}


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with objects of many kinds, made by a migration."""
    made: str = request.getfixturevalue(request.param)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001_objects.sql").write_text(OBJECTS[request.param])
    (tmp_path / "migrations" / "002_row.sql").write_text("CREATE TABLE late (id integer PRIMARY KEY);")
    runner.migrate(made, tmp_path / "migrations", control=CONTROL)
    return made


def fingerprint(url: str) -> str:
    with closing(connect(url, readonly=True)) as db:
        return db.fingerprint()


def load(url: str, file: Path) -> None:
    """As a person does: psql, or mariadb --comments, < schema.sql."""
    place = parse(url)
    with open(file, "rb") as source:
        if urlsplit(url).scheme == "postgresql":
            server_tools.run(tool(place, "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1"), Patience(), source=source)
        else:
            with client(place) as programs:
                server_tools.run(programs.tool("mariadb", "--comments", place.name), Patience(), source=source)


def test_loaded_it_makes_the_same_schema_and_the_next_run_goes_on_there(
    url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = dump.of_database(url, CONTROL)
    (tmp_path / "schema.sql").write_text(text)
    server = request.getfixturevalue(f"{urlsplit(url).scheme}_server")
    with server.fresh() as other:
        load(other, tmp_path / "schema.sql")
        assert fingerprint(other) == fingerprint(url)
        assert dump.of_database(other, CONTROL) == text
        (tmp_path / "migrations" / "003_more.sql").write_text("CREATE TABLE more (id integer PRIMARY KEY);")
        outcome = runner.migrate(other, tmp_path / "migrations", control=CONTROL)
        assert [done.filename for done in outcome.done] == ["003_more.sql"]


def test_what_only_this_database_or_this_dump_has_is_not_in_it(url: str) -> None:
    text = dump.of_database(url, CONTROL)
    name = urlsplit(url).path.removeprefix("/")
    assert name not in text
    for word in ("AUTO_INCREMENT=", "Dumped", "DEFINER=", "OWNER TO", "restrict", "_migration_history"):
        assert word not in text
    assert text.endswith("VALUES\n  ('001_objects.sql'),\n  ('002_row.sql');\n")
    assert ";;\n\n" not in text


def test_the_files_alone_give_the_same(url: str, tmp_path: Path) -> None:
    assert dump.of_files(url, tmp_path / "migrations", Environment(), CONTROL) == dump.of_database(url, CONTROL)


def test_check_says_no_until_the_file_is_current(url: str, tmp_path: Path) -> None:
    words = ["dump", str(tmp_path / "schema.sql"), "--database", url, "--directory", str(tmp_path / "migrations")]
    assert run([*FLASK, *words, "--check"], tmp_path).returncode == 1
    assert run([*FLASK, *words], tmp_path).returncode == 0
    finished = run([*FLASK, *words, "--check"], tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    servers.run(url, "CREATE TABLE meanwhile (id integer PRIMARY KEY)")
    finished = run([*FLASK, *words, "--check"], tmp_path)
    assert finished.returncode == 1
    assert "meanwhile" in finished.stdout
