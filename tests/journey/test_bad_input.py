"""Does everything a caller, or a program, can get wrong end in an error that says what is wrong?"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from journey.callers import APPS, ask, call, command, events, key, why
from private_swell import Answer, PrivateSwell, private_swell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BODY_MAX = 200_000


@pytest.fixture(scope="module")
def moody() -> Iterator[PrivateSwell]:
    """A platform that takes small bodies only, with an app that misbehaves."""
    with private_swell({**os.environ, "SWELL_BODY_MAX": str(BODY_MAX)}, template_idle_s=60) as swell:
        swell.run("deploy", str(APPS / "moody.py"))
        yield swell


def assert_refused(reply: Answer, status: int, code: str, *words: str) -> None:
    """The status, the code, the request's id in header and body, and what the message must name."""
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.error["request"] == reply.request
    for word in words:
        assert word in reply.error["message"]


# -- arguments and bodies ---------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"a": ', b"nonsense", b'{"a": 1} and more', b"\xff\xfe", b"[" * 5000])
def test_invalid_json(moody: PrivateSwell, body: bytes) -> None:
    assert_refused(ask(moody, "POST", "/call/moody/add", body), 400, "bad_body", "application/json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": "\\ud800"}', "the escape \\ud800 at byte 7 is half of a character"),
        (b'{"a": 1e999}', "the number 1e999 at byte 6 is out of range"),
        (b'{"a": NaN}', "NaN at byte 6 is not JSON: send null"),
        (b"\x1f\x8b\x08", "it looks compressed (gzip)"),
    ],
)
def test_invalid_json_is_told_with_its_place(moody: PrivateSwell, body: bytes, words: str) -> None:
    assert_refused(ask(moody, "POST", "/call/moody/add", body), 400, "bad_body", words)


def test_a_compressed_body(moody: PrivateSwell) -> None:
    for path in ("/call/moody/add", "/v1/chat/completions"):
        reply = ask(moody, "POST", path, b"\x1f\x8b\x08", {"Content-Encoding": "gzip"})
        assert_refused(reply, 415, "bad_body", "compressed ('gzip')", "send it as it is")


def assert_json_named(reply: Answer) -> None:
    assert "application/json" in reply.error["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["'a'", "missing", "add(a: int"]),
        ({"a": "one"}, ["'a'", "int"]),
        ({"a": 1, "c": 2}, ["'c'"]),
        ([1, 2, 3], ["3", "2"]),
        ({"a": 1, "b": None}, ["'b'"]),
    ],
)
def test_arguments_that_do_not_fit(moody: PrivateSwell, arguments: object, words: list[str]) -> None:
    reply = ask(moody, "POST", "/call/moody/add", json.dumps(arguments).encode())
    assert_refused(reply, 422, "bad_arguments", *words)


def test_a_type_of_body_nobody_reads(moody: PrivateSwell) -> None:
    reply = ask(moody, "POST", "/call/moody/add", b"<a/>", {"Content-Type": "application/xml"})
    assert_refused(reply, 400, "bad_body", "application/xml")
    assert_json_named(reply)


def test_pickles_need_the_key(moody: PrivateSwell) -> None:
    reply = ask(moody, "POST", "/call/moody/add", b"\x80\x05.", {"Content-Type": "application/x-swell-pickle"})
    assert_refused(reply, 401, "no_key", "key")


def test_what_curl_sends(moody: PrivateSwell) -> None:
    url = f"http://127.0.0.1:{moody.port}/call/moody/add"
    for data in ('{"a": 2, "b": 3}', "[2, 3]"):
        done = subprocess.run(["curl", "-sS", url, "-d", data], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("5", "")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert_json_named(ask(moody, "POST", "/call/moody/add", b"a=1&b=2", form))


def test_a_body_over_the_limit(moody: PrivateSwell) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    assert ask(moody, "POST", "/call/moody/size", b"x" * BODY_MAX, octets).value == BODY_MAX
    reply = ask(moody, "POST", "/call/moody/size", b"x" * (BODY_MAX + 1), octets)
    assert_refused(reply, 413, "body_too_large", str(BODY_MAX), "body_max")


def test_a_chunked_body_over_the_limit(moody: PrivateSwell) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", moody.port, timeout=60)
    octets = {"Content-Type": "application/octet-stream"}
    pieces = (b"x" * 10_000 for _ in range(BODY_MAX // 10_000 + 1))
    try:
        connection.request("POST", "/call/moody/size", pieces, octets, encode_chunked=True)
    except ConnectionError:
        pass  # It need not take in what it refuses.
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert (response.status, error["code"]) == (413, "body_too_large")
    assert call(moody, "moody/add", {"a": 1}).value == 2


def test_a_timeout_that_is_none(moody: PrivateSwell) -> None:
    for value in ("soon", "-1", "0", "nan"):
        reply = call(moody, "moody/add", {"a": 1}, swell_timeout=value)
        assert_refused(reply, 400, "bad_request", "Swell-Timeout")


# -- names and the door -----------------------------------------------------------------------


def test_unknown_names_are_answered_with_near_ones(moody: PrivateSwell) -> None:
    assert_refused(call(moody, "mody/add"), 404, "unknown_app", "'mody'", "moody")
    assert_refused(call(moody, "moody/ad"), 404, "unknown_function", "'ad'", "add")
    assert_refused(call(moody, "moody/Broken"), 404, "unknown_function", "Broken.answer")
    assert_refused(call(moody, "moody/Broken.anser"), 404, "unknown_function", "Broken.answer")
    assert_refused(ask(moody, "GET", "/web/nowhere/"), 404, "unknown_app", "'nowhere'")
    assert_refused(ask(moody, "GET", "/"), 404, "unknown_path", "/call/")


def test_functions_are_called_with_post(moody: PrivateSwell) -> None:
    reply = ask(moody, "GET", "/call/moody/add")
    assert_refused(reply, 405, "method_not_allowed", "POST")
    assert reply.headers["allow"] == "POST"


def test_the_api_needs_the_key(moody: PrivateSwell) -> None:
    assert ask(moody, "GET", "/api/apps", headers=key(moody)).status == 200
    assert_code(ask(moody, "GET", "/api/apps"), 401, "no_key")
    assert_code(ask(moody, "GET", "/api/apps", headers={"Authorization": "Bearer sk-wrong"}), 401, "bad_key")


def test_the_api_refuses_foreign_pages(moody: PrivateSwell) -> None:
    trusted = key(moody)
    assert_code(ask(moody, "GET", "/api/apps", headers={**trusted, "Origin": "http://evil.test"}), 403, "bad_origin")
    assert_code(ask(moody, "GET", "/api/apps", headers={**trusted, "Host": "evil.test"}), 403, "bad_host")


def test_a_call_from_a_foreign_page_needs_the_key(moody: PrivateSwell) -> None:
    foreign = {"Origin": "http://evil.test", "Content-Type": "text/plain"}
    body = b'{"a": 1}'
    assert_refused(ask(moody, "POST", "/call/moody/add", body, foreign), 403, "bad_origin", "evil.test", "key")
    opaque = ask(moody, "POST", "/call/moody/add", body, {"Origin": "null"})
    assert_refused(opaque, 403, "bad_origin", "null")
    other_port = ask(moody, "POST", "/call/moody/add", body, {"Origin": f"http://127.0.0.1:{moody.port + 1}"})
    assert_refused(other_port, 403, "bad_origin")
    # A foreign name that was made to point here is as foreign as any other.
    rebound = {"Origin": f"http://evil.test:{moody.port}", "Host": f"evil.test:{moody.port}"}
    assert_refused(ask(moody, "POST", "/call/moody/add", body, rebound), 403, "bad_origin", "evil.test")
    own = {"Origin": f"http://127.0.0.1:{moody.port}"}
    assert ask(moody, "POST", "/call/moody/add", body, own).value == 2
    assert ask(moody, "POST", "/call/moody/add", body, {"Origin": "http://evil.test", **key(moody)}).value == 2


def assert_code(reply: Answer, status: int, code: str) -> None:
    assert (reply.status, reply.error["code"]) == (status, code)


# -- code that fails --------------------------------------------------------------------------


def test_an_exception_is_a_clean_500_and_its_traceback_is_in_the_log(moody: PrivateSwell) -> None:
    reply = call(moody, "moody/fail", {"secret": "hunter2"})
    assert_refused(reply, 500, "exception", "ValueError", "7 characters")
    assert b"Traceback" not in reply.body
    assert b"hunter2" not in reply.body
    wait_until(
        "its lines are in the log", lambda: "Traceback" in command(moody, "logs", "--request", reply.request).out
    )
    said = command(moody, "logs", "--request", reply.request).out
    assert "before it fails" in said
    assert "in fail" in said
    assert "ValueError: 7 characters were too many" in said
    assert "hunter2" not in said
    record = why(moody, reply.request)
    assert (record["status"], record["error"]) == (500, "exception")


def test_a_generator_that_raises_says_so_in_its_stream(moody: PrivateSwell) -> None:
    reply = call(moody, "moody/fail_midway", {"to": 2})
    (_, one), (_, two), (kind, last) = events(reply.body)
    assert (one, two, kind, last["error"]["code"]) == (0, 1, "error", "exception")
    assert (last["error"]["request"], "no further" in last["error"]["message"]) == (reply.request, True)
    record = why(moody, reply.request)
    assert (record["status"], record["error"]) == (500, "exception")


def test_a_result_that_cannot_be_encoded(moody: PrivateSwell) -> None:
    reply = call(moody, "moody/lock")
    assert_refused(reply, 500, "bad_result", "lock", "cannot be encoded", "dataclasses")
    assert why(moody, reply.request)["error"] == "bad_result"


@pytest.mark.shows("App.cls", "startup_timeout")
def test_a_start_up_that_hangs(moody: PrivateSwell) -> None:
    reply = call(moody, "moody/Slow.answer", swell_timeout="6")
    assert_refused(reply, 503, "no_replica", "not ready in time", "startup_timeout= gave it 2 s")
    assert int(reply.headers["retry-after"]) > 0
    assert why(moody, reply.request)["status"] == 503


def test_an_enter_hook_that_raises(moody: PrivateSwell) -> None:
    reply = call(moody, "moody/Broken.answer", swell_timeout="20")
    assert_refused(reply, 503, "no_replica", "load", "the model is not on this disk")
    said = command(moody, "logs", "moody").out
    assert "FileNotFoundError: the model is not on this disk" in said


# -- deploys that fail ------------------------------------------------------------------------

SOURCE = """
import swell

app = swell.App("steady")

@app.function()
def version() -> int:
    return 1
"""


def test_a_program_that_does_not_import_leaves_the_old_one_serving(moody: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "steady.py"
    file.write_text(SOURCE)
    moody.run("deploy", str(file))
    assert call(moody, "steady/version").value == 1
    file.write_text(SOURCE.replace("import swell", "import swell, json\njson.loads('{')").replace("1", "2"))
    said = command(moody, "deploy", str(file))
    assert said.code == 1
    assert "Traceback" in said.err
    assert "json.loads('{')" in said.err
    assert "JSONDecodeError" in said.err
    assert call(moody, "steady/version").value == 1


def test_a_program_that_imports_only_here_leaves_the_old_one_serving(moody: PrivateSwell, tmp_path: Path) -> None:
    """What its author's machine has and a replica has not is found out before anything is changed."""
    file = tmp_path / "steady.py"
    file.write_text(SOURCE)
    moody.run("deploy", str(file))
    only_here = f"import swell, os\nif os.getcwd() != {str(tmp_path)!r}: import nox"
    file.write_text(SOURCE.replace("import swell", only_here))
    said = command(moody, "deploy", str(file), cwd=tmp_path)
    assert said.code == 1
    assert "ModuleNotFoundError: No module named 'nox'" in said.err
    assert call(moody, "steady/version").value == 1


def test_a_gpu_that_is_not_there(moody: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "steady.py"
    file.write_text(SOURCE.replace("@app.function()", '@app.function(gpu="H100")'))
    said = command(moody, "deploy", str(file))
    assert said.code == 1
    assert "version" in said.err
    assert "H100" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("content", "word"), [("x = 1\n", "App"), ("import swell\ndef (\n", "SyntaxError"), (None, "steady.py")]
)
def test_files_that_are_no_app(moody: PrivateSwell, tmp_path: Path, content: str | None, word: str) -> None:
    file = tmp_path / "steady.py"
    if content is not None:
        file.write_text(content)
    said = command(moody, "deploy", str(file))
    assert said.code in (1, 2)
    assert word in said.err


# -- no server, another server ----------------------------------------------------------------


@pytest.mark.parametrize("words", [["ps"], ["app", "list"], ["call", "moody/add", "{}"], ["logs"], ["usage"]])
def test_without_a_server_the_way_out_is_named(words: list[str]) -> None:
    with unstarted_swell() as swell:
        said = command(swell, *words)
        assert said.code == 1
        assert "swell up" in said.err
        assert "Traceback" not in said.err


def test_a_key_of_another_server(moody: PrivateSwell, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-of-another-server")
    environ = {**moody.environ, "SWELL_HOME": str(tmp_path), "SWELL_URL": f"http://127.0.0.1:{moody.port}"}
    done = subprocess.run(["swell", "ps"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "key" in done.stderr
    assert "Traceback" not in done.stderr


def test_bytes_that_are_not_http(moody: PrivateSwell) -> None:
    with socket.create_connection(("127.0.0.1", moody.port), timeout=60) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 400 ")
