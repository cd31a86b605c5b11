"""Do the times that a caller is told add up to the time it took?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rig import Exchange, Reader, Rig, stream

Play = Callable[..., None]


def test_the_times_told_add_up(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def whole(exchange: Exchange, reader: Reader) -> None:
            await asyncio.sleep(0.05)
            body = await exchange.read_body(reader)
            await asyncio.sleep(0.05)
            await exchange.answer(body=body)

        async def streamed(exchange: Exchange, reader: Reader) -> None:
            await asyncio.sleep(0.05)
            await stream(exchange, reader)

        for name, behaviour in (("fn", whole), ("streamed", streamed)):
            await rig.deploy(await rig.replica(behaviour), name=name)
        await rig.deploy(await rig.replica(whole, native=False), name="foreign", native=False)
        browser = await rig.browser()
        for name in ("fn", "streamed", "foreign"):
            answer = await browser.call(f"/call/app/{name}", b"x" * 1_000_000)
            told = (answer.trailers if name == "streamed" else answer.headers)["server-timing"]
            times = {part.partition(";")[0]: float(part.partition("dur=")[2]) for part in told.split(", ")}
            total = times.pop("total")
            assert list(times) == ["held", "connect", "run", "send"]
            assert total >= 50
            # Each is rounded.
            assert abs(sum(times.values()) - total) < 0.03

    play(scenario)
