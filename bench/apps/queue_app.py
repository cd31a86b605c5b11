"""Nothing to do, in two replicas that do one call at a time."""

import swell

app = swell.App("bench-queue")


@app.function(min_containers=2, max_containers=2)
def nothing() -> None:
    """Nothing."""
