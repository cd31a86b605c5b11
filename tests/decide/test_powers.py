"""A power that the engine lacks is refused by its name, with who has it; one that it has is not."""

from __future__ import annotations

import pytest

from swell.decide.powers import POWERS, asked, refusal
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Environment, Method, Revision, Workload


def an_app(gpu: tuple[str, ...]) -> App:
    entry = Entry("m", "f", "function", (Method("f"),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, needs=Needs(gpu=gpu))
    return App("default", "a", (Workload("default", "a", "train", revision.id),), (revision,))


@pytest.mark.parametrize(
    ("others", "who"),
    [
        ({}, "no engine has it yet. Leave gpu= out."),
        ({"ray": POWERS}, "ray has it. Leave gpu= out, or deploy it there."),
        ({"ray": POWERS, "fake": frozenset()}, "ray has it. Leave gpu= out, or deploy it there."),
    ],
)
def test_what_the_engine_lacks_is_named_with_who_has_it(others: dict[str, frozenset[str]], who: str) -> None:
    told = refusal(an_app(("H100",)), "local", {"local": frozenset(), **others})
    assert told == f"train asks for gpu='H100', and the local engine has no power 'gpu'; {who}"


def test_what_the_engine_has_or_nobody_asked_for_is_not_refused() -> None:
    assert refusal(an_app(("H100",)), "local", {"local": POWERS}) is None
    assert refusal(an_app(()), "local", {"local": frozenset()}) is None


def test_what_can_be_asked_for_is_a_power_that_an_engine_may_declare() -> None:
    (revision,) = an_app(("L4", "A100:2")).revisions
    assert asked(revision) == {"gpu": "gpu=['L4', 'A100:2']"}
    assert asked(revision).keys() <= POWERS
