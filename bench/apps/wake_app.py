"""A small scikit-learn model behind a class: loaded in a template, or in each process where there is none.

A replica goes after a second without work, so that there can be a wake every other second.
"""

import time

import swell

app = swell.App("bench-wake")


class Model:
    """What is loaded: the imports, and a network trained on load."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits
        from sklearn.neural_network import MLPClassifier

        pictures, labels = load_digits(return_X_y=True)
        self.network = MLPClassifier((100,), tol=1e-2, random_state=0).fit(pictures / 16, labels)

    def predict(self, pixels: list[float]) -> int:
        """The digit in 64 brightnesses."""
        return int(self.network.predict([pixels])[0])


class Loaded:
    """A service whose templates have the model."""

    @swell.enter(snap=True)
    def load(self) -> None:
        """In the template."""
        self.model = Model()

    @swell.method()
    def predict(self, pixels: list[float]) -> int:
        """The digit."""
        return self.model.predict(pixels)


@app.cls(scaledown_window=1, enable_memory_snapshot=True)
class Parked(Loaded):
    """Forked from a template that has the model."""


@app.cls(scaledown_window=1, enable_memory_snapshot=True)
class Stamped:
    """As Parked, and reads the CPU clock of its process on the way: a fork's begins at zero."""

    @swell.enter(snap=True)
    def load(self) -> None:
        """In the template."""
        self.model = Model()

    @swell.enter()
    def wake(self) -> None:
        """In the fork, before it listens."""
        self.woken_ms = _cpu_ms()

    @swell.method()
    def predict(self, pixels: list[float]) -> dict[str, float]:
        """CPU ms of this process so far: when woken, when called, when the digit was found."""
        called_ms = _cpu_ms()
        self.model.predict(pixels)
        return {"woken": self.woken_ms, "called": called_ms, "found": _cpu_ms()}

    @swell.exit()
    def leave(self) -> None:
        """To the log, since nobody else is there to be told."""
        print(_cpu_ms())


@app.cls(scaledown_window=1, enable_memory_snapshot=False)
class Fresh:
    """A process of its own each time."""

    @swell.enter()
    def load(self) -> None:
        """In each replica."""
        self.model = Model()

    @swell.method()
    def predict(self, pixels: list[float]) -> int:
        """The digit."""
        return self.model.predict(pixels)


def _cpu_ms() -> float:
    return time.process_time() * 1000
