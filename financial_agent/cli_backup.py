"""The commands that make, list and put back backups."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from financial_agent import cli_render_backup as render
from financial_agent.cli_output import emit_json, notes
from financial_agent.cli_shared import (
    change_environment_option,
    confirm,
    controlled,
    option,
    options,
    read_settings,
    wait_option,
)
from financial_agent.migrator import backup as copies
from financial_agent.migrator import backup_files
from financial_agent.migrator import restore as restores
from financial_agent.migrator.git import commit_of


@click.command(short_help="Make a checked copy while others write.")
@click.argument("path", required=False, type=click.Path())
@options
@wait_option
@click.pass_context
def backup(ctx: click.Context, /, path: str | None, wait: float, **options: Any) -> None:
    """Make a checked copy of the database: in the folder of the backups, or as PATH, or in PATH if it is a folder."""
    if path == "":  # a variable that is not set must not mean the current folder
        raise click.UsageError("PATH is empty.")
    settings = read_settings(ctx, **options)
    started = time.monotonic()
    with controlled(ctx, wait) as control:
        if path is None:
            made = copies.make(settings.database, settings.backups, "manual", control)
        else:
            made = copies.make_at(settings.database, Path(path).absolute(), control)
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [], notes(ctx), backups=[render.backup_json(made)])
    else:
        click.echo(render.made_text(made, time.monotonic() - started))


@click.command()
@options
@click.pass_context
def backups(ctx: click.Context, /, **options: Any) -> None:
    """List the backups of the database, the newest first."""
    settings = read_settings(ctx, **options)
    found = backup_files.listed(settings.database, settings.backups.folder)
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [], notes(ctx), backups=[render.backup_json(each) for each in found])
    else:
        click.echo(render.list_text(found, settings.backups.folder, datetime.now(UTC)))


@click.command(short_help="Put a backup back; keep what it replaces.")
@click.argument("backup")
@options
@wait_option
@change_environment_option
@option("--yes", is_flag=True, help="Do not ask.")
@option("--dry-run", is_flag=True, help="Say what would come back and what would go, and change nothing.")
@click.pass_context
def restore(ctx: click.Context, /, backup: str, yes: bool, dry_run: bool, wait: float, **options: Any) -> None:
    """Put back BACKUP: a name that `flask db backups` shows, or a path."""
    settings = read_settings(ctx, **options)
    with ExitStack() as stack:
        with controlled(ctx, wait) as control:
            found = restores.prepared(settings.database, settings.backups, backup, control, settings.environment)
            prepared = stack.enter_context(found)
        if dry_run:
            _show(ctx, prepared)
            return
        if not ctx.meta["db.json"] or not yes:
            click.echo(render.preview_text(prepared, ctx.meta["db.database"]), err=True)
        if not yes:
            confirm("This restore", "Restore?")
        with controlled(ctx, wait) as control:
            restored = restores.restore(
                settings.database, settings.backups, prepared, control, commit_of(settings.directory)
            )
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [], notes(ctx), restored=render.restored_json(prepared, restored))
    else:
        click.echo(render.restored_text(prepared, restored, ctx.meta["db.database"]))


def _show(ctx: click.Context, prepared: restores.Prepared) -> None:
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [], notes(ctx), preview=render.preview_json(prepared))
    else:
        click.echo(render.preview_text(prepared, ctx.meta["db.database"]))
