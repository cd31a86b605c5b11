"""Is every limit listed that a user can meet, with whose it is and who said so?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from journey.test_docs_wire import documented
from swell import wire
from swell.control.limits import NOT_LIMITS, every, of_app, of_settings, unit_of
from swell.decide import cache, lineage
from swell.decide.access import SERVER, Holder, Key
from swell.model import limits, secret, variant, volume
from swell.model.environment import Environment
from swell.model.key import ApiKey, scope_of
from swell.model.limits import Limits
from swell.model.policy import Policy
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.serve import built_limits
from swell.wire.api import LimitRow
from swell.wire.settings import Settings, load

STATUSES = {408, 413, 429, 431, 504}
NO_LIMIT = {
    "control_down",
    "stopping",
    "no_runner",
    "state_locked",
    "state_closed",
    "state_unreachable",
    "trigger_paused",
    "trigger_broken",
}
"""503s that come of what has gone, not of a number."""
EVERYTHING = Limits(2.0, 7, 3, 1000, 30.0)
OF_WORKLOAD = Limits(2.0, 7, 3, 1000)


def app(name: str, limits: Limits = OF_WORKLOAD, **more: object) -> App:
    entry = Entry("m", "f", "function", (Method("f"),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, **more)  # type: ignore[arg-type]
    workload = Workload("default", name, "f", revision.id, Scaling(max_replicas=5), limits=limits)
    return App("default", name, (workload,), (revision,))


KEY = ApiKey("abcd2345", "ci", b"", (scope_of("call:default/a"),), 1.0, 2.0, None, EVERYTHING)
REVOKED = ApiKey("gone2345", "old", b"", (scope_of("call:default/a"),), 1.0, 2.0, 1.5, EVERYTHING)


def rows(holder: Holder = SERVER) -> list[LimitRow]:
    return every(Settings(home="/"), built_limits(), [app("a"), app("b")], [KEY, REVOKED], holder)


def test_every_error_that_comes_of_a_limit_has_one_that_is_listed() -> None:
    told = {(status, code) for part in ("calls", "api") for status, code in documented(part)}
    of_limits = {code for status, code in told if status in STATUSES or (status == 503 and code not in NO_LIMIT)}
    assert {"rate_limited", "too_many_held", "body_too_large", "deadline", "busy", "held_too_long"} <= of_limits
    assert of_limits - {code for row in rows() for code in row.codes} == set()


def test_no_row_names_an_error_that_there_is_not() -> None:
    known = {code for part in ("calls", "api") for _, code in documented(part)}
    assert {code for row in rows() for code in row.codes} - known == set()


def test_every_number_among_the_settings_is_a_limit_with_its_unit() -> None:
    listed = {row.name: row for row in of_settings(Settings(home="/"))}
    for kind in (Settings, Policy):
        for field in msgspec.structs.fields(kind):
            if field.type in (int, float) and field.name not in NOT_LIMITS:
                assert listed[field.name].value == field.default
    for name, unit in (("hold_s", "s"), ("slow_ms", "ms"), ("log_max_mib", "MiB"), ("cache_max_gib", "GiB")):
        assert unit_of(name) == unit
    for name, unit in (
        ("hold_bytes_max", "bytes"),
        ("body_max", "bytes"),
        ("hold_max", "count"),
        ("cache_days", "days"),
    ):
        assert listed[name].unit == unit


BUILT_IN = {
    "head_max": wire.http.HEADER_MAX,
    "headers_max": wire.http.HEADERS_MAX_COUNT,
    "openai_body_max": wire.openai.BODY_MAX,
    "websocket_message_max": wire.websocket.MESSAGE_MAX,
    "cached_answer_max": cache.ANSWER_MAX,
    "longest_time_s": limits.SECONDS_MAX,
    "batch_size_max": limits.BATCH_SIZE_MAX,
    "parameters_max": variant.PARAMETERS_BYTES_MAX,
    "keys_in_row_max": lineage.LINEAGE_MAX,
    "secret_max": secret.BYTES_MAX,
    "secret_variables_max": secret.KEYS_MAX,
    "volume_path_max": volume.PATH_MAX,
    "bundle_max": limits.BUNDLE_MAX,
    "queued_call_input_max": wire.calls.INPUT_MAX,
    "queued_call_result_max": wire.http.RESULT_MAX,
    "queued_group_inputs_max": wire.calls.GROUP_INPUTS_MAX,
    "queued_group_body_max": wire.calls.GROUP_BODY_MAX,
    "queued_calls_asked_max": wire.call_rows.ASKED_MAX,
    "queued_call_keep_min_s": wire.calls.KEEP_MIN_S,
    "queued_call_keep_max_s": wire.calls.KEEP_MAX_S,
    "queued_call_results_kept_max": wire.http.KEPT_BYTES_MAX,
    "queued_call_delay_max_s": wire.calls.DELAY_MAX_S,
    "queued_call_result_s": 7 * 86_400,
    "queued_call_dead_letter_s": 30 * 86_400,
    "import_timeout_min_s": limits.IMPORT_TIMEOUT_MIN_S,
    "build_timeout_s": limits.BUILD_TIMEOUT_S,
    "shell_session_s": wire.shell.SESSION_S,
    "log_line_max": wire.loglines.LINE_MAX,
    "replica_processes_max": limits.PROCESSES_MAX,
    "sandbox_processes_max": limits.SANDBOX_PROCESSES_MAX,
    "sandbox_memory_mib": limits.SANDBOX_MEMORY_MIB,
    "sandbox_scratch_max_mib": limits.SANDBOX_SCRATCH_MAX_MIB,
}
"""What callers and authors are refused by, or cut at, without anybody having set it."""


def test_what_nobody_can_set_is_listed_with_the_value_that_holds() -> None:
    listed = {row.name: (row.value, row.owner, row.source) for row in rows()}
    assert {name: listed.get(name) for name in BUILT_IN} == {
        name: (value, "server", "fixed") for name, value in BUILT_IN.items()
    }
    assert listed["blob_max"][2] == listed["api_body_max"][2] == listed["open_files"][2] == "fixed"
    assert [row.name for row in rows() if row.owner == "server"] == list(
        dict.fromkeys(row.name for row in rows() if row.owner == "server")
    ), "none twice"


def test_a_value_says_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "swell.toml").write_text("hold_max = 2\nhold_s = 2\nbody_max = 2\n[policy]\nfailing_max = 2\n")
    (tmp_path / "pyproject.toml").write_text("[tool.swell]\nhold_max = 1\nslow_ms = 1\n")
    environ = {"SWELL_HOME": "/h", "SWELL_HOLD_S": "3", "SWELL_BODY_MAX": "3"}
    settings = load({"body_max": "4", "drain_s": None}, environ, tmp_path)
    # It goes to the server's processes as JSON.
    settings = msgspec.json.decode(msgspec.json.encode(settings), type=Settings)
    said = {row.name: (row.value, row.source) for row in of_settings(settings)}
    assert said["body_max"] == (4, "flag")
    assert said["hold_s"] == (3, "environment")
    assert said["hold_max"] == (2, f"file:{tmp_path / 'swell.toml'}")
    assert said["failing_max"] == (2, f"file:{tmp_path / 'swell.toml'}")
    assert said["slow_ms"] == (1, f"file:{tmp_path / 'pyproject.toml'}")
    assert said["drain_s"] == (30, "default")


def test_a_workload_has_what_its_program_says_and_the_defaults() -> None:
    found = {
        row.name: (row.value, row.source)
        for row in of_app(app("a", timeout_s=9.0, needs=Needs(cpu_limit=2.0, memory_limit_mib=64)))
    }
    assert found == {
        "timeout_s": (9, "program"),
        "startup_timeout_s": (300, "default"),
        "max_inputs": (1, "default"),
        "max_replicas": (5, "program"),
        "cpu_limit": (2, "program"),
        "memory_limit_mib": (64, "program"),
        "rate_per_s": (2, "@swell.limit"),
        "burst": (7, "@swell.limit"),
        "concurrency": (3, "@swell.limit"),
        "body_max": (1000, "@swell.limit"),
    }


def test_what_each_of_several_gateways_has_for_itself_is_said_to_be_its() -> None:
    of_each = {"hold_max", "hold_bytes_max", "open_files", "records_per_pool", "response_cache_bytes_max"}
    for gateways, owned in ((1, set()), (2, of_each)):
        told = every(Settings(home="/", gateways=gateways), built_limits(), [], [], SERVER)
        assert {row.name for row in told if row.owner == "each gateway"} == owned
        assert {row.name for row in told if row.owner == "server"} >= {"body_max", "drain_s"}


@pytest.mark.parametrize(
    ("held", "id", "owners"),
    [
        ("call:default/a", "other222", {"server", "a/f"}),
        ("call:default/a", KEY.id, {"server", "a/f", "key ci (abcd2345)"}),
        ("admin:default/*", "other222", {"server", "a/f", "b/f", "key ci (abcd2345)"}),
    ],
)
def test_who_may_not_know_of_it_is_not_told(held: str, id: str, owners: set[str]) -> None:
    holder = Holder(Key.OURS, (scope_of(held),), id)
    assert {row.owner for row in rows(holder)} == owners
