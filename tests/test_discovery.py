"""What a folder's files are called, in which order they come, and how a new one is made."""

from __future__ import annotations

import os
import shlex
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest

from financial_agent.migrator.discovery import create, discover
from financial_agent.migrator.errors import FolderMissing, MigratorError, NameUnusable
from financial_agent.migrator.errors_files import (
    FileNameInvalid,
    FileOutsideFolder,
    FileUnreadable,
    SectionEmpty,
    VersionDuplicated,
)
from financial_agent.migrator.script import MigrationFile, read

LONG = "20250301090000123456"  # above 64 bits
NOW = datetime(2025, 3, 1, 9, 30, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "migrations"
    path.mkdir()
    return path


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("SELECT 1;")


def found(folder: Path, dialect: str = "sqlite") -> list[str]:
    return [file.path.name for file in discover(folder, dialect)]


def test_a_name_tells_the_version_and_the_name(folder: Path) -> None:
    fill(folder, "007_add_index.sql")
    path = folder / "007_add_index.sql"
    assert discover(folder, "sqlite") == [MigrationFile(7, "add_index", "007_add_index.sql", path, "sqlite")]


@pytest.mark.parametrize(
    "names",
    [
        ["009_a.sql", "010_a.sql"],
        ["1_z.sql", "2_a.sql", "10_b.sql"],
        ["0_a.sql", "0001_a.sql", "02_a.sql"],
        [
            "999_a.sql",
            "1000_a.sql",
            "20250301093000_a.sql",
            f"{LONG}_a.sql",
            f"{int(LONG) + 1}_a.sql",
            f"1{LONG}_a.sql",
        ],
        ["1_a-b c.sql", "2__.sql", "3_Ümlaut.sql", "4_4_4.sql"],
    ],
)
def test_files_come_in_the_order_of_their_numbers(folder: Path, names: list[str]) -> None:
    fill(folder, *reversed(names))
    assert found(folder) == names


def test_an_empty_folder_has_no_migrations(folder: Path) -> None:
    assert discover(folder, "sqlite") == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1_a.sql", "001_b.sql"),
        ("001_a.sql", "001_b.sql"),
        ("001_a.sql", "01_a.sql"),
        ("001_a.sql", "001_b.mysql.sql"),
        ("01_a.postgresql.sql", "1_a.mysql.sql"),
        (unicodedata.normalize("NFC", "001_é.sql"), unicodedata.normalize("NFD", "001_é.sql")),
    ],
)
def test_two_files_with_one_number_are_refused_and_both_named(folder: Path, first: str, second: str) -> None:
    fill(folder, "002_c.sql", first, second)
    with pytest.raises(VersionDuplicated) as refused:
        discover(folder, "sqlite")
    assert {refused.value.fields["first"], refused.value.fields["second"]} == {Path(first), Path(second)}
    assert refused.value.fields["version"] == 1


VARIANTS = ["001_a.sql", "001_a.postgresql.sql", "002_b.mysql.sql", "003_c.sql", "003_c.sqlite.sql"]


@pytest.mark.parametrize(
    ("dialect", "names"),
    [
        ("sqlite", ["001_a.sql", "003_c.sqlite.sql"]),
        ("postgresql", ["001_a.postgresql.sql", "003_c.sql"]),
        ("mysql", ["001_a.sql", "002_b.mysql.sql", "003_c.sql"]),
    ],
)
def test_an_engine_takes_its_own_variant_under_the_plain_name(folder: Path, dialect: str, names: list[str]) -> None:
    fill(folder, *VARIANTS)
    assert found(folder, dialect) == names
    plain = [f"{name.split('.')[0]}.sql" for name in names]
    assert [file.filename for file in discover(folder, dialect)] == plain


@pytest.mark.parametrize(
    ("dialect", "names"),
    [
        ("sqlite", ["001_a.sqlite.sql", None]),
        ("postgresql", [None, "003_c.postgresql.sql"]),
        ("mysql", ["001_a.mysql.sql", None, "003_c.mysql.sql"]),
    ],
)
def test_beside_variants_a_plain_file_knows_what_its_own_would_be_called(
    folder: Path, dialect: str, names: list[str | None]
) -> None:
    fill(folder, *VARIANTS)
    assert [file.own_name for file in discover(folder, dialect)] == names


def test_without_variants_there_is_no_name_for_one(folder: Path) -> None:
    fill(folder, *VARIANTS[1:3], "003_c.sql")
    assert [file.own_name for file in discover(folder, "sqlite")] == [None]


@pytest.mark.parametrize(
    "name",
    [
        "add_index.sql",
        "001.sql",
        "001_.sql",
        "001-add.sql",
        "001 add.sql",
        "1a_add.sql",
        "v1_add.sql",
        "-1_add.sql",
        "+1_add.sql",
        "1.5_add.sql",
        "٠٠١_add.sql",
        "001_add.index.sql",
        "001_add.PostgreSQL.sql",
        "001_add.postgres.sql",
        "001_add.sql.sql",
        "001_.sql.sql",
        "001_add..sql",
        "001_a\nb.sql",
        "001_a\u202eb.sql",
        " 001_add.sql",
        "001_add.SQL",
        "001_add.Sql",
        "readme.SQL",
        "001-add.py",
    ],
)
def test_a_near_miss_is_refused_and_never_skipped(folder: Path, name: str) -> None:
    fill(folder, "001_a.sql", name)
    with pytest.raises(FileNameInvalid) as refused:
        discover(folder, "sqlite")
    assert refused.value.fields["name"] == name
    assert refused.value.hint


def test_the_hint_for_a_capital_suffix_can_be_typed(folder: Path) -> None:
    fill(folder, "001_it's $HOME.SQL")
    with pytest.raises(FileNameInvalid) as refused:
        discover(folder, "sqlite")
    command = shlex.split(refused.value.hint)
    assert command == ["mv", str(folder / "001_it's $HOME.SQL"), str(folder / "001_it's $HOME.sql")]


def test_hidden_files_folders_and_other_suffixes_are_ignored(folder: Path) -> None:
    fill(folder, "001_a.sql", ".002_b.sql", ".SQL", "README.md", "003_c.sql~", "003_c.sql.bak", "003_c.txt", "003")
    fill(folder, "__init__.py", "run_migrations.py", "sql")
    (folder / "004_d.sql").mkdir()
    (folder / ".#005_e.sql").symlink_to("nobody@nowhere")
    (folder / "006_f.sql").symlink_to(folder / "004_d.sql")
    assert found(folder) == ["001_a.sql"]


def test_nothing_but_the_folder_is_read(folder: Path) -> None:
    (folder / "001_a.sql").write_bytes(b"\xff\0'")
    assert found(folder) == ["001_a.sql"]


def test_the_ledger_name_is_the_same_whatever_the_file_system_decomposes(folder: Path) -> None:
    fill(folder, unicodedata.normalize("NFD", "001_é.sql"))
    (file,) = discover(folder, "sqlite")
    assert file.filename == unicodedata.normalize("NFC", "001_é.sql")
    assert file.path.exists()


# Links, pipes, and folders that are none.


def test_a_link_may_stay_inside_the_folder(folder: Path) -> None:
    fill(folder, "001_a.sql")
    (folder / "002_b.sql").symlink_to("001_a.sql")
    elsewhere = folder.parent / "link"
    elsewhere.symlink_to(folder)
    assert found(folder) == found(elsewhere) == ["001_a.sql", "002_b.sql"]


@pytest.mark.parametrize("target", ["../outside.sql", "../migrations-2/001_a.sql", "../missing.sql", "/etc/hostname"])
def test_a_link_that_leads_out_of_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder.parent / "migrations-2").mkdir()
    fill(folder.parent, "outside.sql", "migrations-2/001_a.sql")
    (folder / "002_b.sql").symlink_to(target)
    with pytest.raises(FileOutsideFolder, match=r"002_b\.sql"):
        discover(folder, "sqlite")


@pytest.mark.parametrize("target", ["001_missing.sql", "002_b.sql"], ids=["dangling", "loop"])
def test_a_link_to_nothing_is_refused(folder: Path, target: str) -> None:
    (folder / "002_b.sql").symlink_to(target)
    with pytest.raises(FileUnreadable, match=r"002_b\.sql"):
        discover(folder, "sqlite")


@pytest.mark.parametrize("target", ["missing", "notes"], ids=["dangling", "loop"])
def test_a_link_that_is_no_migration_does_not_matter(folder: Path, target: str) -> None:
    fill(folder, "001_a.sql")
    (folder / "notes").symlink_to(target)
    assert found(folder) == ["001_a.sql"]


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "001_a.sql")
    os.mkfifo(folder / "notes")
    with pytest.raises(FileUnreadable, match=r"001_a\.sql.*regular file"):
        discover(folder, "sqlite")


def test_what_is_no_folder_has_no_migrations(folder: Path) -> None:
    fill(folder, "001_a.sql")
    problems = {"nowhere": "does not exist", "001_a.sql": "is a file", "\0": "NUL byte"}
    for path, problem in ((folder / name, problem) for name, problem in problems.items()):
        for ask in (lambda path: discover(path, "sqlite"), lambda path: create(path, "a")):
            with pytest.raises(FolderMissing, match=problem) as refused:
                ask(path)
            assert refused.value.fields["folder"] == path


# New files.


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ([], "001_a.sql"),
        (["001_x.sql"], "002_a.sql"),
        (["009_x.sql"], "010_a.sql"),
        (["999_x.sql"], "1000_a.sql"),
        (["9_x.sql", "8_x.sql"], "10_a.sql"),
        (["0001_x.sql"], "0002_a.sql"),
        (["0001_x.sql", "02_x.sql"], "03_a.sql"),
        (["001_x.sql", "003_x.sql"], "004_a.sql"),
        (["001_x.mysql.sql"], "002_a.sql"),
        (["20240101000000_x.sql", "001_x.sql"], "20250301093000_a.sql"),
        (["20250301093000_x.sql"], "20250301093001_a.sql"),
        (["20991231235959_x.sql"], "20991231235960_a.sql"),
        ([f"{LONG}_x.sql"], f"{int(LONG) + 1}_a.sql"),
    ],
)
def test_a_new_file_goes_on_as_the_folder_counts(folder: Path, there: list[str], name: str) -> None:
    fill(folder, *there)
    path = create(folder, "a", NOW)
    assert path == folder / name
    assert found(folder)[-1] == name


def test_a_timestamp_is_in_utc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "20240101000000_x.sql")
    monkeypatch.setenv("TZ", "AHEAD-9")
    time.tzset()
    try:
        before = f"{datetime.now(UTC):%Y%m%d%H%M%S}"
        stamp = create(folder, "a").name.removesuffix("_a.sql")
        assert before <= stamp <= f"{datetime.now(UTC):%Y%m%d%H%M%S}"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        ("add_risk_profile", "add_risk_profile"),
        ("  Add Risk-Profile! ", "add_risk_profile"),
        ("../../etc/passwd", "etc_passwd"),
        ("add.postgresql.sql", "add_postgresql_sql"),
        ("a\nb\0c", "a_b_c"),
        ("-- migrate:down", "migrate_down"),
        ("2fa für alle", "2fa_fur_alle"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_new_file_is_named_after_the_words(folder: Path, words: str, slug: str) -> None:
    assert create(folder, words) == folder / f"001_{slug}.sql"
    assert [file.name for file in discover(folder, "sqlite")] == [slug]


@pytest.mark.parametrize("words", ["", " ", "---", "/", "日本", "x" * 201])
def test_words_that_make_no_name_are_refused(folder: Path, words: str) -> None:
    with pytest.raises(NameUnusable):
        create(folder, words)
    assert list(folder.iterdir()) == []


def test_a_new_file_has_both_sections_and_waits_to_be_written(folder: Path) -> None:
    path = create(folder, "add risk profile")
    text = path.read_bytes().decode()
    assert text.splitlines()[0] == "-- Add risk profile"
    assert "\r" not in text
    (file,) = discover(folder, "sqlite")
    with pytest.raises(SectionEmpty):
        read(file)
    path.write_text(text.replace(":up\n", ":up\nSELECT 1;\n").replace(":down\n", ":down\nSELECT 2;\n"))
    migration = read(file)
    assert migration.down
    assert [statement.text for statement in (*migration.up.statements(), *migration.down.statements())] == [
        "SELECT 1;",
        "SELECT 2;",
    ]


def test_a_new_file_never_replaces_one_that_appears_meanwhile(folder: Path) -> None:
    fill(folder, "20240101000000_x.sql")

    class Late(datetime):
        """A clock that is asked after the folder was listed, when somebody else writes the same file."""

        def strftime(self, format: str) -> str:
            fill(folder, "20250301093000_a.sql")
            return super().strftime(format)

    with pytest.raises(MigratorError):
        create(folder, "a", Late(2025, 3, 1, 9, 30, tzinfo=UTC))
    assert (folder / "20250301093000_a.sql").read_text() == "SELECT 1;"


def test_a_folder_with_a_near_miss_gets_no_new_file(folder: Path) -> None:
    fill(folder, "005_x.SQL")
    with pytest.raises(FileNameInvalid):
        create(folder, "a")
    assert [path.name for path in folder.iterdir()] == ["005_x.SQL"]
