"""Runs a function of a Python migration, and tells what went wrong in the words of the person who wrote it."""

from __future__ import annotations

import linecache
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

from financial_agent.migrator import python_text
from financial_agent.migrator.databases import Borrowing, Database, Forbidden, StatementError, Stopped
from financial_agent.migrator.errors import Location, MigratorError
from financial_agent.migrator.errors_run import PythonFailed, PythonForbidden, TransactionEnded
from financial_agent.migrator.script import Script
from financial_agent.migrator.sections import LEDGER_TABLES

_ENGINE = __name__.rpartition(".")[0]
_OF_THE_CONNECTION = (_ENGINE, "concurrent.futures", "threading", "psycopg", "pymysql")
"""The modules whose frames a traceback leaves out."""
_MOST_FRAMES = 12
_Stop = Callable[[], int | None]


class _Halt(BaseException):
    """A signal asked to stop while a migration's own code was running."""


def run(db: Database, script: Script, filename: str, then: str, stop: _Stop) -> int:
    """Execute the file and call its function, in the transaction that is open; the number of rows that it changed.

    What it prints goes to standard error. Raises PythonForbidden, PythonFailed, TransactionEnded, Stopped, OutOfSpace
    and FileChanged.
    """
    name = script.source.name
    text = "".join(script.source.chunks())
    # Tracebacks, the file's own ones too, show lines of what runs, also when it is the ledger's copy.
    linecache.cache[name] = (len(text), None, [f"{line}\n" for line in text.split("\n")], name)
    code = python_text.code(text, name)
    rules = Borrowing(LEDGER_TABLES, script.allow)
    failure: BaseException | None = None
    rows = 0
    try:
        with redirect_stdout(sys.stderr), _raising_on_signals(stop):
            rows = db.lend(lambda connection: _call(code, filename, script.direction, connection), rules)
    except (Stopped, StatementError):
        raise
    except BaseException as error:  # also SystemExit: a migration does not end the process
        failure = error
    if not db.in_transaction:  # INSERT OR ROLLBACK, RAISE(ROLLBACK)
        kind = f"{type(failure).__name__}" if failure else "it was rolled back"
        raise TransactionEnded(location=_place(name, failure), name=filename, cause=kind, then=then) from failure
    if failure:
        raise _explained(failure, name, filename, then) from failure
    return rows


def _call(code: CodeType, filename: str, direction: str, connection: Any) -> None:
    module = ModuleType(filename.rpartition(".")[0])
    module.__file__ = code.co_filename
    exec(code, module.__dict__)
    getattr(module, direction)(connection)


# Signals.


@contextmanager
def _raising_on_signals(stop: _Stop) -> Iterator[None]:
    """While the migration's own code runs, a signal that asks to stop raises there, as Ctrl-C does in any Python
    program: `stop` alone would be asked only by SQL.

    Only a handler that is there is added to, and only in the main thread, where Python runs them. What is raised and
    swallowed does not count as success: who lends the connection asks `stop` again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def receive(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)
        if stop() is not None and _is_in_migration(frame):
            raise _Halt

    replaced = [
        number for number, handler in before.items() if callable(handler) and handler is not signal.default_int_handler
    ]
    for number in replaced:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, before[number])


def _is_in_migration(frame: FrameType | None) -> bool:
    """Whether the migration's own code was interrupted, or what it calls, and none of the engine's steps."""
    while frame and frame.f_code is not _call.__code__:
        if str(frame.f_globals.get("__name__")).startswith(_ENGINE):
            return False
        frame = frame.f_back
    return frame is not None


# Explaining.


def _explained(error: BaseException, name: str, filename: str, then: str) -> MigratorError:
    if isinstance(error, Forbidden):
        line = next((line for path, line in reversed(error.frames) if path == name), None)
        then = then[0].upper() + then[1:]
        return PythonForbidden(location=Location(name, line), name=filename, what=error.what, fix=error.fix, then=then)
    trace = (*_frames(error, name), *_lines(error), *_causes(error, name))
    return PythonFailed(location=_place(name, error), name=filename, kind=type(error).__name__, trace=trace, then=then)


def _place(name: str, error: BaseException | None) -> Location:
    """The line of the migration's file that was being run."""
    lines = [line for path, line, _ in _walk(error.__traceback__ if error else None) if path == name]
    return Location(name, lines[-1] if lines else None)


def _walk(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """File, line and function of each frame, without those of the engine and the drivers."""
    for frame, line in traceback.walk_tb(trace):
        if not str(frame.f_globals.get("__name__")).startswith(_OF_THE_CONNECTION):
            yield frame.f_code.co_filename, line, frame.f_code.co_name


def _frames(error: BaseException, name: str) -> list[str]:
    """The frames from the migration's file on, in the order of the calls."""
    walked = list(_walk(error.__traceback__))
    first = next((at for at, (path, _, _) in enumerate(walked) if path == name), len(walked))
    frames = walked[first:]
    shown = []
    for at, (path, line, function) in enumerate(frames):
        if len(frames) > _MOST_FRAMES and _MOST_FRAMES // 2 <= at < len(frames) - _MOST_FRAMES // 2:
            if at == _MOST_FRAMES // 2:
                shown.append(f"… {len(frames) - _MOST_FRAMES} more calls")
            continue
        shown.append(f'File "{Path(path).name if path == name else path}", line {line}, in {function}')
        if source := linecache.getline(path, line).strip():
            shown.append(f"  {source}")
    return shown


def _lines(error: BaseException) -> list[str]:
    return "".join(traceback.format_exception_only(error)).rstrip("\n").split("\n")


def _causes(error: BaseException, name: str) -> Iterator[str]:
    """One line for each exception behind the one that was raised."""
    seen = {id(error)}
    cause = _cause(error)
    while cause and id(cause) not in seen:
        seen.add(id(cause))
        place = _place(name, cause)
        where = f" (line {place.line})" if place.line else ""
        yield f"caused by {_lines(cause)[-1]}{where}"
        cause = _cause(cause)


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
