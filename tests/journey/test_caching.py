"""Are answers of `@swell.cached` functions given again, by each way in, at zero, and from one revision alone?"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import swell
from journey.callers import APPS, ask, call, command, why
from private_swell import PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def kept(own_server: PrivateSwell) -> PrivateSwell:
    own_server.run("deploy", str(APPS / "kept.py"))
    return own_server


@pytest.mark.shows("cached", "ttl_s", "vary")
def test_what_is_asked_again_runs_once_while_it_is_kept(kept: PrivateSwell) -> None:
    first, again = (call(kept, "kept/counted", {"x": 7}) for _ in range(2))
    assert first.value == again.value
    assert ("swell-cache" in first.headers, again.headers["swell-cache"]) == (False, "hit")
    toned = call(kept, "kept/counted", {"x": 7}, x_tone="blue")
    assert toned.value != first.value
    assert call(kept, "kept/counted", {"x": 7}, x_tone="blue").value == toned.value
    before = call(kept, "kept/fleeting").value
    wait_until("its time is over", lambda: call(kept, "kept/fleeting").value != before)


def test_why_and_the_metrics_tell_of_it(kept: PrivateSwell) -> None:
    first, again = (call(kept, "kept/counted", {"x": 8}) for _ in range(2))
    told = why(kept, again.request)
    assert [step["what"] for step in told["steps"]] == ["cache"]
    assert (told["cpu_us"], told["marginal_usd"], told["cold"]) == (0, 0, False)
    assert any(f"answered with what {first.request} was answered" in reason for reason in told["reasons"])
    assert "cost nothing: no replica worked on it" in command(kept, "why", again.request).out
    metrics = ask(kept, "GET", "/metrics").body.decode()
    assert 'swell_cache_hits_total{namespace="default",app="kept",function="counted"' in metrics
    assert "response_cache_bytes_max" in command(kept, "limits").out


def test_from_python_and_the_command_line(kept: PrivateSwell) -> None:
    function = swell.Function.from_name("kept", "counted")
    assert function.remote(9) == function.remote(9)
    said = [command(kept, "call", "kept/counted", '{"x": 10}').out for _ in range(2)]
    assert said[0] == said[1]


def test_equal_calls_at_a_time_are_one(kept: PrivateSwell) -> None:
    with ThreadPoolExecutor(6) as clients:
        told = {answer.value for answer in clients.map(lambda _: call(kept, "kept/slow", {"x": 1}), range(6))}
    assert len(told) == 1


def test_a_hit_wakes_nothing_and_models_are_kept(kept: PrivateSwell) -> None:
    body = json.dumps({"model": "kept", "messages": [{"role": "user", "content": "hi"}]}).encode()
    first = ask(kept, "POST", "/v1/chat/completions", body)
    command(kept, "app", "stop", "kept")
    kept.run("deploy", str(APPS / "kept.py"))
    # The same source is the same revision, and nothing of it runs.
    again = ask(kept, "POST", "/v1/chat/completions", body)
    assert (again.value, again.headers["swell-cache"]) == (first.value, "hit")
    assert not [row for row in kept.serving() if "Model" in json.dumps(row)]
    streamed = json.dumps({**json.loads(body), "stream": True}).encode()
    assert "swell-cache" not in ask(kept, "POST", "/v1/chat/completions", streamed).headers


def test_a_new_revision_answers_anew(own_server: PrivateSwell, tmp_path: Path) -> None:
    program = tmp_path / "turned.py"
    text = 'import swell\napp = swell.App("turned")\n@app.function()\n@swell.cached(ttl_s=600)\ndef f(): return VALUE\n'
    for value in ("1", "2"):
        program.write_text(text.replace("VALUE", value))
        own_server.run("deploy", str(program))
        assert {call(own_server, "turned/f").value for _ in range(2)} == {int(value)}
    own_server.run("app", "rollback", "turned")
    wait_until("the first is back", lambda: call(own_server, "turned/f").value == 1)
