"""What the chat store's schema promises to every client that writes plain SQL."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable
from sqlite3 import Connection, IntegrityError
from typing import Any

import pytest

from tests.helpers import CHAT

DatabaseAt = Callable[[str], Connection]

TABLES = ("conversations", "chat_messages", "conversation_summaries")
LONG_AGO = "2001-01-01T00:00:00.000Z"
CUSTOMER, VISITOR = 1, 2  # the conversations of the fixture `store`
CHART = {"type": "bar", "labels": ["Shares", "Bonds €"], "series": [{"name": "EUR", "data": [61250.5, 1.0]}]}


def at(minute: int) -> str:
    return f"2025-03-01T09:{minute:02}:00.000Z"


def insert(db: Connection, table: str, **values: Any) -> int:
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    row = db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values())).lastrowid
    assert row is not None
    return row


def say(db: Connection, conversation: int, minute: int, content: str = "", **values: Any) -> int:
    message = {"role": "user", "content": content, "created_at": at(minute)} | values
    return insert(db, "chat_messages", conversation_id=conversation, **message)


def rows(db: Connection, sql: str, *parameters: Any) -> list[Any]:
    return db.execute(sql, parameters).fetchall()


def counters(db: Connection, conversation: int) -> Any:
    return rows(db, "SELECT message_count, last_message_at FROM conversations WHERE id = ?", conversation)[0]


def updated_at(db: Connection, table: str, row: int = 1) -> Any:
    return rows(db, f"SELECT updated_at FROM {table} WHERE id = ?", row)[0][0]


def sequences(db: Connection, conversation: int) -> list[int]:
    found = rows(db, "SELECT sequence FROM chat_messages WHERE conversation_id = ? ORDER BY id", conversation)
    return [sequence for (sequence,) in found]


def schema(db: Connection) -> list[Any]:
    """Everything that the migrations made: neither SQLite's own objects nor the ledger's."""
    made = rows(db, "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return [row for row in made if not row[2].startswith(("_", "sqlite_"))]


def run(db: Connection, version: str, section: str) -> None:
    """Run one section of a migration as the runner does: in one transaction, foreign keys enforced."""
    (path,) = (path for path in CHAT if path.name.startswith(version))
    up, down = path.read_text(encoding="utf-8").split("\n-- migrate:down\n")
    db.executescript(f"BEGIN;\n{up if section == 'up' else down}\nCOMMIT;")


@pytest.fixture
def store(db: Connection) -> Connection:
    """A database with one conversation of each kind, written as the agent writes them."""
    query = "SELECT class, sum(value) FROM holdings WHERE customer = 'C-1042' GROUP BY class"
    call = json.dumps([{"id": "call_1", "name": "run_sql", "arguments": {"query": query}}])
    found, total = '[["Shares", 61250.5], ["Bonds", 1.0]]', '{"call_1": {"total": 61251.5}}'
    a = insert(db, "conversations", customer_id="C-1042", metadata='{"channel": "web"}', created_at=at(0))
    say(db, a, 0, "You advise on savings and investments.", role="system")
    say(db, a, 1, "How is my portfolio split?")
    say(db, a, 2, role="assistant", tool_calls=call)
    say(db, a, 3, "2 rows", role="tool", sql_query=query, sql_results=found, tool_results=total)
    say(db, a, 4, "Almost all of it is in shares.", role="assistant", chart_data=json.dumps(CHART))
    summary = {"title": "Portfolio split", "summary": "Shares.", "quality_metrics": '{"coverage": 0.9}'}
    insert(db, "conversation_summaries", conversation_id=a, model_name="model-a", **summary)
    b = insert(db, "conversations", session_id="s-7f3a", created_at=at(10))
    say(db, b, 11, "What is an index fund?")
    say(db, b, 12, "A fund that follows an index.", role="assistant")
    assert (a, b) == (CUSTOMER, VISITOR)
    return db


@pytest.fixture(params=["OFF", "ON"])
def any_store(store: Connection, request: pytest.FixtureRequest) -> Connection:
    """The same, for facts about triggers: a client may or may not have switched recursive triggers on."""
    store.execute(f"PRAGMA recursive_triggers = {request.param}")
    return store


def test_a_replayed_conversation_is_counted_numbered_and_kept(store: Connection) -> None:
    assert (counters(store, CUSTOMER), counters(store, VISITOR)) == ((5, at(4)), (2, at(12)))
    assert (sequences(store, CUSTOMER), sequences(store, VISITOR)) == ([1, 2, 3, 4, 5], [1, 2])
    assert rows(store, "SELECT chart_data FROM chat_messages WHERE sequence = 5") == [(json.dumps(CHART),)]
    total = "SELECT json_extract(tool_results, '$.call_1.total') FROM chat_messages WHERE role = 'tool'"
    assert rows(store, total) == [(61251.5,)]
    assert rows(store, "SELECT status, metadata FROM conversations WHERE id = 2") == [("active", "{}")]


def test_a_new_user_who_becomes_a_customer_keeps_the_conversation(store: Connection) -> None:
    store.execute("UPDATE conversations SET customer_id = 'C-2000' WHERE session_id = 's-7f3a'")
    assert rows(store, "SELECT id FROM conversations WHERE customer_id = 'C-2000'") == [(VISITOR,)]


# Writes while the customer's conversation has 5 messages, the last at minute 4, and the visitor's 2 and 12.
REPLACE = "REPLACE INTO chat_messages (conversation_id, sequence, role, content, created_at) VALUES"
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
    "a replaced message": (f"{REPLACE} (2, 2, 'user', '', '{at(20)}')", (5, 4), (2, 20)),
    "a number taken": ("UPDATE OR REPLACE chat_messages SET sequence = 5 WHERE id = 1", (4, 3), (2, 12)),
    "a replaced conversation": ("PRAGMA foreign_keys = OFF; REPLACE INTO conversations (id, customer_id)"
                                " VALUES (1, 'C')", (5, 4), (2, 12)),
}
# fmt: on


@pytest.mark.parametrize(("sql", "customers", "visitors"), STEPS.values(), ids=STEPS)
def test_the_counters_follow(any_store: Connection, sql: str, customers: Any, visitors: Any) -> None:
    any_store.executescript(sql)
    for conversation, (count, minute) in ((CUSTOMER, customers), (VISITOR, visitors)):
        assert counters(any_store, conversation) == (count, at(minute))


def test_un_deleting_counts_a_message_again(any_store: Connection) -> None:
    for is_active, expected in ((0, (1, at(11))), (1, (2, at(12)))):
        any_store.execute("UPDATE chat_messages SET is_active = ? WHERE content LIKE 'A fund%'", [is_active])
        assert counters(any_store, VISITOR) == expected
    any_store.execute("UPDATE chat_messages SET is_active = 0")
    assert counters(any_store, VISITOR) == (0, None)


@pytest.mark.parametrize("claim", [{"message_count": 7}, {"last_message_at": at(0)}])
def test_a_new_conversation_cannot_claim_messages(any_store: Connection, claim: dict[str, Any]) -> None:
    assert counters(any_store, insert(any_store, "conversations", customer_id="C", **claim)) == (0, None)


WRITES = (
    "INSERT INTO chat_messages (conversation_id, role, content, created_at) VALUES (:c, 'user', '', :t)",
    "REPLACE INTO chat_messages (conversation_id, sequence, role, content, created_at, is_active)"
    " VALUES (:c, :n, 'user', '', :t, :n % 2)",
    "REPLACE INTO chat_messages (id, conversation_id, role, content) VALUES (:m, :c, 'user', '')",
    "INSERT INTO chat_messages (conversation_id, sequence, role, content) VALUES (:c, :n, 'user', '')"
    " ON CONFLICT (conversation_id, sequence) DO UPDATE SET is_active = 1 - is_active, created_at = :t",
    "UPDATE chat_messages SET is_active = 1 - is_active, created_at = :t WHERE id % 5 = :n",
    "UPDATE OR REPLACE chat_messages SET conversation_id = :c WHERE id = :m",
    "UPDATE OR REPLACE chat_messages SET rowid = :m WHERE sequence = :n",
    "UPDATE chat_messages SET conversation_id = :c, sequence = 0 WHERE sequence = :n",
    "UPDATE OR REPLACE chat_messages SET sequence = :n WHERE id = :m",
    "DELETE FROM chat_messages WHERE id = :m",
    "DELETE FROM conversations WHERE id = :c",
    "REPLACE INTO conversations (id, customer_id, message_count) VALUES (:c, 'C-1', :n)",
    "UPDATE conversations SET message_count = :n, last_message_at = :t",
)


@pytest.mark.parametrize("seed", range(8))
def test_the_counters_are_right_after_any_sequence_of_writes(any_store: Connection, seed: int) -> None:
    chance = random.Random(seed)
    wrong = (
        "SELECT * FROM conversations AS c WHERE (message_count, last_message_at) IS NOT"
        " (SELECT count(*), max(created_at) FROM chat_messages WHERE conversation_id = c.id AND is_active)"
    )
    for _ in range(150):
        values = {"c": chance.randint(1, 3), "m": chance.randint(1, 20), "n": chance.randint(1, 5)}
        write = chance.choice(WRITES)
        with contextlib.suppress(IntegrityError):  # a taken number or a missing conversation changes nothing
            any_store.execute(write, values | {"t": at(chance.randint(0, 59))})
        assert rows(any_store, wrong) == [], write
        assert rows(any_store, "SELECT id FROM chat_messages WHERE sequence = 0") == [], write


def test_a_message_without_a_number_goes_after_even_a_soft_deleted_one(store: Connection) -> None:
    say(store, VISITOR, 13, sequence=7, is_active=0)
    say(store, VISITOR, 14, sequence=None)
    say(store, VISITOR, 15, sequence=0)
    assert sequences(store, VISITOR) == [1, 2, 7, 8, 9]


def test_deleting_a_conversation_takes_its_own_messages_and_summary(any_store: Connection) -> None:
    any_store.execute("DELETE FROM conversations WHERE customer_id = 'C-1042'")
    assert rows(any_store, "SELECT DISTINCT conversation_id FROM chat_messages") == [(VISITOR,)]
    assert rows(any_store, "SELECT * FROM conversation_summaries") == []
    assert counters(any_store, VISITOR) == (2, at(12))


def test_the_id_of_a_deleted_row_is_never_given_again(store: Connection) -> None:
    store.execute("DELETE FROM conversations WHERE id = ?", [VISITOR])
    again = insert(store, "conversations", session_id="s-other")
    assert (again, say(store, again, 0)) == (3, 8)


@pytest.mark.parametrize("table", ["conversations", "conversation_summaries"])
def test_updated_at_follows_changes_and_keeps_what_the_client_sets(any_store: Connection, table: str) -> None:
    any_store.execute(f"UPDATE {table} SET created_at = ?, updated_at = ?", [at(0), LONG_AGO])
    assert updated_at(any_store, table) == LONG_AGO
    for _ in range(3):  # also twice within one millisecond
        any_store.execute(f"UPDATE {table} SET created_at = ?", [at(1)])
    assert updated_at(any_store, table) > LONG_AGO
    imported = insert(any_store, table, **GOOD[table], updated_at=LONG_AGO)
    assert updated_at(any_store, table, imported) == LONG_AGO


def test_a_message_touches_its_conversation_only_when_it_counts(any_store: Connection) -> None:
    any_store.execute("UPDATE conversations SET updated_at = ?", [LONG_AGO])
    any_store.execute("UPDATE chat_messages SET is_active = 1, content = 'edited'")
    assert updated_at(any_store, "conversations") == LONG_AGO
    say(any_store, CUSTOMER, 30)
    assert updated_at(any_store, "conversations") > LONG_AGO
    assert updated_at(any_store, "conversations", VISITOR) == LONG_AGO


GOOD: dict[str, dict[str, Any]] = {
    "conversations": {"customer_id": "C-1"},
    "chat_messages": {"conversation_id": 1, "role": "user", "content": ""},
    "conversation_summaries": {"conversation_id": 2, "title": "Title", "summary": "Summary."},
}
NOT_JSON = ["{", "", "{'a': 1}", b"{}"]
NOT_OBJECT = [*NOT_JSON, "[]", "null"]
NOT_UTC = ["2025-03-01", "2025-03-01 09:00:00", "2025-03-01T09:00:00Z", "2025-03-01T09:00:00.000+00:00"]
NOT_UTC += ["2025-13-01T09:00:00.000Z"]
BLANK = ["", "  ", b"C-1"]
CHECKS: dict[tuple[str, str], tuple[str, list[Any]]] = {
    ("conversations", "conversation_has_an_owner"): ("customer_id", [None]),
    ("conversations", "customer_id_is_not_blank"): ("customer_id", BLANK),
    ("conversations", "session_id_is_not_blank"): ("session_id", BLANK),
    ("conversations", "status_is_known"): ("status", ["", "Active", "deleted"]),
    ("conversations", "metadata_is_a_json_object"): ("metadata", NOT_OBJECT),
    ("conversations", "message_count_is_a_count"): ("message_count", [-1, 1.5, "many"]),
    ("chat_messages", "id_is_positive"): ("id", [0, -1]),
    ("chat_messages", "sequence_is_a_number"): ("sequence", [-1, 1.5, "first"]),
    ("chat_messages", "role_is_known"): ("role", ["", "User", "function"]),
    ("chat_messages", "is_active_is_0_or_1"): ("is_active", [2, -1, 0.5, "yes"]),
    ("chat_messages", "content_is_text"): ("content", [b"text"]),
    ("chat_messages", "sql_query_is_text"): ("sql_query", [b"SELECT 1"]),
    ("conversation_summaries", "title_is_short"): ("title", [*BLANK, "x" * 121]),
    ("conversation_summaries", "summary_is_not_blank"): ("summary", BLANK),
    ("conversation_summaries", "quality_metrics_is_a_json_object"): ("quality_metrics", NOT_OBJECT),
    ("conversation_summaries", "model_name_is_not_blank"): ("model_name", BLANK),
    ("conversations", "last_message_at_is_utc"): ("last_message_at", NOT_UTC),
}
for _table in TABLES:
    CHECKS[_table, "created_at_is_utc"] = ("created_at", NOT_UTC)
for _table in ("conversations", "conversation_summaries"):
    CHECKS[_table, "updated_at_is_utc"] = ("updated_at", NOT_UTC)
for _column in ("tool_calls", "tool_results", "sql_results", "chart_data"):
    CHECKS["chat_messages", f"{_column}_is_json"] = (_column, NOT_JSON)


@pytest.mark.parametrize(("table", "check"), CHECKS)
def test_a_check_names_itself_when_it_refuses(store: Connection, table: str, check: str) -> None:
    column, bad_values = CHECKS[table, check]
    for bad in bad_values:
        with pytest.raises(IntegrityError, match=f"^CHECK constraint failed: {check}$"):
            insert(store, table, **GOOD[table] | {column: bad})
    insert(store, table, **GOOD[table])


def test_every_check_of_the_schema_has_a_name_and_a_refused_value_above(db: Connection) -> None:
    tables = {name: sql for kind, name, _, sql in schema(db) if kind == "table"}
    named = {(t, check) for t in tables for check in re.findall(r"CONSTRAINT (\w+)\s+CHECK", tables[t])}
    assert named == set(CHECKS)
    assert sum(len(re.findall(r"CHECK\s*\(", sql)) for sql in tables.values()) == len(CHECKS)


def test_a_column_takes_null_only_where_null_means_something(store: Connection) -> None:
    nullable = {"customer_id", "session_id", "last_message_at", "model_name"}
    nullable |= {"tool_calls", "tool_results", "sql_query", "sql_results", "chart_data"}
    for table in TABLES:
        for _, column, _, not_null, _, primary_key in rows(store, f"PRAGMA table_info({table})"):
            assert not_null or primary_key or column in nullable, (table, column)
            if not_null and column != "sequence":  # there NULL means "the next one"
                with pytest.raises(IntegrityError, match=f"^NOT NULL constraint failed: {table}.{column}$"):
                    store.execute(f"UPDATE {table} SET {column} = NULL")


MESSAGE = "INTO chat_messages (id, conversation_id, role, content) VALUES"
SUMMARY = "INSERT INTO conversation_summaries (conversation_id, title, summary) VALUES"
REFUSED = {
    "a message of no conversation": (f"INSERT {MESSAGE} (99, 99, 'user', '')", "FOREIGN KEY"),
    "a summary of no conversation": (f"{SUMMARY} (99, 'a', 'b')", "FOREIGN KEY"),
    "a second summary": (f"{SUMMARY} (1, 'a', 'b')", "UNIQUE"),
    "a taken number": ("UPDATE chat_messages SET sequence = 2 WHERE id = 1", "UNIQUE"),
    "a move onto a taken number": ("UPDATE chat_messages SET conversation_id = 2 WHERE id = 1", "UNIQUE"),
    "a new id": ("UPDATE chat_messages SET rowid = 99 WHERE id = 1", "id cannot be changed"),
    "another conversation's id": (f"REPLACE {MESSAGE} (1, 2, 'user', '')", "of another conversation"),
}


@pytest.mark.parametrize(("sql", "reason"), REFUSED.values(), ids=REFUSED)
def test_the_store_refuses(store: Connection, sql: str, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        store.execute(sql)


CUSTOMERS = "SELECT * FROM conversations WHERE customer_id = ?"
SESSIONS = "SELECT * FROM conversations WHERE session_id = ?"
ALL = "SELECT * FROM chat_messages WHERE conversation_id = ?"
ACTIVE = f"{ALL} AND is_active = 1"
LATEST = "ORDER BY last_message_at DESC, id DESC LIMIT 9"
QUERIES = [
    ("conversations_by_customer", f"{CUSTOMERS} ORDER BY last_message_at DESC"),
    ("conversations_by_customer", f"{CUSTOMERS} AND status = 'active' {LATEST}"),
    ("conversations_by_session", SESSIONS),
    ("conversations_by_session", f"{SESSIONS} {LATEST}"),
    ("chat_messages_active", f"{ACTIVE} ORDER BY sequence DESC LIMIT 9"),
    ("chat_messages_active", f"{ACTIVE} AND sequence < 500 ORDER BY sequence DESC LIMIT 9"),
    ("chat_messages_with_chart", f"{ACTIVE} AND chart_data IS NOT NULL ORDER BY sequence"),
    ("sqlite_autoindex_chat_messages_1", f"{ALL} ORDER BY sequence"),
    ("sqlite_autoindex_conversation_summaries_1", ALL.replace("chat_messages", "conversation_summaries")),
]


@pytest.mark.parametrize(("index", "sql"), QUERIES)
def test_a_natural_query_searches_its_index_and_never_sorts(db: Connection, index: str, sql: str) -> None:
    (step,) = (row[3] for row in rows(db, f"EXPLAIN QUERY PLAN {sql}", 1))  # sorting would be a second step
    assert re.match(rf"SEARCH .*\bINDEX {index} ", step), step


def test_counting_a_conversation_reads_the_index_alone(db: Connection) -> None:
    sql = ACTIVE.replace("*", "count(*), max(created_at)")
    assert "COVERING INDEX chat_messages_active" in rows(db, f"EXPLAIN QUERY PLAN {sql}", 1)[0][3]


def test_every_index_serves_one_of_these_queries(db: Connection) -> None:
    made = {row[1] for table in TABLES for row in rows(db, f"PRAGMA index_list({table})")}
    assert made == {index for index, _ in QUERIES}


def test_each_down_leaves_the_schema_of_the_version_before(db: Connection, db_at: DatabaseAt) -> None:
    complete = schema(db)
    for version, before in (("004", "003"), ("003", "002"), ("002", "001")):
        run(db, version, "down")
        assert schema(db) == schema(db_at(before)), version
    run(db, "001", "down")
    assert schema(db) == []
    for version in ("001", "002", "003", "004"):
        run(db, version, "up")
    assert schema(db) == complete


def test_rolling_002_back_keeps_every_other_row_and_resets_the_counters(store: Connection) -> None:
    run(store, "002", "down")
    assert counters(store, CUSTOMER) == counters(store, VISITOR) == (0, None)
    assert rows(store, "SELECT conversation_id FROM conversation_summaries") == [(CUSTOMER,)]
    run(store, "002", "up")
    say(store, CUSTOMER, 30)
    assert (counters(store, CUSTOMER), sequences(store, CUSTOMER)) == ((1, at(30)), [1])


def test_002_corrects_counters_that_were_written_before_it(db_at: DatabaseAt) -> None:
    db = db_at("001")
    claimed = insert(db, "conversations", customer_id="C", message_count=7, last_message_at=at(0))
    run(db, "002", "up")
    assert counters(db, claimed) == (0, None)


def test_charts_come_and_go_without_touching_other_columns(db_at: DatabaseAt) -> None:
    db = db_at("003")
    say(db, insert(db, "conversations", customer_id="C"), 1)
    before = rows(db, "SELECT * FROM chat_messages, conversations")
    run(db, "004", "up")
    assert rows(db, "SELECT chart_data FROM chat_messages") == [(None,)]
    run(db, "004", "down")
    assert rows(db, "SELECT * FROM chat_messages, conversations") == before
