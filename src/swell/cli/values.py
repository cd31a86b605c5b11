"""How is a value of a dict or queue written and shown in a terminal? As JSON, as far as it is plain data.

What is shown was pickled by somebody else. Only plain data is made of it here: no class is imported and no code runs.
"""

from __future__ import annotations

import io
import json
import pickle
from typing import Any, NoReturn

from swell.cli.output import printable

WRITTEN = "KEY and VALUE are JSON, or text where they are none: 1 is a number, '\"1\"' and a are text."


class Plain(pickle.Unpickler):
    """Makes what needs no class."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name}")


def read(text: str) -> Any:
    """What somebody wrote."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def shown(data: bytes) -> str:
    """A pickled value in a line."""
    try:
        value = Plain(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        return printable(f"<{error}, {len(data)} bytes: read it from Python>", False)
    except Exception:
        return f"<{len(data)} bytes that are no pickle>"
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return printable(repr(value), False)
