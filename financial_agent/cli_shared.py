"""What the `flask db` commands share: their options, the settings, the control of a run, the question before it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from flask.cli import NoAppException, ScriptInfo

from financial_agent import cli_render, cli_render_rehearsal, config
from financial_agent.cli_output import emit_json, notes, warn
from financial_agent.cli_progress import Printer
from financial_agent.config import Settings
from financial_agent.migrator.control import Control, stop_on_signals
from financial_agent.migrator.databases import display_name
from financial_agent.migrator.errors import ConfirmationNeeded, Declined, MigratorError
from financial_agent.migrator.errors_run import Interrupted
from financial_agent.migrator.rehearsed import Rehearsal

Command = TypeVar("Command", bound=Callable[..., Any])


# Flask lets any option be set by FLASK_DB_<COMMAND>_<OPTION>. Consent (--yes) must not come from there, nor should the
# database come from two variables.
option = partial(click.option, allow_from_autoenv=False)


def file_options(command: Command) -> Command:
    """The options of a command that looks at the files alone."""
    for each in (
        option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        option("--directory", type=click.Path(), help="The folder of the migrations."),
    ):
        command = each(command)
    return command


def options(command: Command) -> Command:
    """The options that every other command shares."""
    for each in (
        file_options,
        option("--environment", metavar="NAME", help="The environment that this is, as in production."),
        option("--database", help="A SQLite file, or a URL: postgresql://… or mysql://…"),
    ):
        command = each(command)
    return command


def dry_run_options(command: Command) -> Command:
    """The options of the commands that can be rehearsed."""
    for each in (
        option("--show-sql", is_flag=True, help="With --dry-run: print the statements, too."),
        option("--with-data", is_flag=True, help="With --dry-run: on a server, copy the rows, too."),
        option("--dry-run", is_flag=True, help="Rehearse on a copy of the database, and say what that did."),
    ):
        command = each(command)
    return command


change_environment_option = option(
    "--change-environment",
    is_flag=True,
    help="The database belongs to this environment from now on, whichever it belonged to.",
)


def _finite(_ctx: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("a number of seconds is expected")
    return value


wait_option = option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    callback=_finite,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another run, or for another process's lock.",
)

out_of_order_option = option(
    "--out-of-order", is_flag=True, help="Also apply what is pending below an applied migration."
)


def read_settings(
    ctx: click.Context,
    database: str | None,
    directory: str | None,
    environment: str | None = None,
    change_environment: bool = False,
    **_: Any,
) -> Settings:
    """The application's settings, overridden by the options; the commands go on in the application's context."""
    ctx.meta["db.options"] = {"--database": database, "--directory": directory, "--environment": environment}
    values, instance = _configuration(ctx)
    ctx.meta["db.instance"] = str(instance)
    settings = config.settings(config.overridden(values, database, directory, environment), instance)
    ctx.meta["db.database"] = display_name(settings.database)
    return replace(settings, environment=replace(settings.environment, change=change_environment))


def _configuration(ctx: click.Context) -> tuple[dict[str, Any], Path]:
    """The configuration of the application; when that does not load, as during a bad deployment, the one in its
    instance folder and the environment: the database must stay within reach."""
    try:
        app = ctx.ensure_object(ScriptInfo).load_app()
    except MigratorError:
        raise
    except (Exception, SystemExit) as error:  # whatever the application's own code raises
        values = config.load(config.instance_path())
        warn(ctx, f"the application did not load ({_reason(error)}), so its instance configuration alone is used")
        return values, config.instance_path()
    ctx.with_resource(app.app_context())
    return dict(app.config), Path(app.instance_path)


def _reason(error: BaseException) -> str:
    if isinstance(error.__cause__, MigratorError):
        return error.__cause__.message
    if isinstance(error, NoAppException):
        return error.message.strip().splitlines()[-1]  # an import error brings its whole traceback
    return f"{type(error).__name__}: {error}"


@contextmanager
def controlled(ctx: click.Context, wait: float) -> Iterator[Control]:
    """The control of a run: signals stop it, the printer shows its events, and the answer will hold its warnings."""
    with stop_on_signals() as stop, Printer(quiet=ctx.meta["db.json"]) as printer:
        try:
            yield Control(wait=wait, stop=stop, report=printer.report)
        finally:  # an answer that tells of an error tells of these, too
            _keep_for_json(ctx, printer)


def _keep_for_json(ctx: click.Context, printer: Printer) -> None:
    told = ctx.meta.setdefault("db.notes", [])
    for event in printer.recovered:
        told.append(cli_render.note_json("info", cli_render.recovered_text(event), event.filename))
    for warning in printer.warnings:
        told.append(cli_render.note_json("warning", warning.message, warning.filename))
    if printer.backup:
        ctx.meta["db.more"] = {"backup": printer.backup.path}


def confirm(action: str, question: str) -> None:
    """Ask, and go on only after a yes. Raises ConfirmationNeeded when nobody can answer, Declined, Interrupted."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfirmationNeeded(action=action, fix="Say so on the command line: --yes")
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        raise Interrupted(what="before anything was changed") from None
    if not agreed:
        raise Declined


def emit_rehearsal(ctx: click.Context, rehearsal: Rehearsal, show_sql: bool) -> None:
    """Show what a rehearsal found, up to what failed."""
    failure = rehearsal.failure
    if ctx.meta["db.json"]:
        found = cli_render_rehearsal.rehearsal_json(rehearsal, show_sql=show_sql)
        diagnostics = [*notes(ctx), *([cli_render.error_json(failure)] if failure else [])]
        emit_json(ctx, failure.exit_code if failure else 0, [], diagnostics, rehearsal=found)
        ctx.exit(failure.exit_code if failure else 0)
    if show_sql and rehearsal.steps:
        click.echo(cli_render_rehearsal.sql_text(rehearsal) + "\n")
    if rehearsal.steps or not failure:
        click.echo(cli_render_rehearsal.rehearsal_text(rehearsal))
    if failure:
        raise failure
