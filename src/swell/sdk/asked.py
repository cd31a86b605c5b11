"""What did the caller send beside the arguments, and what is the answer to say beside the result?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from swell.model.errors import SwellError
from swell.sdk.signatures import public
from swell.wire import context
from swell.wire.http import OWN_HEADERS

HEADERS_MAX = 32
"""Header lines that one answer may be given."""
HEADERS_BYTES_MAX = 8 * 1024
"""Bytes of all of them."""
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_HIDDEN = frozenset({"authorization", "proxy-authorization", "connection", "te", "expect"})
"""Headers of a request that functions are not given: keys, and what is about one connection."""
_BODILESS = (204, 205, 304)


class Request:
    """The request that is being worked on."""

    def __init__(self, asked: context.Asked, only: tuple[str, ...] | None) -> None:
        self._asked = asked
        self._only = only

    @property
    def id(self) -> str:
        """As `swell why` and `swell logs --request` take it."""
        return self._asked.id

    @property
    def headers(self) -> Mapping[str, str]:
        """What the caller sent, by names in small letters; of several lines under one name, all."""
        found: dict[str, str] = {}
        for raw, value in self._asked.headers:
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            if name not in _HIDDEN and (self._only is None or name in self._only):
                found[name] = f"{found[name]}, {text}" if name in found else text
        return found

    def set_status(self, status: int) -> None:
        """The status of the answer, if all goes well; 200 without."""
        known = isinstance(status, int) and status in {int(each) for each in HTTPStatus if each >= 200}
        if not known or status in _BODILESS:
            words = f"set_status({status!r}): give a status of HTTP from 200 to 511 whose answer has a body."
            raise SwellError("bad_argument", words)
        self._reply().status = int(status)

    def set_header(self, name: str, value: str) -> None:
        """A header of the answer, if all goes well; one of that name from before is replaced."""
        problem = _problem(name, value)
        if problem:
            raise SwellError("bad_argument", f"set_header({str(name)[:80]!r}, …): {problem}.")
        reply = self._reply()
        headers = {known: said for known, said in reply.headers.items() if known.lower() != name.lower()}
        headers[name] = value.encode("latin-1")
        size = sum(len(known) + len(said) + 4 for known, said in headers.items())
        if len(headers) > HEADERS_MAX or size > HEADERS_BYTES_MAX:
            words = f"an answer may be given {HEADERS_MAX} headers and {HEADERS_BYTES_MAX} bytes of them"
            raise SwellError("bad_argument", f"set_header({name!r}, …): {words}.")
        reply.headers = headers

    def _reply(self) -> context.Reply:
        reply = self._asked.reply
        if reply is None:
            reply = self._asked.reply = context.Reply()
        if reply.sent:
            words = "The head of this answer has left: call it before the generator is returned, not within."
            raise SwellError("bad_call", words)
        return reply


def _problem(name: object, value: object) -> str:
    """Why that cannot be a header of an answer; empty: it can."""
    if not isinstance(name, str) or not _NAME.match(name):
        return "a name has letters, digits and dashes"
    if name.lower() in OWN_HEADERS or name.lower().startswith("swell-"):
        return (
            "this one is Swell's to say; a web endpoint (@swell.fastapi_endpoint, @swell.asgi_app) says more of its own"
        )
    if not isinstance(value, str) or not _VALUE.match(value):
        return "a value is a text without line breaks and control characters: encode it first"
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return "a value has characters of Latin-1 alone: encode it first"
    return ""


@public
def current_request() -> Request | None:
    """The request being worked on, to read its headers and to set those of its answer; None outside one, and in a web
    application, which has a request of its own. Modal's SDK has none."""
    current = context.current.get()
    if current is None or (current.asked is None and not current.batch):
        return None
    if current.asked is None:
        words = "A batch is of several requests: ask for each in before= or after= of @swell.transform."
        raise SwellError("bad_call", words)
    method = current.asked.target.decode("latin-1").rpartition("/")[2]
    return Request(current.asked, context.inside[0].depends.get(method) if context.inside else None)
