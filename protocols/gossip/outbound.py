"""What waits to be sent to one peer: control before data, ours before others', put together, and bounded. No I/O.

    subscriptions, GRAFT, PRUNE   never dropped; over their bound the peer counts as gone (OverflowError)
    IHAVE, IWANT, IDONTWANT       dropped over the same bound, and counted: the protocol lives without them
    messages                      dropped over `max_bytes`, and counted: those of others first, the newest of them;
                                  the peer can ask for what it is told of

`next` gives the bytes of one RPC: control, as much as may go together, then messages. Everything is encoded once for
all the peers it goes to, and put together as bytes. Subscriptions and messages are repeated fields, so that their bytes
one after the other are both. Control messages are one field of an RPC, and some readers (Rust's) take the last such:
what is inside them is put together, and wrapped once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from protocols.framing import encode_uvarint
from protocols.gossip.actions import Priority
from protocols.gossip.fragments import fragments
from protocols.gossip.rpc import Rpc, encode, encode_control

# RPCs are filled to this, so that a large one doesn't keep control waiting
FILL = 64 * 1024
MAX_CONTROL = 256 * 1024
# of go-libp2p-pubsub's reader, which looks at no more of one RPC
MAX_IDONTWANT_IDS = 10

_CONTROL_TAG = b"\x1a"  # field 3 of an RPC, with a length


class Encoded:
    """An RPC that holds no messages, as bytes, and what must be known to put it together with others."""

    __slots__ = ("control", "grafts", "head", "idontwant", "lossy", "prunes", "size")

    def __init__(self, rpc: Rpc) -> None:
        control = rpc.control
        self.head = encode(Rpc(rpc.subscriptions)) if rpc.subscriptions else b""
        self.control = encode_control(control) if control else b""
        self.idontwant = sum([len(one.message_ids) for one in control.idontwant]) if control else 0
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

    __slots__ = ("_answers", "_control", "_control_bytes", "_max_bytes", "_own", "_relayed", "bytes", "dropped")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._control: deque[Encoded] = deque()
        self._control_bytes = 0
        self._own: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()  # to the peer's IWANTs: one that doesn't come is a promise broken
        self._relayed: deque[bytes] = deque()
        self.bytes = 0  # of messages
        self.dropped: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._control or self._own or self._answers or self._relayed)

    def put_message(self, encoded: bytes, priority: Priority) -> bool:
        """Whether there was room for an encoded RPC that holds messages."""
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
        return True

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
        parts = self._next_control() if self._control else []
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
        waiting, taken, ids, pruned = self._control, 0, 0, False
        while waiting:
            one = waiting[0]
            # Go looks at no more IDs of one RPC; and readers look at its GRAFTs before its PRUNEs
            apart = (ids and ids + one.idontwant > MAX_IDONTWANT_IDS) or (pruned and one.grafts)
            if taken and (apart or taken + one.size > FILL):
                break
            waiting.popleft()
            taken += one.size
            ids += one.idontwant
            pruned = pruned or one.prunes
            if one.head:
                parts.append(one.head)
            if one.control:
                inner.append(one.control)
        self._control_bytes -= taken
        if inner:
            body = b"".join(inner)
            parts += (_CONTROL_TAG, encode_uvarint(len(body)), body)
        return parts
