#!/usr/bin/env python3
"""Apply the pending migrations without Flask: `python financial_agent/migrations/run_migrations.py`.

The database and the folder are those of `instance/config.py` and of FINANCIAL_AGENT_* in the environment, unless
they are given. The exit codes are those of `flask db migrate`.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from dataclasses import replace
from pathlib import Path

# As a script, Python puts this folder on the path, not the one that holds the package.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from financial_agent import cli_render, config
from financial_agent.migrator import runner
from financial_agent.migrator.control import Control, stop_on_signals
from financial_agent.migrator.errors import ConfigurationInvalid, MigratorError
from financial_agent.migrator.events import BackedUp, Done, Event, Recovered, Waiting, Warned


def main() -> int:
    """Run and return the exit code."""
    parser = argparse.ArgumentParser(description="Apply the pending migrations.", allow_abbrev=False)
    parser.add_argument("--database", help="a SQLite file, or a URL: postgresql://… or mysql://…")
    parser.add_argument("--directory", help="the folder of the migrations")
    parser.add_argument("--environment", help="the environment that this is, as in production")
    parser.add_argument(
        "--change-environment", action="store_true", help="the database belongs to this environment from now on"
    )
    parser.add_argument(
        "--out-of-order", action="store_true", help="also apply what is pending below an applied migration"
    )
    parser.add_argument("--verbose", action="store_true", help="log every statement to standard error")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show must not stop a run
        sys.stdout.reconfigure(errors="backslashreplace")
    if options.verbose:
        import logging

        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("financial_agent.migrator").setLevel(logging.DEBUG)
    try:
        settings = _settings(options.database, options.directory, options.environment)
        with stop_on_signals() as stop:
            outcome = runner.migrate(
                settings.database,
                settings.directory,
                out_of_order=options.out_of_order,
                environment=replace(settings.environment, change=options.change_environment),
                backups=settings.backups,
                control=Control(stop=stop, report=_Printer().report),
            )
    except MigratorError as error:
        given = {f"--{name}": getattr(options, name) for name in ("database", "directory", "environment")}
        error.hint = cli_render.hint_for(error.hint, given)
        print(cli_render.error_text(error), file=sys.stderr)
        return error.exit_code
    _say(cli_render.outcome_text(outcome))
    return 0


def _say(text: str) -> None:
    """Print a result. A reader that went away (`| head`), or a full disk, must not stop a run."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _settings(database: str | None, directory: str | None, environment: str | None) -> config.Settings:
    instance = config.instance_path()
    if database is None or directory is None:
        _load_dotenv()
    values = config.overridden(config.load(instance), database, directory, environment)
    settings = config.settings(values, instance)
    if database is None:
        config.prepare_instance(settings, instance)
    return settings


def _load_dotenv() -> None:
    """Read `.env` and `.flaskenv` as `flask` does, from here or the nearest folder above that has one."""
    for name in (".env", ".flaskenv"):
        path = next((folder / name for folder in (Path.cwd(), *Path.cwd().parents) if (folder / name).is_file()), None)
        if path is None:
            continue
        try:
            from dotenv import load_dotenv
        except ImportError:
            if config.PREFIX not in path.read_text(encoding="utf-8", errors="replace"):
                continue
            fix = "pip install python-dotenv, or give both --database and --directory"
            raise ConfigurationInvalid(
                setting=str(path), problem="cannot be read without python-dotenv", fix=fix
            ) from None
        try:
            load_dotenv(path)
        except ValueError as error:
            raise ConfigurationInvalid(setting=str(path), problem="is not UTF-8", fix="Save it as UTF-8") from error


class _Printer:
    """One line for each event."""

    def __init__(self) -> None:
        self._waiting_for = ""

    def report(self, event: Event) -> None:
        match event:
            case Done():
                _say(cli_render.done_text(event))
            case BackedUp():
                _say(cli_render.backed_up_text(event))
            case Recovered():
                _say(cli_render.recovered_text(event))
            case Warned():
                print(f"Warning: {event.filename}: {event.message}", file=sys.stderr)
            case Waiting() if event.purpose != self._waiting_for:
                self._waiting_for = event.purpose
                print(f"Waiting {event.purpose} …", file=sys.stderr)
            case _:
                pass


if __name__ == "__main__":
    sys.exit(main())
