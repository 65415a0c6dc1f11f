"""The commands that look at a database and change nothing: verify, history.

What they need is imported when they run: no other command should start more slowly for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from financial_agent import config
from financial_agent.cli_output import emit_json, notes
from financial_agent.cli_render import item_json
from financial_agent.cli_shared import controlled, option, options, read_settings, wait_option

# A URL may hold a password, which all users of a machine see on a command line.
AGAINST = "FINANCIAL_AGENT_AGAINST"


@click.command(short_help="Look for edits, drift, damage and tampering.")
@options
@wait_option
@option(
    "--against",
    metavar="DATABASE",
    envvar=AGAINST,
    help=f"Compare with this database, too: another environment's, or a SQLite backup. Also in {AGAINST}.",
)
@click.pass_context
def verify(ctx: click.Context, /, against: str | None, wait: float, **options: Any) -> None:
    """Look for edited files, a schema that drifted, damage, and records that were tampered with. Writes nothing."""
    from financial_agent import cli_render_inspect as render
    from financial_agent.migrator import verify as verification

    settings = read_settings(ctx, **options)
    other = None if against is None else config.database(against, Path.cwd())
    with controlled(ctx, wait) as control:
        report = verification.verify(
            settings.database,
            settings.directory,
            environment=settings.environment.name,
            against=other,
            control=control,
        )
    code = 1 if report.findings else 0
    if ctx.meta["db.json"]:
        diagnostics = [*notes(ctx), *render.report_diagnostics(report)]
        items = [item_json(item) for item in report.items]
        emit_json(ctx, code, items, diagnostics, **render.report_json(report))
    else:
        click.echo(render.report_text(report))
    ctx.exit(code)


@click.command(short_help="Show what ever happened to the database.")
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
