-- Calls whose app is not there any more: which belong to a program that ended, and what variants of workloads are.
ALTER TABLE calls ADD COLUMN owned INTEGER NOT NULL DEFAULT 0;
CREATE INDEX calls_owned ON calls (workload) WHERE owned = 1 AND state = 'queued';
CREATE TABLE call_variants (
    workload TEXT PRIMARY KEY,
    variant BLOB NOT NULL
) WITHOUT ROWID;
