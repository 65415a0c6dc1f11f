"""The configuration's defaults, and where it is read from. Usable without Flask, as the plain runner does.

A later source wins: the defaults here, `instance/config.py`, `FINANCIAL_AGENT_*` in the environment (`.env` and
`.flaskenv` are read into it), the test configuration, an option on the command line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from financial_agent.migrator.backup import Policy
from financial_agent.migrator.databases import is_file
from financial_agent.migrator.environment import Environment
from financial_agent.migrator.errors import ConfigurationInvalid
from financial_agent.migrator.heads import ENVIRONMENT as NAME

PREFIX = "FINANCIAL_AGENT_"
PACKAGE = Path(__file__).resolve().parent

DEFAULTS: dict[str, Any] = {
    "DATABASE": "financial_data.db",
    "MIGRATIONS": str(PACKAGE / "migrations"),
    "MIGRATE_ON_STARTUP": False,
    "ENVIRONMENT": None,
    "BACKUP": "destructive",
    "BACKUP_DIRECTORY": None,
    "BACKUP_KEEP": 10,
    "MINIMUM_SQLITE": "3.35",
    "CHECK_AFTER": None,
    "SCHEMA_FILE": None,
    "DUMP_AFTER_MIGRATE": False,
}


@dataclass(frozen=True)
class Settings:
    """What a configuration means for the engine: a database, by absolute path or URL, the migrations' folder, the
    backups' policy, and the environment."""

    database: str
    directory: Path
    backups: Policy
    minimum_sqlite: tuple[int, ...] | None
    """The oldest SQLite that migrations must run on, as `check` sees to it; None for any."""
    check_after: str | None
    """The last migration, as a TARGET, that was released before it was checked; None when all are to be judged."""
    environment: Environment
    schema_file: Path
    dump_after_migrate: bool


def settings(values: Mapping[str, Any], instance: Path) -> Settings:
    """Read the engine's settings from a configuration; what it leaves out is the default.

    Raises ConfigurationInvalid.
    """
    values = {**DEFAULTS, **values}
    path = database(values["DATABASE"], instance)
    folder = directory(values["MIGRATIONS"], instance)
    return Settings(
        path,
        folder,
        backups(values, path, instance),
        minimum_sqlite(values["MINIMUM_SQLITE"]),
        check_after(values["CHECK_AFTER"]),
        Environment(environment(values["ENVIRONMENT"])),
        schema_file(values["SCHEMA_FILE"], folder, instance),
        dump_after_migrate(values["DUMP_AFTER_MIGRATE"]),
    )


def overridden(
    values: Mapping[str, Any],
    database_option: str | None,
    directory_option: str | None,
    environment_option: str | None,
) -> dict[str, Any]:
    """A configuration with what options of the command line name, relative to the current folder, in its place."""
    here = Path.cwd()
    given = {
        "DATABASE": None if database_option is None else database(database_option, here),
        "MIGRATIONS": None if directory_option is None else directory(directory_option, here),
        "ENVIRONMENT": environment_option,
    }
    return {**values, **{name: value for name, value in given.items() if value is not None}}


def prepare_instance(settings: Settings, instance: Path) -> None:
    """Make the instance folder when the database, or its backups, belong there; any other missing folder may be a slip
    of the pen."""
    if instance in (Path(settings.database).parent, settings.backups.folder.parent):
        try:
            instance.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = "Name a database that lies elsewhere: FINANCIAL_AGENT_DATABASE or --database"
            problem = f"cannot be made: {error.strerror}"
            raise ConfigurationInvalid(setting=f"the folder {instance}", problem=problem, fix=fix) from error


def instance_path() -> Path:
    """The instance folder: beside the package in a checkout, under the environment's `var` once installed."""
    if PACKAGE.parent.name in ("site-packages", "dist-packages"):
        return Path(sys.prefix) / "var" / "financial_agent-instance"
    return PACKAGE.parent / "instance"


def load(instance: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The defaults, overridden by `config.py` in the instance folder and by the environment.

    Raises ConfigurationInvalid when `config.py` does not run.
    """
    return {**DEFAULTS, **_read_file(instance / "config.py"), **_read_environment(environ)}


def _read_file(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {"__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), path, "exec"), settings)
    except FileNotFoundError:
        return {}
    except (Exception, SystemExit) as error:  # it is a program: it can fail in any way
        line = getattr(error, "lineno", None) or _line_in(path, error)
        raise ConfigurationInvalid(
            setting=f"{path}:{line}" if line else str(path),
            problem=f"does not run: {type(error).__name__}: {getattr(error, 'msg', error)}",
            fix=f"Correct it, and see that it runs: python {path}",
        ) from error
    return {name: value for name, value in settings.items() if name.isupper()}


def _line_in(path: Path, error: BaseException) -> int | None:
    trace, line = error.__traceback__, None
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX): _value(text) for name, text in environ.items() if name.startswith(PREFIX)}


def _value(text: str) -> Any:
    """As Flask reads its own prefixed variables: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def database(value: object, base: Path) -> str:
    """The database that a setting names. A relative path is relative to `base`. Raises ConfigurationInvalid."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(text, bool | float) or not isinstance(text, str | int) or text == "":
        fix = 'Set it to a file, as in DATABASE = "financial_data.db"'
        what = "empty" if text == "" else f"a {type(value).__name__}"  # a dict may hold a password
        raise ConfigurationInvalid(setting="DATABASE", problem=f"is {what}, not a path or URL", fix=fix)
    text = str(text)
    path = text.removeprefix("sqlite:///")
    if re.match(r"[A-Za-z][\w+.-]+:/", path) or path.startswith((":", "file:")):
        return text
    return str(base / os.path.expanduser(path))


def directory(value: object, base: Path) -> Path:
    """The migration folder that a setting names. Raises ConfigurationInvalid."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        fix = 'Set it to a folder, as in MIGRATIONS = "/srv/app/migrations"'
        raise ConfigurationInvalid(setting="MIGRATIONS", problem=f"is {value!r}, not a folder", fix=fix)
    return base / os.path.expanduser(value)


def environment(value: object) -> str | None:
    """The environment that a setting names. Raises ConfigurationInvalid."""
    if value is None:
        return None
    text = (
        str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    )  # as FINANCIAL_AGENT_… is read
    if not isinstance(text, str) or not NAME.fullmatch(text):
        fix = 'Set it to a name of letters, digits, _ and -, as in ENVIRONMENT = "production", or leave it out'
        raise ConfigurationInvalid(setting="ENVIRONMENT", problem=f"is {value!r}", fix=fix)
    return text


def backups(values: Mapping[str, Any], database: str, base: Path) -> Policy:
    """What the BACKUP settings ask for; the folder is `backups` beside the database, or for one on a server in `base`,
    unless one is named.

    Raises ConfigurationInvalid.
    """
    when, folder, keep = (values[name] for name in ("BACKUP", "BACKUP_DIRECTORY", "BACKUP_KEEP"))
    if when not in ("destructive", "always", "never"):
        fix = 'Set it to "destructive", "always" or "never"'
        raise ConfigurationInvalid(setting="BACKUP", problem=f"is {when!r}", fix=fix)
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
        fix = "Set it to how many are kept, as in BACKUP_KEEP = 10"
        raise ConfigurationInvalid(setting="BACKUP_KEEP", problem=f"is {keep!r}, not a positive number", fix=fix)
    if folder is None:
        return Policy(when, (Path(database).parent if is_file(database) else base) / "backups", keep)
    if not isinstance(folder, str | os.PathLike) or os.fspath(folder) == "" or "\0" in os.fspath(folder):
        fix = 'Set it to a folder, as in BACKUP_DIRECTORY = "/srv/backups"'
        raise ConfigurationInvalid(setting="BACKUP_DIRECTORY", problem=f"is {folder!r}, not a folder", fix=fix)
    return Policy(when, base / os.path.expanduser(folder), keep)


def minimum_sqlite(value: object) -> tuple[int, ...] | None:
    """The version that `MINIMUM_SQLITE` names. Raises ConfigurationInvalid."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"3(\.[0-9]{1,3}){1,2}", value):
        return tuple(map(int, value.split(".")))
    # The environment's 3.40 is read as a number, of which the nought is lost: 3.40.0 is none.
    fix = 'Set it to a version, as in MINIMUM_SQLITE = "3.35", or to None; in the environment with three parts: 3.35.0'
    raise ConfigurationInvalid(setting="MINIMUM_SQLITE", problem=f"is {value!r}, not a version of SQLite", fix=fix)


def check_after(value: object) -> str | None:
    """The migration that `CHECK_AFTER` names. Raises ConfigurationInvalid."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if text is None or (isinstance(text, str) and text):
        return text
    fix = 'Set it to the last migration that need not keep the rules, as in CHECK_AFTER = "042_add_fees"'
    raise ConfigurationInvalid(setting="CHECK_AFTER", problem=f"is {value!r}, not a migration", fix=fix)


def schema_file(value: object, migrations: Path, base: Path) -> Path:
    """The file that `dump` writes: `schema.sql` beside the migrations' folder unless one is named.

    Raises ConfigurationInvalid.
    """
    if value is None:
        return migrations.parent / "schema.sql"
    if not isinstance(value, str | os.PathLike) or os.fspath(value) == "" or "\0" in os.fspath(value):
        fix = 'Set it to a file, as in SCHEMA_FILE = "/srv/app/schema.sql"'
        raise ConfigurationInvalid(setting="SCHEMA_FILE", problem=f"is {value!r}, not a file", fix=fix)
    return base / os.path.expanduser(value)


def dump_after_migrate(value: object) -> bool:
    """What `DUMP_AFTER_MIGRATE` asks for. Raises ConfigurationInvalid."""
    word = str(value).lower()
    if word not in ("true", "1", "false", "0"):
        fix = "Set it to True or False"
        raise ConfigurationInvalid(setting="DUMP_AFTER_MIGRATE", problem=f"is {value!r}", fix=fix)
    return word in ("true", "1")


def on_startup(value: object) -> bool | Literal["check"]:
    """What `MIGRATE_ON_STARTUP` asks for. Raises ConfigurationInvalid."""
    word = str(value).lower()
    if word == "check":
        return "check"
    if word in ("true", "1", "false", "0"):
        return word in ("true", "1")
    fix = 'Set it to True, False or "check"'
    raise ConfigurationInvalid(setting="MIGRATE_ON_STARTUP", problem=f"is {value!r}", fix=fix)
