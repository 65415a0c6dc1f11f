"""What all tests share: the application's fixtures, real database servers, clusters of them, and CI's rule that nothing
is skipped."""

import pytest

pytest_plugins = ["financial_agent.testing", "tests.servers", "tests.clusters.fixtures", "tests.forbid_skips"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first: a worker that came to it last would keep all others waiting."""
    items.sort(key=lambda item: "test_many_runners" not in item.nodeid)
