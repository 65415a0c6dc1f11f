"""How all `flask db` commands answer: errors as text or JSON with their exit code, the envelope, warnings, colour."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from flask.cli import AppGroup

from financial_agent import cli_render
from financial_agent.migrator.errors import MigratorError


class DatabaseGroup(AppGroup):
    """Turns the engine's errors into text or JSON, and into exit codes, for all of its commands."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        meta = {"db.json": "--json" in args, "db.command": next((word for word in args if word[:1] != "-"), "")}
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if parent is None or not meta["db.json"]:
                raise
            parent.meta.update(meta)
            self._refuse_usage(parent, error)
        ctx.meta.update(meta)
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        ctx.color = _wants_colour()
        try:
            return super().invoke(ctx)
        except MigratorError as error:
            error.hint = cli_render.hint_for(error.hint, ctx.meta.get("db.options", {}))
            if ctx.meta["db.json"]:
                done = [cli_render.done_json(each) for each in error.done]
                emit_json(ctx, error.exit_code, done, [*notes(ctx), *cli_render.error_diagnostics(error)])
            else:
                _say_error(cli_render.error_text(error))
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            if not ctx.meta["db.json"]:
                raise
            self._refuse_usage(ctx, error)
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # `| head` ends quietly: that is Click's to do
                raise
            click.echo(f"Error: the result could not be written: {error.strerror}", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try once more at its end
            ctx.exit(1)

    def _refuse_usage(self, ctx: click.Context, error: click.UsageError) -> NoReturn:
        emit_json(ctx, error.exit_code, [], [cli_render.note_json("error", error.format_message())])
        ctx.exit(error.exit_code)


def emit_json(
    ctx: click.Context,
    exit_code: int,
    migrations: Sequence[dict[str, Any]],
    diagnostics: Sequence[dict[str, Any]],
    **more: Any,
) -> None:
    """Print the envelope; `more` holds what only one command has, each under a key of its own."""
    envelope = cli_render.envelope(
        ctx.meta["db.command"],
        exit_code=exit_code,
        database=ctx.meta.get("db.database", ""),
        migrations=migrations,
        diagnostics=diagnostics,
        **{**ctx.meta.get("db.more", {}), **more},
    )
    click.echo(json.dumps(envelope, indent=2))


def warn(ctx: click.Context, message: str) -> None:
    ctx.meta.setdefault("db.notes", []).append(cli_render.note_json("warning", message))
    if not ctx.meta["db.json"]:
        click.echo(f"Warning: {message}", err=True)


def notes(ctx: click.Context) -> list[dict[str, Any]]:
    return list(ctx.meta.get("db.notes", []))


def _say_error(text: str) -> None:
    first, _, rest = text.partition("\n")
    click.secho(first, fg="red", err=True)
    if rest:
        click.echo(rest, err=True)


def _wants_colour() -> bool | None:
    """https://no-color.org and https://force-color.org; None leaves it to whether a terminal listens."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None
