-- Conversation summaries: a title and a summary that a model writes about a conversation, for lists and as
-- context when the conversation goes on. A table of its own, because a summary is made later than the
-- conversation, is made again, and is long: a list of conversations should not have to read it.

-- migrate:up

CREATE TABLE IF NOT EXISTS conversation_summaries (
    -- Not conversation_id itself: an INTEGER PRIMARY KEY that is left out gets a number instead of an error
    -- (https://sqlite.org/lang_createtable.html#rowid), and the summary would go to whoever has that number.
    id INTEGER PRIMARY KEY,

    -- One summary for each conversation, gone with it. Its index serves the look-up and the cascade. Write
    -- with INSERT … ON CONFLICT (conversation_id) DO UPDATE: REPLACE would lose created_at.
    conversation_id INTEGER NOT NULL
        CONSTRAINT conversation_has_one_summary UNIQUE
        REFERENCES conversations (id) ON DELETE CASCADE,

    -- One line of a list; a model that writes a paragraph here should hear of it. length() counts characters.
    title TEXT NOT NULL
        CONSTRAINT title_is_short
        CHECK (typeof(title) = 'text' AND trim(title) <> '' AND length(title) <= 120),

    -- Text to show and to send to a model; an empty one would hide that there is none.
    summary TEXT NOT NULL
        CONSTRAINT summary_is_not_blank CHECK (typeof(summary) = 'text' AND trim(summary) <> ''),

    -- How good the summary is (coverage, faithfulness, …). JSON, because the measures change with the method.
    quality_metrics TEXT NOT NULL DEFAULT '{}'
        CONSTRAINT quality_metrics_is_a_json_object
        CHECK (
            CASE WHEN typeof(quality_metrics) = 'text' AND json_valid(quality_metrics)
                THEN json_type(quality_metrics) = 'object' ELSE 0 END
        ),

    -- Which model wrote it, so that old ones can be made again; NULL when a person did.
    model_name TEXT
        CONSTRAINT model_name_is_not_blank
        CHECK (model_name IS NULL OR (typeof(model_name) = 'text' AND trim(model_name) <> '')),

    -- When the conversation was first summarised.
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CONSTRAINT created_at_is_utc CHECK (created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),

    -- Older than the conversation's last_message_at means that the summary misses something.
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CONSTRAINT updated_at_is_utc CHECK (updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
);

-- As conversations_set_updated_at in 001, and safe under PRAGMA recursive_triggers=ON for the same reason.
CREATE TRIGGER IF NOT EXISTS conversation_summaries_set_updated_at
AFTER UPDATE ON conversation_summaries
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE conversation_summaries
    SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    WHERE id = NEW.id AND updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%fZ', 'now');
END;

-- migrate:down

-- The table takes its trigger with it. Nothing refers to it, so nothing cascades.
DROP TABLE IF EXISTS conversation_summaries;
