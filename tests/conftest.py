"""What all tests share: the application's fixtures, real database servers, clusters of them, and CI's rule that nothing
is skipped."""

pytest_plugins = ["financial_agent.testing", "tests.servers", "tests.clusters.fixtures", "tests.forbid_skips"]
