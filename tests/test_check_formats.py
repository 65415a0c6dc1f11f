"""What `check` prints for people, for GitHub, and for programs that read SARIF or JSON: the same findings."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from financial_agent import cli_render_check
from financial_agent.cli import main
from financial_agent.migrator.check import Report
from financial_agent.migrator.errors import Location
from financial_agent.migrator.finding import Finding
from financial_agent.migrator.lint.silence import Silenced

FOLDER = "the migrations, all"
FILE = "001_kinds.sql"
TEXT = """\
-- Kinds of accounts, which never change.

-- migrate:up
CREATE TABLE IF NOT EXISTS kinds (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, kind TEXT DEFAULT "a" REFERENCES kinds (name));
-- migrate:ignore FA604 there are three kinds
CREATE TABLE IF NOT EXISTS others (id INTEGER PRIMARY KEY, kind TEXT REFERENCES kinds (name));

-- migrate:down
DROP TABLE IF EXISTS others;
DROP TABLE IF EXISTS accounts;
DROP TABLE IF EXISTS kinds;
"""
QUOTES = (5, TEXT.splitlines()[4].index('"a"') + 1)


@dataclass(frozen=True)
class Checked:
    exit_code: int
    out: str
    err: str


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FILE).write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*words: str) -> Checked:
    runner = CliRunner(catch_exceptions=False)
    result = runner.invoke(main, ["db", "check", "--directory", FOLDER, *words], prog_name="flask")
    return Checked(result.exit_code, result.stdout, result.stderr)


def failing(codes: list[str]) -> list[str]:
    """Without the notes, which other tests are about."""
    return [code for code in codes if code in ("FA604", "FA616")]


def test_text_names_the_place_and_draws_a_caret_below_the_guilty_word(repository: Path) -> None:
    found = check()
    assert found.exit_code == 1
    lines = found.out.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("warning FA616: 001_kinds.sql: "))
    assert lines[at + 1] == f"    at {repository / FOLDER / FILE}:5:{QUOTES[1]}"
    assert lines[at + 2][lines[at + 3].index("^") :].startswith('"a"')
    assert lines[-1] == "1 migration checked. 2 findings. 1 finding silenced."


def test_json_has_each_finding_as_a_diagnostic_and_the_silenced_ones_with_their_reason(repository: Path) -> None:
    for words in (["--format", "json"], ["--json"]):
        envelope = json.loads(check(*words).out)
        assert (envelope["ok"], envelope["exit_code"]) == (False, 1)
        assert failing([each["code"] for each in envelope["diagnostics"]]) == ["FA604", "FA616"]
        (quotes,) = [each for each in envelope["diagnostics"] if each["code"] == "FA616"]
        assert (quotes["line"], quotes["column"]) == QUOTES
        (silenced,) = envelope["silenced"]
        assert (silenced["code"], silenced["line"], silenced["reason"]) == ("FA604", 7, "there are three kinds")


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """GitHub's workflow commands as its runner reads them."""

    def decoded(value: str) -> str:
        for code, character in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            value = value.replace(code, character)
        return value

    found = []
    for line in text.splitlines():
        if match := re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line):
            properties = dict(each.split("=", 1) for each in match[2].split(","))
            found.append((match[1], {name: decoded(value) for name, value in properties.items()}, decoded(match[3])))
    return found


def test_github_gets_a_command_for_each_finding_with_paths_from_the_current_folder(repository: Path) -> None:
    found = check("--format", "github")
    assert found.exit_code == 1
    said = {properties["title"]: (level, properties, text) for level, properties, text in commands(found.out)}
    level, properties, text = said["FA616"]
    place = {"file": f"{FOLDER}/{FILE}", "line": str(QUOTES[0]), "col": str(QUOTES[1]), "title": "FA616"}
    assert (level, properties) == ("warning", place)
    assert text.startswith('"a" names nothing, so SQLite takes it for a string\n')
    assert found.out.count("::warning ") == 2


@pytest.mark.parametrize("text", ["100%", "a:b,c", "two\nlines", "a\r\nb", "%0A", "::error::x"])
def test_nothing_in_a_message_or_a_name_ends_a_command_of_github(text: str, tmp_path: Path) -> None:
    name = text.replace("\n", "").replace("\r", "")
    location = Location(str(tmp_path / name), 3, 5)
    report = Report(tmp_path, findings=(Finding("FA601", "error", text, FILE, location),))
    printed = cli_render_check.report_github(report)
    ((level, properties, message),) = commands(printed)
    assert (level, message, properties["line"]) == ("error", text, "3")
    assert properties["file"].endswith(name)
    assert len(printed.splitlines()) == 2


def sarif(*words: str) -> dict[str, Any]:
    document = json.loads(check("--format", "sarif", *words).out)
    assert isinstance(document, dict)
    return document


def test_sarif_has_what_its_schema_requires(repository: Path) -> None:
    document = sarif()
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "financial_agent"
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    for rule in driver["rules"]:
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert rule["shortDescription"]["text"]
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        for location in result["locations"]:
            physical = location["physicalLocation"]
            assert re.fullmatch(r"[A-Za-z0-9._~!$&'()*+;=@/%-]+", physical["artifactLocation"]["uri"])
            region = physical.get("region", {"startLine": 1})
            assert all(isinstance(value, int) and value >= 1 for value in region.values())


def test_sarif_names_files_from_the_current_folder_as_uris(repository: Path) -> None:
    results = sarif()["runs"][0]["results"]
    (quotes,) = [each for each in results if each["ruleId"] == "FA616"]
    (location,) = quotes["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "the%20migrations%2C%20all/001_kinds.sql"},
        "region": {"startLine": QUOTES[0], "startColumn": QUOTES[1]},
    }


def test_sarif_shows_what_is_silenced_as_suppressed_with_its_reason(repository: Path) -> None:
    results = sarif()["runs"][0]["results"]
    keys = [each for each in results if each["ruleId"] == "FA604"]
    assert [each.get("suppressions") for each in keys] == [
        None,
        [{"kind": "inSource", "status": "accepted", "justification": "there are three kinds"}],
    ]


def test_a_file_outside_of_the_current_folder_has_an_absolute_uri(tmp_path: Path) -> None:
    found = Finding("FA605", "warning", "no comment", FILE, Location(str(tmp_path / "a b" / FILE), 1))
    report = Report(tmp_path, findings=(), silenced=(Silenced(found, "it is old"),))
    (result,) = json.loads(cli_render_check.report_sarif(report))["runs"][0]["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == (tmp_path / "a b" / FILE).as_uri()


def test_a_finding_about_no_file_is_told_without_a_place(tmp_path: Path) -> None:
    report = Report(tmp_path, findings=(Finding("FA108", "error", "there is no folder"),))
    assert "locations" not in json.loads(cli_render_check.report_sarif(report))["runs"][0]["results"][0]
    assert cli_render_check.report_github(report).startswith("::error title=FA108::there is no folder\n")


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
def test_all_formats_end_with_the_same_exit_code(form: str, repository: Path) -> None:
    assert check("--format", form).exit_code == 1
    (repository / FOLDER / FILE).write_text(TEXT.replace('DEFAULT "a"', "UNIQUE"))
    assert check("--format", form).exit_code == 0


@pytest.mark.parametrize("form", ["github", "sarif"])
def test_what_the_lock_file_lacks_is_told_with_the_migrations_name(repository: Path, form: str) -> None:
    (repository / FOLDER / "migrations.lock").write_text("")
    assert "001_kinds.sql: migrations.lock does not have it" in check("--format", form).out
