"""Are frames read and written as two other implementations do, however they are cut, and are bad ones refused?"""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
import wsproto.events as said
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol
from wsproto.connection import Connection, ConnectionType

from swell.wire.websocket import (
    BAD_DATA,
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Ends,
    Messages,
    Violation,
    accept_key,
    close_frame,
    closing,
    frame,
    is_key,
    may_be_sent,
)

MASK = b"\x01\x80\xfe\x3c"

texts = st.tuples(st.just(TEXT), st.text(max_size=300).map(str.encode))
blobs = st.tuples(st.just(BINARY), st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes)))
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
messages = st.lists(st.one_of(texts, blobs, controls), max_size=6)
places = st.lists(st.integers(0, 1_000_000), max_size=8)


def cut(raw: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in at)})
    return [raw[a:b] for a, b in pairwise(edges)]


def read(pieces: list[bytes], most: int = 1 << 20) -> list[tuple[int, Any]]:
    ours = Messages(most)
    return [event for piece in pieces for event in ours.feed(piece)]


def meant(sent: list[tuple[int, bytes]]) -> list[tuple[int, Any]]:
    return [(kind, payload.decode() if kind == TEXT else payload) for kind, payload in sent]


@given(messages, places)
def test_what_another_client_writes_is_read_however_it_is_cut(sent: list[tuple[int, bytes]], at: list[int]) -> None:
    client = Protocol(CLIENT, state=OPEN)
    for kind, payload in sent:
        {TEXT: client.send_text, BINARY: client.send_binary, PING: client.send_ping, PONG: client.send_pong}[kind](
            payload
        )
    raw = b"".join(client.data_to_send())
    assert read(cut(raw, at)) == meant(sent)


@given(messages, places)
def test_what_another_server_writes_is_read_however_it_is_cut(sent: list[tuple[int, bytes]], at: list[int]) -> None:
    server = Protocol(SERVER, state=OPEN)
    for kind, payload in sent:
        {TEXT: server.send_text, BINARY: server.send_binary, PING: server.send_ping, PONG: server.send_pong}[kind](
            payload
        )
    ours = Messages(1 << 20, masked=False)
    raw = b"".join(server.data_to_send())
    assert [event for piece in cut(raw, at) for event in ours.feed(piece)] == meant(sent)


@given(messages)
def test_what_we_write_as_a_client_is_what_another_server_reads(sent: list[tuple[int, bytes]]) -> None:
    server = Protocol(SERVER, state=OPEN)
    for kind, payload in sent:
        server.receive_data(frame(kind, payload, MASK))
    assert [(one.opcode, one.data) for one in server.events_received() if isinstance(one, Frame)] == sent


@pytest.mark.parametrize("masked", [True, False])
def test_each_side_masks_as_it_must(masked: bool) -> None:
    with pytest.raises(Violation, match="Frames of a client are masked") as raised:
        list(Messages(masked=masked).feed(frame(TEXT, b"x", b"" if masked else MASK)))
    assert raised.value.code == PROTOCOL_ERROR


@given(messages, st.integers(1, 200), places)
def test_fragments_are_put_together_with_pings_between_them(
    sent: list[tuple[int, bytes]], step: int, at: list[int]
) -> None:
    raw, pings = b"", 0
    for kind, payload in sent:
        parts = [payload[n : n + step] for n in range(0, len(payload), max(step, len(payload) // 20))] or [b""]
        parts = [payload] if kind & CLOSE else [payload[a:b] for a, b in pairwise(_edges(len(payload), len(parts)))]
        for n, part in enumerate(parts):
            one = frame(kind if not n else CONTINUATION, part, MASK)
            raw += one if n == len(parts) - 1 else bytes((one[0] & 0x7F,)) + one[1:] + frame(PING, b"p", MASK)
            pings += n < len(parts) - 1
    got = read(cut(raw, at))
    assert [event for event in got if event != (PING, b"p")] == [e for e in meant(sent) if e != (PING, b"p")]
    assert got.count((PING, b"p")) == pings + meant(sent).count((PING, b"p"))


@pytest.mark.parametrize("size", [0, 2])
def test_a_message_in_many_small_fragments_takes_no_more_than_it_has(size: int) -> None:
    count = 20_000
    ours = Messages()
    first = frame(BINARY, b"", MASK)
    more = bytes((CONTINUATION,)) + frame(CONTINUATION, b"xy"[:size], MASK)[1:]
    assert list(ours.feed(bytes((BINARY,)) + first[1:])) == []
    tracemalloc.start()
    try:
        for _ in range(count // 1000):
            assert list(ours.feed(more * 1000)) == []
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * count * size + 20_000
    assert list(ours.feed(frame(CONTINUATION, b"z", MASK))) == [(BINARY, b"xy"[:size] * count + b"z")]


def _edges(size: int, count: int) -> list[int]:
    return [size * n // count for n in range(count + 1)]


@given(messages, places)
def test_what_we_write_is_what_two_others_read(sent: list[tuple[int, bytes]], at: list[int]) -> None:
    raw = b"".join(frame(kind, payload) for kind, payload in sent)
    client = Protocol(CLIENT, state=OPEN)
    wsproto_client = Connection(ConnectionType.CLIENT)
    heard: list[tuple[int, Any]] = []
    for piece in cut(raw, at):
        client.receive_data(piece)
        wsproto_client.receive_data(piece)
        for event in wsproto_client.events():
            if isinstance(event, said.Message):
                kind = TEXT if isinstance(event, said.TextMessage) else BINARY
                if heard and heard[-1][0] == -kind:
                    heard[-1] = (-kind, heard[-1][1] + event.data)
                else:
                    heard.append((-kind, event.data if kind == TEXT else bytes(event.data)))
                if event.message_finished:
                    heard[-1] = (kind, heard[-1][1])
            else:
                assert isinstance(event, (said.Ping, said.Pong))
                heard.append((PING if isinstance(event, said.Ping) else PONG, bytes(event.payload)))
    read_by_other = [(one.opcode, one.data) for one in client.events_received() if isinstance(one, Frame)]
    assert read_by_other == sent
    # A control frame may come in the middle of what the other gives out in pieces: order within kinds is kept.
    for kinds in ((TEXT, BINARY), (PING, PONG)):
        assert [e for e in heard if e[0] in kinds] == [e for e in meant(sent) if e[0] in kinds]


@given(st.binary(max_size=40), st.integers(0, 200), places)
def test_damaged_frames_are_refused_or_mean_what_another_server_reads(damage: bytes, where: int, at: list[int]) -> None:
    whole = frame(TEXT, b"hello", MASK) + frame(BINARY, bytes(200), MASK) + frame(PING, b"x", MASK)
    whole += close_frame(1000, "bye", MASK)
    where %= len(whole)
    raw = whole[:where] + damage + whole[where + len(damage) :]
    server = Protocol(SERVER, state=OPEN, max_size=1 << 20)
    server.receive_data(raw)
    read = [one for one in server.events_received() if isinstance(one, Frame)]
    theirs = [(one.opcode, bytes(one.data)) for one in read]
    ours: list[tuple[int, Any]] = []
    refused = None
    messages = Messages(1 << 20)
    try:
        for piece in cut(raw, at):
            for kind, payload in messages.feed(piece):
                ours.append((kind, payload))
                if kind == CLOSE:
                    closing(payload)
                    raise StopIteration
    except Violation as violation:
        refused = violation.code
    except StopIteration:
        pass
    if not all(one.fin for one in read) or not all(f & 0x80 for f in raw[:1]):
        return  # It gives out fragments one by one: compared above.
    for mine, other in zip(ours, theirs, strict=False):
        assert mine == (other[0], other[1].decode() if other[0] == TEXT else other[1])
    if refused is None:
        # What the other refuses beyond that is a length that could have been written shorter, which it lets pass.
        assert server.parser_exc is None or any(kind == CLOSE for kind, _ in ours)


BAD = {
    "a reserved bit": (bytes((0xC1, 0x80)) + MASK, PROTOCOL_ERROR),
    "a reserved kind": (bytes((0x83, 0x80)) + MASK, PROTOCOL_ERROR),
    "a reserved control": (bytes((0x8B, 0x80)) + MASK, PROTOCOL_ERROR),
    "no mask": (frame(TEXT, b"x"), PROTOCOL_ERROR),
    "a control frame in fragments": (bytes((0x09, 0x80)) + MASK, PROTOCOL_ERROR),
    "a long ping": (frame(PING, bytes(126), MASK), PROTOCOL_ERROR),
    "a fragment of nothing": (frame(CONTINUATION, b"x", MASK), PROTOCOL_ERROR),
    "a message within one": (bytes((0x01, 0x80)) + MASK + frame(TEXT, b"x", MASK), PROTOCOL_ERROR),
    "a length that is too long": (bytes((0x82, 0xFE, 0, 5)) + MASK + b"12345", PROTOCOL_ERROR),
    "a length beyond 63 bits": (bytes((0x82, 0xFF)) + b"\xff" * 8 + MASK, PROTOCOL_ERROR),
    "text that is not UTF-8": (frame(TEXT, b"\xc3\x28", MASK), BAD_DATA),
    "text in a surrogate": (frame(TEXT, b"\xed\xa0\x80", MASK), BAD_DATA),
    "a message over the limit": (bytes((0x82, 0xFE)) + (1001).to_bytes(2, "big"), TOO_BIG),
    "a huge message": (bytes((0x82, 0xFF)) + (1 << 40).to_bytes(8, "big"), TOO_BIG),
    "fragments over the limit": (
        b"".join([b"\x02\xe4" + MASK + bytes(100), *[b"\x00\xe4" + MASK + bytes(100)] * 10]),
        TOO_BIG,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_frames_are_refused_as_soon_as_they_are_seen(name: str) -> None:
    raw, code = BAD[name]
    for pieces in ([raw], [raw[n : n + 1] for n in range(len(raw))]):
        with pytest.raises(Violation) as caught:
            read(pieces, 1000)
        assert caught.value.code == code


@given(st.integers(0, 5000), st.text(max_size=200))
def test_a_close_says_what_it_was_given(code: int, reason: str) -> None:
    if not may_be_sent(code):
        with pytest.raises(Violation):
            closing(code.to_bytes(2, "big"))
        return
    ((kind, payload),) = Messages().feed(close_frame(code, reason, MASK))
    assert kind == CLOSE
    assert isinstance(payload, bytes)
    assert closing(payload)[0] == code
    assert reason.startswith(closing(payload)[1])
    assert kind == Opcode.CLOSE
    assert closing(b"") == (NO_STATUS, "")


def test_a_close_that_says_nothing_right() -> None:
    for payload, code in ((b"\x03", PROTOCOL_ERROR), (b"\x03\xec", PROTOCOL_ERROR), (b"\x03\xe8\xff", BAD_DATA)):
        with pytest.raises(Violation) as caught:
            closing(payload)
        assert caught.value.code == code


def test_the_key_of_the_standard() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert is_key(b"dGhlIHNhbXBsZSBub25jZQ==")
    for bad in (b"", b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZQ!!", b"dGhl", b"d" * 24):
        assert not is_key(bad)


@given(messages, st.booleans(), places)
def test_where_frames_end_is_known_however_they_are_cut(
    sent: list[tuple[int, bytes]], masked: bool, at: list[int]
) -> None:
    frames = [frame(kind, payload, MASK if masked else b"") for kind, payload in sent]
    edges = {0}
    for one in frames:
        edges.add(max(edges) + len(one))
    raw = b"".join(frames)
    ends, done = Ends(), 0
    for piece in cut(raw, at):
        assert ends.feed(piece) == len(piece)
        done += len(piece)
        assert ends.between is (done in edges)
    assert not ends.closed
    # One frame at a time: each step ends at an edge.
    ends, done = Ends(), 0
    while done < len(raw):
        done += ends.feed(raw[done:], once=True)
        assert done in edges
    ends.feed(close_frame(1000, "", MASK))
    assert ends.closed
