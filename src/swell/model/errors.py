"""What can go wrong in words a user can act on: one exception type with a stable code."""

import copyreg
from typing import Any


class SwellError(Exception):
    """An error with a stable `code`, a sentence for people, and the HTTP `status` it maps to.

    `message` says what is wrong and names the way out. `detail` may hold more lines
    (a traceback, say) and is never needed to understand the message.
    """

    def __init__(self, code: str, message: str, *, status: int = 400, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        # It crosses processes (pools, replicas), where `__init__` must not be called with `args` alone.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


# As users know it, and as it stands in front of an uncaught one's message.
SwellError.__module__ = "swell"
