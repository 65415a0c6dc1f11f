"""`pytest --test-migrations`, in sessions of their own: a test for each migration and each aspect of its proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_fixtures import run, session  # noqa: F401  # a fixture

pytest_plugins = ["pytester"]

GOOD = """\
-- A table of numbers.

-- migrate:up
CREATE TABLE IF NOT EXISTS t{n} (id INTEGER PRIMARY KEY);

-- migrate:down
DROP TABLE IF EXISTS t{n};
"""
FILES = {"001_first.sql": GOOD.format(n=1), "002_second.sql": GOOD.format(n=2)}


@pytest.fixture
def suite(session: pytest.Pytester) -> pytest.Pytester:  # noqa: F811
    """An application's tests, and two migrations in a folder of its own."""
    write(session, FILES)
    session.makeini("[pytest]\nfilterwarnings = error\nmigrations_directory = migrations")
    session.makepyfile("def test_own(migrations_directory):\n    assert migrations_directory.name == 'migrations'\n")
    return session


def write(session: pytest.Pytester, files: dict[str, str]) -> None:  # noqa: F811
    folder = session.path / "migrations"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def checked(session: pytest.Pytester, *words: str) -> pytest.RunResult:  # noqa: F811
    return session.runpytest_inprocess("-p", "no:cacheprovider", "--test-migrations", *words)


def test_nothing_is_added_without_the_option(suite: pytest.Pytester) -> None:
    assert suite.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes() == {"passed": 1}


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_each_migration_has_a_test_for_each_aspect(words: tuple[str, ...], suite: pytest.Pytester) -> None:
    assert run(suite, "--test-migrations", *words) == {"passed": 1 + 2 * 4 + 2}


def test_the_tests_have_names_to_choose_by(suite: pytest.Pytester) -> None:
    shown = checked(suite, "-v", "-k", "001_first").stdout.str()
    names = [line.split(" PASSED")[0] for line in shown.splitlines() if " PASSED" in line]
    assert names == [f"001_first.sql::{aspect}" for aspect in ("applies", "rolls back", "applies again", "lint")]


def test_the_test_of_what_is_wrong_fails_with_the_finding_and_without_a_traceback(suite: pytest.Pytester) -> None:
    write(suite, {"002_second.sql": GOOD.format(n=2).replace("IF EXISTS t2", "IF EXISTS t3")})
    result = checked(suite)
    assert result.parseoutcomes() == {"passed": 10, "failed": 1}
    shown = result.stdout.str()
    assert "002_second.sql::rolls back" in shown
    assert "error FA653: 002_second.sql: its down section does not make the schema what it was before" in shown
    assert f"{suite.path / 'migrations' / '002_second.sql'}:6" in shown
    assert "table t2 is left" in shown
    assert "Traceback" not in shown
    assert "testing_migrations.py" not in shown


@pytest.mark.slow
def test_what_cannot_be_rolled_back_is_skipped_with_the_reason(suite: pytest.Pytester) -> None:
    write(suite, {"002_second.sql": GOOD.format(n=2).partition("-- migrate:down")[0]})
    result = checked(suite, "-rs")
    assert result.parseoutcomes() == {"passed": 9, "skipped": 2}
    assert "it has no down section" in result.stdout.str()


@pytest.mark.slow
def test_a_file_that_cannot_be_used_fails_and_what_stands_behind_it_is_skipped(suite: pytest.Pytester) -> None:
    write(suite, {"001_first.sql": "COMMIT;"})
    assert checked(suite).parseoutcomes() == {"passed": 5, "failed": 3, "skipped": 3}


def test_a_name_that_is_wrong_and_a_lock_file_that_is_wrong_fail_the_folders_tests(suite: pytest.Pytester) -> None:
    write(suite, {"migrations.lock": f"{'0' * 64}  001_first.sql\n"})
    shown = checked(suite).stdout.str()
    assert "migrations::lock file" in shown
    assert "FA671: 002_second.sql" in shown
    assert "FA673: 001_first.sql" in shown
    write(suite, {"notes.sql": ""})
    assert "FA201" in checked(suite).stdout.str()


def test_a_folder_that_is_not_there_is_an_error_of_usage(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]\nmigrations_directory = nowhere")
    result = checked(suite)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "migrations_directory" in result.stderr.str()


@pytest.mark.slow
def test_the_packages_own_migrations_are_tested_when_no_folder_is_named(session: pytest.Pytester) -> None:  # noqa: F811
    assert checked(session).parseoutcomes() == {"passed": 4 * 4 + 2}


def test_the_example_of_the_documents_is_all_that_it_takes(suite: pytest.Pytester) -> None:
    documents = Path(__file__).parents[1] / "docs"
    text = (documents / "checking.md").read_text(encoding="utf-8")
    assert 'pytest_plugins = ["financial_agent.testing"]' in text
    assert "migrations_directory = migrations" in text
    assert "pytest --test-migrations" in text
