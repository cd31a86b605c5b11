"""Is a variant that the server forgot made anew for whoever still has it, in the middle of what they do? On a real
platform."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import swell
from private_swell import PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]

WAIT_S = 100.0

PROGRAM = """
import os
import swell

app = swell.App("zoo")

@app.cls(scaledown_window=1)
class Model:
    name: str = swell.parameter()
    size: int = swell.parameter(default=3)
    loud: bool = swell.parameter(default=False)

    @swell.method()
    def told(self) -> str:
        return f"{self.name!r}/{self.size!r}/{self.loud!r}"

    @swell.method()
    def items(self, n: int):
        for i in range(n):
            yield f"{self.name} {i}"

@app.function(scaledown_window=1)
def variable(name: str) -> str | None:
    return os.environ.get(name)
"""


@pytest.fixture(scope="module")
def own_swell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    file = tmp_path_factory.mktemp("zoo") / "zoo.py"
    file.write_text(PROGRAM)
    with private_swell(variant_idle_s=1, template_idle_s=1) as made:
        made.run("deploy", str(file))
        yield made


def forget(own: PrivateSwell) -> None:
    """Wait until nobody has asked for any variant for long enough."""

    def there() -> bool:
        (app,) = own.get("/api/apps")
        return any("~" in row["name"] for row in app["workloads"])

    wait_until("all are forgotten", lambda: not there(), wait_s=WAIT_S)


def test_in_the_middle_of_a_map_and_between_two_streams(own_swell: PrivateSwell) -> None:
    """Of each, all of what is forgotten at once: it takes a while."""
    waiting, forgotten = threading.Semaphore(0), threading.Event()

    def pause() -> None:
        waiting.release()
        assert forgotten.wait(WAIT_S)

    def mapped(ordered: bool) -> list[Any]:
        results: list[Any] = []

        def inputs() -> Iterator[str]:
            yield "A"
            wait_until("the first is answered", lambda: bool(results), wait_s=WAIT_S)
            pause()
            yield "A"

        varied = swell.Function.from_name("zoo", "variable").with_options(env={"A": str(ordered)})
        results.extend(varied.map(inputs(), order_outputs=ordered))
        return results

    def streamed() -> list[Any]:
        items = swell.Cls.from_name("zoo", "Model").with_options(timeout=60)(name="x").items
        first = list(items.remote_gen(2))
        pause()
        return [*first, *items.remote_gen(2)]

    with ThreadPoolExecutor(3) as callers:
        made = [callers.submit(mapped, True), callers.submit(mapped, False), callers.submit(streamed)]
        try:
            assert all(waiting.acquire(timeout=WAIT_S) for _ in made)
            forget(own_swell)
        finally:
            forgotten.set()
        assert [each.result() for each in made] == [["True"] * 2, ["False"] * 2, ["x 0", "x 1"] * 2]


def test_with_options_parameters_are_read_as_without(own_swell: PrivateSwell) -> None:
    """Who found a class by its name does not know of which types they are."""
    model = swell.Cls.from_name("zoo", "Model")
    busy = model.with_options(timeout=60)
    given = {"name": 5, "size": "4", "loud": 1}
    assert busy(**given).told.remote() == model(**given).told.remote() == "'5'/4/True"
    with pytest.raises(swell.exception.InvalidError, match='size is of type int, and "big" is no whole number'):
        busy(name=5, size="big").told.remote()
