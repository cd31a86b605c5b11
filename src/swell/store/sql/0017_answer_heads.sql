-- What code said of its answer beside the result; of few calls.
CREATE TABLE call_heads (
    call INTEGER PRIMARY KEY,
    head BLOB NOT NULL
);
