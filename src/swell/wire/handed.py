"""How are settings given to a process of ours? As one of its words, and in its environment what others may not read."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

VARIABLE = "SWELL_STORE"
"""Where the state is kept, and with which password: words of a process can be read by everybody on its machine."""
PASSWORD = "PGPASSWORD"
"""Read where the address has none. Without an address of ours it is the user's own, for whatever it may be."""


def handed(settings: Mapping[str, Any], environ: Mapping[str, str], whole: bool = True) -> tuple[str, dict[str, str]]:
    """The word, and the environment. Not `whole`: it is of a process that has no business with the state."""
    store = settings.get("store", "")
    hidden = {VARIABLE, PASSWORD} if store and not whole else {VARIABLE}
    plain = {name: value for name, value in environ.items() if name not in hidden}
    return json.dumps({**settings, "store": ""}), {**plain, **({VARIABLE: store} if store and whole else {})}


def taken(word: str, environ: MutableMapping[str, str]) -> dict[str, Any]:
    """The settings, all of them. Whatever this process starts is handed them anew, or has none."""
    return {**json.loads(word), "store": environ.pop(VARIABLE, "")}
