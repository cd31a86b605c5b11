"""The digits model, one picture a call: worked on one by one, and in batches."""

from digits_model import Model

import swell

app = swell.App("bench-digits", image=swell.Image.debian_slim().add_local_python_source("digits_model"))


class Loaded:
    """Has the model."""

    @swell.enter()
    def load(self) -> None:
        """In the replica."""
        self.model = Model()


@app.cls(min_containers=1, max_containers=1)
@swell.concurrent(max_inputs=100)
class Single(Loaded):
    """Each by itself."""

    @swell.method()
    def predict(self, pixels: list[float]) -> int:
        """The digit."""
        return self.model.predict([pixels])[0]


@app.cls(min_containers=1, max_containers=1)
class Batched(Loaded):
    """Together."""

    @swell.batched(max_batch_size=32, wait_ms=5)
    def predict(self, pixels: list[list[float]]) -> list[int]:
        """The digits."""
        return self.model.predict(pixels)
