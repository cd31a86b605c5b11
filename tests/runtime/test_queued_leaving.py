"""What becomes of queued calls of a machine that is about to go, and of those that were there when it went?"""

from __future__ import annotations

import pytest
from queued_place import Place, call, lease, until
from test_queued_hand import all_told, busy, play


def test_what_is_not_begun_is_given_back_and_what_raises_was_no_attempt() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(2)
        raises, returns, waits, late = (call() for _ in range(4))
        place.grant(replica.id, raises, returns, waits)
        await busy(replica, 2)
        place.calls.leaves(True)
        place.grant(replica.id, late)
        await all_told(place, 2)
        replica.end(replica.working[0], error="stopped")
        replica.end(replica.working[1], "whole")
        await all_told(place, 4)
        assert [place.told[lease(each)].code for each in (raises, returns, waits, late)] == [
            *("preempted", "", "drained", "drained")
        ]
        place.calls.leaves(False)
        again = call()
        place.grant(replica.id, again)
        await busy(replica, 1)
        replica.end(replica.working[0], error="its own")
        await until(lambda: lease(again) in place.told, "its end")
        assert place.told[lease(again)].code == "exception"

    play(scenario)


@pytest.mark.parametrize("left", [True, False])
def test_what_was_there_when_the_machine_went_as_was_said_is_no_attempt_once(left: bool) -> None:
    async def scenario(place: Place) -> None:
        place.home.left.parent.mkdir(parents=True, exist_ok=True)
        if left:
            place.home.left.write_text("1700000000.0")
        place.kill()
        place.start()
        replica = await place.replica(1)
        place.resume(replica.id, ("fc-0", 5))
        place.resume(replica.id, ("fc-1", 6))
        codes = [place.told["fc-0", 5].code, place.told["fc-1", 6].code]
        assert codes == ["preempted" if left else "lease_expired", "lease_expired"]
        assert not place.home.left.exists()

    play(scenario)
