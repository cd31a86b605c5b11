-- Dicts and queues; how many entries a dict has is counted by triggers.
CREATE TABLE collections (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE dict_entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    key BLOB NOT NULL,
    expires_at REAL NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (collection, key)
);
CREATE INDEX dict_entries_in_order ON dict_entries (collection);
CREATE INDEX dict_entries_by_end ON dict_entries (expires_at);
CREATE TABLE queue_partitions (
    collection TEXT NOT NULL,
    name TEXT NOT NULL,
    items INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (collection, name)
);
CREATE INDEX queue_partitions_by_end ON queue_partitions (expires_at);
CREATE TABLE queue_items (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    partition TEXT NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX queue_items_in_order ON queue_items (collection, partition);
-- What was answered to a change, for who did not hear it and asks again.
CREATE TABLE kv_answers (
    collection TEXT NOT NULL,
    request TEXT NOT NULL,
    at REAL NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (collection, request)
);
CREATE INDEX kv_answers_by_age ON kv_answers (at);
CREATE TRIGGER dict_entry_added AFTER INSERT ON dict_entries BEGIN UPDATE collections SET size = size + 1 WHERE id = new.collection; END;
CREATE TRIGGER dict_entry_removed AFTER DELETE ON dict_entries BEGIN UPDATE collections SET size = size - 1 WHERE id = old.collection; END;
