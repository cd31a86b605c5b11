"""Does a queued call go on whoever listens to it, is its answer had by whoever asks, and is nothing kept for nobody?

A replica's real door, in one loop, and connections that bring calls, leave, cancel and ask; a model of what is kept.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queued_place import Replica, turns, until
from test_queued_hand import play

from swell.runtime import keeping
from swell.runtime.keeping import Lease

picks = st.integers(0, 1000)


class Client:
    """One connection of a runner, that is sent one request; what came on it, and whether it is over."""

    def __init__(self, path: Path, lease: Lease, brings: bool, whole: bool = True) -> None:
        """`whole`: else the end of its body comes with `finish`."""
        self.lease = lease
        self.came = b""
        self.over = False
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(path))
        self.sock.setblocking(False)
        id, token = lease
        body = json.dumps([f"{id}/{token}"]).encode() if brings else b""
        head = f"POST {'/call/work' if brings else '/kept'} HTTP/1.1\r\nSwell-Request-Id: {id}\r\n"
        more = f"Swell-Remaining-Ms: 600000\r\nSwell-Hand-Out: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._rest = b"" if whole else body[-1:]
        self.sock.sendall((head + more).encode() + body.removesuffix(self._rest))

    def finish(self) -> None:
        self.sock.sendall(self._rest)

    def read(self) -> None:
        try:
            while data := self.sock.recv(65536):
                self.came += data
            self.over = True
        except BlockingIOError:
            pass
        except OSError:
            self.over = True

    @property
    def result(self) -> str:
        """Of an answer that is whole; else empty."""
        head, _, body = self.came.partition(b"\r\n\r\n")
        length = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        return body.decode() if length and len(body) == length[0] else ""


class Calls(RuleBasedStateMachine):
    """Runners, one after the other, and one replica."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        self.kept: dict[Lease, str] = {}
        """What came of each that is to be kept; empty while it runs."""
        self.listens: dict[Lease, Client] = {}
        self.clients: list[Client] = []
        self.number = 0

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def both() -> None:
            await work
            await turns()
            for client in self.clients:
                client.read()

        self.loop.run_until_complete(both())

    @initialize()
    def begin(self) -> None:
        async def made() -> None:
            self.replica = await Replica(self.root, 3).open()

        self.run(made())

    @property
    def at_work(self) -> list[Lease]:
        return [lease for lease, result in self.kept.items() if not result]

    def pick(self, leases: list[Lease], pick: int) -> Lease:
        return leases[pick % len(leases)]

    def listen(self, lease: Lease, brings: bool) -> None:
        async def listened() -> None:
            client = Client(self.replica.path, lease, brings)
            self.clients.append(client)
            self.listens[lease] = client

        self.run(listened())

    # -- what happens ----------------------------------------------------------------------------

    @rule()
    @precondition(lambda self: len(self.at_work) < 3)
    def call_comes(self) -> None:
        self.number += 1
        lease = (f"fc-{self.number}", self.number)
        self.kept[lease] = ""
        self.listen(lease, brings=True)

    @rule(half=st.booleans())
    @precondition(lambda self: len(self.at_work) < 3)
    def call_comes_of_who_is_gone(self, half: bool) -> None:
        self.number += 1

        async def came() -> None:
            client = Client(self.replica.path, (f"fc-{self.number}", self.number), True)
            client.sock.shutdown(socket.SHUT_WR if half else socket.SHUT_RDWR)
            client.sock.close()

        self.run(came())
        assert not any(name.startswith(f"fc-{self.number}/") for name in self.replica.begun)

    @rule()
    @precondition(lambda self: len(self.at_work) < 2)
    def call_comes_twice(self) -> None:
        """The one that is whole first is begun, and the other one is not."""
        self.number += 1
        lease = (f"fc-{self.number}", self.number)
        self.kept[lease] = ""

        async def came() -> None:
            both = [Client(self.replica.path, lease, True, whole=False) for _ in range(2)]
            self.clients += both
            self.listens[lease] = both[0]
            await turns()
            for client in both:
                client.finish()
                await turns()

        self.run(came())
        other = self.clients.pop()
        assert other.over
        other.sock.close()

    @rule()
    @precondition(lambda self: len(self.at_work) < 3)
    def call_is_late_before_it_is_whole(self) -> None:
        """It is told so, and nothing of it is kept."""
        self.number += 1
        id = f"fc-{self.number}"

        async def late() -> None:
            self.clients.append(Client(self.replica.path, (id, self.number), True, whole=False))
            await turns()
            (work,) = [work for work in self.replica.slots.running if work.request == id]
            work.deadline = 0.0
            self.replica.slots._expire(work)
            await turns()
            self.clients[-1].finish()

        self.run(late())
        client = self.clients.pop()
        client.sock.close()
        assert b"504 deadline" in client.came
        assert not any(name.startswith(f"{id}/") for name in self.replica.begun)

    @rule(pick=picks)
    @precondition(lambda self: self.kept)
    def somebody_asks(self, pick: int) -> None:
        """Also beside who listens already: from then on it alone is told."""
        lease = self.pick(list(self.kept), pick)
        before = self.listens.get(lease)
        runs = not self.kept[lease]
        self.listen(lease, brings=False)
        assert self.listens[lease].result == self.kept[lease]
        if before is not None and runs:
            assert before.over

    @rule(pick=picks)
    @precondition(lambda self: self.at_work)
    def who_listens_is_gone(self, pick: int) -> None:
        lease = self.pick(self.at_work, pick)

        async def gone() -> None:
            client = self.listens.pop(lease, None)
            if client is not None:
                client.sock.close()
                self.clients.remove(client)

        self.run(gone())

    @rule(pick=picks)
    @precondition(lambda self: self.at_work)
    def code_ends(self, pick: int) -> None:
        lease = self.pick(self.at_work, pick)
        self.kept[lease] = f'"result of {lease[0]}"'

        async def ended() -> None:
            (one,) = [one for one in self.replica.working if one.name == f"{lease[0]}/{lease[1]}"]
            self.replica.end(one, f"result of {lease[0]}")

        self.run(ended())
        if lease in self.listens:
            assert self.listens[lease].result == self.kept[lease]

    @rule(pick=picks)
    @precondition(lambda self: set(self.at_work) & set(self.listens))
    def who_listens_cancels(self, pick: int) -> None:
        lease = self.pick([lease for lease in self.at_work if lease in self.listens], pick)
        client = self.listens.pop(lease)
        del self.kept[lease]

        async def cancelled() -> None:
            client.sock.shutdown(socket.SHUT_WR)

        self.run(cancelled())
        assert client.over

    @rule(pick=picks, all=st.booleans())
    @precondition(lambda self: self.kept)
    def it_is_forgotten(self, pick: int, all: bool) -> None:
        leases = list(self.kept) if all else [self.pick(list(self.kept), pick)]
        for lease in leases:
            del self.kept[lease]

        async def forgotten() -> None:
            self.replica.keeping.forget([*leases, ("fc-unknown", 1)])

        self.run(forgotten())

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def what_is_kept_is_what_is_to_be(self) -> None:
        if not hasattr(self, "replica"):
            return
        kept = self.replica.keeping
        ended = {lease: bool(result) for lease, result in self.kept.items()}
        assert {(one.id, one.token): one.ended for one in kept.listed()} == ended
        assert {one.name for one in self.replica.working} == {f"{id}/{token}" for id, token in self.at_work}
        assert len(self.replica.slots.running) == len(self.at_work)
        assert kept.bytes == sum(keeping.EACH + keep._size for keep in kept._kept.values())
        assert all(count == 1 for count in self.replica.begun.values())

    def teardown(self) -> None:
        async def over() -> None:
            self.replica.keeping.give_up()
            self.replica.die()

        self.run(over())
        for client in self.clients:
            client.sock.close()
        assert self.replica.keeping.bytes == 0
        self.loop.close()
        shutil.rmtree(self.root)


@pytest.mark.slow
def test_what_is_kept_is_had_by_who_asks_until_it_is_safe() -> None:
    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_what_has_no_room_while_nobody_listens_is_told_in_words_and_nothing_more_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "KEPT_BYTES_MAX", 50_000)

    async def scenario(place: Any) -> None:
        replica = await place.replica(3)
        for number in range(3):
            client = Client(replica.path, (f"fc-{number}", 1), True)
            await until(lambda number=number: len(replica.working) == number + 1)
            client.sock.close()
        await turns()
        for one in list(replica.working):
            replica.end(one, "x" * 30_000)
        await turns()
        asked = [Client(replica.path, (f"fc-{number}", 1), False) for number in range(3)]
        refused = Client(replica.path, ("fc-9", 1), False)
        await turns()
        for client in (*asked, refused):
            client.read()
        assert [b"502 lease_expired" in client.came for client in asked] == [False, True, True]
        assert b"Swell-Busy" in refused.came
        # It is full until some is safe.
        monkeypatch.setattr(keeping, "KEPT_BYTES_MAX", 30_000)
        late = Client(replica.path, ("fc-10", 1), True)
        await turns()
        late.read()
        assert late.came.startswith(b"HTTP/1.1 503")
        for client in (*asked, refused, late):
            client.sock.close()

    play(scenario)


def test_one_that_is_full_of_what_it_keeps_says_so_and_has_slots_for_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "KEPT_MAX", 1)

    async def asked(replica: Replica, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(replica.path))
        writer.write(b"POST /slot HTTP/1.1\r\nSwell-Wait-Ms: 60000\r\n%bContent-Length: 0\r\n\r\n" % line)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return head

    async def scenario(place: Any) -> None:
        replica = await place.replica(3)
        kept, refused = [Client(replica.path, (f"fc-{number}", 1), True) for number in range(2)]
        await until(lambda: replica.working)
        await turns()
        refused.read()
        assert keeping.FULL.encode() in refused.came
        assert (await asked(replica, b"Swell-Hand-Out: 1\r\n")).startswith(b"HTTP/1.1 503")
        assert (await asked(replica, b"")).startswith(b"HTTP/1.1 200")
        replica.keeping.forget([kept.lease])
        assert (await asked(replica, b"Swell-Hand-Out: 1\r\n")).startswith(b"HTTP/1.1 200")
        for client in (kept, refused):
            client.sock.close()

    play(scenario)
