"""The commands that change what the ledger says or a file's number, and run nothing: baseline, repair, renumber."""

from __future__ import annotations

from typing import Any

import click

from financial_agent import cli_render
from financial_agent.cli_output import emit_json, notes
from financial_agent.cli_shared import (
    change_environment_option,
    controlled,
    option,
    options,
    read_settings,
    wait_option,
)
from financial_agent.migrator import renumber as renumbering
from financial_agent.migrator import repair as repairs

# What became of a migration that was repaired, by what the history says.
_REPAIRED = {
    "repair": ("applied", "Recorded {} as it is now"),
    "amend": ("started", "{} goes on with the statements that it has now"),
    "abandon": ("missing", "Gave up {}: what its batches changed stays, and it is no longer started"),
}


@click.command(short_help="Record migrations as applied, without running.")
@click.argument("target")
@options
@wait_option
@change_environment_option
@click.pass_context
def baseline(ctx: click.Context, /, target: str | None, wait: float, **options: Any) -> None:
    """Record every migration up to TARGET as applied, without running it: for a database made by other means.

    With 0, record that none has run.
    """
    settings = read_settings(ctx, **options)
    with controlled(ctx, wait) as control:
        names = repairs.baseline(settings.database, settings.directory, target, control, settings.environment)
    lines = [f"Recorded {name} as applied" for name in names]
    _emit_recorded(ctx, lines or ["Recorded that no migration is applied"], names)


def _said(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("say why, in a few words")
    return value


@click.command(short_help="Accept an edited file as it is now.")
@click.argument("target")
@options
@wait_option
@change_environment_option
@option("--reason", required=True, callback=_said, help="Why; it is kept in the history.")
@click.pass_context
def repair(ctx: click.Context, /, target: str, reason: str, wait: float, **options: Any) -> None:
    """Accept the file of an applied migration as it is now, without running it."""
    settings = read_settings(ctx, **options)
    with controlled(ctx, wait) as control:
        event = repairs.repair(settings.database, settings.directory, target, reason, control, settings.environment)
    state, text = _REPAIRED[event.event]
    _emit_recorded(ctx, [text.format(event.filename)], [event.filename], state)


@click.command(short_help="Give a pending migration the next free number.")
@click.argument("file")
@options
@click.pass_context
def renumber(ctx: click.Context, /, file: str, **options: Any) -> None:
    """Give a pending migration the next free number: FILE is its path, its name, or a part of that."""
    settings = read_settings(ctx, **options)
    renamed = renumbering.renumber(settings.database, settings.directory, file)
    if ctx.meta["db.json"]:
        migrations = [
            {"filename": new.name, "path": str(new), "state": "pending", "was": old.name} for old, new in renamed
        ]
        emit_json(ctx, 0, migrations, notes(ctx))
    else:
        click.echo(cli_render.shown([f"{old.name} -> {new.name}" for old, new in renamed]))


@click.command(hidden=True)
@click.argument("target", default="head")
@options
@wait_option
@change_environment_option
@click.pass_context
def stamp(ctx: click.Context, /, target: str, **options: Any) -> None:
    """The same as `baseline`."""
    ctx.invoke(baseline, target=None if target in ("head", "heads") else target, **options)


def _emit_recorded(ctx: click.Context, lines: list[str], names: list[str], state: str = "applied") -> None:
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [{"filename": name, "state": state} for name in names], notes(ctx))
    else:
        click.echo("\n".join(lines))
