"""A pytest plugin for the tests of the application: `pytest_plugins = ["financial_agent.testing"]`. With
`--test-migrations` it checks the migrations, too.

The migrated database is made once per session and copied for each test. Under pytest-xdist all workers share it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

from financial_agent import create_app
from financial_agent.cli_render import error_text
from financial_agent.migrator import discovery, runner
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.source import checksum
from financial_agent.testing_migrations import (  # noqa: F401  # pytest finds its hooks here by their names
    directory_of,
    pytest_addoption,
    pytest_collection_modifyitems,
)

MakeApp = Callable[..., Flask]
DatabaseAt = Callable[[str], sqlite3.Connection]


@pytest.fixture(scope="session")
def migrations_directory(pytestconfig: pytest.Config) -> Path:
    """The migrations that the fixtures apply: those that the ini option of that name says, or the package's own."""
    return directory_of(pytestconfig)


@pytest.fixture(scope="session")
def migrated_template(tmp_path_factory: pytest.TempPathFactory, migrations_directory: Path) -> Callable[..., Path]:
    """A function that gives a migrated database to copy: `migrated_template(target=None)`.

    Its name holds the checksums of the migrations. Workers that make it at the same time wait for each other, as all
    runs do.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    digest = hashlib.sha256()
    with _explained():
        for file in discovery.discover(migrations_directory, "sqlite"):
            digest.update(f"{file.filename} {checksum(file.path)}\n".encode())

    def template(target: str | None = None) -> Path:
        path = shared / f"template-{digest.hexdigest()[:16]}-{target or 'newest'}.db"
        with _explained():
            runner.migrate(str(path), migrations_directory, target=target)
        return path

    return cache(template)


@pytest.fixture
def db_path(tmp_path: Path, migrated_template: Callable[..., Path]) -> Path:
    """A fully migrated database of the test's own."""
    return Path(shutil.copyfile(migrated_template(), tmp_path / "test.db"))


@pytest.fixture
def db(db_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to `db_path`, in autocommit mode, with foreign keys enforced."""
    with closing(_connect(db_path)) as connection:
        yield connection


@pytest.fixture
def db_at(tmp_path: Path, migrated_template: Callable[..., Path]) -> Iterator[DatabaseAt]:
    """A function that gives a connection to a database migrated up to a version: `db_at("003")`."""
    connections: list[sqlite3.Connection] = []

    def at(version: str) -> sqlite3.Connection:
        path = shutil.copyfile(migrated_template(version), tmp_path / f"test-{len(connections)}.db")
        connections.append(_connect(Path(path)))
        return connections[-1]

    yield at
    for connection in connections:
        connection.close()


@pytest.fixture
def make_app(db_path: Path, migrations_directory: Path) -> MakeApp:
    """A function that makes an application on `db_path`, with any setting replaced: `make_app(DATABASE=…)`."""

    def make(**settings: Any) -> Flask:
        defaults = {"TESTING": True, "DATABASE": str(db_path), "MIGRATIONS": str(migrations_directory)}
        return create_app({**defaults, **settings})

    return make


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """The application on a fully migrated database of the test's own."""
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that sends requests to `app`."""
    return app.test_client()


@pytest.fixture(name="runner")
def cli_runner(app: Flask) -> FlaskCliRunner:
    """Runs commands of `app`: `runner.invoke(args=["db", "status"])`."""
    return app.test_cli_runner()


@contextmanager
def _explained() -> Iterator[None]:
    """A migration that fails is told as on the command line: the engine's traceback says nothing of it."""
    try:
        yield
    except MigratorError as error:
        pytest.fail(error_text(error), pytrace=False)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
