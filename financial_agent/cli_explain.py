"""The command that tells what a code means: explain."""

from __future__ import annotations

import click

from financial_agent.cli_output import emit_json, notes
from financial_agent.cli_shared import option


@click.command(short_help="Tell what a code means, and what to do.")
@click.argument("code", required=False)
@option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def explain(ctx: click.Context, /, code: str | None, as_json: bool) -> None:
    """Tell what the CODE of an error or a finding means, why it matters, what is wrong and right, and how to silence
    it; without a CODE, list them all."""
    from financial_agent import cli_render_explain as render
    from financial_agent.migrator import explain as meaning

    explained = [meaning.explain(code)] if code else list(meaning.explanations().values())
    if as_json:
        emit_json(ctx, 0, [], notes(ctx), explanations=[render.explanation_json(each) for each in explained])
    else:
        click.echo(render.explanation_text(explained[0]) if code else render.list_text(explained))
