"""Is it text, what a file, standard input or the command line has? It is sent as JSON, so it has to be UTF-8."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import click


def of_stream(stream: IO[str], name: str) -> str:
    """All that there is. `name`: what people know it by."""
    try:
        return stream.read()
    except UnicodeDecodeError:
        raise click.UsageError(f"{name} cannot be read: it is not text in UTF-8.") from None


def of_stdin() -> str:
    """All that is said on standard input, whatever encoding the locale is for."""
    with open(sys.stdin.fileno(), encoding="utf-8", closefd=False) as stdin:
        return of_stream(stdin, "Standard input")


def of_file(path: str) -> str:
    """All of a file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return of_stream(file, path)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from None


def of_words(text: str, name: str) -> str:
    """A word of the command line, in which Python has bytes that are no UTF-8 as halves of characters. It may be
    secret, so it is called by its `name`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{name} cannot be sent: it is not text in UTF-8.") from None
    return text
