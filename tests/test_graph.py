"""What migrations require of each other: the order in which they run, what cannot be met, and the way back."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from financial_agent.migrator import heads, proof_findings, runner
from financial_agent.migrator.check import check
from financial_agent.migrator.control import Control
from financial_agent.migrator.discovery import discover
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import DependentsStay, OutOfOrder
from financial_agent.migrator.errors_files import (
    FileChanged,
    RequirementExcluded,
    RequirementMissing,
    RequirementsCyclic,
)
from financial_agent.migrator.graph import Graph, build, in_order, refuse
from financial_agent.migrator.heads import Head, Requirement
from financial_agent.migrator.rollback import rollback
from financial_agent.migrator.script import MigrationFile, read
from financial_agent.migrator.survey import review
from tests.helpers import ROOT, Site
from tests.test_plan import file

examples = settings(max_examples=200, deadline=None)
# For each number those that it requires; a few of them, so that circles are rare and chains long.
requirements = st.dictionaries(st.integers(1, 30), st.sets(st.integers(1, 30), max_size=2), max_size=14)


def table(number: int, *lines: str) -> str:
    """A migration that makes a table of its own."""
    head = "".join(f"-- migrate:{line}\n" for line in lines)
    return f"{head}-- migrate:up\nCREATE TABLE t{number} (x);\n-- migrate:down\nDROP TABLE t{number};\n"


def graph_of(wanted: dict[int, set[int]], applied: set[str] | None = None) -> Graph:
    """Files by number, each with the numbers that it requires; those that have no file are left out."""
    there = {number: {each for each in needs if each in wanted} for number, needs in wanted.items()}
    files = [file(f"{number:03}_m.sql") for number in sorted(there)]
    found = {each: Head(tuple(_required(number) for number in there[each.version])) for each in files}
    return build(files, applied or set(), None, found.__getitem__)


def _required(number: int) -> Requirement:
    return Requirement(str(number), location=None)  # type: ignore[arg-type]  # only errors look at it


def ordered(graph: Graph) -> list[int]:
    return [each.version for each in graph.to_run(graph.pending)]


def is_circular(wanted: dict[int, set[int]]) -> bool:
    """Whether somebody is left when those that require nobody of the rest are taken away, again and again."""
    rest = dict(wanted)
    while free := [number for number, needs in rest.items() if not needs & rest.keys()]:
        for number in free:
            del rest[number]
    return bool(rest)


# The order.


@examples
@given(requirements)
def test_every_migration_runs_once_and_behind_all_that_it_requires(wanted: dict[int, set[int]]) -> None:
    if is_circular(wanted):
        return
    order = ordered(graph_of(wanted))
    assert sorted(order) == sorted(wanted)
    for number, needs in wanted.items():
        assert all(order.index(each) < order.index(number) for each in needs if each in wanted)


@examples
@given(requirements)
def test_of_those_that_can_run_the_lowest_number_is_always_next(wanted: dict[int, set[int]]) -> None:
    if is_circular(wanted):
        return
    order = ordered(graph_of(wanted))
    for at, number in enumerate(order):
        free = [each for each in order[at:] if not (wanted[each] & wanted.keys()) - set(order[:at])]
        assert number == min(free)


@examples
@given(st.sets(st.integers(1, 99)))
def test_without_requirements_the_order_is_that_of_the_numbers(numbers: set[int]) -> None:
    assert ordered(graph_of({number: set() for number in numbers})) == sorted(numbers)


@examples
@given(requirements, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_how_the_names_come(wanted: dict[int, set[int]], chance) -> None:  # type: ignore[no-untyped-def]
    needs = {str(number): {str(each): None for each in wanted[number] if each in wanted} for number in wanted}
    names = list(needs)
    expected = in_order(names, needs)  # type: ignore[arg-type]
    chance.shuffle(names)
    assert in_order(names, needs) == expected  # type: ignore[arg-type]


@examples
@given(requirements)
def test_a_circle_is_refused_and_nothing_else_is(wanted: dict[int, set[int]]) -> None:
    graph = graph_of(wanted)
    if not is_circular({number: needs & wanted.keys() for number, needs in wanted.items()}):
        refuse(graph, None, {})
        return
    with pytest.raises(RequirementsCyclic) as refused:
        refuse(graph, None, {})
    path = [int(name.partition("_")[0]) for name in refused.value.fields["path"].split(" -> ")]
    assert path[0] == path[-1] == max(path)
    assert all(after in wanted[before] for before, after in pairwise(path))


@examples
@given(requirements, st.integers(1, 30))
def test_a_target_takes_along_what_it_requires_and_nothing_else(wanted: dict[int, set[int]], target: int) -> None:
    if is_circular(wanted):
        return
    graph = graph_of(wanted)
    expected = {number for number in wanted if number <= target}
    while more := {each for number in expected for each in wanted[number] & wanted.keys()} - expected:
        expected |= more
    chosen = [each for each in graph.pending if each.version <= target]
    assert {each.version for each in graph.to_run(chosen)} == expected


def test_a_chain_of_ten_thousand_is_put_in_order() -> None:
    count = 10_000
    order = ordered(graph_of({number: {number + 1} for number in range(1, count)} | {count: set()}))
    assert order == list(range(count, 0, -1))


@pytest.mark.parametrize("word", ["2", "002", "0002", "002_b", "002_b.sql"])
def test_a_requirement_is_a_number_or_a_full_name(tmp_path: Path, word: str) -> None:
    site = Site(tmp_path / "site", {"001_a": table(1, f"requires {word}"), "002_b": table(2)})
    site.prepare()
    assert site.applied() == ["002_b", "001_a"]


@pytest.mark.parametrize("word", ["b", "002_", "02_b", "002_B", "٢", "-1", "initial"])
def test_a_part_of_a_name_is_no_requirement(tmp_path: Path, word: str) -> None:
    site = Site(tmp_path / "site", {"001_a": table(1, f"requires {word}"), "002_b": table(2)})
    with pytest.raises(RequirementMissing):
        site.prepare()


def test_several_words_and_lines_above_the_marker_or_behind_it(tmp_path: Path) -> None:
    first = "-- migrate:requires 3 4\n-- migrate:up\n-- migrate:requires 002_b\nCREATE TABLE t1 (x);\n"
    site = Site(
        tmp_path / "site", {"001_a": first, **{f"00{n}_{c}": table(n) for n, c in ((2, "b"), (3, "c"), (4, "d"))}}
    )
    assert [each.word for each in read(file_of(site, "001_a")).requires] == ["3", "4", "002_b"]
    site.prepare()
    assert site.applied() == ["002_b", "003_c", "004_d", "001_a"]


def file_of(site: Site, name: str) -> MigrationFile:
    path = site.directory / f"{name}.sql"
    return MigrationFile(int(name[:3]), name[4:], path.name, path, "sqlite")


def test_a_python_file_requires_and_is_required(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_a": table(1, "requires 002_b.py"), "003_c": table(3)})
    run = "def up(connection):\n    connection.execute('CREATE TABLE t2 (x)')\n"
    (site.directory / "002_b.py").write_text(f"# migrate:requires 003_c\n# migrate:environments qa\n{run}")
    with pytest.raises(RequirementExcluded, match="001_a -> 002_b"):
        site.prepare()
    runner.migrate(str(site.database), site.directory, environment=Environment("qa"))
    assert site.applied() == ["003_c", "002_b.py", "001_a"]


# What is there already.


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The second requires the fourth, of which only the first is applied."""
    site = Site(tmp_path / "site", {"001_a": table(1)})
    site.prepare()
    site.write({"002_b": table(2, "requires 4"), "003_c": table(3), "004_d": table(4)})
    return site


def test_a_required_order_is_not_out_of_order_within_a_run(site: Site) -> None:
    site.prepare()
    assert site.applied() == ["001_a", "003_c", "004_d", "002_b"]


def test_a_run_that_failed_on_the_way_can_go_on(site: Site) -> None:
    site.write({"002_b": table(2, "requires 4").replace("CREATE TABLE t2", "CREATE TABEL t2")})
    assert site.migrate().returncode == 3
    assert site.applied() == ["001_a", "003_c", "004_d"]
    site.write({"002_b": table(2, "requires 4")})
    assert site.status()["002_b"] == "pending"
    assert "out of order" not in site.flask("status").stdout
    site.prepare()
    assert site.applied()[-1] == "002_b"


def test_what_a_required_one_requires_counts_as_well(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"005_e": table(5, "requires 9"), "009_i": table(9)})
    site.prepare()
    site.write({"002_b": table(2, "requires 5")})
    site.prepare()
    assert site.applied() == ["009_i", "005_e", "002_b"]


def test_what_requires_an_older_one_only_is_as_late_as_any(site: Site) -> None:
    site.prepare()
    site.write({"000_z": table(0, "requires 1")})
    with pytest.raises(OutOfOrder):
        site.prepare()


def test_the_command_line_takes_a_targets_requirements_along(site: Site) -> None:
    finished = site.flask("migrate", "2")
    assert finished.returncode == 0, finished.stderr
    assert site.applied() == ["001_a", "004_d", "002_b"]
    assert ", 1 pending." in finished.stdout


def test_an_applied_requirement_is_met_when_its_file_is_gone(site: Site) -> None:
    (site.directory / "001_a.sql").unlink()
    site.write({"005_e": table(5, "requires 001_a 1")})
    site.prepare()
    assert "005_e" in site.applied()


def test_status_shows_everything_while_a_requirement_cannot_be_met(site: Site) -> None:
    site.write({"003_c": table(3, "requires 7"), "004_d": table(4, "requires 2")})
    assert site.status() == {"001_a": "applied", "002_b": "pending", "003_c": "pending", "004_d": "pending"}
    assert site.migrate().returncode == 4
    assert site.applied() == ["001_a"]


def test_a_target_below_it_does_not_hide_what_cannot_be_met(site: Site) -> None:
    site.write({"005_e": table(5, "requires 7")})
    assert site.flask("migrate", "3").returncode == 4
    assert site.applied() == ["001_a"]


def test_a_file_whose_head_changes_before_it_is_parsed_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def early(file: MigrationFile) -> Head:
        found = heads.read(file)
        file.path.write_text(table(file.version, "environments staging"))
        return found

    monkeypatch.setattr(heads, "peek", early)
    with pytest.raises(FileChanged):
        site.prepare()
    assert site.applied() == ["001_a"]


def test_only_the_head_of_a_file_is_read(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_a": "-- migrate:requires 7\nSELECT 1;\nSELECT 'never closed;\n"})
    assert [each.word for each in heads.read(file_of(site, "001_a")).requires] == ["7"]


def test_no_applied_file_is_parsed_to_answer_or_to_do_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.prepare()

    def refuse_to(path: Path) -> Head:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(heads, "peek", refuse_to)
    assert runner.pending(str(site.database), site.directory) == []
    site.prepare()
    assert runner.status(str(site.database), site.directory).pending == []


def test_a_lost_ledger_is_recovered_in_the_order_of_requirements(site: Site) -> None:
    site.prepare()
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history")
    site.prepare()
    assert site.applied() == ["001_a", "003_c", "004_d", "002_b"]


def test_a_baseline_records_in_the_order_of_requirements(site: Site) -> None:
    site.prepare()
    site.do("DROP TABLE _migrations", "DROP TABLE _migration_history")
    assert site.flask("baseline", "2").returncode == 0
    assert site.applied() == ["001_a", "004_d", "002_b"]


def test_a_variant_for_another_engine_does_not_meet_a_requirement(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", {"001_a.postgresql": table(1), "002_b": table(2, "requires 1")})
    with pytest.raises(RequirementExcluded, match="is there for postgresql alone: 002_b -> 001_a"):
        site.prepare()
    site.write({"001_a.sqlite": table(1)})
    site.prepare()
    assert site.applied() == ["001_a", "002_b"]


def test_doctor_finds_what_cannot_be_met(site: Site) -> None:
    site.write({"005_e": table(5, "requires 1 7")})
    finished = site.flask("doctor")
    assert finished.returncode == 1
    assert "fail  migrations: FA218 005_e.sql requires 7," in finished.stdout


# The folder alone.


def names_in_review(site: Site) -> list[str]:
    return [each.filename.removesuffix(".sql") for each in review(discover(site.directory, "sqlite"))]


def test_a_review_has_the_files_of_all_environments_in_one_order(site: Site) -> None:
    site.write({"003_c": table(3, "environments qa", "requires 2"), "005_e": table(5, "environments production")})
    assert names_in_review(site) == ["001_a", "004_d", "002_b", "003_c", "005_e"]


@pytest.mark.parametrize("lines", [[], ["environments qa production"], ["environments production"]])
def test_a_review_refuses_what_lacks_its_requirement_in_any_environment(site: Site, lines: list[str]) -> None:
    site.write({"004_d": table(4, "environments qa"), "002_b": table(2, "requires 4", *lines)})
    with pytest.raises(RequirementExcluded):
        names_in_review(site)
    site.write({"002_b": table(2, "requires 4", "environments qa")})
    assert names_in_review(site) == ["001_a", "003_c", "004_d", "002_b"]


def test_the_check_proves_migrations_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    needy = table(2, "requires 4").replace("CREATE TABLE t2 (x);", "CREATE TABLE t2 AS SELECT * FROM t4;")
    site = Site(tmp_path / "site", {"002_b": needy, "004_d": table(4)})
    codes = {each.code for each in check(site.directory, control=Control()).findings}
    assert not codes & proof_findings.ASPECTS["applies"]
    site.write({"004_d": table(4, "requires 2")})
    assert [each.code for each in check(site.directory, control=Control()).findings] == ["FA219"]


# The way back.


def test_a_dependent_that_would_stay_refuses_the_rollback_and_the_hint_takes_it_along(site: Site) -> None:
    site.prepare()
    (site.directory / "002_b.sql").unlink()  # the ledger keeps what it requires
    finished = site.flask("rollback", "--to", "3", "--yes")
    assert finished.returncode == 4
    assert "Error FA419: 002_b.sql would stay, and requires 004_d.sql" in finished.stderr
    assert site.flask("rollback", "--to", "3", "--dry-run").returncode == 4
    assert len(site.applied()) == 4
    (steps,) = re.findall(r"flask db rollback .*--steps (\d)", finished.stderr)
    assert site.flask("rollback", "--steps", steps, "--yes").returncode == 0
    assert site.applied() == ["001_a", "003_c"]


def test_the_path_of_a_refused_rollback_leads_through_those_that_stay(tmp_path: Path) -> None:
    files = {"001_a": table(1, "requires 2"), "002_b": table(2, "requires 9"), "009_i": table(9)}
    site = Site(tmp_path / "site", files)
    site.prepare()
    with pytest.raises(DependentsStay, match="001_a -> 002_b -> 009_i"):
        rollback(str(site.database), site.directory, to="2")


def test_what_an_older_runner_applied_is_judged_by_its_file(site: Site) -> None:
    site.prepare()
    site.do("UPDATE _migrations SET up_sql = NULL")
    with pytest.raises(DependentsStay):
        rollback(str(site.database), site.directory, to="3")


def test_a_copy_in_the_ledger_that_cannot_be_read_is_warned_of_and_the_file_judges(site: Site) -> None:
    site.prepare()
    site.do("UPDATE _migrations SET up_sql = x'00' WHERE filename = '002_b.sql'")
    finished = site.flask("rollback", "--to", "3", "--yes")
    assert finished.returncode == 4
    assert "Warning: 002_b.sql: what it requires, as the ledger keeps it, cannot be read" in finished.stderr
    assert "Error FA419" in finished.stderr


def test_dependents_go_before_what_they_require(site: Site) -> None:
    site.prepare()
    outcome = rollback(str(site.database), site.directory, to="0")
    assert [each.filename[:3] for each in outcome.done] == ["002", "004", "003", "001"]


# The documents.


def test_the_example_of_the_documents_runs_behind_what_it_requires(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "migrations.md").read_text()
    (example,) = re.findall(r"```sql\n(-- Fees .*?)```", page, re.DOTALL)
    site = Site(tmp_path / "site", {"004_first": table(4), "003_fees": example})
    site.write({"005_add_risk_profiles": "CREATE TABLE risk_profiles (customer_id TEXT UNIQUE);"})
    site.prepare()
    assert site.applied() == ["004_first", "005_add_risk_profiles", "003_fees"]
    assert site.flask("rollback", "--yes").returncode == 0
    assert json.loads(site.flask("status", "--json").stdout)["migrations"][0]["state"] == "pending"
