"""Do methods with tensors answer the Open Inference Protocol V2 over HTTP, as clients that are not ours speak it?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from journey.callers import APPS, ask, call, why
from private_swell import PrivateSwell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def zoo(own_swell: PrivateSwell) -> PrivateSwell:
    own_swell.run("deploy", str(APPS / "models.py"))
    return own_swell


@pytest.fixture(scope="module")
def client(zoo: PrivateSwell) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{zoo.port}", concurrency=8, network_timeout=120) as client:
        yield client


def given(name: str, array: Any, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array, binary_data=binary)


def test_a_server_and_its_models_are_described(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]
    listed = client.get_model_repository_index()
    assert {row["name"]: row["state"] for row in listed}.items() >= {"zoo--double": "READY"}.items()
    assert [row["name"] for row in listed if not row["version"].startswith("rv-")] == []
    stats = client.get_model_metadata("zoo--Stats-moments")
    assert stats["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1, -1]}]
    assert [(each["name"], each["datatype"]) for each in stats["outputs"]] == [("mean", "FP64"), ("count", "INT64")]
    assert ask(zoo, "GET", "/v2/models").value["models"] == sorted(row["name"] for row in listed)


def test_a_model_at_zero_is_ready_and_answers(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    assert not [row for row in zoo.replicas() if row["workload"].endswith("/double") and row["phase"] == "ready"]
    assert client.is_model_ready("zoo--double")
    assert ask(zoo, "GET", "/v2/models/zoo--double/ready").value == {"name": "zoo--double", "ready": True}
    result = client.infer("zoo--double", [given("x", np.array([[1, 2.5]], np.float32))], request_id="mine")
    assert result.as_numpy("output").tolist() == [[2, 5]]
    told = result.get_response()
    assert (told["id"], told["model_name"]) == ("mine", "zoo--double")
    version = told["model_version"]
    assert version == client.get_model_metadata("zoo--double")["versions"][0]
    again = client.infer("zoo--double", [given("x", np.ones((1, 2), np.float32))], model_version=version)
    assert again.as_numpy("output").tolist() == [[2, 2]]
    assert client.is_model_ready("zoo--double", version)


def test_every_datatype_goes_there_and_back(client: triton.InferenceServerClient) -> None:
    for kind in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
        array = np.array([[0, 1, 1], [1, 0, 1]], kind)
        for binary_in, binary_out in ((True, True), (True, False), (False, True), (False, False)):
            wanted = [triton.InferRequestedOutput("output", binary_data=binary_out)]
            back = client.infer("zoo--same", [given("x", array, binary_in)], outputs=wanted).as_numpy("output")
            assert (back.dtype, back.tolist()) == (array.dtype, array.tolist())
    texts = np.array([b"", "é".encode(), b"two"], object)
    for binary in (True, False):
        assert client.infer("zoo--same", [given("x", texts, binary)]).as_numpy("output").tolist() == texts.tolist()
    empty = client.infer("zoo--same", [given("x", np.empty((0, 4), np.float32))]).as_numpy("output")
    assert empty.shape == (0, 4)
    halves = client.infer("zoo--halves", [given("x", np.array([1.5, -2], ml_dtypes.bfloat16))])
    assert halves.as_numpy("y").tolist() == [1.5, -2]


@pytest.mark.shows("tensors", "inputs", "outputs")
def test_outputs_are_chosen_and_parameters_passed(client: triton.InferenceServerClient) -> None:
    a, b = np.array([[1, 2], [3, 4]], np.int32), np.array([[5, 5], [5, 5]], np.int32)
    wanted = [triton.InferRequestedOutput("difference"), triton.InferRequestedOutput("sum", binary_data=False)]
    both = client.infer("zoo--add", [given("b", b, binary=False), given("a", a)], outputs=wanted)
    assert both.as_numpy("sum").tolist() == (a + b).tolist()
    assert both.as_numpy("difference").tolist() == (a - b).tolist()
    assert [each["name"] for each in both.get_response()["outputs"]] == ["difference", "sum"]
    one = client.infer("zoo--add", [given("a", a)])
    assert one.as_numpy("difference").tolist() == a.tolist(), "b may be left out"
    loud = client.infer("zoo--upper", [given("texts", np.array([b"hi"], object))], parameters={"suffix": "!"})
    assert loud.as_numpy("texts").tolist() == [b"HI!"]
    assert loud.as_numpy("lengths").tolist() == [3]


def refused(client: triton.InferenceServerClient, model: str, *inputs: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as raised:
        client.infer(model, [*inputs], **more)
    return raised.value.status(), raised.value.message()


def test_what_does_not_fit_is_refused_by_the_tensors_name(client: triton.InferenceServerClient) -> None:
    flat = np.zeros(3, np.int32)
    status, said = refused(client, "zoo--add", given("a", flat), given("b", flat.astype(np.float32)), given("c", flat))
    assert status == "422"
    assert "no tensor 'c'" in said
    assert "tensor 'a' has shape [3]; add takes INT32 [2, 2]" in said
    assert "tensor 'b' has datatype FP32; add takes INT32 [2, 2]" in said
    assert "'a' is missing" in refused(client, "zoo--add", given("b", np.zeros((2, 2), np.int32)))[1]
    square = np.zeros((2, 2), np.int32)
    status, said = refused(client, "zoo--add", given("a", square), outputs=[triton.InferRequestedOutput("product")])
    assert (status, said) == ("422", "There is no output 'product'; add gives sum, difference.")
    status, said = refused(client, "zoo--upper", given("texts", np.array([b"a"], object)), parameters={"suffix": 3})
    assert (status, "'suffix'" in said) == ("422", True)
    status, said = refused(client, "zoo--add", given("a", square), model_version="7")
    assert (status, "no version '7'" in said) == ("404", True)
    assert "Did you mean zoo--double" in refused(client, "zoo--duble", given("x", square))[1]


def test_what_goes_wrong_in_a_model_is_told(zoo: PrivateSwell, client: triton.InferenceServerClient) -> None:
    x = np.arange(2)
    assert refused(client, "zoo--same", given("x", x), parameters={"boom": "now"}) == ("500", "ValueError: boom now")
    status, said = refused(client, "zoo--wrong", given("x", x))
    assert (status, said) == ("500", "wrong: output 'y' has shape [2]; it is declared as INT64 [1].")
    assert "complex128" in refused(client, "zoo--wrong", given("x", np.arange(4)))[1]
    status, said = refused(client, "zoo--slow", given("x", np.array([30])))
    assert (status, "1 s (timeout= of the function)" in said) == ("504", True)
    late = ask(zoo, "POST", "/v2/models/zoo--slow/infer", b"{}", {"Swell-Timeout": "no"})
    assert (late.status, [*late.value]) == (400, ["error"])
    bad = ask(zoo, "POST", "/v2/models/zoo--double/infer", b'{"inputs": [{"name": "x"}]}')
    assert (bad.status, "datatype" in bad.value["error"]) == (400, True)
    told = why(zoo, bad.request)
    assert "V2 double" in json.dumps(told)


def test_a_wrong_way_of_asking_names_the_right_one(zoo: PrivateSwell) -> None:
    for method, path, status, word in (
        ("GET", "/v2/models/zoo--double/infer", 405, "POST"),
        ("POST", "/v2/models/zoo--double", 405, "GET"),
        ("GET", "/v2/models/zoo--double/config", 404, "/infer"),
        ("POST", "/v2/repository/models/zoo--double/unload", 404, "swell deploy"),
        ("GET", "/v2/nonsense", 404, "/v2/models/{model}"),
        ("GET", "/v2/models/zoo--double/versions/7", 404, "rv-"),
    ):
        answer = ask(zoo, method, path, b"" if method == "POST" else None)
        assert (answer.status, word in answer.value["error"]) == (status, True), path
        assert answer.headers.get("allow", "") == (word if status == 405 else "")
    with_zip = ask(zoo, "POST", "/v2/models/zoo--double/infer", b"x", {"Content-Encoding": "gzip"})
    assert (with_zip.status, "compressed" in with_zip.value["error"]) == (415, True)


def test_a_method_is_called_in_either_way(zoo: PrivateSwell) -> None:
    assert call(zoo, "zoo/double", {"x": [[1, 2.5]]}).value == [[2, 5]]
    assert call(zoo, "zoo/add", {"a": [[1, 2], [3, 4]]}).value == [[[1, 2], [3, 4]]] * 2
    assert call(zoo, "zoo/same", {"x": 3}).value == 3
    wrong = call(zoo, "zoo/add", {"a": [[1, 2], [3]], "b": [1]})
    assert (wrong.status, wrong.error["code"]) == (422, "bad_arguments")
    assert [each["path"] for each in wrong.error["problems"]] == ["$.a", "$.b"]
    assert "Argument 'a' has data that is not nested as its shape [2, 2] says" in wrong.error["message"]
    assert "argument 'b' has shape [1]; add takes INT32 [2, 2]" in wrong.error["message"]


def test_many_at_once(client: triton.InferenceServerClient) -> None:
    arrays = [np.full((2, 3), number, np.float32) for number in range(64)]
    asked = [client.async_infer("zoo--double", [given("x", array)]) for array in arrays]
    for array, request in zip(arrays, asked, strict=True):
        assert request.get_result().as_numpy("output").tolist() == (array * 2).tolist()


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

async def main(url):
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=120)) as client:
        ready = [await client.is_server_live(url), await client.is_server_ready(url),
                 await client.is_model_ready(url, "zoo--add"), await client.is_model_ready(url, "zoo--none")]
        made = []
        for binary in (True, False):
            inputs = []
            for name, value in (("a", 1), ("b", 2)):
                tensor = InferInput(name, [2, 2], "INT32")
                tensor.set_data_from_numpy(np.full((2, 2), value, np.int32), binary_data=binary)
                inputs.append(tensor)
            got = await client.infer(url, InferRequest("zoo--add", inputs, request_id="k"), model_name="zoo--add")
            made.append([got.id] + [output.as_numpy().tolist() for output in got.outputs])
        print(json.dumps([ready, made]))

asyncio.run(main(sys.argv[1]))
"""


def test_the_client_of_kserve_is_served(zoo: PrivateSwell) -> None:
    """In a process of its own: two clients' protocol buffers of one name cannot be in one."""
    words = [sys.executable, "-W", "ignore", "-c", KSERVE, f"http://127.0.0.1:{zoo.port}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    ready, made = json.loads(done.stdout.strip().splitlines()[-1])
    assert ready == [True, True, True, False]
    assert made == [["k", [[3, 3], [3, 3]], [[-1, -1], [-1, -1]]]] * 2
