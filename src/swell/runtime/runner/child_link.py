"""How does the runner speak with one process of its own? Frames on a socket, with descriptors beside them."""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from swell.model.errors import SwellError
from swell.wire.child import Down, Up
from swell.wire.frames import FRAME_MAX, Unpacker, pack

log = logging.getLogger("swell.runner")

UNSENT_MAX = 1 << 20
"""With more than that unread by a process nothing is said to it."""
_CHUNK = 64 * 1024
_FDS_MAX = 8
_FDS_LEFT_MAX = 1
"""Descriptors that no message has taken yet: a message that brings one may not be whole."""
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class ChildLink:
    """The runner's end of a channel."""

    def __init__(self, sock: socket.socket, frame_max: int = FRAME_MAX) -> None:
        """`frame_max`: bytes of the largest message that is taken, until `trust`."""
        self.heard: Callable[[Up, deque[int]], None] = lambda _message, _fds: None
        """Gets each message, with the descriptors that came so far: take from the left what it brings."""
        self.ended: Callable[[], None] = lambda: None
        """The other side hung up, or sent what cannot be understood."""
        self.name = "a process"
        """Who the other side is, once that is known."""
        self._sock = sock
        self._unpacker: Unpacker[Up] = Unpacker(Up, frame_max)
        self._unsent = bytearray()
        self._fds: deque[int] = deque()
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def peer_pid(self) -> int | None:
        """Who connected, as the kernel knows it; None where it does not tell."""
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        return int(struct.unpack("3i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    def trust(self) -> None:
        """It is one of ours: it may say as much as any."""
        self._unpacker.frame_max = FRAME_MAX

    @property
    def unsent(self) -> int:
        """Bytes that it has not taken yet."""
        return len(self._unsent)

    def send(self, message: Down, fds: Sequence[int] = ()) -> None:
        """Send a message and, with its first byte, descriptors. Never waits. The descriptors stay the caller's.

        Raises OSError when it cannot be taken now: the peer is gone, or does not read.
        """
        frame = pack(message)
        sent = 0
        if self._unsent:
            if fds or len(self._unsent) > UNSENT_MAX:
                raise BlockingIOError("the process does not read its channel")
        else:
            try:
                sent = socket.send_fds(self._sock, [frame], fds) if fds else self._sock.send(frame)
            except BlockingIOError:
                if fds:
                    raise
        if sent < len(frame):
            self._unsent += frame[sent:]
            asyncio.get_running_loop().add_writer(self._sock.fileno(), self._writable)

    def close(self) -> None:
        """Hang up. `ended` is not called for it."""
        if self._sock.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._fds:
            os.close(self._fds.popleft())

    def drain(self) -> None:
        """Take in everything that has arrived: a process may have said why it ends just before it did.

        What arrives meanwhile is not waited for: what it left behind may hold its end, and speak on for ever.
        """
        left = held(self._sock.fileno()) if self._sock.fileno() >= 0 else 0
        while left > 0 and self._sock.fileno() >= 0 and (took := self._readable()):
            left -= took

    def _readable(self) -> int:
        """Read once; returns how many bytes were understood."""
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _CHUNK, _FDS_MAX, _CLOEXEC)
        except BlockingIOError:
            return 0
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if data:
            try:
                for message in self._unpacker.feed(data):
                    self.heard(message, self._fds)
                if len(self._fds) > _FDS_LEFT_MAX:
                    raise SwellError("descriptors", "It sent descriptors that no message takes.")
                return len(data)
            except (msgspec.DecodeError, SwellError) as error:
                log.warning("%s sent what cannot be understood, and is hung up on: %s", self.name, error)
        if self._sock.fileno() >= 0:
            self.close()
            self.ended()
        return 0

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._sock.fileno())


def held(descriptor: int) -> int:
    """Bytes that a pipe or a stream socket has to be read now."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
