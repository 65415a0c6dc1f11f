"""The text of a Python file: its syntax, its directives, and what it says of itself."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from types import CodeType

from financial_agent.migrator.errors import Location
from financial_agent.migrator.errors_files import DirectiveInvalid, PythonInvalid
from financial_agent.migrator.lexer import Directive

SUFFIX = ".py"

_directive = re.compile(r"#[ \t]*migrate[ \t]*:[ \t]*([\w-]*)", re.IGNORECASE)
_OF_SQL = ("assert", "batch", "copy", "rebuild")


def tree(text: str, name: str) -> ast.Module:
    """The file, parsed and found to compile. Raises PythonInvalid."""
    if "\r" in text:  # CRLF is a line feed by now; Python alone would count another line here
        line = text.count("\n", 0, text.index("\r")) + 1
        raise PythonInvalid(location=Location(name, line), problem="a carriage return stands without a line feed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a doubtful escape is no reason to speak at each reading
            parsed = ast.parse(text, name)
            compile(parsed, name, "exec", dont_inherit=True)  # finds what the parser lets pass: `return` at the top
    except SyntaxError as error:
        lines = text.split("\n")
        line = min(error.lineno or 1, len(lines))
        location = Location(name, line, max(error.offset or 1, 1), lines[line - 1])
        raise PythonInvalid(location=location, problem=error.msg) from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise PythonInvalid(location=Location(name), problem=f"{type(error).__name__}: {error}") from error
    return parsed


def code(text: str, name: str) -> CodeType:
    """The whole file, ready to be executed. Raises PythonInvalid."""
    return compile(tree(text, name), name, "exec", dont_inherit=True)


def directives_as_sql(text: str, name: str) -> str:
    """The file's directives at the same places, with -- for #, so that they mean what they mean in SQL. Raises
    DirectiveInvalid for one that does not stand above the first function, or says something of SQL."""
    lines = text.split("\n")
    first_function = _first_function(text, name)
    sql = [""] * len(lines)
    for token in _comments(text):
        if found := _directive.match(token.string):
            line, column = token.start
            if found[1] in _OF_SQL:
                location = Location(name, line, column + 1, lines[line - 1])
                problem = f"migrate:{found[1]} is for the statements of an SQL file"
                raise DirectiveInvalid(location=location, problem=problem, fix="Say it in Python, and remove the line")
            if line > first_function or lines[line - 1][:column].strip():
                location = Location(name, line, column + 1, lines[line - 1])
                fix = "Move it to a line of its own above the first def"
                problem = "a directive of a Python file stands above its first function"
                raise DirectiveInvalid(location=location, problem=problem, fix=fix)
            sql[line - 1] = " " * column + "--" + token.string[1:].removeprefix(" ")
    return "\n".join(sql)


def as_written(directive: Directive) -> Directive:
    """A directive of `directives_as_sql`, its line as the file has it."""
    return directive._replace(excerpt=directive.excerpt.replace("--", "# ", 1))


def explanation(text: str, name: str) -> str:
    """What the file says of itself: its docstring and the comments above the first function, as comments of SQL."""
    said = (ast.get_docstring(tree(text, name)) or "").split("\n")
    first_function = _first_function(text, name)
    for token in _comments(text):
        if token.start[0] < first_function and not _directive.match(token.string):
            said.append(token.string.lstrip("#! "))
    return "\n".join(f"-- {line}" for line in said if line)


def _first_function(text: str, name: str) -> int:
    """Its line."""
    functions = (node for node in tree(text, name).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return min((node.lineno for node in functions), default=text.count("\n") + 2)


def _comments(text: str) -> Iterator[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(text, newline="\n").readline)
    return (token for token in tokens if token.type == tokenize.COMMENT)
