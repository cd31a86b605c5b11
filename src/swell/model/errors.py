"""What can go wrong in words a user can act on: one base with a stable code, and the kinds that can be caught."""

from __future__ import annotations

import builtins
import copyreg
from typing import Any, Self


class SwellError(Exception):
    """An error with a stable `code`, a sentence for people, and the HTTP `status` it maps to.

    `message` says what is wrong and names the way out. `detail` may hold more lines
    (a traceback, say) and is never needed to understand the message. `request` is the id of the request
    that failed, for `swell why` and `swell logs --request`; empty where there was none.

    Its code decides which kind is made, as an `OSError`'s errno does: `SwellError("unknown_app", …)` is a
    `NotFoundError`. Users know it as `swell.Error`, and the kinds as `swell.exception.NotFoundError` and so on.
    Their own, and of classes below it, are made as any exception is, `Error("what is wrong")`: without a code.
    """

    code = ""
    message = ""
    status = 400
    detail = ""
    request = ""
    problems: tuple[tuple[str, str], ...] = ()
    """Of a value that does not fit: each place in it (a JSON path), and what is wrong there."""

    def __new__(cls, *args: Any, **_kwargs: Any) -> Self:
        # One argument alone is the message, whatever it says.
        known = cls is SwellError and len(args) > 1 and isinstance(args[0], str)
        kind = _KINDS.get(args[0], cls) if known else cls
        made: Self = super(SwellError, kind).__new__(kind)  # type: ignore[assignment]
        # Should a class of the user's not call our `__init__`.
        made.args = args
        return made

    def __init__(
        self, code: str = "", message: str | None = None, *, status: int = 400, detail: str = "", request: str = ""
    ) -> None:
        if message is None:
            code, message = "", str(code)
        elif not isinstance(code, str):
            # A user's own, as any exception may have two arguments: no code of ours.
            code = ""
        super().__init__(message)
        # What is an OSError too does not do it.
        self.args = (message,)
        self.code = code
        self.message = message
        self.status = status
        self.detail = detail
        self.request = request

    def __reduce__(self) -> tuple[Any, ...]:
        # It crosses processes (pools, replicas), where `__init__` must not be called with `args` alone.
        return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


class AlreadyExistsError(SwellError):
    """Another has that name already."""


class AuthError(SwellError):
    """The API key is missing, another server's, expired or revoked."""


class ConnectionError(SwellError, builtins.ConnectionError):
    """The server cannot be reached, or the connection to it broke off."""


class DeserializationError(SwellError):
    """A result cannot be made here out of what was sent."""


class ExecutionError(SwellError):
    """It cannot run: its app does not, or its code cannot be imported."""


class InternalError(SwellError):
    """A fault of the server's own, or of its state directory."""


class InvalidError(SwellError):
    """What was asked for makes no sense, or does not fit."""


class NotFoundError(SwellError):
    """There is nothing of that name."""


class PermissionDeniedError(SwellError):
    """Not with that key, or not from there: another page, a host name that is not served."""


class RemoteError(SwellError):
    """The call failed in its replica, or no replica could be had.

    An exception of the user's own code is raised as itself; only one that cannot be made here becomes this.
    """


class RequestSizeError(SwellError):
    """What was to be sent is too large."""


class ResourceExhaustedError(SwellError):
    """A limit is reached: too many calls wait, or the disk is full."""


class SerializationError(SwellError):
    """An argument or result cannot be sent."""


class ServiceError(SwellError):
    """The server answers and cannot do it now."""


class TimeoutError(SwellError, builtins.TimeoutError):
    """It took longer than it may."""


class FunctionTimeoutError(TimeoutError):
    """A call took longer than its function's `timeout=`, or than its caller waits."""


class UnimplementedError(SwellError):
    """A part of Modal's API that is not here."""


BRIEF_MAX = 300
"""Characters of others' words in a sentence of ours."""


def brief(said: str) -> str:
    """What a user's code said, to stand in a sentence of ours: its first line, and of a long one the beginning."""
    first = said.partition("\n")[0]
    return first if len(first) <= BRIEF_MAX else first[: BRIEF_MAX - 1].rstrip() + "…"


CODES: dict[type[SwellError], tuple[str, ...]] = {
    AlreadyExistsError: (
        *("app_taken", "file_exists", "key_ambiguous", "key_taken", "label_taken", "model_taken", "secret_exists"),
        *("volume_exists", "dict_exists", "queue_exists"),
    ),
    AuthError: ("bad_key", "bad_signature", "key_expired", "key_revoked", "no_key"),
    ConnectionError: ("connection_lost", "no_server", "server_failed", "stream_cut"),
    DeserializationError: ("cannot_unpickle",),
    ExecutionError: ("import", "no_http_client", "not_running", "not_started"),
    FunctionTimeoutError: ("deadline",),
    InternalError: (
        *("internal", "row_refused", "state_closed", "state_damaged", "state_failed", "state_locked"),
        *("state_not_writable", "state_unreadable", "secret_sealed", "backup_broken"),
    ),
    InvalidError: (
        *("ambiguous", "bad_argument", "bad_arguments", "bad_body", "bad_call", "bad_class", "bad_decorator"),
        *("bad_event", "bad_option", "bad_parameter", "missing_parameter", "unknown_parameter"),
        *(
            "bad_digest",
            "bad_file_name",
            "bad_function",
            "bad_limit",
            "bad_name",
            "bad_request",
            "bad_scope",
            "bad_setting",
            "bad_traffic",
            "bundle_clash",
            "empty_app",
        ),
        *(
            "in_a_replica",
            "invalid",
            "is_generator",
            "is_job",
            "is_web",
            "method_not_allowed",
            "name_taken",
            "needs_asyncio",
        ),
        *(
            "never_fits",
            "group_ended",
            "not_ended",
            "not_failed",
            "no_name",
            "no_request_id",
            "no_source_file",
            "not_generator",
            "secret_in_use",
            "secret_lacks",
            "wrong_digest",
        ),
        *("bad_path", "is_folder", "no_file", "no_such_folder", "not_mounted", "volume_busy", "volume_in_use"),
    ),
    NotFoundError: (
        *("no_app", "no_input", "no_source", "no_such_file", "no_such_module", "not_found", "not_kept", "not_yet"),
        *(
            "nothing_staged",
            "source_lost",
            "unknown_app",
            "unknown_blob",
            "unknown_function",
            "unknown_secret",
            "unknown_key",
            "unknown_path",
        ),
        *("unknown_variant", "unknown_version", "unknown_volume", "unknown_dict", "unknown_queue", "unknown_call"),
        "unknown_trigger",
    ),
    PermissionDeniedError: ("bad_host", "bad_origin", "isolated", "no_scope"),
    RemoteError: (
        *(
            "bad_batch",
            "cancelled",
            "drained",
            "environment",
            "exception",
            "lease_expired",
            "no_replica",
            "replica_died",
        ),
    ),
    RequestSizeError: (
        *("blob_too_large", "body_too_large", "bundle_too_large", "headers_too_large", "value_too_large"),
    ),
    ResourceExhaustedError: (
        *("backup_under_way", "blobs_full", "busy", "held_too_long", "rate_limited", "results_full", "state_full"),
        *("too_many_held", "too_many_in_flight", "too_many_queued", "too_many_variants", "volume_full"),
        *("dict_full", "queue_full", "too_many_collections", "too_many_partitions"),
    ),
    SerializationError: ("bad_result", "cannot_pickle"),
    ServiceError: (
        *("bad_answer", "control_down", "deploy_failed", "no_runner", "runner_lost", "state_unreachable", "stopping"),
        *("trigger_broken", "trigger_paused"),
    ),
    TimeoutError: ("no_answer", "slow_client"),
    UnimplementedError: ("no_websocket", "not_available", "unsupported_argument"),
}
"""Kind → the codes it stands for, of those that users meet. What has no kind is a plain `swell.Error`."""

_KINDS = {code: kind for kind, codes in CODES.items() for code in codes}
KNOWN_CODES = frozenset({*_KINDS, "client_left"})
"""With the one that nobody is answered."""

# As users know them, and as they stand in front of an uncaught one's message.
SwellError.__module__, SwellError.__name__, SwellError.__qualname__ = "swell", "Error", "Error"
for _kind in CODES:
    _kind.__module__ = "swell.exception"
