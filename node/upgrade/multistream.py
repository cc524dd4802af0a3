"""multistream-select 1.0: two sides agree on a protocol ID (https://github.com/multiformats/multistream-select).

    line = varint length, text, "\\n"           length counts the "\\n"; at most MAX_LINE

    initiator                                   responder
    "/multistream/1.0.0" "/a" ------------->    its own header may go out at once
    <----- "/multistream/1.0.0"
    <----- "/a": agreed      or      "na": the initiator proposes the next one, or gives up

`LineDecoder` is the rules: it says how many bytes it wants, so that nothing is read past the last line and whoever
takes over the stream finds it where the negotiation ended. `select` and `respond` move the bytes. Time is the caller's.
py-libp2p's own reads lines of any length: docs/upstream.md.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Sequence

from protocols import ProtocolError
from protocols.framing import VarintDecoder, encode_uvarint

HEADER = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
MAX_LINE = 1024
MAX_PROPOSALS = 32


class NegotiationError(ProtocolError):
    """No protocol was agreed on; the text says why."""


class ReadWriter(typing.Protocol):
    """What a negotiation needs of a connection or stream, py-libp2p's `ReadWriteCloser`."""

    async def read(self, n: int | None = None) -> bytes: ...

    async def write(self, data: bytes) -> None: ...


def encode_line(text: str) -> bytes:
    """`text` as one line."""
    data = text.encode() + b"\n"
    if len(data) > MAX_LINE:
        raise ValueError(f"a multistream line has at most {MAX_LINE} bytes, not {len(data)}")
    return encode_uvarint(len(data)) + data


class LineDecoder:
    """Takes one line. `wanted` is the number of bytes that can be used next; feed no more than that."""

    def __init__(self) -> None:
        self.wanted = 1
        self._varint: VarintDecoder | None = VarintDecoder()
        self._buffer = bytearray()

    def feed(self, data: bytes) -> str | None:
        """The line's text once it is complete, else None. Raises ProtocolError for what is no line."""
        if self._varint is not None:
            length = self._varint.feed(data[0])
            if length is None:
                return None
            if not 1 <= length <= MAX_LINE:
                raise NegotiationError(f"expected a multistream line of 1 to {MAX_LINE} bytes, got one of {length}")
            self._varint = None
            self.wanted = length
            return None
        self._buffer += data
        self.wanted -= len(data)
        if self.wanted:
            return None
        if self._buffer[-1:] != b"\n":
            raise NegotiationError("expected a multistream line to end in a newline")
        try:
            return self._buffer[:-1].decode()
        except UnicodeDecodeError:
            raise NegotiationError("expected a multistream line in UTF-8") from None


async def read_line(stream: ReadWriter) -> str:
    """Reads exactly one line."""
    decoder = LineDecoder()
    while True:
        data = await stream.read(decoder.wanted)
        if not data:
            raise NegotiationError("the peer ended the negotiation before a protocol was agreed on")
        line = decoder.feed(data)
        if line is not None:
            return line


async def select(stream: ReadWriter, protocols: Sequence[str]) -> str:
    """Proposes `protocols` in their order; the one that the peer agrees to.

    Raises NegotiationError if it agrees to none, and whatever the stream raises.
    """
    first = True
    for protocol in protocols:
        await stream.write(encode_line(HEADER) + encode_line(protocol) if first else encode_line(protocol))
        if first:
            _expect_header(await read_line(stream))
            first = False
        answer = await read_line(stream)
        if answer == protocol:
            return protocol
        if answer != NOT_AVAILABLE:
            raise NegotiationError(f"expected {protocol} or {NOT_AVAILABLE!r}, got {answer!r}")
    raise NotAvailableError(f"the peer supports none of {', '.join(protocols)}")


class NotAvailableError(NegotiationError):
    """The peer answered properly, and supports none of the protocols."""


async def respond(
    stream: ReadWriter,
    accept: Callable[[str], Awaitable[bool]],
    may_greet: Callable[[], Awaitable[None]] | None = None,
) -> str:
    """Answers proposals until `accept` says yes to one; that one.

    Our header goes out first, once `may_greet` returns: some peers propose nothing before they have seen it.
    `accept` may take its time too: the peer waits for its answer.
    Raises NegotiationError if nothing is agreed on, and whatever the stream or the callbacks raise.
    """
    if may_greet is not None:
        await may_greet()
    await stream.write(encode_line(HEADER))
    _expect_header(await read_line(stream))
    for _ in range(MAX_PROPOSALS):
        proposal = await read_line(stream)
        if await accept(proposal):
            await stream.write(encode_line(proposal))
            return proposal
        await stream.write(encode_line(NOT_AVAILABLE))
    raise NegotiationError(f"expected one of our protocols within {MAX_PROPOSALS} proposals")


def _expect_header(line: str) -> None:
    if line != HEADER:
        raise NegotiationError(f"expected {HEADER!r}, got {line!r}")
