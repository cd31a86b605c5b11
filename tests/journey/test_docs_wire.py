"""Does docs/wire.md list every error that the code can answer, and nothing else? Codes are read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from swell.wire import http

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "swell"
WIRE = (ROOT / "docs" / "wire.md").read_text()

EVENTS = ("control/events.py", "wire/cloudevents.py")
"""Control judges them, and who posts one is answered as who calls."""
CALLS = (
    *EVENTS,
    *(
        "gateway/*.py",
        "wire/inference.py",
        "wire/malformed.py",
        "wire/openai.py",
        "model/variant.py",
        "decide/variants.py",
    ),
    *(f"decide/{name}.py" for name in ("access", "admit", "inference", "limit", "openai", "route")),
    *("runtime/arguments.py", "runtime/asgi.py", "runtime/batched.py", "runtime/call.py", "runtime/endpoint.py"),
    *(f"runtime/{name}.py" for name in ("hooks", "http", "inference", "openai", "results", "service", "stacked")),
    "runtime/websocket.py",
)
API = (
    "api/*.py",
    "control/*.py",
    "decide/access.py",
    "decide/lineage.py",
    "decide/volumes.py",
    "model/key.py",
    "model/kv.py",
    "model/limits.py",
    "model/variant.py",
    "decide/variants.py",
    "model/names.py",
    "model/traffic.py",
    "model/unknown.py",
    "model/volume.py",
    *(f"store/{name}.py" for name in ("blobs", "faults", "logs", "sealing", "tables", "volumes", "writer")),
    *(f"store/postgres_{name}.py" for name in ("faults", "link")),
)
DEPLOY = ("runtime/runner/builds.py",)
NOT_ANSWERED = {
    "bad_setting": "said by a server that cannot start",
    "state_foreign": "likewise",
    "enter_error": "why a replica did not start: in the log, and in the words of 503 no_replica",
    "state_lost": "said in the log when the server ends",
}
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
DEFAULT_STATUS = {"SwellError": 400, "NoRoute": 404}

Error = tuple[int | None, str]
"""(status, code); no status where the source does not say it on the spot."""


def raised(patterns: tuple[str, ...], but: tuple[str, ...] = ()) -> set[Error]:
    """Errors made by calls in these files, without some of them."""
    files = [
        path for pattern in patterns for path in SOURCE.glob(pattern) if path not in {SOURCE / name for name in but}
    ]
    assert len(files) >= len(patterns)
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    made = {error for node in nodes if isinstance(node, ast.Call) for error in _made(node)}
    return {(status, code) for status, code in made if code not in NOT_ANSWERED}


def _made(call: ast.Call) -> Iterator[Error]:
    """`SwellError("code", …, status=…)`, `fail(503, "code", …)`, `DeployLine(…, code="code")` and their like."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [argument.value if isinstance(argument, ast.Constant) else None for argument in call.args]
    named = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if name in DEFAULT_STATUS and given and isinstance(given[0], str):
        yield named.get("status", DEFAULT_STATUS[name]), given[0]
    elif name == "DeployLine" and isinstance(named.get("code"), str):
        yield None, str(named["code"])
    elif name == "BuildReport" and len(given) > 1 and isinstance(given[1], str):
        yield None, given[1]
    else:
        for status, code in pairwise(given):
            if isinstance(status, int) and 400 <= status < 600 and isinstance(code, str) and CODE.fullmatch(code):
                yield status, code


def documented(part: str) -> set[Error]:
    """The rows of a table of errors."""
    table = WIRE.partition(f"<!-- errors: {part} -->")[2].partition("<!-- end of errors -->")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines()[3:]]
    return {
        (None if status == "–" else int(status), code)
        for statuses, codes in rows
        for status in statuses.strip().split(", ")
        for code in re.findall(r"`(\w+)`", codes)
    }


def test_every_error_of_a_call_is_documented() -> None:
    assert raised(CALLS) == documented("calls")


def test_every_error_of_the_api_is_documented() -> None:
    found, told = raised(API, EVENTS) | {(None, code) for _, code in raised(DEPLOY)}, documented("api")
    assert {code for _, code in found} == {code for _, code in told}
    for status, code in told:
        if status is not None:
            assert {(status, code), (None, code)} & found, f"{code} is not answered with {status}"


def test_limits_and_reserved_paths_are_those_of_the_code() -> None:
    assert f"over {http.HEADER_MAX // 1024} KiB, or {http.HEADERS_MAX_COUNT} headers" in WIRE
    found = re.search(r"Reserved first segments[^:]*: `([^`]+)`", WIRE)
    assert found is not None
    tree = ast.parse((SOURCE / "decide" / "route.py").read_text())
    served = {
        n.value.value for n in ast.walk(tree) if isinstance(n, ast.MatchValue) and isinstance(n.value, ast.Constant)
    }
    assert served
    assert {f"/{name}" for name in served} <= set(found[1].split())


@pytest.mark.parametrize(
    "name", ["REQUEST_ID", "COST_USD", "REMAINING_MS", "BUSY", "CPU_US", "RUN_US", "ERROR", "TIMEOUT"]
)
def test_headers_are_named_as_in_the_code(name: str) -> None:
    assert f"`{getattr(http, name)}" in WIRE
