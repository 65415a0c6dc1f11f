"""The `flask db` commands: options in, one call of the engine, text or JSON out. The only place that prints."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from flask.cli import FlaskGroup, NoAppException, ScriptInfo

from financial_agent import cli_render, config
from financial_agent.cli_output import DatabaseGroup, emit_json, notes, warn
from financial_agent.cli_progress import Printer
from financial_agent.config import Settings
from financial_agent.migrator import discovery, runner
from financial_agent.migrator import repair as repairs
from financial_agent.migrator import rollback as rollbacks
from financial_agent.migrator.control import Control, stop_on_signals
from financial_agent.migrator.databases import display_name
from financial_agent.migrator.errors import ConfirmationNeeded, Declined, Interrupted, MigratorError

Command = TypeVar("Command", bound=Callable[..., Any])


# Flask lets any option be set by FLASK_DB_<COMMAND>_<OPTION>. Consent (--yes) must not come from there, nor should the
# database come from two variables.
_option = partial(click.option, allow_from_autoenv=False)


@click.group(cls=DatabaseGroup)
def db() -> None:
    """Evolve the database with numbered SQL migrations."""


def _options(command: Command) -> Command:
    """The options that every command shares."""
    for option in (
        _option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        _option("--directory", type=click.Path(), help="The folder of the migrations."),
        _option("--database", help="A SQLite file, or sqlite:///PATH."),
    ):
        command = option(command)
    return command


def _finite(_ctx: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("a number of seconds is expected")
    return value


_wait = _option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    callback=_finite,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another run, or for another process's lock.",
)


@db.command(with_appcontext=False)
@_options
@_option("--exit-code", is_flag=True, help="Exit with 1 unless every migration is applied as its file says.")
@click.pass_context
def status(ctx: click.Context, /, exit_code: bool, **options: Any) -> None:
    """Show every migration and whether it is applied. Writes nothing."""
    settings = _settings(ctx, **options)
    found = runner.status(settings.database, settings.directory)
    clean = all(item.state == "applied" for item in found.items)
    code = 1 if exit_code and not clean else 0
    if ctx.meta["db.json"]:
        emit_json(ctx, code, [cli_render.item_json(item) for item in found.items], notes(ctx))
    else:
        click.echo(cli_render.status_text(found))
    ctx.exit(code)


@db.command(with_appcontext=False)
@click.argument("target", required=False)
@_options
@_wait
@_option("-m", "--message", hidden=True)
@click.pass_context
def migrate(ctx: click.Context, /, target: str | None, wait: float, message: str | None, **options: Any) -> None:
    """Apply what is pending, up to TARGET: a number, or a part of a name."""
    if message is not None:
        raise click.UsageError(
            "Here `migrate` applies migrations, and nothing was done. "
            f"To write a new one: flask db new {shlex.quote(message)}"
        )
    settings = _settings(ctx, **options)
    config.prepare_instance(settings, Path(ctx.meta["db.instance"]))
    with _control(ctx, wait) as control:
        outcome = runner.migrate(settings.database, settings.directory, target=target, control=control)
    _emit_outcome(ctx, outcome)


@db.command(with_appcontext=False)
@_options
@_wait
@_option("--steps", type=click.IntRange(min=1), default=1, show_default=True, help="How many to undo.")
@_option("--to", metavar="TARGET", help="Undo all that are newer than TARGET; 0 undoes everything.")
@_option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def rollback(ctx: click.Context, /, steps: int, to: str | None, yes: bool, wait: float, **options: Any) -> None:
    """Undo the migrations that were applied last, with their down sections."""
    if to is not None and ctx.get_parameter_source("steps") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--steps and --to exclude each other.")
    _rollback(ctx, steps, to, yes, wait, _settings(ctx, **options))


def _rollback(ctx: click.Context, steps: int, to: str | None, yes: bool, wait: float, settings: Settings) -> None:
    where = (settings.database, settings.directory)
    agreed = None
    if not yes:
        with _control(ctx, wait) as control:
            losses = rollbacks.preview(*where, steps=steps, to=to, control=control)
        if losses.filenames:
            click.echo(cli_render.losses_text(losses), err=True)
            _confirm("Roll back?")
        agreed = losses.filenames
    with _control(ctx, wait) as control:
        outcome = rollbacks.rollback(*where, steps=steps, to=to, expected=agreed, control=control)
    _emit_outcome(ctx, outcome)


@db.command(with_appcontext=False)
@click.argument("name", nargs=-1, required=True)
@_options
@click.pass_context
def new(ctx: click.Context, /, name: tuple[str, ...], **options: Any) -> None:
    """Write an empty migration with the next number."""
    path = discovery.create(_settings(ctx, **options).directory, " ".join(name))
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [{"filename": path.name, "path": str(path), "state": "pending"}], notes(ctx))
    else:
        click.echo(path)


@db.command(with_appcontext=False)
@click.argument("target")
@_options
@_wait
@click.pass_context
def baseline(ctx: click.Context, /, target: str | None, wait: float, **options: Any) -> None:
    """Record every migration up to TARGET as applied, without running it: for a database made by other means."""
    settings = _settings(ctx, **options)
    with _control(ctx, wait) as control:
        names = repairs.baseline(settings.database, settings.directory, target, control)
    _emit_recorded(ctx, [f"Recorded {name} as applied" for name in names], names)


@db.command(with_appcontext=False)
@click.argument("target")
@_options
@_wait
@_option("--reason", required=True, help="Why; it is kept in the history.")
@click.pass_context
def repair(ctx: click.Context, /, target: str, reason: str, wait: float, **options: Any) -> None:
    """Accept the file of an applied migration as it is now, without running it."""
    settings = _settings(ctx, **options)
    with _control(ctx, wait) as control:
        name = repairs.repair(settings.database, settings.directory, target, reason, control)
    _emit_recorded(ctx, [f"Recorded {name} as it is now"], [name])


@db.command("stamp", hidden=True, with_appcontext=False)
@click.argument("target", default="head")
@_options
@_wait
@click.pass_context
def stamp(ctx: click.Context, /, target: str, **options: Any) -> None:
    """The same as `baseline`."""
    ctx.invoke(baseline, target=None if target in ("head", "heads") else target, **options)


def _emit_recorded(ctx: click.Context, lines: list[str], names: list[str]) -> None:
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [{"filename": name, "state": "applied"} for name in names], notes(ctx))
    else:
        click.echo("\n".join(lines))


@db.command(with_appcontext=False)
@_options
@click.pass_context
def doctor(ctx: click.Context, /, **options: Any) -> None:
    """Look for what keeps the other commands from working, and say what to do."""
    from financial_agent import doctor as examination

    settings = _settings(ctx, **options)
    checks = examination.examine(settings)
    code = 1 if any(check.verdict == "fail" for check in checks) else 0
    if ctx.meta["db.json"]:
        emit_json(ctx, code, [], [*notes(ctx), *(examination.check_json(check) for check in checks)])
    else:
        click.echo("\n".join(examination.check_text(check) for check in checks))
    ctx.exit(code)


# Flask-Migrate's words, for hands that know them.


@db.command("upgrade", hidden=True, with_appcontext=False)
@click.argument("target", default="head")
@_options
@_wait
@click.pass_context
def upgrade(ctx: click.Context, /, target: str, **options: Any) -> None:
    """The same as `migrate`."""
    ctx.invoke(migrate, target=None if target in ("head", "heads") else target, **options)


@db.command("downgrade", hidden=True, with_appcontext=False, context_settings={"ignore_unknown_options": True})
@click.argument("target", default="-1")
@_options
@_wait
@_option("--yes", is_flag=True)
@click.pass_context
def downgrade(ctx: click.Context, /, target: str, yes: bool, wait: float, **options: Any) -> None:
    """The same as `rollback`: `-1` is one step, `base` everything, any other word is its `--to`."""
    settings = _settings(ctx, **options)
    if target.startswith("-"):
        if not re.fullmatch(r"-[1-9][0-9]{0,8}", target):
            raise click.UsageError(f"{target!r} is no number of steps; -1 is one.")
        _rollback(ctx, -int(target), None, yes, wait, settings)
    else:
        _rollback(ctx, 1, "0" if target == "base" else target, yes, wait, settings)


@db.command("revision", hidden=True, with_appcontext=False)
@_options
@_option("-m", "--message", required=True)
@click.pass_context
def revision(ctx: click.Context, /, message: str, **options: Any) -> None:
    """The same as `new`."""
    ctx.invoke(new, name=(message,), **options)


db.add_command(click.Command("current", callback=status.callback, params=status.params, hidden=True))


# What the commands share.


def _settings(ctx: click.Context, database: str | None, directory: str | None, **_: Any) -> Settings:
    """The application's settings, overridden by the options; the commands go on in the application's context."""
    ctx.meta["db.options"] = {"--database": database, "--directory": directory}
    values, instance = _configuration(ctx)
    ctx.meta["db.instance"] = str(instance)
    settings = config.settings(values, instance)
    here = Path.cwd()
    settings = Settings(
        settings.database if database is None else config.database(database, here),
        settings.directory if directory is None else config.directory(directory, here),
    )
    ctx.meta["db.database"] = display_name(settings.database)
    return settings


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
def _control(ctx: click.Context, wait: float) -> Iterator[Control]:
    with stop_on_signals() as stop, Printer(quiet=ctx.meta["db.json"]) as printer:
        yield Control(wait=wait, stop=stop, report=printer.report)
    for warning in printer.warnings:
        ctx.meta.setdefault("db.notes", []).append(cli_render.note_json("warning", warning.message, warning.filename))


def _confirm(question: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfirmationNeeded(action="This rollback", fix="Say so on the command line: --yes")
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        raise Interrupted(what="before anything was changed") from None
    if not agreed:
        raise Declined


def _emit_outcome(ctx: click.Context, outcome: runner.Outcome) -> None:
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [cli_render.done_json(done) for done in outcome.done], notes(ctx))
    else:
        click.echo(cli_render.outcome_text(outcome))


def _create_app() -> Any:
    from financial_agent import create_app

    return create_app()


main = FlaskGroup(create_app=_create_app, help="The financial agent's application.")
