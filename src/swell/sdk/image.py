"""What is beside the user's code in a replica: Python packages, environment variables, files.

An image is a virtual environment, not a container: what only a container can hold is refused with the reason.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Concatenate, ParamSpec, TypeVar

from swell.model.errors import SwellError
from swell.sdk import disk
from swell.sdk.disk import NO_FILES, LocalPath, Unread
from swell.sdk.marks import Given
from swell.sdk.patterns import Ignore, only_python
from swell.sdk.signatures import public
from swell.sdk.unavailable import stand_in
from swell.wire import context

P = ParamSpec("P")
R = TypeVar("R")

_CONTAINER_HOME = PurePosixPath("/root")
"""Where programs written for containers put their files; here it stands for the folder of the source."""


@dataclass(frozen=True)
class Image:
    """A Python environment. Each method returns a new image that has what it adds."""

    python_version: str | None = None
    packages: tuple[str, ...] = ()
    index_options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    folder: str | None = None
    attached: tuple[LocalPath, ...] = ()
    unread: tuple[Unread, ...] = ()
    """Steps whose packages and files are not yet among those above: see `read`."""
    given: tuple[Given, ...] = ()

    @staticmethod
    @public
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """An environment with Python and what is added to it. Default: the version that deploys it."""
        given = Given("Image.debian_slim", locals().copy())
        if python_version is not None and not re.fullmatch(r"3\.\d+(\.\d+)?", str(python_version)):
            raise SwellError("bad_argument", f"debian_slim(python_version={python_version!r}): write it as '3.12'.")
        version = None if python_version is None else ".".join(str(python_version).split(".")[:2])
        return Image(python_version=version, given=(given,))

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
        options = _index_options(find_links, index_url, extra_index_url, pre, extra_options)
        return self._with(given, packages=_flat("pip_install", packages), index_options=options)

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
        options = _index_options(find_links, index_url, extra_index_url, pre, extra_options)
        named = self._with(given, packages=_flat("uv_pip_install", packages), index_options=options)
        if not requirements:
            return named
        paths = [Path(path).absolute() for path in requirements]
        lines = Unread(given, lambda: {"packages": tuple(line for path in paths for line in disk.requirements(path))})
        return named._with(None, unread=(lines,))

    @public
    def env(self, vars: Mapping[str, str]) -> Image:
        """Add environment variables for user code."""
        return self._with(None, variables=variables("Image.env", vars))

    @public
    def workdir(self, path: str | PurePosixPath) -> Image:
        """The folder on the node that user code runs in. Default: that of the source."""
        if not PurePosixPath(path).is_absolute():
            raise SwellError("bad_argument", f"workdir({str(path)!r}): give an absolute path of a folder on the node.")
        return replace(self, folder=str(path))

    @public
    def add_local_file(self, local_path: str | Path, remote_path: str, *, copy: bool = False) -> Image:
        """Send a file along with the source. It is looked for at deploy; a relative path is meant from the current
        directory of the program that deploys. A `remote_path` that ends in "/" is a folder to put it in."""
        given = Given("Image.add_local_file", {k: v for k, v in locals().items() if k != "self"})
        source, place = Path(local_path).absolute(), _place("add_local_file", remote_path)
        # The bundle itself can only be a folder.
        local = LocalPath(source, place / source.name if remote_path.endswith("/") or not place.parts else place)
        found = Unread(given, lambda: {"attached": (disk.file(str(local_path), local),)})
        return self._with(given, unread=(found,))

    @public
    def add_local_dir(
        self, local_path: str | Path, remote_path: str, *, copy: bool = False, ignore: Ignore = NO_FILES
    ) -> Image:
        """Send a folder along with the source, without what `ignore` leaves out. It is looked for at deploy; a relative
        path is meant from the current directory of the program that deploys."""
        given = Given("Image.add_local_dir", {k: v for k, v in locals().items() if k != "self"})
        local = LocalPath(Path(local_path).absolute(), _place("add_local_dir", remote_path), ignore)
        found = Unread(given, lambda: {"attached": (disk.folder(str(local_path), local),)})
        return self._with(given, unread=(found,))

    @public
    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignore | None = None) -> Image:
        """Send local modules and packages along, importable by their names. Default: their .py files only. They are
        looked for at deploy."""
        given = Given("Image.add_local_python_source", {k: v for k, v in locals().items() if k != "self"})
        left_out = only_python if ignore is None else ignore
        found = Unread(given, lambda: {"attached": tuple(disk.module(name, left_out) for name in modules)})
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
            if not any(step.given.callable == "Image.uv_pip_install" for step in self.unread):
                raise
            sys.stderr.write(f"Image.imports(): {error}; passed over, as it may be of another image.\n")

    @public
    def pipe(self, func: Callable[Concatenate[Image, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`func(image, …)`, to write steps of one's own in a chain."""
        return func(self, *args, **kwargs)

    def _with(self, given: Given | None, **added: tuple[Any, ...]) -> Image:
        if given is not None:
            added["given"] = (given,)
        grown: dict[str, Any] = {name: (*getattr(self, name), *values) for name, values in added.items()}
        return replace(self, **grown)


def read(image: Image) -> Image:
    """The image with all its packages and files. SwellError, with the user's line, where one cannot be found."""
    found = replace(image, unread=())
    for step in image.unread:
        found = found._with(None, **step.read())
    return found


def notes(image: Image) -> list[str]:
    """Where its files are not where their `remote_path` says, a sentence each."""
    way = "relative to the working directory" if image.folder is None else "from Path(__file__).parent"
    return [
        f"{given.callable}(…, {str(path)!r}): a replica has no {_CONTAINER_HOME} of its own; it is "
        f"{str(path.relative_to(_CONTAINER_HOME))!r} in the folder of the program: open that, {way}"
        for given in image.given
        if (path := PurePosixPath(given.values.get("remote_path", ""))).is_relative_to(_CONTAINER_HOME)
    ]


def variables(callable: str, given: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Environment variables, sorted; None leaves one out."""
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, (str, type(None))):
            raise SwellError("bad_argument", f"{callable}: {name!r} and its value must be text.")
        if not name or "=" in name:
            raise SwellError("bad_argument", f"{callable}: {name!r} can be no variable's name, which has no '=' in it.")
    return tuple(sorted((name, value) for name, value in given.items() if value is not None))


def _flat(method: str, packages: Sequence[str | list[str]]) -> tuple[str, ...]:
    lines: list[str] = []
    for package in packages:
        lines += [package] if isinstance(package, str) else package
    for line in lines:
        if not isinstance(line, str) or not line.strip() or line.lstrip().startswith("-"):
            raise SwellError("bad_argument", f"{method}({line!r}): a package is written like 'numpy' or 'numpy>=2,<3'.")
    return tuple(lines)


def _index_options(
    find_links: str | None, index_url: str | None, extra_index_url: str | None, pre: bool, extra_options: str
) -> tuple[str, ...]:
    words: list[str] = []
    for name, value in (("find-links", find_links), ("index-url", index_url), ("extra-index-url", extra_index_url)):
        if value is not None:
            words += [f"--{name}", value]
    return (*words, *(["--pre"] if pre else []), *shlex.split(extra_options))


def _place(method: str, remote_path: str) -> PurePosixPath:
    path = PurePosixPath(remote_path)
    if path.is_relative_to(_CONTAINER_HOME):
        path = path.relative_to(_CONTAINER_HOME)
    if ".." in path.parts:
        raise SwellError(
            "bad_argument",
            f"{method}(…, {remote_path!r}): that would be outside the program's own folder. Leave the '..' out.",
        )
    if path.is_absolute():
        raise SwellError(
            "bad_argument",
            f"{method}(…, {remote_path!r}): there is no container to put files at an absolute path of. Give a path "
            "relative to the source, and open it with Path(__file__).parent / that path.",
        )
    return path


_CONTAINER = "a virtual environment has no operating system of its own"
_WORK_IN_ENTER = "do it in an @enter(snap=True) method, which runs once per template"
REFUSED: dict[str, str] = {
    "apt_install": f"{_CONTAINER}: install the package on the node, or find it as a Python wheel",
    "build": "environments are built at deploy; there is nothing to build before",
    "cmd": f"{_CONTAINER}: start a process with @web_server(port)",
    "dockerfile_commands": f"{_CONTAINER}: use pip_install, env and add_local_*",
    "entrypoint": f"{_CONTAINER}: start a process with @web_server(port)",
    "conda": "conda environments are not available: use Image.debian_slim() and pip_install",
    "conda_install": "conda environments are not available: use pip_install",
    "copy_local_dir": "it is called add_local_dir now",
    "copy_local_file": "it is called add_local_file now",
    "copy_mount": "it is add_local_file, add_local_dir or add_local_python_source now",
    "dockerhub_image": f"{_CONTAINER}: start from Image.debian_slim() and pip_install",
    "from_aws_ecr": f"{_CONTAINER}: start from Image.debian_slim() and pip_install",
    "from_dockerfile": f"{_CONTAINER}: start from Image.debian_slim() and pip_install",
    "from_dockerhub": f"{_CONTAINER}: start from Image.debian_slim() and pip_install",
    "from_gcp_artifact_registry": f"{_CONTAINER}: start from Image.debian_slim() and pip_install",
    "from_id": "environments have no lasting id: describe it in code",
    "from_name": "environments are not published: describe it in code",
    "from_registry": f"{_CONTAINER}: start from Image.debian_slim() and pip_install",
    "from_scratch": f"{_CONTAINER}: start from Image.debian_slim()",
    "micromamba": "conda environments are not available: use Image.debian_slim() and pip_install",
    "micromamba_install": "conda environments are not available: use pip_install",
    "pip_install_from_pyproject": "pyproject files are not read: list the packages with pip_install",
    "pip_install_from_requirements": "use uv_pip_install(requirements=['requirements.txt'])",
    "pip_install_private_repos": "builds are given no secrets: use pip_install('name @ git+https://…')",
    "poetry_install_from_file": "lock files are not read: list the packages with pip_install",
    "publish": "environments are not published: share the code that describes it",
    "run_commands": f"{_CONTAINER} and no build steps: {_WORK_IN_ENTER}",
    "run_function": f"a virtual environment has no build steps: {_WORK_IN_ENTER}",
    "run_inside": "it is called imports now: `with image.imports():`",
    "shell": f"{_CONTAINER} and no build steps: {_WORK_IN_ENTER}",
    "uv_sync": "lock files are not read: list the packages with uv_pip_install",
}
"""Method, of now or of before → why there is none, and what to do instead."""

stand_in(Image, {name: f"Image.{name}() cannot be used: {why}." for name, why in REFUSED.items()})
