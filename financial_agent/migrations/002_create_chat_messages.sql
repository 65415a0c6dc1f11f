-- Chat messages: what was said in a conversation, and what the advisor did to say it (tools, SQL).
--
-- Deleting is soft: is_active = 0 takes a message out of what is shown, counted and sent to the model, and
-- keeps it for the record until the conversation itself is deleted.
--
-- The triggers below keep message_count and last_message_at of conversations right whatever is written. The
-- rule stands once, in conversations_recount; every other trigger only names the conversation that has to be
-- counted again. It counts anew, and never adds or subtracts one, because REPLACE deletes rows without firing
-- their delete triggers (https://sqlite.org/lang_conflict.html). Counting reads one index: some 0.1 ms for a
-- conversation of a thousand messages.

-- migrate:up

CREATE TABLE IF NOT EXISTS chat_messages (
    -- AUTOINCREMENT, so that the record never shows two messages under one number. Positive, because in a
    -- BEFORE INSERT trigger an id that the client left out reads as -1 (see chat_messages_refuse_taken_id).
    id INTEGER PRIMARY KEY AUTOINCREMENT
        CONSTRAINT id_is_positive CHECK (id > 0),

    -- A message has no meaning outside its conversation, so it goes with it.
    conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,

    -- The order within the conversation; times can tie or be corrected, so they do not decide it. Left out,
    -- NULL or 0 means "the next one": NULL becomes the default (https://sqlite.org/lang_conflict.html) and
    -- the triggers turn 0 into the highest number plus 1 before the statement ends. RETURNING still shows 0
    -- (https://sqlite.org/lang_returning.html#limitations_and_caveats). Soft delete keeps the number.
    sequence INTEGER NOT NULL ON CONFLICT REPLACE DEFAULT 0
        CONSTRAINT sequence_is_a_number CHECK (typeof(sequence) = 'integer' AND sequence >= 0),

    -- The four roles that models tell apart.
    role TEXT NOT NULL
        CONSTRAINT role_is_known CHECK (role IN ('system', 'user', 'assistant', 'tool')),

    -- Soft delete. This and created_at stand before the long columns, so that reading them does not walk
    -- through overflow pages (https://sqlite.org/fileformat2.html#ovflpgs).
    is_active INTEGER NOT NULL DEFAULT 1
        CONSTRAINT is_active_is_0_or_1 CHECK (is_active IN (0, 1)),

    -- When it was said; the newest active one is the conversation's last_message_at.
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CONSTRAINT created_at_is_utc CHECK (created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),

    -- Never NULL, so that texts can be joined; '' when an assistant only calls tools.
    content TEXT NOT NULL
        CONSTRAINT content_is_text CHECK (typeof(content) = 'text'),

    -- Which tools the assistant asked for, with their arguments, as the model gave them.
    tool_calls TEXT
        CONSTRAINT tool_calls_is_json
        CHECK (tool_calls IS NULL OR (typeof(tool_calls) = 'text' AND json_valid(tool_calls))),

    -- What the calculations gave, so that a figure in the advice can be traced.
    tool_results TEXT
        CONSTRAINT tool_results_is_json
        CHECK (tool_results IS NULL OR (typeof(tool_results) = 'text' AND json_valid(tool_results))),

    -- The query as it was run, so that an answer can be checked against the data later.
    sql_query TEXT
        CONSTRAINT sql_query_is_text CHECK (typeof(sql_query) IN ('text', 'null')),

    -- The rows as they were at that time: running the query again may give others.
    sql_results TEXT
        CONSTRAINT sql_results_is_json
        CHECK (sql_results IS NULL OR (typeof(sql_results) = 'text' AND json_valid(sql_results))),

    -- No two messages in one place. Its index also serves the cascade and the history with deleted messages.
    CONSTRAINT sequence_is_unique UNIQUE (conversation_id, sequence)
);

-- "The last N active messages of a conversation": found and ordered by this index. Not a partial index, so
-- that is_active = ? with a bound value finds it as well as is_active = 1
-- (https://sqlite.org/partialindex.html#queries_using_partial_indexes). created_at is in it so that counting
-- a conversation reads nothing else.
CREATE INDEX IF NOT EXISTS chat_messages_active
    ON chat_messages (conversation_id, is_active, sequence, created_at);

-- The rule for the counters. It runs whenever somebody writes them, so a wrong value from a client does not
-- stay either. The WHERE ends the recursion under PRAGMA recursive_triggers=ON: what is right is left alone.
CREATE TRIGGER IF NOT EXISTS conversations_recount
AFTER UPDATE OF message_count, last_message_at ON conversations
BEGIN
    UPDATE conversations
    SET message_count = counted.messages, last_message_at = counted.newest
    FROM (
        SELECT count(*) AS messages, max(created_at) AS newest
        FROM chat_messages
        WHERE conversation_id = NEW.id AND is_active = 1
    ) AS counted
    WHERE conversations.id = NEW.id
        AND (conversations.message_count, conversations.last_message_at)
            IS NOT (counted.messages, counted.newest);
END;

-- A new conversation that claims counters, or (with foreign keys off) replaces one that has messages.
CREATE TRIGGER IF NOT EXISTS conversations_recount_inserted
AFTER INSERT ON conversations
WHEN NEW.message_count <> 0
    OR NEW.last_message_at IS NOT NULL
    OR EXISTS (SELECT 1 FROM chat_messages WHERE conversation_id = NEW.id)
BEGIN
    UPDATE conversations SET message_count = message_count WHERE id = NEW.id;
END;

-- Gives the next number. This update of sequence fires chat_messages_count_updated, which does the counting.
CREATE TRIGGER IF NOT EXISTS chat_messages_number_inserted
AFTER INSERT ON chat_messages
WHEN NEW.sequence = 0
BEGIN
    UPDATE chat_messages
    SET sequence = 1 + (SELECT max(sequence) FROM chat_messages WHERE conversation_id = NEW.conversation_id)
    WHERE id = NEW.id;
END;

-- The same when a message is moved: SET conversation_id = …, sequence = NULL puts it at the other one's end.
CREATE TRIGGER IF NOT EXISTS chat_messages_number_updated
AFTER UPDATE OF sequence ON chat_messages
WHEN NEW.sequence = 0
BEGIN
    UPDATE chat_messages
    SET sequence = 1 + (SELECT max(sequence) FROM chat_messages WHERE conversation_id = NEW.conversation_id)
    WHERE id = NEW.id;
END;

-- Only messages that bring their number: the others are counted when they get it.
CREATE TRIGGER IF NOT EXISTS chat_messages_count_inserted
AFTER INSERT ON chat_messages
WHEN NEW.sequence > 0
BEGIN
    UPDATE conversations SET message_count = message_count WHERE id = NEW.conversation_id;
END;

-- Both conversations, for a message can move. sequence is listed because UPDATE OR REPLACE can delete the
-- message that had the number; the WHEN keeps an update that changes nothing from touching updated_at.
CREATE TRIGGER IF NOT EXISTS chat_messages_count_updated
AFTER UPDATE OF conversation_id, sequence, is_active, created_at ON chat_messages
WHEN (OLD.conversation_id, OLD.sequence, OLD.is_active, OLD.created_at)
    IS NOT (NEW.conversation_id, NEW.sequence, NEW.is_active, NEW.created_at)
BEGIN
    UPDATE conversations
    SET message_count = message_count
    WHERE id IN (OLD.conversation_id, NEW.conversation_id);
END;

-- Finds no row, which is harmless, when the conversation itself is being deleted: that goes first.
CREATE TRIGGER IF NOT EXISTS chat_messages_count_deleted
AFTER DELETE ON chat_messages
BEGIN
    UPDATE conversations SET message_count = message_count WHERE id = OLD.conversation_id;
END;

-- REPLACE with the id of another conversation's message would delete that message unseen by any trigger.
CREATE TRIGGER IF NOT EXISTS chat_messages_refuse_taken_id
BEFORE INSERT ON chat_messages
WHEN EXISTS (SELECT 1 FROM chat_messages WHERE id = NEW.id AND conversation_id IS NOT NEW.conversation_id)
BEGIN
    SELECT RAISE(ABORT, 'chat_messages.id belongs to a message of another conversation');
END;

-- The same for UPDATE OR REPLACE. Not "UPDATE OF id": that list goes by name and would miss SET rowid = ….
CREATE TRIGGER IF NOT EXISTS chat_messages_refuse_new_id
BEFORE UPDATE ON chat_messages
WHEN NEW.id IS NOT OLD.id
BEGIN
    SELECT RAISE(ABORT, 'chat_messages.id cannot be changed');
END;

-- Before this migration nothing kept the counters, so whatever a client wrote there is made true now.
UPDATE conversations
SET message_count = 0, last_message_at = NULL
WHERE message_count <> 0 OR last_message_at IS NOT NULL;

-- migrate:down

-- These stand on conversations, so DROP TABLE chat_messages would leave them behind, and no conversation
-- could be added any more for want of the table that they read.
DROP TRIGGER IF EXISTS conversations_recount;
DROP TRIGGER IF EXISTS conversations_recount_inserted;

-- Takes its index and its own triggers with it. Nothing refers to it, so nothing cascades.
DROP TABLE IF EXISTS chat_messages;

-- DROP TABLE fires no triggers (https://sqlite.org/foreignkeys.html#fk_schemacommands), so the counters are
-- reset here: no messages are left.
UPDATE conversations
SET message_count = 0, last_message_at = NULL
WHERE message_count <> 0 OR last_message_at IS NOT NULL;
