"""Files that are made beside a database, and belong to whoever has that."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_to(owner: os.stat_result, path: Path) -> None:
    """Let a file or folder that root made belong to the owner of another."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with suppress(OSError):  # root need not have the right in a container
            os.chown(path, owner.st_uid, owner.st_gid)
