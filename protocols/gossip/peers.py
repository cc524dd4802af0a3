"""The router's peers: our stream to each, what waits to go out on it, and what they send us.

    admitted --our stream to it is open--> UP: the engine knows it, its own streams are read
                  ^                          |
                  +----- stream lost --------+      between two streams it stays with the router: what it sends us is
                                                    read, what is for it waits
    it speaks no pubsub, or is gone: forgotten
    each stream lost before it was STEADY, once more than REOPEN_AFTER says: forgotten by the router, for nothing
    reaches it, until it says something, is identified anew, or AGAIN_AFTER has passed

go-libp2p-pubsub gives up after as many streams, and for as long as the connection lives.

An RPC is read and judged by the rules in the task that read it; `act` carries out what follows from it. What goes out
is put into the links' queues; one task sends what is in them, a turn of the event loop later: what several peers bring
in one turn goes out together.
"""

from __future__ import annotations

import typing
from collections.abc import Callable

import trio

from protocols.base import Network, NotSupported, Protocol, ProtocolError, Stream, StreamError
from protocols.gossip.actions import Priority, Send
from protocols.gossip.engine import Engine
from protocols.gossip.fragments import fragments
from protocols.gossip.link import Link
from protocols.gossip.outbound import Outbound, encode_pieces
from protocols.gossip.rpc import Control, Rpc, Subscription, decode, encode
from protocols.gossip.state import PROTOCOLS
from protocols.gossip.stats import Stats

# seconds: a peer that takes nothing loses its stream; between two attempts to open one to a peer; a stream that has
# lasted so long doesn't count as one; before it all begins again with one that lost every stream; for a peer whose
# RPCs come before our stream to it is open
SEND_TIMEOUT = 30.0
REOPEN_AFTER = (0.5, 2.0, 8.0, 30.0)
STEADY = 60.0
AGAIN_AFTER = 600.0
HELLO_TIMEOUT = 15.0


class Peers:
    """The admitted peers of one router. `act` carries out what the engine asks for; `max_queue`: bytes of messages that
    wait for one slow peer; `fault` is told of exceptions that are faults of ours.
    """

    def __init__(
        self,
        network: Network,
        engine: Engine,
        stats: Stats,
        *,
        max_queue: int,
        act: Callable[[], object],
        fault: Callable[[Exception, str], None],
    ) -> None:
        self.protocols = [self._protocol(name, engine.params.rpc.max_size) for name in PROTOCOLS]
        self._network = network
        self._engine = engine
        self._stats = stats
        self._max_queue = max_queue
        self._act = act
        self._fault = fault
        self._links: dict[str, Link] = {}
        self._peers: dict[str, _Peer] = {}
        self._touched: dict[Link, None] = {}  # links with something to send
        self._something = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: typing.Any = trio.TASK_STATUS_IGNORED) -> None:
        """Sends what is in the queues, and owns the peers' tasks, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    await self._something.wait()
                    # whoever decides on what has just come has its turn first: what is relayed goes out with the rest
                    await trio.lowlevel.checkpoint()
                    self._something = trio.Event()
                    touched, self._touched = self._touched, {}
                    for link in touched:
                        try:
                            link.flush()
                        except Exception as error:
                            self._fault(error, f"sending to {link.peer}")
                            link.fail()
        finally:
            self._nursery = None

    def admitted(self, peer: str, *, outbound: bool, ip: str | None, peer_id: bytes) -> None:
        """A peer is connected, or has said what it speaks."""
        if peer in self._peers:
            self._peers[peer].again.set()
        if peer not in self._peers and self._nursery is not None:
            known = self._peers[peer] = _Peer(outbound, ip, peer_id)
            self._nursery.start_soon(self._run_peer, peer, known)

    def gone(self, peer: str) -> None:
        """The last connection to a peer has ended."""
        known = self._peers.pop(peer, None)
        if known is not None:
            known.end()
            self._forget(peer)

    def move_if_leaving(self) -> None:
        """Gives up the streams whose connections go: there are others to those peers."""
        for link in self._links.values():
            link.move_if_leaving()

    @property
    def bytes_sent(self) -> int:
        """Bytes that have gone out, on links that have ended and on those that are there."""
        return self._stats.bytes_sent + sum(link.bytes_sent for link in self._links.values())

    def links(self) -> list[Link]:
        """The links that there are now."""
        return list(self._links.values())

    def flush_soon(self) -> None:
        """What `send` has put into the queues goes out a turn later."""
        if self._touched:
            self._something.set()

    def send(self, action: Send, refused: set[str]) -> None:
        """Puts an RPC into the queues of those whom it is for; into `refused`, the peers who have no room for it."""
        rpc, links, touched = action.rpc, self._links, self._touched
        if rpc.publish and not rpc.subscriptions and not rpc.control:
            pieces = [encode(piece) for piece in fragments(rpc, self._engine.params.rpc.max_size)]
            for peer in action.peers:
                link = links.get(typing.cast("str", peer))
                if link is None:
                    continue
                touched[link] = None
                for piece in pieces:
                    if not link.queue.put_message(piece, action.priority, action.message_id):
                        refused.add(link.peer)
            return
        control = rpc.control
        if control is not None and control.idontwant and control == Control(idontwant=control.idontwant):
            unwanted = [message_id for one in control.idontwant for message_id in one.message_ids]
            for peer in action.peers:
                link = links.get(typing.cast("str", peer))
                if link is not None:
                    touched[link] = None
                    link.queue.put_unwanted(unwanted)
            return
        parts = list(encode_pieces(rpc, self._engine.params.rpc.max_size))
        for peer in action.peers:
            link = links.get(typing.cast("str", peer))
            if link is None:
                continue
            touched[link] = None
            try:
                for part in parts:
                    link.queue.put_control(part)
            except OverflowError:
                link.overflowed = True
                link.fail()

    # peers

    def _protocol(self, name: str, max_size: int) -> Protocol:
        return Protocol(
            name,
            max_frame=max_size,
            timeout=None,
            send_timeout=SEND_TIMEOUT,
            streams_per_peer=2,  # the one, and its successor
            handler=self._serve,
        )

    async def _run_peer(self, peer: str, known: _Peer) -> None:
        """A peer from its admission to its end."""
        with known.scope:
            while await self._keep_link(peer, known):
                if known.up.is_set():  # else the router doesn't know it, and what is kept stays
                    known.topics = self._engine.topics_of(peer)
                    known.up = trio.Event()
                self._forget(peer)
                known.again = trio.Event()
                with trio.move_on_after(AGAIN_AFTER):
                    await known.again.wait()
        # it may come to speak pubsub later: identify tells
        if self._peers.get(peer) is known:
            del self._peers[peer]
            self._forget(peer)
        known.end()

    async def _keep_link(self, peer: str, known: _Peer) -> bool:
        """Our stream to a peer, opened anew when it is lost, until that was too often; False if it speaks no pubsub.

        Between two streams it stays with the router: what it sends us is read, what is for it waits.
        """
        lost = 0
        while True:
            started = _now()
            try:
                await self._run_link(peer, known)
            except NotSupported:
                return False
            except (StreamError, ProtocolError):
                pass
            except Exception as error:  # costs the stream, as if it had been lost
                self._fault(error, f"the stream to {peer}")
            if _now() - started > STEADY:
                lost = 0
            if lost == len(REOPEN_AFTER):
                return True
            await trio.sleep(REOPEN_AFTER[lost])
            lost += 1

    async def _run_link(self, peer: str, known: _Peer) -> None:
        """One stream to a peer. Raises what ended it, NotSupported if the peer speaks no pubsub."""
        for protocol in self.protocols:
            try:
                async with self._network.stream(peer, protocol) as stream:
                    if self._peers.get(peer) is known:
                        await self._link_to(peer, known, stream.protocol.id).run(stream)
            except NotSupported:
                continue
            return
        raise NotSupported(f"{peer} speaks no pubsub")

    def _link_to(self, peer: str, known: _Peer, protocol: str) -> Link:
        """The peer's link, which is about to have a stream: the one that it had, or a new one."""
        topics, known.topics = known.topics, ()  # it won't say them again
        link = self._links.get(peer)
        if link is not None and link.overflowed:
            topics = self._engine.topics_of(peer)
            self._forget(peer)
            link = None
        if link is not None:
            self._announce(peer)
        else:
            now = _now()
            self._engine.add_peer(now, peer, protocol, outbound=known.outbound, ip=known.ip, peer_id=known.peer_id)
            link = self._links[peer] = Link(peer, Outbound(self._max_queue))
            if topics:
                self._engine.receive(now, peer, Rpc(tuple(Subscription(topic, True) for topic in topics)))
            known.up.set()
        self._act()
        return link

    def _announce(self, peer: str) -> None:
        """Tells a peer again what we subscribe to: it may have forgotten it with a stream."""
        topics = self._engine.topics
        if topics:
            self.send(Send((peer,), Rpc(tuple(Subscription(topic, True) for topic in topics)), Priority.CONTROL), set())
            self.flush_soon()

    def _forget(self, peer: str) -> None:
        link = self._links.pop(peer, None)
        if link is not None:
            self._touched.pop(link, None)
            self._stats.link_ended(link)
            try:
                self._engine.remove_peer(_now(), peer)
            except Exception as error:  # whoever tells of a peer's end has others to tell
                self._fault(error, f"the end of {peer}")
            self._act()

    async def _serve(self, stream: Stream) -> None:
        """What a peer sends us."""
        peer, limits, engine, stats = stream.peer, self._engine.params.rpc, self._engine, self._stats
        known = self._peers.get(peer)
        if known is None:
            return
        known.again.set()
        if not await known.is_up():
            return
        if known.served:  # Go forgets our topics with a stream of its own that is lost
            self._announce(peer)
        known.served = True
        while True:
            try:
                frame = await stream.receive()
                if not known.up.is_set():  # it was given up, and has not gone
                    known.again.set()
                    if not await known.is_up():
                        return
                stats.bytes_received += len(frame)
                engine.receive(_now(), peer, decode(frame, limits))
            except ProtocolError:
                engine.penalize(_now(), peer)
                self._act()  # what came before it was good
                raise
            if not stream.frames_waiting:
                self._act()


class _Peer:
    """An admitted peer."""

    __slots__ = ("again", "ended", "ip", "outbound", "peer_id", "scope", "served", "topics", "up")

    def __init__(self, outbound: bool, ip: str | None, peer_id: bytes) -> None:
        self.outbound = outbound
        self.ip = ip
        self.peer_id = peer_id
        self.up = trio.Event()
        self.again = trio.Event()  # it shows that it speaks pubsub
        self.topics: tuple[str, ...] = ()  # what it subscribed to before all streams to it were lost
        self.served = False  # it has had a stream to us
        self.ended = False
        self.scope = trio.CancelScope()

    def end(self) -> None:
        self.ended = True
        self.up.set()
        self.scope.cancel()

    async def is_up(self) -> bool:
        """Whether we have had a stream to the peer, as soon as we do: what it says before would be nobody's."""
        with trio.move_on_after(HELLO_TIMEOUT):
            await self.up.wait()
        return self.up.is_set() and not self.ended


def _now() -> float:
    """Outside trio, where routers are made and topics joined before anything runs, no time has passed yet."""
    try:
        return trio.current_time()
    except RuntimeError:
        return 0.0
