"""The vocabulary of the log: which parts there are, which keys its lines have, and what each key means.

docs/logs.md shows these tables, and a test walks every log call of the code to hold all three together: an event's name
is snake_case, a key is one of KEYS, a peer ID always goes by `peer` and an address by `addr`.
"""

from __future__ import annotations

from types import MappingProxyType

PARTS = MappingProxyType(
    {
        "addressbook": "who is remembered, and its file",
        "api": "the HTTP API",
        "bootstrap": "the peers that a network is found through",
        "connection": "one connection: admission, streams",
        "control": "the control socket",
        "dht": "the hash table",
        "dialer": "dials",
        "dnsaddr": "addresses in the DNS",
        "events": "listeners to the node's events",
        "exchange": "peers that are told of other peers",
        "gossip": "the gossip router on the node's peers",
        "identify": "who the peers say they are",
        "mdns": "peers on the same link",
        "muxer": "streams over one connection",
        "node": "what happens to the node: the events that most people read",
        "peers": "the pool, and bans",
        "quic": "QUIC",
        "registry": "protocols and their handlers",
        "rendezvous": "registering at points, and being one",
        "run": "the process: settings, key, signals, the log itself",
        "swarm": "connections that come in",
        "verdicts": "programs that decide on gossip",
        "websocket": "certificates of WebSockets",
    }
)
# py-libp2p and what it stands on. It logs what strangers do as errors, with tracebacks, so it is heard on request only
LIBRARIES = "libp2p"

KEYS = MappingProxyType(
    {
        "peer": "a peer ID, in base58",
        "addr": "an address: a multiaddr; of a stranger who has no peer ID yet, an IP address, with a port where known",
        "addrs": "several of them",
        "agent": "the program that a peer says it is",
        "bans": "how many bans",
        "call": "a function of the API",
        "client_version": "the client that a peer told in its handshake; empty without one",
        "code": "an error's number on the wire",
        "complete": "whether all of it was done in time",
        "detail": "a sentence for people",
        "direction": "inbound or outbound",
        "error": "what went wrong, in words",
        "file": "a path",
        "forms": "the forms of peer records that a rendezvous point took",
        "instead": "the port that is used",
        "interface": "a network interface",
        "kind": "the class of an event",
        "limit": "how many there may be",
        "low": "the setting `low_peers`",
        "message": "a gossip message's ID, in hex",
        "missed": "heartbeats without an answer in time",
        "moved_to": "where a damaged file is now",
        "name": "a DNS name, as a multiaddr",
        "namespace": "what is registered under",
        "network_id": "the node's network",
        "path": "the path of an HTTP request",
        "peers": "how many peers",
        "port": "a port that is taken",
        "program": "a program that decides on gossip",
        "protocol": "a protocol's ID",
        "reason": "a fixed word, for machines",
        "registrations": "how many registrations",
        "retry_in": "seconds until the next try",
        "seconds": "how long it took, lasted or is to last",
        "service": "the service name of mDNS",
        "signal": "the signal that ends the node",
        "silent": "seconds since anything came",
        "source": "which source of peers",
        "status": "a program's exit status, `timeout`, or a signal's number below 0",
        "target": "a peer ID, an IP address or a network that is banned",
        "topic": "a topic of gossip",
        "ttl": "seconds that a registration holds",
        "url": "where the HTTP API is",
        "verdict": "accept, reject or ignore",
        "version": "4 or 6, of IP",
        "where": "the place in the router",
        "window": "of how many heartbeats",
        # of the log itself
        "count": "how many lines a line stands for",
        "what": "the event that was repeated",
        "exception": "the traceback of a fault",
    }
)

# these differ from line to line of what is the same event
MEASURES = frozenset({"timestamp", "retry_in", "seconds", "silent", "peers", "count", "missed", "window"})

# what tells how things are is never collapsed: who reads a peer's last line knows whether it is connected
STATES = frozenset(
    {
        "started",
        "stopping",
        "stopped",
        "listening",
        "api_listening",
        "admitted",
        "disconnected",
        "peer_flaky",
        "peer_steady",
        "peer_lost",
        "banned",
        "unbanned",
        "pool_low",
    }
)

# strangers cause these as fast as they like, with a new key, port and text each time: they are told apart by host and
# `reason`; warnings and errors also by `error` and traceback, for those speak of the node
STRANGERS = frozenset(
    {
        "refused",
        "connection_refused",
        "upgrade_failed",
        "connection_failed",
        "quic_stranger_failed",
        "quic_connection_failed",
    }
)
