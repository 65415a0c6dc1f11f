"""What migrations require of each other: the order in which they run, and what makes that impossible.

Everything here is a pure function over names and heads: no database, no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import NoReturn
from unicodedata import normalize

from financial_agent.migrator.errors import DependentsStay
from financial_agent.migrator.errors_files import RequirementExcluded, RequirementMissing, RequirementsCyclic
from financial_agent.migrator.heads import Head, Requirement
from financial_agent.migrator.plan import version_of
from financial_agent.migrator.script import MigrationFile

Needs = Mapping[str, Mapping[str, Requirement]]
"""For each migration those that it requires, with the place that says so."""


@dataclass(frozen=True)
class Graph:
    """The migrations that are not applied, and what they require."""

    pending: tuple[MigrationFile, ...]
    """Those that a run is to apply, by number."""
    skipped: Mapping[str, frozenset[str]]
    """Those that are for other environments, and for which."""
    needs: Needs
    """What the pending ones require, and that in its turn, whether it is applied or not."""
    unmet: Mapping[str, Requirement]
    """By pending file, its first requirement that is neither pending nor applied."""

    def to_run(self, files: Iterable[MigrationFile]) -> list[MigrationFile]:
        """Pending files, and the pending ones that they require, in the order in which they run."""
        by_name = {file.filename: file for file in self.pending}
        wanted, waiting = set[str](), [file.filename for file in files]
        while waiting:
            name = waiting.pop()
            if name in by_name and name not in wanted:
                wanted.add(name)
                waiting += self.needs[name]
        return [by_name[name] for name in in_order(wanted, self.needs)]

    def heights(self) -> dict[str, int]:
        """For each pending migration the highest number among itself and all that it requires: it was written with
        that one in mind."""
        heights: dict[str, int] = {}
        for name in in_order(self.needs, self.needs):
            required = [heights.get(each, version_of(each)) for each in self.needs[name]]
            heights[name] = max([version_of(name), *required])
        return {file.filename: heights.get(file.filename, file.version) for file in self.pending}


def build(
    files: Sequence[MigrationFile],
    applied: Collection[str],
    environment: str | None,
    head_of: Callable[[MigrationFile], Head],
) -> Graph:
    """What is pending, what is skipped, and what they require. Asks only for the heads of what is not applied, and of
    what that requires."""
    by_name = {file.filename: file for file in files}
    heads = {file.filename: head_of(file) for file in files if file.filename not in applied}
    skipped = {name: head.environments for name, head in heads.items() if head.is_excluded(environment)}
    pending = tuple(file for file in files if file.filename in heads and file.filename not in skipped)
    index = by_spelling([*by_name, *sorted(applied)])
    needs: dict[str, dict[str, Requirement]] = {}
    unmet: dict[str, Requirement] = {}
    waiting = [file.filename for file in pending]
    while waiting:
        name = waiting.pop()
        if name in needs:
            continue
        needs[name] = {}
        head = heads[name] if name in heads else head_of(by_name[name]) if name in by_name else Head()
        for requirement in head.requires:
            required = index.get(spelling(requirement.word))
            if required is None or required in skipped:
                unmet.setdefault(name, requirement)
            else:
                needs[name].setdefault(required, requirement)
                waiting.append(required)
    unmet = {name: requirement for name, requirement in unmet.items() if name in heads}
    return Graph(pending, skipped, needs, unmet)


def spelling(word: str) -> str:
    """A number or a full name, as `by_spelling` has them: `3`, `003`, `003_add_x` and `003_add_x.sql` are one."""
    if word.isascii() and word.isdigit():
        return word.lstrip("0") or "0"
    return _stem(normalize("NFC", word))


def _stem(name: str) -> str:
    return name.removesuffix(".sql").removesuffix(".py")


def by_spelling(names: Iterable[str]) -> dict[str, str]:
    """The names by how a requirement may spell them."""
    names = list(names)
    numbers = {str(version_of(name)): name for name in names if version_of(name) >= 0}
    return numbers | {_stem(name): name for name in names}


def in_order(names: Collection[str], needs: Needs) -> list[str]:
    """The names by number, except that each comes after those that it requires. What requires itself, also through
    others, is left out, and so is what requires that."""
    required_by = defaultdict(list)
    open_needs = {}
    for name in names:
        required = [each for each in needs[name] if each in names]
        open_needs[name] = len(required)
        for each in required:
            required_by[each].append(name)
    ready = [(version_of(name), name) for name, count in open_needs.items() if count == 0]
    heapify(ready)
    ordered = []
    while ready:
        _, name = heappop(ready)
        ordered.append(name)
        for each in required_by[name]:
            open_needs[each] -= 1
            if open_needs[each] == 0:
                heappush(ready, (version_of(each), each))
    return ordered


def refuse(graph: Graph, environment: str | None, elsewhere: Mapping[str, str]) -> None:
    """Raise for the first requirement that cannot be met, whichever migrations a run would apply. `elsewhere` holds, by
    name, what only other engines have, and which.

    Raises RequirementMissing, RequirementExcluded and RequirementsCyclic.
    """
    for file in graph.pending:
        if requirement := graph.unmet.get(file.filename):
            _refuse_unmet(graph, file.filename, requirement, environment, elsewhere)
    names = {file.filename for file in graph.pending}
    if looped := names.difference(in_order(names, graph.needs)):
        cycle = _cycle(looped, graph.needs)
        place = graph.needs[cycle[0]][cycle[1]].location
        raise RequirementsCyclic(location=place, path=_shown(cycle), last=Path(cycle[0]))


def _refuse_unmet(
    graph: Graph, name: str, requirement: Requirement, environment: str | None, elsewhere: Mapping[str, str]
) -> NoReturn:
    path = path_to(name, graph.needs)
    skipped = by_spelling(graph.skipped).get(spelling(requirement.word))
    other = by_spelling(elsewhere).get(spelling(requirement.word))
    place = requirement.location
    if skipped:
        environments = sorted(graph.skipped[skipped])
        here = f"this one is {environment}" if environment else "none is configured"
        why = f"is for the environment {' or '.join(environments)} alone, and {here}"
        fix = f"Let {name} run there alone, too: -- migrate:environments {' '.join(environments)}"
        raise RequirementExcluded(
            location=place, name=name, required=skipped, why=why, path=_shown([*path, skipped]), fix=fix
        )
    if other:
        why = f"is there for {elsewhere[other]} alone"
        fix = f"Write {other} for this engine, too, or take the requirement away"
        raise RequirementExcluded(
            location=place, name=name, required=other, why=why, path=_shown([*path, other]), fix=fix
        )
    import difflib  # only for this message: it would cost every start-up

    known = {_stem(each): each for each in [*graph.needs, *graph.skipped] if each != name}
    near = difflib.get_close_matches(requirement.word, known, n=1, cutoff=0.5)
    fix = f"Did you mean -- migrate:requires {near[0]}?" if near else "See what there is with: flask db status"
    raise RequirementMissing(
        location=place, name=name, required=requirement.word, path=_shown([*path, requirement.word]), fix=fix
    )


def path_to(name: str, needs: Needs) -> list[str]:
    """How one comes to require a migration: from one that no other requires, down to it."""
    required_by: dict[str, str] = {}
    for each in sorted(needs, key=version_of):
        for required in needs[each]:
            required_by.setdefault(required, each)
    path = [name]
    while (above := required_by.get(path[0])) and above not in path:
        path.insert(0, above)
    return path


def _cycle(looped: Collection[str], needs: Needs) -> list[str]:
    """A migration that requires itself, by way of those between: each of `looped` leads to one. The newest comes first
    and last."""
    path = [max(looped, key=version_of)]
    while (required := min((each for each in needs[path[-1]] if each in looped), key=version_of)) not in path:
        path.append(required)
    cycle = path[path.index(required) :]
    newest = cycle.index(max(cycle, key=version_of))
    return [*cycle[newest:], *cycle[:newest], cycle[newest]]


def _shown(path: Iterable[str]) -> str:
    return " -> ".join(map(_stem, path))


def needs_of(heads: Mapping[str, Head]) -> dict[str, dict[str, Requirement]]:
    """What applied migrations require of each other; what is not applied by now cannot be lost to them."""
    index = by_spelling(heads)
    found: dict[str, dict[str, Requirement]] = {name: {} for name in heads}
    for name, head in heads.items():
        for requirement in head.requires:
            if required := index.get(spelling(requirement.word)):
                found[name].setdefault(required, requirement)
    return found


def refuse_to_strand(going: Sequence[str], applied: Sequence[str], needs: Needs) -> None:
    """Raise DependentsStay when an applied migration that stays requires one of those that go. `applied` is in the
    order in which they were applied."""
    stays = {name: required for name, required in needs.items() if name not in going}
    for name in sorted(stays, key=version_of):
        if lost := next((each for each in stays[name] if each in going), None):
            path = [*path_to(name, stays), lost]
            steps = len(applied) - min(applied.index(each) for each in [*going, *path])
            place = stays[name][lost].location
            raise DependentsStay(location=place, name=name, required=lost, path=_shown(path), steps=steps)
