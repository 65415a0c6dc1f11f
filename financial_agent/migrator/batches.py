"""`-- migrate:batch N`: which statements can be run in batches, and how large a batch is."""

from __future__ import annotations

from itertools import pairwise
from typing import NoReturn

from financial_agent.migrator.assertions import main_verb
from financial_agent.migrator.dialects.rules import Rules
from financial_agent.migrator.errors_files import BatchInvalid
from financial_agent.migrator.lexer import Directive, Statement, locate, place, placed_tokens, tokens

PARAMETER = "batch"
_LARGEST = 1_000_000  # rows
_VERBS = ("INSERT", "REPLACE", "UPDATE", "DELETE")


def batch_of(statement: Statement) -> Directive | None:
    """What says that a statement is run in batches."""
    return next((directive for directive in statement.directives if directive.word == "batch"), None)


def size(directive: Directive) -> int:
    """How many rows a batch has, at most."""
    return int(directive.text)


def with_size(statement: Statement, rows: int) -> str:
    """The statement's SQL, in which the parameter is that number; as long as before, so that places in it stay."""
    parts, end = [], 0
    placed = list(placed_tokens(statement.text, statement.dialect))
    for (at, sign), (_, name) in pairwise(placed):
        if sign == ":" and name == PARAMETER:
            parts.append(statement.text[end:at] + f"{rows:<{1 + len(PARAMETER)}}")
            end = at + 1 + len(PARAMETER)
    return "".join([*parts, statement.text[end:]])


def check(statement: Statement, directive: Directive, name: str, rules: Rules) -> None:
    """Raise BatchInvalid for what cannot be run in batches."""

    def refuse(problem: str, fix: str) -> NoReturn:
        raise BatchInvalid(location=place(name, directive), problem=problem, fix=fix)

    limit_it = f"Limit what one batch changes: {rules.batch_limit}"
    text = directive.text
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _LARGEST):
        problem = f"{text!r} is no size of a batch" if text else "the size of a batch is missing"
        refuse(problem, f"Write a number of rows from 1 to {_LARGEST:,}: -- migrate:batch 5000")
    if sum(each.word == "batch" for each in statement.directives) > 1:
        refuse("the size of a batch is given twice", "Remove one of the two lines")
    verb = main_verb(statement)
    if verb not in _VERBS:
        refuse(f"{verb or 'this'} cannot be run in batches", "Put it above an INSERT, UPDATE or DELETE")
    parameters = _parameters(statement, rules)
    if f":{PARAMETER}" not in parameters:
        refuse("the statement does not use the parameter :batch", limit_it)
    if len(parameters) > 1:
        refuse("the statement uses other parameters than :batch, which have no value", limit_it)


def refuse_without(statement: Statement, name: str, rules: Rules) -> None:
    """Raise BatchInvalid for a statement that uses :batch, and is not run in batches."""
    if f":{PARAMETER}" in statement.text and f":{PARAMETER}" in _parameters(statement, rules):
        problem = "the statement uses the parameter :batch, and nothing says how large a batch is"
        fix = "Write above it: -- migrate:batch 5000"
        raise BatchInvalid(location=locate(name, statement, 0), problem=problem, fix=fix)


def _parameters(statement: Statement, rules: Rules) -> set[str]:
    words = tokens(statement.text, statement.dialect)
    signed = {word + name for word, name in pairwise(words) if word in rules.parameters}
    return signed | {word for word in words if word[0] in rules.parameters & {"$"}}
