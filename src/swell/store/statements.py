"""Which SQL is ever run? All of it stands here, beside the numbered files in `sql/` that make the tables."""

from __future__ import annotations

# -- connection -------------------------------------------------------------------------------

USE_WAL = "PRAGMA journal_mode = WAL"
SYNC_EVERY_COMMIT = "PRAGMA synchronous = FULL"
ONLY_READ = "PRAGMA query_only = ON"
BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
SAVEPOINT = "SAVEPOINT op"
RELEASE = "RELEASE op"
ROLLBACK_TO = "ROLLBACK TO op"

# -- migrations -------------------------------------------------------------------------------

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
MAKE_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS migrations (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at REAL NOT NULL
)"""
MIGRATIONS = "SELECT number, name, checksum FROM migrations ORDER BY number"
ADD_MIGRATION = "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)"

# -- world ------------------------------------------------------------------------------------

NEXT_EPOCH = "UPDATE counters SET value = value + 1 WHERE name = 'epoch'"
EPOCH = "SELECT value FROM counters WHERE name = 'epoch'"
ADD_EVENT = "INSERT INTO events (at, body) VALUES (?, ?)"
EVENTS = "SELECT seq, body FROM events WHERE seq >= ? ORDER BY seq LIMIT ?"
SET_APP = """
INSERT INTO apps (key, seq, at, body) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, at = excluded.at, body = excluded.body"""
CHANGE_APP = "UPDATE apps SET body = ? WHERE key = ?"
DROP_APP = "DELETE FROM apps WHERE key = ?"
APP = "SELECT body FROM apps WHERE key = ?"
APPS = "SELECT body FROM apps ORDER BY seq"
DEPLOYED_AT = "SELECT key, at FROM apps ORDER BY seq"
# Of a deploy that the disk refused, a number may be left that is given again.
ADD_VERSION = "INSERT OR REPLACE INTO versions (key, number, at, how, tag, body) VALUES (?, ?, ?, ?, ?, ?)"
TRIM_VERSIONS = "DELETE FROM versions WHERE key = ?1 AND number <= ?2 - ?3"
DROP_VERSIONS = "DELETE FROM versions WHERE key = ?"
VERSIONS = "SELECT number, at, how, tag, body FROM versions WHERE ?1 = '' OR key = ?1 ORDER BY key, number"
NEWEST_VERSIONS = "SELECT key, max(number) FROM versions GROUP BY key"
# Their variables' names have no spaces.
SECRETS = "SELECT namespace, name, number, at, keys, sealed FROM secrets ORDER BY namespace, name, number"
ADD_SECRET = "INSERT OR REPLACE INTO secrets (namespace, name, number, at, keys, sealed) VALUES (?, ?, ?, ?, ?, ?)"
TRIM_SECRET = "DELETE FROM secrets WHERE namespace = ? AND name = ? AND number <= ?"
DROP_SECRET = "DELETE FROM secrets WHERE namespace = ?1 AND name = ?2 AND (?3 = 0 OR number = ?3)"
VOLUMES = "SELECT body FROM volumes ORDER BY namespace, name"
SET_VOLUME = """
INSERT INTO volumes (id, namespace, name, body) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET namespace = excluded.namespace, name = excluded.name, body = excluded.body"""
DROP_VOLUME = "DELETE FROM volumes WHERE id = ?"
TRIM_EVENTS_AGE = """
DELETE FROM events WHERE seq < coalesce(
    (SELECT seq FROM events WHERE at >= ? ORDER BY seq LIMIT 1),
    (SELECT max(seq) + 1 FROM events)
)"""
TRIM_EVENTS_COUNT = "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?"

# -- usage ------------------------------------------------------------------------------------


def _adding(table: str, time: str, about: tuple[str, ...], sums: tuple[str, ...]) -> str:
    """A row of sums; where there is one of that time about the same, they are added to its own."""
    known, columns = ", ".join((time, *about)), (time, *about, "at", *sums)
    return f"""
INSERT INTO {table} ({", ".join(columns)}) VALUES ({", ".join("?" * len(columns))})
ON CONFLICT ({known}) DO UPDATE SET
    at = max(at, excluded.at), {", ".join(f"{each} = {each} + excluded.{each}" for each in sums)}"""


_USED = ("pool", "role"), ("wall_s", "cpu_s", "memory_mib_s", "starting_s")
ADD_USAGE = _adding("usage", "minute", *_USED)
ADD_USAGE_HOUR = _adding("usage_hours", "hour", *_USED)
_COUNTED = ("pool",), ("requests", "errors", "cold", "busy_s")
ADD_COUNT = _adding("counts", "minute", *_COUNTED)
ADD_COUNT_HOUR = _adding("counts_hours", "hour", *_COUNTED)
_COUNTED_BY_KEY = ("key", "pool"), ("requests", "errors", "cpu_s", "cost_usd")
ADD_KEY_COUNT = _adding("key_counts", "minute", *_COUNTED_BY_KEY)
ADD_KEY_COUNT_HOUR = _adding("key_counts_hours", "hour", *_COUNTED_BY_KEY)
# Minutes before the first whole hour (?1, ?2), hours (?3, ?4), minutes after the last (?5, ?6); one pool or all (?7).
_IN_SPANS = """
FROM (
    SELECT * FROM {minutes} WHERE minute >= ?1 AND minute < ?2
    UNION ALL SELECT * FROM {hours} WHERE hour >= ?3 AND hour < ?4
    UNION ALL SELECT * FROM {minutes} WHERE minute >= ?5 AND minute < ?6
) WHERE ?7 = '' OR pool = ?7"""
USAGE = f"""
SELECT pool, role, max(at), sum(wall_s), sum(cpu_s), sum(memory_mib_s), sum(starting_s)
{_IN_SPANS.format(minutes="usage", hours="usage_hours")} GROUP BY pool, role ORDER BY pool, role"""
COUNTS = f"""
SELECT pool, max(at), sum(requests), sum(errors), sum(cold), sum(busy_s)
{_IN_SPANS.format(minutes="counts", hours="counts_hours")} GROUP BY pool ORDER BY pool"""
KEY_COUNTS = f"""
SELECT key, pool, max(at), sum(requests), sum(errors), sum(cpu_s), sum(cost_usd)
{_IN_SPANS.format(minutes="key_counts", hours="key_counts_hours")} GROUP BY key, pool ORDER BY key, pool"""
TRIM_USAGE = "DELETE FROM usage WHERE minute < ?"
TRIM_USAGE_HOURS = "DELETE FROM usage_hours WHERE hour < ?"
TRIM_COUNTS = "DELETE FROM counts WHERE minute < ?"
TRIM_COUNTS_HOURS = "DELETE FROM counts_hours WHERE hour < ?"
TRIM_KEY_COUNTS = "DELETE FROM key_counts WHERE minute < ?"
TRIM_KEY_COUNTS_HOURS = "DELETE FROM key_counts_hours WHERE hour < ?"

# -- keys -------------------------------------------------------------------------------------

SET_KEY = """
INSERT INTO keys (id, created_at, body) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at, body = excluded.body"""
KEYS = "SELECT body FROM keys ORDER BY created_at, id"

# -- requests ---------------------------------------------------------------------------------

ADD_REQUEST = """
INSERT INTO requests (id, pool, notable, received_at, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING"""
REQUEST = "SELECT body FROM requests WHERE id = ?"
REQUESTS = "SELECT body FROM requests WHERE pool BETWEEN ?1 AND ?1 || char(0x10ffff) ORDER BY seq DESC LIMIT ?2"
TRIM_ORDINARY = """
DELETE FROM requests WHERE notable = 0 AND pool = ?1 AND seq <= (
    SELECT seq FROM requests WHERE notable = 0 AND pool = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2
)"""
TRIM_NOTABLE = """
DELETE FROM requests WHERE notable = 1 AND seq <= (
    SELECT seq FROM requests WHERE notable = 1 ORDER BY seq DESC LIMIT 1 OFFSET ?
)"""
TRIM_REQUESTS_AGE = """
DELETE FROM requests WHERE seq < coalesce(
    (SELECT seq FROM requests WHERE received_at >= ? ORDER BY seq LIMIT 1),
    (SELECT max(seq) + 1 FROM requests)
)"""
