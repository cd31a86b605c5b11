"""Are the calls of one function all that are listed of it, page by page, and those that failed of late tried again?"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.control.call_desk import CallDesk
from swell.control.leases import Seen
from swell.model.call import Call, call_id
from swell.wire.call_rows import CallRow, Retried

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
        self, prefix: str, _state: Any, most: int, before: str, _key: Any, exact: bool, _jobs: bool = False
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


class Retrying(Keeper):
    """Takes calls back, and they fail again at once; some were taken back by another before."""

    def __init__(self, elsewhere: set[str]) -> None:
        self.elsewhere = elsewhere
        self.retried: list[str] = []
        self.at_once = self.most_at_once = 0

    async def retry(self, id: str) -> Call | None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.retried.append(id)
        return None if id in self.elsewhere else Call(id, "default/a/f", "f", 0.0, 0.0)


@given(
    st.lists(st.tuples(WORKLOADS, st.integers(0, 5), st.booleans()), max_size=12), st.integers(1, 4), st.integers(0, 6)
)
def test_of_dead_letters_each_that_failed_of_late_is_tried_once_a_page_at_a_time(
    rows: list[tuple[str, int, bool]], most: int, since: int
) -> None:
    records = Records([workload for workload, _, _ in rows])
    ended = {each.id: float(at) for each, (_, at, _) in zip(records.calls[::-1], rows, strict=True)}
    records.calls = [replace(each, state="failed", ended_at=ended[each.id]) for each in records.calls]
    elsewhere = {each.id for each, (_, _, gone) in zip(records.calls[::-1], rows, strict=True) if gone}
    keeper = Retrying(elsewhere)
    desk = CallDesk(keeper, records, str)  # type: ignore[arg-type]  # what is used of them
    page, count = Retried(0), 0
    for _ in range(len(rows) // most + 1):
        page = asyncio.run(desk.retry_many("default", "a", "", float(since), most, page.before, None))
        count += page.retried
        if not page.before:
            break
    assert not page.before, "it comes to an end"
    chosen = [each.id for each in records.calls if each.workload.startswith("default/a/") and ended[each.id] >= since]
    assert sorted(keeper.retried) == sorted(chosen)
    assert count == len(set(chosen) - elsewhere)
    assert keeper.most_at_once <= most
