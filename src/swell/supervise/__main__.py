"""How does another program get a server? `python -m swell.supervise`, with settings as JSON.

With `--report-fd` this process becomes a server in the background, and says there how it went. With `--join PID` it
sees to it that there is one for as long as that process lives, and ends: 0 when it is ready, else 1 and a sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from swell.model.errors import SwellError
from swell.supervise.background import ensure
from swell.supervise.server import run
from swell.wire.handed import taken


def main() -> int:
    """The arguments are for `background.start` and the SDK, not for people."""
    parser = argparse.ArgumentParser(prog="swell.supervise")
    parser.add_argument("--settings", type=lambda word: taken(word, os.environ), required=True)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--report-fd", type=int)
    task.add_argument("--join", type=int, metavar="PID")
    parser.add_argument("--attach-pid", type=int, action="append", default=[])
    args = parser.parse_args()
    if args.join is not None:
        return _join(args.settings, args.join)
    return _serve(args.settings, args.report_fd, args.attach_pid)


def _join(settings: Mapping[str, Any], pid: int) -> int:
    try:
        ensure(settings, pid, lambda _line: None)
    except SwellError as error:
        sys.stderr.write(f"{error.message} {error.detail}".rstrip() + "\n")
        return 1
    return 0


def _serve(settings: Mapping[str, Any], report_fd: int, attached: Sequence[int]) -> int:
    def report(answer: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):
            # Whoever started it was killed meanwhile: it is up all the same.
            os.write(report_fd, json.dumps(answer).encode() + b"\n")
        os.close(report_fd)

    # The terminal it was started from may close; this server goes on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(
            settings,
            up=lambda holder: report({"up": holder._asdict()}),
            show=lambda _line: None,
            attached=attached,
            log_fds=(1, 2),
        )
    except SwellError as error:
        try:
            report({"error": {"code": error.code, "message": error.message}})
        except OSError:
            # It had been up, and whoever started it has gone.
            sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
