"""What every code means is told: on the command line, and for the rules in docs/rules.md."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from financial_agent.cli import main
from financial_agent.migrator import lockfile, proof_findings
from financial_agent.migrator.explain import Explanation, explanations
from financial_agent.migrator.lint.catalog import RULES
from financial_agent.migrator.lint.rule import BASE
from tests.test_malformed import all_errors

PAGE = Path(__file__).parents[1] / "docs" / "rules.md"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
KNOWN = explanations()


def flask_db(*words: str) -> Result:
    return CliRunner(catch_exceptions=False).invoke(main, ["db", *words], prog_name="flask")


def test_every_error_rule_and_finding_is_explained() -> None:
    codes = {error.code for error in all_errors()} | set(RULES) | set(lockfile.CODES)
    codes |= {code for aspect in proof_findings.ASPECTS.values() for code in aspect}
    assert set(KNOWN) == codes


@pytest.mark.parametrize("explained", KNOWN.values(), ids=lambda explained: explained.code)
def test_an_explanation_has_a_title_in_words_and_a_reason(explained: Explanation) -> None:
    """A title that is only the names of what an error is given says nothing."""
    assert re.search(r"\w", re.sub(r"<\w+>", "", explained.title))
    assert len(explained.why.split()) > 5


@pytest.mark.parametrize("code", RULES)
def test_a_rule_is_explained_with_its_reason_both_examples_and_how_to_silence_it(code: str) -> None:
    text = flask_db("explain", code).stdout
    assert text.startswith(f"{code} ({RULES[code].severity}): {RULES[code].title}\n")
    for name, content in (*RULES[code].wrong, *RULES[code].right):
        assert name in text
        assert all(line in text for line in content.splitlines())
    assert f"\n    -- migrate:ignore {code} WHY\n" in text
    assert f"\nMore: {RULES[code].source}\n" in text


def test_an_error_is_explained_with_its_group_and_what_to_do() -> None:
    text = flask_db("explain", "fa207").stdout
    assert text.startswith("FA207 (error): this <what> is never closed\n")
    assert "nothing was run" in text
    assert "Close it with <closer>" in text
    assert "To silence it" not in text


def test_without_a_code_all_are_listed_with_their_titles() -> None:
    lines = flask_db("explain").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == sorted(KNOWN)
    assert f"FA604  {RULES['FA604'].title}" in lines


def test_json_tells_the_same() -> None:
    envelope = json.loads(flask_db("explain", "FA604", "--json").stdout)
    (found,) = envelope["explanations"]
    assert (envelope["ok"], found["code"], found["severity"]) == (True, "FA604", "warning")
    assert found["right"] == [{"file": name, "text": text} for name, text in RULES["FA604"].right]
    assert len(json.loads(flask_db("explain", "--json").stdout)["explanations"]) == len(KNOWN)


def page() -> str:
    """docs/rules.md: what stands above the first rule is written by hand."""
    by_hand = PAGE.read_text(encoding="utf-8").partition("\n## The rules\n")[0]
    parts = [by_hand, "\n## The rules\n"]
    parts += [f"\n{_table()}\n", f"\nThe examples stand behind this file:\n\n{_file(*BASE)}\n"]
    for rule in RULES.values():
        parts.append(f"\n### {rule.code}: {rule.title}\n\n*{rule.severity}* · [more]({rule.source})\n\n{rule.why}\n")
        parts.append(f"\nInstead: {rule.advice}.\n")
        for side, files in (("Wrong", rule.wrong), ("Right", rule.right)):
            parts.append(f"\n{side}:\n")
            parts += [f"\n{_file(name, text)}\n" for name, text in files]
    return "".join(parts)


def _table() -> str:
    rows = [f"| {rule.code} | {rule.severity} | {rule.title} |" for rule in RULES.values()]
    return "\n".join(["| code | severity | what it asks |", "|---|---|---|", *rows])


def _file(name: str, text: str) -> str:
    return f"`{name}`\n\n```sql\n{text}```"


def test_the_page_of_the_rules_says_what_they_say_themselves() -> None:
    """UPDATE_GOLDEN=1 writes it anew."""
    if UPDATE:
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
