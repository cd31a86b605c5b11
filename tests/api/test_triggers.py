"""What is a caller told about triggers over the API, and who may change them?"""

from __future__ import annotations

import httpx2
import msgspec
import pytest

from api.served import FIRING, TRIGGER, Server, error
from api.test_calls import key
from swell.api.validate import problems
from swell.model.environment import Environment
from swell.model.schedule import Cron, Period, Schedule
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.wire.triggers import Backfill, FiringRow

ONE = "/api/apps/default/a/triggers/f"


@pytest.fixture
def asked(server: Server) -> list[object]:
    server.triggers.asked.clear()
    return server.triggers.asked


def test_what_is_asked_reaches_the_triggers(client: httpx2.Client, asked: list[object]) -> None:
    assert client.get("/api/triggers?app=a").json() == [msgspec.to_builtins(TRIGGER)]
    assert client.get("/api/triggers?namespace=n").status_code == 200
    assert client.get(f"{ONE}/firings?limit=7").json()[0]["call"] == "fc-1"
    assert client.post(f"{ONE}/pause").json()["name"] == "f"
    assert client.post(f"{ONE}/resume").json()["name"] == "f"
    assert client.post(f"{ONE}/fire").json() == {"call": "fc-1"}
    done = client.post(f"{ONE}/backfill", json={"since": 1.0})
    assert done.json() == {"calls": ["fc-1"], "fired_before": 2}
    it = ("default", "a", "f")
    expected = [("firings", *it, 7), ("pause", *it, True), ("pause", *it, False), ("fire", *it)]
    assert asked == [("rows", "default", "a"), ("rows", "n", ""), *expected, ("backfill", *it, Backfill(1.0))]
    for path in ("/api/triggers?app=%00", f"{ONE}/firings?limit=0", f"{ONE}/firings?limit=1001"):
        assert error(client.get(path), 400)["code"] == "bad_request"
    for body in ({}, {"since": "x"}, {"since": 1.0, "till": 2.0}):
        assert client.post(f"{ONE}/backfill", json=body).status_code in (400, 422)


def test_who_may_call_an_app_sees_its_triggers_and_who_may_deploy_it_changes_them(
    client: httpx2.Client, asked: list[object]
) -> None:
    looks = [("GET", "/api/triggers?app=a"), ("GET", f"{ONE}/firings")]
    changes = [("POST", f"{ONE}/{what}") for what in ("pause", "resume", "fire", "backfill")]
    callers, owners, others = key(client, "call", "a"), key(client, "deploy", "a"), key(client, "admin", "b")
    for method, path in (*looks, *changes):
        body = {"since": 1.0} if path.endswith("backfill") else None
        assert client.request(method, path, headers=owners, json=body).status_code == 200
        allowed = client.request(method, path, headers=callers, json=body).status_code == 200
        assert allowed is ((method, path) in looks)
        assert error(client.request(method, path, headers=others, json=body), 403)["code"] == "no_scope"


def test_the_ids_of_its_calls_are_for_who_may_deploy_it(client: httpx2.Client, server: Server) -> None:
    """They came with no key, so that without one, too, their results may be asked for by id."""
    firing = msgspec.to_builtins(FIRING)
    for headers in (None, key(client, "deploy", "a", "ids"), key(client, "admin", "*", "ids")):
        assert client.get(f"{ONE}/firings", headers=headers).json() == [firing]
    assert client.get(f"{ONE}/firings", headers=key(client, "call", "a", "ids")).json() == [{**firing, "call": ""}]
    # So are those of events, which are of what their sources brought.
    event = FiringRow('[1,"ada@example.org"]', 1.0, 1.5, "event", "fc-1", "done")
    server.triggers.found = [event]
    try:
        assert client.get(f"{ONE}/firings").json() == [msgspec.to_builtins(event)]
        (told,) = client.get(f"{ONE}/firings", headers=key(client, "call", "a", "events")).json()
        assert (told["id"], told["call"], told["how"]) == ("", "", "event")
    finally:
        server.triggers.found = [FIRING]


def scheduled(schedule: Schedule, *methods: Method, kind: str = "function") -> App:
    entry = Entry("m", "f", kind, methods or (Method("f"),))  # type: ignore[arg-type]
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-" + "0" * 64, entry)
    return App("default", "a", (Workload("default", "a", "f", revision.id, schedule=schedule),), (revision,))


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (scheduled(Cron("0 9 * *")), "workload 'f': schedule=Cron(…): '0 9 * *' has 4 fields"),
        (scheduled(Cron("0 9 31 2 *")), "workload 'f': schedule=Cron(…): '0 9 31 2 *' never comes"),
        (scheduled(Period()), "workload 'f': schedule=Period(…): it is between one second and 50 years"),
        (scheduled(Period(days=1), Method("f", generator=True)), "is of a function that is called and returns once"),
        (scheduled(Period(days=1), Method("g"), kind="cls"), "is of a function that is called and returns once"),
        (scheduled(Period(days=1)), ""),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_at_deploy(app: App, words: str) -> None:
    found = [each for each in problems(app) if "schedule" in each]
    assert (words in found[0]) if words else not found
