"""Which words do several commands understand? Options and kinds of values they share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swell.cli.text import of_file, of_stdin, of_words
from swell.model.durations import seconds_of
from swell.model.errors import SwellError
from swell.model.unknown import no_request_id, unknown_app
from swell.model.workload import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.wire.api import AppRow
    from swell.wire.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_S = 1e10
"""Longer ago than anything is kept; no query takes more."""


class Duration(click.ParamType[float]):
    """A length of time: "90s", "10m", "1h30m", "2d"; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        if isinstance(value, int | float):
            return float(value)
        seconds = seconds_of(value.strip().lower())
        # Nothing is from the last 0 seconds: who asks for that means something else.
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{value!r} is not a length of time above 0, such as 90s, 10m, 1h30m or 2d.", param, ctx)
        return seconds


def home(command: F) -> F:
    """--home: which server."""
    return click.option("--home", metavar="DIR", help="State directory of the server (SWELL_HOME).")(command)


def as_json(command: F) -> F:
    """--json: the same for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def namespace(command: F, default: str | None = DEFAULT_NAMESPACE) -> F:
    """--namespace, of which an app's name may also have one in front."""
    said = "Only what is in this namespace." if default is None else f"Namespace, if not `{default}`."
    return click.option("-e", "--env", "--namespace", "namespace", metavar="NAME", default=default, help=said)(command)


def parameters(command: F) -> F:
    """--param: of a class."""
    return click.option(
        "-p",
        "--param",
        "parameters",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_by_name,
        help="A parameter of the class, as often as it has some; bytes as base64.",
    )(command)


def _by_name(_context: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    pairs = [of_words(word, "One of the NAME=VALUE").partition("=") for word in words]
    found = {name: value for name, _, value in pairs}
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter(f"{name!r} is not NAME=VALUE, like size=3.")
    if len(found) < len(pairs):
        raise click.BadParameter("the same parameter is given twice.")
    return found


def chosen(home: str | None) -> Settings:
    """Settings with the home given on the command line."""
    from swell.wire import settings

    return settings.load({"home": home})


def connect(home: str | None) -> Client:
    """The server that the settings lead to."""
    from swell.sdk.client import Client

    return Client.from_settings(chosen(home))


def is_open(host: str) -> bool:
    """Do other machines reach what listens on it?"""
    import socket

    from swell.model.hosts import is_loopback
    from swell.wire.paths import WILDCARDS

    if host in WILDCARDS:
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True
    return not all(is_loopback(str(address[0])) for *_, address in found)


def key_needed(settings: Settings) -> bool:
    """Do calls of the server that the settings lead to need its key? Those of one that others reach do."""
    from swell.model.hosts import stays_here
    from swell.supervise.lock import holder

    server = holder(settings.paths)
    if server is not None and server.url == settings.base_url:
        return is_open(server.host)
    return not stays_here(settings.base_url)


def json_body(arguments: str) -> bytes:
    """The arguments' JSON, checked here so that a slip of the pen is not sent."""
    if arguments == "-":
        text = of_stdin()
    elif arguments.startswith("@"):
        text = of_file(arguments[1:])
    else:
        text = of_words(arguments, "What stands there as JSON")
    if not text.strip():
        return b""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f'The arguments are not JSON: {error}. Example: \'{{"name": "Ada"}}\'') from None
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise click.UsageError("The arguments are a JSON object of names or an array of positions, not one bare value.")
    return text.encode()


def request_id(text: str) -> str:
    """What may be the id of a request, or of a call in the queue. SwellError no_request_id for anything else."""
    from swell.model.call import is_call_id
    from swell.model.request import is_id

    if not (is_id(text) or is_call_id(text)):
        raise no_request_id(text)
    return text


def split_app(name: str, namespace: str) -> tuple[str, str]:
    """(namespace, app) of "app" or "namespace/app"."""
    before, slash, after = name.partition("/")
    return (before, after) if slash else (namespace, name)


@contextmanager
def app_named(command: str, given: str, namespace: str, client: Client) -> Iterator[tuple[str, str]]:
    """(namespace, app) that a command was given. Where it is not there, being a function of an app, says so."""
    *app, _ = given.strip("/").split("/")
    if len(app) > 1:
        raise _takes_app(command, "/".join(app))
    from swell.model.names import check_names

    at = split_app(given, namespace)
    check_names(*at)
    try:
        yield at
    except SwellError as error:
        if error.code != "unknown_app" or not app:
            raise
        if any((row.namespace, row.name) == (namespace, app[0]) for row in client.apps()):
            raise _takes_app(command, app[0]) from None
        raise


def _takes_app(command: str, app: str) -> click.UsageError:
    return click.UsageError(f"{command} takes an app: {command} {app}")


def deployed(client: Client, name: str, namespace: str) -> AppRow:
    """The app of that name. SwellError unknown_app lists those that are there."""
    rows = {(row.namespace, row.name): row for row in client.apps()}
    if (namespace, name) not in rows:
        raise unknown_app(name, namespace, rows)
    return rows[namespace, name]
