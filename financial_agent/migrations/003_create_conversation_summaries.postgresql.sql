-- Conversation summaries on PostgreSQL: a title and a summary that a model writes about a conversation.
--
-- What the columns are for, and why this is a table of its own, stands in 003_create_conversation_summaries.sql; what is
-- different on PostgreSQL, in 001_create_conversations.postgresql.sql.

-- migrate:up

CREATE TABLE IF NOT EXISTS conversation_summaries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

    -- Write with INSERT … ON CONFLICT (conversation_id) DO UPDATE.
    conversation_id bigint NOT NULL
        CONSTRAINT conversation_has_one_summary UNIQUE
        REFERENCES conversations (id) ON DELETE CASCADE,

    title text NOT NULL
        CONSTRAINT title_is_short CHECK (trim(title) <> '' AND char_length(title) <= 120),

    summary text NOT NULL
        CONSTRAINT summary_is_not_blank CHECK (trim(summary) <> ''),

    quality_metrics jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT quality_metrics_is_a_json_object CHECK (jsonb_typeof(quality_metrics) = 'object'),

    model_name text
        CONSTRAINT model_name_is_not_blank CHECK (trim(model_name) <> ''),

    created_at timestamptz(3) NOT NULL DEFAULT statement_timestamp(),

    updated_at timestamptz(3) NOT NULL DEFAULT statement_timestamp()
);

-- The function is that of 001.
CREATE OR REPLACE TRIGGER conversation_summaries_set_updated_at
BEFORE UPDATE ON conversation_summaries
FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at)
EXECUTE FUNCTION chat_set_updated_at();

-- migrate:down

-- The table takes its trigger with it. Nothing refers to it, so nothing cascades.
DROP TABLE IF EXISTS conversation_summaries;
