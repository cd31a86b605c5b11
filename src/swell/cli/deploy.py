"""`swell deploy`: put an app on the server, to stay."""

from __future__ import annotations

import enum
import inspect
import json
import os
import shlex
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import progress, table, wrapped

if TYPE_CHECKING:
    from swell.sdk.app import App
    from swell.sdk.marks import WebMark
    from swell.wire.api import DeployLine, Strategy
    from swell.wire.settings import Settings


WIDTH = 80
"""Columns of a line to try; one that is longer does not show samples of arguments."""
REST = "…"
"""Stands for what the user knows."""
PLAIN: dict[type, Any] = {str: REST, int: 1, float: 1.0, bool: True, bytes: "AAAA"}
"""What JSON has for plain kinds; bytes are in base64."""


@click.command(short_help="Put the app in a file on the server, to stay.")
@click.argument("reference", metavar="FILE[::APP]")
@click.option("--name", metavar="NAME", help="Deploy under this name instead of the app's own.")
@click.option("--tag", metavar="TEXT", default="", help="What to call this version in `swell app history`.")
@click.option(
    "--strategy",
    type=click.Choice(["rolling", "recreate", "blue-green"]),
    default="rolling",
    show_default=True,
    help="What serves goes on until its successor is ready; gives way at once; goes on until `swell app promote`.",
)
@options.namespace
@options.home
def deploy(reference: str, name: str | None, tag: str, strategy: Strategy, namespace: str, home: str | None) -> None:
    """Deploy the app in FILE (a path, or a module's name). All of it is there afterwards, or nothing has changed.

    What serves goes on until its successor is ready. One that does not start is told, and ends this command with exit
    code 1; the version before still serves. What nobody uses is not started by a deploy, but by its first call.
    """
    from swell.sdk import load, run
    from swell.sdk.bridge import drive

    if home is not None:
        # Not only for us: the user's own code may look up deployed apps while it is imported.
        os.environ["SWELL_HOME"] = home
    notes: list[str] = []
    with progress(f"Deploying {reference}") as tell:
        app = load.app(reference)
        done = drive(
            run.deploy(
                app, name=name, namespace=namespace, progress=tell, note=notes.append, tag=tag, strategy=strategy
            )
        )
    click.echo(table(("WORKLOAD", "CHANGE", "URL"), _rows(done)))
    if done.asleep:
        click.echo(f"\n{_asleep(done)}")
    chosen = options.chosen(home)
    click.echo(f"\n{_try(app, dict(done.urls), _shell_key(chosen), options.key_needed(chosen))}")
    for note in notes:
        click.echo(f"Note: {note}.", err=True)


def _rows(done: DeployLine) -> list[tuple[str, str, str]]:
    """(function or "Class.method", what changed, URL), and the workloads that are not there any more."""
    changes = dict(done.changes)
    rows = [(name, changes.get(name.partition(".")[0], ""), url) for name, url in sorted(done.urls)]
    return rows + [(name, change, "") for name, change in done.changes if change == "removed"]


def _asleep(done: DeployLine) -> str:
    """What is not started by a deploy, and when it is."""
    there = [name for name, change in done.changes if change != "removed"]
    if len(done.asleep) == len(there):
        return wrapped("Nothing of it runs yet: the first call starts it, and says why if it cannot.")
    return wrapped(f"Not running yet: {', '.join(done.asleep)}. The first call starts each, and says why if it cannot.")


def _try(app: App, urls: Mapping[str, str], key: str = "", locked: bool = False) -> str:
    """A line to paste, for the first that can be called; below it, what is to be filled in.

    `key`: what a shell makes the server's key of; `locked`: every call needs it.
    """
    from swell.sdk.describe import needed

    for name, url in urls.items():
        if "/call/" in url:
            query, asked = _query(app, name)
            words, lacking = _body(_raw(app, name), bound="." in name)
            line = _line("curl", url + query, *words)
            if len(line) > WIDTH:
                line, lacking = _line("curl", url + query, "-d", f"{{{REST}}}"), needed(_raw(app, name), "." in name)
            return _filled(line + (_bearer(key) if locked else ""), [*asked, *lacking])
    name, url = next(iter(urls.items()))
    query, asked = _query(app, name)
    web = _web(app, name)
    verb = web.http_method.upper() if web is not None and web.kind == "endpoint" else "GET"
    line = _line("curl", *(["-X", verb] if verb != "GET" else []), url + query)
    return _filled(line + (_bearer(key) if locked or (web is not None and web.needs_key) else ""), asked)


def _line(*words: str) -> str:
    return f"Try: {shlex.join(words)}"


def _filled(line: str, lacking: Sequence[str]) -> str:
    """The line, and what is to be filled in there."""
    return f"{line}\n     with your own {', '.join(lacking)} in place of {REST}" if lacking else line


def _query(app: App, name: str) -> tuple[str, list[str]]:
    """(what must be in the query, names of that): the parameters without a default, of a class."""
    from swell.sdk.parameters import required

    asked = required(app.declared[name.partition(".")[0]].raw)
    return f"?{'&'.join(f'{each}={REST}' for each in asked)}" if asked else "", asked


def _bearer(key: str) -> str:
    return f' -H "Authorization: Bearer {key}"'


def _shell_key(chosen: Settings) -> str:
    """What stands for the key in a shell's line, which is no place for the key itself."""
    return "$SWELL_KEY" if os.environ.get("SWELL_KEY") else f"$(cat {shlex.quote(str(chosen.paths.key))})"


def _web(app: App, name: str) -> WebMark | None:
    """How a function or "Class.method" is a web endpoint."""
    workload, _, method = name.partition(".")
    members = app.declared[workload].members()
    return (members[method] if method else next(iter(members.values())))[1].web


def _raw(app: App, name: str) -> Callable[..., Any]:
    """The user's code behind a function or "Class.method"."""
    workload, _, method = name.partition(".")
    found = app.declared[workload].raw
    raw: Callable[..., Any] = inspect.getattr_static(found, method) if method else found
    return getattr(raw, "__swell_raw__", raw)


def _body(raw: Callable[..., Any], bound: bool = False) -> tuple[list[str], list[str]]:
    """(curl's words for arguments of the right kinds, those whose kind is not known)."""
    from swell.sdk.describe import needed

    kinds, names = _kinds(raw), needed(raw, bound)
    if [kinds.get(name) for name in names] == [bytes]:
        return ["-H", "Content-Type: application/octet-stream", "--data-binary", "@FILE"], []
    body: dict[str, Any] = {}
    unknown = []
    for name in names:
        try:
            body[name] = sample(kinds.get(name))
        except LookupError:
            body[name] = REST
            unknown.append(name)
    return ["-d", json.dumps(body, ensure_ascii=False)], unknown


def _kinds(raw: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, also where they are written as text; those that cannot be read are left out."""
    try:
        return typing.get_type_hints(raw)
    except Exception:
        return {}


def sample(kind: Any, nth: int = 1) -> Any:
    """A JSON value that fits an annotation: list[float] → [1.0, 2.0]. LookupError where none is known to fit."""
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(next((each for each in inner if each is not types.NoneType), None), nth)
    if origin is typing.Annotated:
        return sample(inner[0], nth)
    if origin is typing.Literal:
        return inner[0]
    if not inspect.isclass(origin):
        raise LookupError
    if issubclass(origin, enum.Enum):
        return _first_member(origin)
    if origin in PLAIN:
        return nth * PLAIN[origin] if origin in (int, float) else PLAIN[origin]
    if origin.__module__ not in ("builtins", "collections", "collections.abc"):
        raise LookupError
    if origin is tuple and inner and inner[-1] is not ...:
        return [sample(each) for each in inner]
    if issubclass(origin, Mapping):
        return {sample(inner[0]): sample(inner[1])} if len(inner) == 2 and inner[0] is str else {}
    if issubclass(origin, Collection):
        return [sample(inner[0], n) for n in (1, 2)] if inner else [1, 2]
    raise LookupError


def _first_member(kind: type[enum.Enum]) -> Any:
    """What JSON has for an enum's first member: its value."""
    value = next((member.value for member in kind), None)
    if not isinstance(value, str | int):
        raise LookupError
    return value
