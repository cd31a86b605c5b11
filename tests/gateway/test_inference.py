"""Is a server, and a model, said to be ready where a request can be served, and only there?"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from rig import Rig

from swell.model.tensors import Tensor, Tensors
from swell.model.workload import Method

Play = Callable[..., None]

MODEL = Method("fn", tensors=Tensors((Tensor("x", "FP32", (-1,)),)))
FAILING = "its start failed 3 times in a row (import_error)."


def test_a_model_is_ready_at_zero_and_not_while_its_starts_keep_failing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()

        async def told() -> tuple[int, bool, str, str]:
            await rig.seen()
            ready = await browser.call("/v2/models/app--fn/ready", method="GET")
            (row,) = msgspec.json.decode((await browser.call("/v2/repository/index")).body)
            return ready.status, msgspec.json.decode(ready.body)["ready"], row["state"], row["reason"]

        await rig.deploy(methods=(MODEL,))
        assert await told() == (200, True, "READY", "")
        await rig.endpoints("fn", failing=FAILING, closed=True, retry_at=time.time() + 1000)
        assert await told() == (503, False, "UNAVAILABLE", FAILING)
        await rig.endpoints("fn")
        assert await told() == (200, True, "READY", "")

    play(scenario)


def test_a_gateway_that_was_told_of_nothing_yet_lives_and_is_not_ready(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        for path, status in (("live", 200), ("ready", 503)):
            answer = await browser.call(f"/v2/health/{path}", method="GET")
            assert (answer.status, msgspec.json.decode(answer.body)) == (status, {path: status == 200})

    play(scenario, control=False)
