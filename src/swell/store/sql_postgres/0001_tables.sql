-- The same tables as those of SQLite, of whose steps `sql/0019_no_counts.sql` is the newest one in here. Texts are
-- compared by their bytes, as everywhere else in Swell.
CREATE TABLE counters (name TEXT COLLATE "C" PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counters (name, value) VALUES ('epoch', 0);
-- Whose database it is: which one it was when it was last opened (a copy is another one), and how often it was.
CREATE TABLE opened (place TEXT NOT NULL, times BIGINT NOT NULL);
INSERT INTO opened (place, times) VALUES ('', 0);
-- Numbers of the newest transactions since then, each written by itself: what became of one whose commit was not answered.
CREATE TABLE commits (number BIGINT PRIMARY KEY);

CREATE TABLE events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at FLOAT8 NOT NULL,
    body BYTEA NOT NULL
);
CREATE TABLE apps (
    key TEXT COLLATE "C" PRIMARY KEY,
    seq BIGINT NOT NULL,
    at FLOAT8 NOT NULL,
    body BYTEA NOT NULL
);
CREATE TABLE versions (
    key TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    at FLOAT8 NOT NULL,
    how TEXT NOT NULL,
    tag TEXT NOT NULL,
    body BYTEA NOT NULL,
    over BIGINT NOT NULL DEFAULT 0,
    over_served BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (key, number)
);

CREATE TABLE usage (
    minute BIGINT NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    wall_s FLOAT8 NOT NULL,
    cpu_s FLOAT8 NOT NULL,
    memory_mib_s FLOAT8 NOT NULL,
    starting_s FLOAT8 NOT NULL,
    PRIMARY KEY (minute, pool, role)
);
CREATE TABLE usage_hours (
    hour BIGINT NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    wall_s FLOAT8 NOT NULL,
    cpu_s FLOAT8 NOT NULL,
    memory_mib_s FLOAT8 NOT NULL,
    starting_s FLOAT8 NOT NULL,
    PRIMARY KEY (hour, pool, role)
);
CREATE TABLE counts (
    minute BIGINT NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    cold BIGINT NOT NULL,
    busy_s FLOAT8 NOT NULL,
    PRIMARY KEY (minute, pool)
);
CREATE TABLE counts_hours (
    hour BIGINT NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    cold BIGINT NOT NULL,
    busy_s FLOAT8 NOT NULL,
    PRIMARY KEY (hour, pool)
);
CREATE TABLE key_counts (
    minute BIGINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    cpu_s FLOAT8 NOT NULL,
    cost_usd FLOAT8 NOT NULL,
    PRIMARY KEY (minute, key, pool)
);
CREATE TABLE key_counts_hours (
    hour BIGINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    requests BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    cpu_s FLOAT8 NOT NULL,
    cost_usd FLOAT8 NOT NULL,
    PRIMARY KEY (hour, key, pool)
);
CREATE TABLE requests (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    pool TEXT COLLATE "C" NOT NULL,
    notable BIGINT NOT NULL,
    received_at FLOAT8 NOT NULL,
    body BYTEA NOT NULL
);
CREATE INDEX requests_pool ON requests (pool, seq);
CREATE INDEX requests_ordinary ON requests (pool, seq) WHERE notable = 0;
CREATE INDEX requests_notable ON requests (seq) WHERE notable = 1;

CREATE TABLE keys (id TEXT COLLATE "C" PRIMARY KEY, created_at FLOAT8 NOT NULL, body BYTEA NOT NULL);
CREATE TABLE secrets (
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    at FLOAT8 NOT NULL,
    keys TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (namespace, name, number)
);
CREATE TABLE volumes (
    id TEXT COLLATE "C" PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL,
    UNIQUE (namespace, name)
);

CREATE TABLE calls (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    workload TEXT COLLATE "C" NOT NULL,
    method TEXT COLLATE "C" NOT NULL,
    accepted_at FLOAT8 NOT NULL,
    due_at FLOAT8 NOT NULL,
    accept TEXT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    priority BIGINT NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    group_id TEXT COLLATE "C" NOT NULL,
    max_retries BIGINT NOT NULL,
    backoff_coefficient FLOAT8 NOT NULL,
    initial_delay_s FLOAT8 NOT NULL,
    max_delay_s FLOAT8 NOT NULL,
    jitter FLOAT8 NOT NULL,
    timeout_s FLOAT8 NOT NULL,
    result_s FLOAT8 NOT NULL,
    dead_letter_s FLOAT8 NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL,
    token BIGINT NOT NULL,
    replica TEXT NOT NULL,
    pool TEXT NOT NULL,
    leased_at FLOAT8,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    ended_at FLOAT8,
    ended_no BIGINT,
    cpu_us BIGINT NOT NULL,
    run_us BIGINT NOT NULL,
    expires_at FLOAT8,
    members BIGINT NOT NULL,
    owned BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX calls_queued ON calls (workload, priority DESC, due_at, id) WHERE state = 'queued';
CREATE INDEX calls_suspect ON calls (workload, priority DESC, due_at, id)
    WHERE state = 'queued' AND error_code IN ('lease_expired', 'replica_died');
CREATE INDEX calls_leased ON calls (id) WHERE state = 'leased';
CREATE INDEX calls_listed ON calls (workload, state, id);
CREATE INDEX calls_jobs ON calls (workload, state, id) WHERE members > 0;
CREATE UNIQUE INDEX calls_once ON calls (workload, method, key, idempotency_key) WHERE idempotency_key != '';
CREATE INDEX calls_grouped ON calls (group_id, ended_no) WHERE ended_no IS NOT NULL;
CREATE INDEX calls_open ON calls (group_id, id) WHERE group_id != '' AND ended_at IS NULL;
CREATE INDEX calls_expiring ON calls (expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX calls_owned ON calls (workload) WHERE owned = 1 AND state = 'queued';
CREATE TABLE call_variants (workload TEXT COLLATE "C" PRIMARY KEY, variant BYTEA NOT NULL);
CREATE TABLE call_inputs (
    call BIGINT PRIMARY KEY, content_type TEXT NOT NULL, data BYTEA NOT NULL, digest TEXT COLLATE "C" NOT NULL
);
CREATE INDEX call_inputs_blobs ON call_inputs (digest) WHERE digest != '';
CREATE TABLE call_results (
    call BIGINT PRIMARY KEY, content_type TEXT NOT NULL, data BYTEA NOT NULL, digest TEXT COLLATE "C" NOT NULL
);
CREATE INDEX call_results_blobs ON call_results (digest) WHERE digest != '';
CREATE TABLE call_heads (call BIGINT PRIMARY KEY, head BYTEA NOT NULL);
-- Numbers of ends: one writes, so none is seen before a smaller one; none is ever given twice.
CREATE SEQUENCE call_ends;
CREATE FUNCTION call_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    new.ended_no := nextval('call_ends');
    RETURN new;
END $$;
CREATE TRIGGER call_ended BEFORE UPDATE OF ended_at ON calls
    FOR EACH ROW WHEN (new.ended_at IS NOT NULL AND new.group_id != '') EXECUTE FUNCTION call_ended();

CREATE TABLE collections (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL DEFAULT 0,
    body BYTEA NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE dict_entries (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection TEXT COLLATE "C" NOT NULL,
    key BYTEA NOT NULL,
    expires_at FLOAT8 NOT NULL,
    value BYTEA NOT NULL
);
-- A row of an index has 2.7 kB, a key up to 64 KiB.
CREATE UNIQUE INDEX dict_entries_by_key ON dict_entries (collection, sha256(key));
CREATE INDEX dict_entries_in_order ON dict_entries (collection, number);
CREATE INDEX dict_entries_by_end ON dict_entries (expires_at);
CREATE TABLE queue_partitions (
    collection TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    items BIGINT NOT NULL,
    expires_at FLOAT8 NOT NULL,
    PRIMARY KEY (collection, name)
);
CREATE INDEX queue_partitions_by_end ON queue_partitions (expires_at);
CREATE TABLE queue_items (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection TEXT COLLATE "C" NOT NULL,
    partition TEXT COLLATE "C" NOT NULL,
    value BYTEA NOT NULL
);
CREATE INDEX queue_items_in_order ON queue_items (collection, partition, number);
CREATE TABLE kv_answers (
    collection TEXT COLLATE "C" NOT NULL,
    request TEXT COLLATE "C" NOT NULL,
    at FLOAT8 NOT NULL,
    answer BYTEA NOT NULL,
    PRIMARY KEY (collection, request)
);
CREATE INDEX kv_answers_by_age ON kv_answers (at);
CREATE FUNCTION dict_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE collections SET size = size + 1 WHERE id = new.collection;
    ELSE
        UPDATE collections SET size = size - 1 WHERE id = old.collection;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER dict_counted AFTER INSERT OR DELETE ON dict_entries FOR EACH ROW EXECUTE FUNCTION dict_counted();

CREATE TABLE triggers (
    key TEXT COLLATE "C" PRIMARY KEY,
    schedule BYTEA NOT NULL,
    began_at FLOAT8 NOT NULL,
    fired_to FLOAT8 NOT NULL,
    paused_at FLOAT8,
    fired_at FLOAT8,
    firings BIGINT NOT NULL DEFAULT 0,
    incarnation TEXT NOT NULL DEFAULT '',
    subscription BYTEA,
    watermark TEXT NOT NULL DEFAULT ''
);
CREATE TABLE firings (
    trigger_key TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    due_at FLOAT8 NOT NULL,
    at FLOAT8 NOT NULL,
    how TEXT NOT NULL,
    call TEXT NOT NULL,
    missed_from FLOAT8,
    PRIMARY KEY (trigger_key, number),
    UNIQUE (trigger_key, id)
);
CREATE INDEX firings_by_age ON firings (at);
