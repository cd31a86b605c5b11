"""What is a WebSocket on the wire (RFC 6455)? Its handshake's key, its frames both ways, and where frames end.

Pure: bytes in, messages or bytes out. Nothing is compressed, since no extension is ever agreed on here; what the
two ends of a foreign process agree on is between them, and the lengths of frames mean the same with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
"""What a Close without a code means; never sent."""
ABNORMAL = 1006
"""The connection ended without a Close; never sent."""
BAD_DATA = 1007
POLICY = 1008
TOO_BIG = 1009
INTERNAL = 1011

MESSAGE_MAX = 16 * 1024 * 1024
"""Bytes of one message, over all its frames."""
CONTROL_MAX = 125
"""Bytes of a Ping, a Pong or a Close; two of a Close are its code."""
VERSION = b"13"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEAD_MAX = 14
_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_BAD_FRAME = "The frame is not one of RFC 6455: "


class Violation(Exception):
    """The peer broke the protocol, or sent too much: the connection is closed with this code and these words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def accept_key(key: bytes) -> bytes:
    """What a handshake with this key is answered with."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def is_key(value: bytes) -> bool:
    """Are these the sixteen random bytes of a handshake, in base64?"""
    try:
        return len(value) == 24 and len(binascii.a2b_base64(value, strict_mode=True)) == 16
    except binascii.Error:
        return False


def frame(kind: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One whole frame; a client's has a mask of four bytes."""
    size = len(payload)
    masked = _MASKED if mask else 0
    if size < 126:
        head = bytes((_FIN | kind, masked | size))
    elif size < 65536:
        head = bytes((_FIN | kind, masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | kind, masked | 127)) + size.to_bytes(8, "big")
    return head + mask + _unmasked(payload, mask) if mask else head + payload


def close_frame(code: int, reason: str = "", mask: bytes = b"") -> bytes:
    """A Close; of a long reason the beginning. `NO_STATUS` makes one without a code."""
    if code == NO_STATUS:
        return frame(CLOSE, b"", mask)
    # Cut by bytes, never within a character.
    words = reason.encode()[: CONTROL_MAX - 2].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + words, mask)


def closing(payload: bytes) -> tuple[int, str]:
    """The code and the reason in a Close. Raises Violation."""
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_be_sent(code):
        raise Violation(PROTOCOL_ERROR, "The Close has no code that may be sent.")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise Violation(BAD_DATA, "The reason of the Close is not UTF-8.") from None


def may_be_sent(code: int) -> bool:
    """Is it a close code that means something on the wire: of the standard, of a registered library, or of an app's?"""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class Messages:
    """What the bytes of one side say. Fragments are put together; at most `most` bytes of one message are kept."""

    def __init__(self, most: int = MESSAGE_MAX, masked: bool = True) -> None:
        """`masked`: it is a client's side; a server's has no masks."""
        self._most = most
        self._mask = 4 if masked else 0
        """Bytes of a frame's mask."""
        self._buffer = bytearray()
        self._kind = CONTINUATION
        """Of the message whose fragments are being gathered; CONTINUATION: none is."""
        self._gathered = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | str]]:
        """Each message and control frame that is whole now: its kind with its text or bytes. Raises Violation."""
        buffer = self._buffer
        buffer += data
        at = 0
        while (found := self._head(at)) is not None:
            final, kind, start, size = found
            end = start + size
            if len(buffer) < end:
                break
            payload = bytes(buffer[start:end])
            if self._mask:
                payload = _unmasked(payload, bytes(buffer[start - 4 : start]))
            at = end
            if kind & CLOSE:
                yield kind, payload
            elif final and kind:
                yield kind, _read(kind, payload)
            else:
                yield from self._fragment(final, kind, payload)
        del buffer[:at]

    def _fragment(self, final: bool, kind: int, payload: bytes) -> Iterator[tuple[int, bytes | str]]:
        self._kind = kind or self._kind
        self._gathered += payload
        if final:
            whole, kind = bytes(self._gathered), self._kind
            self._gathered, self._kind = bytearray(), CONTINUATION
            yield kind, _read(kind, whole)

    def _head(self, at: int) -> tuple[bool, int, int, int] | None:
        """The next frame: whether it ends its message, its kind, where its payload begins and how long that is."""
        head = self._buffer[at : at + _HEAD_MAX]
        if len(head) < 2:
            return None
        kind, size = head[0] & 0x0F, head[1] & 0x7F
        final = bool(head[0] & _FIN)
        self._check(head, final, kind, size)
        start = 2
        if size > CONTROL_MAX:
            start = 4 if size == 126 else 10
            if len(head) < start:
                return None
            least = 126 if size == 126 else 65536
            size = int.from_bytes(head[2:start], "big")
            if size < least or size >> 63:
                raise Violation(PROTOCOL_ERROR, _BAD_FRAME + "its length is not written as it must be.")
            if len(self._gathered) + size > self._most:
                raise Violation(TOO_BIG, f"A message may have {self._most} bytes.")
        if len(head) < start + self._mask:
            return None
        return final, kind, at + start + self._mask, size

    def _check(self, head: bytearray, final: bool, kind: int, size: int) -> None:
        if head[0] & _RESERVED:
            raise Violation(PROTOCOL_ERROR, _BAD_FRAME + "a reserved bit is set, and no extension was agreed on.")
        if kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise Violation(PROTOCOL_ERROR, _BAD_FRAME + "its kind is reserved.")
        if bool(head[1] & _MASKED) is not bool(self._mask):
            raise Violation(PROTOCOL_ERROR, "Frames of a client are masked, and those of a server are not.")
        if kind & CLOSE:
            if not final or size > CONTROL_MAX:
                raise Violation(PROTOCOL_ERROR, _BAD_FRAME + "a control frame is whole and has 125 bytes at most.")
        elif (kind == CONTINUATION) is (self._kind == CONTINUATION):
            raise Violation(PROTOCOL_ERROR, _BAD_FRAME + "a fragment that is not in its turn.")
        elif len(self._gathered) + min(size, CONTROL_MAX) > self._most:
            raise Violation(TOO_BIG, f"A message may have {self._most} bytes.")


class Ends:
    """Where frames end in the bytes that pass one way. It keeps none of them, and refuses nothing."""

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a frame whose length is not known yet."""
        self._left = 0
        """Bytes of the current frame that are still to come."""
        self.closed = False
        """A Close has begun to pass."""

    @property
    def between(self) -> bool:
        """The next byte begins a frame."""
        return not self._left and not self._head

    def feed(self, data: bytes, once: bool = False) -> int:
        """Take note of bytes: all of them or, with `once`, those to the first end of a frame. How many that were."""
        at, size = 0, len(data)
        while at < size:
            if not self._left:
                at = self._begin(data, at)
            step = min(self._left, size - at)
            at += step
            self._left -= step
            if once and self.between:
                break
        return at

    def _begin(self, data: bytes, at: int) -> int:
        """Read a frame's head as far as it came; where its payload begins."""
        had = len(self._head)
        head = self._head + data[at : at + _HEAD_MAX - had]
        short = head[1] & 0x7F if len(head) > 1 else 0
        wide = 2 if short == 126 else 8 if short == 127 else 0
        need = 2 + wide + (4 if len(head) > 1 and head[1] & _MASKED else 0)
        if len(head) < need:
            self._head = head
            return at + len(head) - had
        self._head = b""
        self._left = int.from_bytes(head[2 : 2 + wide], "big") if wide else short
        self.closed = self.closed or head[0] & 0x0F == CLOSE
        return at + need - had


def _read(kind: int, payload: bytes) -> bytes | str:
    if kind != TEXT:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Violation(BAD_DATA, "A text message is not UTF-8.") from None


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    """The payload with its mask put on or, which is the same, taken off: as one number, in C."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")
