"""What the caller of a run decides: patience, when to stop, and who hears of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from financial_agent.migrator.databases import Patience
from financial_agent.migrator.events import Event, Ticked, Waiting

_TICKED = Ticked()


def _never() -> int | None:
    return None


def _to_nobody(event: Event) -> None:
    return None


@dataclass(frozen=True)
class Control:
    """How long to wait for locks, in seconds; when to stop; who hears of events; whether others may get in between two
    batches, which takes a pause; and whether assertions must hold, which rows that are made up need not fulfil.

    `stop` returns the number of the signal that asks to stop, or None.
    """

    wait: float = 30.0
    stop: Callable[[], int | None] = _never
    report: Callable[[Event], None] = _to_nobody
    pauses: bool = True
    asserts: bool = True

    def patience(self) -> Patience:
        def stop(waiting_for: str) -> bool:
            self.report(Waiting(waiting_for) if waiting_for else _TICKED)
            return self.stop() is not None

        return Patience(self.wait, stop)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], int | None]]:
    """Turn Ctrl-C and SIGTERM into a question that a run asks: Python's own KeyboardInterrupt would wait for the end
    of the statement, or come between two of the engine's steps. Only for the main thread."""
    received: int | None = None

    def receive(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = number

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
