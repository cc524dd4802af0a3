"""What must not end a node's gossip, nor the node: what strangers make fit in no frame or no address, and faults of ours."""

from __future__ import annotations

from functools import partial

import pytest
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from node.events import Admitted
from protocols.gossip import PeerScoreThresholds
from protocols.gossip.rpc import PeerInfo
from tests.gossiping import TOPIC, accept_all, gossiper
from tests.memnet import MemNet
from tests.nodes import Recorder
from tests.rawgossip import prune, raw_gossip, subscribe


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(seed=1, latency=0.01) as net:
        yield net


def record_of(node, addrs) -> PeerInfo:
    """What a PRUNE says of a node: a record that it has signed, with these addresses."""
    peer_id = ID.from_base58(node.peer_id)
    envelope = seal_record(PeerRecord(peer_id, list(addrs)), node.host.get_private_key())
    return PeerInfo(peer_id.to_bytes(), envelope.marshal_envelope())


async def test_a_record_whose_addresses_are_none(net, autojump_clock, monkeypatch):
    monkeypatch.setattr("node.gossip.PeerScoreThresholds", partial(PeerScoreThresholds, accept_px_threshold=0))
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw, gossiper(net, 3) as named:
        at_named = Recorder(named)
        nonsense = [Multiaddr(b"\xff\xff\xff"), Multiaddr(b"\x04\x0a"), Multiaddr(b"")]
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        await raw.until(lambda: raw.heard("graft"))
        infos = (record_of(gossiper(net, 4), nonsense), record_of(named, [*nonsense, Multiaddr(named.addrs[0])]))
        await raw.say(node, prune(TOPIC, peers=infos, backoff=60))
        assert (await at_named.next(Admitted)).peer == node.peer_id
