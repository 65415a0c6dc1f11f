"""What a person sees while a run goes on: a line for each event, and a bar on a terminal for what takes long."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from financial_agent.cli_render import backed_up_text, batched_text, done_text, recovered_text
from financial_agent.migrator.events import (
    BackedUp,
    Batched,
    Checking,
    Copying,
    Done,
    Event,
    Recovered,
    Started,
    Ticked,
    Waiting,
    Warned,
    Working,
)

_PATIENCE = 1.0  # seconds before a bar, or a word about waiting, appears
_REDRAW = 0.1
_TELLING = 10.0  # seconds between two lines about batches where no bar is drawn


class Printer:
    """Prints events. Results go to standard output, everything else to standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self.warnings: list[Warned] = []
        self.recovered: list[Recovered] = []
        self.backup: BackedUp | None = None
        self._quiet = quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty()  # None: it was closed
        self._bar: Any = None
        self._since = self._drawn = time.monotonic()
        self._waiting_for = ""
        self._label, self._behind, self._total = "", 0, 0
        self._unit = ""
        self._told = time.monotonic()

    def __enter__(self) -> Printer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def report(self, event: Event) -> None:
        """Take an event. A reader that went away (`| head`), or a full disk, must not stop a run."""
        try:
            self._report(event)
        except OSError:
            self._quiet, self._terminal = True, False

    def _report(self, event: Event) -> None:
        match event:
            case Started():
                self._begin(event.filename, event.statements)
            case Working():
                self._behind = event.done
                self._draw()
            case Copying():
                if event.purpose != self._label:
                    self._begin(event.purpose, event.total_bytes, unit="bytes")
                self._behind = event.done_bytes
                self._draw()
            case Checking():
                if event.done == 0:
                    self._begin("checking", event.total)
                self._behind = event.done
                self._draw()
            case Batched():
                self._batched(event)
            case Ticked():
                self._draw()
            case Waiting():
                self._wait(event.purpose)
            case Warned():
                self.warnings.append(event)
                self._line("\n  ".join([f"Warning: {event.filename}: {event.message}", *event.details]), err=True)
            case BackedUp():
                self.backup = event
                self._line(backed_up_text(event), err=False)
            case Done():
                self._line(done_text(event), err=False)
            case Recovered():
                self.recovered.append(event)
                self._line(recovered_text(event), err=False)

    def _batched(self, event: Batched) -> None:
        """A bar on a terminal while it is known how many rows there are; else, and now and then, a line."""
        if self._terminal and event.table_rows:
            if event.rows < self._behind or self._unit != "rows":
                self._begin(
                    f"{event.filename}, of at most {event.table_rows:,} rows of {event.table}",
                    event.table_rows,
                    unit="rows",
                )
            self._behind = event.rows
            self._draw()
        elif (now := time.monotonic()) - self._told > _TELLING:
            self._told = now
            self._line(batched_text(event), err=True)

    def _begin(self, label: str, total: int, *, unit: str = "") -> None:
        self._clear()
        self._label, self._behind, self._total, self._unit = label, 0, total, unit
        self._since = time.monotonic()

    def _line(self, text: str, *, err: bool) -> None:
        self._clear()
        if not self._quiet:
            click.echo(text, err=err)

    def _wait(self, purpose: str) -> None:
        now = time.monotonic()
        if purpose != self._waiting_for:
            self._waiting_for, self._since = purpose, now
        elif self._since and now - self._since > _PATIENCE:
            self._since = 0.0
            self._line(f"Waiting {purpose} …", err=True)

    def _draw(self) -> None:
        now = time.monotonic()
        is_due = self._total and now - self._since > _PATIENCE and now - self._drawn > _REDRAW
        if not self._terminal or not is_due:
            return
        self._drawn = now
        if self._bar is None:
            self._bar = click.progressbar(
                length=self._total,
                label=self._label,
                file=sys.stderr,
                show_eta=False,
                item_show_func=lambda _: self._pace(),
            )
        self._bar.update(self._behind - self._bar.pos, current_item="")
        self._bar.render_progress()

    def _pace(self) -> str:
        """How long it has taken; of bytes and rows, how many there are in a second, and how long the rest will take."""
        seconds = time.monotonic() - self._since
        if not self._unit or not self._behind:
            return f"{seconds:.0f} s"
        rate = self._behind / seconds
        pace = f"{rate / 1e6:,.0f} MB/s" if self._unit == "bytes" else f"{rate:,.0f} rows/s"
        return f"{pace}, {(self._total - self._behind) / rate:.0f} s left"

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
