"""Is whoever asks with another HTTP method told the right one?"""

from __future__ import annotations

from collections.abc import Callable

from rig import Rig

from swell.model.tensors import Tensors
from swell.model.workload import Method

Play = Callable[..., None]


def test_the_words_are_the_same_whatever_was_asked_before_and_speak_of_no_functions_to_callers_of_models(
    play: Play,
) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=(Method("run"), Method("infer", tensors=Tensors((), ()))))
        browser = await rig.browser()
        for path in ("/call/app/fn.run", "/v2/models/app--fn-infer/infer"):
            first = await browser.call(path, method="GET")
            assert (await browser.call(path, b"{}")).status == 200
            # From now on it is known what this path is for.
            for wrong in (first, await browser.call(path, method="GET")):
                assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
                assert ("POST" in str(wrong.error), "unction" in str(wrong.error)) == (True, False), path

    play(scenario)
