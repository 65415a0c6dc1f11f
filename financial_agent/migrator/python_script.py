"""A migration that SQL cannot express: a Python file with `def up(connection)` and perhaps `def down(connection)`.

Nothing of it runs before the migration does.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from financial_agent.migrator import python_text, sections
from financial_agent.migrator.directives import Direction
from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import DirectiveInvalid, FileRefused, UpFunctionInvalid
from financial_agent.migrator.lexer import Statement
from financial_agent.migrator.sections import Section

_DIRECTIONS: tuple[Direction, Direction] = ("up", "down")


def parse(text: str, name: str, dialect: str) -> dict[str, Section]:
    """The two functions of a file as its sections. Raises PythonInvalid, UpFunctionInvalid and, for its directives,
    what `sections.parse` raises."""
    tree = python_text.tree(text, name)
    found = _configured(text, name, dialect)
    functions = {direction: _function(tree, direction) for direction in _DIRECTIONS}
    if functions["up"] is None:
        fix = "Write what the migration does as: def up(connection): ..."
        raise UpFunctionInvalid(location=Location(name, 1), problem="there is no function up(connection)", fix=fix)
    for direction, function in functions.items():
        section = found[direction]
        section.is_python, section.leaves_settings = True, True
        section.end = len(text)
        if function:
            _check(function, text, name)
            section.count, section.empty, section.line = 1, False, function.lineno
            section.keywords = {"DEF"}
    return found


def statement(text: str, name: str, direction: Direction, dialect: str) -> Statement:
    """The function of one direction, which is run as one statement."""
    function = _function(python_text.tree(text, name), direction)
    assert function
    first = function.decorator_list[0].lineno if function.decorator_list else function.lineno
    source = "\n".join(text.split("\n")[first - 1 : function.end_lineno])
    return Statement(source, "DEF", function.lineno, 1, dialect=dialect)


def meaning(text: str, name: str, direction: Direction) -> str:
    """What a direction does, whatever comments and white space the file has: all of it but the other function."""
    tree = python_text.tree(text, name)
    other = _function(tree, "down" if direction == "up" else "up")
    return ast.dump(ast.Module([node for node in tree.body if node is not other], []))


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The last one of that name: it is the one that Python would call."""
    named = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    return named[-1] if named else None


def _check(function: ast.FunctionDef | ast.AsyncFunctionDef, text: str, name: str) -> None:
    """Calling a generator or a coroutine would do nothing, and say nothing."""
    problem = ""
    arguments = function.args
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    if isinstance(function, ast.AsyncFunctionDef):
        problem = f"{function.name} is a coroutine: nothing would await it"
    elif _yields(function):
        problem = f"{function.name} is a generator: nothing of it would run"
    elif required != 1 or any(default is None for default in arguments.kw_defaults):
        problem = f"{function.name} does not take one argument"
    if problem:
        line = text.split("\n")[function.lineno - 1]
        location = Location(name, function.lineno, line.index("def") + 1, line)
        fix = f"Write it as: def {function.name}(connection): ..."
        raise UpFunctionInvalid(location=location, problem=problem, fix=fix)


def _yields(function: ast.FunctionDef) -> bool:
    """Whether a `yield` stands in the function itself, not in one that is defined inside."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


def _configured(text: str, name: str, dialect: str) -> dict[str, Section]:
    """Two sections without a statement that have the file's directives."""
    lines = text.split("\n")
    try:
        found = sections.parse([python_text.directives_as_sql(text, name)], name, dialect)
        _refuse_sections(found, name)
    except FileRefused as error:
        error.hint = error.hint.replace("-- migrate:", "# migrate:")
        if error.location and error.location.line:
            error.location = replace(error.location, excerpt=lines[error.location.line - 1])
        raise
    return found


def _refuse_sections(found: dict[str, Section], name: str) -> None:
    for section in found.values():
        if section.marked:
            problem = f"a Python file has functions where SQL has sections: migrate:{section.direction} means nothing"
            fix = f"Remove it, and write: def {section.direction}(connection): ..."
            raise DirectiveInvalid(location=Location(name, section.line, 1, "#"), problem=problem, fix=fix)
