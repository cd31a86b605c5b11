"""Eight numbers doubled, by four replicas with a hundred slots each, and by one with a single slot."""

import swell

app = swell.App("bench-gateways")


@app.function(min_containers=4, max_containers=4)
@swell.concurrent(max_inputs=100)
def double(values: list[float]) -> list[float]:
    """Each number times two."""
    return [value * 2 for value in values]


@app.function(min_containers=1, max_containers=1)
def one(values: list[float]) -> list[float]:
    """The same, one input at a time."""
    return [value * 2 for value in values]
