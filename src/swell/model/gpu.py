"""What is one GPU of a node, and which GPUs does a kind like "A100:2" stand for?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

ANY = "any"
COUNT_MAX = 1024
"""GPUs of one replica: more than any machine has."""
_SIZE = re.compile(r"(\d+)GI?B")
_SHORT_OF = 0.9
"""A device reports up to a tenth less memory than it is named for: what checks it for errors takes some."""


class Gpu(msgspec.Struct, frozen=True):
    """One device."""

    id: str
    """What `CUDA_VISIBLE_DEVICES` calls it: its UUID, or where nobody knows that, its number on the node."""
    model: str
    """As its driver or operator calls it: "NVIDIA A100-SXM4-80GB", "L4"."""
    memory_mib: int = 0
    """0: not known."""

    def is_of(self, kind: str) -> bool:
        """Is it of that kind? The words of a kind are found in the model's name, in their order; a size (80GB) may be
        that of its memory instead."""
        if kind.lower() == ANY:
            return True
        words = iter(_words(self.model))
        return all(word in words for word in _words(kind) if not self._has(word))

    def _has(self, word: str) -> bool:
        size = _SIZE.fullmatch(word)
        return size is not None and _SHORT_OF <= self.memory_mib / (int(size[1]) * 1024 or 1) <= 1.0


class Ask(NamedTuple):
    """So many GPUs of one kind."""

    kind: str
    number: int


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s_-]+", name.upper()) if word]


@lru_cache(maxsize=1024)
def ask(text: str) -> Ask:
    """What "A100", "A100:2" or "any" asks for. Raises ValueError, in words that follow the text."""
    kind, colon, count = text.strip().partition(":")
    kind = kind.strip().removesuffix("!")
    if not _words(kind):
        raise ValueError("names no kind, like 'L4' or 'A100:2'")
    if not colon:
        return Ask(kind, 1)
    if not re.fullmatch(r"[0-9]{1,4}", count.strip()) or not 1 <= int(count) <= COUNT_MAX:
        words = "a part of one cannot be had" if re.fullmatch(r"\s*(mig\b.*|\d*[./]\d+)\s*", count) else "not a count"
        raise ValueError(f"asks for {count.strip()!r} of {kind}: {words}, give a whole number, like '{kind}:2'")
    return Ask(kind, int(count))


def choose(asked: Sequence[str], gpus: Sequence[Gpu], free: Mapping[str, int]) -> tuple[int, tuple[Gpu, ...]] | None:
    """(which of the kinds asked for, the devices), of those that are free; None where none of the kinds is.

    The first kind that there is enough of; all devices of one model, and of models alike the one with fewest left, so
    that many stay together.
    """
    for number, (kind, count) in enumerate(map(ask, asked)):
        fit = [devices for devices in _by_model(kind, gpus, free) if len(devices) >= count]
        if fit:
            return number, tuple(min(fit, key=len)[:count])
    return None


def _by_model(kind: str, gpus: Iterable[Gpu], free: Mapping[str, int]) -> Iterable[list[Gpu]]:
    found: dict[tuple[str, int], list[Gpu]] = {}
    for gpu in gpus:
        if free.get(gpu.id, 0) > 0 and gpu.is_of(kind):
            found.setdefault((gpu.model, gpu.memory_mib), []).append(gpu)
    return found.values()


def in_words(asked: Iterable[str]) -> str:
    """What is asked for: "1 GPU of kind L4 or 2 of kind A100"."""
    words = [f"{count} of {_kind(kind)}" for kind, count in map(ask, asked)]
    first, _, rest = words[0].partition(" ")
    return " or ".join([f"{first} {'GPU' if first == '1' else 'GPUs'} {rest}", *words[1:]])


def _kind(kind: str) -> str:
    return "any kind" if kind.lower() == ANY else f"kind {kind}"


def there(gpus: Iterable[Gpu], free: Mapping[str, int]) -> str:
    """Which there are: "2 free of 4 H100 and 8 L4", or "none"."""
    models: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        models.setdefault(gpu.model, []).append(gpu)
    return " and ".join(_counted(models, free)) or "none"


def _counted(models: Mapping[str, Sequence[Gpu]], free: Mapping[str, int]) -> Iterator[str]:
    for model, gpus in models.items():
        left = sum(free.get(gpu.id, 0) > 0 for gpu in gpus)
        yield f"{len(gpus)} {model}" if left == len(gpus) else f"{left} free of {len(gpus)} {model}"


def read(listing: str) -> tuple[Gpu, ...]:
    """The devices that an operator says there are, as in "H100:8, L4". Raises ValueError, in words."""
    gpus: list[Gpu] = []
    for text in listing.split(","):
        kind, count = ask(text)
        if kind.lower() == ANY:
            raise ValueError("names no model where it says any")
        gpus += [Gpu(str(len(gpus) + number), kind) for number in range(count)]
    return tuple(gpus)
