"""Does each set of parameters have replicas of its own, from zero to zero? On a real platform."""

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
from journey.zoo import at_work, deploy, post, workloads, written
from private_swell import Answer, Failed, PrivateSwell, exchange, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]

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


@pytest.fixture
def model(folder: Path) -> Any:
    return swell.Cls.from_name("zoo", "Model")


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
