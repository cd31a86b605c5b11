"""What is said while a call waits, and of one that failed: short, and with the way to learn more."""

from __future__ import annotations

import pytest

from swell.cli.call import _refusal, waiting_for
from swell.cli.output import beside
from swell.sdk.protocol import Answer
from swell.wire import http
from swell.wire.api import ReplicaRow


def row(id: str, role: str, phase: str) -> ReplicaRow:
    return ReplicaRow(id, "default/hello/greet", "rv-0", role, phase, "local", 7, 1.0, 1, 10.0, "wanted", ())


STARTING, PLANNED = row("r14-27", "serving", "starting"), row("r14-28", "serving", "planned")
TEMPLATE, PARKED = row("r14-26", "template", "starting"), row("r14-26", "template", "ready")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "waiting for a replica"),
        ([PARKED], "waiting for a replica"),
        ([TEMPLATE], "waiting for a replica: its template is starting"),
        ([STARTING, PARKED], "waiting for a replica: r14-27 is starting"),
        ([STARTING, TEMPLATE], "waiting for a replica: its template is starting"),
        ([PLANNED] * 9, "waiting for a replica: r14-28 is planned, 8 more"),
        ([STARTING, row("r14-29", "serving", "ready")], "a replica is ready; waiting for its answer"),
    ],
)
def test_what_a_call_waits_for_fits_80_columns(rows: list[ReplicaRow], said: str) -> None:
    assert waiting_for(rows) == said
    assert beside("Calling hello/greet", said, 80) == said


@pytest.mark.parametrize(
    ("code", "at", "ways"),
    [
        ("no_replica", "default/hello/greet", "More: `swell logs hello`, `swell why q7`."),
        ("no_replica", "staging/hello/greet", "More: `swell logs staging/hello`, `swell why q7`."),
        ("exception", "default/hello/greet", "More: `swell logs --request q7`, `swell why q7`."),
        ("deadline", "default/hello/greet", "More: `swell why q7`."),
        ("unknown_app", "default/hello/greet", "It failed."),
    ],
)
def test_a_failed_call_names_where_more_is_told(code: str, at: str, ways: str) -> None:
    refused = _refusal(Answer(503, {}, http.error_body(code, "It failed.", "q7")), at)
    assert refused.message.endswith(ways)
