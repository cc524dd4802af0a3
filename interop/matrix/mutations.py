"""Our wire changed by one byte at a time, and the check that must fail then.

Each change is made in our end of a pair as if the source had been changed (`interop.ends.mutate`); the other end is a
peer that speaks the protocol, or, where none does, our own node unchanged. A check that fails unchanged too shows
nothing, so that each is run unchanged first, within the same time.

What the matrix doesn't notice is in `UNNOTICED`, with the reason. `tests/interop/test_mutations.py` holds that each
field of each .proto and each protocol ID is in one of the two.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from interop.matrix.cells import Line, Result
from interop.matrix.run import Plan, run

PATIENCE = 10.0  # seconds for a connection, and as many for a check on it

OUT, IN = Line("go", "tcp", "noise", "out"), Line("go", "tcp", "noise", "in")
TLS = Line("go", "tcp", "tls", "out")
QUIC = Line("go", "quic-v1", "tls", "out")
RUST = Line("rust", "tcp", "noise", "out")
OURSELVES = Line("python", "tcp", "noise", "out")


@dataclass(frozen=True)
class Mutation:
    """One change: `old` becomes `new` in a module's text, or a protobuf field gets another number."""

    check: str
    module: str
    old: str = ""
    new: str = ""
    field: str = ""
    line: Line = OUT

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.module.removesuffix('_pb2')} {self.field or self.new}"

    @property
    def change(self) -> str:
        """As INTEROP_MUTATE takes it."""
        what = {"field": self.field} if self.field else {"old": self.old, "new": self.new}
        return json.dumps({"module": self.module} | what)


def _fields(check: str, module: str, names: str, line: Line = OUT) -> tuple[Mutation, ...]:
    return tuple(Mutation(check, module, field=name, line=line) for name in names.split())


IDS = (
    Mutation("connect", "protocols.handshake.wire", 'ID = "/vouch/handshake/1.0.0"', 'ID = "/vouch/handshake/1.0.1"'),
    Mutation("identify", "node.identify", 'ID = "/ipfs/id/1.0.0"', 'ID = "/ipfs/id/1.0.1"'),
    Mutation("identify-push", "node.identify", 'ID = "/ipfs/id/push/1.0.0"', 'ID = "/ipfs/id/push/1.0.1"'),
    Mutation("ping", "protocols.ping", '"/ipfs/ping/1.0.0"', '"/ipfs/ping/1.0.1"'),
    Mutation("transfer", "protocols.perf", '"/perf/1.0.0"', '"/perf/1.0.1"'),
    Mutation("kad-values", "node.config", "}/kad/1.0.0", "}/kad/1.0.1"),
    Mutation("messages", "protocols.messages.declare", "}/1.0.0", "}/1.0.1"),
    Mutation("identify", "protocols.gossip.state", '"/meshsub/1.2.0"', '"/meshsub/1.2.1"'),
    Mutation("identify", "protocols.gossip.state", '"/meshsub/1.1.0"', '"/meshsub/1.1.1"'),
    Mutation("identify", "protocols.gossip.state", '"/floodsub/1.0.0"', '"/floodsub/1.0.1"'),
    Mutation(
        "exchange",
        "protocols.exchange.wire",
        '"/vouch/peer-exchange/1.0.0"',
        '"/vouch/peer-exchange/1.0.1"',
        line=OURSELVES,
    ),
    Mutation(
        "heartbeat", "protocols.heartbeat.wire", '"/vouch/heartbeat/1.0.0"', '"/vouch/heartbeat/1.0.1"', line=OURSELVES
    ),
    Mutation("rendezvous", "protocols.rendezvous.wire", '"/rendezvous/1.0.0"', '"/rendezvous/1.0.1"', line=RUST),
    Mutation("connect", "node.upgrade.multistream", 'HEADER = "/multistream/1.0.0"', 'HEADER = "/multistream/1.0.1"'),
    Mutation("gossip-accept", "node.upgrade.multistream", 'NOT_AVAILABLE = "na"', 'NOT_AVAILABLE = "nb"', line=IN),
    Mutation("connect", "node.upgrade.tls", '"/tls/1.0.0"', '"/tls/1.0.1"', line=TLS),
)
SECURITY = (
    Mutation(
        "connect", "node.upgrade.noise", 'b"Noise_XX_25519_ChaChaPoly_SHA256', 'b"Noise_XX_25519_ChaChaPoly_SHA257'
    ),
    Mutation("connect", "node.upgrade.noise", 'b"noise-libp2p-static-key:', 'b"noise-libp2p-static-kez:'),
    Mutation("connect", "node.upgrade.noise", 'LENGTH = struct.Struct(">H")', 'LENGTH = struct.Struct("<H")'),
    Mutation("connect", "node.upgrade.noise", '_NONCE = struct.Struct("<4xQ")', '_NONCE = struct.Struct(">4xQ")'),
    Mutation(
        "connect",
        "node.upgrade.certificate",
        'Identifier("1.3.6.1.4.1.53594.1.1")',
        'Identifier("1.3.6.1.4.1.53594.1.2")',
        line=TLS,
    ),
    Mutation("connect", "node.upgrade.certificate", 'b"libp2p-tls-handshake:', 'b"libp2p-tls-handshakf:', line=TLS),
    Mutation("connect", "node.upgrade.certificate", 'b"libp2p-tls-handshake:', 'b"libp2p-tls-handshakf:', line=QUIC),
    Mutation("connect", "node.quic.configurations", 'ALPN = "libp2p"', 'ALPN = "libp2q"', line=QUIC),
    Mutation("identify", "node.records", '"libp2p-peer-record"', '"libp2p-peer-recore"'),
    Mutation("identify", "node.records", r'b"\x03\x01"', r'b"\x03\x02"'),
)
YAMUX = (
    Mutation("connect", "node.upgrade.yamux_state", 'Struct(">BBHLL")', 'Struct("<BBHLL")'),
    Mutation(
        "connect",
        "node.upgrade.yamux_state",
        "DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)",
        "WINDOW_UPDATE, DATA, PING, GO_AWAY = range(4)",
    ),
    Mutation("connect", "node.upgrade.yamux_state", "PING, GO_AWAY = range(4)", "GO_AWAY, PING = range(4)"),
    Mutation("connect", "node.upgrade.yamux_state", "= 1, 2, 4, 8", "= 3, 2, 4, 8"),
    Mutation("half-close", "node.upgrade.yamux_state", "= 1, 2, 4, 8", "= 1, 2, 5, 8"),
    Mutation("reset", "node.upgrade.yamux_state", "= 1, 2, 4, 8", "= 1, 2, 4, 9"),
    Mutation("transfer", "node.upgrade.yamux_state", "INITIAL_WINDOW = 256 * 1024", "INITIAL_WINDOW = 956 * 1024"),
)
MESSAGES = (
    Mutation("messages", "protocols.messages.wire", 'b"vouch-message:1:', 'b"vouch-message:2:'),
    Mutation("messages", "protocols.messages.wire", 'out = b"\\x0a"', 'out = b"\\x1a"'),
    Mutation("messages", "protocols.messages.wire", 'b"\\x12" + encode', 'b"\\x1a" + encode'),
    Mutation("messages", "protocols.messages.wire", "    REQUEST = 1", "    REQUEST = 3"),
    Mutation("messages", "protocols.messages.wire", "    RESPONSE = 2", "    RESPONSE = 3"),
    Mutation("messages", "protocols.messages.wire", "    ONE_WAY = 0", "    ONE_WAY = 3"),
    Mutation("messages", "protocols.messages.wire", "ERROR_TYPE = 0xFFFFFFFF", "ERROR_TYPE = 0xFFFFFFFE"),
    Mutation("messages", "protocols.messages.authors", "(0x08, kind, 0x12)", "(0x08, kind, 0x1A)"),
    *_fields(
        "messages",
        "protocols.messages.messages_pb2",
        "Message.author Message.network_id Message.client_version Message.protocol Message.type Message.kind "
        "Message.request_id Message.timestamp_ms Message.payload Message.recipient SignedMessage.message "
        "SignedMessage.signature PublicKey.type PublicKey.data",
    ),
)
HANDSHAKE = _fields("connect", "protocols.handshake.handshake_pb2", "Hello.client_version Hello.network_id")
GOSSIP = (
    Mutation(
        "gossip-accept", "protocols.gossip.policy", 'SIGN_PREFIX = b"libp2p-pubsub:"', 'SIGN_PREFIX = b"libp2p-pubsuc:"'
    ),
    *_fields(
        "gossip-accept",
        "protocols.gossip.rpc_pb2",
        "Rpc.subscriptions Rpc.publish Rpc.control Subscription.subscribe Subscription.topic Message.from Message.data "
        "Message.seqno Message.topic Message.signature Control.graft Graft.topic",
    ),
)
KADEMLIA = (
    *_fields(
        "kad-values",
        "protocols.kad.dht_pb2",
        "Message.type Message.key Message.record Record.key Record.value",
        line=IN,
    ),
    *_fields("kad-peers", "protocols.kad.dht_pb2", "Message.closer_peers Peer.id Peer.addrs"),
    *_fields("kad-providers", "protocols.kad.dht_pb2", "Message.provider_peers"),
    Mutation("kad-values", "protocols.kad.wire", "    PUT_VALUE = 0", "    PUT_VALUE = 9"),
    Mutation("kad-values", "protocols.kad.wire", "    GET_VALUE = 1", "    GET_VALUE = 9"),
    Mutation("kad-providers", "protocols.kad.wire", "    ADD_PROVIDER = 2", "    ADD_PROVIDER = 9"),
    Mutation("kad-providers", "protocols.kad.wire", "    GET_PROVIDERS = 3", "    GET_PROVIDERS = 9"),
    Mutation("kad-peers", "protocols.kad.wire", "    FIND_NODE = 4", "    FIND_NODE = 9"),
)
EXCHANGE = _fields(
    "exchange",
    "protocols.exchange.exchange_pb2",
    "ExchangeMessage.ping ExchangeMessage.pong ExchangeMessage.get_addresses ExchangeMessage.addresses Alive.peer_id "
    "Alive.nonce GetAddresses.limit Addresses.signed_peer_records",
    line=OURSELVES,
)
RENDEZVOUS = (
    *_fields(
        "rendezvous",
        "protocols.rendezvous.rendezvous_pb2",
        "Message.type Message.register Message.register_response Message.unregister Message.discover "
        "Message.discover_response Register.ns Register.signed_peer_record RegisterResponse.ttl Unregister.ns "
        "Discover.ns Discover.cookie DiscoverResponse.registrations DiscoverResponse.cookie",
        line=RUST,
    ),
    *(
        Mutation("rendezvous", "protocols.rendezvous.wire", f"_{a}, _{b}", f"_{b}, _{a}", line=RUST)
        for a, b in itertools.pairwise(("REGISTER", "REGISTER_RESPONSE", "UNREGISTER", "DISCOVER", "DISCOVER_RESPONSE"))
    ),
)
MUTATIONS: tuple[Mutation, ...] = (
    *(*IDS, *SECURITY, *YAMUX, *HANDSHAKE, *MESSAGES, *GOSSIP, *KADEMLIA, *EXCHANGE, *RENDEZVOUS),
)

_GOSSIP, _KAD = "protocols.gossip.rpc_pb2", "protocols.kad.dht_pb2"
_RENDEZVOUS = "protocols.rendezvous.rendezvous_pb2"
_CONTROL = (
    "two nodes and a third are all in each other's mesh; tests/interop/test_gossip.py counts these with Go and Rust"
)
_TOLD = "for people and logs: nothing is decided by it"
UNNOTICED: dict[tuple[str, str], str] = {
    ("protocols.messages.messages_pb2", "Message.more"): "answers in parts: tests/interop/test_messages.py has Go's",
    (_GOSSIP, "Message.key"): "keys of authors whose ID doesn't hold them; ours are Ed25519, which does",
    **dict.fromkeys(
        [
            *((_GOSSIP, f"Control.{name}") for name in ("ihave", "iwant", "prune", "idontwant")),
            *((_GOSSIP, f"IHave.{name}") for name in ("topic", "message_ids")),
            (_GOSSIP, "IWant.message_ids"),
            (_GOSSIP, "IDontWant.message_ids"),
            *((_GOSSIP, f"Prune.{name}") for name in ("topic", "peers", "backoff")),
            *((_GOSSIP, f"PeerInfo.{name}") for name in ("peer_id", "signed_peer_record")),
        ],
        _CONTROL,
    ),
    (_KAD, "Message.cluster_level"): "of old implementations; nobody reads it",
    (_KAD, "Peer.connection"): _TOLD,
    (_KAD, "Record.time_received"): _TOLD,
    ("protocols.exchange.exchange_pb2", "Alive.multiaddrs"): "a pong is one without them: they are hints",
    ("protocols.heartbeat.heartbeat_pb2", "Beat.sequence"): "a beat comes back as it went: only who made it reads it",
    (_RENDEZVOUS, "Register.ttl"): "the point's own default stands in",
    (_RENDEZVOUS, "RegisterResponse.status"): "0 is what a field that is missing means",
    (_RENDEZVOUS, "RegisterResponse.status_text"): _TOLD,
    (_RENDEZVOUS, "Discover.limit"): "a point has one of its own",
    (_RENDEZVOUS, "DiscoverResponse.status"): "0 is what a field that is missing means",
    (_RENDEZVOUS, "DiscoverResponse.status_text"): _TOLD,
}


async def run_one(mutation: Mutation | None, line: Line, check: str) -> Result:
    """The check on that line, with our end changed."""
    results: list[Result] = []
    change = mutation.change if mutation is not None else ""
    plan = Plan([line], [check], quick=True, workers=1, mutation=change, patience=PATIENCE)
    await run(plan, results.append)
    (result,) = results
    return result


async def run_all(as_json: bool, mutations: Sequence[Mutation] = MUTATIONS, workers: int = 2) -> bool:
    """All of them, told as they end; whether each was noticed, and nothing failed without a change."""
    waiting: list[tuple[Mutation | None, Line, str]] = []
    for line, check in dict.fromkeys((mutation.line, mutation.check) for mutation in mutations):
        waiting.append((None, line, check))
    waiting += [(mutation, mutation.line, mutation.check) for mutation in mutations]
    waiting.reverse()
    went_well = True

    async def work() -> None:
        nonlocal went_well
        while waiting:
            mutation, line, check = waiting.pop()
            result = await run_one(mutation, line, check)
            right = result.result == ("pass" if mutation is None else "fail")
            went_well = went_well and right
            tell(mutation, result, right)

    def tell(mutation: Mutation | None, result: Result, right: bool) -> None:
        name = mutation.name if mutation is not None else "unchanged"
        check = f"{result.cell.line}: {result.cell.check}"
        if as_json:
            fields = {"mutation": name, "check": check, "result": result.result, "right": right}
            print(json.dumps(fields | {"reason": result.reason, "seconds": round(result.seconds, 3)}), flush=True)
        word = "as it should" if right else "NOT AS IT SHOULD"
        print(f"{name}: {check}: {result.result}, {word} {result.reason}".rstrip(), file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(work)
    return went_well
