-- Conversation summaries on MariaDB and MySQL: a title and a summary that a model writes about a conversation.
--
-- What the columns are for, and why this is a table of its own, stands in 003_create_conversation_summaries.sql; what is
-- different on these servers, in 001_create_conversations.mysql.sql.

-- migrate:up

CREATE TABLE IF NOT EXISTS conversation_summaries (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,

    -- Write with INSERT … ON DUPLICATE KEY UPDATE: REPLACE would lose created_at.
    conversation_id BIGINT UNSIGNED NOT NULL,

    title VARCHAR(255) NOT NULL,

    summary LONGTEXT NOT NULL,

    quality_metrics JSON NOT NULL DEFAULT (JSON_OBJECT()),

    model_name VARCHAR(255),

    created_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),

    updated_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),

    CONSTRAINT title_is_short CHECK (TRIM(title) <> '' AND CHAR_LENGTH(title) <= 120),
    CONSTRAINT summary_is_not_blank CHECK (TRIM(summary) <> ''),
    CONSTRAINT quality_metrics_is_a_json_object CHECK (JSON_TYPE(quality_metrics) = 'OBJECT'),
    CONSTRAINT model_name_is_not_blank CHECK (TRIM(model_name) <> ''),

    CONSTRAINT conversation_has_one_summary UNIQUE (conversation_id),

    CONSTRAINT summary_has_a_conversation FOREIGN KEY (conversation_id) REFERENCES conversations (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- As conversations_set_updated_at in 001.
CREATE TRIGGER IF NOT EXISTS conversation_summaries_set_updated_at
BEFORE UPDATE ON conversation_summaries
FOR EACH ROW
SET NEW.updated_at = IF(NEW.updated_at = OLD.updated_at, UTC_TIMESTAMP(3), NEW.updated_at);

-- migrate:down

-- The table takes its trigger with it. Nothing refers to it, so nothing cascades.
DROP TABLE IF EXISTS conversation_summaries;
