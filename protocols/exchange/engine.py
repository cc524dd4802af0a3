"""The exchange's rules on one stream, for both roles: frames in, frames out. No I/O, no clock.

    asker                                        answerer
    ping {its peer ID, addresses, nonce}  ---->  the connection's peer? else an error
                                          <----  pong {our peer ID, addresses, the same nonce}
    the connection's peer, its nonce?
    get_addresses {limit}                 ---->
                                          <----  addresses {at most `limit` signed records}

    Asker     PINGED --pong--> ASKED --addresses--> DONE        Answerer     NEW --ping--> ALIVE --get_addresses--> DONE

Whatever else comes, or comes elsewhere in this order, is a `ProtocolError`, from then on for every further call: the
stream is to be ended. Either side may end it properly after the pong. The caller moves the bytes, keeps the deadline,
and judges the records. Which records are told is `share`'s.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from protocols.errors import ProtocolError
from protocols.exchange.wire import MAX_RECORDS, Addresses, Alive, GetAddresses, Message, Ping, Pong, decode, encode

DEADLINE = 10.0


class State(enum.Enum):
    """How far a stream is."""

    NEW = "a ping"
    PINGED = "a pong"
    ALIVE = "get_addresses"
    ASKED = "addresses"
    DONE = "the end"
    BROKEN = "nothing more"


class _Side:
    """What both roles have in common. `heard`: what the other side says of itself, once it has."""

    def __init__(self, ours: bytes, theirs: bytes, multiaddrs: Sequence[bytes], state: State) -> None:
        self.heard: Alive | None = None
        self.state = state
        self._ours = ours
        self._theirs = theirs
        self._multiaddrs = tuple(multiaddrs)

    def _decode(self, frame: bytes) -> Message:
        if self.state is State.BROKEN:
            raise self._unexpected("a frame")
        try:
            return decode(frame)
        except ProtocolError:
            self.state = State.BROKEN
            raise

    def _met(self, alive: Alive) -> None:
        if alive.peer_id != self._theirs:
            self.state = State.BROKEN
            raise ProtocolError(
                f"expected the connection's peer ID {self._theirs.hex()}, got {alive.peer_id[:64].hex() or 'none'}"
            )
        self.heard = alive

    def _unexpected(self, what: object) -> ProtocolError:
        expected, self.state = self.state.value, State.BROKEN
        return ProtocolError(f"expected {expected} in peer exchange, got {what}")


class Asker(_Side):
    """Who asks, on one stream. `ours`, `theirs`: peer IDs as bytes; `multiaddrs`: ours, at most 16."""

    def __init__(self, ours: bytes, theirs: bytes, multiaddrs: Sequence[bytes], *, limit: int, nonce: int) -> None:
        """Raises ValueError for a limit over 100, or more than 16 multiaddrs."""
        super().__init__(ours, theirs, multiaddrs, State.PINGED)
        self.records: tuple[bytes, ...] = ()
        self._ask = GetAddresses(limit)
        self._ping = Ping(ours, self._multiaddrs, nonce)

    def first(self) -> bytes:
        """The frame that opens the exchange."""
        return encode(self._ping)

    def receive(self, frame: bytes) -> bytes | None:
        """The frame to send next; None when all is said, and `records` is there. Raises ProtocolError."""
        message = self._decode(frame)
        if self.state is State.PINGED and isinstance(message, Pong):
            if message.nonce != self._ping.nonce:
                self.state = State.BROKEN
                raise ProtocolError(f"expected the pong's nonce to be {self._ping.nonce}, got {message.nonce}")
            self._met(message)
            self.state = State.ASKED
            return encode(self._ask)
        if self.state is State.ASKED and isinstance(message, Addresses):
            if len(message.records) > self._ask.limit:
                self.state = State.BROKEN
                raise ProtocolError(f"expected at most {self._ask.limit} records, got {len(message.records)}")
            self.records = message.records
            self.state = State.DONE
            return None
        raise self._unexpected(type(message).__name__)


class Answerer(_Side):
    """Who answers, on one stream. `draw` gives the records to tell, at most as many as it is asked for."""

    def __init__(
        self, ours: bytes, theirs: bytes, multiaddrs: Sequence[bytes], draw: Callable[[int], tuple[bytes, ...]]
    ) -> None:
        super().__init__(ours, theirs, multiaddrs, State.NEW)
        self._draw = draw

    def receive(self, frame: bytes) -> bytes:
        """The frame to answer with; with the second one the exchange is done. Raises ProtocolError."""
        message = self._decode(frame)
        if self.state is State.NEW and isinstance(message, Ping):
            self._met(message)
            self.state = State.ALIVE
            return encode(Pong(self._ours, self._multiaddrs, message.nonce))
        if self.state is State.ALIVE and isinstance(message, GetAddresses):
            self.state = State.DONE
            return encode(Addresses(self._draw(message.limit)[:MAX_RECORDS]))
        raise self._unexpected(type(message).__name__)

    @property
    def done(self) -> bool:
        """Whether all is said."""
        return self.state is State.DONE
