"""What a section asks of the engine that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from financial_agent.migrator.errors import Location
from financial_agent.migrator.lexer import Statement, placed_tokens
from financial_agent.migrator.names import unquoted


class Control(NamedTuple):
    """A statement that begins or ends a transaction, or does something else with it. `words` is how it is called."""

    words: str
    does: Literal["opens", "closes", "other"]


def names(statement: Statement) -> Iterator[tuple[int, str]]:
    """What may be a name in a statement, without its quotes, and where it stands."""
    return ((at, unquoted(token)) for at, token in placed_tokens(statement.text, statement.dialect))


def first_words(statement: Statement, count: int) -> list[str]:
    """So many of a statement's words and signs, in capitals, without reading on."""
    return [token.upper() for _, token in islice(placed_tokens(statement.text, statement.dialect), count)]


@dataclass(frozen=True)
class Rules:
    """What an engine's statements mean; with nothing given, that they mean nothing special."""

    control: Callable[[Statement], Control | None]
    """What a statement does with the transaction; None for all others."""
    settings: frozenset[str]
    """The first words of statements that set something on the connection, which may stand around a transaction."""
    attaching: frozenset[str] = frozenset()
    """The first words of statements that reach another database."""
    needs_no_transaction: Callable[[Statement], str] = lambda statement: ""
    """What it is that cannot run inside a transaction; empty for every other statement."""
    switches_foreign_keys: Callable[[Statement], bool | None] = lambda statement: None
    """Whether a statement switches the enforcement of foreign keys on or off; None for every other statement."""
    refuse: Callable[[Statement, Location], None] = lambda statement, location: None
    """Raises FileRefused for what no migration may do."""
    names: Callable[[Statement], Iterator[tuple[int, str]]] = names
    changes_in_place: bool = True
    """Whether ALTER TABLE changes columns, so that no table has to be rebuilt."""
    parameters: frozenset[str] = frozenset(":")
    """The signs that begin a parameter."""
    batch_limit: str = "… WHERE id IN (SELECT id FROM … WHERE … LIMIT :batch)"
    """How one batch is limited."""
