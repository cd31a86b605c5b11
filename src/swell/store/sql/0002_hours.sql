-- Use per pool and role once more, one row an hour, so that a long time is read in few rows. Minutes go after a day.
CREATE TABLE usage_hours (
    hour INTEGER NOT NULL,
    pool TEXT NOT NULL,
    role TEXT NOT NULL,
    at REAL NOT NULL,
    wall_s REAL NOT NULL,
    cpu_s REAL NOT NULL,
    memory_mib_s REAL NOT NULL,
    starting_s REAL NOT NULL,
    PRIMARY KEY (hour, pool, role)
) WITHOUT ROWID;
INSERT INTO usage_hours
SELECT minute / 60, pool, role, max(at), sum(wall_s), sum(cpu_s), sum(memory_mib_s), sum(starting_s)
FROM usage GROUP BY minute / 60, pool, role;
-- Nobody read the CPU time that gateways counted: what replicas used is measured from outside.
ALTER TABLE counts DROP COLUMN cpu_s;
-- Requests per pool once more, one row an hour.
CREATE TABLE counts_hours (
    hour INTEGER NOT NULL,
    pool TEXT NOT NULL,
    at REAL NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    cold INTEGER NOT NULL,
    busy_s REAL NOT NULL,
    PRIMARY KEY (hour, pool)
) WITHOUT ROWID;
INSERT INTO counts_hours
SELECT minute / 60, pool, max(at), sum(requests), sum(errors), sum(cold), sum(busy_s)
FROM counts GROUP BY minute / 60, pool;
