"""What lasts while a command has an app on a server: the server where there was none, and how signals end it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import show_line
from swell.model.variant import base_of
from swell.model.workload import workload_of

if TYPE_CHECKING:
    from swell.wire.api import LogRow

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Beside Ctrl-C."""
ONE_END_S = 2.0
"""Signals within this time are one and the same wish."""


class _ToldToEnd(KeyboardInterrupt):
    """A signal asks us to end: to the user's program it is a Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Ending:
    """SIGTERM and SIGHUP end the program as a Ctrl-C does. What comes at once is one wish: a terminal that closes may
    well send more than one. A later one cuts short what we still wait for, as another Ctrl-C does; where the user's
    program goes on all the same, having caught the first, it ends that hard.
    """

    def __init__(self) -> None:
        self._told_at: float | None = None
        self._theirs = False

    def __call__(self, number: int, _: object) -> None:
        """Handles a signal."""
        now, before = time.monotonic(), self._told_at
        if before is not None and now - before <= ONE_END_S:
            return
        self._told_at = now
        if before is None or not self._theirs:
            raise _ToldToEnd(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    @contextmanager
    def program(self) -> Iterator[None]:
        """Within it the user's own code runs, which may go on in spite of us."""
        self._theirs = True
        try:
            yield
        finally:
            self._theirs = False


@contextmanager
def told_to_end() -> Iterator[_Ending]:
    """Signals end the program, with the exit code that shells have for them. What was ignored (nohup) stays so."""
    ending = _Ending()
    numbers = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ending) for number in numbers}
    try:
        yield ending
    except _ToldToEnd as error:
        with suppress(OSError):
            # After SIGHUP there may be no terminal.
            click.echo(f"Ended by {signal.Signals(error.number).name}.", err=True)
        raise click.exceptions.Exit(128 + error.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def server(tell: Callable[[str], None]) -> Iterator[None]:
    """A server on this state directory for as long as we need one, unless settings lead to one elsewhere.

    One that was started for us has ended on return: the next command does not meet it dying. Unless it was kept, for
    an app that is left on it.
    """
    import msgspec

    from swell.supervise import background

    chosen = options.chosen(None)
    if chosen.url:
        yield
        return
    background.ensure(msgspec.to_builtins(chosen), os.getpid(), tell)
    try:
        yield
    finally:
        background.leave(chosen.paths, os.getpid())


def shower(clear: str = "") -> Callable[[LogRow], None]:
    """Shows lines that the user's code wrote, where the user's own output goes. Notes of ours are in the log.

    Each line says which function wrote it, except for the one that is `clear`.
    """

    def show(row: LogRow) -> None:
        if row.stream == "sys":
            return
        workload = workload_of(row.pool).rpartition("/")[2]
        mark = "" if base_of(workload) == clear else click.style(f"{workload} | ", dim=True)
        show_line(mark, row.text, err=row.stream == "err")

    return show
