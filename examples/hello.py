"""A function, a generator, and a program that calls them: `swell run examples/hello.py --name Ada`."""

from collections.abc import Iterator

import swell

app = swell.App("hello")


@app.function()
def greet(name: str = "world") -> str:
    """One greeting."""
    return f"Hello, {name}!"


@app.function()
def count(to: int = 3) -> Iterator[int]:
    """A generator: each item is sent when it is there."""
    yield from range(1, to + 1)


@app.local_entrypoint()
def main(name: str = "world") -> None:
    """Runs here; what is called with `.remote` runs in a replica."""
    print(greet.remote(name))
    print(*count.remote_gen(3))
    print(*greet.map(["Ada", "Grace"]))
