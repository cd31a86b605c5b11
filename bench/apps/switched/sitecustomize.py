"""What does counting for `/metrics` cost? A gateway started with this stops it at SIGUSR1, and goes on at SIGUSR2.

Users cannot: it is for `bench/door.py`. Python imports a module of this name, if one is on its path, before all else.
"""

import signal
import sys

if "gateway" in sys.orig_argv:
    from swell.gateway.count import Count

    _counted = Count.add

    def _nothing(_count: Count, _status: int, _error: str, _seconds: float, _cold: bool) -> None:
        """Instead of counting a request that has ended."""

    def _switch(number: int, _frame: object) -> None:
        Count.add = _counted if number == signal.SIGUSR2 else _nothing  # type: ignore[method-assign]

    signal.signal(signal.SIGUSR1, _switch)
    signal.signal(signal.SIGUSR2, _switch)
