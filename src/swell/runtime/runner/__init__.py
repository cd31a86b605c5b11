"""What owns the processes of one node: starts, forks, watches, limits, meters and ends them; runs no user code."""
