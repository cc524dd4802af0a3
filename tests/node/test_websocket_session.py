"""One end of a WebSocket without I/O: two ends in memory, and bytes that aren't a WebSocket."""

from __future__ import annotations

import struct
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from node.websocket.session import IDLE_BURST, MAX_FRAME, MAX_MESSAGE, Session
from protocols import ProtocolError

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def client() -> Session:
    return Session.client("127.0.0.1", 80, None, None, 0.0)


def server() -> Session:
    return Session.server(None, 0.0)


def opened() -> tuple[Session, Session]:
    one, other = client(), server()
    assert other.receive(one.output(), 0.0) == []
    assert one.receive(other.output(), 0.0) == []
    assert one.opened
    assert other.opened
    return one, other


def open_server(headers: bytes = b"") -> Session:
    session = server()
    session.receive(REQUEST + headers + b"\r\n", 0.0)
    assert session.output().startswith(b"HTTP/1.1 101 ")
    return session


def frame(opcode: Opcode, data: bytes = b"", **bits: bool) -> bytes:
    """As a client sends it."""
    return Frame(opcode, data, **bits).serialize(mask=True)


def refused(session: Session, data: bytes) -> tuple[str, bytes]:
    """Why the session ends, and its answer."""
    with pytest.raises(ProtocolError) as error:
        session.receive(data, 0.0)
    return str(error.value), session.output()


@given(st.integers())
@settings(max_examples=50)
def test_bytes_come_as_they_were_sent_whatever_the_pieces(seed):
    random = Random(seed)
    for one, other in (opened(), opened()[::-1]):
        sent = b""
        for size in (1, random.randint(2, 125), random.randint(126, 70_000), MAX_FRAME):
            message = random.randbytes(size)
            one.send(message)
            sent += message
        wire, got = one.output(), b""
        while wire:
            size = random.choice([1, 5, 100, 10_000, 100_000])
            got += b"".join(other.receive(wire[:size], 0.0))
            wire = wire[size:]
        assert got == sent


def test_fragments_are_one_stream():
    session = open_server()
    wire = frame(Opcode.BINARY, b"a", fin=False) + frame(Opcode.PING, b"?") + frame(Opcode.CONT, b"b")
    assert b"".join(session.receive(wire, 0.0)) == b"ab"
    assert session.output() == Frame(Opcode.PONG, b"?").serialize(mask=False)


def test_the_end_is_told_and_answered():
    one, other = opened()
    one.end()
    one.end()
    assert other.receive(one.output(), 0.0) == []
    assert other.ended
    one.receive(other.output(), 0.0)
    assert one.ended
    for session in (one, other):
        session.end()
        assert session.output() == b""
        with pytest.raises(BrokenPipeError):
            session.send(b"late")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (b"GET /index.html HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET nonsense\r\n\r\n", 400),
        (b"\x00\x01\x02\r\n\r\n", 400),
        (REQUEST.replace(b"13", b"12") + b"\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (REQUEST + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (REQUEST + b"X: a\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_gets_an_answer_of_http(request_, status):
    _, answer = refused(server(), request_)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body


def test_headers_without_an_end_are_bounded():
    session = server()
    session.receive(b"GET / HTTP/1.1\r\n", 0.0)
    for _ in range(128):
        session.receive(b"X: " + b"a" * 4000 + b"\r\n", 0.0)
    reason, _ = refused(session, b"X: a\r\n")
    assert "128 headers" in reason


def test_compression_is_never_agreed_on():
    session = server()
    session.receive(REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 0.0)
    assert b"extensions" not in session.output().lower()
    reason, answer = refused(session, b"\xc2\x88" + bytes(12))
    assert "reserved bits" in reason
    assert answer[:4] == b"\x88" + answer[1:2] + struct.pack("!H", 1002)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x82\x7f" + struct.pack("!Q", 1 << 40), 1002),  # and unmasked
        (b"\x82\xff" + struct.pack("!Q", MAX_MESSAGE + 1), 1009),
        (frame(Opcode.BINARY, bytes(MAX_MESSAGE - 10), fin=False) + b"\x80\x8b", 1009),
        (Frame(Opcode.BINARY, b"unmasked").serialize(mask=False), 1002),
        (frame(Opcode.TEXT, b"text"), 1003),
        (frame(Opcode.CONT, b"of nothing"), 1002),
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is none
        (b"\x89\xfe\x00\x80" + bytes(132), 1002),  # a ping of 128 bytes
        (frame(Opcode.PING) * (int(IDLE_BURST) + 1), 1008),
        (frame(Opcode.PONG) * (int(IDLE_BURST) + 1), 1008),
        (frame(Opcode.BINARY) * (int(IDLE_BURST) + 1), 1008),
    ],
)
def test_frames_that_break_the_rules_end_it_with_a_reason(wire, code):
    session = open_server()
    _, answer = refused(session, wire)
    assert struct.pack("!H", code) in answer
    assert len(answer) < 1000


def test_a_ping_now_and_then_is_answered():
    session = open_server()
    for second in range(500):
        session.receive(frame(Opcode.PING, b"x"), float(second))
    assert session.output().count(b"\x8a\x01x") == 500


def test_a_server_that_is_none_is_told():
    reason, _ = refused(client(), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert "404" in reason
    reason, _ = refused(client(), b"\x13/multistream/1.0.0\n\r\n")
    assert "HTTP response" in reason


@settings(max_examples=200)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_frames_or_one_error(data, before):
    session = server() if before else open_server()
    with suppress(ProtocolError):
        session.receive(data, 0.0)
        session.receive(data, 0.0)
    session.output()
    answering = client()
    with suppress(ProtocolError):
        answering.receive(data, 0.0)
