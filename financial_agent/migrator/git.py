"""The commit that a migration folder was checked out at, for the history."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_PATIENCE = 5.0  # seconds


def commit_of(folder: Path) -> str | None:
    """The commit's hash, or None where there is no repository, no commit, or no git."""
    # A git hook sets GIT_DIR and others, which would name the hook's repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        finished = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.decode("ascii", "replace").strip() or None
