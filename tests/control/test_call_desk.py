"""Are the calls of one function all that are listed of it, and are they, page by page?"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swell.control.call_desk import CallDesk
from swell.control.leases import Seen
from swell.model.call import Call, call_id
from swell.wire.call_rows import CallRow

WORKLOADS = st.sampled_from(["default/a/f", "default/a/f2", "default/a/f~x", "default/b/f"])


class Records:
    """What a store has, newest first."""

    def __init__(self, workloads: list[str]) -> None:
        ids = (call_id(1_700_000_000_000 + number, bytes(10)) for number in range(len(workloads)))
        calls = [
            Call(id, workload, workload.split("/")[2], 0.0, 0.0) for id, workload in zip(ids, workloads, strict=True)
        ]
        self.calls = calls[::-1]
        self.asked = 0

    def newest(
        self, prefix: str, _state: Any, most: int, before: str, _key: Any, exact: bool, _jobs: bool
    ) -> list[Call]:
        self.asked += 1
        named = (each for each in self.calls if each.workload.startswith(prefix))
        found = (each for each in named if not (exact and each.workload != prefix))
        return [each for each in found if not before or each.id < before][:most]


class Keeper:
    def seen(self, _call: Call) -> Seen:
        return Seen()


@given(st.lists(WORKLOADS, max_size=12), WORKLOADS, st.integers(1, 4))
def test_all_of_one_function_and_no_others_and_one_page_is_one_question(
    workloads: list[str], wanted: str, most: int
) -> None:
    records = Records(workloads)
    desk = CallDesk(Keeper(), records, str)  # type: ignore[arg-type]  # what is used of them
    namespace, app, function = wanted.split("/")
    found: list[CallRow] = []
    which, pages = (namespace, app, function, None, most), 1
    while page := asyncio.run(desk.rows(*which, found[-1].id if found else "", None, False)):
        assert len(page) <= most
        found += page
        pages += 1
    assert records.asked == pages
    assert [row.id for row in found] == [each.id for each in records.calls if each.workload == wanted]
