"""What does a replica do with its life? Start-up hooks, listen, say Ready, serve, drain, exit hooks."""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import functools
import inspect
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from swell.model.ends import TERMINATED
from swell.model.errors import SwellError
from swell.model.variant import base_of
from swell.model.workload import Method, model_name, revision_of, workload_of
from swell.runtime import load, output
from swell.runtime.asgi import AsgiApp
from swell.runtime.batched import Batched, Batches
from swell.runtime.call import Callee
from swell.runtime.channel import Channel
from swell.runtime.endpoint import Endpoint, EndpointCallee, fastapi_app, has_fastapi
from swell.runtime.gang import Meeting
from swell.runtime.hooks import around, hooks_of
from swell.runtime.http import Connection
from swell.runtime.interpreter import switch_soon
from swell.runtime.leaving import leave
from swell.runtime.listener import Listener, end_children
from swell.runtime.load import Hook, Program, enter_error, report_failure
from swell.runtime.progress import Progress
from swell.runtime.request import Head, Request
from swell.runtime.service import Service
from swell.runtime.shared import ReplicaContext
from swell.runtime.slots import Slots
from swell.runtime.tracebacks import exit_error, user_traceback
from swell.runtime.worker import Workers
from swell.wire import context
from swell.wire.child import Failed, ForkStarted, Launch, Left, Ready, Reattach, Served, Stuck, Terminated, VolumeDone

if TYPE_CHECKING:
    from swell.runtime.volumes import Asking

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

BACKLOG = 128
STUCK_STATUS = 75
"""Exit status of a replica that ended because its input could not be stopped."""
SAY_S = 0.05
"""How long a replica that ends so has to give back what it had not begun."""
LATE_S = 0.1
"""How long an empty draining replica still tells late requests that it is busy, before it closes its door."""
LEFT_S = 1.0
"""How long it waits then for gateways to close what they keep to it: they do once they hear that it ends."""
_LOOK_S = 0.02


def run(
    program: Program,
    launch: Launch,
    channel: socket.socket,
    listener: socket.socket | None,
    started: float,
    timings: list[tuple[str, float]],
) -> None:
    """Be the replica until it is over: drained, orphaned, served (single use), or failed to start.

    `started` is the monotonic time its start-up began, and `timings` the phases (name, ms) so far. Has to
    be called on the main thread of a process without an event loop: a fresh one, or a fork of a template.
    The caller ends the process with os._exit, since what user code left running must not be waited for.
    """
    marked = output.install()
    if os.getpid() != program.pid:
        _reseed()
    load.enter_replica(launch)
    switch_soon(True)
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    replica = Replica(program, launch, channel, loop, marked)
    try:
        loop.run_until_complete(replica.live(listener, started, timings))
    finally:
        for stream in marked:
            stream.end()


class Replica:
    """One replica's parts, and the order of its life."""

    def __init__(
        self,
        program: Program,
        launch: Launch,
        channel: socket.socket,
        loop: asyncio.AbstractEventLoop,
        marked: tuple[output.MarkedText, output.MarkedText],
    ) -> None:
        revision = launch.revision
        self._program = program
        self._launch = launch
        self._ready = False
        self._over: asyncio.Future[None] = loop.create_future()
        self._used = False
        self._meeting = Meeting() if revision.gang is not None else None
        """Of a member of a gang."""
        self._leaving: Stuck | None = None
        """What cannot be stopped: it ends, whatever becomes of that."""
        self._channel = Channel(channel, launch.runner_socket, launch.orphan_s, self._reattach, self._ordered)
        self._told = ""
        """Why it is to end, as its runner says; empty while it does not."""
        slots = Slots(revision.max_inputs, launch.cancel_grace_s, loop, self._stuck)
        self._context = ReplicaContext(
            *(loop, Workers(revision.max_inputs, loop), slots, contextvars.copy_context(), marked),
            patience_s=revision.timeout_s if revision.gives_time else 0.0,
        )
        self._progress = Progress(
            loop, self._channel.send, lambda: [w.request for w in slots.running], slots.look_again
        )
        context.reports[:] = [self._progress.hear]
        self._service = Service(self._context, self._use if revision.single_use else None)
        self._connections: set[Connection] = set()
        self._heads: dict[tuple[bytes, bytes], Head] = {}
        self._server: asyncio.AbstractServer | None = None
        """Kept: uvloop closes the listening socket of a server that is garbage-collected."""
        self._apps: list[AsgiApp] = []
        self._batches: Batches | None = None
        self._foreign = False
        self._asking: Asking | None = None
        self._channel.answered = self._answered
        keeping = self._context.keeping
        self._channel.forget = lambda message: keeping.give_up() if message is None else keeping.forget(message.calls)
        if launch.mounts:
            self._mind_volumes(loop)

    def _mind_volumes(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let code in here ask for a commit or a newer version of what is mounted."""
        from swell.runtime.volumes import Asking

        self._asking = Asking(loop, self._channel.send)
        context.volumes[:] = [self._asking.ask]

    def _answered(self, message: VolumeDone | None) -> None:
        """What became of what was asked about volumes; None: there is another runner."""
        if message is None:
            self._progress.say_again()
            if self._leaving is not None:
                self._channel.send(self._leaving)
            elif self._used and not self._context.slots.running:
                self._channel.send(Served())
            elif stuck := self._context.slots.stuck:
                self._channel.send(Stuck(requests=stuck, ending=False))
        if self._asking is not None:
            self._asking.again() if message is None else self._asking.done(message)

    async def live(self, listener: socket.socket | None, started: float, timings: list[tuple[str, float]]) -> None:
        """From the first hook to the last."""
        await self._channel.listen()
        if os.getpid() != self._program.pid:
            self._channel.send(ForkStarted())
        self._mind_sigterm()
        starting = asyncio.ensure_future(self._start(listener, timings))
        await asyncio.wait({starting, self._over}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await self._end_children()
            return
        error = starting.exception()
        if error is not None:
            await self._end_children()
            self._fail(error)
            return
        self._ready = True
        spent = sum(ms for _, ms in timings)
        timings.append(("listen", max(0.0, (time.monotonic() - started) * 1000 - spent)))
        self._channel.send(Ready(os.getpid(), tuple(timings), keeps=True, port=self._port))
        await self._over
        await self._drain()

    @property
    def _port(self) -> int:
        """Of a member of a gang, at which its code will listen."""
        return self._meeting.port if self._meeting is not None else 0

    def _mind_sigterm(self) -> None:
        """It ends this process in order, and what runs hears of it."""
        # What a job set when it was imported. A service ends as it is told to, whatever it had set for other places.
        before = signal.getsignal(signal.SIGTERM) if self._meeting is not None else None

        def told() -> None:
            # First: what comes of its inputs is not their fault.
            self._channel.send(Terminated())
            context.stopping.set()
            self._end(TERMINATED)
            if callable(before):
                # That it ends is under way, in order: leaving the process would cut what it has to keep.
                with suppress(SystemExit, KeyboardInterrupt):
                    before(signal.SIGTERM, None)

        self._context.loop.add_signal_handler(signal.SIGTERM, told)

    # -- start --------------------------------------------------------------------------------

    async def _start(self, listener: socket.socket | None, timings: list[tuple[str, float]]) -> None:
        began = time.monotonic()
        for hook in self._program.enter(self._program.snapped):
            try:
                await self._run_hook(hook)
            except Exception as error:
                raise enter_error(_name(hook), error) from error
        timings.append(("enter", (time.monotonic() - began) * 1000))
        for method in self._program.entry.methods:
            await self._offer(method)
        if listener is not None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(
                lambda: Connection(self._service.accept, self._connections, self._heads), sock=listener, backlog=BACKLOG
            )

    async def _run_hook(self, hook: Hook) -> Any:
        """An async hook on the loop; any other in the worker thread, so that what it makes lives where
        methods run."""
        try:
            if not inspect.iscoroutinefunction(hook):
                return await self._context.workers.call(hook, keep_context=True)
            return await self._context.loop.create_task(_contained(hook()), context=self._context.variables)
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            # As it is it would end what runs the hooks, with all that comes behind this one: a CancelledError of a
            # task that the hook cancelled and waited for.
            raise RuntimeError(f"it let {type(error).__qualname__} out") from error

    async def _offer(self, method: Method) -> None:
        """Make one method callable, in the way it is exposed."""
        if method.batch is not None:
            self._offer_batched(method)
            return
        function = around(self._program.method(method.name), method.generator)
        web = method.web
        if method.openai is not None:
            from swell.runtime import openai

            self._service.add_call(openai.Model(method, function, self._program.arguments(method.name)), "v1")
        if method.tensors is not None:
            self._offer_model(method, function)
        elif web is None:
            self._service.add_call(Callee(method, function, self._program.arguments(method.name)))
        elif web.kind == "endpoint" and not has_fastapi():
            callee = EndpointCallee(method, function, self._program.arguments(method.name))
            self._service.add_web(method.name, Endpoint(self._context, callee, web))
        elif web.kind == "endpoint":
            callee = EndpointCallee(method, function, self._program.arguments(method.name))
            await self._add_app(method.name, fastapi_app(self._context, callee, web))
        elif web.kind == "asgi":
            await self._add_app(method.name, await self._made("ASGI", method.name, function))
        elif web.kind == "wsgi":
            from swell.runtime.wsgi import WsgiApp

            app = await self._made("WSGI", method.name, function)
            self._service.add_web(method.name, WsgiApp(self._context, app))
        else:
            assert web.port is not None
            self._foreign = True
            run = functools.partial(self._run_hook, function)
            await Listener(method.name, web.port, web.startup_timeout_s).start(run, self._foreign_ended)

    async def _made(self, kind: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The application that the program's function makes."""
        try:
            app = await self._run_hook(function)
        except Exception as error:
            raise enter_error(name, error) from error
        if not callable(app):
            made = type(app).__qualname__
            raise SwellError("bad_entry", f"{name} returned an object of type {made}: that is no {kind} app.")
        return app  # type: ignore[no-any-return]

    def _offer_model(self, method: Method, function: Callable[..., Any]) -> None:
        """Make it callable as any function is, and by the Open Inference Protocol."""
        from swell.runtime.inference import Model, TakesArrays

        arguments = self._program.arguments(method.name)
        self._service.add_call(TakesArrays(method, function, arguments))
        self._service.add_call(Model(method, function, arguments, *self._named(method)), "v2")

    def _named(self, method: Method) -> tuple[str, str]:
        """Name and version of a model."""
        entry, pool = self._program.entry, self._launch.pool
        namespace, app, workload = base_of(workload_of(pool)).split("/")
        return model_name(namespace, app, workload, method.name, entry.kind == "cls"), revision_of(pool)

    def _offer_batched(self, method: Method) -> None:
        """Make it callable in each of its ways, by requests that are worked on together."""
        function = self._program.method(method.name)
        self._batches = Batches(self._context, method, function, hooks_of(function))
        given = method, function, self._program.arguments(method.name)
        faces: dict[str, Batched] = {}
        if method.stacked:
            from swell.runtime import batched_models

            if method.tensors is not None:
                faces = {
                    "call": batched_models.Arrays(*given),
                    "v2": batched_models.Model(*given, *self._named(method)),
                }
            if method.openai is not None:
                faces["v1"] = batched_models.Embedder(*given)
        for name, face in {"call": Batched(*given), **faces}.items():
            face.batches = self._batches
            self._service.add_call(face, name)

    async def _add_app(self, name: str, app: Callable[..., Any]) -> None:
        served = AsgiApp(self._context, name, app)
        await served.start()
        self._apps.append(served)
        self._service.add_web(name, served)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, SwellError):
            error = enter_error("The replica", error)
        self._channel.send(report_failure(error))

    # -- end ----------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        """Start to drain. Repeating it changes nothing."""
        self._context.slots.close(reason)
        if not self._over.done():
            self._over.set_result(None)

    def _ordered(self, reason: str) -> None:
        """Its runner says that it is to end, or there is none any more."""
        self._told = reason
        self._end(reason)

    async def _drain(self) -> None:
        """Finish what is in flight, then run the exit hooks."""
        slots = self._context.slots
        await slots.emptied()
        if self._leaving is not None:
            await self._context.loop.create_future()  # What ends it is under way.
        if self._used:
            self._channel.send(Served())
        if slots.stuck:
            # All else that it had is over: it ends beside that. Said before all that follows, which may wait for what
            # cannot be stopped: its runner bounds it from now on.
            self._say_leaving(Stuck(requests=slots.stuck, ending=True))
        # What its runner, or the next one, has not safe yet would end with it.
        await self._context.keeping.emptied()
        await asyncio.sleep(LATE_S)
        await self._left()
        for connection in list(self._connections):
            connection.close()
        for app in self._apps:
            await app.stop()
        if self._leaving is not None:
            self._leave()
            await self._context.loop.create_future()
        for hook in self._program.exit():
            try:
                await self._run_hook(hook)
            except Exception as error:
                sys.stderr.write(f"{_name(hook)} raised at exit:\n{user_traceback(error)}")
        await self._end_children()
        if self._launch.mounts:
            self._channel.send(Left())
        await self._taken()

    async def _left(self) -> None:
        """Wait until nobody keeps a connection for a next request. One that is on its way when that is closed here, and
        is too long to arrive in one piece, would be taken for one that was begun."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LEFT_S
        while not all(connection.unsent for connection in self._connections):
            if loop.time() >= until:
                return
            await asyncio.sleep(_LOOK_S)

    async def _taken(self) -> None:
        """Wait until what was said is taken, or whoever it was said to is gone. The runner bounds it, as all of an end;
        so it comes after all else."""
        while any(connection.unsent for connection in self._connections):  # noqa: ASYNC110 — nothing tells us of it
            await asyncio.sleep(_LOOK_S)

    def _leave(self) -> None:
        """End beside what cannot be stopped."""
        hooks = list(self._program.exit())
        if any(connection.unsent for connection in self._connections):
            hooks.append(self._taken)
        leave(hooks, self._await_hook, STUCK_STATUS, self._context.slots.idle)

    async def _end_children(self) -> None:
        if self._foreign:
            await end_children()

    # -- what others tell it ------------------------------------------------------------------

    def _use(self, request: Request) -> None:
        """The one input of a single-use replica was admitted."""
        self._used = True
        if self._meeting is not None:
            self._meeting.begin(request)
        self._end("single use")

    def _foreign_ended(self, why: str) -> None:
        self._channel.send(Failed(reason="not_listening", detail=why))
        self._end(why)

    def _stuck(self, requests: tuple[str, ...]) -> None:
        """Where nothing else can run meanwhile there is no use in going on: another replica takes over."""
        if self._leaving is not None:
            return
        ending = self._launch.revision.one_at_a_time or (self._batches is not None and self._batches.stuck)
        stuck = Stuck(requests=requests, ending=ending)
        if not stuck.ending:
            self._channel.send(stuck)
            return
        self._say_leaving(stuck)
        loop, slots = self._context.loop, self._context.slots
        why = "what it runs could not be stopped"
        if asyncio._get_running_loop() is None:
            # The watchdog's thread tells it, and would end the process soon: the loop is not there to do anything.
            faulthandler.cancel_dump_traceback_later()
            loop.call_soon_threadsafe(slots.close, why)
            leave(self._program.exit(), None, STUCK_STATUS, slots.idle)
            return
        slots.close(why)
        if self._batches is None:
            self._leave()
            return
        loop.call_soon(self._batches.give_back)
        loop.call_later(SAY_S, self._leave)

    def _say_leaving(self, stuck: Stuck) -> None:
        self._leaving = stuck
        self._channel.send(stuck)
        for stream in self._context.output:
            stream.end()

    def _await_hook(self, hook: Hook) -> None:
        """Run an asynchronous hook to its end. In any thread but the loop's."""
        asyncio.run_coroutine_threadsafe(self._run_hook(hook), self._context.loop).result()

    @property
    def _closed(self) -> str:
        """Why it ends. What works on the one input that it was for does not, unless it was told to."""
        return self._told or ("" if self._used else self._context.slots.closed)

    def _reattach(self) -> Reattach:
        kept = self._context.keeping.listed()
        told = self._launch.replica, os.getpid(), self._ready
        return Reattach(*told, kept=kept, port=self._port, closed=self._closed)


async def _contained(running: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await running
    except SystemExit as error:
        raise exit_error(error) from error


def _name(hook: Hook) -> str:
    return getattr(hook, "__name__", type(hook).__name__)


def _reseed() -> None:
    """Forks of one template must not draw the same random numbers. Python's own generator sees to that by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
