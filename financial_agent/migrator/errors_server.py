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


class RestoreUnfinished(MigratorError):
    """What is not one transaction was cut off. The backup, and what it replaced, are both there as files."""

    code = "FA437"
    exit_code = 4
    text = "{database} was being restored from {backup}, and that was cut off: {why}"
    advice = (
        "Finish it: flask db restore {backup}\n"
        "What was there before is among the backups, or else still on the server: SHOW DATABASES LIKE '%replaced%';"
    )


class RestoreUncertain(MigratorError):
    """The connection broke as the restore was told to commit."""

    code = "FA438"
    exit_code = 3
    text = "whether {database} was restored is not known: {cause}"
    advice = "It is as a whole as before, or restored: flask db history"


class NodeUnready(MigratorError):
    code = "FA506"
    exit_code = 5
    text = "{database}: the node of the Galera cluster that answers takes no part in it: {state}"
    advice = "Name a node of the primary component, or wait for this one: SHOW STATUS LIKE 'wsrep%';"
