"""`swell deploy`: put an app on the server, to stay."""

from __future__ import annotations

import inspect
import json
import os
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import progress, table

if TYPE_CHECKING:
    from swell.sdk.app import App


@click.command()
@click.argument("reference", metavar="FILE[::APP]")
@click.option("--name", metavar="NAME", help="Deploy under this name instead of the app's own.")
@options.namespace
@options.home
def deploy(reference: str, name: str | None, namespace: str, home: str | None) -> None:
    """Deploy the app in FILE (a path, or a module's name). All of it is there afterwards, or nothing has changed."""
    from swell.sdk import load, run
    from swell.sdk.bridge import drive

    if home is not None:
        # Not only for us: the user's own code may look up deployed apps while it is imported.
        os.environ["SWELL_HOME"] = home
    with progress(f"Deploying {reference}") as tell:
        app = load.app(reference)
        urls = drive(run.deploy(app, name=name, namespace=namespace, progress=tell))
    click.echo(table(("WORKLOAD", "URL"), sorted(urls.items())))
    click.echo(f"\nTry: {_try(app, urls)}")


def _try(app: App, urls: Mapping[str, str]) -> str:
    """One line to paste, for the first that can be called."""
    for name, url in urls.items():
        if "/call/" in url:
            return shlex.join(["curl", url, *_body(_raw(app, name))])
    name, url = next(iter(urls.items()))
    verb = _verb(app, name)
    return shlex.join(["curl", *(["-X", verb] if verb != "GET" else []), url])


def _verb(app: App, name: str) -> str:
    """The HTTP method that a web endpoint takes."""
    workload, _, method = name.partition(".")
    members = app.declared[workload].members()
    web = (members[method] if method else next(iter(members.values())))[1].web
    return web.http_method.upper() if web is not None and web.kind == "endpoint" else "GET"


def _raw(app: App, name: str) -> Callable[..., Any]:
    """The user's code behind a function or "Class.method"."""
    workload, _, method = name.partition(".")
    found = app.declared[workload].raw
    raw: Callable[..., Any] = inspect.getattr_static(found, method) if method else found
    return getattr(raw, "__swell_raw__", raw)


def _body(raw: Callable[..., Any]) -> list[str]:
    """curl's words for arguments of the right kinds."""
    parameters = [p for p in inspect.signature(raw).parameters.values() if p.name != "self"]
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if [str(getattr(p.annotation, "__name__", p.annotation)) for p in needed] == ["bytes"]:
        return ["-H", "Content-Type: application/octet-stream", "--data-binary", "@FILE"]
    return [
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps({p.name: _sample(p) for p in needed}, ensure_ascii=False),
    ]


def _sample(parameter: inspect.Parameter) -> Any:
    kind = str(getattr(parameter.annotation, "__name__", parameter.annotation))
    return {"str": "…", "int": 1, "float": 1.0, "bool": True, "list": [], "dict": {}}.get(kind.partition("[")[0])
