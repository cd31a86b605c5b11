"""Does each example do what its first lines promise, on a real platform?"""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path

import numpy as np
import openai
import pytest

from private_swell import PrivateSwell

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def fetch(swell: PrivateSwell, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
    """Status and text of a plain HTTP request without a key, as a browser or curl would send it."""
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def events(text: str) -> list[tuple[str, str]]:
    """Server-sent events as (event, data)."""
    found = []
    for event in text.strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in event.splitlines())
        found.append((fields.get("event", "message"), fields.get("data", "")))
    return found


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text()
    apps = {path.name for path in EXAMPLES.glob("*.py") if "swell.App(" in path.read_text()}
    assert apps == {name for name in apps if f'"{name}"' in source}


def test_hello_runs_without_a_server(own_swell: PrivateSwell) -> None:
    assert own_swell.run("run", str(EXAMPLES / "hello.py"), "--name", "Ada").splitlines()[-3:] == [
        "Hello, Ada!",
        "1 2 3",
        "Hello, Ada! Hello, Grace!",
    ]


def test_hello_deployed(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "hello.py"))
    with own_swell.connect() as client:
        assert client.call("hello/greet", {"name": "Ada"}).value == "Hello, Ada!"
        assert client.call("hello/greet", ["Grace"]).value == "Hello, Grace!"
    status, text = fetch(own_swell, "POST", "/call/hello/count", b'{"to": 2}')
    assert (status, events(text)[:2]) == (200, [("message", "1"), ("message", "2")])


def test_stream_comes_word_by_word(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "stream.py"))
    status, text = fetch(own_swell, "POST", "/call/stream/words", b'{"text": "to be or not", "pause_s": 0}')
    assert status == 200
    assert [json.loads(data) for event, data in events(text) if event == "message"] == ["to", "be", "or", "not"]
    assert events(text)[-1][0] == "end"


def test_asgi_app_answers_echoes_and_streams(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "asgi.py"))
    assert fetch(own_swell, "GET", "/web/asgi-site/") == (200, '{"paths": ["/", "/echo", "/lines/{n}"]}')
    assert fetch(own_swell, "POST", "/web/asgi-site/echo", b"x" * 100_000) == (200, "x" * 100_000)
    assert fetch(own_swell, "GET", "/web/asgi-site/lines/3") == (200, "line 1\nline 2\nline 3\n")
    assert fetch(own_swell, "GET", "/web/asgi-site/nothing")[0] == 404


def test_listener_in_perl_gets_the_requests(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "listener.py"))
    status, text = fetch(own_swell, "POST", "/web/listener/any/path", b"12345")
    assert status == 200
    assert re.fullmatch(r"perl \d+ saw POST \S*/any/path with 5 bytes\n", text)


def test_digits_are_recognised(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "digits.py"), wait_s=600)
    with own_swell.connect() as client:
        for index in range(5):
            sample = client.call("digits/Digits.sample", {"index": index}).value
            assert client.call("digits/Digits.predict", {"pixels": sample["pixels"]}).value == sample["label"]


def test_texts_that_mean_alike_are_near(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "embeddings.py"), wait_s=600)
    texts = ["a small cat", "the kitten", "interest rates of banks"]
    with openai.OpenAI(base_url=f"http://127.0.0.1:{own_swell.port}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="glove-50d", input=texts)
    cat, kitten, banks = (np.array(each.embedding) for each in answer.data)
    assert answer.usage.prompt_tokens == 9
    assert [len(each) for each in (cat, kitten, banks)] == [50] * 3

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    assert likeness(cat, kitten) > likeness(cat, banks)


def test_a_picture_that_is_none_is_a_clean_error(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(EXAMPLES / "ocr.py"), wait_s=600)
    connection = http.client.HTTPConnection("127.0.0.1", own_swell.port, timeout=120)
    connection.request("POST", "/call/ocr/Reader.read", b"no picture", {"Content-Type": "application/octet-stream"})
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert (response.status, error["code"]) == (500, "exception")
    assert "10 bytes that are not a picture" in own_swell.run("logs", "ocr", "--request", error["request"])
    # What it loaded runs on one thread, and would be there on a machine without a display's libraries, too.
    rows = json.loads(own_swell.run("ps", "ocr", "--json"))
    (template,) = (row for row in rows if row["role"] == "template")
    loaded = Path(f"/proc/{template['pid']}/maps").read_text()
    assert "cv2" in loaded
    assert "libGL" not in loaded
    assert [said for said in template["applied"] if "threads" in said] == []


def test_two_replicas_train_together(own_swell: PrivateSwell) -> None:
    target = str(EXAMPLES / "train.py") + "::train"
    first = own_swell.run("job", "run", target, "--steps", "20").splitlines()
    assert set(first[:-1]) == {f"rank {rank} | rank {rank} of 2 begins at step 0" for rank in range(2)}
    # The same data, in the same order: the same to the last digit.
    assert own_swell.run("job", "run", target, "--steps", "20").splitlines()[-1] == first[-1]
