"""Do the gateway that sends records and the store that keeps them agree on which are worth it?"""

from __future__ import annotations

from itertools import product

from swell.gateway.count import Count, Ledger, Tally
from swell.model.request import RequestRecord, failed
from swell.store.retention import Keep

SLOW_MS = 1000.0


def test_what_is_notable_to_the_gateway_is_so_to_the_store() -> None:
    ledger = Ledger(SLOW_MS, ordinary_max=0, workloads_max=10)
    keep = Keep(slow_ms=SLOW_MS)
    for status, error, cold, total_ms in product(
        (200, 302, 404, 422, 499, 500, 503), ("", "exception"), (False, True), (1.0, SLOW_MS)
    ):
        record = RequestRecord("q-1", "p", "f", 0.0, status, total_ms, cold=cold, error=error)
        tally = Tally("p", {}, Count())
        wanted = ledger.wants(tally, total_ms, status, error, failed(status, error), cold)
        assert wanted == keep.notable(record), record
        assert wanted == (bool(error) or status >= 500 or cold or total_ms >= SLOW_MS)
        assert (tally.errors, tally.cold) == (bool(error) or status >= 500, cold)
