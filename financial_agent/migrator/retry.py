"""Tries again what the lock of another connection kept from its end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from financial_agent.migrator.control import Control
from financial_agent.migrator.databases import Busy, Stopped

_FIRST, _LONGEST = 0.1, 3.0  # seconds between two tries, at most
_ASKING = 0.05  # seconds between two questions whether to stop

Result = TypeVar("Result")


def patiently(attempt: Callable[[], Result], control: Control) -> Result:
    """Call until it works, or for as long as the control waits for locks, and at least once.

    The pauses grow, and are random: two runs that got into each other's way should not do so again. Raises Busy, and
    Stopped.
    """
    deadline = time.monotonic() + control.wait
    longest = _FIRST
    while True:
        try:
            return attempt()
        except Busy:
            if time.monotonic() > deadline:
                raise
        _pause(random.uniform(longest / 2, longest), control)
        longest = min(2 * longest, _LONGEST)


def _pause(seconds: float, control: Control) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if control.patience().stop("for the locks of others"):
            raise Stopped
        time.sleep(min(left, _ASKING))
