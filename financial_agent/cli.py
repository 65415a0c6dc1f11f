"""The `flask db` commands: options in, one call of the engine, text or JSON out. The only place that prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
from flask.cli import FlaskGroup

from financial_agent import (
    cli_backup,
    cli_check,
    cli_dump,
    cli_explain,
    cli_inspect,
    cli_ledger,
    cli_render,
    cli_render_rehearsal,
    config,
)
from financial_agent.cli_output import DatabaseGroup, emit_json, notes
from financial_agent.cli_shared import (
    change_environment_option,
    confirm,
    controlled,
    dry_run_options,
    emit_rehearsal,
    option,
    options,
    out_of_order_option,
    read_settings,
    wait_option,
)
from financial_agent.config import Settings
from financial_agent.migrator import discovery, rehearsal, runner
from financial_agent.migrator import rollback as rollbacks
from financial_agent.migrator.rehearsed import Rehearsal


@click.group(cls=DatabaseGroup)
def db() -> None:
    """Evolve the database with numbered SQL migrations."""


@db.command(with_appcontext=False)
@options
@option("--exit-code", is_flag=True, help="Exit with 1 unless every migration is applied as its file says.")
@click.pass_context
def status(ctx: click.Context, /, exit_code: bool, **options: Any) -> None:
    """Show every migration and whether it is applied. Writes nothing."""
    settings = read_settings(ctx, **options)
    found = runner.status(settings.database, settings.directory, settings.environment.name)
    clean = all(item.state in ("applied", "skipped") for item in found.items)
    code = 1 if exit_code and not clean else 0
    if ctx.meta["db.json"]:
        items = [cli_render.item_json(item) for item in found.items]
        emit_json(
            ctx, code, items, notes(ctx), environment=cli_render.environment_json(found.environment, found.configured)
        )
    else:
        click.echo(cli_render.status_text(found))
    ctx.exit(code)


@db.command(with_appcontext=False, short_help="Apply what is pending; back up first if need be.")
@click.argument("target", required=False)
@options
@wait_option
@out_of_order_option
@change_environment_option
@dry_run_options
@option("-m", "--message", hidden=True)
@click.pass_context
def migrate(
    ctx: click.Context,
    /,
    target: str | None,
    wait: float,
    out_of_order: bool,
    dry_run: bool,
    with_data: bool,
    show_sql: bool,
    message: str | None,
    **options: Any,
) -> None:
    """Apply what is pending, up to TARGET: a number, or a part of a name. Makes a backup before a run that would
    destroy something, unless BACKUP says otherwise."""
    if message is not None:
        raise click.UsageError(
            "Here `migrate` applies migrations, and nothing was done. "
            f"To write a new one: flask db new {shlex.quote(message)}"
        )
    settings = read_settings(ctx, **options)
    _check_dry_run(dry_run, with_data=with_data, show_sql=show_sql)
    if dry_run:
        with controlled(ctx, wait) as control:
            rehearsed = rehearsal.migrate(
                settings.database,
                settings.directory,
                target=target,
                out_of_order=out_of_order,
                with_data=with_data,
                environment=settings.environment,
                backups=settings.backups,
                control=control,
            )
        emit_rehearsal(ctx, rehearsed, show_sql)
        return
    config.prepare_instance(settings, Path(ctx.meta["db.instance"]))
    with controlled(ctx, wait) as control:
        outcome = runner.migrate(
            settings.database,
            settings.directory,
            target=target,
            out_of_order=out_of_order,
            environment=settings.environment,
            backups=settings.backups,
            control=control,
        )
    cli_dump.refresh(ctx, settings)
    _emit_outcome(ctx, outcome)


@db.command(with_appcontext=False, short_help="Undo the newest migrations; back up first.")
@options
@wait_option
@option("--steps", type=click.IntRange(min=1), default=1, show_default=True, help="How many to undo.")
@option("--to", metavar="TARGET", help="Undo all that are newer than TARGET; 0 undoes everything.")
@option("--yes", is_flag=True, help="Do not ask.")
@change_environment_option
@dry_run_options
@click.pass_context
def rollback(
    ctx: click.Context,
    /,
    steps: int,
    to: str | None,
    yes: bool,
    wait: float,
    dry_run: bool,
    with_data: bool,
    show_sql: bool,
    **options: Any,
) -> None:
    """Undo the migrations that were applied last, with their down sections. Rehearses and asks first, and makes a
    backup before a run that would destroy something, unless BACKUP says otherwise."""
    if to is not None and ctx.get_parameter_source("steps") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--steps and --to exclude each other.")
    _check_dry_run(dry_run, with_data=with_data, show_sql=show_sql)
    settings = read_settings(ctx, **options)
    if dry_run:
        emit_rehearsal(ctx, _rehearse_rollback(ctx, steps, to, with_data, wait, settings), show_sql)
    else:
        _rollback(ctx, steps, to, yes, wait, settings)


def _check_dry_run(dry_run: bool, *, with_data: bool, show_sql: bool) -> None:
    alone = "--show-sql" if show_sql else "--with-data" if with_data else ""
    if alone and not dry_run:  # who wants to look must not run anything
        raise click.UsageError(f"{alone} goes with --dry-run, and nothing was done.")


def _rollback(ctx: click.Context, steps: int, to: str | None, yes: bool, wait: float, settings: Settings) -> None:
    agreed = None
    if not yes:
        rehearsed = _rehearse_rollback(ctx, steps, to, False, wait, settings)
        if rehearsed.failure:
            raise rehearsed.failure
        agreed = [step.done.filename for step in rehearsed.steps]
        if agreed:
            click.echo(cli_render_rehearsal.losses_text(rehearsed), err=True)
            confirm("This rollback", "Roll back?")
    with controlled(ctx, wait) as control:
        outcome = rollbacks.rollback(
            settings.database,
            settings.directory,
            steps=steps,
            to=to,
            expected=agreed,
            environment=settings.environment,
            backups=settings.backups,
            control=control,
        )
    cli_dump.refresh(ctx, settings)
    _emit_outcome(ctx, outcome)


def _rehearse_rollback(
    ctx: click.Context, steps: int, to: str | None, with_data: bool, wait: float, settings: Settings
) -> Rehearsal:
    with controlled(ctx, wait) as control:
        return rehearsal.roll_back(
            settings.database,
            settings.directory,
            steps=steps,
            to=to,
            with_data=with_data,
            environment=settings.environment,
            backups=settings.backups,
            control=control,
        )


@db.command(with_appcontext=False)
@click.argument("name", nargs=-1, required=True)
@options
@option("--python", is_flag=True, help="A Python file, for what SQL cannot express.")
@click.pass_context
def new(ctx: click.Context, /, name: tuple[str, ...], python: bool, **options: Any) -> None:
    """Write an empty migration with the next number."""
    path = discovery.create(read_settings(ctx, **options).directory, " ".join(name), python=python)
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [{"filename": path.name, "path": str(path), "state": "pending"}], notes(ctx))
    else:
        click.echo(path)


@db.command(with_appcontext=False, short_help="Look for what keeps the others from working.")
@options
@click.pass_context
def doctor(ctx: click.Context, /, **options: Any) -> None:
    """Look for what keeps the other commands from working, and say what to do."""
    from financial_agent import doctor as examination

    settings = read_settings(ctx, **options)
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
@options
@wait_option
@out_of_order_option
@change_environment_option
@click.pass_context
def upgrade(ctx: click.Context, /, target: str, **options: Any) -> None:
    """The same as `migrate`."""
    ctx.invoke(migrate, target=None if target in ("head", "heads") else target, **options)


@db.command("downgrade", hidden=True, with_appcontext=False, context_settings={"ignore_unknown_options": True})
@click.argument("target", default="-1")
@options
@wait_option
@change_environment_option
@option("--yes", is_flag=True)
@click.pass_context
def downgrade(ctx: click.Context, /, target: str, yes: bool, wait: float, **options: Any) -> None:
    """The same as `rollback`: `-1` is one step, `base` everything, any other word is its `--to`."""
    settings = read_settings(ctx, **options)
    if target.startswith("-"):
        if not re.fullmatch(r"-[1-9][0-9]{0,8}", target):
            raise click.UsageError(f"{target!r} is no number of steps; -1 is one.")
        _rollback(ctx, -int(target), None, yes, wait, settings)
    else:
        _rollback(ctx, 1, "0" if target == "base" else target, yes, wait, settings)


@db.command("revision", hidden=True, with_appcontext=False)
@options
@option("-m", "--message", required=True)
@click.pass_context
def revision(ctx: click.Context, /, message: str, **options: Any) -> None:
    """The same as `new`."""
    ctx.invoke(new, name=(message,), python=False, **options)


for command in (
    *(cli_backup.backup, cli_backup.backups, cli_backup.restore),
    *(cli_check.check, cli_dump.dump, cli_explain.explain, cli_inspect.verify, cli_inspect.history),
    *(cli_ledger.baseline, cli_ledger.repair, cli_ledger.renumber, cli_ledger.stamp),
):
    db.add_command(command)
db.add_command(click.Command("current", callback=status.callback, params=status.params, hidden=True))


def _emit_outcome(ctx: click.Context, outcome: runner.Outcome) -> None:
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [cli_render.done_json(done) for done in outcome.done], notes(ctx))
    else:
        click.echo(cli_render.outcome_text(outcome))


def _create_app() -> Any:
    from financial_agent import create_app

    return create_app()


main = FlaskGroup(create_app=_create_app, help="The financial agent's application.")
