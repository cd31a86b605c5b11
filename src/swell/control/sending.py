"""What are runners told of queued calls, and which of them has which replica?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from swell.control.hands import fitting, granted, peers_size
from swell.decide.calls import PREEMPTED
from swell.model.call import Body, Call, Work
from swell.model.replica import Replica
from swell.model.world import World
from swell.wire.calls import LEFT, CallEnd, Down, EndedHeard, Grant, Lease, Member, NotKept, Resume, Revoke
from swell.wire.link import PoolRow


class Runners(Protocol):
    """Those that are connected, by their nodes."""

    @property
    def only_one(self) -> bool:
        """There is never more than one: what that has not, no other one has."""
        ...

    def send(self, node: str, frame: Down) -> bool:
        """False where it is not connected."""
        ...

    def takes_calls(self, node: str) -> bool:
        """Is it there, and does it seem to listen?"""
        ...

    def cut(self, node: str) -> None:
        """End its connection, where it has one: it makes another once it notices, and says then what it has."""
        ...


class Sending:
    """What goes to the runners, of one incarnation of control."""

    def __init__(self, world: World, epoch: int, runners: Runners) -> None:
        self._world = world
        self._epoch = epoch
        self._send = runners.send
        self._cut = runners.cut
        self.only_one = runners.only_one

        self._leaving: set[str] = set()
        """Replicas whose machine was about to go when they were seen last."""

    def node(self, replica: str) -> str | None:
        """Where a replica is; None where it is not any more, or not known yet."""
        known = self._world.replicas.get(replica)
        return known.node if known is not None else None

    def grant(self, replica: str, works: Sequence[Work], pool: PoolRow | None, sent: dict[str, int]) -> int:
        """Calls for a replica of that pool: how many of them, the first ones, were sent. `sent`: bytes that each node
        was sent in this round, counted on."""
        known = self._world.replicas.get(replica)
        # A member that lost the others of its gang is given nothing.
        node = known.node if known is not None and known.seat is None else None
        taken = fitting(works, sent[node]) if node is not None else []
        if node is None or not taken or not self._send(node, Grant(self._epoch, replica, granted(taken, pool))):
            return 0
        sent[node] += sum(len(work.input.data) for work in taken)
        return len(taken)

    def grant_parts(
        self, parts: Sequence[Call], input: Body, members: Sequence[Replica], pool: PoolRow | None, sent: dict[str, int]
    ) -> list[Call]:
        """A call for a gang, as each member has it: those that were not sent. `sent` as in `grant`."""
        peers = tuple(each.meeting for each in members)
        size = len(input.data) + peers_size(members)
        unsent = []
        for rank, (part, member) in enumerate(zip(parts, members, strict=True)):
            calls = granted((Work(part, input),), pool, Member(rank, peers))
            if not self._send(member.node, Grant(self._epoch, member.id, calls)):
                unsent.append(part)
            sent[member.node] += size
        return unsent

    def revoke(self, call: Call) -> None:
        """Nobody wants it any more of its replica."""
        node = self.node(call.replica)
        if node is not None:
            self.revoke_leases(node, ((call.id, call.token),))

    def revoke_leases(self, node: str, leases: Iterable[Lease]) -> None:
        """Nobody wants these any more of what that node has."""
        self._send(node, Revoke(tuple(leases)))

    def note_leaving(self, replicas: Iterable[str]) -> None:
        """Which of these, all that have calls, are on a machine that is about to go?"""
        leaving = {id for id, node in self._world.nodes.items() if node.leaving_at is not None}
        if leaving or self._leaving:
            nodes = {replica: self.node(replica) for replica in replicas}
            self._leaving = {
                replica
                for replica, node in nodes.items()
                if node in leaving or (node is None and replica in self._leaving)
            }

    def lost(self, expired: Iterable[tuple[Call, bool]]) -> list[CallEnd]:
        """What became of calls whose leases were not renewed; each with whether its replica is gone. Others are
        doubted."""
        found, doubted = [], []
        for call, gone in expired:
            if gone and call.replica in self._leaving:
                found.append(_lost(call, PREEMPTED, LEFT))
            elif gone:
                found.append(_lost(call, "replica_died", "Its replica ended while it had the call."))
            else:
                doubted.append(call)
        unknown = "Nothing was heard of its replica for too long."
        return [*found, *(_lost(call, "lease_expired", unknown) for call in self._doubt(doubted))]

    def _doubt(self, calls: Iterable[Call]) -> list[Call]:
        """Of these nothing was heard for too long: those that are with a replica nobody knows, and so lost.

        The others may be at work although their runner stands still: it has no use for its connection then, and is
        given as long as any that is not connected to say again what it has. If it does not its replicas are lost, and
        with these their calls.
        """
        lost, nodes = [], dict[str, None]()
        for call in calls:
            node = self.node(call.replica)
            if node is None:
                lost.append(call)
            else:
                nodes[node] = None
        for node in nodes:
            self._cut(node)
        return lost

    def resume(self, node: str, held: Iterable[tuple[str, tuple[Lease, ...]]]) -> None:
        """What it is believed to have, by replica."""
        told = tuple(held)
        if told:
            self._send(node, Resume(self._epoch, told))

    def not_kept(self, id: str) -> None:
        """Nothing is known of that call any more: its checkpoints may go. A node that is away asks within the hour."""
        for node in self._world.nodes:
            self._send(node, NotKept((id,)))

    def heard(self, ended: defaultdict[str, list[Lease]]) -> None:
        """These ends are recorded, by the node whose runner told them."""
        for node, leases in ended.items():
            if node:
                self._send(node, EndedHeard(tuple(leases)))


def _lost(call: Call, code: str, message: str) -> CallEnd:
    return CallEnd(call.id, call.token, call.replica, code, message)
