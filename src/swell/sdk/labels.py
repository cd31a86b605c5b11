"""What is a web endpoint called where none says it, and is no name given twice: of endpoints, of models?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator

from swell.model.errors import SwellError
from swell.model.openai import Offer
from swell.model.workload import Revision, Web

LABEL_MAX = 63
"""Characters of a host name's label."""


def check(revisions: Collection[Revision]) -> None:
    """Refuse what would be called by one name."""
    _labels(revisions)
    _models(revisions)


def slug(text: str) -> str:
    """`text` as a host name's label; a long one keeps its beginning and a digest of all of it."""
    plain = re.sub(r"[^a-z0-9-]", "-", text.lower()).strip("-") or "x"
    if len(plain) <= LABEL_MAX:
        return plain
    return f"{plain[: LABEL_MAX - 9].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _labels(revisions: Iterable[Revision]) -> None:
    taken: dict[str, str] = {}
    for revision, method, web in _webs(revisions):
        where = f"{revision.entry.qualname}.{method}" if revision.entry.kind == "cls" else method
        before = taken.setdefault(web.label, where)
        if before != where:
            raise SwellError(
                "label_taken", f"{before} and {where} would both be the web endpoint {web.label!r}: give one a label=."
            )


def _models(revisions: Iterable[Revision]) -> None:
    taken: dict[Offer, str] = {}
    for revision in revisions:
        for method in revision.entry.methods:
            if method.openai is None:
                continue
            where = f"{revision.entry.qualname}.{method.name}" if revision.entry.kind == "cls" else method.name
            before = taken.setdefault(method.openai, where)
            if before != where:
                words = f"{before} and {where} would both be the model {method.openai.model!r} of {method.openai.api}"
                raise SwellError("model_taken", f"{words}: give one another model=.")


def _webs(revisions: Iterable[Revision]) -> Iterator[tuple[Revision, str, Web]]:
    for revision in revisions:
        for method in revision.entry.methods:
            if method.web is not None:
                yield revision, method.name, method.web
