-- Triggers that are no schedules: what they subscribe to, and behind which watermark its source is read on.
ALTER TABLE triggers ADD COLUMN subscription BLOB;
ALTER TABLE triggers ADD COLUMN watermark TEXT NOT NULL DEFAULT '';
