"""A real HTTP server on loopback that speaks docs/wire.md as far as a client can see, with functions that run in it."""

from __future__ import annotations

import base64
import inspect
import math
import pickle
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from sdk.queued import Many as Many
from sdk.queued import Queued as Queued
from swell.model.owner import Owner
from swell.model.workload import App
from swell.wire import api, call_rows, http

KEY = "sk-test"
STOPPED = "stopped: nobody needed it any longer"


class Server:
    """What is deployed, what was asked, and the functions that answer calls by their name."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        self.functions = functions
        self.blobs: dict[str, bytes] = {}
        self.apps: dict[str, Any] = {}
        self.stopped: list[str] = []
        self.calls: list[str] = []
        self.authorizations: list[str] = []
        self.deploy_error: api.DeployLine | None = None
        self.lookups = 0
        self.control_answers = threading.Event()
        self.control_answers.set()
        self.left = threading.Event()
        """A caller went away in the middle of an answer."""
        self.url = ""
        self.log_errors: list[tuple[int, str]] = []
        """How those who ask for logs are answered first."""
        self.owners: queue.Queue[Owner] = queue.Queue()
        """Those that said that they are there."""
        self.owner_answers: list[tuple[int, float]] = []
        """With which status they are answered, and after which time they are to say so again; then never."""
        self.held = 0
        """Calls still to be told that they waited for too long."""
        self.limited = 0
        """Who ask what is deployed and are still to be told that they ask too often."""
        self.queued: dict[str, Queued] = {}
        """Calls in the queue, by their ids."""
        self.how: list[dict[str, str]] = []
        """The headers of requests that put calls into the queue."""
        self.body_max = math.inf
        """Bytes that a request for calls may have."""
        self.jobs: set[str] = set()
        """Functions that several replicas work on: they are called by the queue alone."""
        self.groups: dict[str, Many] = {}
        """Calls that are in the queue together."""
        self.accepts = 0
        """So many inputs at most are accepted at a time; 0: all."""
        self.unsure = 0
        """Who send calls to the queue, or ask for what is in it, and are still to be told that control went away."""
        self.busy = 0
        """Who wait for what is in the queue, and are still to be told that too many do."""
        self.silent = threading.Event()
        """Who ask for what is in the queue are answered only once this is set, where `silences` says so."""
        self.silences = 0
        self.older = False
        """It was there before calls were told of, and taken in, many at a time: it tells the ends of one, and a group
        without the ids of its calls."""
        self.refused = 0
        """So often it was asked for what it is too old for."""
        self.waits_s: list[float] = []
        """How long those who asked for it wanted to wait."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    @property
    def state(self) -> Server:
        return self.server.state

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/healthz":
            self.answer(200, b"ok", "text/plain")
        elif not self.allowed():
            return
        elif path == "/api/health":
            self.answer(200, b'{"ok": true}')
        elif path == "/api/apps" and self.state.limited:
            self.state.limited -= 1
            self.fail(429, "rate_limited", "Requests of the key a come faster than they may.", {"retry-after": "0"})
        elif path == "/api/apps":
            self.state.lookups += 1
            self.state.control_answers.wait(30)
            self.answer(200, msgspec.json.encode([self.row(app) for app in self.state.apps.values()]))
        elif path.startswith("/calls/groups/"):
            self.told_many(path, query)
        elif path.startswith("/calls/"):
            self.state.waits_s.append(float(query.get("wait_s", ["0"])[0]))
            self.told(path.split("/")[2], path.endswith("/result"))
        elif path == "/api/logs" and self.state.log_errors:
            self.fail(*self.state.log_errors.pop(0), "not now")
        elif path == "/api/logs":
            rows = [api.LogRow(1.0, "p", "r1-1", "q1", "out", f"{query['app'][0]} says {n}") for n in range(3)]
            rows.append(api.LogRow(1.0, "p", "r1-1", "", "sys", STOPPED))
            self.chunks(200, "application/x-ndjson", [msgspec.json.encode(row) + b"\n" for row in rows])
        else:
            self.fail(404, "unknown_path", f"nothing at {path}")

    def row(self, app: App) -> api.AppRow:
        workloads = []
        for workload in app.workloads:
            revision = next(one for one in app.revisions if one.id == workload.revision)
            methods = revision.entry.methods
            workloads.append(
                api.WorkloadRow(
                    name=workload.name,
                    revision=workload.revision,
                    kind=revision.entry.kind,
                    methods=tuple(method.name for method in methods),
                    url=f"{self.state.url}/web/{workload.name}/",
                    ready=None,
                    live=None,
                    held=0,
                    in_flight=0,
                    generators=tuple(method.name for method in methods if method.generator),
                    retrying=revision.retrying,
                )
            )
        return api.AppRow(app.namespace, app.name, 0.0, app.owner is not None, app.source, tuple(workloads))

    def do_HEAD(self) -> None:
        self.begin(204 if self.path.rsplit("/", 1)[1] in self.state.blobs else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        if self.path == "/api/owners":
            self.state.owners.put(msgspec.json.decode(self.body(), type=Owner))
            status, again_s = self.state.owner_answers.pop(0) if self.state.owner_answers else (200, 0.0)
            self.answer(status, msgspec.json.encode(api.Heard(again_s)))
            return
        self.state.blobs[urlsplit(self.path).path.rsplit("/", 1)[1]] = self.body()
        self.answer(204, b"")

    def do_DELETE(self) -> None:
        if self.path.startswith("/calls/groups/"):
            group = self.state.groups.get(self.path.split("/")[3])
            if self.went_away():
                return
            if group is None:
                self.fail(404, "unknown_call", "There is no such group.")
                return
            with group.changed:
                group.cancelled = True
                group.changed.notify_all()
            self.answer(204, b"")
            return
        if self.path.startswith("/calls/"):
            call = self.state.queued[self.path.split("/")[2]]
            call.state = "cancelled" if call.state == "queued" else call.state
            self.answer(200, call.row)
            return
        name = self.path.removeprefix("/api/apps/")
        if self.state.apps.pop(name, None) is None:
            self.fail(404, "unknown_app", f"no app {name}")
        else:
            self.state.stopped.append(name)
            self.answer(204, b"")

    def do_POST(self) -> None:
        body = self.body()
        # As on loopback: calls need no key.
        keyless = self.path.startswith("/call/") and "authorization" not in self.headers
        if not keyless and not self.allowed():
            return
        if self.path == "/api/apps":
            app = msgspec.json.decode(body, type=api.Deploy).app
            lines = [api.DeployLine("progress", "building"), self.state.deploy_error]
            if self.state.deploy_error is None:
                assert all(revision.bundle in self.state.blobs for revision in app.revisions)
                self.state.apps[app.key] = app
                urls = tuple((w.name, f"{self.state.url}/call/{app.name}/{w.name}") for w in app.workloads)
                lines[1] = api.DeployLine("done", urls=urls)
            self.chunks(200, "application/x-ndjson", [msgspec.json.encode(line) + b"\n" for line in lines if line])
        elif self.path.startswith("/calls/ends") and self.state.older:
            self.state.refused += 1
            self.fail(404, "unknown_path", "Calls are POST /call/{app}/{function}.")
        elif self.path.startswith("/calls/ends"):
            self.told_ends(parse_qs(urlsplit(self.path).query), body)
        else:
            target = self.path.removeprefix("/call/")
            if len(body) > self.state.body_max:
                self.fail(413, "body_too_large", f"A body may have {self.state.body_max} bytes.")
                return
            if target.rsplit("/", 1)[1] in self.state.jobs and self.headers.get("swell-async") != "true":
                self.fail(400, "is_job", "It waits in the queue.")
                return
            (self.queue if self.headers.get("swell-async") == "true" else self.call)(target, body)

    def told(self, id: str, result: bool) -> None:
        """What became of a call in the queue."""
        call = self.state.queued.get(id)
        if self.state.silences:
            self.state.silences -= 1
            self.state.silent.wait(60)
        if self.went_away():
            return
        if self.state.busy:
            self.state.busy -= 1
            self.fail(503, "busy", "1000 requests wait for the ends of calls already.")
        elif call is None and (end := self.ended_of_group(id)) is not None:
            self.answer(end.status, end.body, end.content_type, {http.CALL_STATE: end.state})
        elif call is None:
            self.fail(404, "unknown_call", f"There is no call {id}.")
        elif call.state in ("cancelled", "failed"):
            body = http.error_body(call.code, "That is how it ended.", id)
            self.answer(409, body, headers={http.CALL_STATE: call.state})
        elif not result or not call.may_run:
            self.answer(202 if result else 200, call.row, headers={http.CALL_STATE: call.state})
        else:
            call.state = "done"
            self.call(call.target, call.body, {http.CALL_STATE: "done"})

    def told_ends(self, query: dict[str, list[str]], body: bytes) -> None:
        """What has ended of calls in the queue."""
        wait_s = float(query["wait_s"][0])
        self.state.waits_s.append(wait_s)
        asked = msgspec.json.decode(body, type=call_rows.AskedEnds).ids
        assert 1 <= int(query["least"][0]) <= len(asked) <= call_rows.ASKED_MAX
        if self.state.silences:
            self.state.silences -= 1
            self.state.silent.wait(60)
        if self.went_away():
            return
        if self.state.busy:
            self.state.busy -= 1
            self.fail(503, "busy", "1000 requests wait for the ends of calls already.")
            return
        until = time.monotonic() + wait_s
        while True:
            found = {id: self.end_of(id) for id in asked}
            ends = tuple(end for end in found.values() if isinstance(end, call_rows.EndRow))
            unknown = tuple(id for id, end in found.items() if end is None)
            # A single call that may not run yet is told at once.
            if ends or unknown or not any(end is False for end in found.values()) or time.monotonic() >= until:
                break
            time.sleep(0.001)
        self.answer(200, msgspec.msgpack.encode(call_rows.EndsPage(ends, unknown)), http.MSGPACK)

    def end_of(self, id: str) -> call_rows.EndRow | bool | None:
        """None: there is no such call; True: a single one that has not ended, False: one of a group."""
        call = self.state.queued.get(id)
        if call is not None:
            if call.state in ("cancelled", "failed"):
                body = http.error_body(call.code, "That is how it ended.", id)
                return call_rows.EndRow(id, call.state, 409, http.JSON, body)  # type: ignore[arg-type]
            return self.ran(call) if call.may_run else True
        group, index = self.member(id)
        if group is None:
            return None
        with group.changed:
            end = next((end for end in group.ends if end.index == index), None)
        return False if end is None else call_rows.EndRow(id, end.state, end.status, end.content_type, end.body)

    def member(self, id: str) -> tuple[Many | None, int]:
        """Which input of which group it is for: of any, where it names none."""
        name, _, index = id.removeprefix("fc-").rpartition("-")
        for key, group in [*self.state.groups.items()]:
            if index.isdecimal() and int(index) in group.inputs and name in ("", key.removeprefix("fg-")):
                return group, int(index)
        return None, 0

    def ran(self, call: Queued) -> call_rows.EndRow:
        self.state.calls.append(call.target)
        call.state = "done"
        args, kwargs = pickle.loads(call.body)
        try:
            result = self.state.functions[call.target.rsplit("/", 1)[1]](*args, **kwargs)
        except Exception as error:
            return call_rows.EndRow(call.id, "failed", 500, http.JSON, failure(error))
        return call_rows.EndRow(call.id, "done", 200, http.PICKLE, pickle.dumps(result))

    def queue(self, target: str, body: bytes) -> None:
        """Keep a call for later, once for each key."""
        self.state.how.append({name.lower(): value for name, value in self.headers.items()})
        if self.headers.get("swell-group"):
            self.queue_many(target, body)
            return
        key = self.headers["idempotency-key"]
        kept = next((call for call in self.state.queued.values() if call.key == key), None)
        if kept is None:
            kept = Queued(f"fc-{len(self.state.queued) + 1:026}", target, key, body)
            self.state.queued[kept.id] = kept
        if not self.went_away():
            self.answer(202, msgspec.json.encode({"id": kept.id}))

    def queue_many(self, target: str, body: bytes) -> None:
        group = self.state.groups.setdefault(self.headers["swell-group"], Many())
        group.keep_s = self.headers.get("swell-keep", "")
        assert self.headers["content-type"] == http.FRAMES
        assert self.headers["swell-item-type"] == http.PICKLE
        first, at, inputs = int(self.headers["swell-first"]), 0, []
        while at < len(body):
            end = at + 4 + int.from_bytes(body[at : at + 4], "big")
            inputs.append(body[at + 5 : end])
            at = end
        # Where control went away all were accepted, and who sends them again is told of fewer.
        inputs = inputs[: None if self.state.unsure else self.state.accepts or None]
        for index, each in enumerate(inputs, first):
            if index not in group.inputs:
                group.inputs[index] = each
                group.taken.append(index)
                group.workers.submit(self.work, group, index, target, each)
        if not self.went_away():
            name = self.headers["swell-group"].removeprefix("fg-")
            ids = [f"fc-{name}-{index}" for index in range(first, first + len(inputs))]
            told = {} if self.state.older else {"ids": ids}
            self.answer(202, msgspec.json.encode({"group": "", "accepted": len(inputs), **told}))

    def work(self, group: Many, index: int, target: str, body: bytes) -> None:
        if group.cancelled:
            return
        self.state.calls.append(target)
        args, kwargs = pickle.loads(body)
        try:
            result = self.state.functions[target.rsplit("/", 1)[1]](*args, **kwargs)
        except Exception as error:
            group.end(index, 500, http.JSON, failure(error))
        else:
            group.end(index, 200, http.PICKLE, pickle.dumps(result))

    def told_many(self, path: str, query: dict[str, list[str]]) -> None:
        group = self.state.groups.get(path.split("/")[3])
        if self.went_away():
            return
        if group is None:
            self.fail(404, "unknown_call", "There is no such group.")
        elif "/inputs/" in path:
            number = int(path.rpartition("/")[2])
            id = f"fc-{path.split('/')[3].removeprefix('fg-')}-{number}"
            known = number in group.inputs
            self.answer(200, Queued(id, "a/f", "", b"").row) if known else self.fail(404, "unknown_call", "None.")
        elif not path.endswith("/ends"):
            row = call_rows.GroupRow(path.split("/")[3], len(group.inputs), group.open)
            self.answer(200, msgspec.json.encode(row))
        else:
            after, wait_s = int(query["after"][0]), float(query["wait_s"][0])
            had = int(query.get("had", ["0"])[0])
            assert had <= after
            group.forget(had)
            self.answer(200, msgspec.msgpack.encode(group.page(after, 1000, wait_s)), http.MSGPACK)

    def ended_of_group(self, id: str) -> call_rows.GroupEndRow | None:
        """Once it has."""
        group, index = self.member(id)
        if group is None:
            return None
        with group.changed:
            group.changed.wait_for(lambda: any(end.index == index for end in group.ends), 60)
            return next(end for end in group.ends if end.index == index)

    def went_away(self) -> bool:
        if not self.state.unsure:
            return False
        self.state.unsure -= 1
        self.fail(502, "control_down", "Control went away.")
        return True

    def call(self, target: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.state.calls.append(target)
        function = self.state.functions.get(target.rsplit("/", 1)[1])
        if function is None:
            self.fail(404, "unknown_function", f"no function {target}")
            return
        args, kwargs = pickle.loads(body)
        accept = [word.strip() for word in self.headers.get("accept", "").split(",")]
        if self.state.held:
            self.state.held -= 1
            self.fail(503, "held_too_long", "No replica could take it.", {"retry-after": "0"})
            return
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.answer(500, failure(error), headers=more)
            return
        if not inspect.isgenerator(result):
            self.answer(200, pickle.dumps(result), http.PICKLE, more)
        elif http.FRAMES in accept:
            assert accept[1] == http.PICKLE
            self.chunks(200, http.FRAMES, frames(result), {"Swell-Item-Type": http.PICKLE})
        else:
            self.chunks(200, http.SSE, [b"data: 1\n\n"])

    def allowed(self) -> bool:
        self.state.authorizations.append(self.headers.get("authorization", ""))
        if self.state.authorizations[-1] != f"Bearer {KEY}":
            self.fail(401, "bad_key", "The key is not this server's.")
            return False
        return True

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def fail(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.answer(status, http.error_body(code, message, "q7"), headers=headers)

    def begin(self, status: int) -> None:
        self.send_response(status)
        self.send_header(http.REQUEST_ID, "q7")

    def answer(self, status: int, body: bytes, kind: str = http.JSON, headers: dict[str, str] | None = None) -> None:
        self.begin(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunks(self, status: int, kind: str, pieces: Any, headers: dict[str, str] | None = None) -> None:
        self.begin(status)
        for name, value in {"content-type": kind, "transfer-encoding": "chunked", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.state.left.set()
            self.close_connection = True


def failure(error: Exception) -> bytes:
    """The body of an error that user code raised."""
    pickled = base64.b64encode(pickle.dumps(error)).decode()
    told = f"{type(error).__name__}: {error}"
    return http.error_body("exception", told, "q7", exception=pickled, traceback=traceback.format_exc())


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return (1 + len(payload)).to_bytes(4, "big") + kind + payload


def frames(items: Iterator[Any]) -> Iterator[bytes]:
    try:
        for item in items:
            yield frame(b"i", pickle.dumps(item))
        yield frame(b"z")
    except Exception as error:
        yield frame(b"e", failure(error))


class Listening(ThreadingHTTPServer):
    """Threads that may be left behind, a queue for many callers at once, and no words about those who leave."""

    daemon_threads = True
    request_queue_size = 1024
    state: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(functions: dict[str, Callable[..., Any]]) -> Iterator[Server]:
    """A server that runs until the end of the block."""
    state = Server(functions)
    listening = Listening(("127.0.0.1", 0), Handler)
    listening.state = state
    state.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        for group in state.groups.values():
            group.cancelled = True
            group.workers.shutdown(wait=False)
        listening.shutdown()
        listening.server_close()
        thread.join()
