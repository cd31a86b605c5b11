"""What does a text for a Prometheus say? Read strictly, and apart from what writes it."""

from __future__ import annotations

import re

from swell.model.metrics import BY_NAME

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\.)*)"')
PART = re.compile(r"_(bucket|sum|count)$")
UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Series:
    """Every series of a text, each of which stands once, under its metric's head and nowhere else."""
    series: Series = {}
    head, seen = "", set()
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            head = line.split()[2]
            assert head not in seen, f"{head} is told in two places"
            seen.add(head)
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {head} {BY_NAME[head].kind}"
        else:
            found = LINE.fullmatch(line)
            assert found is not None, line
            name, labels, value = found.groups()
            assert (PART.sub("", name) if BY_NAME[head].bounds else name) == head
            pairs = [(label, _plain(value)) for label, value in LABEL.findall(labels or "")]
            key = (name, frozenset(pairs))
            assert len(pairs) == len(key[1])
            assert key not in series, line
            series[key] = float(value)
    return series


def _plain(value: str) -> str:
    return re.sub(r"\\.", lambda one: UNESCAPED[one[0]], value)
