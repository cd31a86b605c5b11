"""Do hooks stand around calls, and are requests to models worked on together, each answered with its own rows?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import swell
from journey.callers import APPS, call, command, why
from private_swell import PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def shaped(own_server: PrivateSwell) -> PrivateSwell:
    own_server.run("deploy", str(APPS / "shaped.py"))
    own_server.run("deploy", str(APPS / "rows.py"))
    return own_server


def in_flight(swell: PrivateSwell, number: int) -> None:
    wait_until("they have slots", lambda: sum(row["in_flight"] for row in swell.serving()) == number)


def test_hooks_stand_around_a_batch_and_a_call(shaped: PrivateSwell) -> None:
    answer = call(shaped, "shaped/Words.count", {"text": "to be or not"}, x_caller="me")
    assert answer.value == {"lengths": [2, 2, 2, 3], "caller": "me"}
    assert answer.headers["x-words"] == "4"
    refused = call(shaped, "shaped/Words.count", {"text": ""})
    assert (refused.status, refused.error["code"], refused.error["message"]) == (
        422,
        "bad_arguments",
        "the text is empty",
    )
    assert call(shaped, "shaped/twice", {"text": "21"}).value == "42"
    assert call(shaped, "shaped/twice", {"text": "x"}).error["code"] == "exception"


def test_hooks_stand_around_calls_from_python_and_the_command_line(shaped: PrivateSwell) -> None:
    count = swell.Cls.from_name("shaped", "Words")().count
    assert [each["lengths"] for each in count.map(["a bb", "ccc"])] == [[1, 2], [3]]
    with pytest.raises(swell.exception.InvalidError, match="the text is empty"):
        count.remote("")
    said = command(shaped, "run", f"{APPS / 'shaped.py'}::Words.count", "--text", "a bcd")
    assert "[1, 3]" in said.out, said.err


def test_rows_of_several_requests_are_one_call_and_each_gets_its_own(shaped: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def infer(rows: list[list[float]], gate: str = "") -> list[list[float]]:
        with triton.InferenceServerClient(f"127.0.0.1:{shaped.port}", network_timeout=120) as client:
            x = np.array(rows, np.float32)
            given = triton.InferInput("x", list(x.shape), "FP32").set_data_from_numpy(x)
            result = client.infer("shaped--totals", [given], parameters={"gate": gate})
            return [result.as_numpy("total").tolist(), result.as_numpy("rows").tolist()]

    with ThreadPoolExecutor(5) as clients:
        try:
            first = clients.submit(infer, [[1, 1]], str(gate))
            in_flight(shaped, 1)
            others = []
            for at, rows in enumerate(([[1, 2], [3, 4]], [[5, 6]], [[0, 0]] * 6), 2):
                others.append(clients.submit(infer, rows))
                in_flight(shaped, at)
            plain = clients.submit(call, shaped, "shaped/totals", {"x": [[7, 8]], "gate": ""})
            in_flight(shaped, 5)
        finally:
            gate.touch()
        assert first.result(60) == [[2], [1]]
        # At most eight rows at a time, in the order in which they came.
        assert [each.result(60) for each in others] == [
            [[3, 7], [3, 3]],
            [[11], [3]],
            [[0] * 6, [7] * 6],
        ]
        answer = plain.result(60)
    assert answer.value == [[15.0], [7]]
    told = why(shaped, answer.request)
    assert "batch" in [step["what"] for step in told["steps"]]
    # What the batch printed is found by each of its requests.
    said = command(shaped, "logs", "shaped", "--request", answer.request)
    assert "rows 7" in said.out


def test_a_model_with_the_wrong_number_of_rows_is_told_so(shaped: PrivateSwell) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{shaped.port}", network_timeout=120) as client:
        x = np.ones(3, np.float32)
        given = triton.InferInput("x", [3], "FP32").set_data_from_numpy(x)
        with pytest.raises(InferenceServerException, match="returned 2 rows for 3: return as many rows"):
            client.infer("shaped--short", [given])
        wrong = triton.InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
        with pytest.raises(InferenceServerException, match=r"tensor 'x' has shape \[1, 3\]|Tensor 'x' has shape"):
            client.infer("shaped--short", [wrong])


def test_embeddings_of_several_requests_are_one_call(shaped: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{shaped.port}/v1", api_key="none", max_retries=0, timeout=120)

    def embed(texts: list[str], gate: str = "") -> tuple[list[list[float]], int]:
        answer = client.embeddings.create(model="rows", input=texts, extra_body={"gate": gate} if gate else {})
        return [each.embedding for each in answer.data], answer.usage.prompt_tokens

    with client, ThreadPoolExecutor(3) as clients:
        try:
            first = clients.submit(embed, ["a"], str(gate))
            in_flight(shaped, 1)
            second, third = (clients.submit(embed, texts) for texts in (["bb", "ccc"], ["d"]))
            in_flight(shaped, 3)
        finally:
            gate.touch()
        assert first.result(60) == ([[1, 1]], 1)
        assert second.result(60) == ([[2, 3], [3, 3]], 5)
        assert third.result(60) == ([[1, 3]], 1)
        with pytest.raises(openai.BadRequestError, match="input"):
            client.embeddings.create(model="rows", input=[])
