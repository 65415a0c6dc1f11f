"""Rules of the house: how migrations are cut, written and numbered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from financial_agent.migrator.dialects import rules_of
from financial_agent.migrator.lexer.sqlite import COMMENT
from financial_agent.migrator.lint.rule import File, Folder, Found, Moment, Place, Rule, Version, within, written
from financial_agent.migrator.lint.words import names_in

_comment = re.compile(COMMENT)
_words = re.compile(r"[^\W_]+")
_ENOUGH_WORDS = 3
_TIMESTAMP_DIGITS = 8  # a date; longer ones have the time, too

# What changes a row that is there.
_CHANGES = ("UPDATE", "DELETE")


def _unrelated(file: File, _: Version | None) -> Iterator[Found]:
    moments = [each for each in file.up if each.defines or each.target.verb in ("INSERT", *_CHANGES)]
    groups = _related(moments)
    if len(groups) > 1:
        first, second = groups[:2]
        message = f"it changes {_subjects(second)}, which has nothing to do with {_subjects(first)}"
        yield within(file, second[0], message)


def _related(moments: Sequence[Moment]) -> list[list[Moment]]:
    """The statements by what they have to do with each other: they are about the same table, or name the other's.

    A table that none of them changes relates nothing: two tables with a key to a third are two changes.
    """
    changed = {_subject(moment) for moment in moments}
    groups: list[tuple[set[str], list[Moment]]] = []
    for moment in moments:
        names = {_subject(moment)} | (_names(moment) & changed)
        joined = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        members = [*(each for group in joined for each in group[1]), moment]
        groups.append((names.union(*(group[0] for group in joined)), members))
    return sorted((sorted(members, key=_position) for _, members in groups), key=lambda members: _position(members[0]))


def _subject(moment: Moment) -> str:
    """The table, or view, that a statement is about."""
    target = moment.target
    if target.verb == "DROP" and target.kind in ("INDEX", "TRIGGER"):
        known = moment.before.indexes if target.kind == "INDEX" else moment.before.triggers
        return known[target.name].table.lower() if target.name in known else target.name
    return target.table


def _names(moment: Moment) -> set[str]:
    """What a statement names; one that drops something, what that named."""
    names = names_in(moment.words)
    if moment.target.verb == "DROP":
        for kind in (moment.before.tables, moment.before.views, moment.before.triggers):
            if found := kind.get(moment.target.name):
                names |= {word.lower() for word in re.findall(r"\w+", found.sql)}
    return names


def _subjects(group: Sequence[Moment]) -> str:
    return " and ".join(dict.fromkeys(_subject(moment) for moment in group))


def _position(moment: Moment) -> tuple[int, int]:
    return moment.statement.line, moment.statement.column


def _schema_and_rows(file: File, _: Version | None) -> Iterator[Found]:
    if not any(moment.defines for moment in file.up):
        return
    kept_right = set[str]()
    for moment in file.up:
        if moment.target.kind == "TRIGGER" and moment.target.verb == "CREATE":
            kept_right |= names_in(moment.words)
    for moment in file.up:
        table = moment.target.table
        if moment.target.verb in _CHANGES and table in file.before.tables and table not in kept_right:
            yield within(file, moment, f"it changes the schema, and also rows that are in {table} already")


def _repeatable(file: File, _: Version | None) -> Iterator[Found]:
    for moment in file.moments:
        target = moment.target
        if target.is_guarded or target.is_temporary or target.verb not in ("CREATE", "DROP"):
            continue
        if moment.is_up and target.kind == "TABLE" and _is_passing(file, moment):
            continue
        if any(each.word == "rebuild" for each in moment.statement.directives):
            continue
        guard = "IF NOT EXISTS" if target.verb == "CREATE" else "IF EXISTS"
        message = f"{target.verb} {target.kind} {target.name} without {guard} cannot be repeated"
        if moment.script.transaction:
            yield within(file, moment, message)
        else:
            message += ", and outside a transaction what stands before a failure stays in effect"
            yield within(file, moment, message, severity="error")


def _is_passing(file: File, moment: Moment) -> bool:
    """A rebuild, which must not find a remnant: a table that is made only to be renamed, or dropped to be made anew, or
    one that is there already, below the directive."""
    stays = moment.target.name in file.after.tables
    return stays if moment.target.verb == "DROP" else not stays or moment.target.name in moment.before.tables


def _documented(file: File, _: Version | None) -> Iterator[Found]:
    title = {word.lower() for word in _words.findall(file.migration.file.name)}
    said = [word.lower() for comment in _comment.findall(file.head) for word in _words.findall(comment)]
    if len([word for word in said if word not in title]) < _ENOUGH_WORDS:
        yield Found("no comment above the first statement says why it is made", Place(file.migration))


def _gaps(folder: Folder) -> Iterator[Found]:
    migrations = {migration.file.version: migration for migration in folder.migrations}
    for before, version in pairwise(sorted({*migrations, *folder.skipped})):
        missing = version - before - 1
        after = migrations.get(version)  # what is skipped is judged in its own environments
        digits = len(after.file.filename.partition("_")[0]) if after else 0
        if after and missing > 0 and digits < _TIMESTAMP_DIGITS:
            first, last = _number(before + 1, digits), _number(version - 1, digits)
            what = f"number {first} is" if missing == 1 else f"the numbers {first} to {last} are"
            yield Found(f"{what} missing before it", Place(after))


def _number(version: int, digits: int) -> str:
    return f"{version:0{digits}}"


def _needless_autocommit(file: File, _: Version | None) -> Iterator[Found]:
    for script, moments in ((file.migration.up, file.up), (file.migration.down, file.down)):
        if script and not script.transaction and not any(map(_gives_it_up, moments)):
            message = f"the {script.direction} section runs outside a transaction, which none of its statements needs"
            yield within(file, moments[0], message)


def _gives_it_up(moment: Moment) -> bool:
    rules = rules_of(moment.statement.dialect)
    return moment.statement.keyword == "BEGIN" or bool(rules.needs_no_transaction(moment.statement))


_REPEATED = "CREATE INDEX IF NOT EXISTS orders_by_total ON orders (total);"
_UNDONE = "DROP INDEX IF EXISTS orders_by_total;"
_WHY = "The list of the dearest orders reads them by total."

RULES = (
    Rule(
        code="FA601",
        severity="warning",
        title="one change in one file",
        why="A migration is applied, rolled back, reviewed and blamed as a whole. Of two changes in one file neither "
        "can be taken back without the other, and a failure of the second undoes the first. Statements belong "
        "together when they are about the same table, or when one names a table that the other changes.",
        advice="Give each change a file of its own: flask db new NAME",
        wrong=(
            written(
                "002_add_notes",
                "What was said on the phone, and where goods are kept.",
                "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL);\n"
                "CREATE TABLE IF NOT EXISTS warehouses (id INTEGER PRIMARY KEY, city TEXT NOT NULL);",
                "DROP TABLE IF EXISTS warehouses;\nDROP TABLE IF EXISTS notes;",
            ),
        ),
        right=(
            written(
                "002_add_notes",
                "What was said on the phone, found by its time.",
                "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, said_at TEXT, body TEXT NOT NULL);\n"
                "CREATE INDEX IF NOT EXISTS notes_by_time ON notes (said_at);",
                "DROP TABLE IF EXISTS notes;",
            ),
        ),
        source="https://docs.djangoproject.com/en/stable/topics/migrations/#data-migrations",
        of_file=_unrelated,
    ),
    Rule(
        code="FA602",
        severity="warning",
        title="rows are changed in a file of their own",
        why="A change of the schema takes a moment. A change of rows takes the longer the more rows there are, and "
        "all the while nobody else can write. In a file of its own it can go in batches, and fail without taking "
        "the schema back. Rows that a trigger of the same file keeps right from then on are part of that change.",
        advice="Change the rows in the next migration; where there are many, in batches",
        wrong=(
            written(
                "002_add_status",
                "Orders can be cancelled, so they get a status.",
                "ALTER TABLE orders ADD COLUMN status TEXT;\nUPDATE orders SET status = 'open' WHERE status IS NULL;",
                "ALTER TABLE orders DROP COLUMN status;",
            ),
        ),
        right=(
            written(
                "002_add_status",
                "Orders can be cancelled, so they get a status.",
                "ALTER TABLE orders ADD COLUMN status TEXT;",
                "ALTER TABLE orders DROP COLUMN status;",
            ),
            written(
                "003_fill_status",
                "Whatever was ordered before 002 is still open.",
                "UPDATE orders SET status = 'open' WHERE status IS NULL;",
            ),
        ),
        source="https://github.com/ankane/strong_migrations#backfilling-data",
        of_file=_schema_and_rows,
    ),
    Rule(
        code="FA603",
        severity="note",
        title="what can be repeated is written so",
        why="IF NOT EXISTS and IF EXISTS let a file run where it, or a hand, has been before. Inside a transaction "
        "nothing of a failed file remains, so there this is a note. Outside one, what stood before the failure "
        "stays, and the next run stumbles over it: there it is an error. ALTER TABLE has no such words.",
        advice="Say IF NOT EXISTS, or IF EXISTS",
        wrong=(written("002_index_orders", _WHY, "CREATE INDEX orders_by_total ON orders (total);", _UNDONE),),
        right=(written("002_index_orders", _WHY, _REPEATED, _UNDONE),),
        source="https://sqlite.org/lang_createindex.html",
        of_file=_repeatable,
    ),
    Rule(
        code="FA605",
        severity="warning",
        title="a comment says why",
        why="The SQL says what is done. Why it is done, and why so, is known today to whoever writes it, and in two "
        "years to nobody. The title that `flask db new` writes is only the file's name once more.",
        advice="Begin the file with a comment that says why",
        wrong=(written("002_index_orders", "Index orders", _REPEATED, _UNDONE),),
        right=(written("002_index_orders", _WHY, _REPEATED, _UNDONE),),
        source="https://sqlite.org/lang_comment.html",
        of_file=_documented,
    ),
    Rule(
        code="FA606",
        severity="warning",
        title="numbers follow each other",
        why="A number that is missing may be a file that was forgotten in a commit, or one that waits in another "
        "branch and will come out of order. Two files with one number are the error FA202. Dates and timestamps "
        "have gaps by nature.",
        advice="Add the file that is missing, or give this one the free number",
        wrong=(written("003_index_orders", _WHY, _REPEATED, _UNDONE),),
        right=(written("002_index_orders", _WHY, _REPEATED, _UNDONE),),
        source="https://github.com/pressly/goose#hybrid-versioning",
        of_folder=_gaps,
    ),
    Rule(
        code="FA617",
        severity="warning",
        title="no transaction is given up without need",
        why="Outside a transaction nothing is undone: after a failure the statements before it stay in effect, and "
        "the migration is not recorded. On SQLite only VACUUM, DETACH and a few PRAGMAs need that.",
        advice="Leave transaction:false out",
        wrong=(written("002_index_orders", _WHY, _REPEATED, _UNDONE, transaction=False),),
        right=(
            written(
                "002_keep_a_write_ahead_log",
                "Readers no longer wait for writers, which the reports at noon need.",
                "PRAGMA journal_mode = WAL;",
                "PRAGMA journal_mode = DELETE;",
                transaction=False,
            ),
        ),
        source="https://sqlite.org/lang_transaction.html",
        of_file=_needless_autocommit,
    ),
)
