-- Requests by API key and pool, and what they used: one row a minute, and once more one an hour.
CREATE TABLE key_counts (
    minute INTEGER NOT NULL,
    key TEXT NOT NULL,
    pool TEXT NOT NULL,
    at REAL NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    cpu_s REAL NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (minute, key, pool)
) WITHOUT ROWID;
CREATE TABLE key_counts_hours (
    hour INTEGER NOT NULL,
    key TEXT NOT NULL,
    pool TEXT NOT NULL,
    at REAL NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    cpu_s REAL NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (hour, key, pool)
) WITHOUT ROWID;
