-- Which calls are jobs: whatever becomes of their functions, they are listed as such.
ALTER TABLE calls ADD COLUMN members INTEGER NOT NULL DEFAULT 0;
CREATE INDEX calls_jobs ON calls (workload, state, id) WHERE members > 0;
