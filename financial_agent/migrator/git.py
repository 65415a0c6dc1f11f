"""The commit that a migration folder was checked out at, for the history."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_PATIENCE = 5.0  # seconds


def commit_of(folder: Path) -> str | None:
    """The commit's hash, with `+` behind it when the folder holds anything else than the commit; None where there is no
    repository, no commit, or no git."""
    # A git hook sets GIT_DIR and others, which would name the hook's repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        finished = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", "."],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = finished.stdout.decode("ascii", "replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    is_changed = any(not line.startswith("#") for line in lines)
    return None if commit == "(initial)" else commit + "+" * is_changed
