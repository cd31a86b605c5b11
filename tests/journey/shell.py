"""How does `swell` end, and what does it say, when it is run as a shell runs it?"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from private_swell import PrivateSwell

WAIT_S = 60.0


def launch(swell: PrivateSwell, *words: str) -> subprocess.Popen[str]:
    """`swell …` in a group of its own, as a shell starts it."""
    return _started(["swell", *words], swell)


@contextmanager
def going(swell: PrivateSwell, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The same within a block, and no longer, however that ends."""
    with begun(["swell", *words], swell) as process:
        yield process


@contextmanager
def begun(argv: Sequence[str], swell: PrivateSwell) -> Iterator[subprocess.Popen[str]]:
    """Any other program, where this platform is the one that is found."""
    process = _started(argv, swell)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _started(argv: Sequence[str], swell: PrivateSwell) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        env=swell.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and everything that was said."""
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out + err


def refusal(swell: PrivateSwell, *words: str) -> str:
    """What was said by a command that refused in a sentence, with nothing of it left."""
    code, said = ended(launch(swell, *words))
    assert code == 1, said
    assert any(line.startswith("Error: ") for line in said.splitlines()), said
    assert "Traceback" not in said
    return said
