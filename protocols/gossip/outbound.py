"""What waits to be sent to one peer: control before data, ours before others', put together, and bounded. No I/O.

    subscriptions, GRAFT, PRUNE   never dropped; over their bound the peer counts as gone (OverflowError)
    IHAVE, IWANT                  dropped over the same bound, and counted: the protocol lives without them
    IDONTWANT                     the same over MAX_UNWANTED; needless for a small message that goes out itself
    messages                      dropped over `max_bytes`, and counted: those of others first, the newest of them;
                                  the peer can ask for what it is told of

`next` gives the bytes of one RPC: control, as much as may go together, then messages. Everything is encoded once for
all the peers it goes to, and put together as bytes. Subscriptions and messages are repeated fields, so that their bytes
one after the other are both. Control messages are one field of an RPC, and some readers (Rust's) take the last such:
what is inside them is put together, and wrapped once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice

from protocols.framing import encode_uvarint
from protocols.gossip.actions import Priority
from protocols.gossip.fragments import fragments
from protocols.gossip.rpc import Rpc, encode, encode_control

# RPCs are filled to this, so that a large one doesn't keep control waiting
FILL = 64 * 1024
MAX_CONTROL = 256 * 1024
# of go-libp2p-pubsub's reader, which looks at no more of one RPC
MAX_IDONTWANT_IDS = 10
MAX_UNWANTED = 1024
# a message up to this size tells as quickly as an IDONTWANT that we have it
TELLS_ITSELF = 8 * 1024

_CONTROL_TAG = b"\x1a"  # field 3 of an RPC, with a length
_IDONTWANT_TAG = b"\x2a"  # field 5 of that
_ID_TAG = b"\x0a"  # field 1 of that


class Encoded:
    """An RPC without messages, as bytes, and what must be known to put it together with others."""

    __slots__ = ("control", "grafts", "head", "lossy", "prunes", "size")

    def __init__(self, rpc: Rpc) -> None:
        control = rpc.control
        self.head = encode(Rpc(rpc.subscriptions)) if rpc.subscriptions else b""
        self.control = encode_control(control) if control else b""
        self.grafts = bool(control and control.graft)
        self.prunes = bool(control and control.prune)
        self.lossy = not (self.head or self.grafts or self.prunes)
        self.size = len(self.head) + len(self.control)


def encode_pieces(rpc: Rpc, limit: int) -> Iterator[Encoded]:
    """The RPC in as many pieces as the limit asks for: one, nearly always."""
    one = Encoded(rpc)
    if one.size + 16 <= limit:
        yield one
    else:
        yield from map(Encoded, fragments(rpc, limit))


class Outbound:
    """One peer's queue. `dropped` counts what was lost, by kind: "message" or "control"."""

    __slots__ = (
        *("_answers", "_control", "_control_bytes", "_max_bytes", "_own", "_relayed", "_unwanted", "bytes"),
        "dropped",
    )

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._control: deque[Encoded] = deque()
        self._control_bytes = 0
        self._unwanted: dict[bytes, None] = {}  # IDs for IDONTWANT
        self._own: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()  # to the peer's IWANTs: one that doesn't come is a promise broken
        self._relayed: deque[bytes] = deque()
        self.bytes = 0  # of messages
        self.dropped: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._control or self._unwanted or self._own or self._answers or self._relayed)

    def put_message(self, encoded: bytes, priority: Priority, message_id: bytes = b"") -> bool:
        """Whether there was room for an encoded RPC that holds messages: a single one, if its ID is given."""
        queue = self._relayed
        if priority is not Priority.RELAY:
            queue = self._own if priority is Priority.PUBLISH else self._answers
            while self._relayed and self.bytes + len(encoded) > self._max_bytes:
                self.bytes -= len(self._relayed.pop())
                self.dropped["message"] += 1
        if self.bytes + len(encoded) > self._max_bytes and self.bytes:
            self.dropped["message"] += 1
            return False
        queue.append(encoded)
        self.bytes += len(encoded)
        if message_id and len(encoded) <= TELLS_ITSELF:
            self._unwanted.pop(message_id, None)
        return True

    def put_unwanted(self, message_ids: Iterable[bytes]) -> None:
        """Messages that the peer needn't send us: IDONTWANT."""
        for message_id in message_ids:
            if len(self._unwanted) >= MAX_UNWANTED:
                self.dropped["control"] += 1
                return
            self._unwanted[message_id] = None

    def put_control(self, encoded: Encoded) -> bool:
        """Whether there was room. Raises OverflowError where it must not be dropped."""
        if self._control_bytes + encoded.size > MAX_CONTROL and self._control:
            if not encoded.lossy:
                raise OverflowError(f"expected a peer to take {MAX_CONTROL} bytes of control messages in time")
            self.dropped["control"] += 1
            return False
        self._control.append(encoded)
        self._control_bytes += encoded.size
        return True

    def next(self) -> bytes:
        """The bytes of the next RPC; b"" if there is none."""
        parts = self._next_control() if self._control or self._unwanted else []
        filled = sum(map(len, parts))
        for queue in (self._own, self._answers, self._relayed):
            while queue and (not parts or filled + len(queue[0]) <= FILL):
                encoded = queue.popleft()
                self.bytes -= len(encoded)
                filled += len(encoded)
                parts.append(encoded)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_control(self) -> list[bytes]:
        parts: list[bytes] = []
        inner: list[bytes] = []
        waiting, taken, pruned = self._control, 0, False
        while waiting:
            one = waiting[0]
            # readers look at an RPC's GRAFTs before its PRUNEs
            if taken and ((pruned and one.grafts) or taken + one.size > FILL):
                break
            waiting.popleft()
            taken += one.size
            pruned = pruned or one.prunes
            if one.head:
                parts.append(one.head)
            if one.control:
                inner.append(one.control)
        self._control_bytes -= taken
        if self._unwanted and taken <= FILL:  # behind a single large one there may be no room in the frame
            inner.append(self._next_unwanted())
        if inner:
            body = b"".join(inner)
            parts += (_CONTROL_TAG, encode_uvarint(len(body)), body)
        return parts

    def _next_unwanted(self) -> bytes:
        ids = list(islice(self._unwanted, MAX_IDONTWANT_IDS))
        for message_id in ids:
            del self._unwanted[message_id]
        body = b"".join([_ID_TAG + encode_uvarint(len(message_id)) + message_id for message_id in ids])
        return _IDONTWANT_TAG + encode_uvarint(len(body)) + body
