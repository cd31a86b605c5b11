"""What is a request told that has no way in? An error, and the header lines that go with that."""

from __future__ import annotations

from swell.decide.route import POST, NoRoute, wrong_method
from swell.gateway.request import Request
from swell.model.errors import SwellError
from swell.model.workload import Web

_ASK_LINE = b"www-authenticate: Bearer\r\n"
_SOCKET_KINDS = ("asgi", "server")


def refuse(request: Request, refused: SwellError) -> None:
    """Its key, host or page may not have it."""
    request.fail(refused.status, refused.code, refused.message, _ASK_LINE if refused.status == 401 else b"")


def lead_nowhere(request: Request, found: NoRoute) -> None:
    """Nothing is there that can be asked for so. A wrong HTTP method is told first, whatever else is wrong."""
    if found.allow and found.allow.encode() != request.method:
        found = wrong_method(found.allow)
    lines = f"allow: {found.allow}\r\n".encode() if found.status == 405 else b""
    request.fail(found.status, found.code, found.message, lines)


def not_posted(request: Request) -> None:
    """What is called is called with POST."""
    lead_nowhere(request, wrong_method(POST))


def not_queued(request: Request) -> bool:
    """Refuse to have somebody wait for what a gang works on."""
    words = (
        "Several replicas work on each call of this function, so it waits in the queue: send Swell-Async: true, or use "
        ".spawn() or `swell job run APP/FUNCTION`."
    )
    request.fail(400, "is_job", words)
    return True


def no_socket(request: Request, web: Web | None) -> bool:
    """Refuse a WebSocket of what takes none."""
    if not request.websocket or (web is not None and web.kind in _SOCKET_KINDS):
        return False
    words = "Only @asgi_app and @web_server take WebSockets, and this is neither: use HTTP, or stream the answer."
    request.fail(501, "no_websocket", words)
    return True


def not_told(request: Request) -> None:
    """Control has not said yet what is deployed."""
    message = "What is deployed is not known here yet: control has not been heard. Try again in a moment."
    request.fail(503, "control_down", message, b"retry-after: 1\r\n")


def not_begun(request: Request) -> None:
    """The gateway has not all its parts yet."""
    request.fail(503, "control_down", "The gateway has only just begun. Try again in a moment.", b"retry-after: 1\r\n")
