"""What a code means, whatever it is the code of: an error, a rule, a finding of the proof or of the lock file."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

from financial_agent.migrator import errors, errors_files, errors_run, errors_server, meanings, proof_findings
from financial_agent.migrator.errors import CodeUnknown, MigratorError
from financial_agent.migrator.lint import catalog
from financial_agent.migrator.lint.rule import Files, Rule

# What holds for all errors with an exit code.
_GROUPS = {
    2: "Usage or configuration (exit 2): nothing was done.",
    3: "A run that failed (exit 3).",
    4: "Refused, to protect data (exit 4): nothing was changed.",
    5: "Busy (exit 5): something else held a lock.",
    130: "Interrupted (exit 130 by Ctrl-C, 143 by SIGTERM).",
}
_OF_FILES = "A file that cannot be used (exit 4): nothing was run."
SILENCE = "-- migrate:ignore {code} WHY"


@dataclass(frozen=True)
class Explanation:
    """`silence` is the line that makes it not count; empty when nothing does."""

    code: str
    kind: Literal["error", "rule", "finding"]
    title: str
    why: str
    advice: str = ""
    severity: str = "error"
    silence: str = ""
    source: str = ""
    wrong: Files = ()
    right: Files = ()


def explanations() -> dict[str, Explanation]:
    """All codes, in order."""
    found = [
        *map(_of_error, _errors()),
        *map(_of_rule, catalog.RULES.values()),
        *(_of_finding(code, *texts) for code, texts in meanings.FINDINGS.items()),
    ]
    return {each.code: each for each in sorted(found, key=lambda each: each.code)}


def explain(code: str) -> Explanation:
    """What a code means. Raises CodeUnknown."""
    known = explanations()
    wanted = code.upper()
    if wanted not in known:
        raise CodeUnknown(unknown=code, near=_near(wanted, list(known)))
    return known[wanted]


def _near(code: str, known: list[str]) -> str:
    import difflib  # only for this message

    return difflib.get_close_matches(code, known, n=1, cutoff=0)[0]


def _errors() -> list[type[MigratorError]]:
    """Every error that has a code of its own."""
    named = [each for module in (errors, errors_files, errors_run, errors_server) for each in vars(module).values()]
    classes = [each for each in named if isinstance(each, type) and issubclass(each, MigratorError)]
    return [each for each in dict.fromkeys(classes) if "code" in vars(each)]


def _of_error(error: type[MigratorError]) -> Explanation:
    title, why = meanings.ERRORS.get(error.code, (None, _own_words(error)))
    group = _OF_FILES if issubclass(error, errors_files.FileRefused) else _GROUPS[error.exit_code]
    advice = "" if error.advice == "{fix}" else _with_names(error.advice)
    return Explanation(error.code, "error", title or _with_names(error.text), f"{why} {group}".strip(), advice)


def _own_words(error: type[MigratorError]) -> str:
    """What the class says of itself; one that says nothing has its base's words, which are about none of this."""
    return " ".join((vars(error).get("__doc__") or "").split())


def _of_rule(rule: Rule) -> Explanation:
    return Explanation(
        code=rule.code,
        kind="rule",
        title=rule.title,
        why=rule.why,
        advice=rule.advice,
        severity=rule.severity,
        silence=SILENCE.format(code=rule.code),
        source=rule.source,
        wrong=rule.wrong,
        right=rule.right,
    )


def _of_finding(code: str, title: str, why: str) -> Explanation:
    is_proof = any(code in codes for codes in proof_findings.ASPECTS.values())
    return Explanation(
        code=code,
        kind="finding",
        title=title,
        why=why,
        severity="note" if code in meanings.NOTES else "warning" if code in meanings.WARNINGS else "error",
        silence=SILENCE.format(code=code) if is_proof else "",
    )


def _with_names(template: str) -> str:
    """A message with the names of its fields in their places."""
    parts = string.Formatter().parse(template)
    return "".join(text + (f"<{field}>" if field else "") for text, field, _, _ in parts)
