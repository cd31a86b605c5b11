"""How does PostgreSQL say what `statements` says? Mostly the same, with other marks for values; the rest is here."""

from __future__ import annotations

import re
from functools import cache

from swell.store import statements as sql

# -- connection -------------------------------------------------------------------------------

# Held for as long as the session lasts: the database is one server's.
OURS = "SELECT pg_advisory_lock(1400333676)"
LOCK_WAIT = "SET lock_timeout = '{}s'"
SYNC_LATER = "SET LOCAL synchronous_commit = off"
ONLY_READ = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
# What each transaction leaves behind. Rows are added and dropped, and none is ever changed: while somebody reads an old
# snapshot, as pg_dump does, all versions of one that was would be walked through.
MARK = "INSERT INTO commits (number) VALUES ({})"
MARKS = "SELECT number FROM commits WHERE number IN ($1, $2)"
DROP_MARKS = "DELETE FROM commits WHERE number < {}"
DROP_ALL_MARKS = "DELETE FROM commits"
ENCODING = "SELECT current_setting('server_encoding')"
NOT_SYNCED = "SELECT current_setting('fsync') = 'off'"
# Which database this is. A dump that was loaded has other tables; a standby that took over, or a recovery to a moment
# in the past, another timeline: the one that is written on now, not that of the last checkpoint.
PLACE = """
SELECT concat_ws('/', (pg_control_system()).system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'opened'::regclass::oid)"""
OPENED = "SELECT place, times FROM opened"
OPEN = "UPDATE opened SET place = $1, times = times + 1 RETURNING times"

# -- all rows ---------------------------------------------------------------------------------

HAS_STATE = "SELECT to_regclass('migrations') IS NOT NULL AND to_regclass('opened') IS NOT NULL"
EMPTY = "TRUNCATE {}"
NO_TRIGGERS = "ALTER TABLE {} DISABLE TRIGGER USER"
TRIGGERS_AGAIN = "ALTER TABLE {} ENABLE TRIGGER USER"
LOOK_AT = "ANALYZE {}"
NUMBERED = (
    ("events", "seq"),
    ("requests", "seq"),
    ("calls", "seq"),
    ("dict_entries", "number"),
    ("queue_items", "number"),
)
# The newest number that was given, by table, and of the ends of calls.
NUMBERS = """
SELECT regexp_replace(sequencename, '_(seq|number)_seq$', ''), coalesce(last_value, 0)
FROM pg_sequences WHERE schemaname = current_schema()"""
SET_NUMBER = """
SELECT setval(pg_get_serial_sequence('{0}', '{1}'), greatest(newest, 1), newest > 0)
FROM (SELECT greatest($1::bigint, max({1})) AS newest FROM {0}) AS numbers"""
SET_ENDS = "SELECT setval('call_ends', greatest($1::bigint, 1), $1::bigint > 0)"
DROP_ENDS = "DELETE FROM counters WHERE name = 'call_ends'"

# -- where it is said otherwise -----------------------------------------------------------------

# A key may be longer than a row of an index can be: it is found by its digest.
_BY_KEY = (
    *(sql.ENTRY, sql.HAS_ENTRY, sql.TOUCH_ENTRY, sql.ADD_ENTRY, sql.SET_ENTRY),
    *(sql.DROP_ENTRY, sql.DROP_ENTRY_EXPIRED),
)
_CALL = sql.CALL.removeprefix("SELECT ").partition(" FROM ")[0]
_ASKED = "SELECT jsonb_array_elements_text($1::jsonb)"


def _newest(which: str) -> str:
    """Of each workload and state, the newest; then the newest of these. In words that no index but theirs is of use
    for: by that of ids, all calls would be looked at for a state that none is in."""
    return f"""{sql.WORKLOADS.replace("?", "$")}
SELECT {_CALL} FROM known CROSS JOIN ({sql.STATES}) AS kind CROSS JOIN LATERAL (
    SELECT * FROM calls
    WHERE (workload, state) >= (of_workload, in_state) AND (workload, state, id) < (of_workload, in_state, $3::text)
    AND ($5::text IS NULL OR key = $5::text){which} ORDER BY workload DESC, state DESC, id DESC LIMIT $4
) AS newest WHERE of_workload <= $6 AND ($2::text = '' OR in_state = $2::text) ORDER BY id DESC LIMIT $4"""


_OTHERWISE = {
    sql.BEGIN: "BEGIN",
    sql.TABLES: "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
    sql.MAKE_MIGRATIONS: sql.MAKE_MIGRATIONS.replace("REAL", "FLOAT8").replace("INTEGER", "BIGINT"),
    sql.CALLS_OF_IDS: sql.CALLS_OF_IDS.replace("SELECT value FROM json_each(?) AS asked", _ASKED),
    sql.WHOSE_CALLS: sql.WHOSE_CALLS.replace("SELECT value FROM json_each(?) AS asked", _ASKED),
    sql.ENDS_OF_IDS: sql.ENDS_OF_IDS.replace("SELECT value FROM json_each(?1) AS asked", _ASKED).replace("?2", "$2"),
    sql.VARIANTS: sql.VARIANTS.replace("SELECT value FROM json_each(?) AS asked", _ASKED),
    sql.OTHER_KIND: f"""{sql.OTHER_KIND.partition("NOT IN (")[0].replace("?1", "$1")}NOT IN (
    SELECT value->>0, value->>1, value->>2 FROM jsonb_array_elements($2::jsonb) AS asked
) LIMIT 1""",
    sql.CALLS: _newest(""),
    sql.JOBS: _newest(" AND members > 0"),
    sql.LEASED_CALLS: f"SELECT {_CALL} FROM calls WHERE state = 'leased' ORDER BY id",
}


@cache
def said(statement: str) -> str:
    """The same in PostgreSQL's words."""
    if statement in _OTHERWISE:
        return _OTHERWISE[statement]
    if statement in _BY_KEY:
        statement = statement.replace("key = ?", "sha256(key) = sha256(?)")
        statement = statement.replace("(collection, key)", "(collection, sha256(key))")
    count = 0

    def mark(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${found[1] or count}"

    text = re.sub(r"\?(\d*)", mark, statement)
    text = text.replace("char(0x10ffff)", "chr(1114111)").replace("x''", "''::bytea")
    # Of several values, not of several rows.
    return re.sub(r"\bmax\(([\w.]+), ", r"greatest(\1, ", text)


@cache
def answered(statement: str) -> str:
    """The same, with exactly one row as its answer: where it has none, one of NULL alone."""
    return f"WITH one AS ({said(statement)}) SELECT one.* FROM (SELECT 1) AS always LEFT JOIN one ON true"
