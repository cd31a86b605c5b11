"""Does a file of the user's stand in the way of one of Python's own modules?

Asked when an import went wrong for that reason, so it needs nothing that could be in the way itself.
"""

from __future__ import annotations

import os
import sys

from swell.model.errors import SwellError


def refusal(path: str) -> SwellError | None:
    """What to say of a file (or package folder) that has the name of one of Python's modules; None when it has not."""
    name = os.path.basename(path).removesuffix(".py")
    if name not in sys.stdlib_module_names:
        return None
    rest = os.path.basename(path).removeprefix(name)
    return SwellError(
        "bad_file_name",
        f"{path} has the name of Python's own module {name!r}, and only one of them can be imported: "
        f"rename it, to my_{name}{rest} for example.",
    )


def found() -> SwellError | None:
    """What to say of the program, or of a module beside it, that is in the place of Python's own; None without one."""
    folder = os.path.abspath(sys.path[0]) if sys.path else os.getcwd()
    program = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
    if os.path.dirname(program) == folder and (said := refusal(program)) is not None:
        return said
    for name in sorted(sys.stdlib_module_names & sys.modules.keys()):
        place = getattr(sys.modules[name], "__file__", None) or ""
        if place == os.path.join(folder, f"{name}.py"):
            return refusal(place)
        if place == os.path.join(folder, name, "__init__.py"):
            return refusal(os.path.dirname(place))
    return None
