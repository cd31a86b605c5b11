"""Where are queued calls tested? With replicas in this loop whose inputs end when the test, their control, says so."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from swell.model.call import Body
from swell.model.events import ReplicaSeen
from swell.model.gang import Seat
from swell.model.replica import Phase
from swell.model.workload import Method
from swell.runtime.arguments import Arguments
from swell.runtime.call import Callee
from swell.runtime.http import Connection
from swell.runtime.runner.queued.calls import QueuedCalls
from swell.runtime.service import Service
from swell.runtime.shared import ReplicaContext
from swell.runtime.slots import Slots
from swell.wire.calls import CallEnd, Ended, EndedHeard, Grant, Granted, Holding, Lease, Resume, Revoke
from swell.wire.child import Forget
from swell.wire.paths import Home

PATIENCE_S = 60.0
DIED = "The replica ended while it had the call (its process crashed: exit code 3)."
"""What is told of the calls that a replica died with here."""
FAILED = ("exception", "deadline", "replica_died")
numbers = itertools.count(1)


class Working:
    """One input whose code runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class Replica:
    """A real door and counter of slots; its one method, `work(name)`, answers what the test says."""

    role = "serving"
    seat: Seat | None = None
    call = ""

    def __init__(self, folder: Path, max_inputs: int) -> None:
        self.id = f"r1-{next(numbers):x}"
        self.path = folder / f"{self.id}.s"
        self.address = f"unix:{self.path}"
        self.max_inputs = max_inputs
        self.phase = Phase.READY
        loop = asyncio.get_running_loop()
        self.slots = Slots(max_inputs, 60.0, loop, lambda _requests: None)
        # It would end the process it is in.
        self.slots._watchdog = SimpleNamespace(  # type: ignore[assignment]
            expect=lambda _at: None, rest=lambda: None, look_on=lambda: None
        )
        context = ReplicaContext(loop, None, self.slots, Context(), ())  # type: ignore[arg-type]  # what is used
        self.context = context
        self.service = Service(context)
        self.keeping = context.keeping
        self.awaited = False
        self.earlier = False
        """It is of an earlier version, which keeps nothing."""
        self.forgets = 0
        """So often it was told what it need not keep."""
        self.service.add_call(Callee(Method("work"), self.work, Arguments("work", self.work)))
        self.working: list[Working] = []
        self.begun: Counter[str] = Counter()
        self.terminated = False
        self.dead = False
        self.told_to_end = ""
        """Why, by its runner."""
        self.most = 0
        self.connections: set[Connection] = set()
        self.server: asyncio.AbstractServer | None = None

    async def work(self, name: str) -> str:
        one = Working(name)
        self.working.append(one)
        self.begun[name] += 1
        self.most = max(self.most, len(self.working))
        try:
            return await one.over
        finally:
            self.working.remove(one)

    @property
    def keeps(self) -> bool:
        return not (self.earlier or self.awaited)

    @property
    def link(self) -> Any:
        """How it is told what it need not keep; there is none before it has come back."""
        return None if self.awaited else SimpleNamespace(send=self._hear)

    def _hear(self, message: Forget) -> None:
        self.forgets += 1
        self.keeping.forget(message.calls)

    async def open(self) -> Replica:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(
            lambda: Connection(self.service.accept, self.connections, {}), str(self.path)
        )
        return self

    def given(self, call: str) -> None:
        self.call = call

    def terminate(self) -> None:
        self.terminated = True

    def seen(self, phase: Phase) -> ReplicaSeen:
        self.phase = phase
        why = {"reason": self.told_to_end}
        if phase is Phase.GONE:
            why = {"reason": "crashed", "detail": "exit code 3\nit printed this"}
        return ReplicaSeen(at=0.0, replica=self.id, phase=phase, pool="p", role="serving", node="local", **why)

    def end(self, one: Working, result: str = "done", error: str = "") -> None:
        """Its code returns that, or raises."""
        if one.over.done():
            return
        if error:
            one.over.set_exception(ValueError(error))
        else:
            one.over.set_result(result)

    def die(self) -> None:
        """As a killed process leaves it: every connection is closed, whatever was sent on it."""
        self.dead = True
        if self.server is not None:
            self.server.close()
        for connection in list(self.connections):
            connection._transport.abort()
        for one in list(self.working):
            one.over.cancel()


class Rival:
    """A gateway's connection: it sends inputs, and asks for a slot where it is refused."""

    def __init__(self, path: Path | str, name: str, method: str = "work") -> None:
        self.name = name
        self.target = f"/call/{method}"
        self.status = 0
        self.task = asyncio.get_running_loop().create_task(self._live(path))

    async def _live(self, path: Path | str) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            while True:
                self.status = await self._sent(reader, writer, self.target, json.dumps([self.name]).encode())
                if self.status != 503:
                    return
                asked = await self._sent(reader, writer, "/slot", b"", b"Swell-Wait-Ms: 5000\r\n")
                if asked != 200:
                    return
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _sent(self, reader: Any, writer: Any, target: str, body: bytes, more: bytes = b"") -> int:
        head = f"POST {target} HTTP/1.1\r\nSwell-Request-Id: g\r\nContent-Length: {len(body)}\r\n".encode()
        writer.write(head + more + b"\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        return int(answer.split()[1])


class Place:
    """One runner's calls, its replicas, and control at the other end of the link."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.call_ends.mkdir(parents=True)
        self.replicas: dict[str, Replica] = {}
        self.here = True
        self.told: dict[Lease, CallEnd] = {}
        """What control heard, also of what it asked after."""
        self.repeated: list[tuple[CallEnd, CallEnd]] = []
        """Where it was told otherwise than before."""
        self.holding: set[Lease] = set()
        self.sends: list[int] = []
        self.killed = False
        """A runner was."""
        self.start()

    def start(self) -> None:
        """A runner begins, and takes over what is there."""
        for replica in self.replicas.values():
            replica.awaited = True
        self.calls = QueuedCalls(self.home, lambda: self.replicas, self.send)
        self.calls.read()
        if self.here:
            self.calls.welcomed()

    def kill(self) -> None:
        """A runner is killed: its connections close, and what it had in memory is no more."""
        self.killed = True
        for hand in self.calls._hands.values():
            for lane in (*hand.running, *hand._idle, *([hand._asking] if hand._asking else [])):
                with suppress(OSError):
                    # Both sides at once, as the kernel does it.
                    lane._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                lane.abort()
            hand.closed = True
            hand.running.clear()
            hand.waiting.clear()
            hand.left.clear()
        self.calls._ends._away = True
        self.calls._ends._unsaid.clear()

    def send(self, message: Ended | Holding) -> bool:
        if not self.here:
            return False
        if isinstance(message, Holding):
            self.holding = set(message.calls)
            return True
        self.sends.append(sum(len(end.body.data) for end in message.calls))
        for end in message.calls:
            before = self.told.setdefault((end.id, end.token), end)
            # What was told and forgotten since is asked after in vain.
            # Of a cancelled one a replica may say more to the next runner: it is nobody's, and revoked anew.
            again = before.code == "cancelled" or before.code == end.code == "drained"
            # It failed, and then its replica was told to end: the next runner knows no more which was first.
            again |= self.killed and before.code in FAILED and end.code == "preempted"
            # Nor does the next runner know what was told of a replica that has died.
            fine = ("lease_expired", "cancelled", *(["replica_died"] if self.killed else []))
            if before != end and not again and end.code not in fine:
                self.repeated.append((before, end))
        return True

    # -- as control ----------------------------------------------------------------------------------

    async def replica(self, max_inputs: int) -> Replica:
        one = await Replica(self.home.root, max_inputs).open()
        self.replicas[one.id] = one
        return one

    def grant(self, replica: str, *calls: Granted) -> None:
        self.calls.granted(Grant(1, replica, calls))

    def revoke(self, *leases: Lease) -> None:
        self.calls.revoked(Revoke(leases))

    def resume(self, replica: str, *leases: Lease) -> None:
        self.calls.resumed(Resume(1, ((replica, leases),)))

    def hear(self, *leases: Lease) -> None:
        self.calls.heard(EndedHeard(leases))

    def leave(self) -> None:
        self.here = False
        self.calls.lost()

    def come_back(self) -> None:
        self.here = True
        self.calls.welcomed()

    # -- as the fleet ----------------------------------------------------------------------------------

    def returns(self, replica: Replica) -> None:
        """It finds the runner there is, and says what it has."""
        replica.awaited = False
        self.calls.seen(replica.seen(replica.phase))
        self.calls.returned(replica.id, replica.keeping.listed())

    def drain(self, replica: Replica, reason: str = "idle") -> None:
        replica.told_to_end = reason
        self.calls.seen(replica.seen(Phase.DRAINING))
        replica.slots.close("idle")

    def die(self, replica: Replica) -> None:
        replica.die()
        self.notice(replica)

    def notice(self, replica: Replica) -> None:
        """Its process is seen to be over."""
        del self.replicas[replica.id]
        self.calls.seen(replica.seen(Phase.GONE))

    async def close(self) -> None:
        for replica in list(self.replicas.values()):
            self.die(replica)
        self.hear(*self.told)
        await self.calls.close()
        await turns()


def call(token: int = 1, id: str = "", timeout_s: float = 60.0, size: int = 0) -> Granted:
    """The name that its input has tells which hand-out it is of."""
    id = id or f"fc-{next(numbers)}"
    body = Body("application/json", msgspec.json.encode([f"{id}/{token}" + "." * size]))
    return Granted(id, token, "work", body, "", timeout_s)


def lease(call: Granted) -> Lease:
    return call.id, call.token


async def turns(number: int = 30) -> None:
    """Let the loop turn: what is sent in it arrives."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(true: Callable[[], Any], what: str = "") -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        await asyncio.sleep(0.002)


def files(place: Place) -> Iterator[str]:
    return (path.name for path in place.home.call_ends.iterdir())
