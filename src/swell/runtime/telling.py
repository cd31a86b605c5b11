"""In which header lines, or trailers, does a replica tell the gateway what became of an input, and what that used?"""

from __future__ import annotations

from swell.wire.http import BATCH, CPU_US, ERROR, RUN_US

STOPPED_ITSELF = "InputCancellation: the code stopped itself"
"""What callers are told of code that ended so without having been told to."""
_USED = f"{CPU_US}: %d\r\n{RUN_US}: %d\r\n".encode()


def used_lines(cpu_ns: int, run_ns: int) -> bytes:
    """What an input used."""
    return _USED % (cpu_ns // 1000, run_ns // 1000)


def batch_line(size: int, waited_us: int, run_us: int, lead: str) -> bytes:
    """With how many it was worked on, and for how long all of them were."""
    return f"{BATCH}: {size} {waited_us} {run_us} {lead}\r\n".encode("latin-1")


def error_line(status: int, code: str) -> bytes:
    """Which error it ended in."""
    return f"{ERROR}: {status} {code}\r\n".encode()
