"""Which name may a misspelt one have meant?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

NEAR_MOST = 3
LENGTH_MAX = 100
"""Letters of a name that is compared."""
SLIPS_MAX = 3
_SAME = str.maketrans("", "", "-_. ")


def near_names(name: str, names: Iterable[str], most: int = NEAR_MOST) -> list[str]:
    """Those that `name` may be a slip of, the nearest first: up to `SLIPS_MAX` letters too many, too few, swapped or
    wrong, of short names fewer; another case, or other dashes; or only the first half of it, or more."""
    found = [(far, other) for other in names if (far := _far(name, other)) is not None]
    return [other for _, other in sorted(found)[:most]]


def did_you_mean(name: str, names: Iterable[str], most: int = NEAR_MOST) -> str:
    """ " Did you mean …?" with those; empty where none is near."""
    near = near_names(name, names, most)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _far(name: str, other: str) -> int | None:
    """How far one name is from the other; None: nobody means the one by the other."""
    long, short = max(len(name), len(other)), min(len(name), len(other))
    if long > LENGTH_MAX or not short:
        return None
    if name.casefold().translate(_SAME) == other.casefold().translate(_SAME):
        return 0
    most = min(max((long + 1) // 4, 1 if long > 1 else 0), SLIPS_MAX)
    begins = short >= 3 and short * 2 >= long and (name.startswith(other) or other.startswith(name))
    if begins:
        return min(long - short, SLIPS_MAX)
    # Each slip spoils one letter of either at most: most names are told apart by this alone.
    if long - short > most or (Counter(name) - Counter(other)).total() > most:
        return None
    slips = slips_between(name, other, most)
    return slips if slips <= most else None


def slips_between(one: Sequence[str], other: Sequence[str], most: int) -> int:
    """Letters to insert, leave out, change, or swap with the next (each at most once), to make the one the other; where
    that takes more than `most`, `most` + 1.

    Whoever is this far into the one and that far into the other has made as many slips as those differ by: only places
    up to `most` apart are looked at, and no further ones once all of a row are beyond it.
    """
    beyond = most + 1
    last: list[int] = []
    before: list[int] = []
    row = [min(to, beyond) for to in range(len(other) + 1)]
    for at, letter in enumerate(one, 1):
        last, before, row = before, row, [beyond] * len(row)
        row[0] = fewest_here = min(at, beyond)
        for to in range(max(at - most, 1), min(at + most, len(other)) + 1):
            fewest = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (letter != other[to - 1]), beyond)
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == other[to - 1]:
                fewest = min(fewest, last[to - 2] + 1)
            row[to] = fewest
            fewest_here = min(fewest_here, fewest)
        if fewest_here > most:
            # A swap leads on from the row before: there all are `most`, at least.
            return beyond
    return row[-1]
