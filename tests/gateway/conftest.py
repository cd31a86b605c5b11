"""Every scenario is played on both event loops the gateway runs on; on the plain one not in the quick run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from rig import Rig

Scenario = Callable[[Rig], Awaitable[None]]


@pytest.fixture(
    params=[
        pytest.param(asyncio.new_event_loop, id="asyncio", marks=pytest.mark.slow),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ]
)
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a scenario against a fresh gateway; keyword arguments are its settings."""

    def run(
        scenario: Scenario, host: str = "127.0.0.1", control: bool = True, wait_s: float = 0.0, **settings: Any
    ) -> None:
        async def act() -> None:
            rig = Rig(**settings)
            await rig.start(host, control, wait_s)
            try:
                await scenario(rig)
            finally:
                await rig.stop()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(act())

    return run
