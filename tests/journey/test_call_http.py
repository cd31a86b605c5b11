"""What does a caller get that knows nothing but HTTP: what is taken, what is answered, what is told beside it?"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journey.callers import ask, call, events, why
from private_swell import Answer, PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import os, time
import swell

app = swell.App("plainly")

@app.function()
def total(a: int, b: float = 0.5) -> dict:
    return {"total": a + b, "raw": b"\\x00\\xff"}

@app.function()
def slowly(to: int, gate: str):
    for number in range(to):
        yield {"n": number}
        while not os.path.exists(gate):
            time.sleep(0.01)

@app.cls(scaledown_window=2)
class Box:
    @swell.enter()
    def fill(self):
        self.held = ["tea"]

    @swell.method()
    def look(self, at: int = 0) -> str:
        return self.held[at]
"""
MSGPACK, FRAMES = "application/msgpack", "application/x-swell-frames"


@pytest.fixture(scope="module")
def plainly(own_swell: PrivateSwell) -> PrivateSwell:
    file = own_swell.scratch / "plainly.py"
    file.write_text(PROGRAM)
    own_swell.run("deploy", str(file))
    return own_swell


def post(swell: PrivateSwell, target: str, body: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(swell, "POST", f"/call/plainly/{target}", body, named)


@pytest.mark.parametrize("encode", [json.dumps, msgspec.msgpack.encode], ids=["json", "msgpack"])
@pytest.mark.parametrize("arguments", [{"a": 1, "b": 2}, [1, 2]], ids=["by name", "by position"])
def test_arguments_by_name_or_position_in_either_type_and_the_bare_result_in_the_one_that_is_wanted(
    plainly: PrivateSwell, encode: Any, arguments: object
) -> None:
    sent = encode(arguments)
    kind = "application/json" if isinstance(sent, str) else MSGPACK
    body = sent.encode() if isinstance(sent, str) else sent
    plain = post(plainly, "total", body, content_type=kind)
    assert (plain.headers["content-type"], plain.value) == ("application/json", {"total": 3.0, "raw": "AP8="})
    packed = post(plainly, "total", body, content_type=kind, accept=MSGPACK)
    assert packed.headers["content-type"] == MSGPACK
    assert msgspec.msgpack.decode(packed.body) == {"total": 3.0, "raw": b"\x00\xff"}


def test_a_method_is_called_by_its_class(plainly: PrivateSwell) -> None:
    assert post(plainly, "Box.look", b'{"at": 0}').body == b'"tea"'


def test_times_and_marginal_cost_stand_beside_an_answer_and_shares_of_other_costs_in_its_explanation_alone(
    plainly: PrivateSwell,
) -> None:
    wait_until("its replica has gone", lambda: not boxes(plainly))
    cold = call(plainly, "plainly/Box.look")
    warm = call(plainly, "plainly/Box.look")
    for reply in (cold, warm):
        assert {"held", "connect", "run", "send", "total"} <= reply.phases_ms.keys()
        assert float(reply.headers["swell-cost-usd"]) > 0
    assert cold.headers["swell-cold"] == "1"
    assert {name for name in cold.headers if name.startswith("swell-")} == {
        "swell-request-id",
        "swell-cost-usd",
        "swell-cold",
    }
    assert {name for name in warm.headers if name.startswith("swell-")} == {"swell-request-id", "swell-cost-usd"}
    wait_until("its replica has gone", lambda: not boxes(plainly))
    record = why(plainly, cold.request)
    assert float(cold.headers["swell-cost-usd"]) == pytest.approx(record["marginal_usd"], rel=1e-3)
    assert record["cold_share_usd"] > 0
    assert record["idle_share_usd"] > 0


def boxes(swell: PrivateSwell) -> list[object]:
    return [row for row in swell.serving() if row["workload"].endswith("/Box")]


@pytest.mark.parametrize("accept", ["*/*", FRAMES, f"{FRAMES}, {MSGPACK}"])
def test_a_stream_says_whose_it_is_at_once_and_its_times_and_cost_at_the_end(
    plainly: PrivateSwell, tmp_path: Path, accept: str
) -> None:
    gate = tmp_path / "gate"
    body = json.dumps({"to": 3, "gate": str(gate)}).encode()
    head = f"POST /call/plainly/slowly HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", plainly.port), timeout=60) as caller:
        caller.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
        begun = b""
        while items(begun, accept) != [{"n": 0}]:
            part = caller.recv(65536)
            assert part, begun
            begun += part
        # The rest is not there yet.
        headers = begun.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
        assert headers[1].startswith("swell-request-id: ")
        assert not any(line.startswith(("server-timing:", "swell-cost-usd:")) for line in headers)
        time.sleep(0.2)
        gate.touch()
        whole = begun
        while part := caller.recv(65536):
            whole += part
    assert items(whole, accept) == [{"n": 0}, {"n": 1}, {"n": 2}]
    trailers = dict(
        line.split(": ", 1) for line in whole.decode("latin-1").lower().split("\r\n0\r\n")[1].split("\r\n") if line
    )
    assert {"held", "run", "total"} <= {entry.partition(";")[0] for entry in trailers["server-timing"].split(", ")}
    assert float(trailers["swell-cost-usd"]) > 0
    request = headers[1].partition(": ")[2]
    assert why(plainly, request)["status"] == 200


def items(raw: bytes, accept: str) -> list[object]:
    """What is in the whole chunks of an answer that came so far: events, or frames of either type."""
    content, rest = b"", raw.partition(b"\r\n\r\n")[2]
    while (size := rest.partition(b"\r\n"))[1] and len(size[2]) > int(size[0], 16) > 0:
        content += size[2][: int(size[0], 16)]
        rest = size[2][int(size[0], 16) + 2 :]
    if accept == "*/*":
        return [data for kind, data in events(content) if kind == "message"] if content else []
    found: list[object] = []
    while len(content) >= 4 + (length := int.from_bytes(content[:4], "big")) and length:
        kind, payload, content = content[4:5], content[5 : 4 + length], content[4 + length :]
        if kind == b"i":
            found.append(msgspec.msgpack.decode(payload) if MSGPACK in accept else json.loads(payload))
    return found
