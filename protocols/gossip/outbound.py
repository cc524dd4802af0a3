"""What waits to be sent to one peer: control before data, ours before others', put together, and bounded. No I/O.

    subscriptions, GRAFT, PRUNE   never dropped; over their bound the peer counts as gone (OverflowError)
    IHAVE, IWANT, IDONTWANT       dropped over the same bound, and counted: the protocol lives without them
    messages                      dropped over `max_bytes`, and counted: the peer can ask for what it is told of

`next` gives the bytes of one RPC: as much control as fits, then messages. RPCs are put together by putting their bytes
one after the other, which protobuf defines as merging; a message is encoded once for all the peers it goes to.
"""

from __future__ import annotations

from collections import Counter, deque

from protocols.gossip.actions import Priority
from protocols.gossip.fragments import fragments, merge, size
from protocols.gossip.rpc import Rpc, encode

# RPCs are filled to this, so that a large one doesn't keep control waiting
FILL = 64 * 1024
MAX_CONTROL = 256 * 1024


class Outbound:
    """One peer's queue. `dropped` counts what was lost, by kind: "message" or "control"."""

    __slots__ = ("_control", "_control_bytes", "_max_bytes", "_max_rpc", "_own", "_relayed", "bytes", "dropped")

    def __init__(self, max_bytes: int, max_rpc: int) -> None:
        self._max_bytes = max_bytes
        self._max_rpc = max_rpc
        self._control: list[Rpc] = []
        self._control_bytes = 0
        self._own: deque[bytes] = deque()
        self._relayed: deque[bytes] = deque()
        self.bytes = 0  # of messages
        self.dropped: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._control or self._own or self._relayed)

    def put_message(self, encoded: bytes, priority: Priority) -> bool:
        """Whether there was room for an encoded RPC that holds messages."""
        if self.bytes + len(encoded) > self._max_bytes and self.bytes:
            self.dropped["message"] += 1
            return False
        (self._own if priority is Priority.PUBLISH else self._relayed).append(encoded)
        self.bytes += len(encoded)
        return True

    def put_control(self, rpc: Rpc) -> bool:
        """Whether there was room. Raises OverflowError where it must not be dropped."""
        needed = size(rpc)
        if self._control_bytes + needed > MAX_CONTROL:
            control = rpc.control
            if rpc.subscriptions or (control and (control.graft or control.prune)):
                raise OverflowError(f"expected a peer to take {MAX_CONTROL} bytes of control messages in time")
            self.dropped["control"] += 1
            return False
        self._control.append(rpc)
        self._control_bytes += needed
        return True

    def next(self) -> bytes:
        """The bytes of the next RPC; b"" if there is none."""
        parts: list[bytes] = []
        filled = 0
        if self._control:
            ready = [part for rpc in merge(self._control, self._max_rpc) for part in fragments(rpc, self._max_rpc)]
            parts.append(encode(ready[0]))
            filled = len(parts[0])
            self._control = ready[1:]
            self._control_bytes = sum(map(size, self._control))
        for queue in (self._own, self._relayed):
            while queue and (not parts or filled + len(queue[0]) <= FILL):
                encoded = queue.popleft()
                self.bytes -= len(encoded)
                filled += len(encoded)
                parts.append(encoded)
        return parts[0] if len(parts) == 1 else b"".join(parts)
