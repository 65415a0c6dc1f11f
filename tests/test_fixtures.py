"""What `financial_agent.testing` gives to an application's tests, seen in sessions of their own."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).resolve().parents[1]

PROMISES = """
import sqlite3

import flask
import pytest
from flask.testing import FlaskClient, FlaskCliRunner

INSERT = "INSERT INTO conversations (session_id) VALUES ('s-1')"


def test_app(app, db_path):
    assert isinstance(app, flask.Flask)
    assert app.testing
    assert app.config["DATABASE"] == str(db_path)


def test_client(client):
    assert isinstance(client, FlaskClient)
    assert client.get("/readyz").status_code == 200


def test_runner(runner, db_path):
    assert isinstance(runner, FlaskCliRunner)
    result = runner.invoke(args=["db", "status", "--exit-code"])
    assert result.exit_code == 0
    assert str(db_path) in result.output


def test_db(db, db_path):
    assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert db.execute("PRAGMA database_list").fetchone()[2] == str(db_path)
    db.execute(INSERT)
    assert not db.in_transaction
    with sqlite3.connect(db_path) as other:
        assert other.execute("SELECT count(*) FROM conversations").fetchone() == (1,)
    other.close()
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        db.execute("INSERT INTO chat_messages (conversation_id, role, content) VALUES (9, 'user', '')")


def test_db_and_client_share_the_database(client, db):
    db.execute("DELETE FROM _migrations WHERE filename LIKE '004%'")
    assert client.get("/readyz").status_code == 503


def test_db_at(db_at):
    def columns(connection):
        return {row[1] for row in connection.execute("PRAGMA table_info(chat_messages)")}

    old, older = db_at("003"), db_at("3")
    assert "content" in columns(old)
    assert "chart_data" not in columns(old)
    old.execute(INSERT)
    assert older.execute("SELECT count(*) FROM conversations").fetchone() == (0,)
    assert old.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert columns(db_at("001")) == set()
    assert "chart_data" in columns(db_at("004"))


def test_make_app(make_app, db_path, tmp_path):
    app = make_app(DATABASE=str(tmp_path / "other.db"), COLOUR="blue")
    assert app.test_client().get("/readyz").status_code == 503
    assert (app.testing, app.config["COLOUR"]) == (True, "blue")
    assert make_app().config["DATABASE"] == str(db_path)
    assert make_app(TESTING=False).testing is False


@pytest.mark.parametrize("number", range(12))
def test_no_test_sees_the_rows_of_another(number, db):
    assert db.execute("SELECT count(*) FROM conversations").fetchone() == (0,)
    db.execute(INSERT)
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of tests that use the plugin."""
    for name in [name for name in os.environ if name.startswith(("PYTEST_XDIST", "FINANCIAL_AGENT_", "FLASK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makeconftest('pytest_plugins = ["financial_agent.testing"]')
    return pytester


def run(session: pytest.Pytester, *words: str) -> dict[str, int]:
    """Run the tests; how many passed, failed and so on."""
    return session.runpytest_subprocess("-p", "no:cacheprovider", "--basetemp=base", *words).parseoutcomes()


@pytest.mark.parametrize("words", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_every_fixture_gives_what_it_promises_and_each_template_is_made_once(
    words: tuple[str, ...], session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = session.path / "production.db"
    monkeypatch.setenv("FINANCIAL_AGENT_DATABASE", str(untouched))
    monkeypatch.setenv("FINANCIAL_AGENT_MIGRATIONS", str(session.path / "nowhere"))
    monkeypatch.setenv("FINANCIAL_AGENT_MIGRATE_ON_STARTUP", "true")
    session.makepyfile(PROMISES)
    assert run(session, *words) == {"passed": 19}
    assert not untouched.exists()

    templates = {path.stem.rpartition("-")[2]: path for path in (session.path / "base").glob("template-*.db")}
    assert sorted(templates) == ["001", "003", "004", "3", "newest"]
    for path in templates.values():
        with closing(sqlite3.connect(path)) as connection:
            made = [name for (name,) in connection.execute("SELECT filename FROM _migration_history")]
        assert made == sorted(set(made))


def test_a_folder_of_ones_own_takes_the_place_of_the_packages_migrations(session: pytest.Pytester) -> None:
    (session.path / "own").mkdir()
    (session.path / "own" / "001_first.sql").write_text("CREATE TABLE first (id);")
    session.makeconftest(
        """
        from pathlib import Path
        import pytest

        pytest_plugins = ["financial_agent.testing"]

        @pytest.fixture(scope="session")
        def migrations_directory():
            return Path(__file__).parent / "own"
        """
    )
    session.makepyfile(
        """
        def test_own(db, db_at, runner):
            assert db.execute("SELECT * FROM first").fetchall() == []
            assert "1 applied, 0 pending." in runner.invoke(args=["db", "status"]).output
            assert db_at("1").execute("SELECT * FROM first").fetchall() == []
        """
    )
    assert run(session) == {"passed": 1}


def test_a_migration_that_fails_is_told_as_on_the_command_line(session: pytest.Pytester) -> None:
    (session.path / "own").mkdir()
    (session.path / "own" / "001_first.sql").write_text("CREATE TABEL first (id);")
    session.makeini("[pytest]\nfilterwarnings = error\nmigrations_directory = own")
    session.makepyfile("def test_own(db):\n    assert db\n")
    shown = session.runpytest_inprocess("-p", "no:cacheprovider").stdout.str()
    assert 'Error FA301: 001_first.sql failed: near "TABEL": syntax error' in shown
    assert "001_first.sql:1:8" in shown
    assert "Traceback" not in shown
    assert "execution.py" not in shown
