"""What becomes of calls that no batch has yet, where the batches of their replica cannot be stopped?"""

from __future__ import annotations

import socket

import pytest
from replica_harness import ready_replica, until
from test_replica_batch import answer, arrived, noted, send

from swell.model.workload import Batch, Entry, Method
from swell.wire.child import Stuck

pytestmark = pytest.mark.slow

SOURCE = """
    import time
    from swell.wire.context import InputCancellation

    counter = open("counter", "ab", buffering=0)

    def prepare(value):
        counter.write(b"(")
        while value == 1:
            time.sleep(0.002)
        return value

    class Thing:
        def deaf(self, values):
            counter.write(b"<")
            while True:
                try:
                    while True:
                        time.sleep(0.002)
                except InputCancellation:
                    pass

        deaf.__swell_transform__ = (prepare, None)
"""


@pytest.mark.parametrize("queued", ["", "Swell-Hand-Out: 1\r\n"])
def test_it_gives_back_what_is_not_ready_for_a_batch_yet(queued: str) -> None:
    batch = Batch(4, 0)
    entry = Entry("user_code", "Thing", "cls", (Method("deaf", batch=batch),))
    with ready_replica(SOURCE, entry, max_inputs=batch.max_inputs, cancel_grace_s=0.3) as replica:
        replica.name = "deaf"
        first = send(replica, [0], "q0", queued)
        until(lambda: noted(replica, b"<") == 1, "it runs")
        second = send(replica, [1], "q1", queued)
        until(lambda: noted(replica, b"(") == 2, "it is prepared")
        coming = replica.begin_incomplete("/call/deaf", f"Swell-Request-Id: q2\r\n{queued}")
        arrived(replica)
        # Of a queued call a half alone is a cancel, of any other the whole as well.
        first.shutdown(socket.SHUT_WR) if queued else first.close()
        for call in (second, coming):
            status, headers, body = answer(call)
            assert (status, headers["swell-busy"], body["error"]["code"]) == (503, "1", "drained" if queued else "busy")
        assert replica.hear() == Stuck(requests=("q0",), ending=True)
        assert replica.wait() == 75
