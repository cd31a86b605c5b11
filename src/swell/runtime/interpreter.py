"""How soon does a thread that wants the interpreter get it from one that computes?

Who waits begins to wait anew whenever the holder lets go for a system call and is back first. By Python's own 5 ms,
code that makes a system call every millisecond can keep the interpreter for seconds, and neither a cancel nor another
input gets on. Waiting less costs a switch more often, which inputs that are done sooner than that
are spared, until one of them turns out to be long (`worker.Workers` looks).
"""

from __future__ import annotations

import sys

USUAL_S = 0.005
"""Python's own."""
SOON_S = 0.0001

_chosen: list[float] = []
"""What we set last; user code that set another value keeps it."""


def switch_soon(soon: bool) -> None:
    """From now on after SOON_S, or after USUAL_S again; nothing where user code has chosen for itself."""
    if abs(sys.getswitchinterval() - (_chosen or [USUAL_S])[-1]) < 1e-6:
        _chosen[:] = [SOON_S if soon else USUAL_S]
        sys.setswitchinterval(_chosen[0])
