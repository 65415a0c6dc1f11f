"""Looks at the files that are not applied: what they require, and which environments they are for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache

from financial_agent.migrator import graph, heads
from financial_agent.migrator.discovery import elsewhere
from financial_agent.migrator.graph import Graph
from financial_agent.migrator.heads import Head
from financial_agent.migrator.script import MigrationFile


def review(files: Sequence[MigrationFile], environment: str | None = None) -> list[MigrationFile]:
    """The files of an environment in the order in which they run. For None all files, in an order in which each can
    run, those of every environment beside each other. Raises what `survey` raises for the environment; for None, for
    any of those that they name, and for none."""
    head_of = cache(heads.peek)
    if environment:
        found = survey(files, (), environment, head_of)
        return found.to_run(found.pending)
    named = {name for file in files for name in head_of(file).environments}
    for each in (None, *sorted(named)):
        survey(files, (), each, head_of)
    everywhere = survey(files, (), None, lambda file: Head(head_of(file).requires))
    return everywhere.to_run(files)


def survey(
    files: Sequence[MigrationFile],
    applied: Collection[str],
    environment: str | None,
    head_of: Callable[[MigrationFile], Head] = heads.peek,
) -> Graph:
    """What is pending, and what it requires. Raises RequirementMissing, RequirementExcluded and RequirementsCyclic for
    what cannot be met, whichever of them a run would apply."""
    found = graph.build(files, set(applied), environment, head_of)
    others = elsewhere(files[0].path.parent, files[0].dialect) if found.unmet else {}
    graph.refuse(found, environment, others)
    return found
