"""A replica for every call: forked from the template, used once, gone."""

import swell

app = swell.App("bench-churn")


@app.function(single_use_containers=True, max_containers=64, scaledown_window=60)
def once(number: int) -> int:
    """The number it was given."""
    return number
