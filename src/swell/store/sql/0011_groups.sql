-- What is still to be done of a group: whoever ends all of it need not look at what has ended.
CREATE INDEX calls_open ON calls (group_id, id) WHERE group_id != '' AND ended_at IS NULL;
