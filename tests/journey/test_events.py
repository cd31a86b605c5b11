"""Is a function called once for each event that is posted, and by nobody else than who may send them?"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from private_swell import Failed, PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow]

PROGRAM = """
import swell

app = swell.App("shop")

@app.function(trigger=swell.HttpEvents())
def paid(event: swell.Event) -> dict:
    return {"id": event.id, "of": event.source, "data": event.data, "when": str(event.time), **event.extensions}

@app.function(trigger=swell.HttpEvents(secret=swell.Secret.from_name("hook"), header="X-Sign"))
def pushed(event: swell.Event) -> str:
    return repr(event.data)

@app.function()
def relay(id: str) -> str:
    return paid.spawn(swell.Event(id=id, source="/mine", type="t", data={1, 2})).object_id
"""
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "7",
    "ce-source": "/till/3",
    "ce-type": "order.paid",
    "ce-time": "2027-01-31T09:00:00Z",
    "ce-traceparent": "00-1",
    "content-type": "application/json",
}
STRUCTURED = {"content-type": "application/cloudevents+json"}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    file = tmp_path_factory.mktemp("shop") / "shop.py"
    file.write_text(PROGRAM)
    with unstarted_swell() as swell:
        swell.run("up", "-d")
        swell.run("secret", "create", "hook", "KEY=k3y")
        swell.run("deploy", str(file))
        yield swell


def post(swell: PrivateSwell, function: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and answer; sent again while control is away, as senders of events do."""
    answers: list[tuple[int, dict[str, Any]]] = []

    def answered() -> bool:
        url = f"http://127.0.0.1:{swell.port}/trigger/shop/{function}"
        try:
            with urlopen(Request(url, body, headers, method="POST"), timeout=60) as answer:
                answers.append((answer.status, json.load(answer)))
        except HTTPError as error:
            told = json.load(error)
            if told["error"]["code"] == "control_down":
                return False
            answers.append((error.code, told["error"]))
        except OSError:
            return False
        return True

    wait_until(f"{function} answers", answered, pause_s=0.2)
    return answers[-1]


def result(swell: PrivateSwell, call: str) -> Any:
    rows: list[Any] = []

    def done() -> bool:
        with suppress(Failed):
            rows.append(swell.get(f"/calls/{call}"))
        return bool(rows) and rows[-1]["state"] == "done"

    wait_until(f"{call} is done", done)
    return rows[-1]["result"]


def test_an_event_is_one_call_in_either_mode_whatever_dies(there: PrivateSwell) -> None:
    status, first = post(there, "paid", b'{"sum": 9}', **BINARY)
    assert status == 202
    killed = there.server("control")
    os.kill(killed, signal.SIGKILL)
    whole = {name.removeprefix("ce-"): value for name, value in BINARY.items() if name.startswith("ce-")}
    body = json.dumps({**whole, "data": {"sum": 9}}).encode()
    assert post(there, "paid", body, **STRUCTURED) == (202, first)
    other = post(
        there, "paid", json.dumps({**whole, "id": "8"}).encode(), **{"content-type": "application/cloudevents+json"}
    )
    assert other[0] == 202
    assert other[1] != first
    told = {"id": "7", "of": "/till/3", "data": {"sum": 9}, "when": "2027-01-31 09:00:00+00:00", "traceparent": "00-1"}
    assert result(there, first["id"]) == told
    assert result(there, other[1]["id"])["data"] is None
    history = json.loads(there.run("trigger", "history", "shop/paid", "--json"))
    assert [(each["id"], each["how"], each["call"]) for each in history] == [
        ("/till/3 8", "event", other[1]["id"]),
        ("/till/3 7", "event", first["id"]),
    ]


def test_an_event_that_code_brings_is_one_call_however_often_it_does(there: PrivateSwell) -> None:
    with there.connect() as client:
        first, again, other = (client.call("shop/relay", {"id": id}).value for id in ("1", "1", "2"))
    assert first == again != other
    made = json.loads(there.run("calls", "list", "shop", "--json"))
    assert {first, other} <= {each["id"] for each in made}


def test_what_is_signed_is_taken_and_nothing_else(there: PrivateSwell) -> None:
    body = b"plain words"
    headers = {**BINARY, "content-type": "text/plain"}
    signed = hmac.new(b"k3y", body, hashlib.sha256).hexdigest()
    status, told = post(there, "pushed", body, **headers, **{"X-Sign": f"sha256={signed}"})
    assert status == 202
    assert result(there, told["id"]) == "'plain words'"
    for wrong in ({}, {"X-Sign": "sha256=0"}):
        status, error = post(there, "pushed", body, **headers, **wrong)
        assert (status, error["code"]) == (401, "bad_signature")


def test_what_is_none_is_told_and_what_is_paused_takes_none(there: PrivateSwell) -> None:
    status, error = post(there, "paid", b"{}", **{**BINARY, "ce-specversion": "0.3"})
    assert (status, error["code"]) == (400, "bad_event")
    assert error["message"].startswith("specversion is 1.0")
    there.run("trigger", "pause", "shop/paid")
    status, error = post(there, "paid", b"{}", **{**BINARY, "ce-id": "9"})
    assert (status, error["code"]) == (503, "trigger_paused")
    assert "paused" in there.run("trigger", "list", "shop")
    there.run("trigger", "resume", "shop/paid")
    assert post(there, "paid", b"{}", **{**BINARY, "ce-id": "9"})[0] == 202
    with pytest.raises(Failed, match="has no schedule"):
        there.run("trigger", "fire", "shop/paid")
