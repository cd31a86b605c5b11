-- The newest deploys of each app that is there: what a rollback goes back to. An app is its own first one.
CREATE TABLE versions (
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    how TEXT NOT NULL,
    tag TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (key, number)
) WITHOUT ROWID;
INSERT INTO versions (key, number, at, how, tag, body) SELECT key, 1, at, 'deploy', '', body FROM apps;
