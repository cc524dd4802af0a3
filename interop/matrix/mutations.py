"""Our wire changed by one byte at a time, and the check that must fail then.

Each change is made in our end of a pair as if the source had been changed (`interop.ends.mutate`); the other end is a
peer that speaks the protocol, or, where none does, our own node unchanged. A check that fails unchanged too shows
nothing, so that each is run unchanged first, within the same time.

What no check sees is left to a test of the project, run in a process whose project is changed (`interop.ends.mutated`).
`tests/interop/test_mutations.py` holds that each field of each .proto, each protocol ID and all bytes in the source are
changed by one.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from interop.ends.mutate import VARIABLE
from interop.matrix.cells import Cell, Line, Result
from interop.matrix.run import MAX_REASON, Plan, run

PATIENCE = 10.0  # seconds for a connection, and as many for a check on it
TEST_TIMEOUT = 150.0
ROOT = Path(__file__).parents[2]

OUT, IN = Line("go", "tcp", "noise", "out"), Line("go", "tcp", "noise", "in")
TLS = Line("go", "tcp", "tls", "out")
QUIC, QUIC_IN = Line("go", "quic-v1", "tls", "out"), Line("go", "quic-v1", "tls", "in")
WS_IN = Line("go", "ws", "noise", "in")
RUST = Line("rust", "tcp", "noise", "out")
RUST_TLS = Line("rust", "tcp", "tls", "out")
OURSELVES = Line("python", "tcp", "noise", "out")
# tests, by their names in pytest
FIELDS = "tests/interop/test_fields.py"
CONSTANTS = "tests/interop/test_constants.py"
CONTROL = "tests/interop/test_gossip.py::test_each_control_message_both_ways[go]"
PARTS = "tests/interop/test_messages.py::test_answers_in_parts"
DNSADDR = "tests/interop/test_dnsaddr.py::test_both_resolve_to_the_same"


@dataclass(frozen=True)
class Mutation:
    """One change: `old` becomes `new` in a module's text, or a protobuf field gets another number. `check` is one of
    the matrix on that line, or a test, whose peers are its own.
    """

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
    # of those that tell their muxer in the handshake nobody needs it; Rust doesn't
    Mutation("connect", "node.upgrade.tls", 'NO_MUXER = "libp2p"', 'NO_MUXER = "libp2q"', line=RUST_TLS),
    Mutation(DNSADDR, "node.discovery.dnsaddr", '_PREFIX = "dnsaddr="', '_PREFIX = "dnsadds="'),
    Mutation(CONSTANTS, "protocols.mdns.wire", '_DNSADDR = b"dnsaddr="', '_DNSADDR = b"dnsadds="'),
    Mutation(CONSTANTS, "protocols.mdns.wire", "= 1, 12, 16, 28", "= 1, 13, 16, 28"),
    Mutation(CONSTANTS, "protocols.mdns.wire", "= 1, 12, 16, 28", "= 1, 12, 17, 28"),
    Mutation(CONSTANTS, "protocols.mdns.wire", "= 0x8000, 0x0400", "= 0x8000, 0x0100"),
    Mutation(CONSTANTS, "node.discovery.mdns", 'return f"_p2p-', 'return f"_p2q-'),
    Mutation("connect", "node.upgrade.multistream", 'text.encode() + b"\\n"', 'text.encode() + b"\\r"'),
    Mutation("connect", "node.websocket.transport", 'Kind.WS: "/ws"', 'Kind.WS: "/wt"', line=WS_IN),
    Mutation("connect", "node.identity", '"002408011220"', '"002408011221"', line=IN),
    Mutation("transfer", "protocols.perf", "COUNT_BYTES = 8", "COUNT_BYTES = 9"),
    Mutation(CONSTANTS, "node.identify", '"ipfs/0.1.0"', '"ipfs/0.1.1"'),
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
    Mutation("connect", "node.upgrade.noise", '(temporary, b"\\x01"', '(temporary, b"\\x03"'),
    Mutation("connect", "node.upgrade.noise", 'first + b"\\x02"', 'first + b"\\x03"'),
    Mutation("connect", "node.upgrade.certificate", "= 0x30, 0x04", "= 0x31, 0x04", line=TLS),
    Mutation("connect", "node.upgrade.certificate", "= 0x30, 0x04", "= 0x30, 0x05", line=TLS),
    Mutation("connect", "node.quic.configurations", 'ALPN = "libp2p"', 'ALPN = "libp2q"', line=QUIC),
    Mutation("connect", "node.quic.mutual", "client CertificateVerify", "client CertificateVerifz", line=QUIC_IN),
    Mutation("connect", "node.quic.mutual", 'b"\\0" + len(extensions)', 'b"\\1" + len(extensions)', line=QUIC_IN),
    Mutation("connect", "node.quic.packets", "VERSION = 1\n", "VERSION = 2\n", line=QUIC_IN),
    Mutation("identify", "node.records", '"libp2p-peer-record"', '"libp2p-peer-recore"'),
    Mutation("identify", "node.records", r'b"\x03\x01"', r'b"\x03\x02"'),
    Mutation(CONSTANTS, "node.peers.record", "= 3, 1, 2", "= 3, 1, 3"),
    Mutation(
        "rendezvous", "node.envelopes", 'LEGACY: "libp2p-routing-state"', 'LEGACY: "libp2p-routing-statf"', line=RUST
    ),
    Mutation(
        "rendezvous", "node.envelopes", 'b"/libp2p/routing-state-record"', 'b"/libp2p/routing-state-recore"', line=RUST
    ),
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
    Mutation(PARTS, "protocols.messages.wire", 'b"\\x58\\x01"', 'b"\\x60\\x01"'),
    Mutation("messages", "protocols.messages.authors", "(0x08, kind, 0x12)", "(0x08, kind, 0x1A)"),
    Mutation("messages", "protocols.messages.authors", 'fromhex("08011220")', 'fromhex("08011221")'),
    Mutation(CONSTANTS, "protocols.messages.authors", 'b"\\x12\\x20" + hashlib', 'b"\\x13\\x20" + hashlib'),
    Mutation(CONSTANTS, "protocols.messages.authors", "SECP256K1, ECDSA = range(4)", "ECDSA, SECP256K1 = range(4)"),
    *_fields(
        "messages",
        "protocols.messages.messages_pb2",
        "Message.author Message.network_id Message.client_version Message.protocol Message.type Message.kind "
        "Message.request_id Message.timestamp_ms Message.payload Message.recipient SignedMessage.message "
        "SignedMessage.signature PublicKey.type PublicKey.data",
    ),
    *_fields(PARTS, "protocols.messages.messages_pb2", "Message.more"),
)
HANDSHAKE = _fields("connect", "protocols.handshake.handshake_pb2", "Hello.client_version Hello.network_id")
GOSSIP = (
    Mutation(
        "gossip-accept", "protocols.gossip.policy", 'SIGN_PREFIX = b"libp2p-pubsub:"', 'SIGN_PREFIX = b"libp2p-pubsuc:"'
    ),
    *_fields(
        "gossip-accept",
        "protocols.gossip.rpc_pb2",
        "Rpc.subscriptions Rpc.publish Subscription.subscribe Subscription.topic Message.from Message.data "
        "Message.seqno Message.topic Message.signature",
    ),
    *_fields(
        CONTROL,
        "protocols.gossip.rpc_pb2",
        "Rpc.control Control.graft Control.prune Control.ihave Control.iwant Control.idontwant Prune.topic "
        "IHave.message_ids IWant.message_ids",
    ),
    *_fields(
        FIELDS,
        "protocols.gossip.rpc_pb2",
        "Message.key Graft.topic IHave.topic Prune.peers Prune.backoff PeerInfo.peer_id PeerInfo.signed_peer_record "
        "IDontWant.message_ids",
    ),
    Mutation(CONSTANTS, "protocols.gossip.state", 'b"\\0" + message.data', 'b"\\1" + message.data'),
    Mutation(CONSTANTS, "protocols.gossip.state", "digest()[:20]", "digest()[:21]"),
    Mutation(FIELDS, "protocols.gossip.outbound", '_ID_TAG = b"\\x0a"', '_ID_TAG = b"\\x12"'),
    Mutation(CONTROL, "protocols.gossip.outbound", '_CONTROL_TAG = b"\\x1a"', '_CONTROL_TAG = b"\\x22"'),
    Mutation(CONTROL, "protocols.gossip.outbound", '_IDONTWANT_TAG = b"\\x2a"', '_IDONTWANT_TAG = b"\\x32"'),
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
    *_fields(FIELDS, "protocols.kad.dht_pb2", "Message.cluster_level Peer.connection Record.time_received"),
    Mutation("kad-values", "protocols.kad.wire", "    PUT_VALUE = 0", "    PUT_VALUE = 9"),
    Mutation("kad-values", "protocols.kad.wire", "    GET_VALUE = 1", "    GET_VALUE = 9"),
    Mutation("kad-providers", "protocols.kad.wire", "    ADD_PROVIDER = 2", "    ADD_PROVIDER = 9"),
    Mutation("kad-providers", "protocols.kad.wire", "    GET_PROVIDERS = 3", "    GET_PROVIDERS = 9"),
    Mutation("kad-peers", "protocols.kad.wire", "    FIND_NODE = 4", "    FIND_NODE = 9"),
    Mutation(
        "kad-values",
        "protocols.kad.validators",
        '_, slash, rest = key.partition(b"/")',
        '_, slash, rest = key.partition(b"|")',
    ),
    Mutation(CONSTANTS, "protocols.kad.validators", 'b"\\x12\\x20" + digest', 'b"\\x13\\x20" + digest'),
    Mutation(CONSTANTS, "protocols.kad.validators", 'b"\\x00" + bytes', 'b"\\x01" + bytes'),
    Mutation(CONSTANTS, "protocols.kad.wire", "    PING = 5", "    PING = 9"),
    Mutation(CONSTANTS, "protocols.kad.keyspace", "= 0x00, 0x12", "= 0x00, 0x13"),
)
EXCHANGE = _fields(
    "exchange",
    "protocols.exchange.exchange_pb2",
    "ExchangeMessage.ping ExchangeMessage.pong ExchangeMessage.get_addresses ExchangeMessage.addresses Alive.peer_id "
    "Alive.nonce GetAddresses.limit Addresses.signed_peer_records",
    line=OURSELVES,
) + _fields(CONSTANTS, "protocols.exchange.exchange_pb2", "Alive.multiaddrs")
HEARTBEAT = _fields(CONSTANTS, "protocols.heartbeat.heartbeat_pb2", "Beat.sequence")
RENDEZVOUS = (
    *_fields(
        "rendezvous",
        "protocols.rendezvous.rendezvous_pb2",
        "Message.type Message.register Message.register_response Message.unregister Message.discover "
        "Message.discover_response Register.ns Register.signed_peer_record RegisterResponse.ttl Unregister.ns "
        "Discover.ns Discover.cookie DiscoverResponse.registrations DiscoverResponse.cookie",
        line=RUST,
    ),
    *_fields(
        FIELDS,
        "protocols.rendezvous.rendezvous_pb2",
        "Register.ttl RegisterResponse.status RegisterResponse.status_text Discover.limit DiscoverResponse.status "
        "DiscoverResponse.status_text",
    ),
    Mutation(CONSTANTS, "protocols.rendezvous.wire", "UNAVAILABLE = 400", "UNAVAILABLE = 401"),
    *(
        Mutation("rendezvous", "protocols.rendezvous.wire", f"_{a}, _{b}", f"_{b}, _{a}", line=RUST)
        for a, b in itertools.pairwise(("REGISTER", "REGISTER_RESPONSE", "UNREGISTER", "DISCOVER", "DISCOVER_RESPONSE"))
    ),
)
MUTATIONS: tuple[Mutation, ...] = (
    *(*IDS, *SECURITY, *YAMUX, *HANDSHAKE, *MESSAGES, *GOSSIP, *KADEMLIA, *EXCHANGE, *HEARTBEAT, *RENDEZVOUS),
)


async def run_one(mutation: Mutation | None, line: Line, check: str) -> Result:
    """The check on that line, with our end changed; or the test."""
    if "::" in check or check.endswith(".py"):
        return await trio.to_thread.run_sync(partial(_run_test, mutation, Cell(line, check)))
    results: list[Result] = []
    change = mutation.change if mutation is not None else ""
    plan = Plan([line], [check], quick=True, workers=1, mutation=change, patience=PATIENCE)
    await run(plan, results.append)
    (result,) = results
    return result


def _run_test(mutation: Mutation | None, cell: Cell) -> Result:
    environ = {**os.environ, "INTEROP": "require", VARIABLE: mutation.change if mutation is not None else ""}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "interop.ends.mutated", "-p", "no:cacheprovider", cell.check]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TEST_TIMEOUT, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode == 0:
        return Result(cell, "pass", seconds=seconds)
    if done.returncode != 1:  # of pytest: tests failed
        raise ValueError(f"expected {cell.check} to be run, got:\n{done.stdout}{done.stderr}")
    (summary, *_) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return Result(cell, "fail", summary[:MAX_REASON], seconds)


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
        check = result.cell.check if "/" in result.cell.check else f"{result.cell.line}: {result.cell.check}"
        if as_json:
            fields = {"mutation": name, "check": check, "result": result.result, "right": right}
            print(json.dumps(fields | {"reason": result.reason, "seconds": round(result.seconds, 3)}), flush=True)
        word = "as it should" if right else "NOT AS IT SHOULD"
        print(f"{name}: {check}: {result.result}, {word} {result.reason}".rstrip(), file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(work)
    return went_well
