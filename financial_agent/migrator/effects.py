"""What migrations destroy or overwrite, known before it happens: for backups, refusals and rehearsals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from financial_agent.migrator import rebuild
from financial_agent.migrator.backfill import refuse_unfit
from financial_agent.migrator.batches import batch_of
from financial_agent.migrator.databases import (
    Database,
    Effect,
    Effects,
    Patience,
    StatementError,
    Stopped,
    connect,
    is_file,
    scratch,
)
from financial_agent.migrator.errors_run import RunFailed
from financial_agent.migrator.execution import refuse_cascade, what_then
from financial_agent.migrator.lexer import Statement, tokens
from financial_agent.migrator.plan import Step

_DEFINING = {"CREATE", "ALTER", "DROP"}
# They destroy nothing, or what they do is not SQLite's to tell.
_HARMLESS = {"CREATE", "SELECT", "VALUES", "EXPLAIN", "PRAGMA", "ANALYZE", "REINDEX", "ATTACH", "DETACH"}
_HARMLESS |= {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"}
_MAY_DESTROY = """\
SELECT 1 FROM (SELECT type, sql FROM main.sqlite_schema UNION ALL SELECT type, sql FROM temp.sqlite_schema)
WHERE type = 'trigger' OR sql LIKE '%conflict%' OR sql LIKE 'create virtual %' LIMIT 1"""


def effects_of(db: Database, statement: Statement) -> Effects:
    """What a statement would do to the database as it is now."""
    if db.knows_effects_by_words:
        return db.effects(statement.text)
    if statement.keyword == "VACUUM":
        return Effects((Effect("rewrite"),))
    if statement.keyword in _HARMLESS - {"CREATE"}:
        return Effects()
    if new_table := rebuild.rebuild_of(statement):
        try:
            return db.rebuild(new_table).effects()
        except StatementError:
            return Effects((Effect("unknown"),))
    found = db.effects(statement.text)
    destroyed = list(found.destroyed)
    if _says_replace(statement) and not any(each.kind == "replace" and not each.via for each in destroyed):
        # The program of an UPDATE OR REPLACE deletes in any case; and where SQLite was built without its pre-update
        # hook, that of a plain table's REPLACE shows no deletion.
        others = {each.name for each in destroyed if each.via}
        destroyed += [Effect("replace", name) for name in sorted(found.written - others)]
    if not _is_limited(statement):
        destroyed = [
            each._replace(everywhere=True) if each.kind in ("delete", "update") and not each.via else each
            for each in destroyed
        ]
    return found._replace(destroyed=tuple(destroyed))


def foresee(database: str, steps: Sequence[Step], patience: Patience) -> list[Effect]:
    """What the steps would destroy of what is in a database, which may be a new one, in the order in which they would;
    found by trying the definitions on the schema alone, or, on a server, by their words. What the steps make themselves
    does not count.

    Raises CascadeRefused for a DROP TABLE that would reach other tables' rows, and BatchInvalid for batches
    without an end. Nobody else may run migrations now.
    """
    # MariaDB knows CREATE OR REPLACE TABLE.
    harmless = _HARMLESS if is_file(database) else _HARMLESS - {"CREATE"}
    if all(step.script.keywords <= harmless and not step.script.rebuilds for step in steps):
        return []
    found: list[Effect] = []
    if not is_file(database):
        with closing(connect(database, readonly=True, patience=patience)) as db:
            return list(dict.fromkeys(_by_words(db, steps)))
    with scratch(database, patience) as db:
        try:
            _try(db, steps, found)
        except (StatementError, Stopped, RunFailed):
            # It does not work here, or takes long: that is for the real run to tell, which has the rows, too.
            found.append(Effect("unknown"))
    return list(dict.fromkeys(found))


def _try(db: Database, steps: Sequence[Step], found: list[Effect]) -> None:
    made: set[str] = set()
    for step in steps:
        if step.script.leaves_settings or not step.script.transaction:
            found.append(Effect("unknown"))  # its PRAGMAs may change what the statements mean
            return
        db.reset(settings=False)
        db.enforce_foreign_keys(step.script.foreign_keys)
        can_insert_destroy = _can_insert_destroy(db)
        for statement in step.script.statements():
            if batch_of(statement):
                refuse_unfit(db, step, statement)
            is_plain = not can_insert_destroy and not _says_conflict(statement)
            if statement.keyword == "INSERT" and (found or is_plain):
                continue  # a file may hold millions of them, and one that destroys something is enough
            refuse_cascade(db, step, statement)
            found += [effect for effect in effects_of(db, statement).destroyed if effect.name not in made]
            if statement.keyword in _DEFINING:
                made = _define(db, step, statement, made)
                can_insert_destroy = _can_insert_destroy(db)


def _by_words(db: Database, steps: Sequence[Step]) -> Iterator[Effect]:
    there = {_bare(each.name) for each in db.objects()}
    made: set[str] = set()
    for step in steps:
        for statement in step.script.statements():
            if statement.keyword == "INSERT" and not (batch_of(statement) or _may_upsert(statement)):
                continue  # a file may hold millions of them
            refuse_cascade(db, step, statement)
            effects = db.effects(statement.text)
            if batch_of(statement) and effects.target not in made:
                refuse_unfit(db, step, statement)
            yield from (effect for effect in effects.destroyed if effect.name not in made)
            gone = {
                effect.name for effect in effects.destroyed if effect.kind.startswith("drop ") and not effect.column
            }
            made -= gone
            there -= {_bare(name) for name in gone}
            made |= {name for name in effects.created if _bare(name) not in there}


def _may_upsert(statement: Statement) -> bool:
    text = statement.text.lower()
    return "conflict" in text or "duplicate" in text


def _bare(name: str) -> str:
    """A name without its schema, and without its case: what may be there already was not made by a step."""
    return name.rpartition(".")[2].lower()


def _define(db: Database, step: Step, statement: Statement, made: set[str]) -> set[str]:
    """Run a definition. Returns the names of what the steps have made so far: a name that is free again, or that
    another object took over, is none of them."""
    before = _names(db)
    rebuild.execute(db, step, statement, what_then(step))
    after = _names(db)
    return (made | (after - before) if statement.keyword == "CREATE" else made) & after


def _names(db: Database) -> set[str]:
    return {name for (name,) in db.query("SELECT name FROM sqlite_schema")}


def _can_insert_destroy(db: Database) -> bool:
    """Whether a plain INSERT may do more than add: a trigger may change rows, a constraint may replace some."""
    return bool(db.query(_MAY_DESTROY))


def _says_conflict(statement: Statement) -> bool:
    text = statement.text.lower()
    return "conflict" in text or ("replace" in text and _says_replace(statement))


def _says_replace(statement: Statement) -> bool:
    """Whether it is a REPLACE INTO, an INSERT OR REPLACE, or an UPDATE OR REPLACE."""
    words = ["", "", *(word.upper() for word in tokens(statement.text, statement.dialect)), ""]
    return any(
        word == "REPLACE" and (words[at + 1] == "INTO" or words[at - 2 : at] == ["UPDATE", "OR"])
        for at, word in enumerate(words)
    )


def _is_limited(statement: Statement) -> bool:
    """Whether a WHERE or a LIMIT stands in the statement itself, outside of parentheses; or it is an INSERT, of which
    an upsert changes no more than the rows that are in its way."""
    depth = 0
    for word in tokens(statement.text, statement.dialect):
        depth += (word == "(") - (word == ")")
        if depth == 0 and word.upper() in ("WHERE", "LIMIT", "INTO"):
            return True
    return False
