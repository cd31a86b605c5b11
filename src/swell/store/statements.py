"""Which SQL is ever run? All of it stands here, beside the numbered files in `sql/` that make the tables."""

from __future__ import annotations

from typing import get_args

from swell.model.call import State

# -- connection -------------------------------------------------------------------------------

USE_WAL = "PRAGMA journal_mode = WAL"
SYNC_EVERY_COMMIT = "PRAGMA synchronous = FULL"
SYNC_LATER = "PRAGMA synchronous = NORMAL"
ONLY_READ = "PRAGMA query_only = ON"
BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
SAVEPOINT = "SAVEPOINT op"
RELEASE = "RELEASE op"
ROLLBACK_TO = "ROLLBACK TO op"
COPY = "VACUUM INTO ?"

# -- all rows ---------------------------------------------------------------------------------

COLUMNS = "SELECT name, type FROM pragma_table_info(?) ORDER BY cid"
ROWS = "SELECT {} FROM {}"
ADD_ROW = "INSERT INTO {} ({}) VALUES ({})"
DROP_ROWS = "DELETE FROM {}"
MADE_OF_TABLES = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
DROP = "DROP {} {}"
NO_JOURNAL = "PRAGMA journal_mode = OFF"
NUMBERS = "SELECT name, seq FROM sqlite_sequence UNION ALL SELECT name, value FROM counters WHERE name = 'call_ends'"
DROP_NUMBERS = "DELETE FROM sqlite_sequence"
ADD_NUMBER = "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)"
SET_CALL_ENDS = "INSERT INTO counters (name, value) VALUES ('call_ends', ?)"

# -- migrations -------------------------------------------------------------------------------

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
MAKE_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS migrations (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at REAL NOT NULL
)"""
MIGRATIONS = "SELECT number, name, checksum FROM migrations ORDER BY number"
NEWEST_MIGRATION = "SELECT max(number) FROM migrations"
ADD_MIGRATION = "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)"

# -- world ------------------------------------------------------------------------------------

NEXT_EPOCH = "UPDATE counters SET value = value + 1 WHERE name = 'epoch'"
EPOCH = "SELECT value FROM counters WHERE name = 'epoch'"
# The next multiple of a number.
NEXT_EPOCHS = "UPDATE counters SET value = (value / ?1 + 1) * ?1 WHERE name = 'epoch'"
# Beside the number of starts: which state it is.
STATE_ID = "SELECT value FROM counters WHERE name = 'state'"
DRAW_STATE_ID = "INSERT INTO counters (name, value) VALUES ('state', ?) ON CONFLICT (name) DO NOTHING"
DROP_STATE_ID = "DELETE FROM counters WHERE name = 'state'"
ADD_EVENT = "INSERT INTO events (at, body) VALUES (?, ?) RETURNING seq"
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
ADD_VERSION = """
    INSERT INTO versions (key, number, at, how, tag, body, over, over_served) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (key, number) DO UPDATE SET
        at = excluded.at, how = excluded.how, tag = excluded.tag, body = excluded.body, over = excluded.over,
        over_served = excluded.over_served
"""
TRIM_VERSIONS = "DELETE FROM versions WHERE key = ?1 AND number + ?3 <= ?2"
DROP_VERSIONS = "DELETE FROM versions WHERE key = ?"
VERSIONS = """
    SELECT number, at, how, tag, body, over, over_served FROM versions WHERE ?1 = '' OR key = ?1 ORDER BY key, number
"""
NEWEST_VERSIONS = "SELECT key, max(number) FROM versions GROUP BY key"
# Their variables' names have no spaces.
SECRETS = "SELECT namespace, name, number, at, keys, sealed FROM secrets ORDER BY namespace, name, number"
ADD_SECRET = """
INSERT INTO secrets (namespace, name, number, at, keys, sealed) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, name, number) DO UPDATE SET at = excluded.at, keys = excluded.keys, sealed = excluded.sealed"""
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
    at = max({table}.at, excluded.at), {", ".join(f"{each} = {table}.{each} + excluded.{each}" for each in sums)}"""


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
) AS spans WHERE ?7 = '' OR pool = ?7"""
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

# -- calls ------------------------------------------------------------------------------------

# In the order of `model.call.Call`.
_CALL = """
id, workload, method, accepted_at, due_at, accept, key, priority, idempotency_key, group_id,
max_retries, backoff_coefficient, initial_delay_s, max_delay_s, jitter, timeout_s, result_s, dead_letter_s,
state, attempts, token, replica, pool, leased_at, error_code, error_message, ended_at, cpu_us, run_us, members, owned"""
ADD_CALL = f"""
INSERT INTO calls ({_CALL}, expires_at)
VALUES ({", ".join("?" * (_CALL.count(",") + 2))}) ON CONFLICT DO NOTHING RETURNING seq"""
ADD_VARIANT = "INSERT INTO call_variants (workload, variant) VALUES (?, ?) ON CONFLICT (workload) DO NOTHING"
ADD_INPUT = "INSERT INTO call_inputs (call, content_type, data, digest) VALUES (?, ?, ?, ?)"
ADD_RESULT = "INSERT INTO call_results (call, content_type, data, digest) VALUES (?, ?, ?, ?)"
ADD_HEAD = "INSERT INTO call_heads (call, head) VALUES (?, ?)"
KEPT_CALL = """
SELECT id FROM calls WHERE id = ?1
UNION ALL SELECT id FROM calls
WHERE workload = ?2 AND method = ?3 AND key = ?4 AND idempotency_key = ?5 AND idempotency_key != '' LIMIT 1"""
# From one priority to the next, and within each by due time: no call that is not due yet is passed over.
NEXT_PRIORITY = """
SELECT priority FROM calls WHERE workload = ? AND state = 'queued' AND priority < ? ORDER BY priority DESC LIMIT 1"""
# In the words of the index of those alone that are (`Call.is_suspect`).
_SUSPECT = "error_code IN ('lease_expired', 'replica_died')"
_DUE = "FROM calls WHERE workload = ?1 AND state = 'queued' AND priority = ?2 AND due_at <= ?3"
# So many that are no suspects (?4), and so many suspects (?5).
DUE_CALLS = f"""
SELECT * FROM (SELECT seq, {_CALL} {_DUE} AND NOT {_SUSPECT} ORDER BY due_at, id LIMIT ?4) AS due
UNION ALL SELECT * FROM (SELECT seq, {_CALL} {_DUE} AND {_SUSPECT} ORDER BY due_at, id LIMIT ?5) AS suspects"""
COUNT_DUE = f"""
SELECT (SELECT count(*) FROM (SELECT 1 {_DUE} LIMIT ?4) AS due),
    (SELECT count(*) FROM (SELECT 1 {_DUE} AND {_SUSPECT} LIMIT ?4) AS suspects)"""
FIRST_IS_SUSPECT = f"SELECT {_SUSPECT} {_DUE} ORDER BY due_at, id LIMIT 1"
NEXT_DUE = """
SELECT due_at FROM calls
WHERE workload = ? AND state = 'queued' AND priority = ? AND due_at > ? ORDER BY due_at LIMIT 1"""
LEASE_CALL = """
UPDATE calls SET state = 'leased', attempts = attempts + 1, token = ?, replica = ?, pool = ?, leased_at = ?
WHERE seq = ?"""
INPUT_OF = "SELECT content_type, data, digest FROM call_inputs WHERE call = ?"
END_CALL = """
UPDATE calls SET
    state = ?8, ended_at = ?1, expires_at = ?1 + CASE WHEN ?8 = 'failed' THEN dead_letter_s ELSE result_s END,
    error_code = ?2, error_message = ?3, cpu_us = cpu_us + ?4, run_us = run_us + ?5,
    token = CASE WHEN ?8 = 'cancelled' THEN 0 ELSE token END
WHERE id = ?6 AND state = 'leased' AND token = ?7 RETURNING seq"""
CALL_AGAIN = """
UPDATE calls SET
    state = 'queued', due_at = ?1, error_code = coalesce(?2, error_code), error_message = coalesce(?3, error_message),
    cpu_us = cpu_us + ?4, run_us = run_us + ?5, attempts = attempts - ?8,
    token = 0, replica = '', pool = '', leased_at = NULL
WHERE id = ?6 AND state = 'leased' AND token = ?7 RETURNING seq"""
# Of what was cancelled while somebody had it: once, since its token goes.
ADD_USED = """
UPDATE calls SET cpu_us = cpu_us + ?, run_us = run_us + ?, token = 0
WHERE id = ? AND state = 'cancelled' AND token = ? AND token != 0"""
CANCEL_CALL = f"""
UPDATE calls SET state = 'cancelled', ended_at = ?1, expires_at = ?1 + result_s, error_code = ?2, error_message = ?3
WHERE id = ?4 AND state IN ('queued', 'leased') RETURNING seq, {_CALL}"""
RETRY_CALL = f"""
UPDATE calls SET
    state = 'queued', due_at = ?1, attempts = 0, token = 0, replica = '', pool = '', leased_at = NULL,
    ended_at = NULL, ended_no = NULL, expires_at = NULL
WHERE id = ?2 AND state = 'failed' RETURNING seq, {_CALL}"""
SET_INPUT = "UPDATE call_inputs SET content_type = ?, data = ?, digest = ? WHERE call = ?"
REMOVE_CALL = "DELETE FROM calls WHERE id = ? AND ended_at IS NOT NULL RETURNING seq"
DROP_CALL = "DELETE FROM calls WHERE seq = ?"
DROP_INPUT = "DELETE FROM call_inputs WHERE call = ?"
DROP_RESULT = "DELETE FROM call_results WHERE call = ?"
DROP_HEAD = "DELETE FROM call_heads WHERE call = ?"
EXPIRED_CALLS = "SELECT seq, id FROM calls WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ?"
_DIGESTS = "SELECT DISTINCT digest FROM {} WHERE digest > ?1 AND digest != '' ORDER BY digest LIMIT ?2"
CALL_DIGESTS = f"""
SELECT digest FROM ({_DIGESTS.format("call_inputs")}) AS inputs
UNION SELECT digest FROM ({_DIGESTS.format("call_results")}) AS results ORDER BY digest LIMIT ?2"""
# Of workloads that calls are kept of.
TRIM_VARIANTS = """
DELETE FROM call_variants WHERE workload !=
    coalesce((SELECT min(calls.workload) FROM calls WHERE calls.workload >= call_variants.workload), '')"""
CALL = f"SELECT {_CALL} FROM calls WHERE id = ?"
CALLS_OF_IDS = f"SELECT {_CALL} FROM calls WHERE id IN (SELECT value FROM json_each(?) AS asked)"
VARIANTS = "SELECT workload, variant FROM call_variants WHERE workload IN (SELECT value FROM json_each(?) AS asked)"
# From one to the next: however many calls they have.
NEXT_OWNED = """
SELECT workload FROM calls WHERE owned = 1 AND state = 'queued' AND workload > ? ORDER BY workload LIMIT 1"""
WHOSE_CALLS = "SELECT id, workload, key FROM calls WHERE id IN (SELECT value FROM json_each(?) AS asked)"
# Those that have ended, with results up to so many bytes together (?2), one at least.
ENDS_OF_IDS = f"""
SELECT {_CALL}, result.content_type, result.data, result.digest FROM (
    SELECT seq AS found, sum(size) OVER (ORDER BY id) - size AS before FROM (
        SELECT seq, id, coalesce(length(call_results.data), 0) AS size
        FROM calls LEFT JOIN call_results ON call_results.call = seq
        WHERE id IN (SELECT value FROM json_each(?1) AS asked) AND ended_at IS NOT NULL
    ) AS sized
) AS page JOIN calls ON calls.seq = page.found LEFT JOIN call_results AS result ON result.call = calls.seq
WHERE page.before < ?2 ORDER BY id"""
CALL_INPUT = """
SELECT content_type, data, digest FROM call_inputs WHERE call = (SELECT seq FROM calls WHERE id = ?)"""
CALL_RESULT = """
SELECT content_type, data, digest, head FROM call_results LEFT JOIN call_heads ON call_heads.call = call_results.call
WHERE call_results.call = (SELECT seq FROM calls WHERE id = ?)"""
# All that wait are counted: at a start.
QUEUED_CALLS = """
SELECT workload, count(*), min(due_at) FROM calls WHERE state = 'queued' GROUP BY workload ORDER BY workload"""
# The workloads that calls are kept of, between two (?1, ?6): from one to the next, however many calls they have.
WORKLOADS = """
WITH RECURSIVE known (of_workload) AS (
    SELECT min(workload) FROM calls WHERE workload >= ?1
    UNION ALL SELECT (SELECT min(workload) FROM calls WHERE workload > of_workload) FROM known WHERE of_workload <= ?6
)"""
STATES = " UNION ALL ".join(f"SELECT '{state}' AS in_state" for state in get_args(State))


def _newest(index: str, which: str) -> str:
    """Of each workload and state, the newest; then the newest of these."""
    return f"""{WORKLOADS}
SELECT {_CALL} FROM calls WHERE seq IN (
    SELECT newest.seq FROM known CROSS JOIN ({STATES}) AS kind CROSS JOIN calls AS newest ON newest.seq IN (
        SELECT seq FROM calls INDEXED BY {index}
        WHERE workload = of_workload AND state = in_state AND id < ?3 AND (?5 IS NULL OR key = ?5){which}
        ORDER BY id DESC LIMIT ?4
    )
    WHERE of_workload <= ?6 AND (?2 = '' OR in_state = ?2)
) ORDER BY id DESC LIMIT ?4"""


CALLS = _newest("calls_listed", "")
JOBS = _newest("calls_jobs", " AND members > 0")
# With results up to so many bytes together (?4), one at least.
ENDED_CALLS = f"""
SELECT ended_no, {_CALL}, result.content_type, result.data, result.digest FROM (
    SELECT seq AS found, sum(size) OVER (ORDER BY ended_no) - size AS before FROM (
        SELECT seq, ended_no, coalesce(length(call_results.data), 0) AS size
        FROM calls LEFT JOIN call_results ON call_results.call = seq
        WHERE group_id = ?1 AND ended_no > ?2 ORDER BY ended_no LIMIT ?3
    ) AS sized
) AS page JOIN calls ON calls.seq = page.found LEFT JOIN call_results AS result ON result.call = calls.seq
WHERE page.before < ?4 ORDER BY ended_no"""
# Those that its sender has had.
HAD_CALLS = """
SELECT seq FROM calls WHERE group_id = ? AND ended_no <= ? AND key = ? ORDER BY ended_no LIMIT ?"""
OPEN_CALLS = f"""
SELECT {_CALL} FROM calls
WHERE group_id = ? AND group_id != '' AND ended_at IS NULL AND id > ? ORDER BY id LIMIT ?"""
MEMBERS = """
SELECT workload, key, sum(is_open), sum(1 - is_open) FROM (
    SELECT workload, key, 1 AS is_open FROM calls WHERE group_id = ?1 AND group_id != '' AND ended_at IS NULL
    UNION ALL SELECT workload, key, 0 FROM calls WHERE group_id = ?1 AND ended_no IS NOT NULL
) AS members GROUP BY workload, key ORDER BY workload, key"""
OPEN_MEMBERS = """
SELECT workload, key, count(*), 0 FROM calls WHERE group_id = ? AND group_id != '' AND ended_at IS NULL
GROUP BY workload, key ORDER BY workload, key"""
# One that is of none of these: [[workload, method, key], …].
OTHER_KIND = """
SELECT workload, method, key FROM (
    SELECT workload, method, key FROM calls WHERE group_id = ?1 AND group_id != '' AND ended_at IS NULL
    UNION ALL SELECT workload, method, key FROM calls WHERE group_id = ?1 AND ended_no IS NOT NULL
) AS members WHERE (workload, method, key) NOT IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each(?2) AS asked
) LIMIT 1"""
CALL_ONCE = f"""
SELECT {_CALL} FROM calls
WHERE workload = ?1 AND method = ?2 AND key = ?3 AND idempotency_key = ?4 AND idempotency_key != ''"""
LEASED_CALLS = f"""{WORKLOADS.replace("?1", "''").replace("?6", "char(0x10ffff)")}
SELECT {_CALL} FROM calls WHERE seq IN (
    SELECT held.seq FROM known CROSS JOIN calls AS held ON held.workload = of_workload AND held.state = 'leased'
) ORDER BY id"""

# -- triggers ---------------------------------------------------------------------------------

SET_TRIGGER = """
INSERT INTO triggers (key, schedule, began_at, fired_to, paused_at, incarnation) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    schedule = excluded.schedule, began_at = excluded.began_at, fired_to = max(triggers.fired_to, excluded.fired_to),
    paused_at = excluded.paused_at, incarnation = excluded.incarnation"""
TRIGGERS = """
SELECT key, schedule, began_at, fired_to, paused_at, fired_at, incarnation FROM triggers
WHERE subscription IS NULL ORDER BY key"""
SET_EVENT_TRIGGER = """
INSERT INTO triggers (key, schedule, subscription, began_at, fired_to, watermark, paused_at)
VALUES (?, '', ?, ?, 0, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    subscription = excluded.subscription, paused_at = excluded.paused_at, began_at = excluded.began_at,
    watermark = CASE WHEN triggers.began_at = excluded.began_at THEN triggers.watermark ELSE excluded.watermark END"""
EVENT_TRIGGERS = """
SELECT key, subscription, began_at, watermark, paused_at, fired_at FROM triggers
WHERE subscription IS NOT NULL ORDER BY key"""
MOVE_WATERMARK = "UPDATE triggers SET watermark = ? WHERE key = ? AND began_at = ?"
DROP_TRIGGER = ("DELETE FROM triggers WHERE key = ?", "DELETE FROM firings WHERE trigger_key = ?")
# But for those of events that are posted: who posts one does so to one server.
PAUSE_TRIGGERS = "UPDATE triggers SET paused_at = ? WHERE paused_at IS NULL AND key NOT LIKE '%:http'"
MOVE_TRIGGER = "UPDATE triggers SET fired_to = max(fired_to, ?) WHERE key = ?"
ADD_FIRING = """
INSERT INTO firings (trigger_key, number, id, due_at, at, how, call, missed_from)
SELECT key, firings + 1, ?2, ?3, ?4, ?5, ?6, ?7 FROM triggers WHERE key = ?1
ON CONFLICT (trigger_key, id) DO NOTHING"""
COUNT_FIRING = "UPDATE triggers SET firings = firings + 1, fired_at = ? WHERE key = ?"
TRIM_FIRINGS = """
DELETE FROM firings WHERE trigger_key = ?1 AND number <= (SELECT firings FROM triggers WHERE key = ?1) - ?2"""
TRIM_FIRINGS_AGE = "DELETE FROM firings WHERE at < ?"
FIRINGS = """
SELECT id, due_at, at, how, call, missed_from FROM firings WHERE trigger_key = ? ORDER BY number DESC LIMIT ?"""

# -- dicts and queues -------------------------------------------------------------------------

COLLECTIONS = "SELECT body FROM collections ORDER BY kind, namespace, name"
COLLECTION_SIZES = """
SELECT id, size FROM collections WHERE kind = 'dict'
UNION ALL SELECT id, (SELECT coalesce(sum(items), 0) FROM queue_partitions WHERE collection = id)
FROM collections WHERE kind = 'queue'"""
ADD_COLLECTION = "INSERT INTO collections (id, kind, namespace, name, body) VALUES (?, ?, ?, ?, ?)"
COLLECTION_SIZE = "SELECT size FROM collections WHERE id = ?"
DROP_COLLECTION = (
    "DELETE FROM dict_entries WHERE collection = ?",
    "DELETE FROM queue_items WHERE collection = ?",
    "DELETE FROM queue_partitions WHERE collection = ?",
    "DELETE FROM kv_answers WHERE collection = ?",
    "DELETE FROM collections WHERE id = ?",
)
ADD_ANSWER = """
INSERT INTO kv_answers (collection, request, at, answer) VALUES (?, ?, ?, ?)
ON CONFLICT (collection, request) DO UPDATE SET at = excluded.at, answer = excluded.answer"""
ANSWER = "SELECT answer FROM kv_answers WHERE collection = ? AND request = ? AND at > ?"
TRIM_ANSWERS = "DELETE FROM kv_answers WHERE at <= ?"

ENTRY = "SELECT value, expires_at FROM dict_entries WHERE collection = ? AND key = ? AND expires_at > ?"
HAS_ENTRY = "SELECT 1 FROM dict_entries WHERE collection = ? AND key = ? AND expires_at > ?"
TOUCH_ENTRY = "UPDATE dict_entries SET expires_at = max(expires_at, ?) WHERE collection = ? AND key = ?"
DROP_ENTRY = "DELETE FROM dict_entries WHERE collection = ? AND key = ?"
DROP_ENTRY_EXPIRED = "DELETE FROM dict_entries WHERE collection = ? AND key = ? AND expires_at <= ?"
DROP_ENTRIES = "DELETE FROM dict_entries WHERE collection = ?"
DROP_ENTRIES_EXPIRED = "DELETE FROM dict_entries WHERE collection = ? AND expires_at <= ?"
_ADD_ENTRY = (
    "INSERT INTO dict_entries (collection, key, value, expires_at) VALUES (?, ?, ?, ?) ON CONFLICT (collection, key)"
)
ADD_ENTRY = f"{_ADD_ENTRY} DO NOTHING RETURNING number"
SET_ENTRY = f"{_ADD_ENTRY} DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at RETURNING number"
ENTRIES_EXPIRED = "SELECT count(*) FROM dict_entries WHERE collection = ? AND expires_at <= ?"
ENTRY_SIZES = """
SELECT number, length(key) + CASE WHEN ?4 != 0 THEN length(value) ELSE 0 END FROM dict_entries
WHERE collection = ?1 AND number > ?2 AND expires_at > ?3 ORDER BY number LIMIT ?5"""
ENTRIES = """
SELECT number, key, CASE WHEN ?5 != 0 THEN value ELSE x'' END FROM dict_entries
WHERE collection = ?1 AND number > ?2 AND number <= ?3 AND expires_at > ?4 ORDER BY number"""
TRIM_ENTRIES = "DELETE FROM dict_entries WHERE expires_at <= ?"

PARTITION = "SELECT items, expires_at FROM queue_partitions WHERE collection = ? AND name = ?"
PARTITIONS = "SELECT count(*) FROM queue_partitions WHERE collection = ?"
PARTITIONS_HELD = """
SELECT name, items FROM queue_partitions WHERE collection = ? AND expires_at > ? ORDER BY name"""
PARTITIONS_EXPIRED = "SELECT collection, name FROM queue_partitions WHERE expires_at <= ?"
SET_PARTITION = """
INSERT INTO queue_partitions (collection, name, items, expires_at) VALUES (?, ?, ?, ?)
ON CONFLICT (collection, name) DO UPDATE SET items = excluded.items, expires_at = excluded.expires_at"""
LESSEN_PARTITION = "UPDATE queue_partitions SET items = items - ? WHERE collection = ? AND name = ?"
DROP_PARTITION = "DELETE FROM queue_partitions WHERE collection = ? AND name = ?"
DROP_PARTITION_ITEMS = "DELETE FROM queue_items WHERE collection = ? AND partition = ?"
DROP_PARTITIONS = "DELETE FROM queue_partitions WHERE collection = ?"
DROP_ITEMS = "DELETE FROM queue_items WHERE collection = ?"
ADD_ITEM = "INSERT INTO queue_items (collection, partition, value) VALUES (?, ?, ?)"
ITEM_SIZES = """
SELECT number, length(value) FROM queue_items
WHERE collection = ? AND partition = ? AND number > ? ORDER BY number LIMIT ?"""
ITEMS = """
SELECT number, value FROM queue_items
WHERE collection = ? AND partition = ? AND number > ? AND number <= ? ORDER BY number"""
DROP_ITEMS_TO = "DELETE FROM queue_items WHERE collection = ? AND partition = ? AND number <= ?"
