"""Where other gateways fill replicas, too: are those that are full asked, and is what they say used, once and well?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rig import Browser, Exchange, Reader, Replica, Rig, echo_after, request, until

from swell.gateway import asking
from swell.gateway.request import REPLAY_MAX
from swell.model.limits import Limits
from swell.wire.link import Elsewhere

Play = Callable[..., None]
POOL = "default/app/fn@rv-000000000001"
LONG = b"x" * (REPLAY_MAX + 1)


class Slots:
    """How a replica answers: with one slot, which others have until they are told to let go."""

    def __init__(self, free: str = "0 0") -> None:
        self.let_go = asyncio.Event()
        self.free = free
        self.status = 200

    async def __call__(self, exchange: Exchange, reader: Reader) -> None:
        if exchange.target == "/slot":
            await exchange.read_body(reader)
            if exchange.headers["swell-wait-ms"] != "0":
                left = asyncio.ensure_future(reader.reader.read(1))
                await asyncio.wait({left, asyncio.ensure_future(self.let_go.wait())}, return_when="FIRST_COMPLETED")
                if left.done():
                    raise ConnectionError
                left.cancel()
                await asyncio.gather(left, return_exceptions=True)
            if self.status == 200 and self.let_go.is_set():
                await exchange.answer(200, b"{}", swell_free=self.free)
            else:
                await exchange.answer(self.status if self.status != 200 else 503, b"{}", swell_busy="1")
        elif self.let_go.is_set():
            await exchange.answer(body=await exchange.read_body(reader))
        else:
            await exchange.read_body(reader)
            await exchange.answer(503, b"", swell_busy="1")


def says_late(heard: asyncio.Event, status: int = 200, **slots: str) -> Callable[[Exchange, Reader], Awaitable[None]]:
    """A replica that answers with what it was sent, and says this of its slots once `heard` is set."""

    async def behave(exchange: Exchange, reader: Reader) -> None:
        body = await exchange.read_body(reader)
        if exchange.target == "/slot":
            await heard.wait()
            await exchange.answer(status, **slots)
        else:
            await exchange.answer(body=body)

    return behave


def targets(replica: Replica) -> list[str]:
    return [exchange.target for exchange in replica.seen]


async def held(rig: Rig, number: int) -> None:
    await until(lambda: rig.front.deployed.pools[POOL].held_count == number, f"{number} held")


def test_a_full_replica_is_asked_once_and_its_slot_is_used(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots()
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=1)
        browsers = [await rig.browser() for _ in range(3)]
        for n, browser in enumerate(browsers):
            browser.send(request("/call/app/fn", b"%d" % n))
            await held(rig, n + 1)
        await until(lambda: "/slot" in targets(replica), "the question")
        # Nothing is tried while the question stands, however long: that would be some tries a second.
        await asyncio.sleep(0.3)
        assert targets(replica) == ["/call/fn", "/slot"]
        slots.let_go.set()
        assert [(await browser.answer()).body for browser in browsers] == [b"0", b"1", b"2"]
        question, used = replica.seen[1:3]
        assert used.writer is question.writer, "the slot is the connection's"

    play(scenario)


def test_a_slot_that_nobody_waits_for_any_more_is_given_back(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots()
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: "/slot" in targets(replica), "the question")
        browser.close()
        await held(rig, 0)
        slots.let_go.set()
        question = replica.seen[-1].writer
        await until(lambda: question not in replica.writers, "its connection's end")
        assert (await (await rig.browser()).call("/call/app/fn", b"y")).body == b"y"

    play(scenario)


def test_what_is_free_beside_the_slot_is_used_without_asking(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots(free="2 0")
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=8)
        browsers = [await rig.browser() for _ in range(3)]
        for browser in browsers:
            browser.send(request("/call/app/fn", b"x"))
        await held(rig, 3)
        await until(lambda: "/slot" in targets(replica), "the question")
        before = len(replica.seen)
        slots.let_go.set()
        assert [(await browser.answer()).status for browser in browsers] == [200] * 3
        assert targets(replica)[before:] == ["/call/fn"] * 3

    play(scenario)


@pytest.mark.parametrize("status", [404, 410, 503])
def test_a_replica_that_gives_no_slots_is_tried_now_and_then(play: Play, status: int) -> None:
    """One of an earlier version, one that ends, one that hangs up on who asks."""

    async def scenario(rig: Rig) -> None:
        slots = Slots()
        slots.status = status
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: "/slot" in targets(replica), "the question")
        slots.let_go.set()
        assert (await browser.answer()).body == b"x"

    play(scenario)


def test_who_waited_in_vain_asks_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(rig: Rig) -> None:
        monkeypatch.setattr("swell.gateway.replicas.WAIT_S", 0.0)
        refusing = True

        async def in_vain(exchange: Exchange, reader: Reader) -> None:
            if exchange.target == "/slot" and not refusing:
                await exchange.answer(200, b"{}", swell_free="0 0")
            elif refusing:
                await exchange.read_body(reader)
                await exchange.answer(503, b"", swell_busy="1")
            else:
                await exchange.answer(body=await exchange.read_body(reader))

        replica = await rig.replica(in_vain)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: targets(replica).count("/slot") >= 3, "three questions")
        refusing = False
        assert (await browser.answer()).body == b"x"

    play(scenario)


def test_a_replica_that_is_asked_and_leaves_or_dies_is_asked_no_more(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        first, second = Slots(), Slots()
        second.let_go.set()
        replica = await rig.replica(first)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: "/slot" in targets(replica), "the question")
        question = replica.seen[-1].writer
        await rig.endpoints("fn", max_inputs=1)
        await until(lambda: question not in replica.writers, "the question's end")
        await rig.endpoints("fn", replica, max_inputs=1)
        await until(lambda: targets(replica).count("/slot") == 2, "another question")
        await replica.stop()
        await rig.endpoints("fn", await rig.replica(second), max_inputs=1)
        assert (await browser.answer()).body == b"x"

    play(scenario)


def test_what_cannot_be_sent_twice_waits_for_a_slot_of_its_own(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots()
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", LONG))
        await held(rig, 1)
        await until(lambda: targets(replica).count("/slot") >= 2, "the question")
        assert "/call/fn" not in targets(replica)
        slots.let_go.set()
        assert (await browser.answer()).body == LONG
        # So does each that follows; what is short is just sent.
        replica.seen.clear()
        assert (await browser.call("/call/app/fn", LONG)).body == LONG
        assert (await browser.call("/call/app/fn", b"short")).body == b"short"
        assert targets(replica) == ["/slot", "/call/fn", "/call/fn"]

    play(scenario, gateways=2)


def test_with_one_gateway_nothing_is_asked(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots()
        slots.let_go.set()
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        assert (await browser.call("/call/app/fn", LONG)).body == LONG
        assert targets(replica) == ["/call/fn"]

    play(scenario)


def test_with_one_gateway_what_cannot_be_sent_twice_is_asked_for_where_the_queue_fills_slots(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots()
        slots.let_go.set()
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=2)
        browser = await rig.browser()
        known = rig.front.deployed.pools[POOL].replicas[replica.name]
        for there in (1, 0):
            rig.control.say(Elsewhere(((POOL, ((replica.name, there),)),)))
            await until(lambda there=there: known.elsewhere == there, "the word")
            assert (await browser.call("/call/app/fn", LONG)).body == LONG
        assert targets(replica) == ["/slot", "/call/fn", "/call/fn"]

    play(scenario)


def test_an_upload_whose_caller_leaves_while_a_slot_is_asked_for_gives_it_back(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slow(exchange: Exchange, reader: Reader) -> None:
            if exchange.target == "/slot":
                await exchange.read_body(reader)
                asked.set()
                await answer.wait()
                await exchange.answer(200, b"{}", swell_free="0 0")
            else:
                await exchange.answer(body=await exchange.read_body(reader))

        replica = await rig.replica(slow)
        await rig.deploy(replica, max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", LONG))
        await asked.wait()
        browser.close()
        await until(lambda: not rig.front.deployed.pools[POOL].in_flight, "it left")
        question = replica.seen[0].writer
        answer.set()
        await until(lambda: question not in replica.writers, "the slot's return")
        assert targets(replica) == ["/slot"]

    play(scenario, gateways=2)


def test_an_upload_to_a_replica_that_knows_no_slots_is_read_on(play: Play) -> None:
    """While one was asked for, more of the body came than is kept, and the client was made to wait."""

    async def scenario(rig: Rig) -> None:
        heard = asyncio.Event()
        await rig.deploy(await rig.replica(says_late(heard, 404)), max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", LONG * 4))
        await until(lambda: any(client.unread for client in rig.gateway.clients), "the client waits")
        heard.set()
        assert (await browser.answer()).body == LONG * 4

    play(scenario, gateways=2)


def test_a_single_use_replica_that_nothing_was_sent_to_is_not_used_up(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        heard = asyncio.Event()
        replica = await rig.replica(says_late(heard, swell_free="0 0"))
        await rig.deploy(replica, max_inputs=1, single_use=True)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", LONG))
        await until(lambda: "/slot" in targets(replica), "the question")
        browser.close()
        await until(lambda: not rig.front.deployed.pools[POOL].in_flight, "its end")
        heard.set()
        assert (await (await rig.browser()).call("/call/app/fn", b"y")).body == b"y"

    play(scenario, gateways=2)


def test_a_single_use_replica_that_others_gave_back_is_tried_again(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Slots()
        replica = await rig.replica(slots)
        await rig.deploy(replica, max_inputs=1, single_use=True)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: replica.seen and rig.front.deployed.pools[POOL].held_count, "it was refused")
        slots.let_go.set()
        assert (await browser.answer()).body == b"x"

    play(scenario, gateways=2)


def test_the_less_loaded_is_chosen_by_what_all_gateways_have(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        one, two = await rig.replica(), await rig.replica()
        pool = await rig.deploy(one, two)
        browser = await rig.browser()
        for loaded, idle in ((one, two), (two, one)):
            one.seen.clear()
            two.seen.clear()
            rig.control.say(Elsewhere(((pool, ((loaded.name, 5),)), ("default/app/gone@rv-1", ()))))
            replicas = rig.front.deployed.pools[pool].replicas
            await until(lambda r=replicas, n=loaded.name: r[n].elsewhere == 5, "the word")
            for _ in range(10):
                await browser.call("/call/app/fn", b"x")
            assert (len(loaded.seen), len(idle.seen)) == (0, 10)
        # Without control nobody tells what others have.
        await rig.control.stop()
        await until(lambda: not any(r.elsewhere for r in rig.front.deployed.pools[pool].replicas.values()), "no word")

    play(scenario)


def test_limits_are_shared_by_as_many_as_there_are(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        limited = await rig.replica(echo_after(gate))
        await rig.deploy(limited, limits=Limits(concurrency=4))

        async def call() -> Browser:
            browser = await rig.browser()
            browser.send(request("/call/app/fn", b"x"))
            return browser

        rig.control.publish(gateways=2)
        await rig.seen()
        few = [await call() for _ in range(2)]
        await until(lambda: limited.running == 2, "two of the limited")
        refused = await (await rig.browser()).call("/call/app/fn", b"x")
        assert (refused.status, refused.error["code"]) == (429, "too_many_in_flight")
        # It is told what it met, which is a part of the limit.
        assert refused.error["message"].startswith("2 requests of app/fn at one of 2 gateways are under way")
        # The other gateway ended.
        rig.control.publish(gateways=1)
        await rig.seen()
        few += [await call() for _ in range(2)]
        await until(lambda: limited.running == 4, "four of the limited")
        gate.set()
        assert [(await browser.answer()).status for browser in few] == [200] * 4

    play(scenario)


class Counter:
    """What starts a foreign process, and counts its slots: here there is one, which others have until it is let go."""

    def __init__(self, slots: int = 1) -> None:
        self.free = slots
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, exchange: Exchange, reader: Reader) -> None:
        assert (exchange.target, exchange.headers["swell-hold"]) == ("/slot", "1")
        await exchange.read_body(reader)
        if not self.free and exchange.headers["swell-wait-ms"] == "0":
            await exchange.answer(503, b"{}", swell_busy="1")
            return
        if not self.free:
            self.waiting.append(asyncio.Event())
            await self.waiting[-1].wait()
        self.free -= 1
        try:
            await exchange.answer(200, b"{}", swell_free="0 0")
            assert await reader.reader.read(1) == b""
        finally:
            self.give_back()

    def give_back(self) -> None:
        self.free += 1
        if self.waiting:
            self.waiting.pop(0).set()


async def counted(rig: Rig, foreign: Replica, counter: Counter) -> Replica:
    """What counts for a foreign process listens where a replica of ours would."""
    path = rig.settings.paths.replica_socket(foreign.name)
    path.parent.mkdir(exist_ok=True)
    listening = Replica("counter", str(path), counter)
    rig.replicas.append(listening)
    return await listening.start()


def test_a_foreign_process_gets_what_a_slot_was_asked_for(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        foreign = await rig.replica(native=False)
        counter = Counter()
        counting = await counted(rig, foreign, counter)
        await rig.deploy(foreign, max_inputs=1, native=False)
        browser = await rig.browser()
        for word in (b"a", b"b"):
            assert (await browser.call("/call/app/fn", word)).body == word
            await until(lambda: counter.free == 1, "the slot's return")
        assert targets(counting) == ["/slot"] * 2
        # Another gateway has it: it is waited for, and held as long as the input runs.
        counter.free = 0
        browser.send(request("/call/app/fn", b"c"))
        await until(lambda: counter.waiting, "it waits")
        assert len(foreign.seen) == 2
        counter.give_back()
        assert (await browser.answer()).body == b"c"
        await until(lambda: counter.free == 1, "the slot's return")

    play(scenario, gateways=2)


def test_an_upload_to_a_foreign_process_is_read_on_once_it_has_a_slot(play: Play) -> None:
    """While that was asked for, more of the body came than is kept; a connection to the process is open."""

    async def scenario(rig: Rig) -> None:
        heard = asyncio.Event()
        heard.set()

        async def slot(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await heard.wait()
            await exchange.answer(swell_free="0 0")

        foreign = await rig.replica(native=False)
        path = rig.settings.paths.replica_socket(foreign.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        rig.replicas.append(await Replica("counting", str(path), slot).start())
        await rig.deploy(foreign, max_inputs=1, native=False)
        browser = await rig.browser()
        assert (await browser.call("/call/app/fn", b"x")).body == b"x"
        heard.clear()
        browser.send(request("/call/app/fn", LONG * 4))
        await until(lambda: any(client.unread for client in rig.gateway.clients), "the client waits")
        heard.set()
        assert (await browser.answer()).body == LONG * 4

    play(scenario, gateways=2)


def test_a_foreign_process_s_slot_is_held_until_its_input_is_over(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        foreign = await rig.replica(echo_after(gate), native=False)
        counter = Counter(2)
        await counted(rig, foreign, counter)
        await rig.deploy(foreign, max_inputs=2, native=False)
        browsers = [await rig.browser() for _ in range(3)]
        for browser in browsers:
            browser.send(request("/call/app/fn", b"x"))
        await until(lambda: foreign.running == 2, "two run")
        await held(rig, 1)
        assert counter.free == 0
        # One leaves: what it had is the third's.
        next(b for b in browsers if b is not browsers[2]).close()
        await until(lambda: len(foreign.seen) == 3, "the third")
        assert foreign.open <= 3
        gate.set()
        assert (await browsers[2].answer()).status == 200
        await until(lambda: counter.free == 2, "all are back")

    play(scenario, gateways=2)


@pytest.mark.parametrize("gateways", [1, 2])
def test_a_foreign_process_that_nobody_counts_for_is_just_sent_to(play: Play, gateways: int) -> None:
    """One that a server of an earlier version started."""

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(native=False), max_inputs=1, native=False)
        assert (await (await rig.browser()).call("/call/app/fn", b"x")).body == b"x"

    play(scenario, gateways=gateways)


def test_only_a_whole_word_is_a_slot() -> None:
    def told(*lines: bytes) -> object:
        return asking._told(lines)

    other = (b"content-type", b": ", b"x", b"\r\n")
    assert told(*other) is None
    assert told(*other, b"swell-free", b": ", b"3 1", b"\r\n") == asking.Told(3, 1)
    for word in (b"", b"3", b"a 1", b"3 b", b"-1 0"):
        assert told(b"swell-free", b": ", word, b"\r\n") is None
