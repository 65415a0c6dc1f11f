"""What is pending, what state each migration is in, and what a target means."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from financial_agent.migrator.errors import FileRenamed, TargetAmbiguous, TargetUnknown
from financial_agent.migrator.ledger import Entry
from financial_agent.migrator.plan import overview, pending, resolve, to_roll_back, up_to, version_of
from financial_agent.migrator.script import MigrationFile

LONG = 20250301090000123456  # above 64 bits
examples = settings(max_examples=100, deadline=None)


def file(filename: str) -> MigrationFile:
    digits, _, name = filename.removesuffix(".sql").partition("_")
    return MigrationFile(int(digits), name, filename, Path(filename), "sqlite")


def files(*filenames: str) -> list[MigrationFile]:
    return [file(filename) for filename in filenames]


def entry(filename: str, checksum: str | None = "same") -> Entry:
    return Entry(filename, "2025-03-01 09:00:00", checksum, 1, True)


def entries(*filenames: str) -> list[Entry]:
    return [entry(filename) for filename in filenames]


def names(of: list[MigrationFile] | list[Entry]) -> list[str]:
    return [each.filename for each in of]


def heights(of: list[MigrationFile]) -> dict[str, int]:
    """None requires another."""
    return {each.filename: each.version for each in of}


# Each version with whether its file is there and whether it is applied; and the order of application.
numbers = st.integers(0, 30) | st.integers(LONG, LONG + 3)
folders = st.dictionaries(numbers, st.tuples(st.booleans(), st.booleans()), max_size=12)


def name(version: int) -> str:
    return f"{version:03}_m.sql"


# Pending.


@examples
@given(folders, st.randoms(use_true_random=False))
def test_what_is_pending_is_what_no_entry_records_whatever_the_order(
    folder: dict[int, tuple[bool, bool]], chance: Random
) -> None:
    there = [file(name(version)) for version in sorted(folder) if folder[version][0]]
    applied = [entry(name(version)) for version in folder if folder[version][1]]
    chance.shuffle(applied)
    expected = [version for version in sorted(folder) if folder[version] == (True, False)]
    assert [each.version for each in pending(there, applied)] == expected


def test_a_late_merge_below_the_newest_version_is_pending() -> None:
    there = files("001_a.sql", "002_b.sql", "003_c.sql")
    assert names(pending(there, entries("001_a.sql", "003_c.sql"))) == ["002_b.sql"]


@pytest.mark.parametrize("found", ["002_better.sql", "2_b.sql", "0002_b.sql", "002_B.sql"])
def test_a_renamed_file_is_refused_because_it_would_run_twice(found: str) -> None:
    with pytest.raises(FileRenamed) as refused:
        pending(files("001_a.sql", found), entries("001_a.sql", "002_b.sql"))
    assert refused.value.fields == {"version": 2, "applied": "002_b.sql", "found": Path(found)}


def test_entries_of_other_tools_and_of_lost_files_are_left_alone() -> None:
    there = files("000_z.sql", "001_a.sql")
    assert names(pending(there, entries("initial", "", "007_lost.sql"))) == ["000_z.sql", "001_a.sql"]


# States.


def test_each_migration_has_a_state() -> None:
    there = files("001_a.sql", "002_b.sql", "003_c.sql", "004_d.sql", f"{LONG}_e.sql")
    applied = [entry(f"{LONG - 1}_lost.sql"), entry("003_c.sql", None), entry("001_a.sql"), entry("002_b.sql", "other")]
    applied.append(entry("initial"))
    items = overview(there, applied, {each.filename: "same" for each in there}, heights(there), {})
    assert [(item.filename, item.state, item.out_of_order) for item in items] == [
        ("initial", "missing", False),
        ("001_a.sql", "applied", False),
        ("002_b.sql", "edited", False),
        ("003_c.sql", "applied", False),  # the first runner kept no checksum
        ("004_d.sql", "pending", True),
        (f"{LONG - 1}_lost.sql", "missing", False),
        (f"{LONG}_e.sql", "pending", False),
    ]
    for item in items:
        assert (item.file in there) == (item.state != "missing")
        assert (item.entry in applied) == (item.state != "pending")


@examples
@given(folders)
def test_every_file_and_every_entry_shows_once_by_version(folder: dict[int, tuple[bool, bool]]) -> None:
    there = [file(name(version)) for version in sorted(folder) if folder[version][0]]
    applied = [entry(name(version)) for version in folder if folder[version][1]]
    items = overview(there, applied, {each.filename: "same" for each in there}, heights(there), {})
    assert [item.version for item in items] == sorted(version for version in folder if any(folder[version]))
    newest = max((each.version for each in items if each.entry), default=-1)
    for item in items:
        assert item.state == {(1, 1): "applied", (1, 0): "pending", (0, 1): "missing"}[folder[item.version]]
        assert item.out_of_order == (item.state == "pending" and item.version < newest)


# Targets.

NAMES = [
    "001_create_users.sql",
    "002_add_email.sql",
    "003_add_email_index.sql",
    "010_drop_users.sql",
    f"{LONG}_late.sql",
]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("1", 0),
        ("001", 0),
        ("0010", 3),
        (str(LONG), 4),
        ("create", 0),
        ("DROP", 3),
        ("index", 2),
        ("email_index.sql", 2),
        ("002_add_email", 1),  # whole, though it is part of no other
        ("002_add_email.sql", 1),
        ("003_add", 2),
        (f"{LONG}_", 4),
    ],
)
def test_a_target_is_a_number_a_name_or_a_part_of_one(target: str, expected: int) -> None:
    assert resolve(target, NAMES) == NAMES[expected]


def test_a_whole_name_means_itself_though_it_is_part_of_another() -> None:
    assert resolve("1_add", ["1_add.sql", "11_add.sql", "21_add_more.sql"]) == "1_add.sql"


@pytest.mark.parametrize("target", ["email", "users", ".sql", "_"])
def test_a_part_of_several_names_is_refused(target: str) -> None:
    with pytest.raises(TargetAmbiguous) as refused:
        resolve(target, NAMES)
    matches = refused.value.fields["matches"].split(", ")
    assert matches == [each for each in NAMES if target in each]


@pytest.mark.parametrize("target", ["0", "4", "100", "-1", "1.0", "1 ", "nothing", "", "²"])
def test_an_unknown_target_is_refused_with_what_there_is(target: str) -> None:
    with pytest.raises(TargetUnknown) as refused:
        resolve(target, NAMES)
    assert NAMES[0] in refused.value.hint
    assert NAMES[-1] in refused.value.hint
    with pytest.raises(TargetUnknown):
        resolve(target, [])


@pytest.mark.parametrize(
    ("target", "expected"),
    [(None, [0, 2, 4]), ("1", [0]), ("2", [0]), ("index", [0, 2]), ("010", [0, 2]), (str(LONG), [0, 2, 4])],
)
def test_up_to_a_target_runs_what_is_pending_below_it_and_itself(target: str | None, expected: list[int]) -> None:
    there = files(*NAMES)
    todo = pending(there, entries(NAMES[1], NAMES[3]))
    assert names(up_to(there, todo, target)) == [NAMES[number] for number in expected]


def test_up_to_knows_only_what_the_folder_has() -> None:
    with pytest.raises(TargetUnknown):
        up_to(files("001_a.sql"), files("001_a.sql"), "2")


# Rolling back. 002 came late, after 003; 010's file may be gone.
APPLIED = ["001_a.sql", "003_c.sql", "002_b.sql", "010_d.sql"]


@pytest.mark.parametrize(
    ("steps", "to", "expected"),
    [
        (1, None, ["010_d.sql"]),
        (2, None, ["010_d.sql", "002_b.sql"]),
        (3, None, ["010_d.sql", "002_b.sql", "003_c.sql"]),
        (99, None, ["010_d.sql", "002_b.sql", "003_c.sql", "001_a.sql"]),
        (0, None, []),
        (1, "0", ["010_d.sql", "002_b.sql", "003_c.sql", "001_a.sql"]),
        (1, "000", ["010_d.sql", "002_b.sql", "003_c.sql", "001_a.sql"]),
        (1, "1", ["010_d.sql", "002_b.sql", "003_c.sql"]),
        (1, "002", ["010_d.sql", "003_c.sql"]),
        (1, "3", ["010_d.sql"]),
        (1, "_d", []),
    ],
)
def test_the_last_applied_is_rolled_back_first(steps: int, to: str | None, expected: list[str]) -> None:
    assert names(to_roll_back(entries(*APPLIED), steps=steps, to=to)) == expected


def test_one_step_is_the_default_and_nothing_applied_is_nothing_to_undo() -> None:
    assert names(to_roll_back(entries(*APPLIED))) == ["010_d.sql"]
    assert to_roll_back([]) == []
    assert to_roll_back([], to="0") == []


def test_a_migration_that_bears_the_number_0_can_stay() -> None:
    assert names(to_roll_back(entries("000_z.sql", "001_a.sql"), to="0")) == ["001_a.sql"]


@pytest.mark.parametrize(("to", "error"), [("4", TargetUnknown), ("nothing", TargetUnknown), (".sql", TargetAmbiguous)])
def test_rolling_back_to_what_is_not_applied_is_refused(to: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        to_roll_back(entries(*APPLIED), to=to)


@examples
@given(st.lists(numbers, unique=True, min_size=1, max_size=10), st.data())
def test_rolling_back_to_a_version_keeps_it_and_all_below(applied: list[int], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(applied))
    undone = to_roll_back([entry(name(version)) for version in applied], to=str(target))
    assert [version_of(each.filename) for each in undone] == [each for each in reversed(applied) if each > target]


@pytest.mark.parametrize(
    ("filename", "version"),
    [("004_a.sql", 4), (f"{LONG}_a.sql", LONG), ("0_a.sql", 0), ("initial", -1), ("", -1), ("٤_a.sql", -1)],
)
def test_the_version_is_the_number_in_front(filename: str, version: int) -> None:
    assert version_of(filename) == version
