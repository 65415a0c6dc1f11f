"""Two addresses for whoever watches the application. They tell no more than a status."""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Blueprint, current_app

from financial_agent import config
from financial_agent.migrator import runner
from financial_agent.migrator.errors import MigratorError

blueprint = Blueprint("health", __name__)
log = logging.getLogger(__name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. The database is not asked: restarting the process would not mend it."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, str], int]:
    """Requests can be served: the database can be read, and no migration is pending."""
    try:
        where = config.settings(current_app.config, Path(current_app.instance_path))
        ready = not runner.pending(where.database, where.directory, where.environment.name)
    except MigratorError as error:
        log.warning("not ready: %s %s", error.code, error)
        ready = False
    return ({"status": "ready"}, 200) if ready else ({"status": "unavailable"}, 503)
