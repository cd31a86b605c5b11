"""What is beside the user's code in a replica: Python packages, environment variables, files, a container's system.

Without a container an image is a virtual environment. What only a container can hold travels with what is deployed, and
an engine that has none refuses it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Concatenate, ParamSpec, TypeVar

from swell.model.environment import ContainerStep
from swell.model.errors import SwellError
from swell.sdk import building, disk, projects
from swell.sdk import image_words as words
from swell.sdk.container import COMMANDS, Described, build_arguments, python_option
from swell.sdk.disk import NO_FILES, LocalPath, Unread
from swell.sdk.marks import Given
from swell.sdk.patterns import Ignore, only_python
from swell.sdk.signatures import public
from swell.sdk.unavailable import stand_in
from swell.wire import context

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Image(Described):
    """A Python environment. Each method returns a new image that has what it adds."""

    # -- bases ---------------------------------------------------------------------------------------

    @staticmethod
    @public
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """An environment with Python and what is added to it. Default: the version that deploys it."""
        given = Given("Image.debian_slim", locals().copy())
        if python_version is not None and not re.fullmatch(r"3\.\d+(\.\d+)?", str(python_version)):
            raise SwellError("bad_argument", f"debian_slim(python_version={python_version!r}): write it as '3.12'.")
        version = None if python_version is None else ".".join(str(python_version).split(".")[:2])
        return Image(python_version=version, given=(given,))

    @staticmethod
    @public
    def from_registry(
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
    ) -> Image:
        """A container image of a registry. It needs an engine that has containers."""
        return _based(Given("Image.from_registry", locals().copy()), "tag")

    @staticmethod
    @public
    def from_aws_ecr(
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
    ) -> Image:
        """The same of Amazon's registry. It needs an engine that has containers."""
        return _based(Given("Image.from_aws_ecr", locals().copy()), "tag")

    @staticmethod
    @public
    def from_gcp_artifact_registry(
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
    ) -> Image:
        """The same of Google's registry. It needs an engine that has containers."""
        return _based(Given("Image.from_gcp_artifact_registry", locals().copy()), "tag")

    @staticmethod
    @public
    def from_scratch(force_build: bool = False) -> Image:
        """An empty container image. It needs an engine that has containers."""
        given = Given("Image.from_scratch", locals().copy())
        return Image(container_steps=(ContainerStep("from_scratch"),), given=(given,))

    @staticmethod
    @public
    def micromamba(python_version: str | None = None, force_build: bool = False) -> Image:
        """A container image with conda packages. It needs an engine that has containers."""
        return _based(Given("Image.micromamba", locals().copy()), "python_version")

    @staticmethod
    @public
    def from_dockerfile(
        path: str | Path,
        *,
        force_build: bool = False,
        context_dir: str | Path | None = None,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
        add_python: str | None = None,
        build_args: Mapping[str, str] = {},
        ignore: Ignore = NO_FILES,
        registry_secret: Any = None,
    ) -> Image:
        """What a Dockerfile describes, which is read at deploy. It needs an engine that has containers."""
        given = Given("Image.from_dockerfile", locals().copy())
        file = words.path("from_dockerfile", path)
        options = (*python_option(given), *build_arguments(given))

        def read() -> Mapping[str, tuple[Any, ...]]:
            told = (("dockerfile", disk.text("Dockerfile", file)), *options)
            return {"container_steps": (ContainerStep("from_dockerfile", (str(path),), told),)}

        return Image(container_steps=(Unread(given, read),), given=(given,))

    # -- packages ------------------------------------------------------------------------------------

    @public
    def pip_install(
        self,
        *packages: str | list[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Add packages. All packages of an image, and all index options, are resolved together."""
        given = Given("Image.pip_install", {k: v for k, v in locals().items() if k != "self"})
        options = words.index_options(find_links, index_url, extra_index_url, pre, extra_options)
        return self._with(given, packages=words.packages("pip_install", packages), index_options=options)

    @public
    def uv_pip_install(
        self,
        *packages: str | list[str],
        requirements: list[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Add packages, and those that requirements files name. The files are read at deploy; a relative path is meant
        from the current directory of the program that deploys."""
        given = Given("Image.uv_pip_install", {k: v for k, v in locals().items() if k != "self"})
        options = words.index_options(find_links, index_url, extra_index_url, pre, extra_options)
        named = self._with(given, packages=words.packages("uv_pip_install", packages), index_options=options)
        return named._later(given, "uv_pip_install", projects.requirements, requirements or [])

    @public
    def pip_install_from_requirements(
        self,
        requirements_txt: str | Path,
        find_links: str | None = None,
        *,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Add the packages that a requirements file names. It is read at deploy; a relative path is meant from the
        current directory of the program that deploys."""
        given = Given("Image.pip_install_from_requirements", {k: v for k, v in locals().items() if k != "self"})
        options = words.index_options(find_links, index_url, extra_index_url, pre, extra_options)
        named = self._with(given, index_options=options)
        return named._later(given, "pip_install_from_requirements", projects.requirements, [requirements_txt])

    @public
    def pip_install_from_pyproject(
        self,
        pyproject_toml: str | Path,
        optional_dependencies: Sequence[str] = (),
        *,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Add the dependencies that a pyproject.toml declares, and those of the optional groups that are named. It is
        read at deploy; a relative path is meant from the current directory of the program that deploys."""
        given = Given("Image.pip_install_from_pyproject", {k: v for k, v in locals().items() if k != "self"})
        options = words.index_options(find_links, index_url, extra_index_url, pre, extra_options)
        named = self._with(given, index_options=options)
        groups = words.texts("pip_install_from_pyproject", optional_dependencies, "a group is named by text")

        def declared(path: Path) -> list[str]:
            return projects.declared(path, groups)

        return named._later(given, "pip_install_from_pyproject", declared, [pyproject_toml])

    @public
    def uv_sync(
        self,
        uv_project_dir: str | Path = "./",
        *,
        force_build: bool = False,
        groups: list[str] | None = None,
        extras: list[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Add what the uv.lock of a project pins, without the project itself. It is read at deploy; a relative path is
        meant from the current directory of the program that deploys."""
        given = Given("Image.uv_sync", {k: v for k, v in locals().items() if k != "self"})
        chosen = [
            *(word for each in words.texts("uv_sync", groups or [], "a group is text") for word in ("--group", each)),
            *(word for each in words.texts("uv_sync", extras or [], "an extra is text") for word in ("--extra", each)),
            "--frozen" if frozen else "--locked",
        ]

        def pinned(path: Path) -> list[str]:
            return projects.pinned(path, chosen)

        return self._with(given)._later(given, "uv_sync", pinned, [uv_project_dir])

    # -- steps ---------------------------------------------------------------------------------------

    @public
    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        env: dict[str, str | None] | None = None,
        secrets: Collection[Any] | None = None,
        volumes: Mapping[str | PurePosixPath, Any] = {},
        network_file_systems: Mapping[str | PurePosixPath, Any] = {},
        gpu: Any = None,
        cpu: float | None = None,
        memory: int | None = None,
        timeout: int = 60 * 60,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        force_build: bool = False,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = {},
        include_source: bool = True,
    ) -> Image:
        """Run a function when the environment is built, once its packages are there. What it leaves in `sys.prefix` is
        part of the environment; what it leaves elsewhere on the node is its user's own."""
        given = Given("Image.run_function", {k: v for k, v in locals().items() if k != "self"})
        found = {**dict(self.variables), **dict(words.variables("Image.run_function(env=…)", env or {}))}
        return self._with(given, builds=(building.build(given, tuple(sorted(found.items()))),))

    # -- variables, files ----------------------------------------------------------------------------

    @public
    def env(self, vars: Mapping[str, str]) -> Image:
        """Add environment variables for user code."""
        return self._with(None, variables=words.variables("Image.env", vars))

    @public
    def workdir(self, path: str | PurePosixPath) -> Image:
        """The folder on the node that user code runs in. Default: that of the source."""
        if not isinstance(path, str | PurePosixPath) or not PurePosixPath(path).is_absolute():
            raise SwellError("bad_argument", f"workdir({str(path)!r}): give an absolute path of a folder on the node.")
        return replace(self, folder=str(path))

    @public
    def add_local_file(self, local_path: str | Path, remote_path: str, *, copy: bool = False) -> Image:
        """Send a file along with the source. It is looked for at deploy; a relative path is meant from the current
        directory of the program that deploys. A `remote_path` that ends in "/" is a folder to put it in."""
        given = Given("Image.add_local_file", {k: v for k, v in locals().items() if k != "self"})
        source, place = words.path("add_local_file", local_path), words.place("add_local_file", remote_path)
        # The bundle itself can only be a folder.
        local = LocalPath(source, place / source.name if str(remote_path).endswith("/") or not place.parts else place)
        found = Unread(given, lambda: {"attached": (disk.file(str(local_path), local),)})
        return self._with(given, unread=(found,))

    @public
    def add_local_dir(
        self, local_path: str | Path, remote_path: str, *, copy: bool = False, ignore: Ignore = NO_FILES
    ) -> Image:
        """Send a folder along with the source, without what `ignore` leaves out. It is looked for at deploy; a relative
        path is meant from the current directory of the program that deploys."""
        given = Given("Image.add_local_dir", {k: v for k, v in locals().items() if k != "self"})
        source, place = words.path("add_local_dir", local_path), words.place("add_local_dir", remote_path)
        local = LocalPath(source, place, ignore)
        found = Unread(given, lambda: {"attached": (disk.folder(str(local_path), local),)})
        return self._with(given, unread=(found,))

    @public
    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignore | None = None) -> Image:
        """Send local modules and packages along, importable by their names. Default: their .py files only. They are
        looked for at deploy."""
        given = Given("Image.add_local_python_source", {k: v for k, v in locals().items() if k != "self"})
        left_out = only_python if ignore is None else ignore
        names = words.texts("add_local_python_source", modules, "name a module, as it is imported")
        found = Unread(given, lambda: {"attached": tuple(disk.module(name, left_out) for name in names)})
        return self._with(given, unread=(found,))

    @contextmanager
    @public
    def imports(self) -> Iterator[None]:
        """Around imports that only this image has: where it is not, an ImportError is passed over.

        It is where all its packages are: not on the caller's machine, and not in replicas of another image. What its
        requirements files name is not known there: where the rest of it is, an error is passed over, and logged.
        """
        try:
            yield
        except ImportError as error:
            if not context.inside or not set(self.packages) <= set(context.inside[0].packages):
                return
            if not any(step.given.callable in _FROM_FILES for step in self.unread):
                raise
            sys.stderr.write(f"Image.imports(): {error}; passed over, as it may be of another image.\n")

    @public
    def pipe(self, func: Callable[Concatenate[Image, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`func(image, …)`, to write steps of one's own in a chain."""
        return func(self, *args, **kwargs)


def read(image: Image) -> Image:
    """The image with all its packages and files. SwellError, with the user's line, where one cannot be found."""
    steps: list[ContainerStep] = []
    for each in image.container_steps:
        steps += each.read()["container_steps"] if isinstance(each, Unread) else [each]
    found = replace(image, unread=(), container_steps=tuple(steps))
    for step in image.unread:
        found = found._with(None, **step.read())
    return found


def notes(image: Image) -> list[str]:
    """Where its files are not where their `remote_path` says, a sentence each."""
    way = "relative to the working directory" if image.folder is None else "from Path(__file__).parent"
    return [
        f"{given.callable}(…, {str(path)!r}): a replica has no {words.CONTAINER_HOME} of its own; it is "
        f"{str(path.relative_to(words.CONTAINER_HOME))!r} in the folder of the program: open that, {way}"
        for given in image.given
        if (path := PurePosixPath(given.values.get("remote_path", ""))).is_relative_to(words.CONTAINER_HOME)
    ]


def _based(given: Given, base: str) -> Image:
    """An image that begins with what only a container has: `base` is the argument that names it."""
    named = given.values[base]
    method = given.callable.partition(".")[2]
    if named is not None or base == "tag":
        words.texts(method, [named], "name it in text, like 'python:3.12-slim' or '3.12'")
    lines = words.texts(method, given.values.get("setup_dockerfile_commands", []), COMMANDS)
    options = (*python_option(given), *(("setup_dockerfile_commands", line) for line in lines))
    step = ContainerStep(method, () if named is None else (named,), options)
    return Image(container_steps=(step,), given=(given,))


_FROM_FILES = frozenset(
    f"Image.{name}"
    for name in ("uv_pip_install", "uv_sync", "pip_install_from_requirements", "pip_install_from_pyproject")
)
"""Methods whose packages are not all known where the image is described."""

REFUSED: dict[str, str] = {
    "build": "environments are built at deploy; there is nothing to build before",
    "conda": "it is called micromamba now",
    "conda_install": "it is called micromamba_install now",
    "copy_local_dir": "it is called add_local_dir now",
    "copy_local_file": "it is called add_local_file now",
    "copy_mount": "it is add_local_file, add_local_dir or add_local_python_source now",
    "dockerhub_image": "it is called from_registry now",
    "from_dockerhub": "it is called from_registry now",
    "from_id": "environments have no lasting id: describe it in code",
    "from_name": "environments are not published: describe it in code",
    "pip_install_private_repos": "the installer is given no secrets: use pip_install('name @ git+https://…')",
    "poetry_install_from_file": "poetry's lock files are not read: `poetry export` makes a requirements file for "
    "pip_install_from_requirements",
    "publish": "environments are not published: share the code that describes it",
    "run_inside": "it is called imports now: `with image.imports():`",
}
"""Method, of now or of before → why there is none, and what to do instead."""

stand_in(Image, {name: f"Image.{name}() cannot be used: {why}." for name, why in REFUSED.items()})
