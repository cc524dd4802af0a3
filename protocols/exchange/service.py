"""The exchange's trio shell: `Exchange` answers on a node's streams, and asks. The rules are `engine`'s and `share`'s.

    ask(peer) --stream--> ping, pong, get_addresses, addresses --> records, unchecked, and where the peer can be dialled
    a peer's stream ----> the same, from the other side; DEADLINE seconds for all of it

A peer that breaks the rules or floods loses its stream, and `on_fault` is told, synchronously: what that costs is the
node's to say. Records are opaque here.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Sequence

import base58
import trio

from protocols.base import EndOfStream, Network, Protocol, ProtocolError, Stream, StreamTimeout
from protocols.exchange.engine import DEADLINE, Answerer, Asker
from protocols.exchange.share import Directory, Share, ShareParams
from protocols.exchange.wire import MAX_FRAME, MAX_RECORDS, PROTOCOL_ID, Alive

STREAMS_PER_PEER = 2

FLOOD = "flood"
BROKE_RULES = "protocol"


class Flood(ProtocolError):
    """A peer asks too often."""


class Answer(typing.NamedTuple):
    """What a peer said: of itself, and its records, unchecked."""

    alive: Alive
    records: tuple[bytes, ...]


class Surroundings(typing.Protocol):
    """What the exchange needs to know of the node and of those who ask."""

    directory: Directory

    async def refresh(self) -> None:
        """Called before `directory` is asked: what takes longer than a moment is done here."""

    def own_addrs(self, peer: str) -> Sequence[bytes]:
        """Our multiaddrs as that peer may know them, at most 16."""

    def whereabouts(self, peer: str) -> tuple[str, int]:
        """The group that a connected peer counts with, and the reach at which it is seen."""

    def now(self) -> float:
        """The clock of `Candidate.last_seen`, in seconds."""


class Exchange:
    """Both roles, for one node. `protocol` is to be served."""

    def __init__(
        self,
        network: Network,
        surroundings: Surroundings,
        params: ShareParams | None = None,
        *,
        on_heard: Callable[[str, Alive], None] = lambda _peer, _alive: None,
        on_fault: Callable[[str, str, str], None] = lambda _peer, _reason, _detail: None,
        rng: random.Random | None = None,
    ) -> None:
        """`on_heard(peer, alive)`: a peer that asks has said where it can be dialled. `on_fault(peer, reason, detail)`:
        a peer has broken the rules; `reason` is "flood" or "protocol".
        """
        self.share = Share(params, rng=rng)
        self.protocol = Protocol(
            PROTOCOL_ID,
            max_frame=MAX_FRAME,
            timeout=DEADLINE,
            streams_per_peer=STREAMS_PER_PEER,
            handler=self._answer,
        )
        self._network = network
        self._around = surroundings
        self._on_heard = on_heard
        self._on_fault = on_fault
        self._rng = rng or random.SystemRandom()

    async def ask(self, peer: str, limit: int = MAX_RECORDS) -> Answer:
        """Asks an admitted peer for at most `limit` records (0 to 100), within DEADLINE seconds in all.

        Raises NotSupported, other StreamErrors, ProtocolError for a peer that breaks the rules (who is charged), and
        ValueError for another limit.
        """
        asker = Asker(
            base58.b58decode(self._network.peer_id),
            base58.b58decode(peer),
            self._around.own_addrs(peer),
            limit=limit,
            nonce=self._rng.getrandbits(64),
        )
        try:
            with trio.fail_after(DEADLINE):
                async with self._network.stream(peer, self.protocol) as stream:
                    frame: bytes | None = asker.first()
                    while frame is not None:
                        await stream.send(frame)
                        frame = asker.receive(await stream.receive())
        except trio.TooSlowError:
            raise StreamTimeout(f"{peer} didn't answer {PROTOCOL_ID} within {DEADLINE:g} s") from None
        except ProtocolError as error:
            self._on_fault(peer, BROKE_RULES, str(error))
            raise
        assert asker.heard is not None
        return Answer(asker.heard, asker.records)

    async def _answer(self, stream: Stream) -> None:
        try:
            with trio.fail_after(DEADLINE):
                await self._converse(stream)
        except trio.TooSlowError:
            raise StreamTimeout(f"{stream.peer} didn't end {PROTOCOL_ID} within {DEADLINE:g} s") from None
        except Flood:
            raise  # charged where it was counted
        except ProtocolError as error:
            self._on_fault(stream.peer, BROKE_RULES, str(error))
            raise

    async def _converse(self, stream: Stream) -> None:
        peer = stream.peer
        refusal = self.share.ask(peer, trio.current_time())
        if refusal is not None:
            text = f"expected {peer} to wait {refusal.wait:.0f} s before it asks again"
            if refusal.flood:
                self._on_fault(peer, FLOOD, text)
            raise Flood(text)

        await self._around.refresh()

        def draw(limit: int) -> tuple[bytes, ...]:
            group, reach = self._around.whereabouts(peer)
            return self.share.draw(
                limit, self._around.directory, asker=peer, group=group, reach=reach, now=self._around.now()
            )

        answerer = Answerer(
            base58.b58decode(self._network.peer_id), base58.b58decode(peer), self._around.own_addrs(peer), draw
        )
        while not answerer.done:
            try:
                frame = await stream.receive()
            except EndOfStream:
                return  # it wanted to know that we are here, and no more
            told = answerer.heard
            await stream.send(answerer.receive(frame))
            if told is None and answerer.heard is not None:
                self._on_heard(peer, answerer.heard)
