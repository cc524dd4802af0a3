"""A node's settings: one table, with a line for each.

A new setting is one line in `Config`: its annotation says how file, environment and flags are read and checked,
its text is its help. What a setting is at all is `node.setting`, how the layers go over each other `node.settings`.
Left to the caller: whether folders, keys and addresses exist.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_type_hints

from node.checks import check_api, check_ip, check_multiaddr
from node.setting import Setting, SettingError, advanced, expand_home, setting

_NAME = r"[A-Za-z0-9._-]{1,32}"
_VERSION = r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"


LOG_LEVELS = ("debug", "info", "warning", "error")


def node_version() -> str:
    """The version of the installed distribution, or 0.0.0 in a checkout that isn't installed."""
    from importlib.metadata import PackageNotFoundError, version  # 40 ms, which `vouch --help` needn't spend

    try:
        return version("vouch-node")
    except PackageNotFoundError:
        return "0.0.0"


def default_client_version() -> str:
    """`vouch/N.N.N`; of a version like 1.2.0rc1 only the numbers, for that is all that peers can compare."""
    numbers = re.match(_VERSION, node_version())
    return f"vouch/{numbers[0] if numbers else '0.0.0'}"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """$XDG_DATA_HOME/vouch, else ~/.local/share/vouch (XDG Base Directory specification, which says to ignore a
    relative XDG_DATA_HOME)."""
    base = Path(environ.get("XDG_DATA_HOME", ""))
    if base.is_absolute():
        return base / "vouch"
    return (Path(environ["HOME"]) if environ.get("HOME") else expand_home(Path("~"))) / ".local/share/vouch"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that can be set on a node. Whoever holds one holds valid values: it checks itself, and raises
    UsageError naming the field, what was expected and what came."""

    # Network
    listen: tuple[str, ...] = setting(("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"), "address to listen on")
    bootstrap: tuple[str, ...] = setting(
        (), "peer to find the network through; the address ends in /p2p/PEERID, or is a name like /dnsaddr/example.org"
    )
    network_id: str = setting("vouch-local", "only peers of the same network are admitted; 1 to 64 bytes")

    # Files
    data_dir: Path = setting(  # noqa: RUF009
        default_data_dir,
        "folder of the key, the address book, the lock and the control socket",
        shown="$XDG_DATA_HOME/vouch or ~/.local/share/vouch",
    )
    key: Path | None = setting(None, "key file, made if missing", shown="node.key in the data folder")  # noqa: RUF009

    # Logs
    log_format: Literal["text", "json"] = setting("text", "form of the log lines")
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "least severe lines that are logged")
    log_levels: Mapping[str, str] = setting(
        dict, "the same for one part of the node; the parts: docs/logs.md", shown="none", form="PART=LEVEL"
    )
    log_repeat_window: float = advanced(10.0, "seconds in which a log line that says the same again is only counted")
    max_log_queue: int = advanced(1 << 20, "bytes of log lines that wait for a slow reader", shown="1 MiB")

    # HTTP API
    api: str = setting("127.0.0.1:4780", "address of the HTTP API and the dashboard, or off", form="HOST:PORT")
    api_cert: Path | None = setting(  # noqa: RUF009
        None, "PEM file with the API's certificate, which it needs beyond this machine", shown="none"
    )
    api_key: Path | None = setting(None, "PEM file with its key", shown="the same file")  # noqa: RUF009
    api_hosts: tuple[str, ...] = setting((), "further name by which clients reach the API", form="NAME")
    api_token: Literal["changes", "always"] = advanced(
        "changes", "what the API's token is asked for on this machine: what changes something, or all but /health"
    )
    ready_peers: int = advanced(1, "peers below which a node with a bootstrap isn't ready")
    max_api_connections: int = advanced(128, "connections with the API at once; half of them, with one other machine")
    max_api_listeners: int = advanced(32, "of them, those that listen to events and topics")
    max_api_body: int = advanced(2 << 20, "bytes of a request's body", shown="2 MiB")
    max_api_rate: float = advanced(100.0, "requests a second from one address, on average", form="RATE")
    max_api_queue: int = advanced(2 << 20, "bytes of messages that wait for one listener", shown="2 MiB")

    # Admission
    admission: Literal["required", "open"] = setting("required", "whether a peer must pass the handshake to stay")
    client_version: str = advanced(default_client_version, "told to peers; NAME/N.N.N", shown="vouch/ and its version")
    min_versions: Mapping[str, str] = setting(dict, "oldest version of a client that is admitted", shown="none")

    # Upgrade
    security: str = setting(
        "noise,tls",
        "how connections over TCP are secured: noise, tls, or both, the preferred one first",
        form="NAME[,NAME]",
    )
    upgrade: Literal["fast", "stock"] = advanced("fast", "whose muxer: the project's, or py-libp2p's to compare")
    wss_certificate: Path | None = advanced(  # noqa: RUF009
        None, "PEM file with the certificate for listening on /tls/ws", shown="none"
    )
    wss_key: Path | None = advanced(None, "PEM file with its key", shown="the same file")  # noqa: RUF009
    wss_roots: Path | None = advanced(  # noqa: RUF009
        None, "PEM file with whom to trust when dialling /tls/ws", shown="whom the system trusts"
    )

    # Time for one step of a connection
    handshake_timeout: float = advanced(5.0, "seconds for the admission handshake")
    dial_timeout: float = advanced(10.0, "seconds for a whole dial, handshake included")
    upgrade_timeout: float = advanced(10.0, "seconds for a whole inbound upgrade, handshake included")
    negotiation_timeout: float = advanced(10.0, "seconds for agreeing on a stream's protocol")
    drain_timeout: float = advanced(5.0, "seconds that a superfluous connection may keep its streams")

    # Limits
    max_connections: int = setting(256, "connections at once")
    max_inbound: int = setting(192, "of them, connections that others dialled")
    max_half_open: int = advanced(32, "connections that aren't admitted yet")
    max_half_open_per_ip: int = advanced(8, "the same from one IP address")
    max_connections_per_ip: int = advanced(16, "connections with one IP address, or one IPv6 /64")
    max_dials: int = advanced(32, "dials under way at once")
    max_streams: int = advanced(256, "inbound streams open at once on one connection")
    max_stream_window: int = advanced(16 << 20, "bytes that a peer may send ahead on one stream", shown="16 MiB")
    max_connection_window: int = advanced(64 << 20, "the same on all streams of a connection", shown="64 MiB")
    max_unsent: int = advanced(8 << 20, "bytes that wait to be sent on one connection", shown="8 MiB")
    max_known_peers: int = advanced(10_000, "peers that are remembered")
    max_control_clients: int = advanced(16, "clients of the control socket at once")

    # Messages
    signatures: Literal["on", "off"] = setting("on", "whether direct messages are signed, and must be")
    message_max_age: float = advanced(600.0, "seconds that a message may be old, by our clock")
    message_max_ahead: float = advanced(30.0, "seconds that its author's clock may be ahead of ours")

    # Measurements
    perf: Literal["on", "off"] = setting("off", "whether peers may measure how fast bytes go (vouch perf)")

    # Gossip
    gossip: Literal["on", "off"] = setting("on", "whether the node speaks pubsub")
    gossip_signing: Literal["own", "strict"] = setting(
        "own", "how gossip is signed: as networks of vouch do, or as other libp2p networks (StrictSign)"
    )
    topic: Mapping[str, str] = setting(
        dict,
        "topic to join; COMMAND decides, else what is well signed is accepted",
        shown="none",
        form="NAME[=COMMAND]",
    )
    gossip_router: Literal["vouch", "stock"] = advanced(
        "vouch", "whose router: the project's, or py-libp2p's to compare"
    )
    gossip_direct: tuple[str, ...] = advanced(
        (), "peer that always gets every message and is never scored, as we for it; the address ends in /p2p/PEERID"
    )
    max_gossip_queue: int = advanced(16 << 20, "bytes of messages that wait for one slow peer", shown="16 MiB")

    # Pool
    pool: Literal["on", "off"] = setting("on", "whether the node finds and drops peers by itself")
    low_peers: int = setting(20, "peers below which the node hurries to find others")
    target_peers: int = setting(40, "peers that it looks for")
    high_peers: int = setting(100, "peers above which the worst are dropped")
    outbound_peers: int = setting(20, "peers, at least, that the node chooses itself, however many others come in")
    pool_dials: int = advanced(16, "dials that the pool has under way at once")
    pool_dial_timeout: float = advanced(5.0, "seconds that such a dial may take, if dial_timeout isn't less")
    pool_dial_rate: float = advanced(4.0, "dials a second that it begins, on average", form="RATE")
    peer_grace: float = advanced(30.0, "seconds that a new peer isn't judged")
    subnet_share: float = advanced(
        0.125, "part of the outbound peers, at most, in one IPv4 /16 or IPv6 /32", form="PART"
    )
    source_share: float = advanced(
        0.5, "part of them that are new to us and known by one source, if there are others", form="PART"
    )
    feeler_interval: float = advanced(60.0, "seconds between dials that only test an address")
    fault_ban: float = advanced(3600.0, "seconds that a peer is banned for breaking rules again and again")

    # Retries
    bootstrap_retry_min: float = advanced(1.0, "seconds before a bootstrap peer is first dialled again")
    bootstrap_retry_max: float = advanced(60.0, "seconds that this pause grows to")
    refused_backoff_min: float = advanced(5.0, "seconds before a peer that refused us is first dialled again")
    refused_backoff_max: float = advanced(600.0, "seconds that this pause grows to")

    # Address book
    addressbook: Literal["auto", "file", "memory"] = advanced(
        "auto",
        "where known peers and bans are kept: in the data folder, or until the node ends",
        shown="file, for a node whose key is the data folder's",
    )
    max_bans: int = advanced(10_000, "peers, addresses and networks that are banned at once")
    redial_backoff_min: float = advanced(5.0, "seconds before an address that failed is first dialled again")
    redial_backoff_max: float = advanced(600.0, "seconds that this pause grows to")

    # Heartbeat
    heartbeat: Literal["on", "off"] = setting("on", "whether connected peers are watched; beats are answered anyway")
    heartbeat_interval: float = advanced(15.0, "seconds between beats, 0.5 to 300; a dead link is noticed within three")
    heartbeat_window: int = advanced(10, "beats that are looked at, at most 1000")
    heartbeat_flaky: int = advanced(3, "of them, missed beats that make a peer flaky")
    heartbeat_steady: int = advanced(1, "missed beats, at most, that make it steady again; fewer than for flaky")

    # Discovery
    dht: Literal["server", "client", "off"] = setting("server", "part played in the distributed hash table")
    kad_protocol: str = advanced("", "protocol ID of the hash table", shown="/vouch/HEX OF THE NETWORK ID/kad/1.0.0")
    dht_refresh_interval: float = advanced(600.0, "seconds between refreshes of the hash table")
    dht_parallel: int = advanced(10, "requests of one look-up under way at once, beside those that are slow")
    dht_paths: int = advanced(3, "disjoint paths of a look-up, so that no neighbour decides what it finds")
    dht_request_timeout: float = advanced(5.0, "seconds that a peer has for an answer, with the dial")
    dht_store: Literal["auto", "file", "memory"] = advanced(
        "auto",
        "where the hash table's records are kept: in the data folder, or until the node ends",
        shown="file, for a node whose key is the data folder's",
    )
    dht_max_values: int = advanced(4096, "values that are kept for others")
    dht_max_providers: int = advanced(16_384, "providers that are kept for others")

    # Rendezvous
    rendezvous: tuple[str, ...] = setting(
        (), "rendezvous point to register at and find peers through; the address ends in /p2p/PEERID"
    )
    rendezvous_namespace: str = setting(
        "", "what to register under, and look for; 255 bytes at most", shown="vouch/ and the network ID"
    )
    rendezvous_ttl: int = advanced(7200, "seconds that a registration is to hold, 7200 to 259200 for most points")
    rendezvous_point: Literal["on", "memory", "off"] = setting(
        "off", "whether the node is a rendezvous point for others; memory: one that forgets when it stops"
    )
    rendezvous_rate: float = advanced(2.0, "questions a second that a rendezvous point answers each peer")
    max_registrations: int = advanced(10_000, "registrations at a rendezvous point")
    max_registrations_per_peer: int = advanced(32, "of them, one peer's")
    max_registrations_per_namespace: int = advanced(5000, "of them, those in one namespace")
    max_registrations_per_subnet: int = advanced(1000, "of them, those from one public IPv4 /16 or IPv6 /32")

    # DNS
    dns_servers: tuple[str, ...] = advanced(
        (), "DNS server to ask for /dnsaddr/ names", shown="the system's", form="IP"
    )

    # mDNS. Off unless asked for: a program's node says nothing on its owner's link by itself, and nodes side by side on
    # one machine, as in tests, don't join each other unasked
    mdns: Literal["on", "off"] = setting("off", "whether the node finds peers of its network on the same link")
    mdns_service: str = advanced(
        "", "service name; _p2p._udp.local meets any libp2p node", shown="_p2p-HASH OF THE NETWORK ID._udp.local"
    )
    mdns_interval: float = advanced(60.0, "seconds between questions, when nobody else asks")
    mdns_max_peers: int = advanced(256, "peers that are remembered of one link")

    # Peer exchange
    exchange: Literal["on", "off"] = setting("on", "whether peers are told of other peers, and asked for them")
    exchange_interval: float = advanced(600.0, "seconds before a peer is asked for others again")
    exchange_at_once: int = advanced(4, "peers that are asked at once")
    exchange_window: float = advanced(3600.0, "seconds in which one network learns of a bounded part of our peers only")

    def __post_init__(self) -> None:
        for row in SETTINGS.values():
            row.check(getattr(self, row.name))
        for low, high in _AT_MOST:
            if getattr(self, low) > getattr(self, high):
                text = f"expected at most {high}, which is {getattr(self, high)}, got {getattr(self, low)}"
                raise SettingError(text, low, high)
        if self.max_stream_window < _LEAST_WINDOW:
            text = (
                f"expected at least {_LEAST_WINDOW}, the window that a stream begins with, got {self.max_stream_window}"
            )
            raise SettingError(text, "max_stream_window")
        for name in ("subnet_share", "source_share"):
            if getattr(self, name) > 1:
                raise SettingError(f"expected a part of 1, got {getattr(self, name):g}", name)
        _check_heartbeat(self)
        _check_text(self)
        for address in self.listen:
            check_multiaddr("listen", address)
        for address in self.bootstrap:
            check_multiaddr("bootstrap", address, with_peer=not address.startswith("/dnsaddr/"))
        for server in self.dns_servers:
            check_ip("dns_servers", server)
        for address in self.gossip_direct:
            check_multiaddr("gossip_direct", address, with_peer=True)
        for address in self.rendezvous:
            check_multiaddr("rendezvous", address, with_peer=True)
        check_api(self.api, self.api_cert, self.api_key)

    @property
    def network_id_bytes(self) -> bytes:
        """The network ID as it goes over the wire: 1 to 64 bytes."""
        return self.network_id.encode()

    @property
    def security_order(self) -> tuple[str, ...]:
        """What `security` names, the preferred one first."""
        return tuple(self.security.split(","))

    @property
    def key_path(self) -> Path:
        """Where the node's key is, or will be."""
        return self.key or self.data_dir / "node.key"

    @property
    def control_socket(self) -> Path:
        """Where the running node answers `vouch status` and its kin."""
        return self.data_dir / "control.sock"

    @property
    def rendezvous_namespace_or_default(self) -> str:
        """What to register under at rendezvous points."""
        return self.rendezvous_namespace or f"vouch/{self.network_id}"

    @property
    def addressbook_path(self) -> Path:
        """The address book's file, where there is one."""
        return self.data_dir / "addressbook.db"

    @property
    def kademlia_protocol(self) -> str:
        """The hash table's protocol ID; networks don't share one unless told to."""
        return self.kad_protocol or f"/vouch/{self.network_id_bytes.hex()}/kad/1.0.0"


_AT_MOST = (
    ("low_peers", "target_peers"),
    ("target_peers", "high_peers"),
    ("outbound_peers", "target_peers"),
    ("bootstrap_retry_min", "bootstrap_retry_max"),
    ("refused_backoff_min", "refused_backoff_max"),
    ("redial_backoff_min", "redial_backoff_max"),
    ("max_stream_window", "max_connection_window"),
    ("heartbeat_flaky", "heartbeat_window"),
)
# Yamux's first window, which no side can refuse
_LEAST_WINDOW = 256 << 10
# what protocols.heartbeat takes, which would bring trio with it
_BEAT_INTERVALS = 0.5, 300.0
_MAX_BEAT_WINDOW = 1000


def _check_heartbeat(config: Config) -> None:
    """The heartbeat's rules beside `_AT_MOST`."""
    least, most = _BEAT_INTERVALS
    if not least <= config.heartbeat_interval <= most:
        text = f"expected {least:g} to {most:g} seconds, got {config.heartbeat_interval:g}"
        raise SettingError(text, "heartbeat_interval")
    if config.heartbeat_window > _MAX_BEAT_WINDOW:
        text = f"expected at most {_MAX_BEAT_WINDOW} beats, got {config.heartbeat_window}"
        raise SettingError(text, "heartbeat_window")
    if config.heartbeat_steady >= config.heartbeat_flaky:
        text = f"expected less than heartbeat_flaky, which is {config.heartbeat_flaky}, got {config.heartbeat_steady}"
        raise SettingError(text, "heartbeat_steady", "heartbeat_flaky")


def _check_text(config: Config) -> None:
    """The rules of the text fields, which their types don't tell."""
    if not 1 <= len(config.network_id_bytes) <= 64:
        text = f"expected 1 to 64 bytes of UTF-8, got {len(config.network_id_bytes)}"
        raise SettingError(text, "network_id")
    if not re.fullmatch(f"{_NAME}/{_VERSION}", config.client_version):
        raise SettingError(f"expected NAME/N.N.N, got {config.client_version!r}", "client_version")
    for name, version in config.min_versions.items():
        if not re.fullmatch(_NAME, name) or not re.fullmatch(_VERSION, version):
            raise SettingError(f"expected NAME=N.N.N, got {f'{name}={version}'!r}", "min_versions")
    for part, level in config.log_levels.items():
        if not re.fullmatch(_NAME, part) or level not in LOG_LEVELS:
            text = f"expected PART=LEVEL with one of the levels {', '.join(LOG_LEVELS)}, got {f'{part}={level}'!r}"
            raise SettingError(text, "log_levels")
    names = config.security_order
    if not set(names) <= {"noise", "tls"} or len(set(names)) < len(names):
        raise SettingError(f"expected noise, tls, or both with a comma, got {config.security!r}", "security")
    if len(config.rendezvous_namespace.encode()) > 255:
        text = f"expected at most 255 bytes of UTF-8, got {len(config.rendezvous_namespace.encode())}"
        raise SettingError(text, "rendezvous_namespace")
    if config.topic and config.gossip == "off":
        raise SettingError('expected gossip to be "on" for topics, got "off"', "topic", "gossip")
    if not re.fullmatch(r"(_[A-Za-z0-9-]{1,62}\._(udp|tcp)\.local)?", config.mdns_service):
        text = f"expected a service name like _p2p._udp.local, got {config.mdns_service!r}"
        raise SettingError(text, "mdns_service")
    if not re.fullmatch(r"(/[!-~]+)?", config.kad_protocol):
        text = f"expected a protocol ID that begins with / and has no spaces, got {config.kad_protocol!r}"
        raise SettingError(text, "kad_protocol")


def _table() -> dict[str, Setting]:
    hints = get_type_hints(Config)
    rows: dict[str, Setting] = {}
    for field in dataclasses.fields(Config):
        meta = dict(field.metadata)
        if not meta["shown"]:
            default = field.default
            meta["shown"] = (" ".join(default) or "none") if isinstance(default, tuple) else str(default)
        rows[field.name] = Setting(field.name, hints[field.name], **meta)
    return rows


SETTINGS: Mapping[str, Setting] = _table()
