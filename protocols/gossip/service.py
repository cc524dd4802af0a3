"""`Gossip`: the router on real streams, and what programs call. The rules are `engine.Engine`'s.

    gossip = Gossip(network, policy, params, ...)
    registry.add(each of gossip.protocols)             # what peers send us
    nursery.start(gossip.run)
    gossip.peer_admitted(peer, outbound, ip)           # and what we send them
    async with gossip.subscribe("blocks") as blocks: ...

    a peer's RPC --> engine --Deliver--> policy (signature) --> the topic's decider --verdict--> engine --Send--> links

The streams to and from peers are `peers.Peers`'. An RPC is read, judged by the rules, and what follows goes into the
peers' queues, all in the task that read it. What may wait has a task of its own: a peer that is slow, a validator, the
heartbeat.
"""

from __future__ import annotations

import random
import time
import typing
from collections.abc import Awaitable, Callable, Iterable

import trio

from protocols.base import Network
from protocols.gossip.actions import Action, Connect, Deliver, Dropped, Grafted, Pruned, Redial, Send
from protocols.gossip.engine import Engine, Receipt
from protocols.gossip.fragments import fragments
from protocols.gossip.messages import Verdict
from protocols.gossip.outbound import FILL
from protocols.gossip.params import GossipParams
from protocols.gossip.peers import Peers
from protocols.gossip.policy import Policy
from protocols.gossip.rpc import PeerInfo, Rpc
from protocols.gossip.score_params import PeerScoreParams, PeerScoreThresholds
from protocols.gossip.state import MessageId, TopicParams
from protocols.gossip.stats import Stats
from protocols.gossip.topics import AcceptAll, ByFunction, Decider, GossipMessage, Subscription, Validator
from protocols.messages.errors import MessageDropped, MessageError

VALIDATIONS_AT_ONCE = 64
_DECIDERS: dict[type, str] = {ByFunction: "function", Subscription: "subscription", AcceptAll: "relay"}
QUEUE = 1024


class Gossip:
    """A node's gossip. `engine` is the router's rules, `stats` what was measured. Raises ValueError for an
    `rpc.max_size` that what is put together doesn't fit in.

    max_queue: bytes of messages that wait for one slow peer. on_connect: dials a peer that a PRUNE named (its ID and
    signed record); on_redial: a direct peer that is missing. on_failed: told of a validator's exception. on_fault: told
    of an exception that is a fault of this package, and where it came; without it, it is raised. on_slow: told how
    many seconds a heartbeat has taken that took too long.
    """

    def __init__(
        self,
        network: Network,
        policy: Policy,
        params: GossipParams | None = None,
        *,
        score: PeerScoreParams | None = None,
        thresholds: PeerScoreThresholds | None = None,
        direct: Iterable[str] = (),
        max_queue: int = 16 << 20,
        rng: random.Random | None = None,
        own_peer: bytes = b"",
        on_connect: Callable[[PeerInfo, str], None] | None = None,
        on_redial: Callable[[str], None] | None = None,
        on_failed: Callable[[Exception, str], None] | None = None,
        on_rejected: Callable[[MessageError | MessageDropped, str], None] | None = None,
        on_fault: Callable[[Exception, str], None] | None = None,
        on_slow: Callable[[float], None] | None = None,
    ) -> None:
        self.policy = policy
        self.params = params or GossipParams()
        _at_least_filled(self.params.rpc.max_size)
        self.engine = Engine(
            own_peer,
            self.params,
            score=score,
            thresholds=thresholds,
            rng=rng,
            now=_now(),
            message_id=policy.message_id,
            direct=tuple(direct),
        )
        self.stats = Stats()
        self.peers = Peers(network, self.engine, self.stats, max_queue=max_queue, act=self._act, fault=self._fault)
        self.protocols = self.peers.protocols
        self._on_connect, self._on_redial = on_connect, on_redial
        self._on_failed, self._on_rejected, self._on_fault = on_failed, on_rejected, on_fault
        self._on_slow = on_slow
        self._deciders: dict[str, Decider] = {}
        self._listeners: dict[str, list[Subscription]] = {}
        self._messages: dict[bytes, GossipMessage] = {}  # those that await a verdict
        self._nursery: trio.Nursery | None = None
        self._sooner = trio.Event()
        self._planned = 0.0

    # life

    async def run(self, *, task_status: typing.Any = trio.TASK_STATUS_IGNORED) -> None:
        """Heartbeats and links, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.peers.run)
                task_status.started()
                while True:
                    self._planned = self.engine.next_wakeup()
                    with trio.move_on_at(self._planned):
                        await self._sooner.wait()
                    self._sooner = trio.Event()
                    if _now() >= self.engine.next_wakeup():
                        started = time.perf_counter()
                        try:
                            self.engine.wake(_now())
                        except Exception as error:
                            self._fault(error, "heartbeat")
                            await trio.sleep(self.params.heartbeat_interval)  # what is due may be so for ever
                        self._act()
                        self._took(time.perf_counter() - started)
                        self.peers.move_if_leaving()
        finally:
            self._nursery = None
            for topic in list(self._listeners):
                for subscription in list(self._listeners[topic]):
                    subscription.close()

    def _took(self, seconds: float) -> None:
        self.stats.heartbeat_seconds.observe(seconds)
        if seconds > self.params.slow_heartbeat_warning * self.params.heartbeat_interval:
            self.stats.slow_heartbeats += 1
            if self._on_slow is not None:
                self._on_slow(seconds)

    def peer_admitted(self, peer: str, *, outbound: bool, ip: str | None = None, peer_id: bytes = b"") -> None:
        """A peer is connected, and told so once: pubsub goes to it if it speaks any."""
        self.peers.admitted(peer, outbound=outbound, ip=ip, peer_id=peer_id)

    def peer_gone(self, peer: str) -> None:
        """The last connection to a peer has ended."""
        self.peers.gone(peer)

    def set_record(self, peer: str, record: bytes) -> None:
        """The peer's signed record, for peer exchange."""
        self.engine.set_record(peer, record)

    # what programs call

    async def publish(self, topic: str, payload: bytes, *, type: int = 0) -> Receipt:
        """Signs a message and sends it to the topic's peers. The receipt names those in whose queues it is; it isn't
        delivered to our own subscriptions. Raises ValueError for what can't be published, PublishError.
        """
        await trio.lowlevel.checkpoint()
        self.policy.check_topic(topic)
        message = self.policy.make(topic, payload, type)
        fragments(Rpc(publish=(message,)), self.params.rpc.max_size)  # raises, before anybody knows of it
        receipt = self.engine.publish(_now(), topic, message)
        refused = self._act()
        self.stats.published += 1
        return Receipt(receipt.message_id, tuple(peer for peer in receipt.peers if peer not in refused))

    def subscribe(self, topic: str, *, decide: bool = True, limit: int = QUEUE) -> Subscription:
        """The messages of a topic, from now to the end of the block, at most `limit` of them waiting.

        With `decide` this subscription gives the verdicts, and nobody else may; without, it sees messages that were
        accepted. A topic that nobody decides on is joined too: its messages are ignored when their time is over.
        Raises ValueError for what is no topic, and for a second decider.
        """
        self.policy.check_topic(topic)
        if decide and topic in self._deciders:
            raise ValueError(f"{topic} has somebody who decides already; others can only listen")
        if limit < 1:
            raise ValueError(f"limit: expected at least 1, got {limit}")
        subscription = Subscription(topic, limit, decides=decide, leave=self._unsubscribe)
        if decide:
            self._deciders[topic] = subscription
        self._listeners.setdefault(topic, []).append(subscription)
        self._join(topic)
        return subscription

    def validator(
        self, topic: str, *, at_once: int = VALIDATIONS_AT_ONCE, limit: int = QUEUE
    ) -> Callable[[Validator], Validator]:
        """Names the function that gives the topic's verdicts, `at_once` of them at a time. Use as a decorator. One that
        raises ignores the message. Raises as `subscribe`.
        """
        self.policy.check_topic(topic)

        def register(validator: Validator) -> Validator:
            self._decide_by(
                topic,
                ByFunction(validator, at_once=at_once, limit=limit, spawn=self._spawn, failed=self._validator_failed),
            )
            return validator

        return register

    def relay(self, topic: str) -> None:
        """Joins a topic and accepts whatever is signed properly. Raises as `subscribe`."""
        self.policy.check_topic(topic)
        self._decide_by(topic, AcceptAll())

    def leave(self, topic: str) -> None:
        """Ends what `validator` or `relay` began; the topic is left once nobody is subscribed either."""
        if not isinstance(self._deciders.get(topic), Subscription):
            self._deciders.pop(topic, None)
        self._leave_if_unused(topic)

    def configure(
        self, topic: str, *, message_id: MessageId | None = None, verdict_timeout: float | None = None
    ) -> None:
        """What is the topic's own. Raises ValueError for a timeout that isn't shorter than IDs are remembered."""
        self.engine.configure(
            topic, TopicParams(message_id=message_id, check=self.policy.admit, verdict_timeout=verdict_timeout)
        )

    def decided_by(self, topic: str) -> str:
        """Who gives the topic's verdicts: "function", "subscription", "relay" (what is well signed is accepted), or
        "" for nobody.
        """
        return _DECIDERS.get(type(self._deciders.get(topic)), "")

    def listeners(self, topic: str) -> int:
        """How many subscriptions the topic has here."""
        return len(self._listeners.get(topic, ()))

    # topics

    def _decide_by(self, topic: str, decider: Decider) -> None:
        if topic in self._deciders:
            raise ValueError(f"{topic} has somebody who decides already")
        self._deciders[topic] = decider
        self._join(topic)

    def _join(self, topic: str) -> None:
        if topic not in self.engine.topic_settings:
            self.configure(topic)
        self.engine.subscribe(_now(), topic)
        self._act()

    def _unsubscribe(self, subscription: Subscription) -> None:
        topic = subscription.topic
        self._listeners[topic].remove(subscription)
        if not self._listeners[topic]:
            del self._listeners[topic]
        if self._deciders.get(topic) is subscription:
            del self._deciders[topic]
        self._leave_if_unused(topic)

    def _leave_if_unused(self, topic: str) -> None:
        if topic not in self._deciders and topic not in self._listeners:
            self.engine.unsubscribe(_now(), topic)
            self._act()

    # what the engine asks for

    def _act(self) -> set[str]:
        """Carries out what the engine asks for. The peers for whom a message had no room."""
        refused: set[str] = set()
        engine = self.engine
        while actions := engine.take():  # a verdict given at once adds more
            for action in actions:
                try:
                    if isinstance(action, Send):
                        self.peers.send(action, refused)
                    elif isinstance(action, Deliver):
                        self._deliver(action)
                    else:
                        self._tell(action)
                except Exception as error:  # the others go on
                    self._fault(error, type(action).__name__)
        self.peers.flush_soon()
        return refused

    def _deliver(self, action: Deliver) -> None:
        now, message_id, forwarder = action.received_at, action.message_id, typing.cast("str", action.forwarder)
        try:
            opened = self.policy.open(action.message, forwarder, now)
        except MessageError as error:
            self._refuse(error, action, Verdict.REJECT)
            return
        except MessageDropped as error:
            self._refuse(error, action, Verdict.IGNORE)
            return
        message = GossipMessage(
            action.topic,
            opened.payload,
            author=opened.author,
            forwarder=forwarder,
            message_id=message_id,
            received_at=now,
            type=opened.type,
            timestamp_ms=opened.timestamp_ms,
            deadline=action.deadline,
            decide=self._decide,
        )
        self.stats.delivered(opened.timestamp_ms)
        decider = self._deciders.get(action.topic)
        if decider is None:
            return  # listeners only: its time will be over
        self._messages[message_id] = message
        if not decider.offer(message):
            self.stats.no_room += 1
            message.ignore()
        elif action.deadline < self._planned:
            self._sooner.set()

    def _decide(self, message: GossipMessage, verdict: Verdict, reason: str) -> bool:
        """A program's verdict."""
        # by identity: once its ID is forgotten, the same message may come again, and awaits a verdict of its own
        if self._messages.get(message.message_id) is not message:
            self.stats.late += 1
            return False
        del self._messages[message.message_id]
        now = _now()
        counted = self.engine.verdict(now, message.message_id, verdict)
        if counted:
            self.stats.decided(verdict, now - message.received_at, reason)
            if verdict is Verdict.ACCEPT:
                listeners = self._listeners.get(message.topic, ())
                if any(not one.decides for one in listeners):
                    seen = message.seen_by_listeners()
                    for one in listeners:
                        if not one.decides:
                            one.offer(seen)
        self._act()
        return counted

    def _refuse(self, error: MessageError | MessageDropped, action: Deliver, verdict: Verdict) -> None:
        self.stats.refused[error.reason] += 1
        if self._on_rejected is not None:
            self._on_rejected(error, action.topic)
        self.engine.verdict(action.received_at, action.message_id, verdict)

    def _tell(self, action: Action) -> None:
        if isinstance(action, Dropped):
            self._messages.pop(action.message_id, None)
            self.stats.dropped[action.reason] += 1
        elif isinstance(action, Grafted):
            self.stats.grafted += 1
        elif isinstance(action, Pruned):
            self.stats.pruned[action.reason] += 1
        elif isinstance(action, Connect):
            if self._on_connect is not None:
                self._on_connect(action.info, typing.cast("str", action.via))
        elif isinstance(action, Redial) and self._on_redial is not None:
            self._on_redial(typing.cast("str", action.peer))

    # tasks and faults of programs

    def _spawn(self, run: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(run)

    def _fault(self, error: Exception, where: str) -> None:
        if self._on_fault is None:
            raise error
        self._on_fault(error, where)

    def _validator_failed(self, error: Exception, message: GossipMessage) -> None:
        self.stats.failed += 1
        if self._on_failed is not None:
            self._on_failed(error, message.topic)


def _at_least_filled(max_size: int) -> None:
    if max_size < 2 * FILL:  # RPCs are filled to FILL, and what goes along is less than that
        raise ValueError(f"expected rpc.max_size to be at least {2 * FILL} bytes, got {max_size}")


def _now() -> float:
    """Outside trio, where routers are made and topics joined before anything runs, no time has passed yet."""
    try:
        return trio.current_time()
    except RuntimeError:
        return 0.0
