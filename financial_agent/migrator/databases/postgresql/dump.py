"""The schema as a file of SQL: what pg_dump writes, without what differs between its versions, or between servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from tempfile import TemporaryFile

from financial_agent.migrator.databases import Patience
from financial_agent.migrator.databases.postgresql.tools import tool
from financial_agent.migrator.databases.server_tools import run
from financial_agent.migrator.databases.url import Url
from financial_agent.migrator.lexer import Statement, lex

# Names are written with their schema, and functions may name what is made behind them.
_BEGIN = """\
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
"""
_WORDS = ("--schema-only", "--no-owner", "--no-privileges", "--no-tablespaces", "--no-subscriptions", "--no-password")
# Since 2025, each dump has a word of its own there (https://www.postgresql.org/support/security/CVE-2025-8714/).
_restrict = re.compile(r"^\\restrict (\w+)$", re.MULTILINE)


def text(url: Url, snapshot: str, without: Sequence[str], patience: Patience) -> str:
    """The definitions as a snapshot has them, without some tables. Raises ToolMissing, ToolFailed and Stopped."""
    tables = (f"--exclude-table={name}" for name in without)
    with TemporaryFile() as file:
        run(tool(url, "pg_dump", *_WORDS, f"--snapshot={snapshot}", *tables), patience, target=file)
        file.seek(0)
        found = file.read().decode()
    if word := _restrict.search(found):
        found = re.sub(rf"^\\(?:un)?restrict {word[1]}$", "", found, flags=re.MULTILINE)
    statements = [each for each in lex([found], "pg_dump", "postgresql") if isinstance(each, Statement)]
    kept = [each.text.removesuffix(";") for each in statements if not _is_of_the_dump(each)]
    return "\n".join([_BEGIN, *(f"{sql};\n" for sql in kept)]) if kept else ""


def _is_of_the_dump(statement: Statement) -> bool:
    """What a dump says of its own session, and of extensions, which only their owners may change."""
    return statement.keyword in ("SET", "SELECT") or statement.text.startswith("COMMENT ON EXTENSION ")
