"""py-libp2p's `Pubsub` and `GossipSub` behind the methods of `protocols.gossip.Gossip`: `gossip_router = "stock"`.

    a peer's RPC --> Pubsub --validator--> policy (signature) --> the topic's decider --accept--> Pubsub relays
    publish --> policy --> Pubsub.push_msg

It is there to run the two side by side, and as the way back; docs/upstream.md says why it isn't the default. It speaks
gossipsub 1.1, on the same wire and in the same signing as ours. What it can't do as ours does:

- A verdict is yes or no: ignore, no verdict in time and a validator that fails count as reject, and who sent it pays.
- A message is relayed once for each peer that brought it while its verdict was awaited.
- A receipt names the topic's mesh, or its fanout; whether a queue of 32 had room isn't known.
- With `gossip_signing = "own"` its message cache takes all messages for one, so what is lost isn't sent again.
- A topic has no message ID of its own (ValueError). `stats` counts verdicts, not bytes or links. Of `engine` there is
  `mesh`, `peers` and `topics`. Of the parameters it takes the degrees, the heartbeat and the backoffs; of scores none.
- A peer that comes to speak pubsub while it is connected isn't noticed. Peer exchange is off.
- Some messages stop it as a whole (docs/upstream.md): that is logged, and `publish` raises from then on.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Callable, Mapping

import trio
from libp2p.abc import IHost, ISubscriptionAPI
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from node.host import Host
from node.log import get_logger
from node.streams import AsNetStream
from protocols import Network, Protocol, Stream
from protocols.gossip import ForeignNetwork, Gossip, GossipMessage, GossipParams, PublishError, Receipt, Verdict
from protocols.gossip.engine import Engine
from protocols.gossip.peers import SEND_TIMEOUT
from protocols.gossip.policy import Policy
from protocols.gossip.rpc import PubsubMessage
from protocols.gossip.state import MessageId
from protocols.messages import MessageDropped, MessageError

# validations under way at once; more wait, within their time for a verdict
AT_ONCE = 1024

log = get_logger("gossip")


class StockGossip(Gossip):
    """As `Gossip`, but for what the module tells. Its peers are those that py-libp2p's host tells it of."""

    def __init__(
        self,
        network: Network,
        policy: Policy,
        params: GossipParams,
        *,
        host: Host,
        on_failed: Callable[[Exception, str], None],
        on_rejected: Callable[[MessageError | MessageDropped, str], None],
    ) -> None:
        super().__init__(network, policy, params, on_failed=on_failed, on_rejected=on_rejected)
        self.protocols = []
        strict = isinstance(policy, ForeignNetwork)
        self._router = (GossipSub if strict else _Unsigned)(
            protocols=[PROTOCOL_ID_V11],
            degree=params.d,
            degree_low=params.d_lo,
            degree_high=params.d_hi,
            gossip_window=params.history_gossip,
            gossip_history=params.history_length,
            heartbeat_initial_delay=params.heartbeat_initial_delay,
            heartbeat_interval=typing.cast("int", params.heartbeat_interval),  # it only sleeps so long
            prune_back_off=round(params.prune_backoff),
            unsubscribe_back_off=round(params.unsubscribe_backoff),
            spam_protection_enabled=False,  # it drops all but ten messages/s of a peer
        )
        self._pubsub = Pubsub(
            typing.cast("IHost", _Face(host, params)),
            self._router,
            strict_signing=strict,
            seen_ttl=round(params.seen_ttl),
            msg_id_constructor=lambda wire: policy.message_id(_from_wire(wire)),
            max_concurrent_validator_count=AT_ONCE,
            # ours ends first
            validation_timeout=params.verdict_timeout * 2,
            max_inbound_rpc_size=params.rpc.max_size,
        )
        self._own = host.get_id()
        self._wanted: dict[str, None] = {}  # topics
        self.engine = typing.cast("Engine", _View(self._pubsub, self._router, self._wanted))
        self._verdict_times: dict[str, float] = {}
        self._changed = trio.Event()
        self._decisions: dict[bytes, _Decision] = {}

    # life

    async def run(self, *, task_status: typing.Any = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with background_trio_service(self._pubsub), background_trio_service(self._router):
                await self._pubsub.wait_until_ready()
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    task_status.started()
                    await self._keep_topics(nursery)
        except Exception as error:  # the library's services end for a stranger's message; the node goes on
            log.error("stock_gossip_ended", exc_info=error)
        finally:
            self._nursery = None
            for subscriptions in list(self._listeners.values()):
                for subscription in list(subscriptions):
                    subscription.close()

    def peer_admitted(self, peer: str, *, outbound: bool, ip: str | None = None, peer_id: bytes = b"") -> None:
        """Told by the host's notifee instead."""

    def peer_gone(self, peer: str) -> None:
        """Told by the host's notifee instead."""

    def set_record(self, peer: str, record: bytes) -> None:
        """It exchanges its own."""

    async def _keep_topics(self, nursery: trio.Nursery) -> None:
        """Joins and leaves, one after the other, until cancelled."""
        joined: set[str] = set()
        while True:
            self._changed = trio.Event()
            for topic in self._wanted.keys() - joined:
                joined.add(topic)
                self._pubsub.set_topic_validator(topic, self._validate, True)
                nursery.start_soon(_drain, await self._pubsub.subscribe(topic))
            for topic in joined - self._wanted.keys():
                joined.discard(topic)
                await self._pubsub.unsubscribe(topic)
                self._pubsub.remove_topic_validator(topic)
            if joined == self._wanted.keys():
                await self._changed.wait()

    # what programs call

    async def publish(self, topic: str, payload: bytes, *, type: int = 0) -> Receipt:
        """As `Gossip.publish`; the receipt names the mesh or the fanout. Raises ValueError, PublishError."""
        await trio.lowlevel.checkpoint()
        self.policy.check_topic(topic)
        message = self.policy.make(topic, payload, type)
        if self._nursery is None:
            raise PublishError("expected py-libp2p's router to run, it has ended or not begun")
        await self._pubsub.push_msg(self._own, _to_wire(message))
        self.stats.published += 1
        router = self._router
        peers = router.mesh.get(topic) or router.fanout.get(topic) or set()
        return Receipt(self.policy.message_id(message), tuple(map(str, peers)))

    def configure(
        self, topic: str, *, message_id: MessageId | None = None, verdict_timeout: float | None = None
    ) -> None:
        """A topic's own time for a verdict. Raises ValueError for a message ID of its own."""
        if message_id is not None:
            raise ValueError("expected no message_id: py-libp2p's router has one for all topics")
        if verdict_timeout is not None:
            if not 0 < verdict_timeout <= self.params.verdict_timeout:
                raise ValueError(
                    f"expected a verdict_timeout up to {self.params.verdict_timeout}, got {verdict_timeout}"
                )
            self._verdict_times[topic] = verdict_timeout

    # topics

    def _join(self, topic: str) -> None:
        self._wanted[topic] = None
        self._changed.set()

    def _leave_if_unused(self, topic: str) -> None:
        if topic not in self._deciders and topic not in self._listeners:
            self._wanted.pop(topic, None)
            self._changed.set()

    # verdicts

    async def _validate(self, forwarder: ID, wire: rpc_pb2.Message) -> bool:
        """Pubsub's question, asked once for each peer that has brought the message so far."""
        if forwarder == self._own:
            return True
        message = _from_wire(wire)
        message_id = self.policy.message_id(message)
        decision = self._decisions.get(message_id)
        if decision is None:
            if len(self._decisions) >= self.params.max_pending_messages:
                self.stats.dropped["full"] += 1
                return False
            decision = self._decisions[message_id] = _Decision()
            self._ask(message, message_id, str(forwarder), decision)
        decision.waiting += 1
        try:
            with trio.move_on_after(self._verdict_times.get(message.topic, self.params.verdict_timeout)):
                await decision.given.wait()
        finally:
            decision.waiting -= 1
            if not decision.waiting:
                self._decisions.pop(message_id, None)
        return decision.verdict is Verdict.ACCEPT

    def _ask(self, message: PubsubMessage, message_id: bytes, forwarder: str, decision: _Decision) -> None:
        now = trio.current_time()
        if not self.policy.admit(message):
            decision.give(Verdict.REJECT)
            return
        try:
            opened = self.policy.open(message, forwarder, now)
        except (MessageError, MessageDropped) as error:
            self.stats.refused[error.reason] += 1
            if self._on_rejected is not None:
                self._on_rejected(error, message.topic)
            decision.give(Verdict.IGNORE if isinstance(error, MessageDropped) else Verdict.REJECT)
            return
        asked = GossipMessage(
            message.topic,
            opened.payload,
            author=opened.author,
            forwarder=forwarder,
            message_id=message_id,
            received_at=now,
            type=opened.type,
            timestamp_ms=opened.timestamp_ms,
            decide=self._decide,
        )
        self.stats.delivered(opened.timestamp_ms)
        decider = self._deciders.get(message.topic)
        if decider is not None and not decider.offer(asked):
            self.stats.no_room += 1
            asked.ignore()

    def _decide(self, message: GossipMessage, verdict: Verdict, reason: str) -> bool:
        decision = self._decisions.get(message.message_id)
        if decision is None:
            self.stats.late += 1
            return False
        decision.give(verdict)
        self.stats.decided(verdict, trio.current_time() - message.received_at, reason)
        if verdict is Verdict.ACCEPT:
            seen = message.seen_by_listeners()
            for one in self._listeners.get(message.topic, ()):
                if not one.decides:
                    one.offer(seen)
        return True


class _Decision:
    """A message that awaits its verdict, and how many of Pubsub's tasks wait with it."""

    __slots__ = ("given", "verdict", "waiting")

    def __init__(self) -> None:
        self.verdict: Verdict | None = None
        self.given = trio.Event()
        self.waiting = 0

    def give(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.given.set()


class _Unsigned(GossipSub):
    """For messages without author and sequence number, which all look like one author's contradictions to it."""

    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        return True


class _Face:
    """Our host, as Pubsub sees it: its streams may be silent for as long as there is nothing to say."""

    def __init__(self, host: Host, params: GossipParams) -> None:
        self._host = host
        self._params = params

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(self._host, name)

    def set_stream_handler(self, protocol_id: TProtocol, stream_handler: StreamHandlerFn) -> None:
        async def handle(stream: Stream) -> None:
            await stream_handler(AsNetStream(stream, ID.from_base58(stream.peer)))  # type: ignore[arg-type]

        self._host.swarm.registry.add(
            Protocol(
                str(protocol_id),
                max_frame=None,
                timeout=None,
                send_timeout=SEND_TIMEOUT,
                streams_per_peer=2,
                handler=handle,
            )
        )


class _View:
    """What of an engine can be told."""

    def __init__(self, pubsub: Pubsub, router: GossipSub, wanted: Mapping[str, None]) -> None:
        self._pubsub = pubsub
        self._router = router
        self._wanted = wanted
        self.counts: Counter[str] = Counter()  # it counts nothing

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(self._wanted)

    def mesh(self, topic: str) -> tuple[str, ...]:
        return tuple(map(str, self._router.mesh.get(topic, ())))

    def peers(self, topic: str) -> tuple[str, ...]:
        return tuple(map(str, self._pubsub.peer_topics.get(topic, ())))


async def _drain(subscription: ISubscriptionAPI) -> None:
    """Messages are taken from the validator, which knows who brought them; here they must only not be in the way."""
    async for _ in subscription:
        pass


def _to_wire(message: PubsubMessage) -> rpc_pb2.Message:
    return rpc_pb2.Message(
        data=message.data,
        topicIDs=[message.topic],
        from_id=message.from_,
        seqno=message.seqno,
        signature=message.signature,
        key=message.key,
    )


def _from_wire(wire: rpc_pb2.Message) -> PubsubMessage:
    return PubsubMessage(
        wire.topicIDs[0] if wire.topicIDs else "",
        wire.data,
        from_=wire.from_id if wire.HasField("from_id") else None,
        seqno=wire.seqno if wire.HasField("seqno") else None,
        signature=wire.signature if wire.HasField("signature") else None,
        key=wire.key if wire.HasField("key") else None,
    )
