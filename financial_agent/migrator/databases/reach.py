"""What of a statement reaches beyond its database, so that it must not be tried on a copy beside that: it would act on
the server, or on the very database."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from financial_agent.migrator.lexer import tokens

# What belongs to the server as a whole, by the words behind CREATE, ALTER, DROP or RENAME.
_SERVERS = {"ROLE", "USER", "GROUP", "DATABASE", "TABLESPACE", "SUBSCRIPTION", "SYSTEM", "LOGFILE", "INSTANCE", "OWNED"}
# MySQL's other statements about the server; and its SCHEMA is a database.
_MYSQL_SERVERS = {"SCHEMA", "SERVER"}
_MYSQL_ACTS = {"GRANT", "REVOKE", "FLUSH", "KILL", "INSTALL", "UNINSTALL", "CHANGE", "STOP", "PURGE", "SHUTDOWN"}
_MYSQL_SETS = {"GLOBAL", "PERSIST", "PERSIST_ONLY", "PASSWORD", "DEFAULT"}
_FILES = {"OUTFILE", "DUMPFILE", "PROGRAM", "DIRECTORY"}
# Behind these a table is named, and never a column.
_TABLE_FOLLOWS = {"INTO", "UPDATE", "TABLE", "FROM", "JOIN", "REFERENCES", "EXISTS", "TRUNCATE", "REPLACE"}


def reach(sql: str, dialect: str, databases: Collection[str] = ()) -> str:
    """What reaches beyond, in a few words; empty when nothing does. `databases` are the others, in lower case, that a
    name can be qualified by."""
    words = tokens(sql, dialect)
    uppers = [word.upper() for word in words]
    verb, what = (*uppers, "", "")[:2]
    is_mysql = dialect == "mysql"
    if verb in ("CREATE", "ALTER", "DROP", "RENAME"):
        kind = next((word for word in uppers[1:4] if word not in ("OR", "REPLACE", "IF", "FORCE")), "")
        if kind in _SERVERS | (_MYSQL_SERVERS if is_mysql else set()) and uppers[2:3] != ["MAPPING"]:
            return f"{verb} {kind}"
    if is_mysql and (verb in _MYSQL_ACTS or (verb == "SET" and what in _MYSQL_SETS)):
        return f"{verb} {what}" if verb == "SET" else verb
    if verb in ("GRANT", "REVOKE") and "ON" not in uppers:
        return f"{verb} of a role"
    if verb in ("SELECT", "COPY", "LOAD", "CREATE") and (file := _FILES & set(uppers)):
        return f"{verb} … {min(file)}"
    if verb == "COPY" and any(word[:1] == "'" for word in words[:6]):
        return "COPY with a file of the server's"
    if remote := next((word for word in words if word.lower().startswith("dblink")), None):
        return remote
    return "" if verb == "SELECT" else _other_database(words, databases)


def _other_database(words: Sequence[str], databases: Collection[str]) -> str:
    """The first name that is qualified by another database, and not by a table that is called the same."""
    named = {words[at + 1].strip("`").lower() for at, word in enumerate(words[:-1]) if word.upper() in _TABLE_FOLLOWS}
    for at, word in enumerate(words[:-2]):
        name = word.strip("`").lower()
        is_first = words[at + 1] == "." and words[at - 1 : at] != (".",)
        if is_first and name in databases and (name not in named or words[at - 1].upper() in _TABLE_FOLLOWS):
            return f"{word}.{words[at + 2]}"
    return ""
