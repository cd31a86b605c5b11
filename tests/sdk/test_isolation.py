"""Is a sandbox that cannot be refused where it is written, with the way out?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import swell
from sdk import deployable
from swell.decide.powers import unwalled
from swell.model.node import Node
from swell.model.workload import App
from swell.sdk import describe, run


@pytest.mark.shows("isolated", "optional")
def test_a_layer_that_a_sandbox_may_do_without() -> None:
    node = Node("here", 1.0, 1024, lacks=(("landlock", "an old kernel"),))
    told = unwalled(walled(swell.isolated()), [node])
    assert told is not None
    assert "lacks its layer 'landlock'" in told
    assert "an old kernel" in told
    assert unwalled(walled(swell.isolated(optional=["landlock"])), [node]) is None


def walled(decorator: Callable[[Any], Any], **given: Any) -> App:
    def plain(x: int = 1) -> int:
        return x

    plain.__qualname__, plain.__module__ = "plain", deployable.__name__
    app = swell.App("a")
    app.function(**given)(decorator(plain))
    return run.prepare(app, describe.Place("a", "default", {})).app


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "network": (lambda: swell.isolated(network="host"), "use 'none' or 'node'"),
    "layer": (lambda: swell.isolated(optional=["walls"]), "there is no layer 'walls'; they are mount, pid"),
    "text": (lambda: swell.isolated(readable="/models"), "give a list of texts"),
    "number": (lambda: swell.isolated(writable=3), "writable=3): give a list of texts"),
    "relative": (lambda: swell.isolated(writable=["models"]), "'models' is no absolute path of a folder"),
    "root": (lambda: swell.isolated(writable=["/a/.."]), "'/' is no absolute path of a folder"),
    "both": (
        lambda: walled(swell.isolated(network="node"), block_network=True),
        "block_network=True and @isolated(network='node') contradict each other",
    ),
    "port": (
        lambda: walled(lambda plain: swell.isolated()(swell.web_server(8000)(plain))),
        "give it @isolated(network='node')",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_sandbox_that_cannot_be_is_refused_with_the_way_out(what: str) -> None:
    use, words = WRONG[what]
    with pytest.raises(swell.Error, match=re.escape(words)) as raised:
        use()
    assert raised.value.code == "bad_argument"
