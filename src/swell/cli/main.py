"""What does `swell …` mean? Finds the command, and turns every failure into a sentence and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import click

from swell.model.errors import SwellError

COMMANDS = (
    *("up", "down", "run", "serve", "shell", "deploy", "app", "secret", "volume", "dict", "queue"),
    *("call", "calls", "job", "trigger", "ps", "logs", "why", "usage", "limits", "node", "key", "backup", "restore"),
    "sim",
)
"""In the order of the help. Command `x` is `swell.cli.x.x`."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


MISUSED = 2
"""Exit code where what was asked for cannot be understood; click has it for what stands on the command line."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to a file fails with that is there."""


class Lazy(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(f"swell.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Which command the words name; of a slip of the pen, which may be meant."""
        word, known = args[0], self.list_commands(ctx)
        if word not in known and not word.startswith("-"):
            from swell.model.near import near_names

            near = near_names(word, known, most=1)
            # In the words that click has for commands of a group.
            ctx.fail(f"No such command {word!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="swell", message="swell %(version)s")
def swell() -> None:
    """Functions and model services that wake from zero in milliseconds.

    \b
    swell run FILE          run a program; what it calls runs in replicas
    swell serve FILE        try it out; each change you save is live at once
    swell up -d             start a server in the background
    swell deploy FILE       give it an app
    swell call APP/FUNCTION '{"name": "Ada"}'
    """


def main(words: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 wrong usage, 128 and a signal: interrupted."""
    _hold_streams()
    # As a shell without job control has it for what it puts in the background.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    try:
        code = run(words)
    except KeyboardInterrupt:
        # One more, while the first was being told of.
        code = INTERRUPTED
    # How it went is known. Only threads of the user's program may still be waited for, and a Ctrl-C ends that.
    waiting = any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    if not ignored:
        signal.signal(signal.SIGINT, partial(_cut, code or INTERRUPTED) if waiting else signal.SIG_IGN)
    sys.exit(code)


def _hold_streams() -> None:
    """Let /dev/null stand where we were started without stdin, stdout or stderr (`>&-`): the next file or socket that
    is opened would have that number, and be written to or be given to a server in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 — for good


def _cut(code: int, *_: object) -> None:
    """End without waiting for threads. What they and the program wrote is written out."""
    # Should whoever reads it not do so, one more Ctrl-C ends that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def run(words: Sequence[str] | None = None) -> int:
    """One command; returns its exit code."""
    try:
        code = swell.main(None if words is None else list(words), prog_name="swell", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has what it wanted (`swell logs | head`); nothing more may be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SwellError as error:
        _failed(error, error.message, error.detail)
        return MISUSED if error.code == "bad_setting" else 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            return _failed(error, f"Output cannot be written: {error.strerror}.", "")
        return _failed(error, f"Swell itself failed: {type(error).__name__}: {error}. SWELL_DEBUG=1 shows where.", "")


def _failed(error: Exception, message: str, detail: str) -> int:
    from swell.cli.output import show_error

    notes = getattr(error, "__notes__", ())
    if os.environ.get("SWELL_DEBUG", "") not in ("", "0"):
        # It has the detail in it.
        traceback.print_exception(error)
        detail, notes = "", [note for note in notes if not detail or detail.strip() not in note]
    show_error(message, detail, notes)
    return 1


if __name__ == "__main__":
    main()
