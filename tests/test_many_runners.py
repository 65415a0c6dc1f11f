"""Many runs that start at once, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import servers
from tests.helpers import PLAIN, finish, started

RUNNERS = 16
ROUNDS = 20
FILES = {
    "001_chat": "CREATE TABLE chat (id integer PRIMARY KEY, title varchar(100));",
    "002_rows": "INSERT INTO chat (id, title) VALUES (1, 'a'), (2, 'b');",
    "003_more": "CREATE TABLE more (id integer PRIMARY KEY);\nINSERT INTO more VALUES (1);",
    "004_index": "CREATE INDEX by_title ON chat (title);",
}


@contextmanager
def new_database(engine: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    if engine == "sqlite":
        folder.mkdir()
        yield str(folder / "app.db")
    else:
        with request.getfixturevalue(f"{engine}_server").fresh() as url:
            yield url


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mysql"])
def test_sixteen_runs_that_start_at_once_apply_each_migration_once(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = tmp_path / "migrations"
    directory.mkdir()
    for name, sql in FILES.items():
        (directory / f"{name}.sql").write_text(sql, encoding="utf-8")
    for number in range(ROUNDS):
        with new_database(engine, tmp_path / str(number), request) as url, ExitStack() as stack:
            command = [*PLAIN, "--database", url, "--directory", str(directory)]
            running = [stack.enter_context(started(command, tmp_path, patience=300)) for _ in range(RUNNERS)]
            finished = [finish(process) for process in running]
            assert [each.returncode for each in finished] == [0] * RUNNERS, [each.stderr for each in finished]
            told = sorted(line for each in finished for line in each.stdout.splitlines() if line.startswith("Applied"))
            assert [line.split()[1].rstrip(":") for line in told] == [f"{name}.sql" for name in FILES], told
            assert servers.rows(url, "SELECT filename FROM _migrations ORDER BY id") == [
                (f"{name}.sql",) for name in FILES
            ]
            assert servers.rows(url, "SELECT count(*) FROM chat") == [(2,)]
            assert servers.rows(url, "SELECT count(*) FROM _migration_history") == [(len(FILES),)]
