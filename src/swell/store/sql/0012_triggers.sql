-- How far triggers have come, and their newest firings: numbered by trigger, and each there once.
CREATE TABLE triggers (
    key TEXT PRIMARY KEY,
    schedule BLOB NOT NULL,
    began_at REAL NOT NULL,
    fired_to REAL NOT NULL,
    paused_at REAL,
    fired_at REAL,
    firings INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE firings (
    trigger_key TEXT NOT NULL,
    number INTEGER NOT NULL,
    id TEXT NOT NULL,
    due_at REAL NOT NULL,
    at REAL NOT NULL,
    how TEXT NOT NULL,
    call TEXT NOT NULL,
    missed_from REAL,
    PRIMARY KEY (trigger_key, number),
    UNIQUE (trigger_key, id)
) WITHOUT ROWID;
CREATE INDEX firings_by_age ON firings (at);
