"""What does a process do that the runner exec'ed? Reads its launch, loads the program, serves or is forked."""

from __future__ import annotations

import os
import socket
import time

from swell.model.errors import SwellError
from swell.runtime import load, output, secrets, template
from swell.wire.child import CHANNEL_FD, Launch, Secrets
from swell.wire.frames import pack


def main() -> None:
    """Never returns: leaves by `os._exit`, since what user code left running must not be joined."""
    started = time.monotonic()
    channel = socket.socket(fileno=CHANNEL_FD)
    os.set_inheritable(CHANNEL_FD, False)
    status = 1
    try:
        launch = read_launch(channel)
        if launch.revision.secrets:
            secrets.apply(template.read_frame(channel, Secrets))
        if launch.mounts and launch.revision.isolation is None:
            from swell.runtime import volumes

            volumes.enter(launch.mounts)
        load.enter_replica(launch)
        program = _load(launch, channel)
        if program is not None:
            timings = [("load", (time.monotonic() - started) * 1000)]
            if launch.role == "template":
                template.serve(program, launch, channel, timings)
            if launch.listener_fd >= 0:
                os.set_inheritable(launch.listener_fd, False)
            template.run_replica(program, launch, channel, started, timings)
            status = 0
    except BaseException:
        template.report_crash()
    finally:
        template.flush_and_exit(status)


def _load(launch: Launch, channel: socket.socket) -> load.Program | None:
    """The program; None when it could not be loaded, which the runner is told."""
    marked = output.install()
    try:
        return load.load(launch.revision, launch.bundle_dir, snap=launch.role == "template")
    except SwellError as error:
        channel.sendall(pack(load.report_failure(error)))
        return None
    finally:
        # A line that was begun would be a fork's, too.
        for stream in marked:
            stream.end()


def read_launch(channel: socket.socket) -> Launch:
    """The first frame, and not a byte more: what follows is for whoever owns the channel then."""
    return template.read_frame(channel, Launch)


if __name__ == "__main__":
    main()
