-- Versions of secrets, sealed; of their content only the names of variables can be read here.
CREATE TABLE secrets (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    keys TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (namespace, name, number)
);
