"""What is called of a dict, a queue or a call in the queue, by its name in the table of arguments, without a server?"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import swell

TAKEN = {"from_id": "di-0123456789abcdef", "from_name": "a", "objects.create": "a", "objects.delete": "a"}


def use(callable: str, **given: Any) -> None:
    """Call "Dict.objects.create", say, with what it has to be given and these."""
    owner, _, method = callable.partition(".")
    kind = getattr(swell, owner)
    if owner == "FunctionCall":
        getattr(kind("fc-1"), method)(*["fc-1"][: method == "from_id"], **given)
        return
    found = kind.from_name("a").hydrate if method == "hydrate" else attrgetter(method)(kind)
    found(*([TAKEN[method]] if method in TAKEN else []), **given)
