"""What can be asked of a running node: typed functions, on which every surface stands (control socket, HTTP).

Each function takes one struct of parameters and gives one struct of results; `CALLS` is their table. Errors are
`VouchError`s, with texts for operators. A function's name and structs are its interface: fields are added, never
changed. A function of `STREAMS` also tells items, before its result or until it is cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from node.api import addressbook, dht, feed, gossip, operate, perf, rendezvous, verdicts
from node.api import peers as peers_api
from node.api.dht import PeerName
from node.api.reach import reach
from node.errors import NotFoundError, TooSlowError, UsageError, VouchError
from node.names import parse_peer_addr, parse_peer_id
from node.node import Node
from protocols import ProtocolError, StreamError

CALL_TIMEOUT = 120.0  # every function has bounds of its own; this is the last of them
# a series of pings occupies its caller; who wants more calls again
MAX_SERIES = 30.0
LEAST = 0.001


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class Address(msgspec.Struct, forbid_unknown_fields=True):
    """`address`: a multiaddr that ends in /p2p/PEERID."""

    address: str


class PingWhom(msgspec.Struct, forbid_unknown_fields=True):
    """`target`: the ID of a connected peer, or the multiaddr of one to connect with; `interval` in seconds. `timeout`:
    seconds that the whole series may take once the peer is connected; 0: as long as the protocol allows.
    """

    target: str
    count: int = 1
    interval: float = 0.0
    timeout: float = 0.0


class Use(msgspec.Struct):
    """How far a limit is used."""

    used: int
    limit: int


class Status(msgspec.Struct):
    """How a node is. `uptime` in seconds; `routing_table` holds peer IDs; `api`: URL of its HTTP API, or ""."""

    peer_id: str
    network_id: str
    client_version: str
    addrs: list[str]
    uptime: float
    peers: int
    inbound: int
    outbound: int
    routing_table: list[str]
    protocols: list[str]
    limits: dict[str, Use]
    api: str = ""


class Peer(msgspec.Struct):
    """One connected peer. `connected_for` in seconds; `client_version` is empty without a handshake. `rtt`: seconds, by
    its heartbeats and smoothed, None as long as there is none; `flaky`: it misses heartbeats. `score`, `counts`,
    `source` and `tags` are the pool's (`node.peers.service.PeerInfo`).
    """

    peer: str
    addr: str
    direction: str
    client_version: str
    agent: str
    connected_for: float
    streams: int
    rtt: float | None = None
    flaky: bool = False
    score: float = 0.0
    counts: bool = True
    source: str = ""
    tags: list[str] = []


class Peers(msgspec.Struct):
    """The connected peers."""

    peers: list[Peer]


class PeerDetail(msgspec.Struct):
    """What is known of one peer. `connected`: as long as it is; `known`: what the address book has; `protocols` as it
    told; `banned`: why, if it is.
    """

    peer: str
    connected: Peer | None
    known: addressbook.Known | None
    protocols: list[str]
    banned: str | None


class Connected(msgspec.Struct):
    """A connection that is there now. `seconds`: what it took; `already`: it was there before."""

    peer: str
    addr: str
    direction: str
    already: bool
    seconds: float


class Pinged(msgspec.Struct):
    """Round-trip times in seconds, in the order of the pings; `lost` pings had no answer, for the reason in `error`."""

    peer: str
    rtts: list[float]
    lost: int
    error: str = ""


async def status(node: Node, _params: Nothing) -> Status:
    """How the node is."""
    limits = node.swarm.limits
    connections = node.swarm.admitted_connections()
    outbound = sum(connection.initiated for connection in connections)
    return Status(
        peer_id=node.peer_id,
        network_id=node.config.network_id,
        client_version=node.config.client_version,
        addrs=node.addrs,
        uptime=node.uptime or 0.0,
        peers=len(connections),
        inbound=len(connections) - outbound,
        outbound=outbound,
        routing_table=node.dht.table() if node.dht else [],
        protocols=node.registry.ids(),
        limits={
            "max_connections": Use(limits.total, limits.limits.max_connections),
            "max_inbound": Use(limits.inbound, limits.limits.max_inbound),
            "max_half_open": Use(limits.half_open, limits.limits.max_half_open),
            **{name: Use(*bound()[:2]) for name, bound in node.api_bounds.items()},
        },
        api=node.api_url,
    )


async def peers(node: Node, _params: Nothing) -> Peers:
    """Who is connected."""
    now = trio.current_time()
    pooled = {info.peer: info for info in node.peers.list()}
    rows = []
    for connection in node.swarm.admitted_connections():
        known = node.identify.known.get(connection.peer)
        rtt = node.rtt(connection.peer)
        info = pooled.get(connection.peer)
        rows.append(
            Peer(
                peer=connection.peer,
                addr=str(connection.addr),
                direction=connection.way,
                client_version=connection.hello.client_version if connection.hello else "",
                agent=known.agent if known else "",
                connected_for=now - connection.opened_at,
                streams=len(connection.get_streams()),
                rtt=rtt.smoothed if rtt else None,
                flaky=node.is_flaky(connection.peer),
                score=info.score if info else 0.0,
                counts=info.counts if info else True,
                source=info.source if info else "",
                tags=list(info.tags) if info else [],
            )
        )
    return Peers(sorted(rows, key=lambda row: row.peer))


async def peer(node: Node, params: PeerName) -> PeerDetail:
    """What is known of one peer. Raises NotFoundError if nothing is."""
    name = str(parse_peer_id(params.peer))
    connected = next((row for row in (await peers(node, Nothing())).peers if row.peer == name), None)
    entry = node.addressbook.get(name)
    identified, ban = node.identify.known.get(name), node.addressbook.ban_of(peer=name)
    if connected is None and entry is None and ban is None:
        raise NotFoundError(f"nothing is known of the peer {name}")
    return PeerDetail(
        name,
        connected,
        addressbook.shown([entry])[0] if entry else None,
        sorted(identified.protocols) if identified else [],
        ban.reason if ban else None,
    )


async def connect(node: Node, params: Address) -> Connected:
    """Connects with a peer."""
    peer_id, _ = parse_peer_addr(params.address)
    already = node.swarm.connection(peer_id) is not None
    started = trio.current_time()
    connection = await node.connect(params.address)
    seconds = trio.current_time() - started
    return Connected(connection.peer, str(connection.addr), connection.way, already, seconds)


async def disconnect(node: Node, params: PeerName) -> Nothing:
    """Closes every connection to a peer."""
    await node.disconnect(params.peer)
    return Nothing()


async def ping(node: Node, params: PingWhom) -> Pinged:
    """Pings a peer; what is lost is counted, and ends the series."""
    if params.count < 1 or params.interval < 0 or params.count * max(params.interval, LEAST) > MAX_SERIES:
        raise UsageError(
            f"expected at least one ping, and {MAX_SERIES:g} s at most in all, "
            f"got {params.count} that are {params.interval:g} s apart"
        )
    if not 0 <= params.timeout <= MAX_SERIES:
        raise UsageError(f"timeout: expected 0 to {MAX_SERIES:g} s, got {params.timeout:g}")
    peer_id = await reach(node, params.target)
    rtts: list[float] = []
    error = ""
    with trio.move_on_after(params.timeout or math.inf) as scope:
        try:
            await node.ping(str(peer_id), params.count, params.interval, rtts)
        except (StreamError, ProtocolError) as failed:
            error = str(failed)
    if scope.cancelled_caught:
        error = f"expected an answer within {params.timeout:g} s, got none"
    return Pinged(str(peer_id), rtts, params.count - len(rtts), error)


class Call(msgspec.Struct):
    """A function and the struct of its parameters. One of STREAMS takes a third argument, `tell`."""

    function: Callable[..., Awaitable[Any]]
    params: type[msgspec.Struct]


CALLS: dict[str, Call] = {
    "status": Call(status, Nothing),
    "peers": Call(peers, Nothing),
    "peer": Call(peer, PeerName),
    "connect": Call(connect, Address),
    "disconnect": Call(disconnect, PeerName),
    "ping": Call(ping, PingWhom),
    "perf": Call(perf.perf, perf.PerfWith),
    "find_peer": Call(dht.find_peer, PeerName),
    "dht_provide": Call(dht.provide, dht.Content),
    "dht_find_providers": Call(dht.find_providers, dht.ProvidersOf),
    "dht_put": Call(dht.put, dht.KeyValue),
    "dht_get": Call(dht.get, dht.Key),
    "dht_withdraw": Call(dht.withdraw, dht.Key),
    "registrations": Call(rendezvous.registrations, rendezvous.RegistrationQuery),
    "discover": Call(rendezvous.discover, rendezvous.DiscoverWhere),
    "ban": Call(peers_api.ban, peers_api.Ban),
    "unban": Call(peers_api.unban, peers_api.Target),
    "bans": Call(peers_api.bans, peers_api.NoQuery),
    "add_peer": Call(peers_api.add_peer, peers_api.AddPeer),
    "remove_peer": Call(peers_api.remove_peer, peers_api.PeerTag),
    "protect_peer": Call(peers_api.protect_peer, peers_api.PeerTag),
    "unprotect_peer": Call(peers_api.unprotect_peer, peers_api.PeerTag),
    "publish": Call(gossip.publish, gossip.Publish),
    "gossip": Call(gossip.state, gossip.GossipQuery),
    "verdict": Call(verdicts.verdict, verdicts.GiveVerdict),
    "topics": Call(operate.topics, operate.NoParams),
    "mesh": Call(operate.mesh, operate.TopicName),
    "metrics": Call(operate.metrics, operate.NoParams),
    "metrics_snapshot": Call(operate.metrics_snapshot, operate.NoParams),
    "loglevel": Call(operate.loglevel, operate.NoParams),
    "set_loglevel": Call(operate.set_loglevel, operate.SetLevel),
    "config": Call(operate.config, operate.NoParams),
    "ready": Call(operate.ready, operate.NoParams),
    "addressbook": Call(addressbook.addressbook, addressbook.AddressBookQuery),
    "addressbook_import": Call(addressbook.addressbook_import, addressbook.ImportFile),
}

STREAMS: dict[str, Call] = {
    "subscribe": Call(gossip.subscribe, gossip.Subscribe),
    "events": Call(feed.events, feed.Listen),
}


async def invoke(node: Node, name: str, params: Any) -> Any:
    """Calls a function by name with parameters as they came out of JSON. Raises VouchError for whatever is wrong,
    TooSlowError after CALL_TIMEOUT.
    """
    with trio.move_on_after(CALL_TIMEOUT):
        return await _call(CALLS, name, params, node)
    raise TooSlowError(f"expected {name} within {CALL_TIMEOUT:g} s")


async def stream(node: Node, name: str, params: Any, tell: gossip.Tell, **more: Any) -> Any:
    """The same with a function that goes on telling. It is cancelled to end it."""
    return await _call(STREAMS, name, params, node, tell, **more)


async def _call(table: dict[str, Call], name: str, params: Any, node: Node, *given: Any, **more: Any) -> Any:
    call = table.get(name)
    if call is None:
        raise UsageError(f"expected one of the calls {', '.join(sorted({**CALLS, **STREAMS}))}, got {name!r}")
    try:
        typed = msgspec.convert(params, call.params)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}") from None
    try:
        return await call.function(node, typed, *given, **more)
    except (StreamError, ProtocolError) as error:
        raise VouchError(str(error)) from error
