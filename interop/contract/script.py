"""The experiment that gossipsub-interop hands to every node: what it means for one of them. Rules only, no I/O.

    {"script": [INSTRUCTION, …]}            params.json; an instruction is an object with its "type":

    initGossipSub            gossipSubParams: go-libp2p-pubsub's names, times in nanoseconds; what is absent is default
    connect                  connectTo: [NODE, …]
    ifNodeIDEquals           nodeID, instruction
    waitUntil                elapsedSeconds since the start
    publish                  topicID, messageID, messageSizeBytes
    subscribeToTopic         topicID, partial
    setTopicValidationDelay  topicID, delaySeconds
    addPartialMessage, publishPartial        the extension "partial messages", which this node doesn't speak

Source: libp2p/test-plans, gossipsub-interop/test-specs/implementation.md and script_instruction.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interop.contract.failing import UnsupportedError
from node.identity import Identity
from protocols.gossip import GossipParams
from protocols.gossip.params import MIB, RpcLimits
from protocols.gossip.rpc import PubsubMessage

ID_BYTES = 8
# as the suite's Go program has it: answers to IWANT bring many messages in one RPC
MAX_RPC = 10 * MIB


@dataclass(frozen=True)
class Connect:
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class WaitUntil:
    elapsed: float


@dataclass(frozen=True)
class Publish:
    topic: str
    number: int
    size: int

    @property
    def payload(self) -> bytes:
        return self.number.to_bytes(ID_BYTES, "big") + bytes(self.size - ID_BYTES)


@dataclass(frozen=True)
class Subscribe:
    topic: str


@dataclass(frozen=True)
class ValidationDelay:
    topic: str
    seconds: float


Step = Connect | WaitUntil | Publish | Subscribe | ValidationDelay


@dataclass(frozen=True)
class Script:
    """What one node does, in order. `params` are its router's, from the start."""

    params: GossipParams
    steps: tuple[Step, ...]

    @property
    def topics(self) -> list[str]:
        """Every topic that is named."""
        named = (step.topic for step in self.steps if not isinstance(step, Connect | WaitUntil))
        return list(dict.fromkeys(named))

    @classmethod
    def read(cls, text: str | bytes, node: int) -> Script:
        """Raises UnsupportedError naming the instruction, what was expected and what came."""
        try:
            script = json.loads(text)
        except ValueError as error:
            raise UnsupportedError(f"params: expected JSON: {error}") from None
        if not isinstance(script, dict) or not isinstance(script.get("script"), list):
            raise UnsupportedError('params: expected {"script": [...]}')
        params: GossipParams | None = None
        steps: list[Step] = []
        for number, instruction in enumerate(script["script"]):
            try:
                done = _step(instruction, node)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UnsupportedError(f"instruction {number}: {instruction}: {error!r}") from None
            if isinstance(done, GossipParams):
                params = done
            elif done is not None:
                steps.append(done)
        if params is None:
            raise UnsupportedError(f"expected an initGossipSub for node {node}, got none")
        return cls(params, tuple(steps))


def identity_of(node: int) -> Identity:
    """A node's key: its number, little-endian, is the Ed25519 seed."""
    return Identity.from_secret(node.to_bytes(32, "little"))


def message_id(message: PubsubMessage) -> bytes:
    """The first 8 bytes are the ID. Raises ValueError for a message that has fewer."""
    if len(message.data) < ID_BYTES:
        raise ValueError(f"expected a message of at least {ID_BYTES} bytes, got {len(message.data)}")
    return message.data[:ID_BYTES]


def shown_id(message_id: bytes) -> str:
    """As it is logged: a decimal number, of a big-endian one."""
    return str(int.from_bytes(message_id, "big"))


def _step(instruction: Mapping[str, Any], node: int) -> Step | GossipParams | None:
    match instruction["type"]:
        case "initGossipSub":
            return gossip_params(instruction["gossipSubParams"])
        case "connect":
            return Connect(tuple(map(int, instruction["connectTo"])))
        case "ifNodeIDEquals":
            return _step(instruction["instruction"], node) if instruction["nodeID"] == node else None
        case "waitUntil":
            return WaitUntil(float(instruction["elapsedSeconds"]))
        case "publish":
            publish = Publish(
                instruction["topicID"], int(instruction["messageID"]), int(instruction["messageSizeBytes"])
            )
            if publish.size < ID_BYTES:
                raise ValueError(f"expected messageSizeBytes to be at least {ID_BYTES}")
            return publish
        case "subscribeToTopic" if not instruction.get("partial"):
            return Subscribe(instruction["topicID"])
        case "setTopicValidationDelay":
            return ValidationDelay(instruction["topicID"], float(instruction["delaySeconds"]))
        case "subscribeToTopic" | "addPartialMessage" | "publishPartial":
            raise UnsupportedError("this node doesn't speak gossipsub's partial messages, which the script asks for")
    raise ValueError("expected a type that the suite's document names")


def gossip_params(given: Mapping[str, Any]) -> GossipParams:
    """The router's parameters. Raises UnsupportedError for one that go-libp2p-pubsub doesn't have, ValueError if they
    contradict one another.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _PARAMS:
            raise UnsupportedError(f"expected a parameter of go-libp2p-pubsub, got {name!r}")
        ours, read = _PARAMS[name]
        values[ours] = read(value)
    # Go's router, which the parameters are of, doesn't flood what it publishes unless told to
    return GossipParams(flood_publish=False, rpc=RpcLimits(max_size=MAX_RPC), **values)


def _seconds(nanoseconds: float) -> float:
    return float(nanoseconds) / 1e9


_PARAMS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "D": ("d", int),
    "Dlo": ("d_lo", int),
    "Dhi": ("d_hi", int),
    "Dscore": ("d_score", int),
    "Dout": ("d_out", int),
    "HistoryLength": ("history_length", int),
    "HistoryGossip": ("history_gossip", int),
    "Dlazy": ("d_lazy", int),
    "GossipFactor": ("gossip_factor", float),
    "GossipRetransmission": ("gossip_retransmission", int),
    "HeartbeatInitialDelay": ("heartbeat_initial_delay", _seconds),
    "HeartbeatInterval": ("heartbeat_interval", _seconds),
    "SlowHeartbeatWarning": ("slow_heartbeat_warning", float),
    "FanoutTTL": ("fanout_ttl", _seconds),
    "PrunePeers": ("prune_peers", int),
    "PruneBackoff": ("prune_backoff", _seconds),
    "UnsubscribeBackoff": ("unsubscribe_backoff", _seconds),
    "Connectors": ("connectors", int),
    "MaxPendingConnections": ("max_pending_connections", int),
    "ConnectionTimeout": ("connection_timeout", _seconds),
    "DirectConnectTicks": ("direct_connect_ticks", int),
    "DirectConnectInitialDelay": ("direct_connect_initial_delay", _seconds),
    "OpportunisticGraftTicks": ("opportunistic_graft_ticks", int),
    "OpportunisticGraftPeers": ("opportunistic_graft_peers", int),
    "GraftFloodThreshold": ("graft_flood_threshold", _seconds),
    "MaxIHaveLength": ("max_ihave_length", int),
    "MaxIHaveMessages": ("max_ihave_messages", int),
    "MaxIDontWantLength": ("max_idontwant_length", int),
    "MaxIDontWantMessages": ("max_idontwant_messages", int),
    "IWantFollowupTime": ("iwant_followup_time", _seconds),
    "IDontWantMessageThreshold": ("idontwant_message_threshold", int),
    "IDontWantMessageTTL": ("idontwant_message_ttl", int),  # heartbeats in Go, whatever the suite's comment says
}
