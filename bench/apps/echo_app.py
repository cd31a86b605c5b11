"""Eight numbers in, the same doubled out: a plain function, as users write them."""

import swell

app = swell.App("bench-echo")


@app.function(min_containers=1, max_containers=1)
@swell.concurrent(max_inputs=100)
def double(values: list[float]) -> list[float]:
    """Each number times two."""
    return [value * 2 for value in values]
