"""A small scikit-learn model behind a class: loaded in a template, or in each process where there is none.

A replica goes after a second without work, so that there can be a wake every other second.
"""

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


@app.cls(scaledown_window=1, enable_memory_snapshot=True)
class Parked:
    """Forked from a template that has the model."""

    @swell.enter(snap=True)
    def load(self) -> None:
        """In the template."""
        self.model = Model()

    @swell.method()
    def predict(self, pixels: list[float]) -> int:
        """The digit."""
        return self.model.predict(pixels)


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
