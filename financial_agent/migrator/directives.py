"""What the directives of a file are, and which of them belong to the statement that follows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from financial_agent.migrator import assertions
from financial_agent.migrator.errors_files import DirectiveInvalid, DirectiveUnknown
from financial_agent.migrator.lexer import Directive, Statement, lex, place

Direction = Literal["up", "down"]

# The words that each directive takes; none where they are names, which are judged where they are used; None where what
# it takes is checked by a function of its own.
_WORDS: dict[str, set[str] | None] = {
    "up": {"transaction:false", "transaction:true"},
    "down": {"transaction:false", "transaction:true"},
    "foreign_keys": {"off"},
    "allow": {"attach", "cascade"},
    "out-of-order": {"allow"},
    "requires": set(),
    "environments": set(),
    "assert": None,
    "batch": None,
    "ignore": None,  # a rule's code, and a reason in words of one's own
    "rebuild": None,
    "copy": None,
}
# The directives that say how the next statement is run.
_OF_STATEMENTS = frozenset({"batch", "copy", "ignore", "rebuild"})
_rule = re.compile(r"FA6[0-9]{2}")
_REASON = 3  # words: fewer say that there is a reason, not which


def parse(chunks: Iterable[str], name: str, dialect: str) -> Iterator[Statement | Directive]:
    """Statements, each with the directives that say how it is run, and the directives of sections and files. An
    assertion is a statement, too.

    Raises DirectiveUnknown, DirectiveInvalid, AssertionInvalid, and what `lex` raises.
    """
    waiting: tuple[Directive, ...] = ()
    inside = False
    for item in lex(chunks, name, dialect):
        inside = inside or isinstance(item, Statement) or section_of(item) is not None
        if isinstance(item, Statement):
            yield item._replace(directives=waiting) if waiting else item
            waiting = ()
            continue
        _check(item, name)
        is_of_file = item.word == "ignore" and not inside
        if item.word in _OF_STATEMENTS and not is_of_file:
            waiting += (item,)
            continue
        is_assertion = item.word == "assert"
        if waiting and (section_of(item) or is_assertion):
            break
        yield assertions.parse(item, name, dialect) if is_assertion else item
    if waiting:
        fix = "Put it above the statement that it is for"
        raise DirectiveInvalid(location=place(name, waiting[0]), problem="no statement follows here", fix=fix)


def section_of(directive: Directive) -> Direction | None:
    match directive.word:
        case "up":
            return "up"
        case "down":
            return "down"
        case _:
            return None


def _check(directive: Directive, name: str) -> None:
    if directive.word not in _WORDS:
        import difflib  # only for this message: it would cost every start-up

        near = difflib.get_close_matches(directive.word.lower(), _WORDS, n=1, cutoff=0.5)
        problem = f"unknown directive {directive.word!r}" if directive.word else "this directive has no word"
        fix = f"Did you mean -- migrate:{near[0]}?" if near else f"The directives are: {', '.join(_WORDS)}"
        raise DirectiveUnknown(location=place(name, directive), problem=problem, fix=fix)
    if directive.word == "ignore":
        _check_ignore(directive, name)
    known = _WORDS[directive.word]
    if known is None:
        return
    needs_argument = section_of(directive) is None
    wrong = [argument for argument in directive.arguments if known and argument not in known]
    if wrong or (needs_argument and not directive.arguments):
        problem = f"migrate:{directive.word} does not take {wrong[0]!r}" if wrong else "a word is missing here"
        fix = " or ".join(f"-- migrate:{directive.word} {word}" for word in sorted(known or ["NAME"]))
        where = place(name, directive, behind=wrong[0] if wrong else "")
        raise DirectiveInvalid(location=where, problem=problem, fix=f"Write: {fix}")


def _check_ignore(directive: Directive, name: str) -> None:
    code = directive.arguments[0] if directive.arguments else ""
    if not _rule.fullmatch(code):
        problem = f"{code!r} is not the code of a rule" if code else "the code of a rule is missing here"
    elif len(directive.arguments) <= _REASON:
        problem = f"why {code} does not count here is missing"
    else:
        return
    fix = f"Write the code, and the reason in at least {_REASON} words, as in: -- migrate:ignore FA604 it has ten rows"
    raise DirectiveInvalid(location=place(name, directive, behind=code), problem=problem, fix=fix)
