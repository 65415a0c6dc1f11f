"""Judges migrations by all rules, in one pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from financial_agent.migrator.databases import Patience, is_file
from financial_agent.migrator.errors import Location
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.lexer import locate
from financial_agent.migrator.lint.catalog import RULES
from financial_agent.migrator.lint.rule import Found, Rule, Version
from financial_agent.migrator.lint.walk import walking
from financial_agent.migrator.script import Migration


def lint(
    migrations: Sequence[Migration],
    minimum: Version | None,
    patience: Patience,
    skipped: Collection[int] = (),
    beside: str = "sqlite:",
) -> list[Finding]:
    """What breaks the rules, by file and place; what a file silences is included.

    The migrations are all that there are, in order, but for those that are for other environments, with the numbers
    `skipped`. What only SQLite can tell is not asked of files for a server, whose scratch database is made beside the
    one that is there. Raises FileChanged, ScratchRefused, and Stopped.
    """
    found: list[tuple[Rule, Found]] = []
    minimum = minimum if is_file(beside) else None
    with walking(beside, patience) as walk:
        for migration in migrations:
            file = walk.enter(migration)
            found += [(rule, each) for rule in RULES.values() if rule.of_file for each in rule.of_file(file, minimum)]
        folder = walk.folder(skipped)
    found += [(rule, each) for rule in RULES.values() if rule.of_folder for each in rule.of_folder(folder)]
    return [_finding(rule, each) for rule, each in sorted(found, key=_order)]


def _order(pair: tuple[Rule, Found]) -> tuple[int, int, int, int, str]:
    rule, found = pair
    statement = found.place.statement
    line, column = (statement.line, statement.column) if statement else (0, 0)
    return found.place.migration.file.version, line, column, found.at, rule.code


def _finding(rule: Rule, found: Found) -> Finding:
    migration, statement = found.place.migration, found.place.statement
    name = migration.up.source.name
    location = locate(name, statement, found.at) if statement else Location(name, 1)
    severity = found.severity or rule.severity
    return Finding(rule.code, severity, found.message, migration.file.filename, location, rule.advice)
