"""`swell up`: start a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import progress
from swell.model.urls import shown

if TYPE_CHECKING:
    from swell.supervise.lock import Holder
    from swell.wire.paths import Home
    from swell.wire.settings import Settings


@click.command()
@click.option("-d", "--detach", is_flag=True, help="In the background: return once it is ready.")
@click.option("--host", metavar="HOST", help="Address to listen on (SWELL_HOST; 127.0.0.1).")
@click.option("--port", type=int, metavar="PORT", help="Port to listen on; 0 picks a free one (SWELL_PORT; 8470).")
@click.option(
    "--grpc-port", type=int, metavar="PORT", help="Speak gRPC there, too; 0 picks a free port (SWELL_GRPC_PORT)."
)
@click.option("--gateways", type=int, metavar="N", help="Take requests in N processes at once (SWELL_GATEWAYS; 1).")
@click.option("--store", metavar="URL", help="Keep the state in PostgreSQL: postgresql://… (SWELL_STORE).")
@options.home
@click.option("--set", "assigned", multiple=True, metavar="NAME=VALUE", help="Any other setting; may be repeated.")
@click.option(
    "--attach-pid",
    "attached",
    type=int,
    multiple=True,
    metavar="PID",
    help="End when this process has ended; may be repeated.",
)
@click.option("-v", "--verbose", is_flag=True, help="In the foreground: show all that the server's processes say.")
def up(
    detach: bool,
    host: str | None,
    port: int | None,
    grpc_port: int | None,
    gateways: int | None,
    store: str | None,
    home: str | None,
    assigned: tuple[str, ...],
    attached: tuple[int, ...],
    verbose: bool,
) -> None:
    """Start a server: here, until Ctrl-C, or with -d in the background."""
    import msgspec

    from swell.wire import prices, settings

    flags: dict[str, Any] = settings.assignments(assigned)
    own = {"host": host, "port": port, "grpc_port": grpc_port, "gateways": gateways, "store": store, "home": home}
    flags |= {name: value for name, value in own.items() if value is not None}
    loaded = settings.load(flags)
    # Control reads them; here what cannot be used is refused in a sentence, before anything is started.
    prices.read_prices(loaded.paths.prices)
    chosen = msgspec.to_builtins(loaded)
    for words in settings.misspelt(os.environ):
        click.echo(f"Note: {words}", err=True)
    if not loaded.store:
        _say_sealed(loaded.paths)
    if detach:
        from swell.supervise import background

        with progress("Starting the server"):
            holder = background.start(chosen, attached)
        _say_up(holder, loaded, f"Stop it with `{_down(home)}`.")
        return
    from swell.supervise import server

    server.run(
        chosen,
        up=lambda holder: _say_up(holder, loaded, f"Stop it with Ctrl-C, or with `{_down(home)}`."),
        show=lambda line: click.echo(line, err=True),
        attached=attached,
        verbose=verbose,
    )


def _say_sealed(paths: Home) -> None:
    """Before the start: who lost the master key can put it back before anything needs it."""
    if not paths.database.exists():
        return
    from swell import stopped
    from swell.cli.restore import sealed_words

    sealed = stopped.sealed(paths)
    if sealed:
        click.echo(
            f"Note: Secrets that cannot be opened with {paths.master_key}: {sealed_words(sealed)}. What uses them does "
            "not start. Put the former key back and restart.",
            err=True,
        )


def _say_up(holder: Holder, chosen: Settings, stop: str) -> None:
    home = chosen.home
    state = f"{shown(chosen.store)} and {home}" if chosen.store else home
    click.echo(f"Swell is up at {holder.url} (pid {holder.pid}, state in {state}). {stop}")
    if holder.grpc_port:
        click.echo(f"Models by gRPC are at {_address(holder)}.")
    if options.is_open(holder.host):
        click.echo(
            f"It is open to the network: it listens on {holder.host or 'every address'}, port {holder.port}. Calls "
            f"need the key in {home}/key (`Authorization: Bearer KEY`, or SWELL_KEY); who has it can run code here."
        )


def _address(holder: Holder) -> str:
    from swell.wire.paths import local_url

    return local_url(holder.host, holder.grpc_port).removeprefix("http://")


def _down(home: str | None) -> str:
    return "swell down" if home is None else f"swell down --home {home}"
