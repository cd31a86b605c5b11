"""What may functions know that nobody else is to see? Secrets: by their names on the server, or with values from here.

Values are read when the app is deployed, and never in a replica: there they are environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from swell.model.errors import SwellError
from swell.model.secret import problems
from swell.sdk import disk, dotenv
from swell.sdk.marks import Given
from swell.sdk.refusal import check_name, refuse
from swell.sdk.signatures import public
from swell.sdk.unavailable import Later, stand_in


class Secret:
    """Environment variables for the functions that name it: `secrets=[swell.Secret.from_name("db")]`."""

    def __init__(
        self,
        shown: str,
        name: str = "",
        namespace: str | None = None,
        required: tuple[str, ...] = (),
        read: Callable[[], dict[str, str]] | None = None,
    ) -> None:
        """Made by its static methods. `read`: where its values are brought along."""
        self._shown = shown
        self.name = name
        """On the server; empty where its values are brought along."""
        self.namespace = namespace
        self.required = required
        self.read = read

    def __repr__(self) -> str:
        return f"swell.Secret.{self._shown}"

    @staticmethod
    @public
    def from_name(
        name: str, *, environment_name: str | None = None, required_keys: Sequence[str] = (), client: None = None
    ) -> Secret:
        """One that `swell secret create` made. Replicas always have its newest version."""
        refuse(Given("Secret.from_name", locals().copy()))
        check_name("Secret.from_name", "secret", name, environment_name)
        required = _variables("Secret.from_name(required_keys=…)", required_keys)
        return Secret(f"from_name({name!r})", name, environment_name, tuple(sorted(set(required))))

    @staticmethod
    @public
    def from_dict(env_dict: Mapping[str, str | None] = {}) -> Secret:
        """Values of the program's own, kept (sealed) for its app when it is deployed."""
        if not isinstance(env_dict, Mapping):
            raise SwellError("bad_argument", "Secret.from_dict: give names and values, like {'NAME': 'value'}.")
        for key, value in env_dict.items():
            if not isinstance(key, str) or not isinstance(value, (str, type(None))):
                raise SwellError("bad_argument", f"Secret.from_dict: {key!r} and its value must be text.")
        values = {key: value for key, value in env_dict.items() if value is not None}
        return Secret(f"from_dict({{{', '.join(map(repr, values))}}})", read=values.copy)

    @staticmethod
    @public
    def from_local_environ(env_keys: Sequence[str]) -> Secret:
        """Variables of the program that deploys."""
        env_keys = _variables("Secret.from_local_environ(env_keys)", env_keys)

        def read() -> dict[str, str]:
            missing = [key for key in env_keys if key not in os.environ]
            if missing:
                raise SwellError(
                    "bad_argument", f"Secret.from_local_environ: {', '.join(missing)} is not set here: export it first."
                )
            return {key: os.environ[key] for key in env_keys}

        return Secret(f"from_local_environ({list(env_keys)!r})", read=read)

    @staticmethod
    @public
    def from_dotenv(path: str | Path | None = None, *, filename: str = ".env", client: None = None) -> Secret:
        """Variables of a .env file: the one in the working directory or, with `path`, in that folder (of that file); or
        the nearest above."""
        refuse(Given("Secret.from_dotenv", locals().copy()))
        begin = Path.cwd() if path is None else _path("path", path).absolute()
        _path("filename", filename)

        def read() -> dict[str, str]:
            folder = begin if begin.is_dir() else begin.parent
            for place in (folder, *folder.parents):
                if (place / filename).is_file():
                    return dotenv.parse(disk.text("The file", place / filename), str(place / filename))
            raise SwellError("no_such_file", f"Secret.from_dotenv: no {filename} in {folder}, nor above it.")

        return Secret(f"from_dotenv(filename={filename!r})", read=read)

    objects = Later("objects", (), {"__doc__": "Secrets are made, listed and deleted with `swell secret`."})


def _variables(what: str, given: object) -> tuple[str, ...]:
    names = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise SwellError("bad_argument", f"{what}: give a list of variables' names.")
    return names


def _path(argument: str, given: object) -> Path:
    if not isinstance(given, str | os.PathLike):
        words = f"Secret.from_dotenv({argument}={given!r}): give it as text, or as a pathlib.Path."
        raise SwellError("bad_argument", words)
    return Path(given)


def given_secrets(given: Given) -> tuple[Secret, ...]:
    """What secrets= says."""
    said = given.values["secrets"] or ()
    wrong = [each for each in said if not isinstance(each, Secret)] if isinstance(said, Collection) else [said]
    if wrong:
        # Its kind alone: it may be a value that was meant for one.
        kind = type(wrong[0]).__name__
        raise SwellError(
            "bad_argument",
            f"{given.callable}(secrets=[…]): give swell.Secret objects in a list, not one of type {kind}.",
        )
    return tuple(said)


def values(secret: Secret) -> dict[str, str]:
    """Those that are brought along, read now. SwellError where they cannot be."""
    read = secret.read
    assert read is not None
    found = read()
    wrong = problems(found)
    if wrong:
        raise SwellError("bad_argument", f"{secret!r} cannot be a secret: {'; '.join(wrong)}.")
    return found


stand_in(
    Secret,
    {
        "create_deployed": "Secrets are made with `swell secret create`.",
        "from_id": "Secrets are found by their names: Secret.from_name(name).",
        "hydrate": "There is nothing to look up before a deploy: leave it out.",
        "info": "Secrets are listed with `swell secret list`.",
        "lookup": "Secret.lookup() is called Secret.from_name() now.",
        "update": "Secrets are given new values with `swell secret rotate`.",
    },
)
