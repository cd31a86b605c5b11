"""A function that uses a known amount of CPU time, half of it in a process of its own."""

import resource
import subprocess
import sys
import time

import swell

app = swell.App("burning")

BURN = """
import sys, time
until = time.process_time() + float(sys.argv[1])
while time.process_time() < until:
    pass
"""


@app.function(memory=512, scaledown_window=2)
def burn(seconds: float) -> float:
    """CPU seconds the kernel has accounted to this process and the children it waited for."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    if seconds:
        subprocess.run([sys.executable, "-c", BURN, str(seconds)], check=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
