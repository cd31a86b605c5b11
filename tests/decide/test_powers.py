"""A power that the engine lacks is refused by its name, with who has it; one that it has is not."""

from __future__ import annotations

import pytest

from swell.decide.powers import POWERS, WAYS, asked, lacking, listing, summary
from swell.model.environment import ContainerStep, Environment
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Method, Revision, Workload


def an_app(gpu: tuple[str, ...], *steps: ContainerStep, names: tuple[str, ...] = ("train",)) -> App:
    entry = Entry("m", "f", "function", (Method("f"),))
    environment = Environment("/usr/bin/python3", "3.11", container_steps=steps)
    revision = Revision(environment, "sha256-0", entry, needs=Needs(gpu=gpu))
    return App("default", "a", tuple(Workload("default", "a", name, revision.id) for name in names), (revision,))


@pytest.mark.parametrize(
    ("others", "who"),
    [
        ({}, "no engine has it yet. Leave gpu= out."),
        ({"ray": POWERS}, "ray has it. Leave gpu= out, or deploy it there."),
        ({"ray": POWERS, "fake": frozenset()}, "ray has it. Leave gpu= out, or deploy it there."),
    ],
)
def test_what_the_engine_lacks_is_named_with_who_has_it(others: dict[str, frozenset[str]], who: str) -> None:
    (told,) = lacking(an_app(("H100",)), "local", {"local": frozenset(), **others})
    assert told == f"train asks for gpu='H100', and the local engine has no power 'gpu'; {who}"


def test_a_variant_is_called_as_its_class() -> None:
    (told,) = lacking(an_app(("L4",), names=("Model~81f4fd3de925775fa968",)), "local", {"local": frozenset()})
    assert told.startswith("Model asks for gpu='L4'")


def test_what_the_engine_has_or_nobody_asked_for_is_not_refused() -> None:
    everything = an_app(("H100",), ContainerStep("apt_install", ("ffmpeg",)))
    assert lacking(everything, "local", {"local": POWERS}) == []
    assert lacking(an_app(()), "local", {"local": frozenset()}) == []


def test_what_can_be_asked_for_is_a_power_that_an_engine_may_declare() -> None:
    (revision,) = an_app(("L4", "A100:2"), ContainerStep("cmd", ("serve",))).revisions
    asks = list(asked(revision))
    assert [ask.words for ask in asks] == ["gpu=['L4', 'A100:2']", "Image.cmd('serve')"]
    assert {ask.power for ask in asks} == POWERS


def test_all_that_is_lacking_is_told_at_once_each_with_its_own_way_out() -> None:
    steps = [ContainerStep(method, ("x",)) for method in WAYS]
    app = an_app(("H100",), *steps, names=("train", "score", "rate"))
    told = lacking(app, "local", {"local": frozenset(), "kubernetes": frozenset({"container"})})
    assert len(told) == 1 + len(WAYS)
    assert all(words.startswith("train, score and rate ask for ") for words in told)
    for step, words in zip(steps, told[1:], strict=True):
        assert f"{step.shown}, and the local engine has no power 'container'; kubernetes has it." in words
        assert words.endswith(f"{WAYS[step.method]}, or deploy it there.")
    assert (
        summary(app, "local", told)
        == f"a asks for {len(told)} things that the local engine lacks; nothing was changed."
    )
    assert listing(told).splitlines() == told
    assert (summary(app, "local", told[:1]), listing(told[:1])) == (told[0], "")


def test_a_long_command_is_shown_by_its_beginning() -> None:
    step = ContainerStep("run_commands", ("curl -L https://example.com/" + "x" * 100,))
    assert len(step.shown) < 100
    assert step.shown.startswith("Image.run_commands('curl -L https://example.com/")
    assert step.shown.endswith("…)")
