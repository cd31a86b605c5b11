"""What does an image consist of, and what is said of one that only a container can hold?

That travels with what is deployed, and an engine that has no containers refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from swell.model.environment import ContainerStep
from swell.model.errors import SwellError
from swell.sdk import disk
from swell.sdk import image_words as words
from swell.sdk.building import Build
from swell.sdk.disk import NO_FILES, LocalPath, Unread
from swell.sdk.marks import Given
from swell.sdk.patterns import Ignore
from swell.sdk.signatures import public

COMMANDS = "a command is text"


@dataclass(frozen=True)
class Described:
    """All that is said of an image. Each method returns a new one."""

    python_version: str | None = None
    packages: tuple[str, ...] = ()
    index_options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    folder: str | None = None
    attached: tuple[LocalPath, ...] = ()
    unread: tuple[Unread, ...] = ()
    """Steps whose packages and files are not yet among those above: see `read`."""
    builds: tuple[Build, ...] = ()
    """Functions to run when it is built."""
    container_steps: tuple[ContainerStep | Unread, ...] = ()
    """What only a container can hold; where a file is part of it, still to be read."""
    given: tuple[Given, ...] = ()

    @public
    def apt_install(
        self,
        *packages: str | list[str],
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
    ) -> Self:
        """Add packages of Debian. It needs an engine that has containers."""
        given = Given("Image.apt_install", {k: v for k, v in locals().items() if k != "self"})
        return self._step(given, words.texts("apt_install", packages, "a package is written like 'ffmpeg'"))

    @public
    def run_commands(
        self,
        *commands: str | list[str],
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        volumes: Mapping[str | PurePosixPath, Any] | None = None,
        gpu: Any = None,
        force_build: bool = False,
    ) -> Self:
        """Run shell commands while it is built. It needs an engine that has containers."""
        given = Given("Image.run_commands", {k: v for k, v in locals().items() if k != "self"})
        return self._step(given, words.texts("run_commands", commands, COMMANDS))

    @public
    def dockerfile_commands(
        self,
        *dockerfile_commands: str | list[str],
        context_files: Mapping[str, str] = {},
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
        context_dir: str | Path | None = None,
        force_build: bool = False,
        ignore: Ignore = NO_FILES,
        build_args: Mapping[str, str] = {},
    ) -> Self:
        """Instructions of a Dockerfile. It needs an engine that has containers."""
        given = Given("Image.dockerfile_commands", {k: v for k, v in locals().items() if k != "self"})
        return self._step(
            given, words.texts("dockerfile_commands", dockerfile_commands, COMMANDS), build_arguments(given)
        )

    @public
    def micromamba_install(
        self,
        *packages: str | list[str],
        spec_file: str | None = None,
        channels: Sequence[str] = (),
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
    ) -> Self:
        """Add conda packages. It needs an engine that has containers."""
        given = Given("Image.micromamba_install", {k: v for k, v in locals().items() if k != "self"})
        named = words.texts("micromamba_install", packages, "a package is written like 'cudatoolkit'")
        options = tuple(("channels", each) for each in words.texts("micromamba_install", channels, "a channel is text"))
        if spec_file is None:
            return self._step(given, named, options)
        file = words.path("micromamba_install", spec_file)

        def read() -> Mapping[str, tuple[Any, ...]]:
            told = (*options, ("spec_file", disk.text("Spec file", file)))
            return {"container_steps": (ContainerStep("micromamba_install", named, told),)}

        return self._with(given, container_steps=(Unread(given, read),))

    @public
    def entrypoint(self, entrypoint_commands: list[str]) -> Self:
        """What a container starts with. It needs an engine that has containers."""
        given = Given("Image.entrypoint", {"entrypoint_commands": entrypoint_commands})
        return self._step(given, _list("entrypoint", entrypoint_commands))

    @public
    def shell(self, shell_commands: list[str]) -> Self:
        """What runs the commands of `run_commands`. It needs an engine that has containers."""
        given = Given("Image.shell", {"shell_commands": shell_commands})
        return self._step(given, _list("shell", shell_commands))

    @public
    def cmd(self, cmd: list[str]) -> Self:
        """What a container runs by default. It needs an engine that has containers."""
        given = Given("Image.cmd", {"cmd": cmd})
        return self._step(given, _list("cmd", cmd))

    def _step(self, given: Given, named: tuple[str, ...], options: tuple[tuple[str, str], ...] = ()) -> Self:
        """With one more thing that only a container can hold."""
        if not named:
            raise SwellError("bad_argument", f"{given.callable}(): name at least one.")
        method = given.callable.partition(".")[2]
        return self._with(given, container_steps=(ContainerStep(method, named, options),))

    def _later(
        self, given: Given, method: str, lines: Callable[[Path], list[str]], paths: Sequence[str | Path]
    ) -> Self:
        """With the packages that files name, which are read at deploy."""
        if not isinstance(paths, list):
            raise SwellError("bad_argument", f"Image.{method}({paths!r}): give a list of paths.")
        files = [words.path(method, each) for each in paths]
        if not files:
            return self
        found = Unread(given, lambda: {"packages": tuple(line for file in files for line in lines(file))})
        return self._with(None, unread=(found,))

    def _with(self, given: Given | None, **added: tuple[Any, ...]) -> Self:
        if given is not None:
            added["given"] = (given,)
        grown: dict[str, Any] = {name: (*getattr(self, name), *values) for name, values in added.items()}
        return replace(self, **grown)


def python_option(given: Given) -> tuple[tuple[str, str], ...]:
    """The Python that is to be put into a base."""
    wanted = given.values.get("add_python")
    return () if wanted is None else (("add_python", str(wanted)),)


def build_arguments(given: Given) -> tuple[tuple[str, str], ...]:
    """Values for the ARG instructions of a Dockerfile."""
    found = words.variables(f"{given.callable}(build_args=…)", given.values["build_args"])
    return tuple(("build_args", f"{name}={value}") for name, value in found)


def _list(method: str, given: list[str]) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise SwellError("bad_argument", f"Image.{method}({given!r}): give the command's words in a list.")
    return words.texts(method, given, "each word is text")
