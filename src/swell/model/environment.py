"""What Python does a revision run in, and how is that built?"""

from __future__ import annotations

import msgspec

from swell.model.secret import SecretUse

CALLER_REQUIREMENT = "httpx2>=2.10,<3"
"""What code in a built environment needs to call other functions. The SDK adds it to the user's packages."""


class ContainerStep(msgspec.Struct, frozen=True):
    """What an image was told that only a container can hold: the call, as it was written."""

    method: str
    """Of `Image`: "apt_install"."""
    words: tuple[str, ...] = ()
    """What it was given by position: packages, commands, the name of a base."""
    options: tuple[tuple[str, str], ...] = ()
    """What it was given by name, each value of a list by itself."""

    @property
    def shown(self) -> str:
        """As its user wrote it, without the options."""
        words = ", ".join(map(repr, self.words))
        return f"Image.{self.method}({words if len(words) <= 60 else words[:59] + '…'})"


class BuildCall(msgspec.Struct, frozen=True):
    """A function of the source that runs once in a built environment, before anything else runs there."""

    module: str
    """Import name inside the bundle."""
    qualname: str
    content: str
    """Digest of its code, and of what that refers to in its module: another one is another environment."""
    arguments: bytes
    """Pickled (args, kwargs)."""
    timeout_s: float = 3600.0
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables it is given; those of the revision it is not."""
    secrets: tuple[SecretUse, ...] = ()
    """What it is given beside; their values are no part of the environment's name."""


class Environment(msgspec.Struct, frozen=True):
    """The Python a revision runs in. Neither packages nor build calls → `interpreter` itself is used, and nothing is
    built."""

    interpreter: str
    """Path of the user's own interpreter (local engine) that templates are exec'ed from."""
    python: str
    """"3.11": the version a built environment must have."""
    packages: tuple[str, ...] = ()
    """Requirement lines, in the order given."""
    index_options: tuple[str, ...] = ()
    """Extra words for the installer, e.g. ("--extra-index-url", "…", "--pre")."""
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables for user code."""
    workdir: str | None = None
    build_calls: tuple[BuildCall, ...] = ()
    """Run in this order once its packages are there."""
    container_steps: tuple[ContainerStep, ...] = ()
    """What an engine with the power "container" makes of it, in this order; others refuse it."""

    @property
    def is_built(self) -> bool:
        """It is a virtual environment of its own."""
        return bool(self.packages or self.build_calls)
