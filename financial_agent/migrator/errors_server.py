"""What only a database on a server can fail with, around the runs themselves: its tools, and databases to try things
in."""

from __future__ import annotations

from financial_agent.migrator.errors import MigratorError


class ScratchRefused(MigratorError):
    """The server makes no database to try things in. Nothing was changed."""

    code = "FA450"
    exit_code = 4
    text = "{database} cannot have a database beside it to try things in: {why}"


class ToolMissing(MigratorError):
    """A program that comes with the server's client is not on PATH. Nothing was changed."""

    code = "FA451"
    exit_code = 4
    text = "{program} is needed, and is not on PATH"
    advice = "Install it: apt-get install {package}, or what has it on this system"


class ToolFailed(MigratorError):
    """A program of the server's gave up. What it said is told without a row's content."""

    code = "FA452"
    exit_code = 4
    text = "{program} failed: {cause}"


class ToolTooOld(MigratorError):
    """Nothing was changed."""

    code = "FA436"
    exit_code = 4
    text = "{program} is of version {found}, and the server of {wanted}, which it may not understand"
    advice = "Install the newer one: apt-get install {package}, or what has it on this system"


class NodeUnready(MigratorError):
    code = "FA506"
    exit_code = 5
    text = "{database}: the node of the Galera cluster that answers takes no part in it: {state}"
    advice = "Name a node of the primary component, or wait for this one: SHOW STATUS LIKE 'wsrep%';"
