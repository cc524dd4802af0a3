"""What is checked on two ends that are connected: a function for each check. It returns if all was as it should be, and
raises CheckError or PeerError if not.

    CHECKS[name](pair)      SEEDS[name](pair) before the ends are connected, where there is something to do

A check leaves the connection as it found it, but for `disconnect`, the last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from interop.matrix.checks import admission, connection, gossip, kad, messages, ours, streams
from interop.matrix.ends import Pair

Check = Callable[[Pair], Awaitable[None]]

CHECKS: dict[str, Check] = {
    "connect": connection.connect,
    "handshake": admission.handshake,
    "identify": connection.identify,
    "identify-push": connection.identify_push,
    "ping": connection.ping,
    "streams": streams.streams,
    "half-close": streams.half_close,
    "reset": streams.reset,
    "transfer": streams.transfer,
    "kad-values": kad.values,
    "kad-providers": kad.providers,
    "kad-peers": kad.peers,
    "gossip-accept": gossip.accept,
    "messages": messages.messages,
    "gossip-ignore": gossip.ignore,
    "gossip-reject": gossip.reject,
    "other-network": admission.other_network,
    "other-version": admission.other_version,
    "disconnect": connection.disconnect,
    # of no line of the matrix: what no other language speaks, or only one. For `mutations`
    "exchange": ours.exchange,
    "heartbeat": ours.heartbeat,
    "rendezvous": ours.rendezvous,
}
NEED_THIRD = {"kad-peers", "gossip-accept", "gossip-ignore", "gossip-reject", "exchange"}
SEEDS: dict[str, Check] = {"kad-values": kad.seed_values, "kad-providers": kad.seed_providers}
