"""API keys for tests of the gateway, and calls of those who hold them."""

from __future__ import annotations

from typing import Any

from rig import Answer, Browser, Rig

from swell.model.key import ApiKey, digest_of, scope_of, token

SECRET = "a" * 32
SLOW = {"rate_per_s": 0.001}
"""So slow that no token comes back while a test runs, however long that takes."""


def key(id: str, *scopes: str, **more: Any) -> ApiKey:
    return ApiKey(id, f"of {id}", digest_of(SECRET.encode()), tuple(map(scope_of, scopes)), 1.0, **more)


CI = key("ci222222", "call:default/app")


def bearer(id: str, secret: str = SECRET) -> str:
    return f"Bearer {token(id, secret)}"


async def give(rig: Rig, *keys: ApiKey) -> None:
    rig.control.publish(keys=keys)
    await rig.seen()


async def call(browser: Browser, id: str, path: str = "/call/app/fn", secret: str = SECRET, **more: Any) -> Answer:
    return await browser.call(path, authorization=bearer(id, secret), **more)


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.error["code"] if answer.status >= 400 else ""
