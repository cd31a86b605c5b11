"""Do models answer over gRPC as clients that are not ours speak it, and does the door survive what is no protocol?"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from journey.callers import APPS, why
from private_swell import PrivateSwell, free_port, private_swell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVICE = "/inference.GRPCInferenceService"


def address(swell: PrivateSwell) -> str:
    return f"127.0.0.1:{json.loads((swell.home / 'lock').read_text())['grpc_port']}"


@pytest.fixture(scope="module")
def zoo() -> Iterator[PrivateSwell]:
    with private_swell(grpc_port=0, body_max=2_000_000) as swell:
        swell.run("deploy", str(APPS / "models.py"))
        yield swell


@pytest.fixture(scope="module")
def client(zoo: PrivateSwell) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(zoo)) as client:
        yield client


def given(name: str, array: Any) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array)


def refused(client: triton.InferenceServerClient, model: str, *inputs: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as raised:
        client.infer(model, [*inputs], **more)
    return raised.value.status().removeprefix("StatusCode."), raised.value.message()


def test_a_server_and_its_models_are_described(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "swell"
    assert [client.is_model_ready(name) for name in ("zoo--add", "zoo--none")] == [True, False]
    told = client.get_model_metadata("zoo--Stats-moments")
    assert [(each.name, each.datatype, [*each.shape]) for each in told.inputs] == [("x", "FP64", [-1, -1])]
    assert [each.name for each in told.outputs] == ["mean", "count"]
    assert client.is_model_ready("zoo--Stats-moments", told.versions[0])
    assert "zoo--double" in [each.name for each in client.get_model_repository_index().models]


def test_a_batched_model_answers_with_the_rows_of_each_and_what_is_kept(client: triton.InferenceServerClient) -> None:
    first = client.infer("zoo--total", [given("x", np.array([[1, 2], [3, 4]]))])
    assert first.as_numpy("total").tolist() == [3, 7]
    again, other = (client.infer("zoo--total", [given("x", np.array(rows))]) for rows in ([[1, 2], [3, 4]], [[1, 2]]))
    assert again.as_numpy("at").tolist() == first.as_numpy("at").tolist()
    assert other.as_numpy("at").tolist() != first.as_numpy("at").tolist()[:1]
    said, words = refused(client, "zoo--total", given("x", np.array([1, 2])))
    assert (said, "takes INT64 [-1, 2]" in words) == ("INVALID_ARGUMENT", True)


def test_a_model_at_zero_answers_with_its_times(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = client.infer("zoo--double", [given("x", array)], request_id="mine")
    assert result.as_numpy("output").tolist() == (array * 2).tolist()
    assert result.get_response().id == "mine"


def test_outputs_and_parameters(client: triton.InferenceServerClient) -> None:
    a = np.array([[1, 2], [3, 4]], np.int32)
    only = client.infer("zoo--add", [given("a", a)], outputs=[triton.InferRequestedOutput("sum")])
    assert [each.name for each in only.get_response().outputs] == ["sum"]
    loud = client.infer("zoo--upper", [given("texts", np.array([b"hi"], object))], parameters={"suffix": "!"})
    assert loud.as_numpy("texts").tolist() == [b"HI!"]


def test_what_does_not_fit_has_its_status(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    status, said = refused(client, "zoo--add", given("a", np.zeros(3, np.int32)))
    assert (status, "tensor 'a' has shape [3]".lower() in said.lower()) == ("INVALID_ARGUMENT", True)
    assert refused(client, "zoo--duble", given("x", np.zeros(3)))[0] == "NOT_FOUND"
    status, said = refused(client, "zoo--same", given("x", np.zeros(3)), parameters={"boom": "now"})
    assert (status, said) == ("INTERNAL", "ValueError: boom now")
    status, said = refused(client, "zoo--slow", given("x", np.array([30])))
    assert (status, "timeout= of the function" in said) == ("DEADLINE_EXCEEDED", True)
    big = given("x", np.zeros(600_000, np.float32))
    assert refused(client, "zoo--double", big)[0] == "RESOURCE_EXHAUSTED"
    assert client.is_server_live()


def test_a_wrong_key_is_refused_and_a_right_one_taken(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    x = given("x", np.ones((1, 1), np.float32))
    assert refused(client, "zoo--double", x, headers={"authorization": "Bearer nobody"})[0] == "UNAUTHENTICATED"
    key = (zoo.home / "key").read_text().strip()
    assert client.infer("zoo--double", [x], headers={"authorization": f"Bearer {key}"}).as_numpy("output") == [[2]]


def test_a_key_is_told_of_no_model_that_it_may_not_see(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    key = zoo.run("key", "create", "elsewhere", "--scope", "call:default/elsewhere").strip()
    told = []
    for headers in (None, {"authorization": f"Bearer {key}"}):
        with pytest.raises(InferenceServerException) as raised:
            client.get_model_metadata("zoo--doubl", headers=headers)
        assert raised.value.status() == "StatusCode.NOT_FOUND"
        told.append("zoo--double" in raised.value.message())
    assert told == [True, False]
    index = client.get_model_repository_index(headers={"authorization": f"Bearer {key}"})
    assert list(index.models) == []


def test_a_callers_deadline_and_leaving_end_the_work(zoo: PrivateSwell) -> None:
    asked = pb.ModelInferRequest(model_name="zoo--patient")
    asked.inputs.add(name="x", datatype="INT64", shape=[1])
    asked.raw_input_contents.append(np.array([2000]).tobytes())

    def runs() -> bool:
        return any(one["in_flight"] for one in zoo.serving() if one["workload"].endswith("/patient"))

    def ended(error: str) -> bool:
        rows = json.loads(zoo.run("why", "--json"))
        return any((row["method"], row["error"]) == ("V2 patient", error) for row in rows)

    with grpc.insecure_channel(address(zoo)) as channel:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        leaving = infer.future(asked.SerializeToString())
        wait_until("it runs", runs)
        leaving.cancel()
        wait_until("it is over", lambda: not runs())
        wait_until("it is told", lambda: ended("client_left"))
        with pytest.raises(grpc.RpcError) as raised:
            infer(asked.SerializeToString(), timeout=1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until("that is over, too", lambda: not runs())


def test_a_request_can_be_explained(zoo: PrivateSwell) -> None:
    with grpc.insecure_channel(address(zoo)) as channel:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as raised:
            infer(b"\n\x09zoo--same")
        told = dict(raised.value.trailing_metadata())
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "V2 same" in json.dumps(why(zoo, told["swell-request-id"]))


def test_a_stream_has_an_answer_for_each_request(client: triton.InferenceServerClient) -> None:
    heard: Queue[tuple[Any, Any]] = Queue()
    client.start_stream(callback=lambda result, error: heard.put((result, error)))
    try:
        for number in (1, 2, 3):
            client.async_stream_infer("zoo--double", [given("x", np.full((1, 1), number, np.float32))])
        got = [heard.get(timeout=200) for _ in range(3)]
        client.async_stream_infer("zoo--double", [given("x", np.array([1], np.int32))])
        client.async_stream_infer("zoo--double", [given("x", np.full((1, 1), 4, np.float32))])
        got += [heard.get(timeout=200) for _ in range(2)]
    finally:
        client.stop_stream()
    assert [error is None for _, error in got] == [True, True, True, False, True]
    assert "'x' has datatype INT32" in str(got[3][1])
    assert [float(result.as_numpy("output")[0, 0]) for result, error in got if error is None] == [2, 4, 6, 8]


def test_what_is_no_protocol_is_refused_and_ends_nothing(zoo: PrivateSwell, client: Any) -> None:
    with grpc.insecure_channel(address(zoo)) as channel:
        for method, raw, code in (
            ("ModelInfer", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            ("ModelMetadata", b"\x0a\x05ab", grpc.StatusCode.INVALID_ARGUMENT),
            ("ModelReady", b"", grpc.StatusCode.INVALID_ARGUMENT),
            ("ModelConfig", b"", grpc.StatusCode.UNIMPLEMENTED),
            ("Nonsense", b"", grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(f"{SERVICE}/{method}")(raw, timeout=60)
            assert raised.value.code() is code, method
    host, _, port = address(zoo).partition(":")
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(2000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(500)):
        with socket.create_connection((host, int(port)), timeout=20) as plain:
            plain.sendall(rubbish)
            plain.shutdown(socket.SHUT_WR)
            try:
                while plain.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    assert client.is_server_live()


def test_a_door_that_is_killed_is_there_again_on_its_port(zoo: PrivateSwell) -> None:
    before, port = zoo.server("grpc"), address(zoo)
    os.kill(before, signal.SIGKILL)
    wait_until("another", lambda: any("grpc" in one.command.split() and one.pid != before for one in zoo.processes()))
    assert address(zoo) == port
    with grpc.insecure_channel(port) as channel:
        channel.unary_unary(f"{SERVICE}/ServerLive")(b"", wait_for_ready=True, timeout=100)


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main(url):
    async with InferenceGRPCClient(url, timeout=120) as client:
        ready = [await client.is_server_live(), await client.is_server_ready(),
                 await client.is_model_ready("zoo--add"), await client.is_model_ready("zoo--none")]
        made = []
        for binary in (True, False):
            inputs = []
            for name, value in (("a", 1), ("b", 2)):
                tensor = InferInput(name, [2, 2], "INT32")
                tensor.set_data_from_numpy(np.full((2, 2), value, np.int32), binary_data=binary)
                inputs.append(tensor)
            got = await client.infer(InferRequest("zoo--add", inputs, request_id="k"))
            made.append([got.id] + [output.as_numpy().tolist() for output in got.outputs])
        print(json.dumps([ready, made]))

asyncio.run(main(sys.argv[1]))
"""


def test_the_client_of_kserve_is_served(zoo: PrivateSwell) -> None:
    """In a process of its own: two clients' protocol buffers of one name cannot be in one."""
    words = [sys.executable, "-W", "ignore", "-c", KSERVE, address(zoo)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    ready, made = json.loads(done.stdout.strip().splitlines()[-1])
    assert ready == [True, True, True, False]
    assert made == [["k", [[3, 3], [3, 3]], [[-1, -1], [-1, -1]]]] * 2


def test_a_port_that_is_taken_is_named() -> None:
    with unstarted_swell() as one, unstarted_swell() as two:
        port = free_port()
        said = one.run("up", "-d", "--grpc-port", str(port))
        assert f"gRPC are at 127.0.0.1:{port}" in said
        done = subprocess.run(
            ["swell", "up", "-d", "--grpc-port", str(port)],
            env=two.environ,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode != 0
        assert f"Port {port} on 127.0.0.1 is in use" in done.stderr


def test_without_its_packages_it_says_which(tmp_path: Path) -> None:
    """They are an extra."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    with unstarted_swell() as swell:
        environ = {**swell.environ, "PYTHONPATH": str(tmp_path)}
        words = ["swell", "up", "--grpc-port", "0"]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert "pip install 'PATH-TO-THE-CLONE-OF-SWELL[grpc]'" in done.stderr, "an index has none of that name"
