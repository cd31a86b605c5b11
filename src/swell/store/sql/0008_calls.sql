-- The durable queue. Inputs and results stand apart, so that neither a list nor a change of state reads or writes them.
CREATE TABLE calls (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workload TEXT NOT NULL,
    method TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    due_at REAL NOT NULL,
    accept TEXT NOT NULL,
    key TEXT NOT NULL,
    priority INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    group_id TEXT NOT NULL,
    max_retries INTEGER NOT NULL,
    backoff_coefficient REAL NOT NULL,
    initial_delay_s REAL NOT NULL,
    max_delay_s REAL NOT NULL,
    jitter REAL NOT NULL,
    timeout_s REAL NOT NULL,
    result_s REAL NOT NULL,
    dead_letter_s REAL NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    token INTEGER NOT NULL,
    replica TEXT NOT NULL,
    pool TEXT NOT NULL,
    leased_at REAL,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    ended_at REAL,
    ended_no INTEGER,
    cpu_us INTEGER NOT NULL,
    run_us INTEGER NOT NULL,
    expires_at REAL
);
-- The order in which they are handed out.
CREATE INDEX calls_queued ON calls (workload, priority DESC, due_at, id) WHERE state = 'queued';
CREATE INDEX calls_listed ON calls (workload, state, id);
-- What an API key has named "1" is not what another one has.
CREATE UNIQUE INDEX calls_once ON calls (workload, method, key, idempotency_key) WHERE idempotency_key != '';
-- The order in which calls of a group ended. A number is never given twice, and none is seen before a smaller one.
CREATE INDEX calls_grouped ON calls (group_id, ended_no) WHERE ended_no IS NOT NULL;
INSERT INTO counters (name, value) VALUES ('call_ends', 0);
CREATE INDEX calls_expiring ON calls (expires_at, id) WHERE expires_at IS NOT NULL;

CREATE TABLE call_inputs (
    call INTEGER PRIMARY KEY,
    content_type TEXT NOT NULL,
    data BLOB NOT NULL,
    digest TEXT NOT NULL
);
CREATE INDEX call_inputs_blobs ON call_inputs (digest) WHERE digest != '';
CREATE TABLE call_results (
    call INTEGER PRIMARY KEY,
    content_type TEXT NOT NULL,
    data BLOB NOT NULL,
    digest TEXT NOT NULL
);
CREATE INDEX call_results_blobs ON call_results (digest) WHERE digest != '';

-- How many calls of a workload are in each state, kept with each write: to count a million takes half a second.
CREATE TABLE call_counts (
    workload TEXT NOT NULL,
    state TEXT NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (workload, state)
) WITHOUT ROWID;
-- (A statement of a migration ends with its line.)
CREATE TRIGGER call_comes AFTER INSERT ON calls BEGIN INSERT INTO call_counts VALUES (new.workload, new.state, 1)
    ON CONFLICT (workload, state) DO UPDATE SET calls = calls + 1; END;
CREATE TRIGGER call_goes AFTER DELETE ON calls BEGIN UPDATE call_counts SET calls = calls - 1
    WHERE workload = old.workload AND state = old.state; END;
CREATE TRIGGER call_moves AFTER UPDATE OF state ON calls BEGIN UPDATE call_counts SET calls = calls - 1
    WHERE workload = old.workload AND state = old.state; INSERT INTO call_counts VALUES (new.workload, new.state, 1)
    ON CONFLICT (workload, state) DO UPDATE SET calls = calls + 1; END;
CREATE TRIGGER call_ends AFTER UPDATE OF ended_at ON calls WHEN new.ended_at IS NOT NULL AND new.group_id != '' BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'call_ends'; UPDATE calls SET ended_no =
    (SELECT value FROM counters WHERE name = 'call_ends') WHERE seq = new.seq; END;
