"""A number in, the same out: nothing to do, many times."""

import swell

app = swell.App("bench-map")


@app.function(min_containers=1, max_containers=1)
@swell.concurrent(max_inputs=16)
def same(number: int) -> int:
    """The number."""
    return number
