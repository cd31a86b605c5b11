"""How typed messages travel over a stream socket: a 4-byte big-endian length, then msgpack.

No I/O here: `pack` gives bytes to send, `Unpacker.feed` takes bytes received.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from swell.model.errors import SwellError

FRAME_MAX = 64 * 1024 * 1024
"""A frame larger than this is a broken or hostile peer: the link is closed."""

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


def pack(message: Any) -> bytes:
    """One message as a frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


class Unpacker(Generic[T]):
    """Frames back into messages of the (tagged union) type it was made for."""

    def __init__(self, kind: Any, frame_max: int = FRAME_MAX) -> None:
        self.frame_max = frame_max
        """Bytes of the largest frame that is taken."""
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that `data` completes."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4], "big")
            if size > self.frame_max:
                raise SwellError(
                    "frame_too_large", f"A peer sent a frame of {size} bytes; at most {self.frame_max} are taken."
                )
            if len(buffer) < 4 + size:
                return
            body = bytes(buffer[4 : 4 + size])
            del buffer[: 4 + size]
            yield self._decoder.decode(body)
