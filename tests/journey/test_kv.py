"""Do programs share values by dicts and queues, from outside, from replicas and from a sandbox? On a real platform."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import swell
from private_swell import Failed, PrivateSwell, wait_until
from swell.model.kv import BOUNDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG_S = 120.0
"""Longer than anything takes: what is waited for comes, or the test fails."""
KINDS = (swell.Dict, swell.Queue)


@pytest.fixture
def scores(own_server: PrivateSwell) -> Iterator[swell.Dict]:
    with swell.Dict.ephemeral() as made:
        yield made


@pytest.fixture
def jobs(own_server: PrivateSwell) -> Iterator[swell.Queue]:
    with swell.Queue.ephemeral() as made:
        yield made


# -- by name -----------------------------------------------------------------------------------------


@pytest.mark.shows("Dict.from_name", "name", "create_if_missing", "environment_name")
@pytest.mark.shows("Queue.from_name", "name", "create_if_missing", "environment_name")
@pytest.mark.shows("Dict.from_id", "object_id")
@pytest.mark.shows("Queue.from_id", "object_id")
@pytest.mark.shows("Dict.objects.create", "name", "allow_existing", "environment_name")
@pytest.mark.shows("Queue.objects.create", "name", "allow_existing", "environment_name")
@pytest.mark.shows("Dict.objects.delete", "name", "allow_missing", "environment_name")
@pytest.mark.shows("Queue.objects.delete", "name", "allow_missing", "environment_name")
@pytest.mark.shows("Dict.objects.list", "max_objects", "created_before", "environment_name")
@pytest.mark.shows("Queue.objects.list", "max_objects", "created_before", "environment_name")
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_made_found_listed_and_deleted(own_server: PrivateSwell, kind: Any) -> None:
    unknown = f"There is no {kind.__name__.lower()} 'mine'"
    with pytest.raises(swell.exception.NotFoundError, match=unknown):
        kind.from_name("mine").len()
    assert kind.from_name("mine", create_if_missing=True).len() == 0
    kind.objects.create("other", environment_name="staging")
    with pytest.raises(swell.exception.AlreadyExistsError):
        kind.objects.create("mine")
    kind.objects.create("mine", allow_existing=True)
    kind.objects.create("younger")
    assert [each.name for each in kind.objects.list()] == ["younger", "mine"]
    assert [each.name for each in kind.objects.list(max_objects=1)] == ["younger"]
    assert [each.name for each in kind.objects.list(environment_name="staging")] == ["other"]
    assert kind.objects.list(created_before=1e9) == []
    assert len(kind.objects.list(created_before=datetime.now(UTC))) == 2
    assert kind.from_name("other", environment_name="staging").len() == 0
    with pytest.raises(swell.Error, match=r"call \.hydrate\(\) first"):
        _ = kind.from_name("mine").object_id
    id = kind.from_name("mine").hydrate().object_id
    by_id = kind.from_id(id)
    assert (by_id.name, by_id.hydrate().name, by_id.len()) == (None, "mine", 0)
    with pytest.raises(swell.Error, match="is no id"):
        kind.from_id("mine")
    kind.objects.delete("younger")
    kind.objects.delete("mine")
    kind.objects.delete("mine", allow_missing=True)
    kind.objects.delete("other", environment_name="staging")
    with pytest.raises(swell.exception.NotFoundError):
        kind.objects.delete("mine")
    with pytest.raises(swell.exception.NotFoundError, match=id):
        by_id.len()


@pytest.mark.shows("Dict.ephemeral", "environment_name")
@pytest.mark.shows("Queue.ephemeral", "environment_name")
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_there_for_a_while_ends_with_the_block_or_the_program(own_server: PrivateSwell, kind: Any) -> None:
    def there() -> list[str]:
        return [each.name for each in kind.objects.list(environment_name="staging")]

    with kind.ephemeral(environment_name="staging") as made:
        assert there() == [made.name]
    assert there() == []

    async def within() -> int:
        async with kind.ephemeral() as made:
            return int(await made.len.aio())

    assert asyncio.run(within()) == 0
    script = f"import swell\nwith swell.{kind.__name__}.ephemeral(environment_name='staging'):\n    input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as program:
        wait_until("it is there", there)
        program.kill()
    wait_until("it is gone", lambda: not there(), wait_s=LONG_S)


# -- dicts -------------------------------------------------------------------------------------------


@pytest.mark.shows("Dict.put", "key", "value", "skip_if_exists")
@pytest.mark.shows("Dict.get", "key", "default")
@pytest.mark.shows("Dict.contains", "key")
@pytest.mark.shows("Dict.pop", "key", "default")
@pytest.mark.shows("Dict.update", "other", "kwargs")
def test_a_dict_is_one(scores: swell.Dict) -> None:
    assert scores.put("a", [1, {"b": 2.5}])
    assert not scores.put("a", 0, skip_if_exists=True)
    assert scores.put(("tuple", 1), None, skip_if_exists=True)
    assert (scores.get("a"), scores["a"]) == ([1, {"b": 2.5}], [1, {"b": 2.5}])
    assert (scores.get("b"), scores.get("b", 7), scores.get(("tuple", 1), 7)) == (None, 7, None)
    assert scores.contains("a")
    assert "a" in scores
    assert "b" not in scores
    scores["a"] = 3
    scores.update({"x": 1, 2: "y"}, z=5)
    scores.update([("p", 1)])
    assert scores.len() == 6
    assert list(scores.keys()) == ["a", ("tuple", 1), "x", 2, "z", "p"]
    assert list(scores.values()) == [3, None, 1, "y", 5, 1]
    assert dict(scores.items()) == {"a": 3, ("tuple", 1): None, "x": 1, 2: "y", "z": 5, "p": 1}
    assert scores.get(2.0) is None, "equal keys of other bytes are others"
    assert (scores.pop("x"), scores.pop("x", None)) == (1, None)
    del scores["z"]
    for act in (lambda: scores["z"], lambda: scores.pop("z"), lambda: scores.__delitem__("z")):
        with pytest.raises(KeyError, match="z"):
            act()
    with pytest.raises(TypeError):
        iter(scores)  # type: ignore[call-overload]
    scores.clear()
    assert list(scores.items()) == []


def test_a_dict_within_asyncio(scores: swell.Dict) -> None:
    async def within() -> list[Any]:
        await scores.put.aio("a", 1)
        await scores.update.aio({"b": 2})
        return [await scores.get.aio("a"), await scores.len.aio(), [key async for key in scores.keys.aio()]]

    assert asyncio.run(within()) == [1, 2, ["a", "b"]]


def test_many_entries_are_read_in_pages(scores: swell.Dict) -> None:
    scores.update({n: n * n for n in range(2500)})
    assert scores.len() == 2500
    assert sum(scores.values()) == sum(n * n for n in range(2500))
    some = scores.items()
    assert [next(some) for _ in range(3)] == [(0, 0), (1, 1), (2, 4)]
    some.close()  # type: ignore[attr-defined]


def test_large_values_are_kept_and_too_large_ones_refused(scores: swell.Dict, jobs: swell.Queue) -> None:
    large = b"v" * (BOUNDS.value_bytes_max - 100)
    scores.update(dict.fromkeys(range(3), large))
    assert [len(value) for value in scores.values()] == [len(large)] * 3
    with pytest.raises(swell.exception.RequestSizeError, match="A value of a dict has 10485760 bytes at most"):
        scores["a"] = b"v" * BOUNDS.value_bytes_max
    with pytest.raises(swell.exception.RequestSizeError, match="An item of a queue has 1048576 bytes at most"):
        jobs.put(b"v" * BOUNDS.item_bytes_max)


def test_what_cannot_be_kept_is_named(scores: swell.Dict, jobs: swell.Queue) -> None:
    with pytest.raises(swell.exception.SerializationError, match=r"The value of 'f' of .* \(function\) cannot be kept"):
        scores["f"] = lambda: 1
    with pytest.raises(swell.exception.SerializationError, match=r"A key of .* cannot be kept"):
        scores.get(lambda: 1)
    with pytest.raises(swell.exception.SerializationError, match=r"An item of .* \(lock\) cannot be kept"):
        jobs.put(threading.Lock())


# -- queues ------------------------------------------------------------------------------------------


@pytest.mark.shows("Queue.put", "v", "partition")
@pytest.mark.shows("Queue.put_many", "vs", "partition")
@pytest.mark.shows("Queue.get", "block", "partition")
@pytest.mark.shows("Queue.get_many", "n_values", "block", "partition")
@pytest.mark.shows("Queue.len", "partition", "total")
@pytest.mark.shows("Queue.clear", "partition", "all")
@pytest.mark.shows("Queue.iterate", "partition")
def test_a_queue_is_one(jobs: swell.Queue) -> None:
    jobs.put({"n": 1})
    jobs.put_many(iter([2, None]))
    jobs.put("p1", partition="p")
    jobs.put_many([], partition="p")
    jobs.put_many(["p2"], partition="p")
    assert (jobs.len(), jobs.len(partition="p"), jobs.len(total=True), jobs.len(partition="no")) == (3, 2, 5, 0)
    assert list(jobs.iterate()) == [{"n": 1}, 2, None]
    assert list(jobs.iterate(partition="p")) == ["p1", "p2"]
    assert jobs.get() == {"n": 1}
    assert jobs.get(partition="p") == "p1"
    assert jobs.get_many(9) == [2, None]
    assert (jobs.get(block=False), jobs.get_many(9, block=False)) == (None, [])
    assert jobs.get_many(1, partition="p") == ["p2"]
    for partition in (None, "p", "q"):
        jobs.put(1, partition=partition)
    jobs.clear()
    assert (jobs.len(), jobs.len(total=True)) == (0, 2)
    jobs.clear(partition="p")
    assert jobs.len(total=True) == 1
    jobs.clear(all=True)
    assert jobs.len(total=True) == 0


@pytest.mark.parametrize(
    "act",
    [
        lambda q: q.put(1, partition=""),
        lambda q: q.put(1, partition="p" * 65),
        lambda q: q.put(1, partition_ttl=0),
        lambda q: q.get(timeout=-1),
        lambda q: q.get_many(0),
        lambda q: q.len(partition="p", total=True),
        lambda q: q.clear(partition="p", all=True),
    ],
)
def test_what_makes_no_sense_is_refused(jobs: swell.Queue, act: Any) -> None:
    with pytest.raises(swell.exception.InvalidError):
        act(jobs)


@pytest.mark.shows("Queue.get", "timeout")
@pytest.mark.shows("Queue.get_many", "timeout")
@pytest.mark.shows("Queue.iterate", "item_poll_timeout")
def test_who_waits_for_an_item_is_woken_by_a_put(jobs: swell.Queue) -> None:
    for wait in (lambda: jobs.get(timeout=0.1), lambda: jobs.get_many(2, timeout=0)):
        with pytest.raises(queue.Empty):
            wait()
    later = threading.Timer(0.3, lambda: jobs.put_many([1, 2]))
    later.start()
    assert jobs.get(timeout=LONG_S) == 1
    later.join()
    assert jobs.get_many(5, timeout=LONG_S) == [2]
    later = threading.Timer(0.3, lambda: jobs.put(3))
    later.start()
    found = jobs.iterate(item_poll_timeout=LONG_S)
    assert next(found) == 3
    later.join()
    found.close()  # type: ignore[attr-defined]

    async def within() -> list[int]:
        taking = [asyncio.create_task(jobs.get.aio()) for _ in range(3)]
        await jobs.put_many.aio([4, 5])
        return sorted(await asyncio.gather(*taking))

    assert asyncio.run(within()) == [3, 4, 5]


@pytest.mark.shows("Queue.put", "block", "timeout")
@pytest.mark.shows("Queue.put_many", "block", "timeout")
def test_who_waits_for_room_is_woken_by_a_get(jobs: swell.Queue) -> None:
    jobs.put_many(range(BOUNDS.items_max))
    for put in (
        lambda: jobs.put(1, block=False),
        lambda: jobs.put(1, timeout=0.1),
        lambda: jobs.put_many([1], block=False),
        lambda: jobs.put_many([1], timeout=0.1),
    ):
        with pytest.raises(queue.Full):
            put()
    later = threading.Timer(0.3, jobs.get)
    later.start()
    jobs.put("last", timeout=LONG_S)
    later.join()
    assert jobs.len() == BOUNDS.items_max
    with pytest.raises(swell.exception.RequestSizeError, match="holds 5000 items at most"):
        jobs.put_many(range(BOUNDS.items_max + 1))


@pytest.mark.shows("Queue.put", "partition_ttl")
@pytest.mark.shows("Queue.put_many", "partition_ttl")
def test_a_partition_expires(jobs: swell.Queue) -> None:
    jobs.put(1, partition="short", partition_ttl=0.2)
    jobs.put_many([1], partition="shorter", partition_ttl=0.1)
    jobs.put(1)
    wait_until("they are gone", lambda: jobs.len(total=True) == 1)
    assert jobs.get() == 1


# -- in replicas -------------------------------------------------------------------------------------

PROGRAM = """
import os
import swell

app = swell.App("sharing")
scores = swell.Dict.from_name("scores", create_if_missing=True)

@app.function()
def note(key: str, value: int) -> str:
    scores[key] = value
    with swell.Dict.ephemeral() as passing:
        passing["here"] = key
        return passing["here"]

@app.function(max_containers=2)
@swell.isolated(network="node")
def work(jobs: swell.Queue, results: swell.Queue) -> int:
    count = 0
    while (job := jobs.get(timeout=60)) is not None:
        results.put((job, job * job, os.getpid()))
        count += 1
    return count

@app.function()
@swell.isolated()
def alone() -> str:
    try:
        return scores["a"]
    except swell.Error as error:
        return error.code

@app.function()
def more() -> str:
    from swell.sdk.shared import binding
    from swell.wire import context
    try:
        return str(binding.platform(context.inside[0]).apps())
    except swell.Error as error:
        return error.code
"""


def test_replicas_share_them_too(own_swell: PrivateSwell, own_server: PrivateSwell, tmp_path: Path) -> None:
    program = tmp_path / "sharing.py"
    program.write_text(PROGRAM)
    own_swell.run("deploy", str(program))
    call = {name: swell.Function.from_name("sharing", name) for name in ("note", "work", "alone", "more")}
    assert call["note"].remote("a", 5) == "a"
    assert swell.Dict.from_name("scores")["a"] == 5
    assert [each.name for each in swell.Dict.objects.list()] == ["scores"]
    assert call["alone"].remote() == "isolated"
    assert call["more"].remote() == "no_scope", "nothing else of the API is for code in replicas"
    with swell.Queue.ephemeral() as jobs, swell.Queue.ephemeral() as results:

        async def within() -> list[int]:
            working = [asyncio.create_task(call["work"].remote.aio(jobs, results)) for _ in range(2)]
            for n in range(50):
                await jobs.put.aio(n)
            await jobs.put_many.aio([None, None])
            return list(await asyncio.gather(*working))

        assert sum(asyncio.run(within())) == 50
        done = results.get_many(100)
        assert sorted((n, square) for n, square, _ in done) == [(n, n * n) for n in range(50)]
    swell.Dict.objects.delete("scores")
    own_swell.run("app", "stop", "sharing")


def test_a_key_needs_the_scope_to_deploy_in_the_namespace(own_swell: PrivateSwell, own_server: PrivateSwell) -> None:
    def made(*scopes: str) -> str:
        words = [word for scope in scopes for word in ("--scope", scope)]
        told = own_swell.run("key", "create", f"key-{time.monotonic_ns()}", *words, "--json")
        return str(json.loads(told)["key"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWELL_KEY", made("call:default/*"))
        with pytest.raises(swell.exception.PermissionDeniedError, match=r"lacks the scope deploy:default/\*"):
            swell.Dict.from_name("scores", create_if_missing=True).len()
        patch.setenv("SWELL_KEY", made("deploy:staging/*"))
        with swell.Dict.ephemeral(environment_name="staging") as mine:
            assert mine.put("a", 1)
        with pytest.raises(swell.exception.PermissionDeniedError):
            swell.Dict.from_name("scores", create_if_missing=True).len()


# -- from the command line ---------------------------------------------------------------------------


def test_on_the_command_line(own_swell: PrivateSwell, own_server: PrivateSwell) -> None:
    said = own_swell.run

    def refused(*words: str) -> str:
        with pytest.raises(Failed, match="failed with code 1") as raised:
            said(*words)
        return str(raised.value)

    said("dict", "create", "cfg")
    said("dict", "put", "cfg", "rate", '{"per_s": 5}')
    said("dict", "put", "cfg", "1", "text")
    assert "stays as it is" in said("dict", "put", "cfg", "1", "other", "--skip-if-exists")
    swell.Dict.from_name("cfg")["at"] = datetime(2026, 1, 1)
    assert said("dict", "get", "cfg", "rate") == '{"per_s": 5}\n'
    assert swell.Dict.from_name("cfg")[1] == "text"
    listed = said("dict", "items", "cfg").splitlines()
    assert listed[:2] == ['"rate": {"per_s": 5}', '1: "text"']
    assert listed[2].startswith('"at": <datetime.datetime, ')
    assert "There is no key 'nobody'" in refused("dict", "get", "cfg", "nobody")
    assert "3" in said("dict", "list").splitlines()[1].split()
    assert json.loads(said("dict", "list", "--json"))[0]["name"] == "cfg"
    said("dict", "rm", "cfg", "1")
    assert "There is no key '1'" in refused("dict", "rm", "cfg", "1")
    said("dict", "clear", "cfg")
    assert said("dict", "items", "cfg") == ""
    said("dict", "delete", "cfg")
    assert "There is no dict 'cfg'" in refused("dict", "clear", "cfg")
    said("queue", "create", "q")
    said("queue", "put", "q", "1", "two", "[3]")
    said("queue", "put", "q", "4", "-p", "other")
    assert (said("queue", "len", "q"), said("queue", "len", "q", "--total")) == ("3\n", "4\n")
    assert said("queue", "peek", "q", "-n", "2") == '1\n"two"\n'
    assert said("queue", "get", "q", "-n", "2") == '1\n"two"\n'
    assert said("queue", "get", "q", "--wait", "60") == "[3]\n"
    assert "There is no item" in refused("queue", "get", "q")
    assert "q" in said("queue", "list").splitlines()[1].split()
    said("queue", "clear", "q", "--all")
    assert said("queue", "len", "q", "--total") == "0\n"
    said("queue", "delete", "q")
    assert "There is no queue" in said("queue", "list")
