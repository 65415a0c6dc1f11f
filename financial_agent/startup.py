"""Migrations when the application is served: MIGRATE_ON_STARTUP = True, False or "check".

Loading the application migrates nothing, as `flask db`, `flask shell` and tests load it, too. It is served when
`wsgi.py` or `flask run` says so, or else when a WSGI server sends the first request.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any

import click
from flask import Flask, request

from financial_agent import cli_render, config
from financial_agent.migrator import runner, session
from financial_agent.migrator.control import Control
from financial_agent.migrator.errors import MigrationsPending, MigratorError
from financial_agent.migrator.events import BackedUp, Event, Recovered, Warned

log = logging.getLogger("financial_agent.migrator")


def serve() -> Flask:
    """The application, its database prepared; or the end of the process, with the reason on standard error.

    `flask --app wsgi db …` loads `wsgi.py`, too, and prepares nothing.
    """
    from financial_agent import create_app

    try:
        app = create_app()
        if click.get_current_context(silent=True) is None:
            prepare(app)
    except MigratorError as error:
        click.echo(cli_render.error_text(error), err=True)
        # Gunicorn stops as a whole for 3 and 4 and starts a worker anew for others: right for 5 (busy) alone.
        sys.exit(4 if error.exit_code == 2 else error.exit_code)
    return app


def register(app: Flask) -> None:
    """See to it that the database is prepared before the first request is answered.

    Raises ConfigurationInvalid and, under `flask run`, all that `prepare` raises.
    """
    if config.on_startup(app.config["MIGRATE_ON_STARTUP"]) is False or app.testing:
        return
    if _is_run_command():
        prepare(app)
    else:
        _prepare_before_first_request(app)


def prepare(app: Flask) -> None:
    """Do what MIGRATE_ON_STARTUP asks for. Raises MigrationsPending for "check", and all that a run raises."""
    mode = config.on_startup(app.config["MIGRATE_ON_STARTUP"])
    if mode is False:
        return
    instance = Path(app.instance_path)
    where = config.settings(app.config, instance)
    if mode == "check":
        session.recorded(where.database, session.ASKING, where.environment)
        if pending := runner.pending(where.database, where.directory, where.environment.name):
            raise MigrationsPending(count=len(pending), first=pending[0].filename)
        return
    config.prepare_instance(where, instance)
    runner.migrate(
        where.database,
        where.directory,
        environment=where.environment,
        backups=where.backups,
        control=Control(report=_log),
    )


@contextmanager
def explained() -> Iterator[None]:
    """Under `flask`, show an error of the configuration as the command line shows its own: without a traceback."""
    try:
        yield
    except MigratorError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise _Explained(error) from error


class _Explained(click.ClickException):
    """An error of the engine on its way through a command that is Flask's own."""

    def __init__(self, error: MigratorError) -> None:
        super().__init__(cli_render.error_text(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click declares it for the class alone

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=True)


def _prepare_before_first_request(app: Flask) -> None:
    lock, prepared = Lock(), False

    @app.before_request
    def prepare_once() -> tuple[dict[str, str], int] | None:
        nonlocal prepared
        if prepared or request.endpoint == "health.healthz":
            return None
        with lock:
            try:
                if not prepared:
                    prepare(app)
                prepared = True
            except MigratorError as error:
                log.error("not serving: %s %s", error.code, error)
                return {"status": "unavailable"}, 503
        return None


def _is_run_command() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "run"


def _log(event: Event) -> None:
    match event:
        case Warned():
            log.warning("%s: %s", event.filename, event.message)
        case BackedUp():
            log.info("backed up as %s", event.path)
        case Recovered():
            log.warning(cli_render.recovered_text(event))
        case _:
            pass
