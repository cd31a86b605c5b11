"""Do two durable queues give the same answers to anything, and keep what they promise?"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calls_suite import NOW, OUT, POOL, STOPPED, call, digest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from swell.model.call import (
    Again,
    Body,
    Call,
    CallError,
    Cancel,
    Cancelled,
    Change,
    Depth,
    Done,
    Failed,
    Forget,
    Keeping,
    Outcome,
    Queued,
    Remove,
    Retry,
    Work,
    fencing_token,
)
from swell.model.ports import Store
from swell.store.memory import MemoryStore
from swell.store.sqlite import SqliteStore

numbers = st.integers(0, 30)
"""Of calls, so that the same ones are met again."""
workloads = st.sampled_from(["default/a/f", "default/a/f", "default/a/g", "other/a/f"])
later = st.sampled_from([-3.0, -1.0, 0.0, 0.0, 1.0, 5.0])
errors = st.sampled_from([CallError("exception", "boom"), CallError("replica_died", "gone")])
digests = st.sampled_from(["", "", digest("a"), digest("b")])
bodies = st.builds(Body, st.just("x"), st.binary(max_size=3), digests)
asked = st.fixed_dictionaries(
    {
        "due_at": later,
        "priority": st.integers(-1, 1),
        "method": st.sampled_from(["f", "f", "g"]),
        "key": st.sampled_from(["", "", "k1"]),
        "idempotency_key": st.sampled_from(["", "", "j", "k"]),
        "group": st.sampled_from(["", "g", "g", "h"]),
        "keeping": st.sampled_from([Keeping(), Keeping(2.0, 4.0), Keeping(1.0, 1.0)]),
    }
)
picks = st.integers(0, 99)
"""Of what there is, whatever that may be."""


def picked(pool: Sequence[str], n: int) -> str:
    return pool[n % len(pool)] if pool else "nobody"


def turn(call: Call) -> tuple[int, float, str]:
    """Where it stands in the queue."""
    return -call.priority, call.due_at, call.id


class SameAnswers(RuleBasedStateMachine):
    """The same is asked of both; their answers agree, and what was promised holds after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        self.copies = 0
        self.now, self.epoch, self.handed_out = NOW, 1, 0
        self.memory, self.other = MemoryStore(), self.made()
        self.accepted: dict[str, Call] = {}
        """What was promised to be there, until it is swept."""
        self.tokens: dict[str, list[int]] = {}
        """Each call's, the last one last."""
        self.live: dict[str, int] = {}
        """The token of each call that somebody has."""
        self.leaving: dict[str, int] = {}
        """The token of each call that was cancelled while somebody had it, and may be told of still."""
        self.used: dict[str, tuple[int, int]] = {}
        """What the attempts of each call told that they used."""
        self.unread: dict[str, None] = {}
        """Calls of group "g" that ended and were not read of since, in that order."""
        self.read_to = 0
        self.recorded: dict[str, Body | None] = {}
        """Of calls that ended in a result, or were cancelled."""

    def made(self) -> Store:
        """The store that is looked at beside the one in memory."""
        return SqliteStore(self.folder / "control.db")

    def both(self, port: str, method: str, *arguments: Any) -> Any:
        ours, theirs = (getattr(getattr(s, port), method)(*arguments) for s in (self.memory, self.other))
        if method == "digests":
            ours, theirs = list(ours), list(theirs)
        assert ours == theirs
        return ours

    @rule(rows=st.lists(st.tuples(numbers, workloads, asked, bodies), min_size=1, max_size=6))
    def add(self, rows: list[tuple[int, str, dict[str, Any], Body]]) -> None:
        works = [
            Work(call(f"fc-{n:02}", workload, **{**more, "due_at": self.now + more["due_at"]}), body)
            for n, workload, more, body in rows
        ]
        ids = self.both("calls", "add", works)
        assert len(ids) == len(works)
        for id, each in zip(ids, works, strict=True):
            kept = self.accepted.setdefault(id, each.call)
            if id != each.call.id:
                once = (each.call.workload, each.call.method, each.call.key, each.call.idempotency_key)
                assert (kept.workload, kept.method, kept.key, kept.idempotency_key) == once

    @precondition(lambda self: any(call.state == "queued" for call in self.kept()))
    @rule(hands=st.lists(st.tuples(workloads, st.sampled_from([1, 2, 5, 0]), st.booleans()), min_size=1, max_size=4))
    def lease(self, hands: list[tuple[str, int, bool]]) -> None:
        for workload, most, idle in hands:
            self.hand_out(workload, most, idle)

    def hand_out(self, workload: str, most: int, idle: bool) -> None:
        self.handed_out += 1
        token = fencing_token(self.epoch, self.handed_out)
        waiting = [c for c in self.kept() if c.state == "queued" and c.workload == workload and c.due_at <= self.now]
        works = self.both("calls", "lease", workload, most, self.now, token, f"r1-{most}", POOL, idle)
        turns = sorted(waiting, key=turn)
        if turns and turns[0].is_suspect and idle:
            expected = turns[: min(most, 1)]
        else:
            expected = [each for each in turns if not each.is_suspect][:most]
        assert [each.call.id for each in works] == [each.id for each in expected]
        for each in works:
            assert each.call.id not in self.live
            assert (each.call.token, each.call.leased_at, each.call.pool) == (token, self.now, POOL)
            self.live[each.call.id] = token
            self.tokens.setdefault(each.call.id, []).append(token)

    @precondition(lambda self: self.tokens)
    @rule(
        reports=st.lists(
            st.tuples(picks, st.integers(0, 3), st.sampled_from("ddfac"), later, errors, bodies, st.booleans()),
            min_size=1,
            max_size=8,
        )
    )
    def finish(self, reports: list[tuple[int, int, str, float, CallError, Body, bool]]) -> None:
        """Who has a call reports of it, and so do some who had it: twice, late, in any order."""
        outcomes: list[Outcome] = []
        for n, stale, kind, wait_s, error, body, counts in reports:
            id = picked(list(self.live or self.leaving or self.tokens) if stale else list(self.tokens), n)
            last = self.live.get(id) or self.leaving.get(id, 0)
            token = last if stale else self.tokens.get(id, [0])[n % len(self.tokens.get(id, [0]))]
            made: dict[str, Outcome] = {
                "d": Done(id, token, self.now, body, 1, 2),
                "f": Failed(id, token, self.now, error, b"{}", run_us=1),
                "a": Again(id, token, self.now + wait_s, error if counts else None, counts, 3, 4),
                "c": Cancelled(id, token, self.now, STOPPED, 5, 6),
            }
            outcomes.append(made[kind])
        recorded = self.both("calls", "finish", outcomes)
        for outcome, told in zip(outcomes, recorded, strict=True):
            assert told is (outcome.token != 0 and self.live.get(outcome.id) == outcome.token)
            if told or (outcome.token and self.leaving.get(outcome.id) == outcome.token):
                cpu_us, run_us = self.used.get(outcome.id, (0, 0))
                self.used[outcome.id] = cpu_us + outcome.cpu_us, run_us + outcome.run_us
                self.leaving.pop(outcome.id, None)
            if told:
                del self.live[outcome.id]
                if not isinstance(outcome, Again):
                    self.ends(outcome.id)
                if isinstance(outcome, Done | Cancelled):
                    assert outcome.id not in self.recorded
                    self.recorded[outcome.id] = outcome.result if isinstance(outcome, Done) else None

    @precondition(lambda self: self.accepted)
    @rule(asked=st.lists(st.tuples(picks, st.sampled_from([False, False, True]), st.none() | bodies), max_size=2))
    def change(self, asked: list[tuple[int, bool, Body | None]]) -> None:
        failed = [call.id for call in self.kept() if call.state == "failed"]
        changes: list[Change] = [
            Cancel(picked(list(self.accepted), n), self.now, STOPPED)
            if cancel
            else Retry(picked(failed or list(self.accepted), n), self.now, input)
            for n, cancel, input in asked
        ]
        for change, after in zip(changes, self.both("calls", "change", changes), strict=True):
            if isinstance(change, Cancel) and after is not None:
                assert change.id not in self.recorded
                assert self.live.pop(change.id, 0) == after.token
                if after.token:
                    self.leaving[change.id] = after.token
                self.recorded[change.id] = None
                self.ends(change.id)
            elif after is not None:
                self.unread.pop(change.id, None)

    def ends(self, id: str) -> None:
        if self.accepted[id].group == "g":
            self.unread[id] = None

    @rule(most=st.sampled_from([1, 2, 99, 0]))
    def read(self, most: int) -> None:
        """Who reads on from where they were is told of each end, once and in order."""
        page = self.both("call_records", "ended", "g", self.read_to, most)
        assert [each.call.id for each in page] == list(self.unread)[:most]
        for each in page:
            assert each.number > self.read_to
            self.read_to = each.number
            del self.unread[each.call.id]
            assert each.call == self.memory.call_records.get(each.call.id)
            assert each.result == self.memory.call_records.result(each.call.id)

    @precondition(lambda self: any(call.expires_at is not None for call in self.kept()))
    @rule(most=st.sampled_from([9, 1, 0]), wait_s=st.integers(0, 4))
    def sweep(self, most: int, wait_s: int) -> None:
        self.now += wait_s
        self.forgotten(self.both("calls", "sweep", self.now, most))

    @precondition(lambda self: self.read_to)
    @rule(less=st.sampled_from([0, 0, 1, 3]), key=st.sampled_from(["", "", "k1"]))
    def forget(self, less: int, key: str) -> None:
        """Who has read so far has what was told, or most of it."""
        number = self.read_to - less
        ends = self.both("call_records", "ended", "g", 0, 999)
        had = [each.call.id for each in ends if each.number <= number and each.call.key == key]
        assert self.both("calls", "change", [Forget("g", key, number)]) == [None]
        self.forgotten(had)

    @rule(n=numbers)
    def remove(self, n: int) -> None:
        """One, if it has ended."""
        id = f"fc-{n:02}"
        call = self.memory.call_records.get(id)
        assert self.both("calls", "change", [Remove(id)]) == [None]
        self.forgotten([id] if call is not None and call.ended_at is not None else [])
        assert (self.memory.call_records.get(id) is None) == (call is None or call.ended_at is not None)

    def forgotten(self, ids: Sequence[str]) -> None:
        for id in ids:
            del self.accepted[id]
            assert id not in self.live
            # It may come again as another one.
            self.recorded.pop(id, None)
            self.tokens.pop(id, None)
            self.unread.pop(id, None)
            self.leaving.pop(id, None)
            self.used.pop(id, None)

    @rule(n=numbers, workload=workloads, fails=st.booleans(), token=st.integers(1, 3))
    def transaction(self, n: int, workload: str, fails: bool, token: int) -> None:
        """The step of a journal: one ends, the next is accepted."""
        id = next(iter(self.live), "")
        answers: list[tuple[list[bool], list[str]]] = []
        for store in (self.memory, self.other):
            try:
                with store.transaction():
                    done = store.calls.finish([Done(id, self.live.get(id, 0), self.now, OUT)])
                    ids = store.calls.add([Work(call(f"fc-{n:02}", workload, self.now), OUT)])
                    if fails:
                        raise InterruptedError
            except InterruptedError:
                continue
            answers.append((done, ids))
        if not fails:
            (done, ids), theirs = answers
            assert (done, ids) == theirs == ([id in self.live], [f"fc-{n:02}"])
            self.accepted.setdefault(ids[0], call(ids[0], workload, self.now))
            if done == [True]:
                del self.live[id]
                self.recorded[id] = OUT
                self.ends(id)

    @rule(seconds=st.integers(1, 6))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def closed_and_opened(self) -> None:
        self.other.close()
        self.other = self.made()
        self.epoch, self.handed_out = self.epoch + 1, 0

    @rule()
    def killed(self) -> None:
        self.lost()
        self.other = self.made()
        self.epoch, self.handed_out = self.epoch + 1, 0

    def lost(self) -> None:
        """What a killed process leaves are its files as they are: nothing was closed, nothing moved out of the log."""
        self.copies += 1
        there = self.folder / str(self.copies)
        there.mkdir()
        for file in (self.folder / "control.db", self.folder / "control.db-wal"):
            shutil.copy(file, there)
        self.other.close()
        for file in there.iterdir():
            shutil.copy(file, self.folder)

    def kept(self) -> list[Call]:
        return list(self.memory.calls.kept.values())

    @invariant()
    def agree(self) -> None:
        for state in (None, "queued", "leased", "done", "failed", "cancelled"):
            self.both("call_records", "newest", "default/", state, 4, "fc-20")
        for group in ("g", "h", "", "nobody's"):
            self.both("call_records", "ended", group, 0, 99)
            kinds = [sorted(store.call_records.kinds(group)) for store in (self.memory, self.other)]
            members = self.both("call_records", "members", group)
            assert kinds[0] == kinds[1]
            assert {(workload, key) for workload, _, key in kinds[0]} == {(each.workload, each.key) for each in members}
            waiting = self.both("call_records", "members", group, False)
            assert waiting == [replace(each, ended=0) for each in members if each.open]
        self.both("call_records", "get_many", [f"fc-{n:02}" for n in range(0, 40, 3)])
        bodies = [*self.memory.calls.inputs.values(), *self.memory.calls.results.values()]
        assert list(self.both("call_records", "digests")) == sorted({body.digest for body in bodies} - {""})
        calls = self.both("call_records", "newest", "", None, 999)
        assert calls == sorted(self.kept(), key=lambda c: c.id, reverse=True)
        for each in calls:
            self.both("call_records", "get", each.id)
            self.both("call_records", "input", each.id)
            self.both("call_records", "result", each.id)

    @invariant()
    def what_was_promised_holds(self) -> None:
        kept = {each.id: each for each in self.kept()}
        assert kept.keys() == self.accepted.keys(), "nothing that was accepted is lost, and nothing else is there"
        assert {id: c.token for id, c in kept.items() if c.state == "leased"} == self.live
        assert {id: (c.cpu_us, c.run_us) for id, c in kept.items() if c.cpu_us or c.run_us} == self.used
        for id, body in self.recorded.items():
            assert kept[id].state == ("done" if body is not None else "cancelled")
            assert self.memory.call_records.result(id) == body

    @invariant()
    def what_waits_is_counted(self) -> None:
        standing = self.both("calls", "standing")
        for workload in ("default/a/f", "default/a/g", "other/a/f", "nobody"):
            waiting = [c for c in self.kept() if c.state == "queued" and c.workload == workload]
            dues = [c.due_at for c in waiting]
            assert standing.queued.get(workload) == (Queued(len(dues), min(dues)) if dues else None)
            due = sorted((c.priority for c in waiting if c.due_at <= self.now), reverse=True)
            next_at = min((at for at in dues if at > self.now), default=None)
            for most in (0, 2, 99):
                counted = Counter(due[:most])
                mine = [c for c in sorted(waiting, key=turn) if c.due_at <= self.now and c.priority in counted]
                suspects = Counter(c.priority for c in mine if c.is_suspect)
                found = sum(
                    min(suspects[priority], most - sum(n for higher, n in counted.items() if higher > priority))
                    for priority in counted
                )
                first = bool(mine) and mine[0].is_suspect
                expected = Depth(sum(counted.values()), next_at, tuple(counted.items()), found, first)
                assert self.both("calls", "depth", workload, self.now, most) == expected

    def teardown(self) -> None:
        self.other.close()
        shutil.rmtree(self.folder)
