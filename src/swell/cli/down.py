"""`swell down`: stop the server."""

from __future__ import annotations

import click

from swell.cli import options
from swell.cli.output import progress


@click.command()
@options.home
@click.option("--now", is_flag=True, help="Do not wait for requests in flight.")
def down(home: str | None, now: bool) -> None:
    """Stop the server, and all that runs on it. Apps stay deployed."""
    from swell.supervise import background

    paths = options.chosen(home).paths
    with progress("Stopping the server") as tell:
        pid = background.stop(paths, tell, now)
    if pid is None:
        click.echo(f"No server runs on {paths.root}.")
    elif pid == 0:
        click.echo(f"No server was running on {paths.root}; leftovers of a killed one were cleaned up.")
    else:
        click.echo(f"The server (pid {pid}) is stopped.")
