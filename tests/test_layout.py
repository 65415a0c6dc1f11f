"""The parts of the package import each other in one direction only, and stay small."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "financial_agent"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
ENGINE = sorted(name for name in MODULES if name.startswith("migrator."))
LONGEST = 430  # lines

# What stands left is imported by what stands right, never the other way round, not even through others
# (design, section 2): `errors ← lexer ← script ← discovery`, `errors ← databases ← ledger`, `plan` on top of both.
CHAINS = (
    ("errors", "errors_files", "lexer", "directives", "sections", "script", "discovery", "plan", "execution", "runner"),
    ("errors", "source", "script"),
    ("errors", "errors_run", "execution"),
    ("lexer", "dialects", "sections"),
    ("lexer", "directives", "heads", "sections", "script", "discovery", "plan", "graph", "survey", "runner"),
    ("databases", "ledger", "environment", "session", "runner"),
    ("errors", "databases", "ledger", "plan", "execution", "runner"),
    ("events", "control", "execution", "runner"),
)
FILES = {"source", "lexer", "dialects", "directives", "heads", "sections", "script", "discovery"}
FLASK_ONLY = {"flask", "click", "werkzeug", "jinja2", "dotenv"}
# A server's driver is for the modules of its own package.
DRIVERS = {"migrator.databases.mysql": "pymysql", "migrator.databases.postgresql": "psycopg"}
# What the plain runner imports beside the engine.
PLAIN = {"config", "cli_render", "migrations.run_migrations"}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def imports(module: str) -> set[str]:
    """The modules that a module imports when it runs: those of this package without its name, others whole."""
    found, waiting = set(), list[ast.AST](ast.parse(MODULES[module].read_text()).body)
    while waiting:
        node = waiting.pop()
        if is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            is_ours = [name.removeprefix("financial_agent.") in MODULES for name in names]
            found |= {name if ours else str(node.module) for name, ours in zip(names, is_ours, strict=True)}
        waiting += ast.iter_child_nodes(node)
    return {name.removeprefix("financial_agent.") for name in found}


def reached(module: str) -> set[str]:
    """The modules of the engine that a module imports, itself or through others."""
    found, waiting = set[str](), [module]
    while waiting:
        below = {name.removeprefix("migrator.") for name in imports(f"migrator.{waiting.pop()}") if name in ENGINE}
        waiting += below - found
        found |= below
    return found


@pytest.mark.parametrize("chain", CHAINS, ids=" ← ".join)
def test_the_engine_is_imported_in_one_direction(chain: tuple[str, ...]) -> None:
    for lower, *uppers in (chain[at:] for at in range(len(chain))):
        assert not reached(lower) & set(uppers), f"{lower} must not need what stands on top of it"


def test_no_module_of_the_engine_needs_itself() -> None:
    # The package of the databases picks the module of an engine by the URL.
    modules = [name.removeprefix("migrator.") for name in ENGINE if not name.startswith("migrator.databases")]
    assert [module for module in modules if module in reached(module)] == []


@pytest.mark.parametrize("module", sorted(FILES))
def test_files_are_read_without_knowing_any_database(module: str) -> None:
    assert not {name for name in reached(module) if name.startswith(("databases", "ledger"))}


def test_a_database_knows_neither_files_nor_plans() -> None:
    # Where a statement's words lie is no file's affair.
    above = {*FILES - {"lexer", "dialects"}, "ledger", "plan", "execution", "runner"}
    modules = [name.removeprefix("migrator.") for name in ENGINE if ".databases" in name]
    assert {module: found for module in modules if (found := reached(module) & above)} == {}


def test_the_engine_and_the_plain_runner_need_only_the_standard_library() -> None:
    for module in (*ENGINE, *PLAIN):
        needed = {name.partition(".")[0] for name in imports(module) if name not in MODULES}
        optional = {"dotenv"} if module == "migrations.run_migrations" else {DRIVERS.get(module.rpartition(".")[0], "")}
        assert needed - sys.stdlib_module_names <= {"financial_agent"} | optional, module
        assert not needed & (FLASK_ONLY - optional), module


@cache
def calls(module: str) -> set[str]:
    """What a module calls, as it is written there."""
    nodes = ast.walk(ast.parse(MODULES[module].read_text()))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def test_only_the_command_line_speaks() -> None:
    speaking = {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write", "input"}
    # A server that cannot start says why, as it ends.
    fronts = {name for name in MODULES if name == "cli" or name.startswith("cli_")} | {"startup"}
    for module in set(MODULES) - PLAIN:
        allowed = {"click.echo", "click.secho"} if module in fronts else set()
        assert calls(module) & {*speaking, "logging.basicConfig"} <= allowed, module


def test_nothing_below_the_front_ends_ends_the_process() -> None:
    ending = {"sys.exit", "exit", "quit", "os._exit", "SystemExit"}
    below = set(MODULES) - {"cli", "startup", "migrations.run_migrations"}
    assert {module: found for module in below if (found := calls(module) & ending)} == {}


def test_nothing_imports_the_command_line_but_the_application_and_its_commands() -> None:
    importers = {module for module in MODULES if "cli" in imports(module)}
    assert importers <= {"", "__init__", "financial_agent", "cli"}


def test_no_file_of_the_package_is_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > LONGEST} == {}
