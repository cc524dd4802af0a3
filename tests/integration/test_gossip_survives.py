"""What must end neither a node nor its gossip: what strangers make fit in no frame or address, and faults of ours."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from node.events import Admitted
from protocols.gossip import GossipParams, PeerScoreThresholds
from protocols.gossip.params import RpcLimits
from protocols.gossip.rpc import PeerInfo, Rpc, encode
from tests.gossiping import QUIET, TOPIC, accept_all, eventually, gossiper, knows, line, meet
from tests.memnet import MemNet, mem_node
from tests.nodes import Recorder
from tests.rawgossip import prune, publish, raw_gossip, subscribe

MIB = 1 << 20


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


async def test_a_message_that_just_fits_its_frame_is_relayed(net, autojump_clock):
    """What we measure a message by is a little more than it has."""
    async with line(net, 2, gossip_signing="strict") as (a, b), raw_gossip(net, "10.0.0.9") as raw:
        at_a, at_b = accept_all(a), accept_all(b)
        await meet(a, b)
        await raw.node.connect(a.addrs[0])
        policy = gossiper(net, 8, gossip_signing="strict").gossip.policy
        policy.max_payload = MIB
        around = len(encode(Rpc(publish=(policy.make(TOPIC, bytes(MIB // 2), 0),)))) - MIB // 2
        message = policy.make(TOPIC, bytes(MIB - around), 0)
        assert MIB - 2 <= len(encode(Rpc(publish=(message,)))) <= MIB
        await raw.say(a, subscribe(TOPIC), publish(message))
        await eventually(lambda: len(at_a) == len(at_b) == 1)


class Broken:
    """A method that fails, `times` times, and works then; half done, if that is how it fails."""

    def __init__(self, monkeypatch, owner, name, *, times=3, half=False):
        self.left = times
        self._half = half
        self._works = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **fields):
        if self.left:
            self.left -= 1
            if self._half:
                self._works(*args, **fields)
            raise RuntimeError("a fault of ours")
        return self._works(*args, **fields)


@pytest.mark.parametrize("name", ["wake", "verdict", "receive", "add_peer", "remove_peer"])
async def test_a_fault_of_the_rules_is_logged_and_gossip_goes_on(net, autojump_clock, monkeypatch, caplog, name):
    async with line(net, 2) as (a, b), raw_gossip(net, "10.0.0.9") as raw:
        came = accept_all(b)
        await eventually(knows(a, b))
        broken = Broken(monkeypatch, b.gossip.engine, name, half=name == "remove_peer")
        author = gossiper(net, 8)
        for number in range(4):
            await raw.node.connect(b.addrs[0])
            raw.forget_stream(b)
            await raw.say(b, subscribe(TOPIC), publish(author.gossip.policy.make(TOPIC, b"%d" % number, 0)))
            await trio.sleep(QUIET)
            await raw.node.disconnect(b.peer_id)
            await trio.sleep(QUIET)
        assert not broken.left
        told = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(told) == 3, told
        await a.gossip.publish(TOPIC, b"after")
        await eventually(lambda: came[-1:] == [b"after"])


async def test_a_fault_while_sending_costs_that_stream_only(net, autojump_clock, monkeypatch, caplog):
    async with line(net, 2) as (a, b):
        came = accept_all(b)
        await eventually(knows(a, b))
        Broken(monkeypatch, a.gossip.peers._links[b.peer_id], "flush", times=1)
        await a.gossip.publish(TOPIC, b"before")
        await trio.sleep(QUIET)
        assert [record.levelname for record in caplog.records].count("ERROR") == 1
        await a.gossip.publish(TOPIC, b"after")
        await eventually(lambda: came == [b"before", b"after"])


async def test_what_fits_in_no_frame_of_these_settings_is_refused_to_its_author(net, autojump_clock):
    params = GossipParams(rpc=RpcLimits(max_size=128 << 10))
    async with line(net, 2, gossip_params=params) as (a, b):
        came = accept_all(b)
        await eventually(knows(a, b))
        with pytest.raises(ValueError, match="131072"):
            await a.gossip.publish(TOPIC, bytes(128 << 10))
        for number in range(8):  # together they would fit in no frame
            await a.gossip.publish(TOPIC, bytes([number]) * 60_000)
        await eventually(lambda: len(came) == 8)


async def test_frames_too_small_for_what_is_put_together_are_refused(net, autojump_clock):
    with pytest.raises(ValueError, match=r"rpc\.max_size"):
        mem_node(net, "10.0.0.1", gossip_params=GossipParams(rpc=RpcLimits(max_size=10_000)))
