-- Chat messages on MariaDB and MySQL: what was said in a conversation, and what the advisor did to say it (tools, SQL).
--
-- What the columns are for stands in 002_create_chat_messages.sql, and so does the rule: conversations_recount alone
-- counts; every other trigger only names the conversation that has to be counted again. What is different here:
--
-- * Others write at the same time. Whoever numbers or counts has locked the conversation before, and counts under LOCK IN
--   SHARE MODE, which finds what others committed until then. A plain SELECT would find what there was when the
--   transaction began (https://dev.mysql.com/doc/refman/8.4/en/innodb-locking-reads.html).
-- * The conversation knows the highest number that it gave: looking for the highest in the index would lock the gap
--   behind it, and two conversations that begin at one moment share that gap, and would deadlock
--   (https://dev.mysql.com/doc/refman/8.4/en/innodb-locking.html#innodb-gap-locks). So the number of a last message that
--   is deleted, and not just made inactive, is not given again.
-- * A trigger cannot write to a table that its statement names. So no statement can fill chat_messages from a SELECT of
--   conversations (https://dev.mysql.com/doc/refman/8.4/en/stored-program-restrictions.html).
-- * TRUNCATE fires no trigger: delete with DELETE.

-- migrate:up

-- Invisible, so that SELECT * is what it is on the other engines; the triggers below keep it.
ALTER TABLE conversations ADD COLUMN last_sequence INT NOT NULL DEFAULT 0 INVISIBLE;

CREATE TABLE IF NOT EXISTS chat_messages (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,

    conversation_id BIGINT UNSIGNED NOT NULL,

    -- Left out, NULL or 0 means "the next one".
    sequence INT NOT NULL DEFAULT 0,

    role VARCHAR(16) NOT NULL,

    is_active TINYINT NOT NULL DEFAULT 1,

    created_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),

    -- LONGTEXT, because TEXT ends at 64 KiB.
    content LONGTEXT NOT NULL,

    tool_calls JSON,

    tool_results JSON,

    sql_query LONGTEXT,

    sql_results JSON,

    CONSTRAINT sequence_is_a_number CHECK (sequence >= 0),
    CONSTRAINT role_is_known CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    CONSTRAINT is_active_is_0_or_1 CHECK (is_active IN (0, 1)),

    -- Its index also serves the foreign key and the history with deleted messages.
    CONSTRAINT sequence_is_unique UNIQUE (conversation_id, sequence),

    CONSTRAINT message_has_a_conversation FOREIGN KEY (conversation_id) REFERENCES conversations (id) ON DELETE CASCADE,

    -- "The last N active messages of a conversation", and counting one without reading its messages.
    INDEX chat_messages_active (conversation_id, is_active, sequence, created_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The rule for the counters. It runs whenever somebody changes them, so a wrong value from a client does not stay either.
CREATE TRIGGER IF NOT EXISTS conversations_recount
BEFORE UPDATE ON conversations
FOR EACH ROW
BEGIN
    DECLARE messages INT;
    DECLARE newest DATETIME(3);
    IF NOT (NEW.message_count <=> OLD.message_count AND NEW.last_message_at <=> OLD.last_message_at) THEN
        SELECT COUNT(*), MAX(created_at) INTO messages, newest
        FROM chat_messages
        WHERE conversation_id = NEW.id AND is_active = 1
        LOCK IN SHARE MODE;
        SET NEW.message_count = messages, NEW.last_message_at = newest;
    END IF;
END;

-- A new conversation has no messages, whatever it claims: REPLACE takes those along that the one before it had. Only with
-- foreign keys off, as when a dump is loaded, can messages be there first. The rule stands here once more, because dumps
-- leave out a procedure for both, unless they are made with --routines.
CREATE TRIGGER IF NOT EXISTS conversations_recount_inserted
BEFORE INSERT ON conversations
FOR EACH ROW
BEGIN
    DECLARE messages INT DEFAULT 0;
    DECLARE highest INT DEFAULT 0;
    DECLARE newest DATETIME(3);
    IF NOT @@foreign_key_checks THEN
        SELECT COALESCE(SUM(is_active), 0), COALESCE(MAX(sequence), 0), MAX(IF(is_active = 1, created_at, NULL))
        INTO messages, highest, newest
        FROM chat_messages
        WHERE conversation_id = NEW.id
        LOCK IN SHARE MODE;
    END IF;
    SET NEW.message_count = messages, NEW.last_sequence = highest, NEW.last_message_at = newest;
END;

-- Gives the next number. This locks the conversation before InnoDB looks for it on behalf of the foreign key: that would
-- be a shared lock, and two writers that hold one cannot both go on to count.
CREATE TRIGGER IF NOT EXISTS chat_messages_number_inserted
BEFORE INSERT ON chat_messages
FOR EACH ROW
BEGIN
    IF EXISTS (SELECT 1 FROM chat_messages WHERE id = NEW.id AND conversation_id <> NEW.conversation_id) THEN
        -- Only REPLACE would go on from here, and delete that message.
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'chat_messages.id belongs to a message of another conversation';
    END IF;
    UPDATE conversations
    SET last_sequence = IF(COALESCE(NEW.sequence, 0) = 0, last_sequence + 1, GREATEST(last_sequence, NEW.sequence))
    WHERE id = NEW.conversation_id;
    IF COALESCE(NEW.sequence, 0) = 0 THEN
        -- Without such a conversation the foreign key shall say so, and not the NULL.
        SET NEW.sequence = COALESCE((SELECT last_sequence FROM conversations WHERE id = NEW.conversation_id), 0);
    END IF;
END;

-- The same when a message is moved: SET conversation_id = …, sequence = 0 puts it at the other one's end.
CREATE TRIGGER IF NOT EXISTS chat_messages_number_updated
BEFORE UPDATE ON chat_messages
FOR EACH ROW
BEGIN
    IF NEW.id <> OLD.id THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'chat_messages.id cannot be changed';
    END IF;
    IF NOT (NEW.conversation_id = OLD.conversation_id AND NEW.sequence <=> OLD.sequence) THEN
        UPDATE conversations
        SET last_sequence = IF(COALESCE(NEW.sequence, 0) = 0, last_sequence + 1, GREATEST(last_sequence, NEW.sequence))
        WHERE id = NEW.conversation_id;
        IF COALESCE(NEW.sequence, 0) = 0 THEN
            SET NEW.sequence = COALESCE((SELECT last_sequence FROM conversations WHERE id = NEW.conversation_id), 0);
        END IF;
    END IF;
END;

-- One more is only how these say that something changed: conversations_recount puts the true number there.
CREATE TRIGGER IF NOT EXISTS chat_messages_count_inserted
AFTER INSERT ON chat_messages
FOR EACH ROW
UPDATE conversations SET message_count = message_count + 1 WHERE id = NEW.conversation_id;

-- Both conversations, for a message can move; the condition keeps an update that changes nothing from touching them.
CREATE TRIGGER IF NOT EXISTS chat_messages_count_updated
AFTER UPDATE ON chat_messages
FOR EACH ROW
UPDATE conversations
SET message_count = message_count + 1
WHERE id IN (OLD.conversation_id, NEW.conversation_id)
    AND (OLD.conversation_id, OLD.sequence, OLD.is_active, OLD.created_at)
        <> (NEW.conversation_id, NEW.sequence, NEW.is_active, NEW.created_at);

-- REPLACE fires it, too. The cascade from a conversation does not, which is harmless: its counters go with it.
CREATE TRIGGER IF NOT EXISTS chat_messages_count_deleted
AFTER DELETE ON chat_messages
FOR EACH ROW
UPDATE conversations SET message_count = message_count + 1 WHERE id = OLD.conversation_id;

-- Before this migration nothing kept the counters, so whatever a client wrote there is made true now.
UPDATE conversations
SET message_count = 0, last_message_at = NULL
WHERE message_count <> 0 OR last_message_at IS NOT NULL;

-- migrate:down

-- These stand on conversations, and would look for a table that is gone.
DROP TRIGGER IF EXISTS conversations_recount;
DROP TRIGGER IF EXISTS conversations_recount_inserted;

-- Takes its indexes and its own triggers with it. Nothing refers to it, so nothing cascades.
DROP TABLE IF EXISTS chat_messages;

ALTER TABLE conversations DROP COLUMN last_sequence;

-- No messages are left, and no trigger that says so.
UPDATE conversations
SET message_count = 0, last_message_at = NULL
WHERE message_count <> 0 OR last_message_at IS NOT NULL;
