"""A pytest plugin: with FINANCIAL_AGENT_FORBID_SKIPS=1 a skipped test is a failed test.

On a developer's machine a test whose server is not installed is skipped, visibly. In CI the same skip would
be a hole that nobody sees, so `.ci/run` sets the variable. An expected failure (xfail) is not a skip.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

FORBIDDEN = os.environ.get("FINANCIAL_AGENT_FORBID_SKIPS") == "1"

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def failed_if_skipped(report: Report) -> Report:
    """Turn a skip into a failure that repeats the reason of the skip."""
    if FORBIDDEN and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\n(FINANCIAL_AGENT_FORBID_SKIPS=1 makes a skip a failure)"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself, or that a mark or a fixture skips."""
    return failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself: `pytest.importorskip`, or `pytest.skip` with `allow_module_level`."""
    return failed_if_skipped((yield))
