"""Is a function with nodes= deployed as a gang, refused where it cannot be one, and called by the queue?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import swell
from sdk import deployable
from sdk.server import KEY, Queued, Server, serving
from sdk.test_arguments import described, marked, with_function
from swell.model.gang import SIZE_MAX, Gang
from swell.sdk import shared
from swell.sdk.protocol import Answer
from swell.wire import context


def gang_of(**given: Any) -> Gang | None:
    (revision,) = with_function(**given).revisions
    assert revision.single_use == (revision.gang is not None)
    return revision.gang


@pytest.mark.shows("App.function", "min_nodes")
@given(st.integers(-2, SIZE_MAX + 2), st.none() | st.integers(-2, SIZE_MAX + 2))
def test_nodes_and_min_nodes_are_a_gang_where_there_can_be_one(nodes: int, least: int | None) -> None:
    if 1 <= nodes <= SIZE_MAX and (least is None or 1 <= least <= nodes):
        gang = gang_of(nodes=nodes, min_nodes=least)
        assert gang is not None
        assert (gang.size, gang.at_least) == (nodes, nodes if least is None else least)
        return
    with pytest.raises(swell.Error, match=r"App\.function\((min_)?nodes=.*give a whole number from 1 to"):
        gang_of(nodes=nodes, min_nodes=least)


@pytest.mark.parametrize("value", [True, 2.0, "2", [2]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    for given_ in ({"nodes": value}, {"nodes": 2, "min_nodes": value}):
        with pytest.raises(swell.Error, match="give a whole number"):
            gang_of(**given_)


def test_a_least_without_a_most_is_refused() -> None:
    with pytest.raises(swell.Error, match=r"min_nodes=2\): it goes with nodes="):
        gang_of(min_nodes=2)


def test_a_plain_function_has_none() -> None:
    assert gang_of() is None


@pytest.mark.shows("clustered", "size")
def test_clustered_says_the_same() -> None:
    assert marked(swell.clustered(4)).revisions == marked(swell.experimental.clustered(size=4)).revisions
    assert marked(swell.clustered(4)).revisions[0].gang == gang_of(nodes=4)
    for size in (0, SIZE_MAX + 1, "2"):
        with pytest.raises(swell.Error, match="size="):
            swell.clustered(size)  # type: ignore[arg-type]  # what it is about

    app = swell.App("a")
    with pytest.raises(swell.Error, match=r"nodes=2\): @clustered\(size=4\) says it, too"):
        app.function(nodes=2)(swell.clustered(4)(lambda: 1))


def below(decorator: Callable[[Any], Any], **given_: Any) -> Any:
    """Deployed with nodes=, with a decorator of its own."""

    def plain(input: list[int] | None = None) -> list[int]:
        return []

    plain.__qualname__, plain.__module__ = "plain", deployable.__name__
    app = swell.App("a")
    app.function(nodes=2, **given_)(decorator(plain))
    return described(app)


@pytest.mark.parametrize(
    ("decorator", "given_", "words"),
    [
        (swell.batched(max_batch_size=2, wait_ms=0), {}, "it cannot be @batched as well"),
        (swell.concurrent(max_inputs=2), {}, "it cannot be @concurrent as well"),
        (swell.cached(ttl_s=1), {}, "it cannot be @cached as well"),
        (swell.fastapi_endpoint(), {}, "it cannot be a web endpoint as well"),
        (swell.openai("embeddings", model="m"), {}, "it cannot be a model of @openai as well"),
        (swell.isolated(network="node"), {}, "that cannot be in a sandbox"),
        (lambda f: f, {"block_network": True}, "that cannot be in a sandbox"),
        (lambda f: f, {"is_generator": True}, "it cannot be a generator as well"),
        (lambda f: f, {"min_containers": 1}, "its replicas start for a call, and end with it"),
        (lambda f: f, {"buffer_containers": 1}, "its replicas start for a call, and end with it"),
    ],
)
def test_what_cannot_be_beside_it_is_refused_in_words(
    decorator: Callable[[Any], Any], given_: dict[str, Any], words: str
) -> None:
    with pytest.raises(swell.Error) as raised:
        below(decorator, **given_)
    assert words in raised.value.message


def test_it_is_no_model_by_its_annotations_either() -> None:
    assert [model(None), model(2)] == [True, False]


def model(nodes: int | None) -> bool:
    """Is what takes and gives an array one of the Open Inference Protocol?"""

    def doubled(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x * 2

    doubled.__qualname__, doubled.__module__ = "plain", deployable.__name__
    app = swell.App("a")
    app.function(nodes=nodes)(doubled)
    return described(app).revisions[0].entry.methods[0].tensors is not None


def test_a_class_is_no_gang() -> None:
    made = type("Made", (), {"go": swell.method()(lambda self: 1), "__module__": deployable.__name__})
    app = swell.App("a")
    app.cls()(swell.clustered(2)(made))
    with pytest.raises(swell.Error, match="@clustered goes on a function"):
        described(app)


# -- called ----------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(shared, "AGAIN_S", (0.001,))
    with serving({"plain": lambda x=1: x + 1}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def only(server: Server) -> Queued:
    (call,) = server.queued.values()
    return call


@pytest.mark.shows("App.function", "nodes")
def test_remote_waits_in_the_queue(server: Server) -> None:
    app = swell.App("a")
    function = app.function(nodes=2)(deployable.plain)
    with app.run():
        assert function.remote(41) == 42
    assert only(server).state == "done"


def test_so_it_does_where_only_the_server_knows(server: Server) -> None:
    server.jobs.add("plain")
    assert swell.Function.from_name("a", "plain").remote(41) == 42
    assert only(server).state == "done"


def test_who_goes_away_ends_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from swell.sdk import call

    async def interrupted(_call: Any, _timeout_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(call.FunctionCall, "_answered", interrupted)
    server.jobs.add("plain")
    with pytest.raises(KeyboardInterrupt):
        swell.Function.from_name("a", "plain").remote(1)
    assert only(server).state == "cancelled"


@pytest.mark.parametrize(("code", "status"), [("connection_lost", 502), ("key_revoked", 401)])
def test_who_cannot_ask_any_more_is_told_that_it_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    from swell.sdk import call

    async def unanswered(_call: Any, _timeout_s: float) -> Answer:
        raise swell.Error(code, "It cannot be asked.", status=status)

    monkeypatch.setattr(call.FunctionCall, "_answered", unanswered)
    server.jobs.add("plain")
    with pytest.raises(swell.Error) as caught:
        swell.Function.from_name("a", "plain").remote(1)
    (id,) = server.queued
    assert caught.value.code == code
    assert f"{id} goes on: `swell calls show {id}` tells of it." in str(caught.value)
    assert only(server).state != "cancelled"


# -- within ----------------------------------------------------------------------------------------


def test_outside_of_a_gang_there_is_nothing_to_know() -> None:
    with pytest.raises(swell.Error, match="only calls of functions with nodes="):
        swell.get_cluster_info()
    with pytest.raises(swell.Error, match="only a call that came by the queue"):
        swell.checkpoint_dir()
    assert swell.stopping() is False


def test_each_queued_call_has_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inside = context.Inside("default/a", "r1-1", "", "", checkpoints=str(tmp_path))
    monkeypatch.setattr(context, "inside", [inside])
    token = context.current.set(context.Input("fc-1", 0.0))
    try:
        folder = swell.checkpoint_dir()
        assert folder == tmp_path / "fc-1"
        assert folder.is_dir()
        monkeypatch.setattr(context, "inside", [context.Inside("default/a", "r1-1", "", "")])
        with pytest.raises(swell.exception.PermissionDeniedError, match="a sandbox sees no folder"):
            swell.checkpoint_dir()
    finally:
        context.current.reset(token)
