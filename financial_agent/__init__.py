"""A financial advisory agent's Flask application, whose `flask db …` commands evolve its database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

__version__ = "0.1.0"


def create_app(test_config: Mapping[str, Any] | None = None) -> Flask:
    """The application. It never opens the database, unless it is being served and MIGRATE_ON_STARTUP says so.

    Raises ConfigurationInvalid when `instance/config.py` does not run, or MIGRATE_ON_STARTUP is not known.
    """
    # Imported here, because the engine in this package must start without Flask.
    from flask import Flask

    from financial_agent import cli, config, health, startup

    app = Flask(__name__, instance_path=str(config.instance_path()), instance_relative_config=True)
    app.cli.add_command(cli.db)
    app.register_blueprint(health.blueprint)
    with startup.explained():
        app.config.from_mapping(config.load(config.instance_path()))
        app.config.from_mapping(test_config)
        startup.register(app)
    return app
