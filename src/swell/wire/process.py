"""What does this process use of its machine? As a scraper knows it of every process: CPU, memory, files, age."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

from swell.model.metrics import (
    PROCESS_CPU,
    PROCESS_FDS,
    PROCESS_FDS_MAX,
    PROCESS_RSS,
    PROCESS_START,
    Sample,
)
from swell.wire.exposition import process_labels

_STARTED = time.time()
"""When this module was loaded, which the processes of a server do as they begin."""
_LISTS_OF_FILES = ("/proc/self/fd", "/dev/fd")


def process_samples(process: str, name: str = "") -> Iterator[Sample]:
    """What a system does not tell is left out: memory where there is no /proc."""
    labels = process_labels(process, name)
    yield Sample(PROCESS_CPU, labels, time.process_time())
    try:
        with open("/proc/self/statm") as statm:
            yield Sample(PROCESS_RSS, labels, float(statm.read().split()[1]) * resource.getpagesize())
    except OSError:
        pass
    listed = next((path for path in _LISTS_OF_FILES if os.path.isdir(path)), None)
    if listed is not None:
        # Without the one that listing them takes.
        yield Sample(PROCESS_FDS, labels, len(os.listdir(listed)) - 1)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY:
        yield Sample(PROCESS_FDS_MAX, labels, most)
    yield Sample(PROCESS_START, labels, _STARTED)
