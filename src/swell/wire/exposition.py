"""How does a Prometheus read samples? As text, one metric after the other, each with its help and kind.

Version 0.0.4 of the text format, which everything that scrapes understands. Written here rather than by a package: it
is this page, and what a gateway sends is made piece by piece, so that requests are served in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from swell.model.metrics import METRICS, UP, Metric, Report, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PIECE_SAMPLES = 100
"""Samples that are written in one go: well under a millisecond's work, but for histograms about one."""


def exposition(reports: Iterable[Report]) -> Iterator[str]:
    """The whole text in pieces. Samples of a metric that is not declared here, by a newer process, are left out."""
    by_name: dict[str, list[Sample]] = {}
    for report in reports:
        for sample in (up(report), *report.samples):
            by_name.setdefault(sample.name, []).append(sample)
    for metric in METRICS:
        samples = by_name.get(metric.name)
        if samples:
            yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
            for begin in range(0, len(samples), PIECE_SAMPLES):
                yield "".join([_lines(metric, sample) for sample in samples[begin : begin + PIECE_SAMPLES]])


def up(report: Report) -> Sample:
    """Whether the process answered."""
    return Sample(UP, process_labels(report.process, report.name), float(report.answered))


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
