"""What can be caught? The kinds of error, under the names of Modal's API.

`swell.Error` is the base of all but `InputCancellation`; the `code` of each tells exactly which it is (docs/wire.md).
"""

from __future__ import annotations

from typing import NoReturn

from swell.model.errors import AlreadyExistsError as AlreadyExistsError
from swell.model.errors import AuthError as AuthError
from swell.model.errors import ConnectionError as ConnectionError
from swell.model.errors import DeserializationError as DeserializationError
from swell.model.errors import ExecutionError as ExecutionError
from swell.model.errors import FunctionTimeoutError as FunctionTimeoutError
from swell.model.errors import InternalError as InternalError
from swell.model.errors import InvalidError as InvalidError
from swell.model.errors import NotFoundError as NotFoundError
from swell.model.errors import PermissionDeniedError as PermissionDeniedError
from swell.model.errors import RemoteError as RemoteError
from swell.model.errors import RequestSizeError as RequestSizeError
from swell.model.errors import ResourceExhaustedError as ResourceExhaustedError
from swell.model.errors import SerializationError as SerializationError
from swell.model.errors import ServiceError as ServiceError
from swell.model.errors import SwellError as Error
from swell.model.errors import TimeoutError as TimeoutError
from swell.model.errors import UnimplementedError as UnimplementedError
from swell.wire.context import InputCancellation as InputCancellation

_SANDBOX = "there are no sandboxes yet: catch UnimplementedError"
_WARNING = "no such warning is given: leave it out"

ABSENT: dict[str, str] = {
    "AsyncUsageWarning": _WARNING,
    "ClientClosed": "connections are opened again as needed: catch ConnectionError",
    "ConflictError": "nothing is changed by two at once: catch AlreadyExistsError or InvalidError",
    "DataLossError": "it is told as InternalError",
    "DeprecationError": "former names are refused: catch UnimplementedError or InvalidError",
    "ExecTimeoutError": _SANDBOX,
    "FilesystemExecutionError": _SANDBOX,
    "InteractiveTimeoutError": "there are no interactive sessions: leave it out",
    "InternalFailure": "what may be tried again is RemoteError or ServiceError",
    "LogsFetchError": "logs are read with `swell logs`: leave it out",
    "ModuleNotMountable": "it is told as NotFoundError",
    "MountUploadTimeoutError": "source is sent with the deploy: catch ConnectionError",
    "OutputExpiredError": "a call whose result is kept no longer is not there: catch NotFoundError",
    "SandboxFilesystemDirectoryNotEmptyError": _SANDBOX,
    "SandboxFilesystemError": _SANDBOX,
    "SandboxFilesystemFileTooLargeError": _SANDBOX,
    "SandboxFilesystemIsADirectoryError": _SANDBOX,
    "SandboxFilesystemNotADirectoryError": _SANDBOX,
    "SandboxFilesystemNotFoundError": _SANDBOX,
    "SandboxFilesystemPathAlreadyExistsError": _SANDBOX,
    "SandboxFilesystemPermissionError": _SANDBOX,
    "SandboxTerminatedError": _SANDBOX,
    "SandboxTimeoutError": _SANDBOX,
    "ServerWarning": _WARNING,
    "UserCodeException": "an exception of your own code is raised as itself: catch that",
    "VersionError": "the SDK and the server are one package: leave it out",
    "VolumeUploadTimeoutError": "an upload ends by itself or not at all: catch ConnectionError",
    "WorkspaceManagementError": "there is one workspace per server: leave it out",
    "simulate_preemption": "the node is never taken away: leave it out",
}
"""Name of Modal's API without a meaning here → what to write instead."""

__all__ = [
    "AlreadyExistsError",
    "AuthError",
    "ConnectionError",
    "DeserializationError",
    "Error",
    "ExecutionError",
    "FunctionTimeoutError",
    "InputCancellation",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "PermissionDeniedError",
    "RemoteError",
    "RequestSizeError",
    "ResourceExhaustedError",
    "SerializationError",
    "ServiceError",
    "TimeoutError",
    "UnimplementedError",
]


def __getattr__(name: str) -> NoReturn:
    """A name of Modal's API that is not here says what to catch."""
    if name in ABSENT:
        raise AttributeError(f"There is no swell.exception.{name}: {ABSENT[name]}.")
    raise AttributeError(f"module 'swell.exception' has no attribute {name!r}")
