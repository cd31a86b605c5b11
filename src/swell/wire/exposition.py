"""How does a Prometheus read samples? As text, one metric after the other, each with its help and kind.

Version 0.0.4 of the text format, which everything that scrapes understands. Written here rather than by a package: it
is this page, and each process writes its own part, in pieces with its own work in between; the gateway puts the parts
together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import msgspec

from swell.model.metrics import METRICS, UP, Metric, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PIECE_SAMPLES = 100
"""Samples that are written in one go: well under a millisecond's work, but for histograms about one."""
REPORT_BYTES_MAX = 16 * 1024 * 1024
"""A process that has more to tell tells none: a link takes what several have together (`UNSENT_MAX`)."""

log = logging.getLogger("swell.metrics")


class Report(msgspec.Struct, frozen=True):
    """What one process told when it was asked."""

    process: str
    """"gateway", "control" or "runner"."""
    name: str
    """Which of several gateways (`gateway`) or runners (`node`) it is."""
    parts: tuple[tuple[str, bytes], ...] = ()
    """Metrics, and the lines of each; of one perhaps in several pieces."""
    answered: bool = True


async def report(process: str, name: str, samples: Iterable[Sample]) -> Report:
    """What a process tells. Its event loop gets its turn between any two pieces."""
    written, size = [], 0
    # All of them at once, as they are now: what they are read from may change meanwhile.
    for part in parts(tuple(samples)):
        written.append(part)
        size += len(part[1])
        if size > REPORT_BYTES_MAX:
            log.warning("the metrics of this %s are too many to be told; lower metrics_pools_max", process)
            return Report(process, name, answered=False)
        await asyncio.sleep(0)
    return Report(process, name, tuple(written))


def parts(samples: Sequence[Sample]) -> Iterator[tuple[str, bytes]]:
    """Lines by metric, in pieces."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    for metric in METRICS:
        own = by_name.get(metric.name, ())
        for begin in range(0, len(own), PIECE_SAMPLES):
            piece = own[begin : begin + PIECE_SAMPLES]
            yield metric.name, "".join([_lines(metric, sample) for sample in piece]).encode()


def exposition(reports: Iterable[Report]) -> bytes:
    """The whole text. A metric that is not declared here, of a newer process, is left out."""
    by_name: dict[str, list[bytes]] = {}
    for one in reports:
        up = Sample(UP, process_labels(one.process, one.name), float(one.answered))
        for name, lines in (*parts((up,)), *one.parts):
            by_name.setdefault(name, []).append(lines)
    whole: list[bytes] = []
    for metric in METRICS:
        if metric.name in by_name:
            whole.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n".encode())
            whole += by_name[metric.name]
    return b"".join(whole)


def process_labels(process: str, name: str) -> tuple[str, str, str]:
    """Values of `PROCESS`."""
    return (process, name if process == "gateway" else "", name if process == "runner" else "")


def _lines(metric: Metric, sample: Sample) -> str:
    labels = ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(metric.labels, sample.labels, strict=False) if value
    )
    name = metric.name
    if metric.kind != "histogram":
        return f"{name}{{{labels}}} {_number(sample.value)}\n" if labels else f"{name} {_number(sample.value)}\n"
    comma = "," if labels else ""
    lines, so_far = [], 0
    for bound, count in zip(_bounds(metric), sample.counts, strict=False):
        so_far += count
        lines.append(f'{name}_bucket{{{labels}{comma}le="{bound}"}} {so_far}\n')
    braced = f"{{{labels}}}" if labels else ""
    lines.append(f"{name}_sum{braced} {_number(sample.value)}\n{name}_count{braced} {so_far}\n")
    return "".join(lines)


@cache
def _bounds(metric: Metric) -> tuple[str, ...]:
    return (*(f"{bound:g}" for bound in metric.bounds), "+Inf")


def _number(value: float) -> str:
    """As few digits as say the same number again."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
