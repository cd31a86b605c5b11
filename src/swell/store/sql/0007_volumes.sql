-- Volumes and the newest version of each; what is in them stands in files.
CREATE TABLE volumes (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (namespace, name)
);
