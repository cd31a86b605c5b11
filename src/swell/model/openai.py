"""As which model of which part of the OpenAI API is a method offered?"""

from __future__ import annotations

from typing import Literal

import msgspec

Api = Literal["chat.completions", "completions", "embeddings"]
PATHS: dict[str, Api] = {
    "chat/completions": "chat.completions",
    "completions": "completions",
    "embeddings": "embeddings",
}
"""Where each is asked for, below /v1."""
MAIN: dict[Api, str] = {"chat.completions": "messages", "completions": "prompt", "embeddings": "input"}
"""The field of a request that its model works on, which is the name of the argument, too."""
MODEL_NAME_MAX = 200


class Offer(msgspec.Struct, frozen=True):
    """What a method is to clients of that API."""

    api: Api
    model: str
    """What they call it: one method only has it for this `api`, of all that is deployed."""


def model_problem(name: object) -> str | None:
    """Why that cannot be the name of a model; None: it can."""
    if not isinstance(name, str) or not name:
        return "give the name that clients say, like 'tiny-chat'"
    if len(name) > MODEL_NAME_MAX:
        return f"it has {len(name)} characters, and may have {MODEL_NAME_MAX}"
    if not (name.isascii() and name.isprintable()) or " " in name:
        return "use letters, digits and signs of ASCII, without spaces"
    return None
