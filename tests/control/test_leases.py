"""What is known of a call that runs: since when, how far, until when? As its runner said last, of its newest lease."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.calls_place import revision
from swell.control.leases import Leases, Seen
from swell.model.call import Call
from swell.wire.calls import Progress, Running

NOW = 1000.0


def leased(token: int, timeout_s: float) -> tuple[Leases, Call]:
    call = Call("fc-1", "default/a/f", "f", 0.0, 0.0, timeout_s=timeout_s, state="leased", token=token, replica="r1-1")
    leases = Leases()
    leases.take(call, NOW)
    return leases, call


@given(
    timeout_s=st.floats(1.0, 1e4),
    more_s=st.floats(0.0, 1e5),
    ran_s=st.floats(0.0, 1e5),
    said=st.booleans(),
    stale=st.booleans(),
)
def test_its_deadline_is_what_its_replica_keeps(
    timeout_s: float, more_s: float, ran_s: float, said: bool, stale: bool
) -> None:
    runs = revision(timeout_s=timeout_s, timeout_max_s=timeout_s + more_s if more_s else 0.0)
    leases, call = leased(7, runs.longest_s)
    assert leases.seen(call, runs) == Seen()
    leases.renew([(call.id, 7)], NOW + 2)
    assert leases.seen(call, runs) == Seen(heard_at=NOW + 2)
    progress = Progress(NOW + ran_s, 1.0, 2.0) if said else None
    leases.run([Running(call.id, 6 if stale else 7, NOW, progress)])
    seen = leases.seen(call, runs)
    if stale:
        assert seen == Seen(heard_at=NOW + 2)
        return
    assert (seen.begun_at, seen.progress) == (NOW, progress)
    assert seen.deadline_at is not None
    last = NOW + (ran_s if said and runs.gives_time else 0.0)
    assert seen.deadline_at == min(NOW + runs.longest_s, last + timeout_s)
    # Of what it was deployed as there is nothing to be known any more: as long as it may take at most.
    assert leases.seen(call, None).deadline_at == NOW + runs.longest_s
    leases.end(call.id, 7)
    assert leases.seen(call, runs) == Seen()
