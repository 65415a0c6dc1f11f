"""Rules that keep rows: what is destroyed, and what works only on an empty table."""

from __future__ import annotations

from collections.abc import Iterator

from financial_agent.migrator.assertions import is_assertion
from financial_agent.migrator.databases import Effect
from financial_agent.migrator.lint.rule import File, Found, Moment, Rule, Version, within, written
from financial_agent.migrator.lint.words import names_in, phrase


def _destroyed_for_good(file: File, _: Version | None) -> Iterator[Found]:
    if file.migration.down:
        return
    for moment in file.up:
        for what in dict.fromkeys(_lost(file, moment, effect) for effect in moment.effects.destroyed):
            if what:
                yield within(file, moment, f"it {what}, and there is no down section")


def _lost(file: File, moment: Moment, effect: Effect) -> str:
    """What of the rows that were there before the file an effect takes; empty when that is nothing."""
    table = effect.name.lower()
    if effect.via or table not in file.before.tables or table not in moment.before.tables:
        return ""
    match effect.kind:
        case "drop table" if table not in file.after.tables:  # else it is a rebuild
            return f"drops {effect.name} with its rows"
        case "drop column":
            return f"drops the column {effect.name}.{effect.column} with its values"
        case "delete":
            return f"deletes rows of {effect.name}"
        case "replace":
            return f"replaces rows of {effect.name}"
        case "update" if effect.everywhere and (effect.column or "").lower() in file.before.columns(table):
            return f"overwrites {effect.column} in every row of {effect.name}"
    return ""


def _refused_with_rows(file: File, _: Version | None) -> Iterator[Found]:
    for moment in file.up:
        if moment.refusal and moment.target.name in file.before.tables:
            yield within(file, moment, f"it works only while {moment.target.name} is empty: {moment.refusal}")


def _unique_among_rows(file: File, _: Version | None) -> Iterator[Found]:
    for moment in file.up:
        is_unique = phrase(moment.words, 0, "CREATE", "UNIQUE", "INDEX")
        if is_unique and moment.target.table in file.before.tables and not _is_asserted(file, moment):
            message = f"it fails if two rows of {moment.target.table} are alike in what {moment.target.name} is on"
            yield within(file, moment, message)


def _is_asserted(file: File, moment: Moment) -> bool:
    """Whether an assertion about the table stands before it, which fails with words of the author's own."""
    before = file.up[: file.up.index(moment)]
    return any(is_assertion(each.statement) and moment.target.table in names_in(each.words) for each in before)


def _by_place(file: File, _: Version | None) -> Iterator[Found]:
    for moment in file.moments:
        end = moment.target.end
        if moment.target.verb == "INSERT" and phrase(moment.words, end, "SELECT", "*"):
            message = f"the values of SELECT * go into the columns of {moment.target.name} by their place"
            yield within(file, moment, message, moment.words[end].at)


RULES = (
    Rule(
        code="FA607",
        severity="warning",
        title="what destroys rows has a way back, or a reason",
        why="A table or column that is dropped, rows that are deleted or replaced, a column that is overwritten in "
        "every row: none of it comes back by itself. A down section at least restores the shape, and shows that "
        "somebody thought of it; where nothing can be restored, the reason to go on is worth a line.",
        advice="Write a down section, or say why none is needed: -- migrate:ignore FA607 WHY",
        wrong=(
            written(
                "002_forget_small_orders",
                "The auditors look at large orders only.",
                "DELETE FROM orders WHERE total < 10;",
            ),
        ),
        right=(
            written(
                "002_forget_small_orders",
                "The auditors look at large orders only.",
                "-- migrate:ignore FA607 the archive has them since March\nDELETE FROM orders WHERE total < 10;",
            ),
        ),
        source="https://atlasgo.io/lint/analyzers#destructive-changes",
        of_file=_destroyed_for_good,
    ),
    Rule(
        code="FA608",
        severity="error",
        title="a new column suits the rows that are there",
        why="SQLite adds a column without touching the rows, so its default must be a constant, and NOT NULL needs "
        "one that is not NULL. On an empty table it does not look, so the file passes in every test and fails in "
        "production.",
        advice="Give the column a constant default, or rebuild the table",
        wrong=(
            written(
                "002_add_currency",
                "Orders from abroad are not in euros.",
                "ALTER TABLE orders ADD COLUMN currency TEXT NOT NULL;",
                "ALTER TABLE orders DROP COLUMN currency;",
            ),
        ),
        right=(
            written(
                "002_add_currency",
                "Orders from abroad are not in euros.",
                "ALTER TABLE orders ADD COLUMN currency TEXT NOT NULL DEFAULT 'EUR';",
                "ALTER TABLE orders DROP COLUMN currency;",
            ),
        ),
        source="https://sqlite.org/lang_altertable.html#altertabaddcol",
        of_file=_refused_with_rows,
    ),
    Rule(
        code="FA612",
        severity="warning",
        title="what becomes unique is known to be",
        why="A unique index fails on the first two rows that are alike. Test data have none, so the file fails in "
        "production. It then leaves nothing behind, but the release waits.",
        advice="See that there are no such rows: an -- migrate:assert above the statement; or say how you know: -- "
        "migrate:ignore FA612 WHY",
        wrong=(
            written(
                "002_one_account_for_an_address",
                "Customers log in with their address.",
                "CREATE UNIQUE INDEX IF NOT EXISTS customers_by_email ON customers (email);",
                "DROP INDEX IF EXISTS customers_by_email;",
            ),
        ),
        right=(
            written(
                "002_one_account_for_an_address",
                "Customers log in with their address.",
                "-- migrate:assert SELECT email FROM customers GROUP BY email HAVING count(email) > 1\n"
                "CREATE UNIQUE INDEX IF NOT EXISTS customers_by_email ON customers (email);",
                "DROP INDEX IF EXISTS customers_by_email;",
            ),
        ),
        source="https://atlasgo.io/lint/analyzers#data-dependent-changes",
        of_file=_unique_among_rows,
    ),
    Rule(
        code="FA613",
        severity="warning",
        title="values go into columns by name",
        why="INSERT … SELECT * relies on two tables having the same columns in the same order. A column that is "
        "added to one of them later, or stands elsewhere in a table that was rebuilt, puts values into the wrong "
        "columns without an error, as SQLite's columns take any type.",
        advice="Name the columns on both sides",
        wrong=(
            written(
                "002_keep_old_orders",
                "Reports of last year must not change, so its orders are kept as they are.",
                "CREATE TABLE IF NOT EXISTS old_orders (id INTEGER PRIMARY KEY, customer_id INTEGER, total INTEGER);\n"
                "INSERT INTO old_orders SELECT * FROM orders;",
                "DROP TABLE IF EXISTS old_orders;",
            ),
        ),
        right=(
            written(
                "002_keep_old_orders",
                "Reports of last year must not change, so its orders are kept as they are.",
                "CREATE TABLE IF NOT EXISTS old_orders (id INTEGER PRIMARY KEY, customer_id INTEGER, total INTEGER);\n"
                "INSERT INTO old_orders (id, customer_id, total) SELECT id, customer_id, total FROM orders;",
                "DROP TABLE IF EXISTS old_orders;",
            ),
        ),
        source="https://sqlite.org/lang_insert.html",
        of_file=_by_place,
    ),
)
