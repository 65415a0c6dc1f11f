-- Chat messages on PostgreSQL: what was said in a conversation, and what the advisor did to say it (tools, SQL).
--
-- What the columns are for stands in 002_create_chat_messages.sql, and so does the rule: conversations_recount alone
-- counts; every other trigger only names the conversations that have to be counted again. What is different here:
--
-- * Others write at the same time. Whoever numbers or counts has locked the conversation before, and a statement in a
--   plpgsql function sees what was committed until then, so that concurrent writers get numbers and counts one after the
--   other (https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED). Under REPEATABLE READ and
--   SERIALIZABLE the later one gets a serialization failure, and tries again.
-- * A number that is left out is given before the row is written, so RETURNING shows it.
-- * Functions keep the search_path of this migration: a client that writes chat.chat_messages, or loads a dump of the
--   data, may have another one.
-- * There is no REPLACE that deletes unseen, and the identity refuses new ids by itself.

-- migrate:up

CREATE TABLE IF NOT EXISTS chat_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

    conversation_id bigint NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,

    -- Left out, NULL or 0 means "the next one".
    sequence integer NOT NULL DEFAULT 0
        CONSTRAINT sequence_is_a_number CHECK (sequence >= 0),

    role text NOT NULL
        CONSTRAINT role_is_known CHECK (role IN ('system', 'user', 'assistant', 'tool')),

    -- 0 or 1 and no boolean, so that one query is right on every engine.
    is_active smallint NOT NULL DEFAULT 1
        CONSTRAINT is_active_is_0_or_1 CHECK (is_active IN (0, 1)),

    created_at timestamptz(3) NOT NULL DEFAULT statement_timestamp(),

    content text NOT NULL,

    tool_calls jsonb,

    tool_results jsonb,

    sql_query text,

    sql_results jsonb,

    -- Its index also serves the cascade and the history with deleted messages.
    CONSTRAINT sequence_is_unique UNIQUE (conversation_id, sequence)
);

-- "The last N active messages of a conversation", and counting one without reading its messages.
CREATE INDEX IF NOT EXISTS chat_messages_active
    ON chat_messages (conversation_id, is_active, sequence) INCLUDE (created_at);

-- The rule for the counters. It runs whenever somebody writes them, so a wrong value from a client does not stay
-- either. The row of the conversation is locked by then.
CREATE OR REPLACE FUNCTION conversations_recount() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    SELECT count(*), max(created_at) INTO NEW.message_count, NEW.last_message_at
    FROM chat_messages
    WHERE conversation_id = NEW.id AND is_active = 1;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER conversations_recount
BEFORE INSERT OR UPDATE OF message_count, last_message_at ON conversations
FOR EACH ROW EXECUTE FUNCTION conversations_recount();

-- Gives the next number, also when a message is moved: SET conversation_id = …, sequence = NULL puts it at the other
-- one's end. FOR NO KEY UPDATE is what the counting will need, and lets others insert what refers to the conversation.
CREATE OR REPLACE FUNCTION chat_messages_number() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM conversations WHERE id = NEW.conversation_id FOR NO KEY UPDATE;
    SELECT coalesce(max(sequence), 0) + 1 INTO NEW.sequence
    FROM chat_messages
    WHERE conversation_id = NEW.conversation_id AND id <> NEW.id;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER chat_messages_number
BEFORE INSERT OR UPDATE ON chat_messages
FOR EACH ROW WHEN (coalesce(NEW.sequence, 0) = 0)
EXECUTE FUNCTION chat_messages_number();

-- Once for a statement, however many messages it writes: an import of a thousand counts once.
CREATE OR REPLACE FUNCTION chat_messages_count() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE conversations
    SET message_count = message_count
    WHERE id IN (SELECT conversation_id FROM written);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER chat_messages_count_inserted
AFTER INSERT ON chat_messages REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION chat_messages_count();

-- Finds no row, which is harmless, when the conversation itself is being deleted: that goes first.
CREATE OR REPLACE TRIGGER chat_messages_count_deleted
AFTER DELETE ON chat_messages REFERENCING OLD TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION chat_messages_count();

-- Both conversations, for a message can move; and none for an update that changes nothing that counts.
CREATE OR REPLACE FUNCTION chat_messages_count_updated() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE conversations
    SET message_count = message_count
    WHERE id IN (
        SELECT unnest(ARRAY[before.conversation_id, after.conversation_id])
        FROM before FULL JOIN after USING (id)
        WHERE (before.conversation_id, before.sequence, before.is_active, before.created_at)
            IS DISTINCT FROM (after.conversation_id, after.sequence, after.is_active, after.created_at)
    );
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER chat_messages_count_updated
AFTER UPDATE ON chat_messages REFERENCING OLD TABLE AS before NEW TABLE AS after
FOR EACH STATEMENT EXECUTE FUNCTION chat_messages_count_updated();

-- TRUNCATE fires no other trigger.
CREATE OR REPLACE FUNCTION chat_messages_count_truncated() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE conversations SET message_count = message_count WHERE message_count <> 0;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER chat_messages_count_truncated
AFTER TRUNCATE ON chat_messages
FOR EACH STATEMENT EXECUTE FUNCTION chat_messages_count_truncated();

-- Before this migration nothing kept the counters, so whatever a client wrote there is made true now.
UPDATE conversations
SET message_count = 0, last_message_at = NULL
WHERE message_count <> 0 OR last_message_at IS NOT NULL;

-- migrate:down

-- This stands on conversations, and would look for a table that is gone.
DROP TRIGGER IF EXISTS conversations_recount ON conversations;
DROP FUNCTION IF EXISTS conversations_recount();

-- Takes its index and its triggers with it, but not their functions. Nothing refers to it, so nothing cascades.
DROP TABLE IF EXISTS chat_messages;
DROP FUNCTION IF EXISTS chat_messages_number();
DROP FUNCTION IF EXISTS chat_messages_count();
DROP FUNCTION IF EXISTS chat_messages_count_updated();
DROP FUNCTION IF EXISTS chat_messages_count_truncated();

-- No messages are left, and no trigger that says so.
UPDATE conversations
SET message_count = 0, last_message_at = NULL
WHERE message_count <> 0 OR last_message_at IS NOT NULL;
