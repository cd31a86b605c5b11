-- Counters that only go up; "epoch" is the incarnation of the control process.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('epoch', 0);
-- The events that made the world, in order. AUTOINCREMENT: a number is never given twice.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    body BLOB NOT NULL
);
-- What those events add up to for apps, so that a restart need not replay them.
CREATE TABLE apps (
    key TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
-- Use per pool and role, one row a minute.
CREATE TABLE usage (
    minute INTEGER NOT NULL,
    pool TEXT NOT NULL,
    role TEXT NOT NULL,
    at REAL NOT NULL,
    wall_s REAL NOT NULL,
    cpu_s REAL NOT NULL,
    memory_mib_s REAL NOT NULL,
    starting_s REAL NOT NULL,
    PRIMARY KEY (minute, pool, role)
) WITHOUT ROWID;
-- Requests per pool, one row a minute.
CREATE TABLE counts (
    minute INTEGER NOT NULL,
    pool TEXT NOT NULL,
    at REAL NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    cold INTEGER NOT NULL,
    busy_s REAL NOT NULL,
    cpu_s REAL NOT NULL,
    PRIMARY KEY (minute, pool)
) WITHOUT ROWID;
-- Single requests: notable ones (errors, cold, slow) and the newest ordinary ones of each pool.
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pool TEXT NOT NULL,
    notable INTEGER NOT NULL,
    received_at REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX requests_pool ON requests (pool, seq);
CREATE INDEX requests_ordinary ON requests (pool, seq) WHERE notable = 0;
CREATE INDEX requests_notable ON requests (seq) WHERE notable = 1;
