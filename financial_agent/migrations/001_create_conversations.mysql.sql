-- Conversations on MariaDB and MySQL: one row for each thread of messages between a person and the advisor.
--
-- What the columns are for, and who the person is, stands in 001_create_conversations.sql. What is different here:
--
-- * Times are DATETIME(3) in UTC, written without a zone: 2025-03-01 09:00:00.000. Not TIMESTAMP, which ends in 2038 on
--   most of these servers, and is read in whatever zone the connection has.
-- * The collation is binary, so that C-1 and c-1 are two customers, as on the other engines. Spaces at the end count
--   nothing in it: no collation that both servers have does better.
-- * Keys are VARCHAR(255), because an index takes no TEXT of any length.
-- * MariaDB knows no name at a column's own CHECK, so the checks stand behind the columns.
-- * There are no partial indexes.

-- migrate:up

CREATE TABLE IF NOT EXISTS conversations (
    -- The number of a deleted last row is not given again: MariaDB from 10.2.4 and MySQL from 8.0 keep the counter
    -- through a restart (https://dev.mysql.com/doc/refman/8.4/en/innodb-auto-increment-handling.html).
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,

    customer_id VARCHAR(255),

    session_id VARCHAR(255),

    status VARCHAR(16) NOT NULL DEFAULT 'active',

    metadata JSON NOT NULL DEFAULT (JSON_OBJECT()),

    message_count INT NOT NULL DEFAULT 0,

    last_message_at DATETIME(3),

    created_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),

    updated_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),

    CONSTRAINT customer_id_is_not_blank CHECK (TRIM(customer_id) <> ''),
    CONSTRAINT session_id_is_not_blank CHECK (TRIM(session_id) <> ''),
    CONSTRAINT status_is_known CHECK (status IN ('active', 'archived', 'closed')),
    CONSTRAINT metadata_is_a_json_object CHECK (JSON_TYPE(metadata) = 'OBJECT'),
    CONSTRAINT message_count_is_a_count CHECK (message_count >= 0),
    CONSTRAINT conversation_has_an_owner CHECK (customer_id IS NOT NULL OR session_id IS NOT NULL),

    -- "The conversations of this customer, most recent activity first", and "the conversation of this session". InnoDB
    -- adds the id to each index, so read backwards they give last_message_at DESC, id DESC without sorting.
    INDEX conversations_by_customer (customer_id, last_message_at),
    INDEX conversations_by_session (session_id, last_message_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Unless the client changed it itself: an import keeps its times.
CREATE TRIGGER IF NOT EXISTS conversations_set_updated_at
BEFORE UPDATE ON conversations
FOR EACH ROW
SET NEW.updated_at = IF(NEW.updated_at = OLD.updated_at, UTC_TIMESTAMP(3), NEW.updated_at);

-- migrate:down

-- The table takes its indexes and its trigger with it.
DROP TABLE IF EXISTS conversations;
