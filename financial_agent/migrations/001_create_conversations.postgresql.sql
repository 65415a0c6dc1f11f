-- Conversations on PostgreSQL: one row for each thread of messages between a person and the advisor.
--
-- What the columns are for, and who the person is, stands in 001_create_conversations.sql. What is different here:
--
-- * Times are timestamptz with milliseconds: instants, whatever the client's time zone. The type refuses what is no time.
-- * JSON is jsonb, so the type refuses what is no JSON, and typeof() has no counterpart.
-- * NULL sorts before all times in DESC. So "most recent activity first, and what has none last" says NULLS LAST here.

-- migrate:up

CREATE TABLE IF NOT EXISTS conversations (
    -- ALWAYS, because an id that a client brings does not move the sequence on, which then gives that id once more. An
    -- import says OVERRIDING SYSTEM VALUE and sets the sequence, and an id cannot be changed afterwards
    -- (https://www.postgresql.org/docs/current/sql-createtable.html#SQL-CREATETABLE-PARMS-GENERATED-IDENTITY).
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

    customer_id text
        CONSTRAINT customer_id_is_not_blank CHECK (trim(customer_id) <> ''),

    session_id text
        CONSTRAINT session_id_is_not_blank CHECK (trim(session_id) <> ''),

    status text NOT NULL DEFAULT 'active'
        CONSTRAINT status_is_known CHECK (status IN ('active', 'archived', 'closed')),

    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT metadata_is_a_json_object CHECK (jsonb_typeof(metadata) = 'object'),

    message_count integer NOT NULL DEFAULT 0
        CONSTRAINT message_count_is_a_count CHECK (message_count >= 0),

    last_message_at timestamptz(3),

    -- The time of the statement, as on SQLite: now() is that of the transaction, which may have begun long before.
    created_at timestamptz(3) NOT NULL DEFAULT statement_timestamp(),

    updated_at timestamptz(3) NOT NULL DEFAULT statement_timestamp(),

    CONSTRAINT conversation_has_an_owner CHECK (customer_id IS NOT NULL OR session_id IS NOT NULL)
);

-- "The conversations of this customer, most recent activity first": ORDER BY last_message_at DESC NULLS LAST, id DESC.
CREATE INDEX IF NOT EXISTS conversations_by_customer
    ON conversations (customer_id, last_message_at DESC NULLS LAST, id DESC)
    WHERE customer_id IS NOT NULL;

-- "The conversation of this session", the latest when there are several.
CREATE INDEX IF NOT EXISTS conversations_by_session
    ON conversations (session_id, last_message_at DESC NULLS LAST, id DESC)
    WHERE session_id IS NOT NULL;

-- For every table with updated_at; the summaries of 003 use it, too.
CREATE OR REPLACE FUNCTION chat_set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := statement_timestamp();
    RETURN NEW;
END
$$;

-- Unless the client changed it itself: an import keeps its times.
CREATE OR REPLACE TRIGGER conversations_set_updated_at
BEFORE UPDATE ON conversations
FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at)
EXECUTE FUNCTION chat_set_updated_at();

-- migrate:down

-- The table takes its indexes and its trigger with it.
DROP TABLE IF EXISTS conversations;
DROP FUNCTION IF EXISTS chat_set_updated_at();
