"""Eight numbers doubled, by a function that anybody may call as often as they like, and by one that is bounded."""

import swell

app = swell.App("bench-door")


@app.function(min_containers=1, max_containers=1)
@swell.concurrent(max_inputs=100)
def double(values: list[float]) -> list[float]:
    """Each number times two."""
    return [value * 2 for value in values]


@app.function(min_containers=1, max_containers=1)
@swell.limit(rate="1000000/s", concurrency=1000)
@swell.concurrent(max_inputs=100)
def bounded(values: list[float]) -> list[float]:
    """The same; its limits are asked, and never reached."""
    return [value * 2 for value in values]
