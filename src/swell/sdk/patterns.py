"""Does a pattern in the style of .dockerignore leave a file out?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

Ignore = Sequence[str] | Callable[[Path], bool]


def ignored(ignore: Ignore, inside: PurePosixPath) -> bool:
    """Is the file at this path (relative to the folder that is added) left out?

    Patterns are relative to that folder: `*` stays within one name, `**` crosses folders, a pattern that
    fits a folder covers what is in it, `!pattern` takes a file back in, and the last that fits counts.
    """
    if callable(ignore):
        return bool(ignore(Path(inside)))
    out = False
    for pattern in ignore:
        back_in = pattern.startswith("!")
        expression = _expression(pattern.removeprefix("!").strip("/"))
        if any(expression.fullmatch(str(part)) for part in (inside, *inside.parents[:-1])):
            out = not back_in
    return out


def only_python(path: Path) -> bool:
    """Leaves out everything but Python source."""
    return path.suffix != ".py"


def _expression(pattern: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts), re.DOTALL)
