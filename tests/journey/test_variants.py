"""Does each set of parameters, and of options, have replicas of its own, from zero to zero? On a real platform."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import swell
from private_swell import Answer, Failed, PrivateSwell, exchange, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]

PROGRAM = """
import os
import time
import swell

app = swell.App("zoo")

@app.cls(enable_memory_snapshot=True, scaledown_window=SCALEDOWN, max_containers=4)
class Model:
    name: str = swell.parameter()
    size: int = swell.parameter(default=3)
    loud: bool = swell.parameter(default=False)
    raw: bytes = swell.parameter(default=b"")

    @swell.enter(snap=True)
    def load(self):
        self.loaded = f"{self.name}/{self.size}/{self.loud}/{self.raw.hex()}"

    @swell.enter()
    def begin(self):
        self.begun = os.getpid()

    @swell.method()
    def told(self, more: str = "") -> list:
        return [VERSION, self.loaded, more, self.begun == os.getpid()]

    @swell.method()
    def items(self, n: int):
        for i in range(n):
            yield f"{self.name} {i}"

    @swell.method()
    def pid(self) -> int:
        return os.getpid()

    @swell.method()
    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    @swell.method()
    def fails(self, file: str) -> int:
        with open(file, "a") as notes:
            notes.write(".")
        tries = len(open(file).read())
        if tries < 3:
            raise ConnectionError(f"try {tries}")
        return tries

    @swell.method()
    def wait(self, seconds: float) -> str:
        time.sleep(seconds)
        return self.name

    @swell.method()
    def goes_on(self, seconds: float) -> str:
        return goes_on(seconds)

    @swell.method()
    def until(self, gate: str) -> str:
        until(gate)
        return self.name

    @swell.method()
    def asks(self, name: str) -> list:
        return Model(name=name).told.remote("asked")

@app.cls(scaledown_window=SCALEDOWN)
class Site:
    name: str = swell.parameter()

    @swell.asgi_app()
    def page(self):
        async def answer(scope, receive, send):
            if scope["type"] == "http":
                said = f"{self.name} {scope['path'].removeprefix(scope['root_path'])} {scope['query_string'].decode()}"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": said.encode()})
        return answer

def until(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)

@app.cls(scaledown_window=SCALEDOWN)
class Tool:
    init: str = swell.parameter(default="none", init=False)

    @swell.method()
    def work(self, gates):
        # At work until its gate is there: of a batch, until all are.
        batch = isinstance(gates, list)
        for gate in gates if batch else [gates]:
            until(gate)
        return [len(gates)] * len(gates) if batch else os.getpid()

@app.function(scaledown_window=SCALEDOWN)
def work(gates):
    batch = isinstance(gates, list)
    for gate in gates if batch else [gates]:
        until(gate)
    return [len(gates)] * len(gates) if batch else os.getpid()

@app.function(scaledown_window=SCALEDOWN)
def fails(file: str) -> int:
    with open(file, "a") as notes:
        notes.write(".")
    tries = len(open(file).read())
    if tries < 3:
        raise ConnectionError(f"try {tries}")
    return tries

def goes_on(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        swell.progress()
        time.sleep(0.01)
    return "went on"

@app.function(scaledown_window=SCALEDOWN, timeout=60, name="goes_on")
def goes(seconds: float) -> str:
    return goes_on(seconds)

@app.function(scaledown_window=SCALEDOWN, timeout=60)
def variable(name: str, seconds: float = 0.0) -> str | None:
    time.sleep(seconds)
    return os.environ.get(name)
"""
SETTINGS = {"variants_max": 4, "variant_idle_s": 2, "template_idle_s": 1}


@pytest.fixture(scope="module")
def own_swell() -> Iterator[PrivateSwell]:
    with private_swell(**SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def folder(own_swell: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("zoo")
    deploy(own_swell, made)
    return made


def deploy(own: PrivateSwell, folder: Path, version: int = 1, scaledown: int = 4, **changed: str) -> None:
    text = PROGRAM.replace("VERSION", str(version)).replace("SCALEDOWN", str(scaledown))
    for old, new in changed.items():
        text = text.replace(old, new)
    (folder / "zoo.py").write_text(text)
    own.run("deploy", str(folder / "zoo.py"))


@pytest.fixture
def model(folder: Path) -> Any:
    return swell.Cls.from_name("zoo", "Model")


def workloads(own: PrivateSwell, *roles: str) -> set[str]:
    return {one["workload"] for one in own.replicas() if one["role"] in (roles or ("serving", "template"))}


def written(own: PrivateSwell) -> set[str]:
    """The variants that are listed with the app."""
    (app,) = [row for row in own.get("/api/apps") if row["name"] == "zoo"]
    return {row["written"] for row in app["workloads"] if "~" in row["name"]}


def post(own: PrivateSwell, path: str, body: str = "{}", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=120)
    try:
        return exchange(connection, "POST", path, body.encode(), {"content-type": "application/json", **headers})
    finally:
        connection.close()


def test_each_set_of_parameters_is_a_pool_of_its_own_and_goes_to_zero(own_swell: PrivateSwell, model: Any) -> None:
    one, two = model(name="one"), model(name="two", size=5, loud=True, raw=b"\x00\xff")
    assert one.told.remote() == [1, "one/3/False/", "", True]
    assert two.told.remote("x") == [1, "two/5/True/00ff", "x", True]
    assert one.pid.remote() != two.pid.remote()
    assert list(two.items.remote_gen(2)) == ["two 0", "two 1"]
    assert list(one.told.map(["a", "b"])) == [[1, "one/3/False/", each, True] for each in "ab"]
    there = workloads(own_swell)
    assert len(there) == 2
    assert all(each.startswith("default/zoo/Model~") for each in there)
    assert written(own_swell) == {'Model(name="one")', 'Model(loud=True, name="two", raw=<2 bytes>, size=5)'}
    shown = own_swell.run("ps", "--all")
    assert 'zoo/Model(name="one")' in shown
    assert 'zoo/Model(name="one").told' in own_swell.run("why", "--app", "zoo")
    assert "zoo/Model\n" in own_swell.run("usage")
    assert 'zoo/Model(name="one")@rv-' in own_swell.run("usage", "--by", "pool")
    wait_until("all are at zero", lambda: not workloads(own_swell))
    wait_until("both are forgotten", lambda: not written(own_swell))
    assert one.told.remote("again") == [1, "one/3/False/", "again", True]


def test_parameters_by_http_and_in_the_shell(own_swell: PrivateSwell, folder: Path) -> None:
    answer = post(own_swell, "/call/zoo/Model.told?name=h+t%26tp&size=-1", '{"more": "x"}')
    assert answer.value == [1, "h t&tp/-1/False/", "x", True]
    shell = json.loads(own_swell.run("call", "zoo/Model.told", "-p", "name=h t&tp", "--param", "size=-1"))
    assert shell == [1, "h t&tp/-1/False/", "", True]
    ran = own_swell.run("run", "--param", "name=ran", f"{folder / 'zoo.py'}::Model.told", "--more", "y")
    assert ran.strip() == "[1, 'ran/3/False/', 'y', True]"


@pytest.mark.parametrize(
    ("query", "status", "code", "words"),
    [
        ("", 422, "missing_parameter", "Model needs name: Model(name=…) in Python, --param name=… in a shell, ?name=…"),
        ("?nam=x", 422, "unknown_parameter", "Did you mean name?"),
        ("?name=x&size=big", 422, "bad_parameter", "size is of type int"),
        ("?name=" + "x" * 20_000, 422, "bad_parameter", "16384 is the most"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    own_swell: PrivateSwell, folder: Path, query: str, status: int, code: str, words: str
) -> None:
    answer = post(own_swell, f"/call/zoo/Model.told{query}")
    assert (answer.status, answer.error["code"]) == (status, code)
    assert words in answer.error["message"]


def test_a_name_that_nobody_was_told_is_not_there(own_swell: PrivateSwell, folder: Path) -> None:
    answer = post(own_swell, "/call/zoo/Model~0123456789ab.told")
    assert (answer.status, answer.error["code"]) == (404, "unknown_variant")
    assert "/api/apps/default/zoo/workloads/Model/variants" in answer.error["message"]


def test_a_web_endpoint_takes_them_from_the_query(own_swell: PrivateSwell, folder: Path) -> None:
    def get(path: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", own_swell.port, timeout=120)
        try:
            return exchange(connection, "GET", path, None, {})
        finally:
            connection.close()

    assert get("/web/zoo--site-page/x?q=1&name=a%20b&r=%2B").body == b"a b /x q=1&r=%2B"
    assert get("/web/zoo--site-page/x?name=c").body == b"c /x "
    assert get("/web/zoo--site-page/x?q=1").error["code"] == "missing_parameter"
    url = swell.Cls.from_name("zoo", "Site")(name="a b").page.get_web_url()
    assert url is not None
    assert get(url.partition(str(own_swell.port))[2]).body == b"a b / "


def test_code_in_a_replica_asks_for_others(model: Any) -> None:
    assert model(name="one").asks.remote("of a friend") == [1, "of a friend/3/False/", "asked", True]


def test_only_so_many_are_in_use_at_a_time_and_idle_ones_give_way(
    own_swell: PrivateSwell, model: Any, tmp_path: Path
) -> None:
    """1,000 sets of parameters, of which no more are kept than may be; who finds all in use is told."""
    wait_until("nothing is left", lambda: not written(own_swell))
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(4) as callers:
        try:
            waits = [callers.submit(model(name=f"busy {n}").until.remote, str(gate)) for n in range(4)]
            wait_until("all are at work", lambda: at_work(own_swell) == [1, 1, 1, 1])
            for n in range(1000):
                answer = post(own_swell, f"/call/zoo/Model.told?name={n}")
                assert (answer.status, answer.error["code"]) == (429, "too_many_variants")
            assert answer.headers["retry-after"] == "1"
            assert "4 sets of parameters" in answer.error["message"]
            assert len(written(own_swell)) == 4
        finally:
            gate.touch()
        assert [wait.result() for wait in waits] == [f"busy {n}" for n in range(4)]

    def made_room() -> bool:
        return post(own_swell, "/call/zoo/Model.told?name=later").status == 200

    wait_until("one gave way", made_room)
    assert len(written(own_swell)) <= 4


def control_of(own: PrivateSwell) -> int:
    """Its pid; 0 while there is none."""
    try:
        return own.server("control")
    except Failed:
        return 0


def test_they_are_known_after_control_was_killed(own_swell: PrivateSwell, model: Any) -> None:
    one = model(name="one")
    wait_until("there is room", lambda: one.pid.remote() > 0)
    pid, control = one.pid.remote(), own_swell.server("control")
    os.kill(control, signal.SIGKILL)
    assert one.pid.remote() == pid
    wait_until("control is back", lambda: control_of(own_swell) not in (0, control))
    wait_until("it knows", lambda: 'Model(name="one")' in written(own_swell))
    assert one.pid.remote() == pid
    assert model(name="two").told.remote() == [1, "two/3/False/", "", True]


def test_a_deploy_takes_them_along_and_one_that_cannot_be_any_more_is_told(
    own_swell: PrivateSwell, folder: Path, model: Any
) -> None:
    one = model(name="one", size=4)
    wait_until("there is room", lambda: one.pid.remote() > 0)
    before = one.told.remote()
    deploy(own_swell, folder, version=2, scaledown=10)
    # It rolled: what serves it now was ready before the deploy was answered.
    assert [row["role"] for row in own_swell.serving() if row["workload"].startswith("default/zoo/Model~")]
    assert [before[0], one.told.remote()[0]] == [1, 2]
    own_swell.run("app", "rollback", "zoo")
    assert one.told.remote()[0] == 1
    deploy(own_swell, folder, version=3, scaledown=10, **{"size: int": "size: str", "default=3": "default='3'"})
    with pytest.raises(swell.exception.InvalidError, match="no parameter 'big'"):
        model(name="one", big=4).told.remote()
    assert one.told.remote()[:2] == [3, "one/4/False/"]
    deploy(own_swell, folder)


# -- options -------------------------------------------------------------------------------------


def of_both(method: str, *names: str) -> Any:
    """These arguments, of a function's and of a class's."""

    def mark(test: Any) -> Any:
        for owner in ("Function", "Cls"):
            test = pytest.mark.shows(f"{owner}.{method}", *names)(test)
        return test

    return mark


@pytest.fixture(params=["Function", "Cls"])
def taken(request: pytest.FixtureRequest, own_swell: PrivateSwell, folder: Path) -> Taken:
    """A function or a class, once there is room for one more with options."""
    wait_until("nothing is left", lambda: not written(own_swell))
    return Taken(str(request.param))


class Taken:
    """A function, or a class with a method of the same, to have with options."""

    def __init__(self, kind: str) -> None:
        self.is_class = kind == "Cls"

    def of(self, name: str) -> tuple[Any, Any]:
        """(what takes options, how that is called)."""
        if not self.is_class:
            return swell.Function.from_name("zoo", name), lambda function: function.remote
        if name == "work":
            return swell.Cls.from_name("zoo", "Tool"), lambda cls: cls().work.remote
        return swell.Cls.from_name("zoo", "Model"), lambda cls: getattr(cls(name="x"), name).remote


@of_both("with_options", "env", "secrets")
def test_options_reach_the_replica(taken: Taken) -> None:
    found, call = taken.of("variable")
    secret = swell.Secret.from_dict({"HIDDEN": "s"})
    varied = found.with_options(env={"A": "1", "B": "1"}).with_options(env={"B": "2"}, secrets=[secret])
    assert [call(varied)(name) for name in ("A", "B", "HIDDEN")] == ["1", "2", "s"]
    assert call(found)("A") is None


@of_both("with_options", "cpu", "memory", "gpu")
def test_options_that_fit_nowhere_are_refused(taken: Taken) -> None:
    found, call = taken.of("variable")
    for given, words in (
        ({"cpu": 10_000}, "it asks for 10000 cores"),
        ({"memory": 1_000_000_000}, "it asks for 1000000000 MiB of memory"),
        ({"gpu": ["H100", "L4"]}, r"gpu=\['H100', 'L4'\]"),
    ):
        with pytest.raises(swell.Error, match=words):
            call(found.with_options(**given))("A")
    assert call(found.with_options(cpu=(0.1, 0.2), memory=(64, 200)))("A") is None


@of_both("with_options", "retries", "timeout")
def test_tries_and_time(taken: Taken, tmp_path: Path) -> None:
    found, call = taken.of("fails")
    retries = swell.Retries(max_retries=2, initial_delay=0.0)
    assert call(found.with_options(retries=retries))(str(tmp_path / "tries")) == 3
    found, call = taken.of("wait" if taken.is_class else "variable")
    arguments = (60.0,) if taken.is_class else ("A", 60.0)
    with pytest.raises(swell.exception.FunctionTimeoutError):
        call(found.with_options(timeout=1))(*arguments)


@of_both("with_options", "timeout_max")
def test_time_that_progress_gives(taken: Taken) -> None:
    found, call = taken.of("goes_on")
    assert call(found.with_options(timeout=2, timeout_max=60))(3.0) == "went on"
    with pytest.raises(swell.Error, match="timeout_max=1 is below timeout=2, which a call has without any progress"):
        call(found.with_options(timeout=2, timeout_max=1))(0.0)


@of_both("with_options", "max_containers", "buffer_containers", "scaledown_window")
def test_sizes(own_swell: PrivateSwell, taken: Taken) -> None:
    found, call = taken.of("variable")
    call(found.with_options(max_containers=7, buffer_containers=1, scaledown_window=3))("A")
    (app,) = [row for row in json.loads(own_swell.run("app", "list", "--json")) if row["name"] == "zoo"]
    (row,) = [row for row in app["workloads"] if "with_options" in row["written"]]
    expected = {"min_replicas": 0, "max_replicas": 7, "buffer_replicas": 1, "idle_s": 3.0}
    assert row["scaling"] == expected
    assert "max_containers=7, buffer_containers=1, scaledown_window=3)" in row["written"]
    assert f"zoo/{row['written']}" in own_swell.run("limits")


def at_work(own: PrivateSwell) -> list[int]:
    """Inputs of each replica of a variant that is ready, as many as it works on."""
    there = [one for one in own.serving() if "~" in one["workload"] and one["phase"] == "ready"]
    return sorted(one["in_flight"] for one in there)


@of_both("with_concurrency", "max_inputs", "target_inputs")
def test_inputs_at_a_time(own_swell: PrivateSwell, taken: Taken, tmp_path: Path) -> None:
    found, call = taken.of("work")
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(4) as callers:
        try:
            together = call(found.with_concurrency(max_inputs=2).with_options(max_containers=1))
            first = [callers.submit(together, str(gate)) for _ in range(2)]
            wait_until("both are at work in one", lambda: at_work(own_swell) == [2], wait_s=60)
        finally:
            gate.touch()
        assert len({each.result() for each in first}) == 1
        gate.unlink()
        wait_until("nothing is left", lambda: not written(own_swell))
        try:
            apart = call(found.with_concurrency(max_inputs=2, target_inputs=1))
            second = [callers.submit(apart, str(gate)) for _ in range(2)]
            wait_until("there is one for each", lambda: len(at_work(own_swell)) == 2, wait_s=60)
        finally:
            gate.touch()
        assert all(each.result() for each in second)


@of_both("with_batching", "max_batch_size", "wait_ms")
def test_batches(own_swell: PrivateSwell, taken: Taken, tmp_path: Path) -> None:
    found, call = taken.of("work")
    gate, open_gate = tmp_path / "gate", tmp_path / "open"
    open_gate.touch()
    beside = found.with_concurrency(max_inputs=8).with_options(max_containers=1)
    pairs = call(beside.with_batching(max_batch_size=2, wait_ms=60_000))
    with ThreadPoolExecutor(3) as callers:
        try:
            first = callers.submit(pairs, str(gate))
            wait_until("it is at work", lambda: at_work(own_swell) == [1], wait_s=60)
            # There is room beside the first, and a minute to wait for another one.
            second = [callers.submit(pairs, str(open_gate)) for _ in range(2)]
            assert [each.result(60) for each in second] == [2, 2]
            assert not first.done()
        finally:
            gate.touch()
        assert first.result(60) == 1


@pytest.mark.shows("parameter", "default", "init")
def test_what_has_a_default_and_what_is_no_parameter(own_swell: PrivateSwell, model: Any) -> None:
    assert model(name="x").told.remote()[1] == "x/3/False/"
    answer = post(own_swell, "/call/zoo/Tool.work?init=x", '["/"]')
    assert (answer.status, answer.error["code"]) == (422, "unknown_parameter")


def test_options_need_a_key_that_may_deploy(own_swell: PrivateSwell, folder: Path) -> None:
    made = json.loads(own_swell.run("key", "create", "caller", "--scope", "call:default/zoo", "--json"))
    path, bearer = "/api/apps/default/zoo/workloads/Model/variants", f"Bearer {made['key']}"
    asked = post(own_swell, path, '{"parameters": {"name": "by key"}}', Authorization=bearer)
    assert asked.status == 200
    assert asked.value["written"] == 'Model(name="by key")'
    assert post(own_swell, f"/call/zoo/{asked.value['name']}.told").value[1] == "by key/3/False/"
    refused = post(own_swell, path, '{"parameters": {"name": "x"}, "options": {"cpu": 1}}', Authorization=bearer)
    assert (refused.status, refused.error["code"]) == (403, "no_scope")
    assert "deploy:default/zoo" in refused.error["message"]


def test_a_set_of_parameters_may_be_kept_ready(own_swell: PrivateSwell, model: Any) -> None:
    wait_until("nothing is left", lambda: not written(own_swell))
    kept = model(name="kept")
    kept.update_autoscaler(min_containers=1)
    wait_until("it is ready", lambda: at_work(own_swell) == [0], wait_s=60)
    assert kept.told.remote()[1] == "kept/3/False/"
    kept.update_autoscaler(min_containers=0)
    wait_until("it is at zero", lambda: not workloads(own_swell), wait_s=60)
