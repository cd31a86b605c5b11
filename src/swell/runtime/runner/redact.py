"""How is a secret known again in what a program prints? As it is, and in the forms that programs give it."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator

from swell.model.secret import Revealed

SHORTEST = 6
"""Characters of a value that is looked for, and of a piece of one at an edge: shorter ones are in everything."""


class Redactor:
    """Replaces what it knows by `[secret NAME.KEY]`."""

    def __init__(self, secrets: Iterable[Revealed]) -> None:
        self._labels: dict[str, str] = {}
        for secret in secrets:
            for key, value in (*secret.values, *secret.former):
                name = secret.name if not secret.name.startswith("app:") else secret.name.split(":")[1]
                for form in forms(value):
                    self._labels.setdefault(form, f"[secret {name}.{key}]")
        longest_first = sorted(self._labels, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """One line, or several, without what it knows. A line may have been cut: a piece of a value that stands at its
        beginning or end goes, too."""
        if self._known is None:
            return text
        text = self._known.sub(lambda found: self._labels[found[0]], text)
        for form, label in self._labels.items():
            if len(form) > SHORTEST:
                text = _without_edges(text, form, label)
        return text


def forms(value: str) -> Iterator[str]:
    """What a value looks like in text: itself, line by line, in JSON or Python's repr, in a URL, in base64 at any
    offset."""
    if len(value) < SHORTEST:
        return
    data = value.encode()
    written = {
        value,
        *(line for line in value.splitlines() if len(line.strip()) >= SHORTEST),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote_plus(value),
    }
    for offset in range(3):
        # What stands beside the value changes the characters at the borders: those in between are the value's own.
        first = (offset * 8 + 5) // 6
        own = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")[first : (offset + len(data)) * 8 // 6]
        written |= {own, own.translate(str.maketrans("+/", "-_"))}
    yield from (form for form in written if len(form) >= SHORTEST)


def _without_edges(text: str, form: str, label: str) -> str:
    """Without an end of `form` at the text's beginning, and without a beginning of it at the text's end."""
    head, tail = form[:SHORTEST], form[-SHORTEST:]
    # The longest that fits: of "aaaaaaaa" a shorter end would leave a piece behind it.
    at = text.rfind(tail, 0, len(form) - 1)
    while at >= 0:
        end = at + SHORTEST
        if form.endswith(text[:end]):
            text = label + text[end:]
            break
        at = text.rfind(tail, 0, end - 1)
    at = text.find(head, max(0, len(text) - len(form) + 1))
    while at >= 0:
        if form.startswith(text[at:]):
            return text[:at] + label
        at = text.find(head, at + 1)
    return text
