"""Which addresses of a peer are dialled, and in which order."""

from __future__ import annotations

from multiaddr import Multiaddr

from node.dialer import _ranked

TCP = [f"/ip4/192.0.2.{k}/tcp/4001" for k in range(1, 20)]
QUIC = [f"/ip4/192.0.2.{k}/udp/4001/quic-v1" for k in range(1, 20)]
HERE = ["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/udp/4001/quic-v1"]


def ranked(addrs):
    return [str(addr) for addr in _ranked([Multiaddr(addr) for addr in addrs])]


def test_the_order_is_kept_where_there_is_one_transport():
    assert ranked(TCP) == TCP


def test_each_transport_gets_its_turn():
    assert ranked(TCP + QUIC) == [addr for pair in zip(TCP, QUIC, strict=True) for addr in pair]
    assert ranked([*QUIC, TCP[0]])[:3] == [QUIC[0], TCP[0], QUIC[1]]


def test_what_was_named_first_is_dialled_first():
    assert ranked([QUIC[0], TCP[0]]) == [QUIC[0], TCP[0]]
    assert ranked([TCP[0], QUIC[0]]) == [TCP[0], QUIC[0]]


def test_loopback_is_last_and_each_once():
    assert ranked([*HERE, TCP[0], TCP[0]]) == [TCP[0], *HERE]
