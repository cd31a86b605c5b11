"""What does a runner say of queued calls that control takes to be with it, and that it does not have?"""

from __future__ import annotations

from queued_place import Place, call, lease
from test_queued_hand import play


def test_what_was_granted_and_never_came_is_told_to_be_no_attempt() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        place.resume(replica.id, ("fc-0", 5))
        assert place.told["fc-0", 5].code == "lease_expired", "the runner before may have had it"
        came = call(token=7)
        place.grant(replica.id, came)
        place.leave()
        place.come_back()
        place.resume(replica.id, ("fc-0", 6), lease(came), ("fc-0", 8))
        assert {at: end.code for at, end in place.told.items()} == {
            ("fc-0", 5): "lease_expired",
            ("fc-0", 6): "lease_expired",
            ("fc-0", 8): "drained",
        }

    play(scenario)
