"""Which lines of a traceback are the user's? Those of the runtime and of the import machinery are left out."""

from __future__ import annotations

import os
import traceback

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORT_FROZEN = "<frozen importlib"
_IMPORT_FILE = os.path.join(os.sep, "importlib", "__init__.py")


def user_traceback(error: BaseException) -> str:
    """The error as Python prints it, causes included, without frames of the runtime."""
    report = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [report]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list([frame for frame in one.stack if not _is_ours(frame.filename)])
        waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
    return "".join(report.format())


def summary(error: BaseException) -> str:
    """ "TypeError: what it says" in one line or, where it says nothing, its type alone."""
    name = type(error).__qualname__
    try:
        said = str(error)
    except Exception:
        said = "(its text cannot be made)"
    return f"{name}: {said}" if said else name


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OURS, _IMPORT_FROZEN)) or filename.endswith(_IMPORT_FILE)
