-- Conversations: one row for each thread of messages between a person and the advisor.
--
-- The person is a customer whom the business knows (customer_id), or a new user whom only the session tells
-- apart (session_id). A new user who becomes a customer keeps the conversation: customer_id is filled in.
--
-- What holds in this and the following files:
--
-- * Times are UTC text with milliseconds, such as 2025-03-01T09:00:00.000Z. No other spelling is accepted:
--   text sorts by time only when all of it is spelled alike ("10:00:00.500Z" sorts before "10:00:00Z").
-- * JSON is kept in TEXT columns. One declared JSON would have NUMERIC affinity and turn '1.0' into 1:
--   https://sqlite.org/datatype3.html#determination_of_column_affinity
-- * typeof() stands beside json_valid() because TEXT affinity leaves a BLOB as it is, and json_valid()
--   accepts one whose bytes happen to spell JSON, which a client would then read as bytes:
--   https://sqlite.org/json1.html#jvalid
-- * A CHECK that comes out as NULL passes, so columns are NOT NULL and comparisons use IS where NULL
--   could slip through: https://sqlite.org/lang_createtable.html#ckconst
-- * Constraints have names, because the name is what the error message shows.
--
-- STRICT tables would state some of this more shortly, but need SQLite 3.37; these files run on 3.35.

-- migrate:up

CREATE TABLE IF NOT EXISTS conversations (
    -- AUTOINCREMENT, so that an old link never opens somebody else's conversation: without it SQLite gives
    -- the number of a deleted last row again (https://sqlite.org/autoinc.html).
    id INTEGER PRIMARY KEY AUTOINCREMENT,

    -- The business's own key, so TEXT without a foreign key: customers live in another system.
    customer_id TEXT
        CONSTRAINT customer_id_is_not_blank
        CHECK (customer_id IS NULL OR (typeof(customer_id) = 'text' AND trim(customer_id) <> '')),

    -- All that is known of a new user; NULL when a customer's conversation needs no session.
    session_id TEXT
        CONSTRAINT session_id_is_not_blank
        CHECK (session_id IS NULL OR (typeof(session_id) = 'text' AND trim(session_id) <> '')),

    -- archived: out of the way, may go on. closed: finished. Neither deletes anything.
    status TEXT NOT NULL DEFAULT 'active'
        CONSTRAINT status_is_known CHECK (status IN ('active', 'archived', 'closed')),

    -- What has no column of its own yet (channel, language, …). An object, so that json_patch() and
    -- json_extract() need no special cases. CASE, because json_type() fails on text that is not JSON.
    metadata TEXT NOT NULL DEFAULT '{}'
        CONSTRAINT metadata_is_a_json_object
        CHECK (
            CASE WHEN typeof(metadata) = 'text' AND json_valid(metadata)
                THEN json_type(metadata) = 'object' ELSE 0 END
        ),

    -- Active messages only: what a reader would count on the screen. Stored, so that a list of conversations
    -- does not count messages. The triggers of 002 keep it right; clients need never write it.
    message_count INTEGER NOT NULL DEFAULT 0
        CONSTRAINT message_count_is_a_count CHECK (typeof(message_count) = 'integer' AND message_count >= 0),

    -- Last activity: the newest created_at of the active messages, NULL while there is none (such
    -- conversations come last in "most recent activity first"). Kept by the triggers of 002 as well.
    last_message_at TEXT
        CONSTRAINT last_message_at_is_utc
        CHECK (last_message_at IS strftime('%Y-%m-%dT%H:%M:%fZ', last_message_at)),

    -- Apart from last_message_at: a conversation exists before its first message.
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CONSTRAINT created_at_is_utc CHECK (created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),

    -- Any change of this row, the counters included, so that a cache can ask what is new.
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CONSTRAINT updated_at_is_utc CHECK (updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at)),

    -- A conversation that nobody could find again is a mistake.
    CONSTRAINT conversation_has_an_owner CHECK (customer_id IS NOT NULL OR session_id IS NOT NULL)
);

-- "The conversations of this customer, most recent activity first". Partial, because new users have no
-- customer_id. Ascending on purpose: read backwards it gives last_message_at DESC, id DESC without sorting.
CREATE INDEX IF NOT EXISTS conversations_by_customer
    ON conversations (customer_id, last_message_at)
    WHERE customer_id IS NOT NULL;

-- "The conversation of this session", the latest when there are several. Partial for the same reason.
CREATE INDEX IF NOT EXISTS conversations_by_session
    ON conversations (session_id, last_message_at)
    WHERE session_id IS NOT NULL;

-- Sets updated_at unless the client changed it itself (an import keeps its times). The WHERE ends the
-- recursion under PRAGMA recursive_triggers=ON: 'now' is the same during one statement, so the WHEN alone
-- would find old and new equal for ever (https://sqlite.org/lang_datefunc.html).
CREATE TRIGGER IF NOT EXISTS conversations_set_updated_at
AFTER UPDATE ON conversations
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE conversations
    SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    WHERE id = NEW.id AND updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%fZ', 'now');
END;

-- migrate:down

-- The table takes its indexes and its trigger with it.
DROP TABLE IF EXISTS conversations;
