-- Chart data: the configuration of a chart that belongs to a message, so that it is drawn again as it was.
--
-- ALTER TABLE has no IF NOT EXISTS for columns: running this file twice is an error, and the ledger is what
-- prevents it. Adding a column rewrites no rows; dropping it rewrites them all and needs SQLite 3.35.

-- migrate:up

-- On the message and not in a table of its own: a message has at most one chart, and both are read
-- together. NULL means that there is none. The check is a column constraint, because a table constraint
-- would block the drop.
ALTER TABLE chat_messages ADD COLUMN chart_data TEXT
    CONSTRAINT chart_data_is_json
    CHECK (chart_data IS NULL OR (typeof(chart_data) = 'text' AND json_valid(chart_data)));

-- "The charts of a conversation": few messages have one, and without this each of them would be read to see.
CREATE INDEX IF NOT EXISTS chat_messages_with_chart
    ON chat_messages (conversation_id, is_active, sequence)
    WHERE chart_data IS NOT NULL;

-- migrate:down

-- DROP COLUMN refuses a column that an index, also in its WHERE, a trigger, a view or a table constraint
-- uses (https://sqlite.org/lang_altertable.html#altertabdropcol), so what stands on it goes first.
DROP INDEX IF EXISTS chat_messages_with_chart;
ALTER TABLE chat_messages DROP COLUMN chart_data;
