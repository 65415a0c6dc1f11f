"""The command that looks at the migration files alone: check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from financial_agent.cli_output import emit_json, notes
from financial_agent.cli_render import hint_for
from financial_agent.cli_shared import controlled, file_options, option, read_settings

FORMATS = ("text", "json", "github", "sarif")


@click.command(short_help="Check the files: replay, lint, lock file.")
@file_options
@option("--format", "form", type=click.Choice(FORMATS), default="text", help="For people, programs, GitHub, or SARIF.")
@option("--environment", metavar="NAME", help="Check what this environment runs, instead of all files.")
@option("--database", help="Check the files as its engine runs them; a server's scratch databases are made beside it.")
@option("--after", metavar="TARGET", help="Judge only what comes after TARGET; CHECK_AFTER is the setting.")
@option("--write-lock", is_flag=True, help="Write migrations.lock anew first.")
@click.pass_context
def check(
    ctx: click.Context, /, form: str, environment: str | None, after: str | None, write_lock: bool, **options: Any
) -> None:
    """Check the migration files, without looking at any live database: each is applied, rolled back and applied again
    on a scratch database, with generated rows; house practices; and the lock file. Exits with 1 for what it finds."""
    from financial_agent import cli_render_check as render
    from financial_agent.migrator import check as checks

    ctx.meta["db.json"] = ctx.meta["db.json"] or form == "json"
    settings = read_settings(ctx, environment=environment, **options)
    del ctx.meta["db.database"]  # it is not looked at
    with controlled(ctx, 0) as control:
        report = checks.check(
            settings.directory,
            database=settings.database,
            minimum_sqlite=settings.minimum_sqlite,
            environment=environment and settings.environment.name,
            after=settings.check_after if after is None else after,
            write_lock=write_lock,
            control=control,
        )
    hints = [hint_for(each.hint, ctx.meta["db.options"]) for each in report.findings]
    findings = tuple(replace(each, hint=hint) for each, hint in zip(report.findings, hints, strict=True))
    report = replace(report, findings=findings)
    code = 0 if report.is_well else 1
    if ctx.meta["db.json"]:
        silenced = [render.silenced_json(each) for each in report.silenced]
        emit_json(ctx, code, [], [*notes(ctx), *map(render.finding_json, report.findings)], silenced=silenced)
    else:
        click.echo(render.RENDERERS[form](report))
    ctx.exit(code)
