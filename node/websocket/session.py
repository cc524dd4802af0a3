"""One end of a WebSocket, plain or over TLS: bytes of the socket in, bytes of the stream out, and back. No I/O.

    socket --> TLS (wss only) --> HTTP request and response, then frames --> bytes

The bytes of libp2p's stream go in binary messages whose boundaries mean nothing (https://www.rfc-editor.org/rfc/rfc6455).
`websockets`' sans-IO core reads and writes the frames, the standard library's `ssl` is the TLS. Extensions, compression
among them, are never agreed on.

    OPENING --agreed--> OPEN --a close frame, a fault--> ended

A fault is a ProtocolError, and what `output` gives then is the answer: an HTTP error, a close frame, an alert. Bounded:
what waits for the rest of its message (`MAX_MESSAGE`), headers (128 lines of 8 KiB), frames that carry nothing. Time is
the caller's.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidMessage
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from protocols import ProtocolError
from protocols.rate import TokenBucket

# other implementations send a Noise message or a few in each
MAX_MESSAGE = 1 << 20
# of ours
MAX_FRAME = 256 * 1024
# bytes that are looked at in one go: with the smallest frames that is 1,300 of them
PIECE = 8 * 1024
# frames without bytes for the stream, pings before all: a second, and at once
IDLE_RATE = 10.0
IDLE_BURST = 100.0
Bytes = bytes | bytearray
_RECORD = 64 * 1024
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 42\r\n\r\n"
    b"Expected a WebSocket request of HTTP/1.1.\n"
)

# strangers' faults are told by errors; its own lines would be one for each connection
_log = logging.getLogger("node.websocket.frames")
_log.setLevel(logging.CRITICAL)


class Session:
    """`opened` says when bytes may be sent, `ended` when none will come."""

    def __init__(self, frames: ClientProtocol | ServerProtocol, tls: Tls | None, now: float) -> None:
        self.ended = False
        self._frames = frames
        self._tls = tls
        self._idle = TokenBucket(IDLE_RATE, IDLE_BURST, now)
        self._out: list[bytes] = []

    @classmethod
    def server(cls, context: ssl.SSLContext | None, now: float) -> Session:
        """The side that is asked; over TLS with a context."""
        tls = Tls(context, server_side=True) if context else None
        return cls(ServerProtocol(max_size=MAX_MESSAGE, logger=_log), tls, now)

    @classmethod
    def client(cls, host: str, port: int, context: ssl.SSLContext | None, sni: str | None, now: float) -> Session:
        """The side that asks, whose request is there to be sent; with a context over TLS with whoever is `sni`."""
        tls = Tls(context, server_side=False, name=sni or host) if context else None
        name = f"[{host}]" if ":" in host else host
        frames = ClientProtocol(
            parse_uri(f"{'wss' if context else 'ws'}://{name}:{port}/"), max_size=MAX_MESSAGE, logger=_log
        )
        frames.send_request(frames.connect())
        session = cls(frames, tls, now)
        session._collect()
        return session

    @property
    def opened(self) -> bool:
        return self._frames.state is State.OPEN

    def output(self) -> bytes:
        """What is to be sent now, in the order of calls; b"" for nothing."""
        out, self._out = b"".join(self._out), []
        return out

    def receive(self, data: bytes | memoryview, now: float) -> list[Bytes]:
        """The stream's bytes in what has come: at most `PIECE` bytes at a time. Raises ProtocolError."""
        try:
            pieces: Iterator[bytes | memoryview] = iter((data,))
            if self._tls is not None:
                pieces = self._tls.receive(data)
            received: list[Bytes] = []
            for piece in pieces:
                received += self._receive(piece, now)
            return received
        except ssl.SSLError as error:
            raise ProtocolError(
                f"expected TLS, got {getattr(error, 'verify_message', '') or error.reason or error}"
            ) from None
        finally:
            self._collect()

    def send(self, data: bytes | memoryview) -> None:
        """One message of at most `MAX_FRAME` bytes. Raises BrokenPipeError once either side has closed."""
        if not self.opened:
            raise BrokenPipeError("the WebSocket is closed")
        self._frames.send_binary(data)
        self._collect()

    def end(self) -> None:
        """Says that nothing more comes, if that can be said. Idempotent."""
        if self._frames.state is State.OPEN:
            self._frames.send_close(1000)
            self._collect()

    def _collect(self) -> None:
        for written in self._frames.data_to_send():
            if written:  # b"" is for half-closing the socket
                self._write(written)
        if self._tls is not None:
            self._out += self._tls.output()

    def _write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.send(data)
        else:
            self._out.append(data)

    def _receive(self, data: bytes | memoryview, now: float) -> list[Bytes]:
        if self.ended:
            return []
        frames = self._frames
        frames.receive_data(data)  # type: ignore[arg-type]  # a memoryview goes into its bytearray as well
        received: list[Bytes] = []
        for event in frames.events_received():
            if isinstance(event, Frame):
                self._take(event, received, now)
            elif isinstance(event, Request):
                response = frames.accept(event)  # type: ignore[union-attr]
                frames.send_response(response)  # type: ignore[union-attr]
                if response.status_code != 101:
                    raise ProtocolError(f"expected a WebSocket request, got {event.path[:80]!r} without")
        if frames.handshake_exc is not None:
            if isinstance(frames, ServerProtocol) and isinstance(frames.handshake_exc, InvalidMessage):
                self._write(_BAD_REQUEST)
            raise ProtocolError(f"expected a WebSocket to be opened: {frames.handshake_exc}")
        if frames.parser_exc is not None:
            raise ProtocolError(f"expected frames of a WebSocket: {frames.parser_exc}")
        return received

    def _take(self, frame: Frame, received: list[Bytes], now: float) -> None:
        if frame.opcode is Opcode.TEXT:
            self._frames.fail(1003, "binary messages only")
            raise ProtocolError("expected binary messages, got text")
        if frame.opcode is Opcode.CLOSE:
            self.ended = True
        elif frame.data and frame.opcode in (Opcode.BINARY, Opcode.CONT):
            received.append(frame.data)  # type: ignore[arg-type]
        elif self._idle.take(now):
            self._frames.fail(1008, "too many frames that carry nothing")
            raise ProtocolError(f"expected at most {IDLE_RATE:g} frames a second that carry nothing, got more")


class Tls:
    """TLS under the frames: its handshake runs as bytes come."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=name)
        self._shaken = False
        self._waiting: list[bytes] = []  # what is sent before the handshake is over
        if not server_side:
            self._shake()

    def receive(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The plaintexts in it. Raises SSLError."""
        self._incoming.write(data)
        if not self._shake():
            return
        while True:
            try:
                piece = self._object.read(_RECORD)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                return
            if not piece:
                return
            yield piece

    def send(self, data: bytes) -> None:
        if self._shaken:
            self._object.write(data)
        else:
            self._waiting.append(data)

    def output(self) -> list[bytes]:
        return [self._outgoing.read()] if self._outgoing.pending else []

    def _shake(self) -> bool:
        if not self._shaken:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self._shaken = True
            for data in self._waiting:
                self._object.write(data)
            self._waiting = []
        return True
