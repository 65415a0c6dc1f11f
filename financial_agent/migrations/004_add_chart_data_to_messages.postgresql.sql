-- Chart data on PostgreSQL: the configuration of a chart that belongs to a message, so that it is drawn again as it was.
--
-- Adding the column rewrites no rows, and neither does dropping it. Both need a moment in which nobody reads or writes
-- the table; making the index reads it once, while others can read but not write.

-- migrate:up

-- NULL means that there is none.
ALTER TABLE chat_messages ADD COLUMN IF NOT EXISTS chart_data jsonb;

-- "The charts of a conversation": few messages have one, and without this each of them would be read to see.
CREATE INDEX IF NOT EXISTS chat_messages_with_chart
    ON chat_messages (conversation_id, is_active, sequence)
    WHERE chart_data IS NOT NULL;

-- migrate:down

DROP INDEX IF EXISTS chat_messages_with_chart;
ALTER TABLE chat_messages DROP COLUMN IF EXISTS chart_data;
