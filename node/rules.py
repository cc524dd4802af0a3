"""The settings as the protocols' rules take them."""

from __future__ import annotations

from node.config import Config
from node.errors import UsageError
from node.identity import Identity
from node.peers.choice import Targets
from protocols.handshake.engine import Rules
from protocols.handshake.wire import Hello, parse_version
from protocols.heartbeat.engine import Params
from protocols.messages import Rules as MessageRules
from protocols.messages.authors import Ed25519Signer


def message_rules(config: Config, identity: Identity) -> MessageRules:
    """What of messages is taken, and who signs ours."""
    return MessageRules(
        signer=Ed25519Signer(identity.secret),
        network_id=config.network_id_bytes,
        client_version=config.client_version,
        signatures=config.signatures == "on",
        max_age=config.message_max_age,
        max_ahead=config.message_max_ahead,
    )


def admission_rules(config: Config) -> Rules:
    """Who is admitted. Raises UsageError for a client version that can't be sent."""
    try:
        hello = Hello(config.client_version, config.network_id_bytes)
    except ValueError as error:
        raise UsageError(f"client_version: {error}") from None
    return Rules(hello, {name: parse_version(version) for name, version in config.min_versions.items()})


def heartbeat_params(config: Config) -> Params:
    """How peers are watched."""
    return Params(
        interval=config.heartbeat_interval,
        window=config.heartbeat_window,
        flaky_at=config.heartbeat_flaky,
        steady_at=config.heartbeat_steady,
    )


def pool_targets(config: Config) -> Targets:
    """The pool's settings. Without a pool it wants nobody and drops nobody; static and bootstrap peers are kept."""
    if config.pool == "off":
        return Targets(
            low=0,
            target=0,
            high=1 << 30,
            outbound=0,
            feeler_interval=1e9,
            retry_min=config.bootstrap_retry_min,
            retry_max=config.bootstrap_retry_max,
        )
    return Targets(
        low=config.low_peers,
        target=config.target_peers,
        high=config.high_peers,
        outbound=config.outbound_peers,
        max_dials=config.pool_dials,
        dial_rate=config.pool_dial_rate,
        grace=config.peer_grace,
        subnet_share=config.subnet_share,
        source_share=config.source_share,
        feeler_interval=config.feeler_interval,
        retry_min=config.bootstrap_retry_min,
        retry_max=config.bootstrap_retry_max,
    )
