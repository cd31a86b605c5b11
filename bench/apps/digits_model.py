"""The network that is served alike by all that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier


class Model:
    """A hundred hidden units, trained on load."""

    def __init__(self) -> None:
        pictures, labels = load_digits(return_X_y=True)
        self.network = MLPClassifier((100,), tol=1e-2, random_state=0).fit(pictures / 16, labels)

    def predict(self, pictures: Sequence[Any]) -> list[int]:
        """The digits in pictures of 64 brightnesses each."""
        found: list[int] = self.network.predict(pictures).tolist()
        return found
