"""Rules for a schema that means what it says: keys that work, views and triggers that can be used, strings."""

from __future__ import annotations

from collections.abc import Iterator

from financial_agent.migrator.lint.rule import File, Folder, Found, Rule, Version, within, written


def _without_index(folder: Folder) -> Iterator[Found]:
    for key in folder.keys:
        if key.unindexed:
            columns = ", ".join(key.columns)
            message = f"no index finds the rows of {key.table} by {columns}, which refers to {key.parent}"
            yield Found(message, key.unindexed)


def _without_parent_key(folder: Folder) -> Iterator[Found]:
    for key in folder.keys:
        if key.mismatched:
            name = f"{key.table} ({', '.join(key.columns)})"
            yield Found(f"the foreign key {name} cannot work: {key.mismatch}", key.mismatched)


def _unusable(file: File, _: Version | None) -> Iterator[Found]:
    for each in file.broken:
        yield within(file, each.moment, f"the {each.type} {each.name} cannot be used behind it: {each.why}")


def _strings_in_double_quotes(file: File, _: Version | None) -> Iterator[Found]:
    for moment in file.moments:
        for at in moment.double_quoted:
            word = next(word for word in moment.words if word.at == at)
            yield within(file, moment, f"{word.text} names nothing, so SQLite takes it for a string", at)


_PHONES = "Customers are called back, some on several numbers."
_NAMES = "The list of customers shows their orders beside their names."

RULES = (
    Rule(
        code="FA604",
        severity="warning",
        title="each foreign key has an index",
        why="Whenever a parent is deleted or its key changed, SQLite looks for its children. Without an index that "
        "begins with the columns of the key it reads the whole table, once for each parent; so do the joins that "
        "the key is for.",
        advice="CREATE INDEX on the columns of the key",
        wrong=(
            written(
                "002_add_phones",
                _PHONES,
                "CREATE TABLE IF NOT EXISTS phones (\n    id INTEGER PRIMARY KEY,\n"
                "    customer_id INTEGER NOT NULL REFERENCES customers (id)\n);",
                "DROP TABLE IF EXISTS phones;",
            ),
        ),
        right=(
            written(
                "002_add_phones",
                _PHONES,
                "CREATE TABLE IF NOT EXISTS phones (\n    id INTEGER PRIMARY KEY,\n"
                "    customer_id INTEGER NOT NULL REFERENCES customers (id)\n);\n"
                "CREATE INDEX IF NOT EXISTS phones_by_customer ON phones (customer_id);",
                "DROP TABLE IF EXISTS phones;",
            ),
        ),
        source="https://sqlite.org/foreignkeys.html#fk_indexes",
        of_folder=_without_index,
    ),
    Rule(
        code="FA614",
        severity="error",
        title="each foreign key has a parent key",
        why="SQLite takes a foreign key to a table that does not exist, or to columns that are not unique, without a "
        "word. The error comes with the first row that is written to either table.",
        advice="Refer to the primary key of a table, or to columns with a UNIQUE of their own",
        wrong=(
            written(
                "002_add_logins",
                "Customers log in with their address.",
                "CREATE TABLE IF NOT EXISTS logins (email TEXT PRIMARY KEY REFERENCES customers (email));",
                "DROP TABLE IF EXISTS logins;",
            ),
        ),
        right=(
            written(
                "002_add_logins",
                "Customers log in with their address.",
                "CREATE TABLE IF NOT EXISTS logins (customer_id INTEGER PRIMARY KEY REFERENCES customers (id));",
                "DROP TABLE IF EXISTS logins;",
            ),
        ),
        source="https://sqlite.org/foreignkeys.html#fk_errors",
        of_folder=_without_parent_key,
    ),
    Rule(
        code="FA615",
        severity="error",
        title="views and triggers name what is there",
        why="SQLite looks into a view or a trigger only when it is used. One that names a table or column that is "
        "missing makes every statement fail that fires or reads it, and every later RENAME.",
        advice="Drop it before what it names, and make it anew behind",
        wrong=(
            written(
                "002_show_orders",
                _NAMES,
                "CREATE VIEW IF NOT EXISTS order_list AS SELECT o.id, c.title FROM orders AS o JOIN customers AS c;",
                "DROP VIEW IF EXISTS order_list;",
            ),
        ),
        right=(
            written(
                "002_show_orders",
                _NAMES,
                "CREATE VIEW IF NOT EXISTS order_list AS SELECT o.id, c.name FROM orders AS o JOIN customers AS c;",
                "DROP VIEW IF EXISTS order_list;",
            ),
        ),
        source="https://sqlite.org/lang_altertable.html#altertabrename",
        of_file=_unusable,
    ),
    Rule(
        code="FA616",
        severity="warning",
        title="strings stand in single quotes",
        why="Double quotes are for names. Where no such name exists, SQLite takes them for those of a string, so a "
        "column that is misspelt, or gone, turns into a text that is the same in every row. Builds of SQLite "
        "without this quirk refuse the statement.",
        advice="Put strings into single quotes, and spell names as they are",
        wrong=(
            written(
                "002_name_the_nameless",
                "Letters need a name on them.",
                'UPDATE customers SET name = "nobody" WHERE name IS NULL;',
            ),
        ),
        right=(
            written(
                "002_name_the_nameless",
                "Letters need a name on them.",
                "UPDATE customers SET name = 'nobody' WHERE name IS NULL;",
            ),
        ),
        source="https://sqlite.org/quirks.html#dblquote",
        of_file=_strings_in_double_quotes,
    ),
)
