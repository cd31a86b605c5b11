"""A real small process that plays one of the server's: ready or not, dying or stubborn, as it is told.

`python actor.py NOTES NAME PART…` notes "NAME up PID" and "NAME down" in the file NOTES.
Parts: `silent` never gets ready, `dies` ends at once, `refuses` too, with a logged sentence, `ends` ends once ready,
`stubborn` ignores SIGTERM, `parent` leaves a process in a session of its own, `talks` writes a line of each level,
`waits` says so when it is to end, and goes on until it is interrupted, `lacks` says that it has no room, and is
not ready, while there is no file named as NOTES with `.room`.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("notes", type=Path)
    parser.add_argument("name")
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--supervisor-fd", type=int, required=True)
    args, _ = parser.parse_known_args()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: note(args.notes, f"{args.name} interrupted"))
    signal.set_wakeup_fd(writing)
    note(args.notes, f"{args.name} up {os.getpid()}")
    if "talks" in args.parts:
        for level in ("INFO", "WARNING", "ERROR"):
            sys.stderr.write(f"2026-01-01 00:00:00,000 {args.name} {level} a word\n  and more\n")
        sys.stderr.flush()
    if "dies" in args.parts:
        sys.exit(f"{args.name} cannot go on")
    if "refuses" in args.parts:
        sys.exit(f"2026-01-01 00:00:00,000 {args.name} ERROR prices.toml cannot be used. Mend it.")
    if "parent" in args.parts:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        note(args.notes, f"{args.name} left {left.pid}")
    room = args.notes.with_suffix(".room")
    if "lacks" in args.parts and not room.exists():
        os.write(args.ready_fd, b"There is no room.\n")
        while not room.exists():
            if select.select([reading, args.supervisor_fd], [], [], 0.02)[0]:
                sys.exit(0)
    if "silent" not in args.parts:
        os.write(args.ready_fd, b"ready\n")
    if "ends" in args.parts:
        sys.exit(3)
    if "begins anew" in args.parts and args.notes.read_text().count(f"{args.name} up") < 5:
        sys.exit(0)
    while True:
        ready, _, _ = select.select([reading, args.supervisor_fd], [], [])
        if args.supervisor_fd in ready:
            break
        numbers = os.read(reading, 64)
        if signal.SIGTERM in numbers and "waits" in args.parts:
            os.write(args.ready_fd, b"waiting for something\n")
        elif signal.SIGTERM in numbers and "stubborn" not in args.parts:
            break
        if signal.SIGINT in numbers and "waits" in args.parts:
            break
    note(args.notes, f"{args.name} down")


def note(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
