"""Which limits are there, how high is each, whose is it, and who said so? For people to find the one they met. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from swell.control.call_waits import NAMED_MAX
from swell.control.call_waits import WAITING_MAX as CALLS_WAITING_MAX
from swell.control.event_triggers import WAITING_MAX as SOURCE_WAITING_MAX
from swell.control.feeds import HELD_MAX
from swell.control.inbox import WAITING_BYTES_MAX
from swell.control.kv import WAITING_MAX
from swell.control.triggers import WAITING_MAX as SCHEDULE_WAITING_MAX
from swell.decide import cache
from swell.decide.access import Holder, may_manage, may_see
from swell.decide.lineage import LINEAGE_MAX, lineage
from swell.model import kv, limits, secret, volume
from swell.model.call import PRIORITY_MAX, Keeping
from swell.model.key import ApiKey
from swell.model.kv import BOUNDS, Bounds
from swell.model.limits import Limits
from swell.model.variant import PARAMETERS_BYTES_MAX, is_variant
from swell.model.workload import NO_OPTIONS, App, Revision, Scaling, Workload, shown
from swell.wire import cloudevents, openai, shell, websocket
from swell.wire.api import LimitRow
from swell.wire.call_rows import ASKED_MAX
from swell.wire.calls import DELAY_MAX_S, GROUP_BODY_MAX, GROUP_INPUTS_MAX, INPUT_MAX, KEEP_MAX_S, KEEP_MIN_S
from swell.wire.http import HEADER_MAX, HEADERS_MAX_COUNT, KEPT_BYTES_MAX, RESULT_MAX
from swell.wire.loglines import LINE_MAX
from swell.wire.settings import Settings

SERVER = "server"
GATEWAY = "each gateway"
OF_A_GATEWAY = ("hold_max", "hold_bytes_max", "open_files", "records_per_pool", "response_cache_bytes_max")
"""Of the server, and of each of its gateways for itself where there are several."""
NOT_LIMITS = ("port", "grpc_port", "gateways")
"""Settings that are numbers and no limits."""
CODES: Mapping[str, tuple[str, ...]] = {
    "hold_max": ("too_many_held",),
    "hold_bytes_max": ("too_many_held",),
    "hold_s": ("held_too_long", "slow_client"),
    "blobs_max_gib": ("blobs_full",),
    "results_max_gib": ("results_full",),
    "queue_free_mib": ("state_full",),
    "queued_calls_max": ("too_many_queued",),
    "body_max": ("body_too_large",),
    "header_timeout_s": ("slow_client",),
    "body_timeout_s": ("slow_client",),
    "failing_max": ("no_replica",),
    "failing_wait_s": ("no_replica",),
    "restart_backoff_max_s": ("no_replica",),
    "drain_s": ("stopping",),
    "timeout_s": ("deadline",),
    "startup_timeout_s": ("no_replica",),
    "variants_max": ("too_many_variants",),
    "max_replicas": ("held_too_long", "too_many_held"),
    "max_inputs": ("held_too_long", "too_many_held"),
    "rate_per_s": ("rate_limited",),
    "burst": ("rate_limited",),
    "concurrency": ("too_many_in_flight",),
    "expires_at": ("key_expired",),
    "volume_bytes_max": ("volume_full",),
    "volume_files_max": ("volume_full",),
}
"""What is told over a limit of this name, whoever's it is."""
_UNITS = (
    ("rate_per_s", "requests/s"),
    ("expires_at", "s since the epoch"),
    ("bytes_max", "bytes"),
    ("calls_max", "calls"),
    ("body_max", "bytes"),
    ("files_max", "files"),
    ("_ms", "ms"),
    ("_mib", "MiB"),
    ("_gib", "GiB"),
    ("_days", "days"),
    ("_s", "s"),
    ("_share", "share"),
    ("cpu_limit", "cores"),
    ("cpu_overcommit", "times"),
    ("_inputs", "inputs"),
    ("_replicas", "replicas"),
    ("burst", "requests"),
    ("concurrency", "requests"),
)


def unit_of(name: str) -> str:
    """What a limit of this name is counted in."""
    return next((unit for end, unit in _UNITS if name.endswith(end)), "count")


def of_settings(settings: Settings) -> Iterator[LimitRow]:
    """Of the server, as its settings have them."""
    for part in (settings, settings.policy):
        for name in part.__struct_fields__:
            value = getattr(part, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in NOT_LIMITS:
                yield _row(name, value, SERVER, settings.sources.get(name, "default"))


def fixed(name: str, value: float, unit: str, *codes: str) -> LimitRow:
    """Of the server; it cannot be set."""
    return LimitRow(name, value, unit, SERVER, "fixed", codes)


def of_build() -> Iterator[LimitRow]:
    """Of the server, as every one of this version has them, whatever its machine and its adapters."""
    yield fixed("head_max", HEADER_MAX, "bytes", "headers_too_large")
    yield fixed("headers_max", HEADERS_MAX_COUNT, "headers", "headers_too_large")
    yield fixed("openai_body_max", openai.BODY_MAX, "bytes", "body_too_large")
    # Over it the session is closed, with 1009.
    yield fixed("websocket_message_max", websocket.MESSAGE_MAX, "bytes")
    # Beyond these it is answered as without @swell.cached.
    yield fixed("cached_body_max", cache.BODY_MAX, "bytes")
    yield fixed("cached_answer_max", cache.ANSWER_MAX, "bytes")
    yield fixed("longest_time_s", limits.SECONDS_MAX, "s", "invalid", "bad_limit")
    yield fixed("batch_size_max", limits.BATCH_SIZE_MAX, "inputs", "invalid")
    yield fixed("batch_wait_max_ms", limits.BATCH_WAIT_MS_MAX, "ms", "invalid")
    yield fixed("parameters_max", PARAMETERS_BYTES_MAX, "bytes", "bad_parameter")
    yield fixed("keys_in_row_max", LINEAGE_MAX, "keys", "invalid")
    yield fixed("secret_max", secret.BYTES_MAX, "bytes", "invalid")
    yield fixed("secret_variables_max", secret.KEYS_MAX, "variables", "invalid")
    # The oldest goes.
    yield fixed("secret_versions_kept", secret.VERSIONS_KEPT, "versions")
    yield fixed("volume_path_max", volume.PATH_MAX, "bytes", "bad_path")
    yield from of_kv(BOUNDS)
    yield from of_calls()
    yield from of_triggers()
    # What is source is refused where it is.
    yield fixed("bundle_max", limits.BUNDLE_MAX, "bytes")
    # Or a function's startup_timeout_s, if that is more.
    yield fixed("import_timeout_min_s", limits.IMPORT_TIMEOUT_MIN_S, "s", "import")
    yield fixed("build_timeout_s", limits.BUILD_TIMEOUT_S, "s", "environment")
    yield fixed("shell_session_s", shell.SESSION_S, "s", "deadline")
    # The rest of a line is cut.
    yield fixed("log_line_max", LINE_MAX, "characters")
    yield fixed("replica_processes_max", limits.PROCESSES_MAX, "processes")
    yield fixed("sandbox_processes_max", limits.SANDBOX_PROCESSES_MAX, "processes")
    yield fixed("sandbox_memory_mib", limits.SANDBOX_MEMORY_MIB, "MiB")
    yield fixed("sandbox_scratch_max_mib", limits.SANDBOX_SCRATCH_MAX_MIB, "MiB")


def of_kv(bounds: Bounds) -> Iterator[LimitRow]:
    """Of each dict and each queue, and of the server."""
    yield fixed("dicts_and_queues_max", bounds.collections_max, "dicts and queues", "too_many_collections")
    yield fixed("dict_key_max", bounds.key_bytes_max, "bytes", "value_too_large")
    yield fixed("dict_value_max", bounds.value_bytes_max, "bytes", "value_too_large")
    yield fixed("dict_entries_max", bounds.entries_max, "entries", "dict_full")
    # It expires when it was neither put nor got for so long.
    yield fixed("dict_entry_unused_s", kv.DICT_KEPT_S, "s")
    yield fixed("queue_item_max", bounds.item_bytes_max, "bytes", "value_too_large")
    yield fixed("queue_partition_items_max", bounds.items_max, "items", "queue_full", "value_too_large")
    yield fixed("queue_partitions_max", bounds.partitions_max, "partitions", "too_many_partitions")
    yield fixed("queue_partition_name_max", bounds.partition_name_bytes_max, "bytes", "bad_name")
    yield fixed("dict_or_queue_request_max", bounds.request_bytes_max, "bytes", "value_too_large")
    yield fixed("queue_waiting_max", WAITING_MAX, "requests", "busy")
    # Who lost the answer to a change and asks again within this time gets the same.
    yield fixed("dict_or_queue_answer_s", kv.ANSWER_KEPT_S, "s")


def of_calls() -> Iterator[LimitRow]:
    """Of each call in the queue, and of the server."""
    yield fixed("queued_call_input_max", INPUT_MAX, "bytes", "body_too_large")
    yield fixed("queued_call_result_max", RESULT_MAX, "bytes", "bad_result")
    # Of those that come in one request.
    yield fixed("queued_group_inputs_max", GROUP_INPUTS_MAX, "inputs", "bad_body")
    yield fixed("queued_group_body_max", GROUP_BODY_MAX, "bytes", "body_too_large")
    yield fixed("queued_call_delay_max_s", DELAY_MAX_S, "s", "bad_request")
    yield fixed("queued_call_priority_max", PRIORITY_MAX, "priority", "bad_request")
    # Of one API key as many as are free still: half of it at most. So it is with the ids.
    yield fixed("queued_calls_waiting_max", CALLS_WAITING_MAX, "requests", "busy")
    # Of those that are about to be written. A call beside its input counts as 1 KiB.
    yield fixed("queued_call_inbox_max", WAITING_BYTES_MAX, "bytes", "busy")
    # Of calls and groups, in these requests together; and in one.
    yield fixed("queued_calls_named_max", NAMED_MAX, "ids", "busy")
    yield fixed("queued_calls_asked_max", ASKED_MAX, "ids", "invalid")
    # Then it is forgotten.
    yield fixed("queued_call_result_s", Keeping().result_s, "s", "unknown_call")
    yield fixed("queued_call_dead_letter_s", Keeping().dead_letter_s, "s", "unknown_call")
    # What its sender may ask for instead.
    yield fixed("queued_call_keep_min_s", KEEP_MIN_S, "s", "bad_request")
    yield fixed("queued_call_keep_max_s", KEEP_MAX_S, "s", "bad_request")
    # Of each replica, while its runner is away: beyond that it begins none.
    yield fixed("queued_call_results_kept_max", KEPT_BYTES_MAX, "bytes")


def of_triggers() -> Iterator[LimitRow]:
    """Of what calls functions by itself, or for events."""
    # While so many calls that it made wait, a schedule makes no further ones.
    yield fixed("schedule_waiting_max", SCHEDULE_WAITING_MAX, "calls")
    yield fixed("event_name_max", cloudevents.NAME_MAX, "characters", "bad_event")
    yield fixed("event_batch_max", cloudevents.BATCH_MAX, "events", "bad_event")
    # While so many calls of a function wait, nothing more is taken of what it reads.
    yield fixed("source_waiting_max", SOURCE_WAITING_MAX, "calls")
    # Taken of a source, and not in the queue yet.
    yield fixed("source_held_max", HELD_MAX, "messages")


def of_app(app: App) -> Iterator[LimitRow]:
    """Of an app's workloads, as its source has them."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        if is_variant(workload.name) and workload.variant.options == NO_OPTIONS:
            # They are those of its class.
            continue
        yield from of_workload(workload, revisions[workload.revision])


def of_workload(workload: Workload, revision: Revision) -> Iterator[LimitRow]:
    """Of one workload. What differs from the default was asked for in the program."""
    owner = f"{shown(f'{workload.namespace}/{workload.app}')}/{workload.written}"
    unsaid = {field.name: field.default for kind in (Revision, Scaling) for field in msgspec.structs.fields(kind)}
    said = {
        "timeout_s": revision.timeout_s,
        "startup_timeout_s": revision.startup_timeout_s,
        "max_inputs": revision.max_inputs,
        "max_replicas": workload.scaling.max_replicas,
    }
    for name, value in said.items():
        yield _row(name, value, owner, "default" if value == unsaid[name] else "program")
    if revision.gives_time:
        yield _row("timeout_max_s", revision.timeout_max_s, owner, "program")
    for name in ("cpu_limit", "memory_limit_mib"):
        limit = getattr(revision.needs, name)
        if limit is not None:
            yield _row(name, limit, owner, "program")
    yield from _of_limits(workload.limits, owner, "@swell.limit")


def of_key(key: ApiKey) -> Iterator[LimitRow]:
    """Of an API key, as it was made."""
    owner = f"key {key.name} ({key.id})"
    yield from _of_limits(key.limits, owner, "swell key create")
    if key.expires_at is not None:
        yield _row("expires_at", key.expires_at, owner, "swell key create")


def every(
    settings: Settings, built: Iterable[LimitRow], apps: Iterable[App], keys: Iterable[ApiKey], holder: Holder
) -> list[LimitRow]:
    """All limits that the holder of a key may know of: the server's, its apps', the keys' that it may manage, is, or
    counts at. Whom a revoked key belongs to has no more of it."""
    rows = [*of_settings(settings), *of_build(), *built]
    if settings.gateways > 1:
        rows = [msgspec.structs.replace(row, owner=GATEWAY) if row.name in OF_A_GATEWAY else row for row in rows]
    for app in sorted(apps, key=lambda each: each.key):
        if may_see(holder, app.namespace, app.name):
            rows += of_app(app)
    known = {key.id: key for key in keys}
    own = {key.id for key in lineage(known[holder.id], known.get)} if holder.id in known else set()
    for key in known.values():
        if key.revoked_at is None and (key.id in own or may_manage(holder, key.scopes) is None):
            rows += of_key(key)
    return rows


def _of_limits(held: Limits, owner: str, source: str) -> Iterator[LimitRow]:
    for name in held.__struct_fields__:
        value = held.burst_max if name == "burst" and held.rate_per_s else getattr(held, name)
        if value:
            yield _row(name, value, owner, source)


def _row(name: str, value: float, owner: str, source: str) -> LimitRow:
    return LimitRow(name, value, unit_of(name), owner, source, CODES.get(name, ()))
