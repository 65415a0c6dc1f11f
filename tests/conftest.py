"""What all tests share: the application's fixtures, and CI's rule that nothing is skipped."""

pytest_plugins = ["financial_agent.testing", "tests.forbid_skips"]
