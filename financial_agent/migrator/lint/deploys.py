"""Rules that keep the running release working while the next one is deployed."""

from __future__ import annotations

from collections.abc import Iterator

from financial_agent.migrator.databases import Column
from financial_agent.migrator.lint.rule import File, Found, Moment, Rule, Version, within, written


def _taken_away(file: File, _: Version | None) -> Iterator[Found]:
    before, after = file.before.readable(), file.after.readable()
    for name in sorted(before - after):
        moment = next(each for each in file.up if name in each.before.readable() - each.after.readable())
        yield within(file, moment, f"the running release knows {name}, which is {_verb(moment)}")
    for name in _changed(file):
        for column in sorted(file.before.columns(name) - file.after.columns(name)):
            moment = next(each for each in file.up if column in each.before.columns(name) - each.after.columns(name))
            yield within(file, moment, f"the running release knows {name}.{column}, which is {_verb(moment)}")


def _changed(file: File) -> list[str]:
    """The tables and views that are there before and behind a file, and are not the same."""
    before, after = file.before, file.after
    if before is after:
        return []
    old, new = before.tables | before.views, after.tables | after.views
    return sorted(name for name in old.keys() & new.keys() if old[name] != new[name])


def _verb(moment: Moment) -> str:
    return "dropped" if any(word.upper == "DROP" for word in moment.words) else "renamed"


def _newly_required(file: File, _: Version | None) -> Iterator[Found]:
    for table in _changed(file):
        if table not in file.before.tables or table not in file.after.tables:
            continue  # a view is not inserted into
        old = {column.name.lower(): column for column in file.before.tables[table].columns}
        for column in file.after.tables[table].columns:
            was = old.get(column.name.lower())
            if _is_required(column) and not (was and _is_required(was)):
                moment = [each for each in file.up if each.before.tables.get(table) != each.after.tables.get(table)][-1]
                if moment.target.verb == "ALTER" and moment.target.name == table:
                    continue  # FA608 says so of a new column, FA609 of a renamed one
                message = (
                    f"an INSERT of the running release does not fill {table}.{column.name}, which becomes NOT NULL"
                )
                yield within(file, moment, f"{message} without a default")


def _is_required(column: Column) -> bool:
    return column.not_null and column.default is None and not column.key and not column.generated


RULES = (
    Rule(
        code="FA609",
        severity="warning",
        title="what the running release uses stays",
        why="While a release is deployed, processes of the one before it still work on the database, and after a "
        "deployment that failed they go on doing so. Whatever a migration drops or renames under them is an "
        "error for their users. Expand first: add the new name and let the next release use both. Contract "
        "later, when no release that runs knows the old one.",
        advice="Do it in a later release than the one that stops using it, and say so: -- migrate:ignore FA609 WHY",
        wrong=(
            written(
                "002_rename_total",
                "The totals are in cents, which the name should say.",
                "ALTER TABLE orders RENAME COLUMN total TO cents;",
                "ALTER TABLE orders RENAME COLUMN cents TO total;",
            ),
        ),
        right=(
            written(
                "002_add_cents",
                "The totals are in cents, which the name should say. Release 8 writes both, 9 reads this one.",
                "ALTER TABLE orders ADD COLUMN cents INTEGER;",
                "ALTER TABLE orders DROP COLUMN cents;",
            ),
        ),
        source="https://martinfowler.com/bliki/ParallelChange.html",
        of_file=_taken_away,
    ),
    Rule(
        code="FA610",
        severity="warning",
        title="what the running release inserts stays complete",
        why="The release that runs during a deployment does not know a column that becomes required: its INSERTs "
        "fail. A default fills the column for it; without one the column can be required only once every release "
        "that runs fills it.",
        advice="Give the column a default, or require it in a later release: -- migrate:ignore FA610 WHY",
        wrong=(
            written(
                "002_require_email",
                "Nobody can be reached without an address.",
                """\
CREATE TABLE customers_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);
INSERT INTO customers_new (id, name, email) SELECT id, name, coalesce(email, '') FROM customers;
DROP TABLE customers;
ALTER TABLE customers_new RENAME TO customers;
""",
                """\
CREATE TABLE IF NOT EXISTS customers_old (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT);
INSERT INTO customers_old (id, name, email) SELECT id, name, email FROM customers;
DROP TABLE IF EXISTS customers;
ALTER TABLE customers_old RENAME TO customers;
""",
                foreign_keys=False,
            ),
        ),
        right=(
            written(
                "002_require_email",
                "Nobody can be reached without an address. Release 8 fills it; before it, the default says so.",
                """\
CREATE TABLE customers_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL DEFAULT '');
INSERT INTO customers_new (id, name, email) SELECT id, name, coalesce(email, '') FROM customers;
DROP TABLE customers;
ALTER TABLE customers_new RENAME TO customers;
""",
                """\
CREATE TABLE IF NOT EXISTS customers_old (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT);
INSERT INTO customers_old (id, name, email) SELECT id, name, email FROM customers;
DROP TABLE IF EXISTS customers;
ALTER TABLE customers_old RENAME TO customers;
""",
                foreign_keys=False,
            ),
        ),
        source="https://atlasgo.io/lint/analyzers#backward-incompatible-changes",
        of_file=_newly_required,
    ),
)
