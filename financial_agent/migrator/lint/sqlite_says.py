"""What only SQLite itself can tell of a schema or a statement: each is a question to a scratch database."""

from __future__ import annotations

from typing import NamedTuple

from financial_agent.migrator.databases import Database, Patience, StatementError, scratch
from financial_agent.migrator.lint.rule import Moment, Objects
from financial_agent.migrator.lint.words import Word


class KeyName(NamedTuple):
    """Which foreign key is meant: the columns of a table, and the table that they refer to, in lower case."""

    table: str
    columns: tuple[str, ...]
    parent: str


class Fitness(NamedTuple):
    is_indexed: bool
    mismatch: str


def keys(db: Database, objects: Objects, table: str) -> set[KeyName]:
    """The foreign keys of a table; none when there is no such table."""
    if table not in objects.tables:
        return set()
    sql = """SELECT id, "table", "from" FROM pragma_foreign_key_list(?, 'main') ORDER BY id, seq"""
    found: dict[int, tuple[str, list[str]]] = {}
    for number, parent, column in db.query(sql, (objects.tables[table].name,)):
        found.setdefault(number, (parent.lower(), []))[1].append(column.lower())
    return {KeyName(table, tuple(columns), parent) for parent, columns in found.values()}


def fitness(db: Database, objects: Objects, key: KeyName) -> Fitness:
    """Whether SQLite finds the children of a parent without reading all of them
    (https://sqlite.org/foreignkeys.html#fk_indexes), and whether it can check the key at all."""
    table = _quoted(objects.tables[key.table].name)
    condition = " AND ".join(f"{_quoted(column)} = ?" for column in key.columns)
    sql = f"EXPLAIN QUERY PLAN SELECT 1 FROM main.{table} WHERE {condition}"
    plan = [row[3] for row in db.query(sql, [None] * len(key.columns))]
    is_indexed = all(line.startswith("SEARCH") and "AUTOMATIC" not in line for line in plan)
    if key.parent not in objects.tables:
        return Fitness(is_indexed, f"there is no table {key.parent}")
    try:
        db.query(f"PRAGMA main.foreign_key_check({table})")
    except StatementError as error:
        if f'referencing "{key.parent}"' in str(error).lower():
            return Fitness(is_indexed, f"what it refers to in {key.parent} is neither its primary key nor unique")
    return Fitness(is_indexed, "")


def refusal(moment: Moment, patience: Patience) -> str:
    """Why an ALTER TABLE that works on an empty table would be refused if there were a row; empty when it would not.

    Asked with a table of the same columns, without their constraints, and one row of NULLs.
    """
    table = moment.before.tables[moment.target.name]
    columns = ", ".join(_quoted(column.name) for column in table.columns)
    if not columns:
        return ""
    with scratch("sqlite:", patience, empty=True) as db:
        db.enforce_foreign_keys(moment.script.foreign_keys)
        db.execute(f"CREATE TABLE {_quoted(table.name)} ({columns})")
        db.execute(f"INSERT INTO {_quoted(table.name)} DEFAULT VALUES")
        try:
            db.execute(moment.statement.text)
        except StatementError as error:
            return str(error)
    return ""


def double_quoted(db: Database, moment: Moment) -> tuple[int, ...]:
    """Where double quotes are taken for those of a string (https://sqlite.org/quirks.html#dblquote).

    Square brackets are those of names only: where a name in them is unknown, the double quotes held a string.
    """
    sql, words = moment.statement.text, moment.words
    if moment.target.kind == "TRIGGER" or not any(word.text[0] == '"' for word in words):
        return ()
    start = 0
    if (moment.target.verb, moment.target.kind) == ("CREATE", "VIEW"):  # of which only the query is looked into
        start = next((word.at + 2 for word in words if word.upper == "AS"), len(sql))
    suspects = [word for word in words if word.at >= start and word.text[0] == '"' and not set(word.text) & {"]"}]
    defaults = [word.at for at, word in enumerate(words) if word in suspects and words[at - 1].upper == "DEFAULT"]
    strings = [word.at for word in suspects if _is_unknown(db, sql[start:], word, start)]
    return tuple(sorted({*defaults, *strings}))


def _is_unknown(db: Database, sql: str, word: Word, start: int) -> bool:
    """Whether a statement can be prepared as it is, and not with this word as a name."""
    at = word.at - start
    as_name = f"{sql[:at]}[{word.text[1:-1]}]{sql[at + len(word.text) :]}"
    return not _complaint(db, sql) and _complaint(db, as_name).startswith("no such column")


def _complaint(db: Database, sql: str) -> str:
    try:
        db.query(f"EXPLAIN {sql}")
    except StatementError as error:
        return str(error)
    return ""


def broken(db: Database, objects: Objects) -> dict[tuple[str, str], str]:
    """The views and triggers that name what is not there, by type and name, each with SQLite's reason.

    A RENAME looks into all of them (https://sqlite.org/lang_altertable.html#altertabrename) and stops at the first that
    it does not understand; each that is found is dropped, so that the next one shows, and all of it is undone.
    """
    candidates = [*objects.views.values(), *objects.triggers.values()]
    if not candidates:
        return {}
    found: dict[tuple[str, str], str] = {}
    db.execute("SAVEPOINT probing")
    try:
        db.execute('CREATE TABLE "a table to rename" (x)')
        while complaint := _attempt(db, 'ALTER TABLE "a table to rename" RENAME TO "a renamed table"'):
            # It reads `error in view v: …`, or `error in view v after rename: …`.
            named = {f"error in {each.type} {each.name}": each for each in candidates}
            guilty = named.get(complaint.partition(": ")[0].removesuffix(" after rename"))
            if guilty is None:
                break
            found[guilty.type, guilty.name.lower()] = complaint.partition(": ")[2]
            db.execute(f"DROP {guilty.type} {_quoted(guilty.name)}")
    finally:
        db.execute("ROLLBACK TO probing")
        db.execute("RELEASE probing")
    return found


def _attempt(db: Database, sql: str) -> str:
    try:
        db.execute(sql)
    except StatementError as error:
        return str(error)
    return ""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
