-- API keys. Of a secret there is a digest only; a key that was revoked stays, so that it can be told so.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    created_at REAL NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
