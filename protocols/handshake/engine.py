"""The network handshake's rules: bytes and roles in, a verdict out. No I/O, no clock.

    initiator                                recipient
    ---------                                ---------
    opens one stream, PROTOCOL_ID agreed
    Hello  ------------------------------->  checks: network ID equal, version at least the lowest one allowed
                                             fits: sends its own Hello, half-closes, ADMITTED
    checks by the same rules  <-----------   doesn't: says nothing, REFUSED
    fits: ADMITTED, closes the stream
    doesn't, or no Hello comes: REFUSED

    Handshake:  WAITING --a Hello that fits--> ADMITTED
                WAITING --another Hello, no Hello, bad bytes--> REFUSED (raised, with the reason)

The caller moves the bytes, holds everything else back until the verdict, keeps the deadline, and closes what is
refused. Source: docs/wire.md, "/vouch/handshake/1.0.0".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.errors import ProtocolError
from protocols.framing import FrameDecoder, encode_frame
from protocols.handshake.wire import MAX_FRAME, Hello, Version, parse_client_version

# what one side takes from the other until it is admitted (docs/wire.md, rule 6)
MAX_HELD_STREAMS = 16
MAX_HELD_BYTES = 64 * 1024


class Role(enum.Enum):
    """Who initiated the security handshake; that side speaks first here too."""

    INITIATOR = "initiator"
    RECIPIENT = "recipient"


class Refused(Exception):
    """The peer isn't admitted. `reason` is one of a few fixed words, for logs and metrics; the text says it in full."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Rules:
    """What a node shows, and what it wants to be shown.

    hello: our own. Its network ID is the one that the peer must show, byte for byte.
    min_versions: a client's name to the lowest version that passes; names that aren't listed pass.
    """

    hello: Hello
    min_versions: Mapping[str, Version] = field(default_factory=dict)

    def check(self, hello: Hello) -> None:
        """Raises Refused if the peer that showed `hello` doesn't fit."""
        if hello.network_id != self.hello.network_id:
            raise Refused(
                "network_id",
                f"expected network ID {show(self.hello.network_id)}, the peer's is {show(hello.network_id)}",
            )
        name, version = parse_client_version(hello.client_version)
        lowest = self.min_versions.get(name)
        if lowest is not None and version < lowest:
            wanted = ".".join(map(str, lowest))
            raise Refused("client_version", f"expected {name}/{wanted} or newer, the peer is {hello.client_version}")


class Handshake:
    """One side of one connection's handshake."""

    def __init__(self, role: Role, rules: Rules) -> None:
        self.role = role
        self.rules = rules
        self.peer_hello: Hello | None = None
        self._refusal: Refused | None = None
        self._decoder = FrameDecoder(MAX_FRAME)

    def hello(self) -> bytes:
        """Our own `Hello` as a frame. A recipient may ask for it only once it has admitted the peer."""
        if self.role is Role.RECIPIENT and self.peer_hello is None:
            raise RuntimeError("a recipient shows its Hello only to a peer that it has admitted")
        return encode_frame(self.rules.hello.encode(), MAX_FRAME)

    def receive(self, data: bytes) -> Hello | None:
        """The peer's `Hello` once it is complete and fits, else None: more is needed. b"" is the stream's end.

        Raises Refused if the peer doesn't fit, sends what is no `Hello`, or sends more than one; and from then on.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            return self._receive(data)
        except Refused as refusal:
            self._refusal = refusal
            raise

    def _receive(self, data: bytes) -> Hello | None:
        if not data:
            if self.peer_hello is None:
                raise Refused("no_hello", "the peer ended the handshake without showing a Hello")
            return self.peer_hello
        try:
            frames = self._decoder.feed(data)
            if self.peer_hello is not None or len(frames) > 1 or (frames and self._decoder.incomplete):
                raise ProtocolError("expected one Hello, got more")
            if not frames:
                return None
            hello = Hello.decode(frames[0])
        except ProtocolError as error:
            raise Refused("bad_hello", f"the peer's handshake broke the rules: {error}") from None
        self.rules.check(hello)
        self.peer_hello = hello
        return hello


def show(network_id: bytes) -> str:
    """A network ID for people: its text if it has one, else hex."""
    text = network_id.decode("ascii", "replace")
    return repr(text) if text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text else "0x" + network_id.hex()
