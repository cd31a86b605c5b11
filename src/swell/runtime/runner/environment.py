"""Which Python does a revision run in? The user's own interpreter, or a virtual environment built by uv.

An environment is named by the digest of what it is made from, built in place, and complete once its
marker is there; one without marker was interrupted and is thrown away. The runtime's own requirements
are resolved together with the user's, so that a conflict is an error that names both sides. What they
resolved to is a lock file, which is what is installed, and stays beside the marker for who wants to know.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

import swell
from swell.model.environment import CALLER_REQUIREMENT, Environment
from swell.model.errors import SwellError
from swell.model.limits import BUILD_TIMEOUT_S
from swell.runtime.runner import commands
from swell.runtime.runner.processes import Reaper

RUNTIME = ("msgspec>=0.20,<1", "httptools>=0.7,<1")
"""What the runtime needs beside the user's packages."""
OPTIONAL = "uvloop>=0.21,<1"
"""Makes replicas faster. Left out where it cannot be had together with the rest: it must never stop a deploy."""
LOCK = "swell-lock.txt"
"""In an environment: every package with its version, and who wants it."""
_MARKER = "swell-complete"
_PROBE = "import sys, swell.runtime, msgspec, httptools; print('%d.%d' % sys.version_info[:2])"
_PROBE_TIMEOUT_S = 30.0
_builds: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
"""Environments that are being built, or waited for."""


def digest(environment: Environment) -> str:
    """Names what is built: equal requirements share one environment."""
    content: tuple[object, ...] = (
        *(environment.python, environment.packages, environment.index_options, RUNTIME, OPTIONAL),
        # How long a function may take is nothing of what it makes. Where there is none, the name is what it always was.
        *(msgspec.structs.replace(call, timeout_s=0.0) for call in environment.build_calls),
    )
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:24]


def built(environment: Environment, folder: Path) -> Path | None:
    """The interpreter of an environment that is complete; None when it has yet to be made."""
    home = folder / digest(environment)
    return home / "bin" / "python" if (home / _MARKER).exists() else None


async def _nothing(_home: Path) -> None:
    """Most environments are complete with their packages."""


async def ensure(
    environment: Environment,
    folder: Path,
    reaper: Reaper,
    progress: Callable[[str], None],
    server: Mapping[str, str],
    finish: Callable[[Path], Awaitable[None]] = _nothing,
) -> Path:
    """The interpreter to run user code with, built where need be. Raises SwellError("environment").

    `server`: the server's environment variables, which say where packages come from. `finish` is given the folder of
    an environment that is built, once its packages are there: only when it is done is the environment complete.
    """
    if not environment.is_built:
        await _check_interpreter(environment.interpreter, reaper, server)
        return Path(environment.interpreter)
    home = folder / digest(environment)
    # One build of it at a time. Nobody else builds here: there is one runner of a state directory.
    async with _builds.setdefault(home, asyncio.Lock()):
        if built(environment, folder) is None:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
            await _build(environment, home, reaper, progress, server)
            await finish(home)
            (home / _MARKER).touch()
    return home / "bin" / "python"


async def _check_interpreter(interpreter: str, reaper: Reaper, server: Mapping[str, str]) -> None:
    if not os.access(interpreter, os.X_OK):
        raise SwellError(
            "environment",
            f"The interpreter {interpreter!r} is not there or cannot be run. "
            "Deploy with the Python that Swell is installed in, or name packages so that an environment is built.",
        )
    output: list[str] = []
    argv = [interpreter, "-P", "-c", _PROBE]
    status = await commands.run(reaper, argv, plain_environ(server), output.append, _PROBE_TIMEOUT_S)
    if status != 0:
        raise SwellError(
            "environment",
            f"{interpreter} cannot run Swell's runtime (swell, msgspec and httptools must be importable). Deploy with "
            "the Python that Swell is installed in, or name packages so that an environment is built.",
            detail="\n".join(output),
        )


async def _build(
    environment: Environment,
    home: Path,
    reaper: Reaper,
    progress: Callable[[str], None],
    server: Mapping[str, str],
) -> None:
    environ = uv_environ(server)

    async def uv(*words: str, heard: Callable[[str], None] = progress) -> None:
        output: list[str] = []

        def both(line: str) -> None:
            output.append(line)
            heard(line)

        status = await commands.run(reaper, [*_uv(), *words], environ, both, BUILD_TIMEOUT_S)
        if status != 0:
            said = _failure(environment, words[0], status, output)
            raise SwellError("environment", said, detail="\n".join(output))

    # What the SDK itself needs was not asked for.
    own = [package for package in environment.packages if package != CALLER_REQUIREMENT]
    progress(f"making an environment for {', '.join(own) or f'Python {environment.python}'}")
    await uv("venv", "--quiet", "--python", await _matching(environment, reaper, server), str(home))
    settings = home / "pyvenv.cfg"
    made = settings.read_bytes()
    wanted, lock = home / "swell-requirements.txt", home / LOCK
    into = ("--python", str(home / "bin" / "python"), *environment.index_options)
    resolve = ("pip", "compile", "--quiet", "--no-header", *into, "--output-file", str(lock), str(wanted))
    try:
        wanted.write_text("\n".join((*environment.packages, *RUNTIME, OPTIONAL)) + "\n")
        # Only as a wheel: to compile it takes minutes and a compiler.
        await uv(*resolve, "--only-binary", "uvloop", heard=lambda _: None)
    except SwellError:
        wanted.write_text("\n".join((*environment.packages, *RUNTIME)) + "\n")
        await uv(*resolve)
        if not _names(lock, "uvloop"):
            progress(f"{OPTIONAL} is not to be had with these; replicas use the standard event loop")
    exactly = () if "--no-deps" in environment.index_options else ("--no-deps",)
    await uv("pip", "install", *exactly, *into, "-r", str(lock))
    # A package may have put a file in its place: what Python it was made of is not for packages to say. The file itself
    # may be the installer's, who links what it keeps.
    settings.unlink()
    settings.write_bytes(made)
    _add_swell(home)


def _names(lock: Path, package: str) -> bool:
    """Is the package in the lock?"""
    return re.search(rf"^{package}\b", lock.read_text(), re.MULTILINE) is not None


def _add_swell(home: Path) -> None:
    """Make this very Swell importable in it."""
    for site in home.glob("lib/python*/site-packages"):
        (site / "swell").symlink_to(Path(swell.__file__).parent)


async def _matching(environment: Environment, reaper: Reaper, server: Mapping[str, str]) -> str:
    """The user's own interpreter where its version is the one asked for, else the version, for uv to find."""
    output: list[str] = []
    argv = [environment.interpreter, "-P", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    if os.access(environment.interpreter, os.X_OK):
        await commands.run(reaper, argv, plain_environ(server), output.append, _PROBE_TIMEOUT_S)
    return environment.interpreter if output[-1:] == [environment.python] else environment.python


def _failure(environment: Environment, step: str, status: int | None, output: list[str]) -> str:
    """`step` is uv's command; "venv" is the one that looks for the interpreter."""
    if status is None:
        return f"Installing the packages took longer than {BUILD_TIMEOUT_S:g} s and was given up."
    if step == "venv":
        return (
            f"Python {environment.python} is not on the server and could not be had: the installer's words say why. "
            f"Install it there, or name another python_version=; the server's own is {_own_python()}."
        )
    said = " ".join(output)
    if "unsatisfiable" in said and any(_is_of(said, requirement) for requirement in RUNTIME):
        return f"The packages conflict with what Swell's runtime needs ({', '.join(RUNTIME)}): change their versions."
    if "unsatisfiable" in said and _is_of(said, CALLER_REQUIREMENT):
        return (
            f"The packages conflict with what Swell calls other functions with ({CALLER_REQUIREMENT}, which was added "
            'to them): change their versions. Or do without such calls: extra_options="--no-deps" adds nothing, and '
            "the image names all that its packages depend on."
        )
    return (
        f"The packages could not be installed with Python {environment.python}: the installer's words say why. "
        "Change the image's packages or index options."
    )


def _is_of(said: str, requirement: str) -> bool:
    """Do uv's words name its package? What they say of its versions is put by what there is of them."""
    name = re.split("[<>=]", requirement)[0]
    return re.search(rf"\b{name}\b", said) is not None


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _uv() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "uv"]


def plain_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the server's environment that user code gets: nothing that could be a secret."""
    return {name: environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "TZ") if name in environ}


def uv_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The server's environment with pip's settings in the names uv reads. uv's own settings win."""
    translated = {
        "UV_FIND_LINKS": ",".join(_present(environ.get("PIP_FIND_LINKS", ""))),
        "UV_DEFAULT_INDEX": " ".join(_present(environ.get("PIP_INDEX_URL", ""))),
        "UV_INDEX": " ".join(_present(environ.get("PIP_EXTRA_INDEX_URL", ""))),
        "SSL_CERT_FILE": environ.get("PIP_CERT", ""),
    }
    return {**{name: value for name, value in translated.items() if value}, **environ, "NO_COLOR": "1"}


def _present(places: str) -> list[str]:
    """The places that exist: pip only warns of a folder that is not there, uv stops."""

    def there(place: str) -> bool:
        url = urllib.parse.urlsplit(place)
        if url.scheme not in ("", "file"):
            return True
        return Path(urllib.request.url2pathname(url.path)).exists()

    return [place for place in places.split() if there(place)]
