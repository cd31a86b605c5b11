"""What is a server made of? Its lock, sockets and processes, from settings; started and, at the end, cleared away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.supervise import clients
from swell.supervise.child import Child
from swell.supervise.lock import Holder, Lock, holder, writing
from swell.supervise.log import Log
from swell.supervise.sockets import close, listen_shared, listen_unix, reserve_tcp
from swell.supervise.supervisor import ENDING, WANTED_EVERY_S, Budget, Supervisor
from swell.wire.handed import handed
from swell.wire.identity import identify, read
from swell.wire.paths import Home

NAMES = ("control", "runner", "gateway", "grpc")
"""In the order in which they start; they stop in reverse. The last is there where it is asked for. Further gateways are
`gateway-1` and so on."""
_LOOK_S = 0.05
LEFT_S = 5.0
"""How long processes of a server that died may take to notice it."""
GATEWAY_ENDING_S = 10.0
"""How long the gateway may take beyond `drain_s`."""
RUNNER_ENDING_S = 15.0
"""How long the runner may take beyond the `stop_grace_s` of its replicas."""
CONTROL_GRACE_S = 10.0
RUNNER_LEFT_S = 45.0
"""How long a runner whose supervisor was killed may take to stop its replicas, when it is asked to."""
SWEEP_S = 30.0
HOME_EVERY_S = 1.0
"""Whether the state directory is still there is looked at this often."""

Command = Callable[[str, Sequence[str]], Sequence[str]]


def command(name: str, words: Sequence[str]) -> Sequence[str]:
    """The program of one of our processes. -P: a file of the user's in the working directory never shadows ours."""
    program = ["swell.runtime.runner"] if name == "runner" else ["swell.serve", name.partition("-")[0]]
    return [sys.executable, "-P", "-m", *program, *words]


def run(
    settings: Mapping[str, Any],
    up: Callable[[Holder], None],
    show: Callable[[str], None],
    attached: Sequence[int] = (),
    verbose: bool = False,
    log_fds: Sequence[int] = (),
    command: Command = command,
) -> None:
    """Serve until told to stop (SIGTERM, SIGINT) or, with `attached`, until the last of these processes is gone.

    `settings` are those of `wire.settings` as plain values; `up` is called once requests can come; `show`
    takes lines for people; `log_fds` are descriptors of ours to redirect to the log. Raises SwellError when the
    server cannot start or had to be given up; by then nothing of it is left.
    """
    home = Home(Path(settings["home"]))
    home.check_socket_length()
    for pid in attached:
        if identify(pid) is None:
            raise SwellError("no_such_process", f"There is no process {pid} to run for.")
    lock = _lock(home, attached=bool(attached))
    undisturbed = ExitStack()
    try:
        if home.restoring.exists():
            words = f"A backup was not wholly restored into {home.root}: `swell restore` it again, or remove that."
            raise SwellError("restore_unfinished", words)
        with _files(home, lock), ExitStack() as opened:
            with writing(home):
                log = Log(home.server_log, show, verbose)
            opened.callback(log.close)
            for fd in log_fds:
                log.redirect(fd)
            end_leftovers(home, log.say)
            listeners = opened.enter_context(_listening(settings))
            grpc_port = opened.enter_context(_reserve_grpc(settings))
            bound = {**settings, "port": listeners[0].getsockname()[1], "grpc_port": grpc_port}
            with writing(home):
                control = opened.enter_context(listen_unix(home.control_socket))
                api = opened.enter_context(listen_unix(home.api_socket))
            children = _children(home, bound, listeners, control, api, command)
            end_s = sum({child.stage or child.name: child.grace_s for child in children}.values()) + SWEEP_S
            lock.say("starting", host=settings["host"], port=bound["port"], grpc_port=grpc_port or 0, end_s=end_s)
            for pid in attached:
                clients.attach(home, pid)

            def waiting(words: str) -> None:
                with suppress(SwellError):
                    lock.say(lock.holder.state, waits_for=words)

            budget = Budget(settings["restarts_max"], settings["restarts_within_s"])
            every_s = WANTED_EVERY_S if attached else HOME_EVERY_S
            supervisor = Supervisor(children, log, budget, lambda: _wanted(home, lock), waiting, every_s)

            def ready() -> None:
                lock.say("ready")
                up(lock.holder)

            def stopping() -> None:
                # Each gateway closes its own. Kept open here, clients would wait for an end and not be refused.
                close(listeners)
                with suppress(SwellError):
                    lock.say("stopping")

            undisturbed.enter_context(_signals_while(lambda: lock.holder.state != "stopping"))
            supervisor.run(ready, stopping)
    finally:
        lock.release()
        undisturbed.close()


def _wanted(home: Home, lock: Lock) -> bool:
    if not lock.there:
        words = f"The state directory {home.root} was removed while the server ran on it: the server has ended."
        raise SwellError("home_gone", words, status=500)
    return clients.check_still_wanted(home, lock)


@contextmanager
def _listening(settings: Mapping[str, Any]) -> Iterator[Sequence[socket.socket]]:
    """A listening socket for each gateway."""
    listeners = listen_shared(settings["host"], settings["port"], settings.get("gateways", 1))
    try:
        yield listeners
    finally:
        close(listeners)


@contextmanager
def _reserve_grpc(settings: Mapping[str, Any]) -> Iterator[int | None]:
    """The port for gRPC, kept for as long as the server runs; None where it is not asked for."""
    if settings.get("grpc_port") is None:
        yield None
        return
    for package in ("grpc", "google.protobuf"):
        try:
            found = find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            # Swell is on no index: it is installed from its clone.
            how = "`pip install 'PATH-TO-THE-CLONE-OF-SWELL[grpc]'`"
            words = f"gRPC needs packages that are not here: {how}, or leave out --grpc-port."
            raise SwellError("no_grpc", words)
    with reserve_tcp(settings["host"], settings["grpc_port"]) as reserved:
        yield reserved.getsockname()[1]


@contextmanager
def _signals_while(wanted: Callable[[], bool]) -> Iterator[None]:
    """Outside of the supervisor's own time signals to end interrupt us while they are `wanted`, and else do nothing.

    What is cleared away after the supervisor would be left by one that comes then, the second of two for example.
    """

    def interrupt(_number: int, _frame: object) -> None:
        if wanted():
            raise KeyboardInterrupt

    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lock(home: Home, attached: bool) -> Lock:
    """The state directory. A server that is ending there anyway may end first: one after the other is no conflict."""
    since = time.monotonic()
    while True:
        # Looked at before: whoever is ending now may be gone by the time we ask for the lock.
        other = holder(home)
        may_wait = other is not None and clients.ending(home) and time.monotonic() < since + other.end_s
        try:
            return Lock(home, attached)
        except SwellError as error:
            if error.code != "home_in_use" or not may_wait:
                raise
        time.sleep(_LOOK_S)


def _children(
    home: Home,
    settings: Mapping[str, Any],
    listeners: Sequence[socket.socket],
    control: socket.socket,
    api: socket.socket,
    command: Command,
) -> list[Child]:
    """What the processes are given."""

    def child(name: str, grace_s: float, stage: str = "", index: int = 0, **fds: int) -> Child:
        word, environ = handed(settings, os.environ, whole=name == "control")
        given = {"settings": word, **({"index": index} if index else {}), **fds}
        words = [word for flag, value in given.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
        record = home.process_record(name)
        said = command(name, words)
        return Child(name, said, tuple(fds.values()), grace_s, stage=stage, record=record, environ=environ)

    made = [
        child("control", CONTROL_GRACE_S, control_fd=control.fileno(), api_fd=api.fileno()),
        child("runner", settings["policy"]["stop_grace_s"] + RUNNER_ENDING_S),
    ]
    for index, listener in enumerate(listeners):
        name = f"gateway-{index}" if index else "gateway"
        grace_s = settings["drain_s"] + GATEWAY_ENDING_S
        made.append(child(name, grace_s, "gateways", index, listener_fd=listener.fileno()))
    if settings.get("grpc_port") is not None:
        made.append(child("grpc", settings["drain_s"] + GATEWAY_ENDING_S))
    return made


@contextmanager
def _files(home: Home, lock: Lock) -> Iterator[None]:
    """The folders a server needs; afterwards, what is only of use while it runs is removed: where it is ours."""
    with writing(home):
        for folder in (home.run, home.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
        home.run.chmod(0o700)
        # Whoever starts a server here means the machine to be used. What ran when it went is known by this.
        home.left.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            home.leaving.rename(home.left)
    try:
        yield
    finally:
        if lock.there:
            _clear(home)


def _clear(home: Home) -> None:
    with writing(home):
        for path in (home.control_socket, home.api_socket, home.runner_socket):
            path.unlink(missing_ok=True)
        clients.forget(home)
    if _runner_left_something(home):
        sweep_replicas(home)


def end_leftovers(home: Home, say: Callable[[str], None], keep_replicas: bool = True) -> bool:
    """End what a server that was killed left on this state directory; returns whether there was anything.

    With `keep_replicas` the old runner is killed at once: its replicas then wait for the next runner, and go
    on serving there. Without, it is asked to stop them, and what is left of them is swept away.
    """
    names = [*NAMES, *sorted(path.stem for path in home.run.glob("gateway-*.json"))]
    found = [(name, identity) for name in reversed(names) if (identity := read(home.process_record(name)))]
    living = [(name, identity) for name, identity in found if identity.alive]
    if living:
        said = ", ".join(f"{name} (pid {identity.pid})" for name, identity in living)
        say(f"an earlier server here was killed; ending what is left of it: {said}")
    for name, identity in living:
        if name == "runner":
            identity.signal(signal.SIGKILL if keep_replicas else signal.SIGTERM)
        if not identity.wait(RUNNER_LEFT_S if name == "runner" else LEFT_S):
            identity.signal(signal.SIGKILL)
            identity.wait(LEFT_S)
    with writing(home):
        for name in names:
            home.process_record(name).unlink(missing_ok=True)
    if not keep_replicas and _runner_left_something(home):
        sweep_replicas(home)
        return True
    return bool(living)


def _runner_left_something(home: Home) -> bool:
    """Did the last runner end without taking away what it had: processes or control groups?"""
    return home.replica_groups.exists() or any(home.replica_records.glob("*"))


def sweep_replicas(home: Home) -> None:
    """End the replicas whose runner ended without doing so, and remove their groups, sockets and records."""
    argv = [sys.executable, "-P", "-m", "swell.runtime.runner.sweep", "--home", str(home.root)]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=SWEEP_S, check=False)
