"""Do gateways that wait for a slot of a real replica get it in turn, and does nothing they do keep it from others?"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from textwrap import dedent

import pytest
from replica_harness import WAIT_S, ReplicaProcess, UnixConnection, function, ready_replica, until

from swell.runtime import turns
from swell.wire.child import Drain

SOURCE = """
    import asyncio, os
    async def thing(waits=False):
        while waits and not os.path.exists("go"):
            await asyncio.sleep(0.005)
        return "done"
"""
PATIENT = "import swell.runtime.turns\nswell.runtime.turns.KEPT_S = 600.0\n" + dedent(SOURCE)
"""A slot that was given is kept as long as a slow machine takes to use it."""
BUSY = "503 busy"


class Gateway:
    """One connection of a gateway."""

    def __init__(self, connection: UnixConnection) -> None:
        self.connection = connection

    def begin(self, target: str = "/call/thing", body: bytes = b"[false]", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", target, body, {"Swell-Request-Id": "q1", **named})

    def ask(self, wait_s: float = WAIT_S, hold: bool = False) -> None:
        self.begin("/slot", b"", Swell_Wait_Ms=str(int(wait_s * 1000)), Swell_Hold=str(int(hold)))

    @property
    def told(self) -> str:
        """The answer in short: "free 1 0" is a slot."""
        response = self.connection.getresponse()
        body = response.read()
        if response.status == 200:
            free = response.getheader("Swell-Free")
            return f"free {free}" if free is not None else body.decode()
        shown = "busy" if b'"busy"' in body else body.decode()
        return f"{response.status} {shown}"

    def call(self) -> str:
        self.begin()
        return self.told

    def leave(self) -> None:
        self.connection.close()


@contextmanager
def gateways(replica: ReplicaProcess, number: int) -> Iterator[list[Gateway]]:
    with ExitStack() as opened:
        made = [Gateway(replica.connect()) for _ in range(number)]
        for one in made:
            opened.callback(one.leave)
        yield made


def in_line(replica: ReplicaProcess, number: int) -> None:
    """Wait until so many wait: who comes then is told so with its own slot, much later, so it is looked at by order."""
    # Nothing of the line can be asked for; what was written is read before what is written later on another connection.
    until(lambda: replica.request("/call/thing", b"[false]")[0] in (200, 503), f"{number} in the line")


def go_on(replica: ReplicaProcess) -> None:
    """What waits ends."""
    (replica.folder / "go").touch()


def test_a_free_slot_is_given_and_kept() -> None:
    with ready_replica(PATIENT, function(), max_inputs=2) as replica, gateways(replica, 3) as (one, two, three):
        one.ask()
        assert one.told == "free 1 0"
        two.ask()
        assert two.told == "free 0 0"
        assert three.call() == BUSY
        # The slots are for those who were given them, again and again as for anybody.
        assert one.call() == '"done"'
        assert three.call() == '"done"'
        assert two.call() == '"done"'
        assert [one.call(), two.call(), three.call()] == ['"done"'] * 3


def test_who_waits_longest_is_next_and_before_any_request() -> None:
    with ready_replica(PATIENT, function(), max_inputs=1) as replica, gateways(replica, 4) as (busy, one, two, late):
        busy.begin(body=b"[true]")
        until(lambda: late.call() == BUSY, "it works")
        one.ask()
        in_line(replica, 1)
        two.ask()
        in_line(replica, 2)
        go_on(replica)
        assert busy.told == '"done"'
        assert one.told == "free 0 1"
        assert late.call() == BUSY
        assert one.call() == '"done"'
        assert two.told == "free 0 0"
        assert late.call() == BUSY
        # Whoever does not want it any more leaves it to the others.
        two.leave()
        until(lambda: late.call() == '"done"', "the slot that was given up")


def test_who_left_the_line_is_passed_over() -> None:
    with ready_replica(PATIENT, function(), max_inputs=1) as replica, gateways(replica, 3) as (busy, gone, one):
        busy.begin(body=b"[true]")
        until(lambda: one.call() == BUSY, "it works")
        gone.ask()
        in_line(replica, 1)
        one.ask()
        gone.leave()
        go_on(replica)
        assert busy.told == '"done"'
        assert one.told == "free 0 0"
        assert one.call() == '"done"'


def test_who_does_not_want_to_wait_is_told_at_once_and_who_waited_in_vain_then() -> None:
    with ready_replica(SOURCE, function(), max_inputs=1) as replica, gateways(replica, 2) as (busy, one):
        busy.begin(body=b"[true]")
        until(lambda: one.call() == BUSY, "it works")
        for wait_s in (0.0, 0.05):
            one.ask(wait_s)
            assert one.told == BUSY
        busy.leave()
        # The line is empty: the slot of the input whose caller left is anybody's.
        until(lambda: one.call() == '"done"', "the slot")


def test_a_slot_that_is_not_used_goes_to_others() -> None:
    with ready_replica(SOURCE, function(), max_inputs=1) as replica, gateways(replica, 3) as (hangs, one, two):
        hangs.ask()
        assert hangs.told == "free 0 0"
        begun = time.monotonic()
        one.ask()
        assert one.told == "free 0 0"
        assert time.monotonic() - begun > turns.KEPT_S / 2
        # It comes at last: it is a request like any other.
        assert hangs.call() == BUSY
        assert one.call() == '"done"'
        assert hangs.call() == '"done"'
        assert two.call() == '"done"'


def test_a_slot_that_is_held_is_so_until_its_connection_is_closed() -> None:
    with ready_replica(SOURCE, function(), max_inputs=1) as replica, gateways(replica, 3) as (holds, one, late):
        holds.ask(hold=True)
        assert holds.told == "free 0 0"
        one.ask(2 * turns.KEPT_S)
        assert one.told == BUSY
        one.ask()
        holds.leave()
        assert one.told == "free 0 0"
        assert one.call() == '"done"'
        assert late.call() == '"done"'


def test_a_slot_is_free_again_where_its_request_is_not_admitted() -> None:
    with ready_replica(PATIENT, function(), max_inputs=1) as replica, gateways(replica, 2) as (one, two):
        one.ask()
        assert one.told == "free 0 0"
        one.begin("/call/nothing")
        assert one.told.startswith("404")
        assert two.call() == '"done"'


def test_a_replica_that_ends_tells_all_that_wait() -> None:
    with ready_replica(PATIENT, function(), max_inputs=1) as replica, gateways(replica, 3) as (busy, one, late):
        busy.begin(body=b"[true]")
        until(lambda: late.call() == BUSY, "it works")
        one.ask()
        in_line(replica, 1)
        replica.tell(Drain(reason="test"))
        assert one.told == "410 busy"
        late.ask()
        assert late.told == "410 busy"
        go_on(replica)
        assert busy.told == '"done"'
        assert replica.wait() == 0


def test_a_replica_that_ends_waits_for_those_that_a_slot_is_held_for() -> None:
    with ready_replica(SOURCE, function(), max_inputs=1) as replica, gateways(replica, 2) as (holds, other):
        holds.ask(hold=True)
        assert holds.told == "free 0 0"
        replica.tell(Drain(reason="test"))
        until(lambda: _refused(other), "it takes nothing new")
        time.sleep(1.0)
        assert replica.process.poll() is None
        holds.leave()
        assert replica.wait() == 0


def _refused(gateway: Gateway) -> bool:
    gateway.ask(0.0)
    return gateway.told == "410 busy"


@pytest.mark.parametrize("header", ["", "soon", "-5", "9" * 30])
def test_a_time_to_wait_that_is_none_is_none(header: str) -> None:
    assert turns._seconds(header.encode()) == 0.0
    assert turns._seconds(b"2500") == 2.5
    assert turns._seconds(b"99999999") == turns.WAIT_MAX_S


def test_a_method_called_slot_is_called_as_any_other() -> None:
    source = """
        class Thing:
            def slot(self): return "a method"
    """
    from swell.model.workload import Entry, Method

    entry = Entry("user_code", "Thing", "cls", (Method("slot"),))
    with ready_replica(source, entry) as replica:
        assert replica.call("slot") == "a method"
        connection = replica.connect()
        connection.request("GET", "/slot", headers={"Swell-Request-Id": "q1"})
        response: http.client.HTTPResponse = connection.getresponse()
        assert response.status == 404
        connection.close()
