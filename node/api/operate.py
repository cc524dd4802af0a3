"""What operators ask a running node for: topics and meshes, log levels, settings, whether it is ready."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import trio

from node import log
from node.config import SETTINGS
from node.errors import NotFoundError, UsageError
from node.node import Node

# seconds that the event loop may be late: told, and too much
LAG_WARN, LAG_FAIL = 0.1, 1.0
LAG_SAMPLE = 0.01


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class TopicName(msgspec.Struct, forbid_unknown_fields=True):
    """`topic`: its name."""

    topic: str


class Topic(msgspec.Struct):
    """A topic that the node has joined. `mesh`: peers in its mesh; `subscribers`: connected peers that subscribe;
    `decided_by`: a function (a program of the settings among them), a subscription, relay (what is well signed is
    accepted), or nobody; `listeners`: subscriptions on this node.
    """

    topic: str
    mesh: int
    subscribers: int
    decided_by: Literal["function", "subscription", "relay", ""]
    listeners: int


class Topics(msgspec.Struct):
    """The topics that the node has joined. `pending`: messages that await a verdict, of all of them."""

    topics: list[Topic]
    pending: int


class MeshPeer(msgspec.Struct):
    """A peer that subscribes to a topic. `in_mesh`: messages go there at once; `score`: by gossip's rules."""

    peer: str
    in_mesh: bool
    score: float


class Mesh(msgspec.Struct):
    """The connected peers of a topic; `joined`: this node subscribes to it too."""

    topic: str
    joined: bool
    peers: list[MeshPeer]


class Levels(msgspec.Struct):
    """`levels`: of the parts that have one of their own, and under "" of all others; `parts`: those that log."""

    levels: dict[str, str]
    parts: list[str]


class SetLevel(msgspec.Struct, forbid_unknown_fields=True):
    """`level`: debug, info, warning, error; "" lets a part go along with the others again. `part` "": all others."""

    level: str
    part: str = ""


class ShownSetting(msgspec.Struct):
    """One setting. `changed`: it isn't the default."""

    name: str
    value: Any
    help: str
    advanced: bool
    changed: bool


class ShownConfig(msgspec.Struct):
    """The node's settings. They hold no secrets: of keys there is the file's name, of a topic's command nothing."""

    settings: list[ShownSetting]


class Check(msgspec.Struct):
    """One reason. warn: it works, but somebody may want to look; fail: the node isn't ready."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str


class Ready(msgspec.Struct):
    """Whether the node can do its work now, and why, or why not."""

    ready: bool
    checks: list[Check]


class MetricsText(msgspec.Struct):
    """`text`: every metric in Prometheus' text format (docs/metrics.md)."""

    text: str


async def metrics(node: Node, _params: NoParams) -> MetricsText:
    """All metrics, as Prometheus gets them. Raises NotFoundError if this node has none."""
    if node.metrics is None:
        raise NotFoundError("this node has no metrics")
    return MetricsText(node.metrics.text().decode())


async def metrics_snapshot(node: Node, _params: NoParams) -> dict[str, Any]:
    """The same for programs: by name, its kind and its values with their labels."""
    if node.metrics is None:
        raise NotFoundError("this node has no metrics")
    return dict(node.metrics.snapshot())


async def topics(node: Node, _params: NoParams) -> Topics:
    """The topics that the node has joined."""
    gossip = node.gossip
    engine = gossip.engine
    rows = [
        Topic(
            topic,
            len(engine.mesh(topic)),
            len(engine.peers(topic)),
            gossip.decided_by(topic),  # type: ignore[arg-type]
            gossip.listeners(topic),
        )
        for topic in sorted(engine.topics)
    ]
    pending = engine.pending[0] if hasattr(engine, "pending") else 0  # py-libp2p's router doesn't tell
    return Topics(rows, pending)


async def mesh(node: Node, params: TopicName) -> Mesh:
    """Who of the connected peers is in a topic, and in its mesh."""
    engine = node.gossip.engine
    inside = {str(peer) for peer in engine.mesh(params.topic)}
    peers = sorted(inside | {str(peer) for peer in engine.peers(params.topic)})
    scores = getattr(engine, "scores", None)
    rows = [MeshPeer(peer, peer in inside, round(scores.score(peer), 3) if scores else 0.0) for peer in peers]
    return Mesh(params.topic, params.topic in engine.topics, rows)


async def loglevel(_node: Node, _params: NoParams) -> Levels:
    """How much each part logs."""
    return Levels(log.levels(), log.parts())


async def set_loglevel(_node: Node, params: SetLevel) -> Levels:
    """Changes it, until the node ends."""
    try:
        log.set_level(params.part, params.level)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Levels(log.levels(), log.parts())


async def config(node: Node, _params: NoParams) -> ShownConfig:
    """The settings that the node runs with."""
    fields = {field.name: field for field in dataclasses.fields(node.config)}
    rows = []
    for name, setting in SETTINGS.items():
        value, field = getattr(node.config, name), fields[name]
        default = field.default_factory() if callable(field.default_factory) else field.default
        rows.append(ShownSetting(name, _shown(name, value), setting.help, setting.advanced, value != default))
    return ShownConfig(rows)


def _shown(name: str, value: Any) -> Any:
    if name == "topic":  # a command's arguments may hold what is nobody's business
        return {topic: "(a command)" if command else "" for topic, command in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


async def ready(node: Node, _params: NoParams) -> Ready:
    """Whether the node can do its work now."""
    checks = [_started(node), _listening(node), _peers(node), _bootstrap(node), _addressbook(node), await _lag()]
    return Ready(all(check.state != "fail" for check in checks), checks)


def _started(node: Node) -> Check:
    if node.uptime is None:
        return Check("started", "fail", "the node is starting")
    return Check("started", "ok", f"for {node.uptime:.0f} s")


def _listening(node: Node) -> Check:
    addrs = node.addrs
    if not node.config.listen:
        return Check("listening", "ok", "nowhere, as the settings say")
    if not addrs:
        return Check("listening", "fail", "expected an address to listen on, got none")
    return Check("listening", "ok", f"on {len(addrs)} addresses")


def _peers(node: Node) -> Check:
    count, config = len(node.connected_peers()), node.config
    if count < config.ready_peers and config.bootstrap:
        return Check("peers", "fail", f"expected {config.ready_peers} peers (ready_peers), got {count}")
    if not count:
        return Check("peers", "ok", "none, and no bootstrap is named: others come to this node")
    if config.pool == "on" and count < config.low_peers:
        return Check("peers", "warn", f"{count}, and the node looks for more below {config.low_peers} (low_peers)")
    return Check("peers", "ok", str(count))


def _bootstrap(node: Node) -> Check:
    named = list(node.bootstrap.peers)
    if not node.config.bootstrap:
        return Check("bootstrap", "ok", "none is named")
    connected = set(node.connected_peers())
    there = sum(peer in connected for peer in named)
    if there:
        return Check("bootstrap", "ok", f"{there} of {len(named)} named by address are connected")
    # a node that knows others needs its bootstrap no more
    return Check("bootstrap", "ok" if connected else "warn", "none is connected")


def _addressbook(node: Node) -> Check:
    book = node.addressbook
    if book.path is None:
        return Check("addressbook", "ok", "in memory only, as the settings say")
    if book.error:
        return Check("addressbook", "fail", f"{book.unwritten} entries wait to be written: {book.error}")
    return Check("addressbook", "ok", f"{len(book)} peers, {book.unwritten} not yet written")


async def _lag() -> Check:
    before = trio.current_time()
    await trio.sleep(LAG_SAMPLE)
    lag = max(0.0, trio.current_time() - before - LAG_SAMPLE)
    state: Literal["ok", "warn", "fail"] = "fail" if lag > LAG_FAIL else "warn" if lag > LAG_WARN else "ok"
    return Check("event_loop", state, f"{lag * 1000:.1f} ms late")
