"""`flask db check` as a person, CI and pre-commit meet it: the lock file, exit codes, output, what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from financial_agent import config
from financial_agent.migrator import check, lockfile, proof_findings
from financial_agent.migrator.control import Control
from financial_agent.migrator.discovery import listing
from tests.helpers import FLASK, ROOT, Site, finish, run, snapshot, started, until

OWN = Path(config.DEFAULTS["MIGRATIONS"])
GOOD = """\
-- A table of numbers.

-- migrate:up
CREATE TABLE IF NOT EXISTS t{n} (id INTEGER PRIMARY KEY);

-- migrate:down
DROP TABLE IF EXISTS t{n};
"""
FILES = {"001_first": GOOD.format(n=1), "002_second": GOOD.format(n=2)}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two migrations and their lock file."""
    site = Site(tmp_path, FILES)
    check.check(site.directory, write_lock=True, control=Control())
    return site


def found(site: Site) -> list[tuple[str, str | None]]:
    """What the check says of the lock file."""
    report = check.check(site.directory, control=Control())
    return [(each.code, each.filename) for each in report.findings if each.code in lockfile.CODES]


def lines(site: Site) -> list[str]:
    return (site.directory / lockfile.NAME).read_text(encoding="utf-8").splitlines()


# The lock file.


def test_the_lock_file_has_a_line_for_each_migration_in_order_with_its_checksum(site: Site) -> None:
    (site.directory / "010_later.sql").write_bytes(b"\xef\xbb\xbfSELECT 1;\r\n")
    (site.directory / "9_nine.sql").write_text("SELECT 1;\n")
    (site.directory / "9_nine.mysql.sql").write_text("SELECT 1;\n")
    check.check(site.directory, write_lock=True, control=Control())
    head, *rest = lines(site)
    assert head.startswith("#")
    assert [line[66:] for line in rest] == [
        "001_first.sql",
        "002_second.sql",
        "9_nine.mysql.sql",
        "9_nine.sql",
        "010_later.sql",
    ]
    assert len({line[:64] for line in rest[2:]}) == 1, "neither the byte order mark nor CRLF counts"
    assert found(site) == []


def test_a_lock_file_that_is_right_is_not_written_anew(site: Site) -> None:
    before = snapshot(site.directory)
    check.check(site.directory, write_lock=True, control=Control())
    assert snapshot(site.directory) == before


def test_a_file_that_is_not_in_the_lock_one_that_is_gone_and_one_that_was_edited_are_found(site: Site) -> None:
    site.write({"003_third": GOOD.format(n=3), "002_second": FILES["002_second"] + "-- edited\n"})
    (site.directory / "001_first.sql").unlink()
    assert sorted(found(site)) == [
        (lockfile.NOT_LOCKED, "003_third.sql"),
        (lockfile.FILE_GONE, "001_first.sql"),
        (lockfile.EDITED, "002_second.sql"),
    ]
    check.check(site.directory, write_lock=True, control=Control())
    assert found(site) == []


def test_the_files_of_other_engines_are_held_too(site: Site) -> None:
    site.write({"002_second.postgresql": GOOD.format(n=2)})
    assert found(site) == [(lockfile.NOT_LOCKED, "002_second.postgresql.sql")]
    check.check(site.directory, write_lock=True, control=Control())
    site.write({"002_second.postgresql": GOOD.format(n=3)})
    assert found(site) == [(lockfile.EDITED, "002_second.postgresql.sql")]


def test_a_folder_without_a_lock_file_is_told_how_to_begin_one_and_passes(tmp_path: Path) -> None:
    site = Site(tmp_path, FILES)
    report = check.check(site.directory, control=Control())
    (note,) = report.findings
    assert (note.code, note.severity) == (lockfile.NOT_THERE, "note")
    assert "--write-lock" in note.hint
    assert report.is_well


def test_two_branches_that_add_a_migration_conflict_in_git_and_the_check_finds_what_is_left_of_it(site: Site) -> None:
    def git(*words: str) -> int:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ("git", *identity, *words)
        return subprocess.run(command, cwd=site.directory, capture_output=True, check=False).returncode

    def branch(name: str, file: str) -> None:
        assert git("checkout", "-q", "-b", name, "first") == 0
        site.write({file: GOOD.format(n=name)})
        check.check(site.directory, write_lock=True, control=Control())
        assert git("add", ".") + git("commit", "-qm", name) == 0

    assert git("init", "-q", "-b", "first") + git("add", ".") + git("commit", "-qm", "first") == 0
    branch("one", "003_one")
    branch("two", "004_two")
    assert git("merge", "-q", "one") != 0
    codes = found(site)
    assert codes.count((lockfile.UNREADABLE, lockfile.NAME)) == 3
    check.check(site.directory, write_lock=True, control=Control())
    assert found(site) == []


def test_nothing_is_written_beside_a_file_that_is_named_wrongly(site: Site) -> None:
    (site.directory / "notes.sql").write_text("SELECT 1;")
    before = snapshot(site.directory)
    report = check.check(site.directory, write_lock=True, control=Control())
    assert [each.code for each in report.findings] == ["FA201"]
    assert not report.is_well
    assert snapshot(site.directory) == before


def test_a_file_that_cannot_be_read_is_a_finding_and_those_before_it_are_proven(site: Site) -> None:
    index = "CREATE INDEX IF NOT EXISTS i ON t1 (id);"
    bad = f"-- So that numbers are found.\n\n-- migrate:up\n{index}\n-- migrate:down\nSELECT 1;\n"
    site.write({"002_second": bad, "003_third": "COMMIT;", "004_x": bad})
    report = check.check(site.directory, control=Control())
    codes = [(each.code, each.filename) for each in report.findings if each.code not in lockfile.CODES]
    assert codes == [("FA653", "002_second.sql"), ("FA212", "003_third.sql"), ("FA663", "004_x.sql")]


def test_the_projects_own_lock_file_is_right() -> None:
    files = [each.path for each in listing(OWN)]
    assert (OWN / lockfile.NAME).exists()
    assert list(lockfile.check(OWN, files)) == []


# Requirements and environments.


def test_migrations_are_proven_in_the_order_in_which_they_require_each_other(site: Site) -> None:
    later = GOOD.format(n=3).replace("(id INTEGER PRIMARY KEY)", "AS SELECT id FROM t4")
    site.write({"003_third": f"-- migrate:requires 004_fourth\n{later}", "004_fourth": GOOD.format(n=4)})
    report = check.check(site.directory, control=Control())
    assert [file.version for file in report.files] == [1, 2, 4, 3]
    assert [each for each in report.findings if each.code not in lockfile.CODES] == []


def test_a_requirement_that_cannot_be_met_is_a_finding_at_its_line(site: Site) -> None:
    site.write({"003_third": f"-- migrate:requires 007_nothing\n{GOOD.format(n=3)}"})
    (found,) = check.check(site.directory, control=Control()).findings
    assert found.fails
    assert found.location is not None
    assert (found.location.path, found.location.line) == (str(site.directory / "003_third.sql"), 1)


def test_the_files_of_every_environment_are_checked(site: Site) -> None:
    bad = GOOD.format(n=3).replace("IF EXISTS t3", "IF EXISTS t4")
    site.write({"003_third": f"-- migrate:environments staging\n{bad}", "004_fourth": GOOD.format(n=4)})
    assert "error FA653: 003_third.sql" in checked(site, "--write-lock").stdout


def test_two_files_that_make_one_table_for_two_environments_are_checked_one_environment_at_a_time(site: Site) -> None:
    third = GOOD.format(n=3).replace(" IF NOT EXISTS", "")
    for number, name in ((3, "staging"), (4, "production")):
        site.write(
            {f"00{number}_{name}": f"-- migrate:environments {name}\n-- migrate:ignore FA603 it is new\n{third}"}
        )
    assert "error FA650: 004_production.sql" in checked(site, "--write-lock").stdout
    for name in ("staging", "production"):
        finished = checked(site, "--environment", name)
        assert (finished.returncode, finished.stdout) == (0, "3 migrations checked. All is well. 1 finding silenced.\n")


def test_the_numbers_of_other_environments_are_no_gap_and_those_of_no_file_are(site: Site) -> None:
    site.write({"003_third": f"-- migrate:environments staging\n{GOOD.format(n=3)}", "004_fourth": GOOD.format(n=4)})
    assert checked(site, "--write-lock", "--environment", "production").returncode == 0
    site.write({"006_sixth": GOOD.format(n=6)})
    assert "number 005 is missing" in checked(site, "--write-lock", "--environment", "production").stdout


def test_a_configured_environment_leaves_no_file_unchecked(site: Site) -> None:
    (site.root / ".flaskenv").write_text("FINANCIAL_AGENT_ENVIRONMENT=production\n")
    site.write({"003_third": f"-- migrate:environments staging\n{GOOD.format(n=3)}"})
    assert checked(site, "--write-lock").stdout == "3 migrations checked. All is well.\n"


# A folder with a past.


def test_what_was_released_before_it_was_checked_does_not_count_and_what_comes_after_does(site: Site) -> None:
    column = "ALTER TABLE t1 ADD COLUMN a TEXT NOT NULL;\n"
    site.write(
        {
            "001_first": "-- migrate:up\nCREATE TABLE t1 (id INTEGER);\n-- migrate:down\nSELECT 1;\n",
            "002_second": f"{column}-- migrate:ignore FA601 this is not so\nSELECT 1;\n",
        }
    )
    assert checked(site, "--write-lock").returncode == 1
    assert checked(site, "--after", "001").returncode == 1
    report = check.check(site.directory, after="second", control=Control())
    assert report.findings == ()
    codes = {each.finding.code for each in report.silenced}
    assert codes >= {"FA605", "FA608", "FA618", "FA653", "FA660"}
    assert {each.reason for each in report.silenced} == {"it is not after 002_second.sql"}
    site.write({"003_third": FILES["001_first"].replace("t1", "t3").replace("-- A table of numbers.", "")})
    assert "FA605: 003_third.sql" in checked(site, "--after", "2", "--write-lock").stdout


def test_what_cannot_be_applied_or_is_not_what_the_lock_has_counts_in_a_folder_with_a_past_too(site: Site) -> None:
    site.write({"002_second": "CREATE TABLE t1 (id INTEGER);"})
    report = check.check(site.directory, after="002", control=Control())
    assert [each.code for each in report.findings] == [lockfile.EDITED, "FA650"]


def test_the_setting_says_after_which_migration_to_judge_and_the_option_overrides_it(site: Site) -> None:
    site.write({"002_second": FILES["002_second"].replace("-- A table of numbers.", "")})
    (site.root / ".flaskenv").write_text("FINANCIAL_AGENT_CHECK_AFTER=2\n")
    assert checked(site, "--write-lock").returncode == 0
    assert checked(site, "--after", "1").returncode == 1
    assert "Error FA106" in checked(site, "--after", "9", "--write-lock").stderr


def test_what_is_silenced_from_outside_is_told_apart_in_sarif(site: Site) -> None:
    site.write({"002_second": FILES["002_second"].replace("-- A table of numbers.", "")})
    finished = checked(site, "--write-lock", "--after", "2", "--format", "sarif")
    (result,) = json.loads(finished.stdout)["runs"][0]["results"]
    assert result["suppressions"][0]["kind"] == "external"


# The command.


def checked(site: Site, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([*FLASK, "check", "--directory", str(site.directory), *words], site.root)


def test_a_check_says_what_is_wrong_where_and_what_to_type(site: Site) -> None:
    site.write({"003_third": GOOD.format(n=3).replace("IF EXISTS t3", "IF EXISTS t3;\nUPDATE t4 SET id = 1")})
    finished = checked(site)
    assert finished.returncode == 1
    path = site.directory / "003_third.sql"
    assert finished.stdout == (
        "error FA671: 003_third.sql: migrations.lock does not have it\n"
        f"    at {site.directory / 'migrations.lock'}\n"
        f"    Next: If that is meant: flask db check --directory {site.directory} --write-lock\n"
        "error FA652: 003_third.sql: its down section does not run: no such table: t4\n"
        f"    at {path}:8:8\n"
        "    UPDATE t4 SET id = 1;\n"
        "           ^\n"
        "3 migrations checked. 2 findings.\n"
    )
    assert finished.stderr == ""


def test_a_check_that_finds_nothing_exits_with_0_and_opens_no_database(site: Site) -> None:
    before = snapshot(site.root)
    assert checked(site).stdout == "2 migrations checked. All is well.\n"
    assert checked(site).returncode == 0
    assert snapshot(site.root) == before


@pytest.mark.parametrize("words", [("--json",), ("--format", "json")])
def test_json_holds_each_finding_with_its_place(words: tuple[str, ...], site: Site) -> None:
    site.write({"002_second": GOOD.format(n=2).partition("\n-- migrate:down")[0]})
    finished = checked(site, *words)
    answer = json.loads(finished.stdout)
    assert (finished.returncode, answer["exit_code"], answer["ok"]) == (1, 1, False)
    assert (answer["command"], answer["database"]) == ("check", "")
    place = {each["code"]: (each["severity"], each["migration"], each["line"]) for each in answer["diagnostics"]}
    assert place == {"FA673": ("error", "002_second.sql", 3), "FA660": ("info", "002_second.sql", 3)}


def test_write_lock_is_what_makes_the_check_pass_again(site: Site) -> None:
    site.write({"003_third": GOOD.format(n=3)})
    assert checked(site).returncode == 1
    assert checked(site, "--write-lock").returncode == 0
    assert checked(site).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_check_that_is_ended_leaves_no_file_behind(number: int, tmp_path: Path) -> None:
    endless = "SELECT count(*) FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c);"
    site = Site(tmp_path, {"001_endless": endless})
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    command = ["env", f"TMPDIR={scratch}", *FLASK, "check", "--directory", str(site.directory)]
    with started(command, site.root) as process:
        until(lambda: any(scratch.rglob("scratch.db-migrate-attempt")))
        process.send_signal(number)
        finished = finish(process)
    assert finished.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not any(scratch.iterdir()))


@pytest.mark.slow
def test_two_hundred_migrations_are_proven_in_ten_seconds(tmp_path: Path) -> None:
    site = Site(tmp_path, {f"{n:03}_table": GOOD.format(n=n) for n in range(1, 201)})
    clock = os.times().user
    assert check.check(site.directory, control=Control()).is_well
    assert os.times().user - clock < 10


# The documents.

BOOKS = """\
-- What the shop sells, one row for each title.

-- migrate:up
CREATE TABLE IF NOT EXISTS books (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price INTEGER);

-- migrate:down
DROP TABLE IF EXISTS books;
"""


def test_the_example_of_the_documents_is_what_the_check_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    (migration, *_) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    (shown, *_) = re.findall(r"```console\n\$ flask db check\n(.*?)```", text, re.DOTALL)
    site = Site(tmp_path, {"001_create_books": BOOKS})
    assert checked(site, "--write-lock").returncode == 0
    site.write({"002_add_isbn": migration})
    finished = checked(site)
    assert finished.stdout.replace(f" --directory {site.directory}", "").replace(f"{tmp_path}/", "") == shown
    assert finished.returncode == 1


def test_the_example_of_a_folder_with_a_past_is_what_the_check_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    (words, shown) = re.findall(r"```console\n\$ flask db check (--after .*?)\n(.+?)```", text, re.DOTALL)[0]
    site = Site(tmp_path, {"001_create_books": BOOKS.split("\n", 1)[1], "002_create_shops": GOOD.format(n=2)})
    assert checked(site, "--write-lock").returncode == 1
    assert checked(site, *words.split()).stdout == shown


def test_each_code_of_the_proof_and_of_the_lock_file_is_in_the_documents_with_its_severity() -> None:
    text = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    codes = {code for codes in proof_findings.ASPECTS.values() for code in codes} | set(lockfile.CODES)
    assert set(re.findall(r"^\| (FA\d+) \| (?:error|warning|note) \|", text, re.MULTILINE)) == codes


# Hooks.


def test_each_hook_for_pre_commit_runs_a_command_that_exists_and_picks_the_files_that_it_reads() -> None:
    text = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    entries = re.findall(r"^  entry: financial-agent (.+)$", text, re.MULTILINE)
    assert entries == ["db check", "db check --write-lock"]
    for words in entries:
        shown = subprocess.run(
            [sys.executable, *FLASK[1:-1], *words.split(), "--help"], cwd=ROOT, capture_output=True, check=False
        )
        assert shown.returncode == 0
    (pattern,) = set(re.findall(r"^  files: '(.+)'$", text, re.MULTILINE))
    for name in ("migrations/001_a.sql", "001_a.mysql.sql", "app/migrations/migrations.lock", "x/002_b.py"):
        assert re.search(pattern, name)
    assert not re.search(pattern, "tests/test_001.py")
    assert text.count("pass_filenames: false") == text.count("language: python") == text.count("- id: ") == 2


def test_the_hint_to_explain_can_be_typed(site: Site) -> None:
    site.write({"003_third": f"-- migrate:ignore FA699 it has ten rows\n{GOOD.format(n=3)}"})
    finished = checked(site)
    assert finished.returncode == 1
    assert "All rules: flask db explain\n" in finished.stdout
