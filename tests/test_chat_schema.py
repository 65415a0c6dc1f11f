"""What the chat store's schema promises to every client that writes plain SQL, on each engine."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.chat_stores import TABLES, VERSIONS, Store, connected

ENGINES = ("sqlite", "postgresql", "mysql")
STORES = (*ENGINES, "sqlite with recursive triggers")  # which a client may have switched on
LONG_AGO = "2001-01-01T00:00:00.000Z"
CUSTOMER, VISITOR = 1, 2  # the conversations of the fixture `store`
CHART = {"type": "bar", "labels": ["Shares", "Bonds €"], "series": [{"name": "EUR", "data": [61250.5, 1.0]}]}


def at(minute: int) -> str:
    return f"2025-03-01T09:{minute:02}:00.000Z"


def say(store: Store, conversation: int, minute: int, content: str = "", **values: Any) -> int:
    message = {"role": "user", "content": content, "created_at": at(minute)} | values
    return store.insert("chat_messages", conversation_id=conversation, **message)


def counters(store: Store, conversation: int) -> Any:
    return store.rows("SELECT message_count, last_message_at FROM conversations WHERE id = ?", conversation)[0]


def updated_at(store: Store, table: str, row: int = 1) -> Any:
    return store.value(f"SELECT updated_at FROM {table} WHERE id = ?", row)


def sequences(store: Store, conversation: int) -> list[int]:
    found = store.rows("SELECT sequence FROM chat_messages WHERE conversation_id = ? ORDER BY id", conversation)
    return [sequence for (sequence,) in found]


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the test's own, on each engine in turn."""
    return str(tmp_path / "chat.db") if request.param == "sqlite" else str(request.getfixturevalue(request.param))


@pytest.fixture
def bare(url: str) -> Iterator[Store]:
    """A database of the test's own before its first migration."""
    with connected(url) as store:
        yield store


@pytest.fixture(scope="module")
def migrated(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """The URL of a migrated database of a server, which tests use one after the other."""
    with ExitStack() as made:

        @cache
        def url(dialect: str) -> str:
            fresh: str = made.enter_context(request.getfixturevalue(f"{dialect}_server").fresh())
            with connected(fresh) as store:
                store.migrate()
            return fresh

        yield url


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest, migrated: Callable[[str], str]) -> Iterator[Store]:
    """A migrated store without a row, on each engine in turn."""
    engine, _, recursive = request.param.partition(" ")
    url = str(request.getfixturevalue("db_path")) if engine == "sqlite" else migrated(engine)
    with connected(url) as store:
        if recursive:
            store.execute("PRAGMA recursive_triggers = ON")
        if engine != "sqlite":
            store.clear()
        yield store


@pytest.fixture
def store(empty: Store) -> Store:
    """A store with one conversation of each kind, written as the agent writes them."""
    query = "SELECT class, sum(value) FROM holdings WHERE customer = 'C-1042' GROUP BY class"
    call = json.dumps([{"id": "call_1", "name": "run_sql", "arguments": {"query": query}}])
    found, total = '[["Shares", 61250.5], ["Bonds", 1.0]]', '{"call_1": {"total": 61251.5}}'
    a = empty.insert("conversations", customer_id="C-1042", metadata='{"channel": "web"}', created_at=at(0))
    say(empty, a, 0, "You advise on savings and investments.", role="system")
    say(empty, a, 1, "How is my portfolio split?")
    say(empty, a, 2, role="assistant", tool_calls=call)
    say(empty, a, 3, "2 rows", role="tool", sql_query=query, sql_results=found, tool_results=total)
    say(empty, a, 4, "Almost all of it is in shares.", role="assistant", chart_data=json.dumps(CHART))
    summary = {"title": "Portfolio split", "summary": "Shares.", "quality_metrics": '{"coverage": 0.9}'}
    empty.insert("conversation_summaries", conversation_id=a, model_name="model-a", **summary)
    b = empty.insert("conversations", session_id="s-7f3a", created_at=at(10))
    say(empty, b, 11, "What is an index fund?")
    say(empty, b, 12, "A fund that follows an index.", role="assistant")
    assert (a, b) == (CUSTOMER, VISITOR)
    return empty


def test_a_replayed_conversation_is_counted_numbered_and_kept(store: Store) -> None:
    assert (counters(store, CUSTOMER), counters(store, VISITOR)) == ((5, at(4)), (2, at(12)))
    assert (sequences(store, CUSTOMER), sequences(store, VISITOR)) == ([1, 2, 3, 4, 5], [1, 2])
    assert json.loads(store.value("SELECT chart_data FROM chat_messages WHERE sequence = 5")) == CHART
    results = json.loads(store.value("SELECT tool_results FROM chat_messages WHERE role = 'tool'"))
    assert results == {"call_1": {"total": 61251.5}}
    assert store.rows("SELECT status, metadata FROM conversations WHERE id = 2") == [("active", "{}")]


def test_a_new_user_who_becomes_a_customer_keeps_the_conversation(store: Store) -> None:
    store.execute("UPDATE conversations SET customer_id = 'C-2000' WHERE session_id = 's-7f3a'")
    assert store.rows("SELECT id FROM conversations WHERE customer_id = 'C-2000'") == [(VISITOR,)]


def test_customers_are_told_apart_by_capital_letters(store: Store) -> None:
    assert store.rows("SELECT id FROM conversations WHERE customer_id = 'c-1042'") == []


# Writes while the customer's conversation has 5 messages, the last at minute 4, and the visitor's 2 and 12.
REPLACE = "REPLACE INTO chat_messages (conversation_id, sequence, role, content, created_at) VALUES"
UPSERT = (
    "INSERT INTO chat_messages (conversation_id, sequence, role, content) VALUES (2, 2, 'user', '')"
    " ON CONFLICT (conversation_id, sequence) DO UPDATE SET created_at"
)
# fmt: off
STEPS = {
    "a soft delete": ("UPDATE chat_messages SET is_active = 0 WHERE sequence = 5", (4, 3), (2, 12)),
    "a delete": ("DELETE FROM chat_messages WHERE sequence > 3", (3, 2), (2, 12)),
    "an earlier time": (f"UPDATE chat_messages SET created_at = '{at(0)}' WHERE id = 5", (5, 3), (2, 12)),
    "a later time": (f"UPDATE chat_messages SET created_at = '{at(30)}' WHERE id = 2", (5, 30), (2, 12)),
    "a move": ("UPDATE chat_messages SET conversation_id = 2, sequence = 0 WHERE id = 5", (4, 3), (3, 12)),
    "an edited text": ("UPDATE chat_messages SET content = 'edited'", (5, 4), (2, 12)),
    "a false count": ("UPDATE conversations SET message_count = 9", (5, 4), (2, 12)),
    "a false time": ("UPDATE conversations SET last_message_at = NULL", (5, 4), (2, 12)),
}
STEPS_OF = {
    "sqlite": {
        "a replaced message": (f"{REPLACE} (2, 2, 'user', '', '{at(20)}')", (5, 4), (2, 20)),
        "a message put over another": (f"{UPSERT} = '{at(20)}'", (5, 4), (2, 20)),
        "a number taken": ("UPDATE OR REPLACE chat_messages SET sequence = 5 WHERE id = 1", (4, 3), (2, 12)),
        "a replaced conversation": ("PRAGMA foreign_keys = OFF; REPLACE INTO conversations (id, customer_id)"
                                    " VALUES (1, 'C')", (5, 4), (2, 12)),
    },
    "postgresql": {
        "a message put over another": (f"{UPSERT} = '{at(20)}'", (5, 4), (2, 20)),
        "a new id": ("UPDATE chat_messages SET id = DEFAULT, is_active = 0 WHERE id = 5", (4, 3), (2, 12)),
        "all at once": ("TRUNCATE chat_messages", (0, None), (0, None)),
    },
    "mysql": {
        "a replaced message": (f"{REPLACE} (2, 2, 'user', '', '{at(20)}')", (5, 4), (2, 20)),
        "a message put over another": (UPSERT.partition(" ON ")[0] + " ON DUPLICATE KEY UPDATE created_at"
                                       f" = '{at(20)}'", (5, 4), (2, 20)),
        "a replaced conversation": ("SET foreign_key_checks = 0; REPLACE INTO conversations (id, customer_id)"
                                    " VALUES (1, 'C')", (5, 4), (2, 12)),
    },
}
# fmt: on


SERVERS = pytest.mark.parametrize("empty", ["postgresql", "mysql"], indirect=True)


def on_each(cases: Callable[[str], Iterable[Any]], stores: Sequence[str] = ENGINES) -> Any:
    """Run a test on each engine with the engine's own cases."""
    pairs = [(store, case) for store in stores for case in cases(store.partition(" ")[0])]
    return pytest.mark.parametrize(("empty", "case"), pairs, indirect=["empty"])


@on_each(lambda dialect: [*STEPS, *STEPS_OF[dialect]], STORES)
def test_the_counters_follow(store: Store, case: str) -> None:
    sql, customers, visitors = (STEPS | STEPS_OF[store.dialect])[case]
    for statement in sql.split("; "):
        store.execute(statement)
    for conversation, (count, minute) in ((CUSTOMER, customers), (VISITOR, visitors)):
        assert counters(store, conversation) == (count, minute if minute is None else at(minute))


def test_un_deleting_counts_a_message_again(store: Store) -> None:
    for is_active, expected in ((0, (1, at(11))), (1, (2, at(12)))):
        store.execute("UPDATE chat_messages SET is_active = ? WHERE content LIKE 'A fund%'", is_active)
        assert counters(store, VISITOR) == expected
    store.execute("UPDATE chat_messages SET is_active = 0")
    assert counters(store, VISITOR) == (0, None)


@pytest.mark.parametrize("claim", [{"message_count": 7}, {"last_message_at": at(0)}])
def test_a_new_conversation_cannot_claim_messages(store: Store, claim: dict[str, Any]) -> None:
    assert counters(store, store.insert("conversations", customer_id="C", **claim)) == (0, None)


WRITES = (
    "INSERT INTO chat_messages (conversation_id, role, content, created_at) VALUES ({c}, 'user', '', '{t}')",
    "INSERT INTO chat_messages (conversation_id, role, content) VALUES ({c}, 'user', ''), (3 - {c}, 'user', '')",
    "UPDATE chat_messages SET is_active = 1 - is_active, created_at = '{t}' WHERE id % 5 = {n}",
    "UPDATE chat_messages SET conversation_id = {c} WHERE id = {m}",
    "UPDATE chat_messages SET conversation_id = {c}, sequence = 0 WHERE sequence = {n}",
    "UPDATE chat_messages SET sequence = {n} WHERE id = {m}",
    "DELETE FROM chat_messages WHERE id = {m}",
    "DELETE FROM conversations WHERE id = {c}",
    "UPDATE conversations SET message_count = {n}, last_message_at = '{t}'",
)
REPLACES = (
    "REPLACE INTO chat_messages (conversation_id, sequence, role, content, created_at, is_active)"
    " VALUES ({c}, {n}, 'user', '', '{t}', {n} % 2)",
    "REPLACE INTO chat_messages (id, conversation_id, role, content) VALUES ({m}, {c}, 'user', '')",
    "REPLACE INTO conversations (id, customer_id, message_count) VALUES ({c}, 'C-1', {n})",
)
UPSERTED = "INSERT INTO chat_messages (conversation_id, sequence, role, content) VALUES ({c}, {n}, 'user', '')"
WRITES_OF = {
    "sqlite": (
        *REPLACES,
        f"{UPSERTED} ON CONFLICT (conversation_id, sequence)"
        " DO UPDATE SET is_active = 1 - chat_messages.is_active, created_at = '{t}'",
        "UPDATE OR REPLACE chat_messages SET conversation_id = {c} WHERE id = {m}",
        "UPDATE OR REPLACE chat_messages SET rowid = {m} WHERE sequence = {n}",
        "UPDATE OR REPLACE chat_messages SET sequence = {n} WHERE id = {m}",
    ),
    "postgresql": (
        f"{UPSERTED} ON CONFLICT (conversation_id, sequence)"
        " DO UPDATE SET is_active = 1 - chat_messages.is_active, created_at = '{t}'",
        "UPDATE chat_messages SET id = DEFAULT, is_active = 1 - is_active WHERE id = {m}",
        "INSERT INTO conversations (id, customer_id, message_count) OVERRIDING SYSTEM VALUE VALUES ({c}, 'C-1', {n})"
        " ON CONFLICT (id) DO UPDATE SET message_count = {n}",
        "WITH gone AS (DELETE FROM chat_messages WHERE id = {m} RETURNING role, content)"
        " INSERT INTO chat_messages (conversation_id, role, content) SELECT {c}, role, content FROM gone",
    ),
    "mysql": (
        *REPLACES,
        f"{UPSERTED} ON DUPLICATE KEY UPDATE is_active = 1 - is_active, created_at = '{{t}}'",
        "UPDATE IGNORE chat_messages SET sequence = sequence + 1 WHERE conversation_id = {c}",
    ),
}


@on_each(lambda dialect: range(8 if dialect == "sqlite" else 4), STORES)
def test_the_counters_are_right_after_any_sequence_of_writes(store: Store, case: int) -> None:
    chance = random.Random(case)
    counted = (
        "SELECT c.id, c.message_count, c.last_message_at, count(m.id), max(m.created_at) FROM conversations AS c"
        " LEFT JOIN chat_messages AS m ON m.conversation_id = c.id AND m.is_active = 1"
        " GROUP BY c.id, c.message_count, c.last_message_at"
    )
    for _ in range(150):
        values = {"c": chance.randint(1, 3), "m": chance.randint(1, 20), "n": chance.randint(1, 5)}
        write = chance.choice((*WRITES, *WRITES_OF[store.dialect])).format(**values, t=at(chance.randint(0, 59)))
        with contextlib.suppress(store.refusal):  # a taken number or a missing conversation changes nothing
            store.execute(write)
        wrong = [row for row in store.rows(counted) if row[1:3] != row[3:]]
        assert (wrong, store.rows("SELECT id FROM chat_messages WHERE sequence = 0")) == ([], []), write


def test_a_message_without_a_number_goes_after_even_a_soft_deleted_one(store: Store) -> None:
    say(store, VISITOR, 13, sequence=7, is_active=0)
    say(store, VISITOR, 14, sequence=None)
    say(store, VISITOR, 15, sequence=0)
    assert sequences(store, VISITOR) == [1, 2, 7, 8, 9]


@pytest.mark.parametrize("asking", ["0", "NULL"])
def test_a_message_that_asks_for_the_next_number_goes_last(store: Store, asking: str) -> None:
    again = 3 if store.dialect != "mysql" else 4  # there a number that was given is not given again
    for expected in ([3, 2], [again, 2]):
        store.execute(f"UPDATE chat_messages SET sequence = {asking} WHERE id = 6")
        assert sequences(store, VISITOR) == expected


def test_deleting_a_conversation_takes_its_own_messages_and_summary(store: Store) -> None:
    store.execute("DELETE FROM conversations WHERE customer_id = 'C-1042'")
    assert store.rows("SELECT DISTINCT conversation_id FROM chat_messages") == [(VISITOR,)]
    assert store.rows("SELECT * FROM conversation_summaries") == []
    assert counters(store, VISITOR) == (2, at(12))


def test_the_id_of_a_deleted_row_is_never_given_again(store: Store) -> None:
    store.execute("DELETE FROM conversations WHERE id = ?", VISITOR)
    again = store.insert("conversations", session_id="s-other")
    assert (again, say(store, again, 0)) == (3, 8)


@pytest.mark.parametrize("table", ["conversations", "conversation_summaries"])
def test_updated_at_follows_changes_and_keeps_what_the_client_sets(store: Store, table: str) -> None:
    store.execute(f"UPDATE {table} SET created_at = ?, updated_at = ?", at(0), LONG_AGO)
    assert updated_at(store, table) == LONG_AGO
    for _ in range(3):  # also twice within one millisecond
        store.execute(f"UPDATE {table} SET created_at = ?", at(1))
    assert updated_at(store, table) > LONG_AGO
    imported = store.insert(table, **GOOD[table], updated_at=LONG_AGO)
    assert updated_at(store, table, imported) == LONG_AGO


def test_times_that_are_left_out_are_utc_now(store: Store) -> None:
    if store.dialect != "sqlite":
        store.execute("SET time_zone = '-05:00'" if store.dialect == "mysql" else "SET timezone = 'America/New_York'")
    before = datetime.now(UTC)
    row = store.insert("conversations", customer_id="C")
    store.execute("UPDATE conversations SET status = 'closed' WHERE id = ?", row)
    for text in store.rows("SELECT created_at, updated_at FROM conversations WHERE id = ?", row)[0]:
        assert abs(datetime.fromisoformat(text) - before) < timedelta(minutes=30)


def test_a_message_touches_its_conversation_only_when_it_counts(store: Store) -> None:
    store.execute("UPDATE conversations SET updated_at = ?", LONG_AGO)
    store.execute("UPDATE chat_messages SET is_active = 1, content = 'edited'")
    assert updated_at(store, "conversations") == LONG_AGO
    say(store, CUSTOMER, 30)
    assert updated_at(store, "conversations") > LONG_AGO
    assert updated_at(store, "conversations", VISITOR) == LONG_AGO


# What is refused. SQLite checks what the types of the others rule out.

GOOD: dict[str, dict[str, Any]] = {
    "conversations": {"customer_id": "C-1"},
    "chat_messages": {"conversation_id": 1, "role": "user", "content": ""},
    "conversation_summaries": {"conversation_id": 2, "title": "Title", "summary": "Summary."},
}
NOT_JSON = ["{", "", "{'a': 1}"]
NOT_OBJECT = ["[]", "null"]
NOT_UTC = ["2025-03-01", "2025-03-01 09:00:00", "2025-03-01T09:00:00Z", "2025-03-01T09:00:00.000+00:00"]
NO_TIME = "2025-13-01T09:00:00.000Z"
BLANK = ["", "  "]
Checks = dict[tuple[str, str], tuple[str, list[Any]]]
CHECKS: Checks = {
    ("conversations", "conversation_has_an_owner"): ("customer_id", [None]),
    ("conversations", "customer_id_is_not_blank"): ("customer_id", BLANK),
    ("conversations", "session_id_is_not_blank"): ("session_id", BLANK),
    ("conversations", "status_is_known"): ("status", ["", "Active", "deleted"]),
    ("conversations", "metadata_is_a_json_object"): ("metadata", NOT_OBJECT),
    ("chat_messages", "sequence_is_a_number"): ("sequence", [-1]),
    ("chat_messages", "role_is_known"): ("role", ["", "User", "function"]),
    ("chat_messages", "is_active_is_0_or_1"): ("is_active", [2, -1]),
    ("conversation_summaries", "title_is_short"): ("title", [*BLANK, "x" * 121]),
    ("conversation_summaries", "summary_is_not_blank"): ("summary", BLANK),
    ("conversation_summaries", "quality_metrics_is_a_json_object"): ("quality_metrics", NOT_OBJECT),
    ("conversation_summaries", "model_name_is_not_blank"): ("model_name", BLANK),
}
ON_SQLITE: Checks = {
    ("conversations", "customer_id_is_not_blank"): ("customer_id", [b"C-1"]),
    ("conversations", "session_id_is_not_blank"): ("session_id", [b"C-1"]),
    ("conversations", "metadata_is_a_json_object"): ("metadata", [*NOT_JSON, b"{}"]),
    ("conversations", "message_count_is_a_count"): ("message_count", [-1, 1.5, "many"]),
    ("conversations", "last_message_at_is_utc"): ("last_message_at", [*NOT_UTC, NO_TIME]),
    ("chat_messages", "id_is_positive"): ("id", [0, -1]),
    ("chat_messages", "sequence_is_a_number"): ("sequence", [1.5, "first"]),
    ("chat_messages", "is_active_is_0_or_1"): ("is_active", [0.5, "yes"]),
    ("chat_messages", "content_is_text"): ("content", [b"text"]),
    ("chat_messages", "sql_query_is_text"): ("sql_query", [b"SELECT 1"]),
    ("conversation_summaries", "title_is_short"): ("title", [b"C-1"]),
    ("conversation_summaries", "summary_is_not_blank"): ("summary", [b"C-1"]),
    ("conversation_summaries", "quality_metrics_is_a_json_object"): ("quality_metrics", [*NOT_JSON, b"{}"]),
    ("conversation_summaries", "model_name_is_not_blank"): ("model_name", [b"C-1"]),
}
for _table in TABLES:
    ON_SQLITE[_table, "created_at_is_utc"] = ("created_at", [*NOT_UTC, NO_TIME])
for _table in ("conversations", "conversation_summaries"):
    ON_SQLITE[_table, "updated_at_is_utc"] = ("updated_at", [*NOT_UTC, NO_TIME])
for _column in ("tool_calls", "tool_results", "sql_results", "chart_data"):
    ON_SQLITE["chat_messages", f"{_column}_is_json"] = (_column, [*NOT_JSON, b"{}"])


def checks(dialect: str) -> Checks:
    """What each named check refuses: a column's values."""
    found = dict(CHECKS)
    for key, (column, values) in ON_SQLITE.items() if dialect == "sqlite" else ():
        found[key] = (column, [*CHECKS.get(key, (column, []))[1], *values])
    return found


@on_each(checks)
def test_a_check_names_itself_when_it_refuses(store: Store, case: tuple[str, str]) -> None:
    table, check = case
    column, bad_values = checks(store.dialect)[case]
    message = {
        "sqlite": f"^CHECK constraint failed: {check}$",
        "postgresql": f'violates check constraint "{check}"',
        "mysql": f"CONSTRAINT `{check}` failed|Check constraint '{check}' is violated",
    }
    for bad in bad_values:
        with pytest.raises(store.refusal, match=message[store.dialect]):
            store.insert(table, **GOOD[table] | {column: bad})
    store.insert(table, **GOOD[table])


def test_every_check_of_the_schema_has_a_name_and_a_refused_value_above(empty: Store) -> None:
    made = set(empty.checks())
    # Those are put right by a trigger before they are looked at, once there is a table of messages.
    unseen = set() if empty.dialect == "sqlite" else {("conversations", "message_count_is_a_count")}
    assert made - unseen == set(checks(empty.dialect))


def test_a_count_is_never_negative_even_before_there_are_messages(bare: Store) -> None:
    bare.run_up("001")
    with pytest.raises(bare.refusal, match="message_count_is_a_count"):
        bare.insert("conversations", customer_id="C", message_count=-1)


TYPED = [
    *(
        ("conversations", column, value)
        for column in ("created_at", "updated_at", "last_message_at")
        for value in (NO_TIME, "soon")
    ),
    *(
        ("chat_messages", column, value)
        for column in ("tool_calls", "tool_results", "sql_results", "chart_data")
        for value in NOT_JSON
    ),
    *(("conversations", "metadata", value) for value in NOT_JSON),
    ("chat_messages", "sequence", "first"),
    ("chat_messages", "is_active", "yes"),
]


@SERVERS
def test_a_type_refuses_what_a_check_refuses_on_sqlite(store: Store) -> None:
    for table, column, bad in TYPED:
        with pytest.raises(store.error):
            store.insert(table, **GOOD[table] | {column: bad})


def test_a_column_takes_null_only_where_null_means_something(store: Store) -> None:
    nullable = {"customer_id", "session_id", "last_message_at", "model_name"}
    nullable |= {"tool_calls", "tool_results", "sql_query", "sql_results", "chart_data"}
    given = {"sequence"} if store.dialect == "sqlite" else {"sequence", "message_count"}  # by a trigger, instead
    message = {
        "sqlite": "NOT NULL constraint failed: {}.{}$",
        "postgresql": '"{1}" of relation "{0}" violates not-null',
    }
    for table, column, takes_null in store.columns():
        assert takes_null == (column in nullable), (table, column)
        if column not in nullable | given:
            with pytest.raises(
                store.refusal, match=message.get(store.dialect, "'{1}' cannot be null").format(table, column)
            ):
                store.execute(f"UPDATE {table} SET {column} = NULL")


MESSAGE = "INTO chat_messages (id, conversation_id, role, content) VALUES"
SUMMARY = "INSERT INTO conversation_summaries (conversation_id, title, summary) VALUES"
REFUSED = {
    "a message of no conversation": (
        "INSERT INTO chat_messages (conversation_id, role, content) VALUES (99, 'user', '')",
        "(?i)FOREIGN KEY",
    ),
    "a summary of no conversation": (f"{SUMMARY} (99, 'a', 'b')", "(?i)FOREIGN KEY"),
    "a second summary": (f"{SUMMARY} (1, 'a', 'b')", "UNIQUE|conversation_has_one_summary"),
    "a taken number": ("UPDATE chat_messages SET sequence = 2 WHERE id = 1", "UNIQUE|sequence_is_unique"),
    "a move onto a taken number": (
        "UPDATE chat_messages SET conversation_id = 2 WHERE id = 1",
        "UNIQUE|sequence_is_unique",
    ),
    "a new id": ("UPDATE chat_messages SET id = 99 WHERE id = 1", "cannot be changed|can only be updated to DEFAULT"),
}
REFUSED_ON = {
    "sqlite": {
        "a new rowid": ("UPDATE chat_messages SET rowid = 99 WHERE id = 1", "id cannot be changed"),
        "another conversation's id": (f"REPLACE {MESSAGE} (1, 2, 'user', '')", "of another conversation"),
    },
    "postgresql": {"an id": (f"INSERT {MESSAGE} (99, 2, 'user', '')", "non-DEFAULT value")},
    "mysql": {"another conversation's id": (f"REPLACE {MESSAGE} (1, 2, 'user', '')", "of another conversation")},
}


@on_each(lambda dialect: [*REFUSED, *REFUSED_ON[dialect]])
def test_the_store_refuses(store: Store, case: str) -> None:
    sql, reason = (REFUSED | REFUSED_ON[store.dialect])[case]
    with pytest.raises(store.error, match=reason):
        store.execute(sql)


CUSTOMERS = "SELECT * FROM conversations WHERE customer_id = 'C-1042'"
SESSIONS = "SELECT * FROM conversations WHERE session_id = 's-7f3a'"
ALL = "SELECT * FROM chat_messages WHERE conversation_id = 1"
ACTIVE = f"{ALL} AND is_active = 1"
RECENT = {"postgresql": "last_message_at DESC NULLS LAST"}
LATEST = "ORDER BY {recent}, id DESC LIMIT 9"
QUERIES = [
    ("conversations_by_customer", f"{CUSTOMERS} ORDER BY {{recent}}"),
    ("conversations_by_customer", f"{CUSTOMERS} AND status = 'active' {LATEST}"),
    ("conversations_by_session", SESSIONS),
    ("conversations_by_session", f"{SESSIONS} {LATEST}"),
    ("chat_messages_active", f"{ACTIVE} ORDER BY sequence DESC LIMIT 9"),
    ("chat_messages_active", f"{ACTIVE} AND sequence < 500 ORDER BY sequence DESC LIMIT 9"),
    ("sequence_is_unique", f"{ALL} ORDER BY sequence"),
    ("conversation_has_one_summary", ALL.replace("chat_messages", "conversation_summaries")),
]
CHARTS = ("chat_messages_with_chart", f"{ACTIVE} AND chart_data IS NOT NULL ORDER BY sequence")
# What SQLite calls the indexes of constraints.
OWN_NAMES = {
    "sequence_is_unique": "sqlite_autoindex_chat_messages_1",
    "conversation_has_one_summary": "sqlite_autoindex_conversation_summaries_1",
}
SEARCHES = {
    "sqlite": "^SEARCH .* INDEX {} ",
    "postgresql": "^Index Scan (Backward )?using {} on .*Index Cond",
    "mysql": "^(const|ref|range) {} (?!.*filesort)",
}


def queries(dialect: str) -> list[tuple[str, str]]:
    """An index, and a query that it serves."""
    return QUERIES if dialect == "mysql" else [*QUERIES, CHARTS]


@on_each(queries)
def test_a_natural_query_searches_its_index_and_never_sorts(store: Store, case: tuple[str, str]) -> None:
    index, sql = case
    own_name = OWN_NAMES.get(index, index) if store.dialect == "sqlite" else index
    if store.dialect == "mysql":  # it would rather read a table as small as this whole
        sql = sql.replace(" WHERE", f" FORCE INDEX ({index}) WHERE")
    recent = RECENT.get(store.dialect, "last_message_at DESC")
    (step,) = store.plan(sql.format(recent=recent))  # sorting would be a second step
    assert re.search(SEARCHES[store.dialect].format(own_name), step), step


def test_counting_a_conversation_reads_the_index_alone(store: Store) -> None:
    alone = {
        "sqlite": "COVERING INDEX chat_messages_active",
        "postgresql": "Index Only Scan using chat_messages_active",
        "mysql": "chat_messages_active Using index",
    }
    assert alone[store.dialect] in store.plan(ACTIVE.replace("*", "count(*), max(created_at)"))[-1]


def test_every_index_serves_one_of_these_queries(store: Store) -> None:
    names = {index for index, _ in queries(store.dialect)}
    assert store.indexes() == ({OWN_NAMES.get(name, name) for name in names} if store.dialect == "sqlite" else names)


@pytest.mark.slow
def test_each_rollback_leaves_the_schema_of_the_version_before(bare: Store) -> None:
    schemas = [bare.schema()]
    for version in VERSIONS:
        bare.migrate(version)
        schemas.append(bare.schema())
    for before in reversed(schemas[:-1]):
        bare.roll_back()
        assert bare.schema() == before
    assert schemas[0] == []
    bare.migrate()
    assert bare.schema() == schemas[-1]


def test_rolling_002_back_keeps_every_other_row_and_resets_the_counters(bare: Store) -> None:
    bare.run_up(*VERSIONS)
    conversation = bare.insert("conversations", customer_id="C")
    bare.insert("conversation_summaries", conversation_id=conversation, title="Title", summary="Summary.")
    say(bare, conversation, 1)
    bare.run_down("002")
    assert counters(bare, conversation) == (0, None)
    assert bare.rows("SELECT conversation_id FROM conversation_summaries") == [(conversation,)]
    bare.run_up("002")
    say(bare, conversation, 30)
    assert (counters(bare, conversation), sequences(bare, conversation)) == ((1, at(30)), [1])


def test_002_corrects_counters_that_were_written_before_it(bare: Store) -> None:
    bare.run_up("001")
    claimed = bare.insert("conversations", customer_id="C", message_count=7, last_message_at=at(0))
    bare.run_up("002")
    assert counters(bare, claimed) == (0, None)


def test_charts_come_and_go_without_touching_other_columns(bare: Store) -> None:
    bare.run_up("001", "002", "003")
    say(bare, bare.insert("conversations", customer_id="C"), 1)
    before = bare.rows("SELECT * FROM chat_messages, conversations")
    bare.run_up("004")
    assert bare.rows("SELECT chart_data FROM chat_messages") == [(None,)]
    bare.run_down("004")
    assert bare.rows("SELECT * FROM chat_messages, conversations") == before


# Writers at the same time, which SQLite does not have.


def at_once(store: Store, work: Callable[[Store], None]) -> None:
    """Let four clients do the same at the same time."""

    def client(_: int) -> None:
        with connected(store.url) as own:
            work(own)

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(client, range(4)))


@SERVERS
def test_messages_that_are_written_at_the_same_time_are_numbered_and_counted(store: Store) -> None:
    def write(client: Store) -> None:
        for minute in range(20):
            say(client, VISITOR, minute)

    at_once(store, write)
    assert sorted(sequences(store, VISITOR)) == [*range(1, 83)]
    assert counters(store, VISITOR) == (82, at(19))


@SERVERS
def test_conversations_that_begin_at_the_same_time_do_not_deadlock(store: Store) -> None:
    def begin(client: Store) -> None:
        for _ in range(20):
            client.execute("BEGIN")
            conversation = client.insert("conversations", session_id="s")
            say(client, conversation, 1)
            say(client, conversation, 2)
            client.execute("COMMIT")

    at_once(store, begin)
    begun = store.rows("SELECT message_count, last_message_at FROM conversations WHERE session_id = 's'")
    assert begun == [(2, at(2))] * 80


@SERVERS
def test_a_transaction_that_looked_before_others_wrote_still_counts_right(store: Store) -> None:
    store.execute("BEGIN")
    assert counters(store, VISITOR) == (2, at(12))
    with connected(store.url) as other:
        say(other, VISITOR, 13)
    say(store, VISITOR, 14)
    store.execute("COMMIT")
    assert (counters(store, VISITOR), sequences(store, VISITOR)) == ((4, at(14)), [1, 2, 3, 4])


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)
def test_a_client_with_another_search_path_is_counted_too(store: Store) -> None:
    store.execute("SET search_path = ''")
    store.execute("INSERT INTO public.chat_messages (conversation_id, role, content) VALUES (2, 'user', '')")
    store.execute("UPDATE public.chat_messages SET is_active = 0 WHERE conversation_id = 2 AND sequence = 1")
    store.execute("DELETE FROM public.chat_messages WHERE conversation_id = 1 AND sequence = 5")
    store.execute("RESET search_path")
    assert (counters(store, VISITOR)[0], counters(store, CUSTOMER)) == (2, (4, at(3)))
