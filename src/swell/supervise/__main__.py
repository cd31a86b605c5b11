"""A server in the background: `python -m swell.supervise` with settings as JSON; says on a descriptor how it went."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from swell.model.errors import SwellError
from swell.supervise.server import run


def main() -> int:
    """The arguments are for `background.start`, not for people."""
    parser = argparse.ArgumentParser(prog="swell.supervise")
    parser.add_argument("--settings", required=True)
    parser.add_argument("--report-fd", type=int, required=True)
    parser.add_argument("--attach-pid", type=int, action="append", default=[])
    args = parser.parse_args()

    def report(answer: Mapping[str, Any]) -> None:
        os.write(args.report_fd, json.dumps(answer).encode() + b"\n")
        os.close(args.report_fd)

    # The terminal it was started from may close; this server goes on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(
            json.loads(args.settings),
            up=lambda holder: report({"up": holder._asdict()}),
            show=lambda _line: None,
            attached=args.attach_pid,
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
