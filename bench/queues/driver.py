"""How fast does a queue take calls that have nothing to do, and how soon are they done? One tool, some submitters.

A process of its own, in the tool's environment: `driver.py TOOL SUBMITTERS CALLS TURNS`. A tool is a module here with
`opened()`, a context; `submit()`, which returns once the call is accepted; `wait(call)`; and `wait_all(calls)`.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def burst(tool: Any, submitters: int, calls: int) -> dict[str, float]:
    """All at once: how many were accepted a second, and how many done a second, both from the first on."""
    accepted: list[list[Any]] = [[] for _ in range(submitters)]

    def submit(number: int) -> None:
        accepted[number] += [tool.submit() for _ in range(calls // submitters)]

    begun = time.perf_counter()
    _side_by_side(submit, submitters)
    accepted_s = time.perf_counter() - begun
    count = sum(map(len, accepted))
    tool.wait_all([call for some in accepted for call in some])
    return {"accepted_per_s": count / accepted_s, "done_per_s": count / (time.perf_counter() - begun), "calls": count}


def in_turn(tool: Any, submitters: int, turns: int) -> list[float]:
    """Each submitter waits for its call before the next: milliseconds from its submission until it is known as done."""
    took_ms: list[list[float]] = [[] for _ in range(submitters)]

    def one_by_one(number: int) -> None:
        for _ in range(turns // submitters):
            begun = time.perf_counter()
            tool.wait(tool.submit())
            took_ms[number].append((time.perf_counter() - begun) * 1000)

    _side_by_side(one_by_one, submitters)
    return [ms for some in took_ms for ms in some]


def _side_by_side(each: Callable[[int], None], submitters: int) -> None:
    """In threads; what one of them raises is raised."""
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            each(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(submitters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def main() -> None:
    name, submitters, calls, turns = sys.argv[1], *map(int, sys.argv[2:])
    tool = importlib.import_module(f"on_{name}")
    with tool.opened():
        in_turn(tool, submitters, 2 * submitters)
        # What it took until here is told too: who measures the servers takes the same stretch.
        print(json.dumps({"warm": True}), flush=True)
        sys.stdin.readline()
        used = resource.getrusage(resource.RUSAGE_SELF)
        before_s = used.ru_utime + used.ru_stime
        told: dict[str, Any] = burst(tool, submitters, calls)
        used = resource.getrusage(resource.RUSAGE_SELF)
        told["client_cpu_s"] = used.ru_utime + used.ru_stime - before_s
        print(json.dumps(told), flush=True)
        sys.stdin.readline()
        print(json.dumps(in_turn(tool, submitters, turns)), flush=True)


if __name__ == "__main__":
    main()
