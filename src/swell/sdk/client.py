"""What can be asked of a server? Its control API and its calls, for plain callers and (`.aio`) for asyncio."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from swell.model.call import State
from swell.model.errors import SwellError
from swell.model.hosts import stays_here
from swell.model.owner import Owner
from swell.model.traffic import Traffic
from swell.model.workload import DEFAULT_NAMESPACE, App, Revision, Scaling
from swell.sdk import protocol, shadow
from swell.sdk.bridge import operation, stream_operation
from swell.sdk.protocol import Answer, Request
from swell.wire import http, settings
from swell.wire.api import (
    AppRow,
    AppSecret,
    AppSecretKept,
    Deploy,
    DeployLine,
    Heard,
    KeyRow,
    KeyUsage,
    LimitRow,
    LogRow,
    MadeKey,
    NewKey,
    NewSecret,
    NewValues,
    NewVariant,
    PoolUsage,
    ReplicaRow,
    RequestRow,
    Rescale,
    Rollback,
    SecretRow,
    Strategy,
    VariantRow,
    VersionRow,
    Why,
)
from swell.wire.call_rows import CallRow, Retried
from swell.wire.nodes import NodeRow

if TYPE_CHECKING:
    from swell.sdk.transport import Transport

T = TypeVar("T")


class Client:
    """One server, by the URL of its gateway. Nothing is sent before it is used."""

    def __init__(self, url: str, key: str = "", home: str = "", supposed: bool = False) -> None:
        """`home`: the state directory whose server it is; `supposed`: should be, but nothing says that it
        is, which is made sure of before the first call."""
        self.url = url.rstrip("/")
        self.key = key
        self.home = home
        self.supposed = supposed
        self.variants: dict[Any, VariantRow] = {}
        """What was asked for with other options, by whoever asked for it (`chosen.py`)."""
        self.together: dict[type[Any], Any] = {}
        """What all that use it at once do in common, by its kind (`spawning.py`, `waiting.py`)."""
        self.older = False
        """The server has shown that it is one that takes single calls, and tells of them, one by one alone."""

    @classmethod
    def from_settings(cls, chosen: settings.Settings | None = None) -> Client:
        """The server that settings name, with the key from SWELL_KEY or from the state directory."""
        chosen = settings.load() if chosen is None else chosen
        told = chosen.url or chosen.paths.server_url() or os.environ.get("SWELL_KEY")
        return cls(chosen.base_url, read_key(chosen), chosen.home, not told)

    @cached_property
    def transport(self) -> Transport:
        """Connections to the server."""
        # Parts of the HTTP client are imported with the first request, on another thread: too late to say it well.
        shadowing = shadow.found()
        if shadowing is not None:
            raise shadowing
        try:
            from swell.sdk.transport import Transport
        except ImportError as error:
            raise shadow.found() or SwellError(
                "no_http_client",
                f"Calls need the package httpx2, and {error.name} is not installed here: add 'httpx2>=2.10,<3' "
                "(and, with --no-deps, what it depends on) to the image's packages.",
            ) from None
        return Transport(self.url, self.key, self.home, self.supposed)

    # -- control ---------------------------------------------------------------------------------

    async def _ask(self, request: Request, kind: type[T], within_s: float | None = None) -> T:
        answer = await self.transport.send(request, within_s=within_s)
        if not answer.ok:
            raise protocol.failure(answer)
        return msgspec.json.decode(answer.body or b"null", type=kind)

    @operation
    async def serving(self) -> bool:
        """Does the gateway answer?"""
        try:
            return (await self.transport.send(Request("GET", "/healthz"))).ok
        except SwellError as error:
            if error.code in ("no_server", "connection_lost"):
                return False
            raise

    @operation
    async def has_blob(self, digest: str) -> bool:
        """Has a bundle of this digest been put before?"""
        answer = await self.transport.send(Request("HEAD", f"/api/blobs/{digest}"))
        return answer.ok

    @operation
    async def put_blob(self, digest: str, data: bytes, namespace: str = DEFAULT_NAMESPACE, app: str = "") -> None:
        """Store a bundle. Where the key may deploy nothing, the error names the scope for that app."""
        headers = {"content-type": http.OCTETS}
        path = f"/api/blobs/{digest}?{urlencode({'namespace': namespace, 'app': app})}"
        await self._ask(Request("PUT", path, headers, data), type(None))

    @operation
    async def deploy(
        self, app: App, progress: Callable[[str], None] | None = None, tag: str = "", strategy: Strategy = "rolling"
    ) -> DeployLine:
        """Put an app in place as a whole; returns its URLs and what changed. An error changes nothing."""
        return await self._deploy("/api/apps", Deploy(app, tag, strategy), progress)

    @operation
    async def rollback(
        self,
        name: str,
        namespace: str = DEFAULT_NAMESPACE,
        to: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> DeployLine:
        """Deploy an earlier version of an app again, as a new one: number `to`, or (0) the one before."""
        return await self._deploy(f"/api/apps/{namespace}/{name}/rollback", Rollback(to), progress)

    @operation
    async def traffic(
        self,
        name: str,
        asked: Traffic,
        namespace: str = DEFAULT_NAMESPACE,
        progress: Callable[[str], None] | None = None,
    ) -> DeployLine:
        """Have an app's traffic go to several of its versions."""
        return await self._deploy(f"/api/apps/{namespace}/{name}/traffic", asked, progress, "PUT")

    @operation
    async def promote(
        self, name: str, namespace: str = DEFAULT_NAMESPACE, progress: Callable[[str], None] | None = None
    ) -> DeployLine:
        """Give all the traffic to what was made ready beside it."""
        return await self._deploy(f"/api/apps/{namespace}/{name}/promote", None, progress)

    async def _deploy(
        self,
        path: str,
        asked: Deploy | Rollback | Traffic | None,
        progress: Callable[[str], None] | None,
        method: str = "POST",
    ) -> DeployLine:
        request = Request(method, path, {"content-type": http.JSON}, msgspec.json.encode(asked))
        async with aclosing(self.transport.stream(request, _lines_of(DeployLine))) as lines:
            async for line in lines:
                if line.kind == "done":
                    done: DeployLine = line
                    return done
                if line.kind == "error":
                    raise _failed(line)
                if progress is not None:
                    progress(line.message)
        raise SwellError(
            "connection_lost",
            "The server ended before the deploy did; `swell app list` says what is in place.",
            status=502,
        )

    @operation
    async def versions(self, name: str, namespace: str = DEFAULT_NAMESPACE) -> list[VersionRow]:
        """An app's history, the newest version first."""
        return await self._ask(Request("GET", f"/api/apps/{namespace}/{name}/versions"), list[VersionRow])

    @operation
    async def secrets(self, namespace: str = DEFAULT_NAMESPACE) -> list[SecretRow]:
        """The secrets there are, without their values."""
        return await self._ask(Request("GET", f"/api/secrets?{urlencode({'namespace': namespace})}"), list[SecretRow])

    @operation
    async def create_secret(
        self, name: str, values: Mapping[str, str], namespace: str = DEFAULT_NAMESPACE
    ) -> SecretRow:
        """Make a secret of these variables."""
        return await self._put_secret("PUT", _secret(namespace, name), NewSecret(dict(values)), SecretRow)

    @operation
    async def rotate_secret(
        self, name: str, values: Mapping[str, str], unset: Sequence[str] = (), namespace: str = DEFAULT_NAMESPACE
    ) -> SecretRow:
        """Give a secret a new version; variables that are not named are as they were."""
        asked = NewValues(dict(values), tuple(unset))
        return await self._put_secret("POST", _secret(namespace, name), asked, SecretRow)

    @operation
    async def delete_secret(
        self, name: str, version: int = 0, force: bool = False, namespace: str = DEFAULT_NAMESPACE
    ) -> None:
        """Delete a secret, or one version of it."""
        asked = urlencode({"version": version, "force": int(force)})
        await self._ask(Request("DELETE", f"{_secret(namespace, name)}?{asked}"), type(None))

    @operation
    async def keep_secret(self, app: str, values: Mapping[str, str], namespace: str = DEFAULT_NAMESPACE) -> str:
        """Have values kept for an app; returns the name to deploy it with."""
        path = f"/api/secrets/{quote(namespace, safe='')}"
        return (await self._put_secret("POST", path, AppSecret(app, dict(values)), AppSecretKept)).name

    async def _put_secret(self, method: str, path: str, asked: NewSecret | NewValues | AppSecret, kind: type[T]) -> T:
        return await self._ask(Request(method, path, {"content-type": http.JSON}, msgspec.json.encode(asked)), kind)

    @operation
    async def stop(self, name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Take an app away; its replicas finish what they have."""
        await self._ask(Request("DELETE", f"/api/apps/{namespace}/{name}"), type(None))

    @operation
    async def rescale(self, name: str, workload: str, asked: Rescale, namespace: str = DEFAULT_NAMESPACE) -> Scaling:
        """Change how a workload is scaled, until the next deploy; returns all of it."""
        headers, body = {"content-type": http.JSON}, msgspec.json.encode(asked)
        return await self._ask(
            Request("PATCH", f"/api/apps/{namespace}/{name}/workloads/{workload}", headers, body), Scaling
        )

    @operation
    async def revision(self, name: str, workload: str, namespace: str = DEFAULT_NAMESPACE) -> Revision:
        """What a workload's replicas run."""
        return await self._ask(Request("GET", f"/api/apps/{namespace}/{name}/workloads/{workload}"), Revision)

    @operation
    async def vary(self, name: str, workload: str, asked: NewVariant, namespace: str = DEFAULT_NAMESPACE) -> VariantRow:
        """Have a function or class with other parameters and options; returns its name in the path of calls."""
        path = f"/api/apps/{namespace}/{name}/workloads/{workload}/variants"
        body = msgspec.json.encode(asked)
        return await self._ask(Request("POST", path, {"content-type": http.JSON}, body), VariantRow)

    @operation
    async def apps(self, within_s: float | None = None, *, counts: bool = False) -> list[AppRow]:
        """The apps that are deployed. SwellError no_answer when that takes longer than `within_s`.

        With `counts` the server waits a moment for how many replicas there are, where it does not know yet.
        """
        return await self._ask(Request("GET", f"/api/apps?counts={int(counts)}"), list[AppRow], within_s)

    @operation
    async def replicas(self) -> list[ReplicaRow]:
        """Replicas and templates."""
        return await self._ask(Request("GET", "/api/replicas"), list[ReplicaRow])

    @operation
    async def nodes(self) -> list[NodeRow]:
        """What replicas run on, and what is free of it."""
        return await self._ask(Request("GET", "/api/nodes"), list[NodeRow])

    @operation
    async def why(self, request: str) -> Why:
        """Where a request's time and money went."""
        return await self._ask(Request("GET", f"/api/requests/{request}"), Why)

    @operation
    async def requests(self, app: str = "", *, namespace: str = DEFAULT_NAMESPACE, limit: int = 20) -> list[RequestRow]:
        """The newest requests that `why` knows, newest first."""
        asked = urlencode({"app": app, "namespace": namespace, "limit": limit})
        return await self._ask(Request("GET", f"/api/requests?{asked}"), list[RequestRow])

    @operation
    async def calls(
        self,
        app: str = "",
        *,
        namespace: str = DEFAULT_NAMESPACE,
        function: str = "",
        state: State | None = None,
        limit: int = 20,
        before: str = "",
        jobs: bool = False,
    ) -> list[CallRow]:
        """The newest calls in the queue, newest first, or the newest `jobs`; the next page is of those `before` the
        last one's id."""
        which = {"app": app, "namespace": namespace, "function": function, "jobs": "true" if jobs else "false"}
        asked = {**which, "state": state or "", "limit": limit, "before": before}
        return await self._ask(Request("GET", f"/api/calls?{urlencode(asked)}"), list[CallRow])

    @operation
    async def call(self, id: str, wait_s: float = 0.0) -> CallRow:
        """What is known of one, once it has ended or so much time has passed."""
        return await self._ask(Request("GET", f"{_call(id)}?wait_s={wait_s:g}"), CallRow)

    @operation
    async def call_result(self, id: str) -> bytes:
        """Of one that is done."""
        answer = await self.transport.send(Request("GET", f"{_call(id)}/result"))
        if not answer.ok:
            raise protocol.failure(answer)
        return answer.body

    @operation
    async def call_input(self, id: str) -> tuple[str, bytes]:
        """The content type and the bytes of what it is given. SwellError with status 404 where that is not kept."""
        answer = await self.transport.send(Request("GET", f"{_call(id)}/input"))
        if not answer.ok:
            raise protocol.failure(answer)
        return answer.content_type, answer.body

    @operation
    async def retry_call(self, id: str, input: tuple[str, bytes] | None = None) -> CallRow:
        """A dead letter goes back into the queue, with another input (its content type and bytes) where one is
        given."""
        headers, body = ({}, b"") if input is None else ({"content-type": input[0]}, input[1])
        return await self._ask(Request("POST", f"{_call(id)}/retry", headers, body), CallRow)

    @operation
    async def retry_calls(
        self,
        app: str = "",
        *,
        namespace: str = DEFAULT_NAMESPACE,
        function: str = "",
        since: float = 0.0,
        before: str = "",
    ) -> Retried:
        """Of a page of dead letters those go back into the queue that failed since then; which page comes next."""
        which = {"app": app, "namespace": namespace, "function": function, "since": since, "before": before}
        return await self._ask(Request("POST", f"/api/calls/retry?{urlencode(which)}"), Retried)

    @operation
    async def cancel_call(self, id: str) -> CallRow:
        """It is not worked on any more. Of one that has ended nothing changes."""
        return await self._ask(Request("DELETE", _call(id)), CallRow)

    @operation
    async def forget_call(self, id: str) -> None:
        """One that has ended, with all that it has. SwellError with status 409 where it has not."""
        answer = await self.transport.send(Request("POST", f"{_call(id)}/forget"))
        if not answer.ok:
            raise protocol.failure(answer)

    @operation
    async def usage(self, since_s: float = 0.0) -> list[PoolUsage]:
        """Use by pool, of the last `since_s` seconds (0 = all that is kept)."""
        return await self._ask(Request("GET", f"/api/usage?{urlencode({'since_s': since_s})}"), list[PoolUsage])

    @operation
    async def key_usage(self, since_s: float = 0.0) -> list[KeyUsage]:
        """Requests by API key and pool, of the last `since_s` seconds (0 = all that is kept)."""
        return await self._ask(Request("GET", f"/api/usage/keys?{urlencode({'since_s': since_s})}"), list[KeyUsage])

    @operation
    async def limits(self) -> list[LimitRow]:
        """Every limit there is, of the server, of workloads and of keys."""
        return await self._ask(Request("GET", "/api/limits"), list[LimitRow])

    @operation
    async def keys(self) -> list[KeyRow]:
        """The API keys there are, without their secrets."""
        return await self._ask(Request("GET", "/api/keys"), list[KeyRow])

    @operation
    async def make_key(self, asked: NewKey) -> MadeKey:
        """An API key, told this once."""
        body = msgspec.json.encode(asked)
        return await self._ask(Request("POST", "/api/keys", {"content-type": http.JSON}, body), MadeKey)

    @operation
    async def revoke_key(self, named: str) -> KeyRow:
        """Let an API key, named by its id or name, work no longer."""
        return await self._ask(Request("DELETE", f"/api/keys/{quote(named, safe='')}"), KeyRow)

    @stream_operation
    def backup(self, key_files: bool = False) -> AsyncGenerator[bytes, None]:
        """All that the server keeps, piece by piece; with its keys, if that is asked for."""
        return self.transport.stream(Request("GET", f"/api/backup?key_files={int(key_files)}"), protocol.Bytes)

    @stream_operation
    def logs(
        self,
        app: str = "",
        *,
        namespace: str = DEFAULT_NAMESPACE,
        since_s: float = 0.0,
        request: str = "",
        tail: int = 100,
        follow: bool = False,
        live: Callable[[], None] | None = None,
    ) -> AsyncGenerator[LogRow, None]:
        """Lines of output: the last `tail` (-1 = all) of the last `since_s` seconds, and with `follow` what comes.

        `live` is called once, between the lines there were and those that come.
        """
        asked = _logs(app, namespace, since_s, request, tail, follow)
        return self.transport.stream(asked, _lines_of(LogRow, live))

    def follow_logs(
        self, app: str, namespace: str, since: Callable[[], tuple[float, float]], heard: Callable[[LogRow], None]
    ) -> Future[None]:
        """Every line of an app goes to `heard`, on another thread, until the future is cancelled.

        `since` says of how many seconds, or (0: whenever) from which `at` on, each time that they are asked for: anew
        when the connection broke.
        """

        def asked() -> Request:
            since_s, from_at = since()
            return _logs(app, namespace, since_s, "", -1, True, from_at)

        return self.transport.follow(asked, _lines_of(LogRow), heard)

    def present(self, owner: Owner) -> Future[None]:
        """The server is told that a program is there, to which something on it belongs, on another thread, as often as
        it wants to hear that, until the future is cancelled."""
        asked = Request("PUT", "/api/owners", {"content-type": http.JSON}, msgspec.json.encode(owner))

        def again_s(answer: Answer) -> float:
            # One that refuses is older than that, or will not think otherwise later.
            return msgspec.json.decode(answer.body, type=Heard).again_s if answer.ok else 0.0

        return self.transport.repeat(asked, again_s)


def _call(id: str) -> str:
    return f"/api/calls/{quote(id, safe='')}"


def _secret(namespace: str, name: str) -> str:
    return f"/api/secrets/{quote(namespace, safe='')}/{quote(name, safe='')}"


def _logs(
    app: str, namespace: str, since_s: float, request: str, tail: int, follow: bool, from_at: float = 0.0
) -> Request:
    asked = {"app": app, "namespace": namespace, "since_s": since_s, "request": request, "tail": tail}
    if from_at:
        asked["from_at"] = from_at
    return Request("GET", f"/api/logs?{urlencode({**asked, 'follow': int(follow)})}")


def _lines_of(kind: type[Any], empty: Callable[[], None] | None = None) -> Callable[[Answer], protocol.Lines]:
    def reader(head: Answer) -> protocol.Lines:
        if not head.ok:
            raise protocol.failure(head)
        return protocol.Lines(kind, empty)

    return reader


def read_key(chosen: settings.Settings) -> str:
    """The API key: SWELL_KEY, else the file the server made; empty where there is neither.

    The file's key is as good as a shell here, and is never sent to another machine's server.
    """
    key = os.environ.get("SWELL_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SwellError("bad_key", "SWELL_KEY holds what no key does: set it to the text of the server's file `key`.")
    if key:
        return key
    if chosen.url and not stays_here(chosen.url) and chosen.base_url != chosen.paths.server_url():
        raise SwellError(
            "no_key",
            f"Whether the server at {chosen.base_url} is the one on {chosen.home} cannot be told, and its key is sent "
            "to no other. Set SWELL_KEY to that server's own key (the file `key` in its state directory).",
            status=401,
        )
    try:
        return chosen.paths.key.read_text().strip()
    except OSError:
        return ""


def _failed(line: DeployLine) -> SwellError:
    error = SwellError(line.code or "deploy_failed", line.message, detail=line.detail)
    if line.detail:
        error.add_note(line.detail)
    return error
