"""The command that writes the schema into a file: dump."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from financial_agent.cli_output import emit_json, notes, warn
from financial_agent.cli_shared import controlled, option, options, read_settings
from financial_agent.config import Settings
from financial_agent.migrator.errors import MigratorError


@click.command(short_help="Write the schema into schema.sql.")
@click.argument("path", required=False)
@options
@option(
    "--check", is_flag=True, help="Write nothing: exit with 1, and show how it differs, unless the file is current."
)
@option("--from-files", is_flag=True, help="What the migrations make on a new database, instead of what is there.")
@click.pass_context
def dump(ctx: click.Context, /, path: str | None, check: bool, from_files: bool, **options: Any) -> None:
    """Write the schema of the database into SCHEMA_FILE, or PATH: in a stable order, without rows."""
    from financial_agent.migrator import dump as dumps

    settings = read_settings(ctx, **options)
    file = settings.schema_file if path is None else Path.cwd() / path
    with controlled(ctx, 30) as control:
        if from_files:
            wanted = dumps.of_files(settings.database, settings.directory, settings.environment, control)
        else:
            wanted = dumps.of_database(settings.database, control)
    if check:
        lines = dumps.difference(file, wanted)
        _answer(ctx, file, "\n".join(lines) if lines else f"{file} is current.", is_changed=bool(lines), diff=lines)
        ctx.exit(1 if lines else 0)
    is_changed = dumps.write(file, wanted)
    _answer(
        ctx,
        file,
        f"{'Wrote' if is_changed else 'Nothing to do:'} {file}{'' if is_changed else ' is current'}.",
        is_changed,
    )


def refresh(ctx: click.Context, settings: Settings) -> None:
    """After a run: write the file anew where the configuration asks for it. As the run is over, a file that cannot be
    written is a warning."""
    if not settings.dump_after_migrate:
        return
    from financial_agent.migrator import dump as dumps

    try:
        with controlled(ctx, 30) as control:
            dumps.write(settings.schema_file, dumps.of_database(settings.database, control))
    except MigratorError as error:
        warn(ctx, f"the schema file was not refreshed: {error.message}")


def _answer(ctx: click.Context, file: Path, text: str, is_changed: bool, diff: tuple[str, ...] = ()) -> None:
    if ctx.meta["db.json"]:
        found = {"path": str(file), "changed": is_changed, "diff": list(diff)}
        emit_json(ctx, 1 if diff else 0, [], notes(ctx), dump=found)
    else:
        click.echo(text)
