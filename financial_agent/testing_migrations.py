"""The part of the pytest plugin that checks the migrations: `pytest --test-migrations`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from financial_agent import config
from financial_agent.cli_render_check import finding_lines
from financial_agent.migrator import check, lockfile, proof_findings
from financial_agent.migrator.check import Report
from financial_agent.migrator.control import Control
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.errors import MigratorError
from financial_agent.migrator.errors_files import FileRefused
from financial_agent.migrator.finding import Finding

_INI = "migrations_directory"
# What is tested of each migration beside the aspects of its proof, and of the folder.
_LINT, _LOCK_FILE, _FOLDER = "lint", "lock file", "folder"
_REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("financial_agent")
    group.addoption(
        "--test-migrations", action="store_true", help="Check the migrations, too, as `flask db check` does."
    )
    parser.addini(_INI, "The folder of the migrations, relative to the root folder.", default="")


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among these, too
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if session.config.getoption("--test-migrations"):
        try:
            items += _items(session, directory_of(session.config))
        except MigratorError as error:
            raise pytest.UsageError(f"{error.message}: see the ini option {_INI}") from error


def directory_of(config_: pytest.Config) -> Path:
    """The folder that the ini file names, or else the package's own."""
    named = config_.getini(_INI)
    return config_.rootpath / named if named else Path(config.DEFAULTS["MIGRATIONS"])


def _items(session: pytest.Session, directory: Path) -> Iterator[pytest.Item]:
    try:
        files = discover(directory, "sqlite")
    except FileRefused:  # the folder's own item tells
        files = []
    for file in files:
        for aspect in (*proof_findings.ASPECTS, _LINT):
            yield _Check.of(session, file.path, file.filename, aspect)
    for aspect in (_LOCK_FILE, _FOLDER):
        yield _Check.of(session, directory, None, aspect)


class _Found(Exception):
    """What a check found."""


class _Check(pytest.Item):
    """One aspect of a migration, or of the folder."""

    filename: str | None
    aspect: str

    @classmethod
    def of(cls, session: pytest.Session, path: Path, filename: str | None, aspect: str) -> _Check:
        name = f"{path.name}::{aspect}"
        item: _Check = cls.from_parent(session, name=name, nodeid=name)
        item.path, item.filename, item.aspect = path, filename, aspect
        return item

    def runtest(self) -> None:
        found = [each for each in _report(self.config).findings if self._concerns(each)]
        if failing := [each for each in found if each.fails]:
            raise _Found("\n".join(line for each in failing for line in finding_lines(each)))
        for each in found:
            if each.code in (proof_findings.IRREVERSIBLE, proof_findings.NOT_PROVEN):
                pytest.skip(each.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any) -> Any:
        """The finding itself: where it was noticed in this file helps nobody."""
        is_told = isinstance(excinfo.value, _Found | MigratorError)
        return str(excinfo.value) if is_told else super().repr_failure(excinfo, *args)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.aspect

    def _concerns(self, found: Finding) -> bool:
        if found.code in lockfile.CODES:
            return self.aspect == _LOCK_FILE
        if found.filename is None:
            return self.aspect == _FOLDER
        proven = [name for name, codes in proof_findings.ASPECTS.items() if found.code in codes]
        if found.code.startswith("FA2"):  # a file that cannot be used does nothing of all this
            proven = list(proof_findings.ASPECTS)
        return self.filename == found.filename and self.aspect in (proven or [_LINT])


def _report(config_: pytest.Config) -> Report:
    """What the check finds, which is made once in a session."""
    if _REPORT not in config_.stash:
        settings = config.load(config.instance_path())
        oldest = config.minimum_sqlite(settings["MINIMUM_SQLITE"])
        after = config.check_after(settings["CHECK_AFTER"])
        folder = directory_of(config_)
        config_.stash[_REPORT] = check.check(folder, minimum_sqlite=oldest, after=after, control=Control())
    return config_.stash[_REPORT]
