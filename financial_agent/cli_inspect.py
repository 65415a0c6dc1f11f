"""The commands that look at a database and change nothing: verify, history.

What they need is imported when they run: no other command should start more slowly for it.
"""

from __future__ import annotations

from typing import Any

import click

from financial_agent.cli_output import emit_json, notes
from financial_agent.cli_shared import option, options, read_settings


@click.command()
@click.argument("target", required=False)
@options
@option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, with a header.")
@option("--slowest", is_flag=True, help="The longest first, instead of the oldest.")
@click.pass_context
def history(ctx: click.Context, /, target: str | None, as_csv: bool, slowest: bool, **options: Any) -> None:
    """Show what ever happened to the database, or to TARGET: when, who, how long, how it ended. Writes nothing."""
    from financial_agent import cli_render_inspect as render
    from financial_agent.migrator import history as histories

    if as_csv and ctx.meta["db.json"]:
        raise click.UsageError("--csv and --json exclude each other.")
    settings = read_settings(ctx, **options)
    lines = histories.read(settings.database, target)
    if slowest:
        lines = histories.slowest(lines)
    if ctx.meta["db.json"]:
        emit_json(ctx, 0, [], notes(ctx), history=[render.line_json(line) for line in lines])
    elif as_csv:
        click.echo(render.history_csv(lines), nl=False)
    else:
        click.echo(render.history_text(lines, ctx.meta["db.database"]))
