-- Chart data on MariaDB and MySQL: the configuration of a chart that belongs to a message, so that it is drawn again as
-- it was.
--
-- Adding a last column rewrites no rows. There is no index of the messages that have one, as there are no partial indexes:
-- chat_messages_active finds the active messages of a conversation, and these are read to see.

-- migrate:up

-- NULL means that there is none.
ALTER TABLE chat_messages ADD COLUMN chart_data JSON;

-- migrate:down

ALTER TABLE chat_messages DROP COLUMN chart_data;
