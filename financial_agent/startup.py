"""Migrations when the application is served: MIGRATE_ON_STARTUP = True, False or "check".

Loading the application migrates nothing, as `flask db`, `flask shell` and tests load it, too. It is served once
`wsgi.py` or `flask run` says so, or else when a WSGI server sends the first request.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import click
from flask import Flask

from financial_agent import cli_render, config
from financial_agent.migrator import runner
from financial_agent.migrator.control import Control
from financial_agent.migrator.errors import MigrationsPending, MigratorError
from financial_agent.migrator.events import Done, Event, Warned

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("financial_agent.migrator")


def register(app: Flask) -> None:
    """See to it that the database is prepared before the first request is answered."""
    if config.on_startup(app.config["MIGRATE_ON_STARTUP"]) is False or app.testing:
        return
    if _is_run_command():
        serve(app)
    else:
        app.wsgi_app = _BeforeFirstRequest(app)  # type: ignore[method-assign]


def serve(app: Flask) -> None:
    """Prepare the database, or end the process with the reason on standard error and the failure's exit code.

    Gunicorn stops its other workers, too, for the codes 3 and 4 (failed, refused); for 5 (busy) it tries again.
    """
    try:
        prepare(app)
    except MigratorError as error:
        click.echo(cli_render.error_text(error), err=True)
        sys.exit(error.exit_code)


def prepare(app: Flask) -> None:
    """Do what MIGRATE_ON_STARTUP asks for. Raises MigrationsPending for "check", and all that a run raises."""
    mode = config.on_startup(app.config["MIGRATE_ON_STARTUP"])
    if mode is False:
        return
    where = config.settings(app.config, Path(app.instance_path))
    if mode == "check":
        if pending := runner.pending(where.database, where.directory):
            raise MigrationsPending(count=len(pending), first=pending[0].filename)
        return
    config.prepare_instance(where, Path(app.instance_path))
    runner.migrate(where.database, where.directory, control=Control(report=_log))


class _BeforeFirstRequest:
    """Stands before the application until its first request has found the database prepared."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._next = app.wsgi_app
        self._lock = Lock()
        self._prepared = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            if not self._prepared:
                try:
                    prepare(self._app)
                except MigratorError as error:
                    log.error("not serving: %s %s", error.code, error)
                    start_response("503 Service Unavailable", [("Content-Type", "application/json")])
                    return [b'{"status": "unavailable"}']
                self._prepared = True
                self._app.wsgi_app = self._next  # type: ignore[method-assign]
        return self._next(environ, start_response)


def _is_run_command() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "run"


def _log(event: Event) -> None:
    if isinstance(event, Done):
        log.info("applied %s in %d ms", event.filename, event.duration_ms)
    elif isinstance(event, Warned):
        log.warning("%s: %s", event.filename, event.message)
