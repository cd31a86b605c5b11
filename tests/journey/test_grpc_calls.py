"""Do keys, limits, sizes, deadlines and the end of the server hold over gRPC, each with its status?"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from journey.callers import APPS, why
from private_swell import PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVICE = "/inference.GRPCInferenceService"
OK = grpc.StatusCode.OK
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
WAIT_S = 120


@pytest.fixture(scope="module")
def zoo() -> Iterator[PrivateSwell]:
    with private_swell(grpc_port=0, body_max=2_000_000) as swell:
        swell.run("deploy", str(APPS / "models.py"))
        yield swell


@pytest.fixture(scope="module")
def channel(zoo: PrivateSwell) -> Iterator[grpc.Channel]:
    with connected(zoo) as channel:
        yield channel


def connected(swell: PrivateSwell, **options: Any) -> grpc.Channel:
    port = json.loads((swell.home / "lock").read_text())["grpc_port"]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[*options.items()])


def asked(model: str, array: Any, datatype: str) -> bytes:
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    made.inputs.add(name="x", datatype=datatype, shape=array.shape)
    return bytes(made.SerializeToString())


DOUBLE = asked("zoo--double", np.ones((1, 1), np.float32), "FP32")


def infer(channel: grpc.Channel, raw: bytes = DOUBLE, key: str = "", timeout: float = WAIT_S) -> tuple[Any, str, Any]:
    """The status of a call, its words, and its trailing metadata."""
    metadata = [("authorization", f"Bearer {key}")] if key else None
    try:
        _, call = channel.unary_unary(f"{SERVICE}/ModelInfer").with_call(raw, metadata=metadata, timeout=timeout)
    except grpc.RpcError as error:
        return error.code(), error.details() or "", dict(error.trailing_metadata() or ())
    return call.code(), "", dict(call.trailing_metadata())


def made(swell: PrivateSwell, name: str, *words: str) -> str:
    return swell.run("key", "create", name, *words).strip()


def runs(swell: PrivateSwell) -> bool:
    return any(one["in_flight"] for one in swell.serving() if one["workload"].endswith("/patient"))


# -- keys and limits --------------------------------------------------------------------------


def test_a_key_calls_what_it_has_a_scope_for_until_it_is_revoked(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    key = made(zoo, "caller", "--scope", "call:default/zoo")
    assert infer(channel, key=key)[0] is OK
    other = made(zoo, "other", "--scope", "call:default/elsewhere")
    status, words, _ = infer(channel, key=other)
    assert status is grpc.StatusCode.PERMISSION_DENIED
    assert "call:default/zoo" in words
    zoo.run("key", "revoke", "caller")
    status, words, _ = infer(channel, key=key)
    assert (status, "revoked" in words) == (grpc.StatusCode.UNAUTHENTICATED, True)


def test_a_key_that_has_expired_is_refused(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    key = made(zoo, "brief", "--scope", "call:default/zoo", "--expires", "1s")
    time.sleep(1.1)
    status, words, _ = infer(channel, key=key)
    assert (status, "expired" in words) == (grpc.StatusCode.UNAUTHENTICATED, True)


def test_a_limit_of_a_key_says_when_to_come_again(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    key = made(zoo, "paced", "--scope", "call:default/zoo", "--rate", "1/day", "--burst", "2")
    assert [infer(channel, key=key)[0] for _ in range(2)] == [OK, OK]
    status, words, told = infer(channel, key=key)
    assert (status, "the key paced" in words) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    assert 0 < int(told["retry-after"]) <= 86_400
    assert told["swell-request-id"]


def test_who_may_not_call_is_told_so_before_any_message_is_read(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    """It need not send one at all: the one of a caller with a wrong key would be kept for nothing."""
    over = threading.Event()

    def never() -> Iterator[bytes]:
        over.wait(WAIT_S)
        yield from ()

    wrong = [("authorization", "Bearer nobody")]
    try:
        for name in ("ModelInfer", "ModelMetadata", "ModelStreamInfer", "RepositoryIndex"):
            with pytest.raises(grpc.RpcError) as raised:
                for _ in channel.stream_stream(f"{SERVICE}/{name}")(never(), metadata=wrong, timeout=WAIT_S):
                    pass
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
    finally:
        over.set()
    key = made(zoo, "once", "--scope", "call:default/zoo", "--rate", "1/day", "--burst", "1")
    assert [infer(channel, key=key)[0] for _ in range(2)] == [OK, grpc.StatusCode.RESOURCE_EXHAUSTED]


def test_an_error_in_a_stream_says_which_request_it_is_of(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    request = pb.ModelInferRequest.FromString(asked("zoo--double", np.ones((1, 1), np.int32), "INT32"))
    request.id = "mine"
    sent = iter([request.SerializeToString(), DOUBLE])
    answers = [*channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(sent, timeout=WAIT_S)]
    refused, well = (pb.ModelStreamInferResponse.FromString(each) for each in answers)
    assert (refused.infer_response.id, well.error_message) == ("mine", "")
    found = re.search(r"\(request (\S+)\)$", refused.error_message)
    assert found is not None, refused.error_message
    assert why(zoo, found[1])["method"] == "V2 double"


@pytest.mark.parametrize(("status", "code"), [(201, "OK"), (203, "OK"), (409, "INTERNAL")])
def test_a_status_of_the_codes_own_is_ok_if_it_is_of_success(channel: grpc.Channel, status: int, code: str) -> None:
    assert infer(channel, asked("zoo--made", np.array([status]), "INT64"))[0].name == code


# -- what is no call --------------------------------------------------------------------------


def test_a_message_over_the_limit_is_refused_and_the_next_is_served(channel: grpc.Channel) -> None:
    big = asked("zoo--double", np.zeros((1, 5_000_000), np.float32), "FP32")
    assert infer(channel, big)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert infer(channel)[0] is OK


def test_metadata_of_100_kb_are_refused_and_the_next_call_is_served(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    assert infer(channel, key="x" * 100_000)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert infer(channel)[0] is OK


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("m" * 100_000, "", "NOT_FOUND"),
        ("zoo--double", "v" * 100_000, "NOT_FOUND"),
        ("../../healthz", "", "NOT_FOUND"),
        ("..", "", "NOT_FOUND"),
        ("a/b?c#d%00\n\0é", "", "NOT_FOUND"),
    ],
)
def test_names_that_are_none_are_not_found(channel: grpc.Channel, name: str, version: str, status: str) -> None:
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    code, words, _ = infer(channel, request.SerializeToString())
    assert (code.name, "Unexpected" in words) == (status, False), words
    told = pb.ModelMetadataRequest(name=name, version=version).SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"{SERVICE}/ModelMetadata")(told, timeout=WAIT_S)
    assert raised.value.code().name == status


def test_a_message_that_is_cut_short_anywhere_is_an_answer_or_a_refusal(channel: grpc.Channel) -> None:
    allowed = {OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    with ThreadPoolExecutor(8) as callers:
        found = set(callers.map(lambda size: infer(channel, DOUBLE[:size])[0], range(len(DOUBLE))))
    assert found <= allowed
    assert grpc.StatusCode.INVALID_ARGUMENT in found


# -- deadlines, leaving, the end --------------------------------------------------------------


def test_a_deadline_of_years_is_one(channel: grpc.Channel) -> None:
    assert infer(channel, timeout=10 * 365 * 86_400)[0] is OK


def test_who_leaves_a_stream_ends_its_work(zoo: PrivateSwell, channel: grpc.Channel) -> None:
    patient = asked("zoo--patient", np.array([2000]), "INT64")
    stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter([patient]))
    wait_until("it runs", lambda: runs(zoo))
    stream.cancel()
    wait_until("it is over", lambda: not runs(zoo))
    assert infer(channel)[0] is OK


WAITING = """
import os, time

import numpy as np
from numpy.typing import NDArray

import swell

app = swell.App("zoo")


@app.function()
@swell.concurrent(max_inputs=10)
def patient(x: NDArray[np.float32]) -> NDArray[np.float32]:
    while x[0, 0] and not os.path.exists({gate!r}):
        time.sleep(0.02)
    return x
"""


class Caller(threading.Thread):
    """Calls again and again on a connection of its own until told that it is over."""

    def __init__(self, swell: PrivateSwell, raw: bytes, over: threading.Event) -> None:
        super().__init__()
        self.channel = connected(swell, **{"grpc.use_local_subchannel_pool": 1})
        self.raw = raw
        self.over = over
        self.seen: Counter[grpc.StatusCode] = Counter()
        self.start()

    def run(self) -> None:
        with self.channel:
            while not self.over.is_set():
                self.seen[infer(self.channel, self.raw)[0]] += 1


def test_what_is_under_way_is_answered_when_the_server_ends_and_nothing_new_is_taken(tmp_path: Path) -> None:
    """And whoever calls just then is told what clients try again for: UNAVAILABLE, never CANCELLED."""
    gate, file = tmp_path / "gate", tmp_path / "waiting.py"
    file.write_text(WAITING.format(gate=str(gate)))
    waits, passes = (asked("zoo--patient", np.full((1, 1), number, np.float32), "FP32") for number in (1, 0))
    over = threading.Event()
    with private_swell(grpc_port=0, drain_s=200) as swell:
        swell.run("deploy", str(file))
        with connected(swell) as channel, ThreadPoolExecutor(2) as threads:
            under_way = threads.submit(infer, channel, waits)
            callers = [Caller(swell, passes, over) for _ in range(8)]
            try:
                wait_until("it runs", lambda: runs(swell))
                wait_until("all are served", lambda: all(caller.seen[OK] for caller in callers))
                down = threads.submit(swell.run, "down")
                wait_until("all are refused", lambda: all(caller.seen[UNAVAILABLE] for caller in callers))
                assert not under_way.done()
                gate.touch()
                assert under_way.result()[0] is OK
                down.result()
            finally:
                gate.touch()
                over.set()
                for caller in callers:
                    caller.join()
            assert set().union(*(caller.seen for caller in callers)) == {OK, UNAVAILABLE}
            assert infer(channel, passes)[0] is UNAVAILABLE


def test_a_stream_of_which_nothing_is_under_way_keeps_no_end_waiting(tmp_path: Path) -> None:
    """One that waits for an answer does."""
    gate, file = tmp_path / "gate", tmp_path / "waiting.py"
    file.write_text(WAITING.format(gate=str(gate)))
    waits, passes = (asked("zoo--patient", np.full((1, 1), number, np.float32), "FP32") for number in (1, 0))
    over = threading.Event()

    def sent(raw: bytes) -> Iterator[bytes]:
        yield raw
        over.wait(5 * WAIT_S)

    with private_swell(grpc_port=0, drain_s=5 * WAIT_S) as swell:
        swell.run("deploy", str(file))
        with connected(swell) as channel, ThreadPoolExecutor(1) as threads:
            idle, waiting = (channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(sent(raw)) for raw in (passes, waits))
            try:
                next(idle)
                wait_until("it runs", lambda: runs(swell))
                down = threads.submit(swell.run, "down")
                wait_until("nothing new is taken", lambda: infer(channel, passes)[0] is UNAVAILABLE)
                assert not down.done()
                gate.touch()
                assert pb.ModelStreamInferResponse.FromString(next(waiting)).error_message == ""
                down.result(timeout=WAIT_S)
                with pytest.raises(grpc.RpcError) as raised:
                    next(idle)
                assert raised.value.code() is UNAVAILABLE
            finally:
                gate.touch()
                over.set()
