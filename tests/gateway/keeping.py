"""Methods whose answers are kept, and what replicas answer that tells calls apart."""

from __future__ import annotations

from typing import Any

from rig import Exchange, Reader

from swell.model.caching import Caching
from swell.model.workload import Method

PATH = "/call/app/fn"


def cached(ttl_s: float = 60.0, *vary: str, **more: Any) -> tuple[Method, ...]:
    return (Method("fn", cache=Caching(ttl_s, vary), **more),)


async def numbered(exchange: Exchange, reader: Reader) -> None:
    """Each answer is another one."""
    await exchange.read_body(reader)
    await exchange.answer(body=b"%d" % len(exchange.replica.seen), x_own="kept")


async def failing(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    await exchange.answer(500, b'{"error": {"code": "exception"}}')
