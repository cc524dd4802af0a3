"""QUIC where the path isn't what it was, or isn't much: other ports, narrow paths, several addresses of one host."""

from __future__ import annotations

import socket
import time
from contextlib import asynccontextmanager, closing

import pytest
import trio
from multiaddr import Multiaddr

from interop.rawbytes import echo_pattern
from node.errors import DialError
from node.events import Admitted, Disconnected
from node.identity import Identity
from node.quic import transport
from node.quic.packets import Resets
from tests.nodes import Recorder, eventually
from tests.quicnodes import endpoint, first_datagram, impatient, muxed, quic
from tests.udprelay import relayed

MIB = 1 << 20
NARROWEST = 1200  # what QUIC asks of a path


@asynccontextmanager
async def over_a_path(largest=65535):
    """`b` has dialled `a`, over a path that can be changed."""
    async with quic() as a, quic() as b, relayed(endpoint(a).socket.address) as path:
        path.largest = largest
        port = endpoint(a).socket.address[1]
        with trio.fail_after(5):
            await b.connect(a.addrs[0].replace(f"/udp/{port}/", f"/udp/{path.port}/"))
        yield a, b, path


@pytest.mark.parametrize("speaker", ["dialler", "listener", "both"])
async def test_a_client_seen_at_another_port_is_the_same_client(speaker):
    async with over_a_path() as (a, b, path):
        recorder = Recorder(a)
        await echo_pattern(b, a.peer_id, MIB)
        path.leave_from_another_port()
        with trio.fail_after(10):
            if speaker != "listener":
                await echo_pattern(b, a.peer_id, MIB)
            else:
                await b.ping(a.peer_id, 1)  # until it says something, nobody knows where it is
            if speaker != "dialler":
                await echo_pattern(a, b.peer_id, MIB)
        assert not recorder.of(Disconnected)


async def test_a_path_that_carries_no_more_than_quic_asks():
    async with over_a_path(NARROWEST) as (a, b, path):
        with trio.fail_after(10):
            await echo_pattern(b, a.peer_id, MIB)
            await echo_pattern(a, b.peer_id, MIB)
        assert path.lost  # larger ones were tried


async def test_a_path_that_becomes_narrow():
    async with over_a_path() as (a, b, path):
        await echo_pattern(b, a.peer_id, 4 * MIB)
        path.largest = NARROWEST
        with trio.fail_after(15):
            await echo_pattern(b, a.peer_id, MIB)
            await echo_pattern(a, b.peer_id, MIB)
        assert path.lost


@pytest.mark.parametrize("host", ["127.0.0.2", "127.1.2.3"])
async def test_a_host_with_several_addresses_answers_from_the_one_that_was_asked(host):
    async with quic(listen=("/ip4/0.0.0.0/udp/0/quic-v1",)) as a, quic() as b:
        port = endpoint(a).socket.address[1]
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
            asking.bind(("127.0.0.1", 0))
            asking.setblocking(False)
            asking.sendto(first_datagram(), (host, port))
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(asking)
            assert asking.recvfrom(2000)[1] == (host, port)
        await b.connect(f"/ip4/{host}/udp/{port}/quic-v1/p2p/{a.peer_id}")
        await echo_pattern(b, a.peer_id, MIB)


async def test_all_addresses_of_both_families_on_one_port():
    async with quic(listen=("/ip4/0.0.0.0/udp/0/quic-v1",)) as first:
        port = endpoint(first).socket.address[1]
    listen = (f"/ip4/0.0.0.0/udp/{port}/quic-v1", f"/ip6/::/udp/{port}/quic-v1")
    async with quic(listen=listen) as a, quic(listen=()) as b, quic(listen=()) as c:
        assert not [addr for addr in a.addrs if "/0.0.0.0/" in addr or "/ip6/::/" in addr]
        for dialler, host in ((b, "ip4/127.0.0.1"), (c, "ip6/::1")):
            await dialler.connect(f"/{host}/udp/{port}/quic-v1/p2p/{a.peer_id}")
            await echo_pattern(dialler, a.peer_id, MIB)
            await echo_pattern(a, dialler.peer_id, MIB)


# dialling


async def test_dials_leave_from_where_the_system_would_send_from():
    async with quic(listen=("/ip4/127.0.0.2/udp/0/quic-v1",)) as a, quic() as b:
        recorder = Recorder(b)
        await a.connect(b.addrs[0])
        assert (await recorder.next(Admitted)).addr.startswith("/ip4/127.0.0.1/")


async def test_where_no_way_leads_a_dial_fails_at_once():
    async with quic() as a:
        with trio.fail_after(3), pytest.raises(DialError, match="denied"):
            await a.connect(f"/ip4/255.255.255.255/udp/1/quic-v1/p2p/{Identity.generate().peer_id}")


async def test_each_address_of_a_name_is_tried(monkeypatch):
    async def both(maddr):
        _, _, _, rest = str(maddr).split("/", 3)
        return [Multiaddr(f"/ip6/::1/{rest}"), Multiaddr(f"/ip4/127.0.0.1/{rest}")]

    monkeypatch.setattr(transport, "by_ip", both)
    monkeypatch.setattr(transport, "NEXT_IP", 0.2)
    async with quic() as a, quic() as b:
        await b.connect(a.addrs[0].replace("/ip4/127.0.0.1/", "/dns/localhost/"))


async def test_a_name_that_is_none():
    async with quic() as a:
        with pytest.raises(DialError, match=r"not known|isn't resolved"):
            await a.connect(f"/dns4/nobody.invalid/udp/1/quic-v1/p2p/{Identity.generate().peer_id}")


# errors of the system's


async def test_ports_where_nobody_listens_harm_nobody():
    async with quic(dial_timeout=0.5) as a, quic() as b:
        await b.connect(a.addrs[0])
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as gone:
            gone.bind(("127.0.0.1", 0))
            port = gone.getsockname()[1]
        with pytest.raises(DialError, match="no answer"):
            await a.connect(f"/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{Identity.generate().peer_id}")
        await echo_pattern(b, a.peer_id, MIB)


async def test_errors_of_the_socket_end_nothing():
    async with quic() as a, quic() as b:
        await b.connect(a.addrs[0])
        datagrams = endpoint(a).socket
        receive, errors = datagrams.receive, [ConnectionRefusedError(111, "refused")] * 100

        def failing():
            if errors:
                raise errors.pop()
            return receive()

        datagrams.receive = failing
        await echo_pattern(b, a.peer_id, MIB)
        assert not errors


# idle, and gone


async def test_a_peer_that_is_less_patient_and_says_nothing_itself():
    async with quic() as a, impatient(0.6) as b:
        await b.connect(a.addrs[0])
        recorder = Recorder(a)
        muxed(b, a)._next_beat = muxed(b, a)._beat = float("inf")
        await trio.sleep(2)
        assert not recorder.of(Disconnected)
        await echo_pattern(a, b.peer_id, 1000)


async def test_a_peer_that_was_restarted_says_so():
    identity = Identity.generate()
    async with quic() as b:
        recorder = Recorder(b)
        async with quic(identity=identity) as a:
            listen = (a.addrs[0].partition("/p2p/")[0],)
            await b.connect(a.addrs[0])
            conn = muxed(b, a)
            endpoint(a).socket.send = lambda run, addr, local: True  # it has no time to say anything
        assert not recorder.of(Disconnected)
        async with quic(identity=identity, listen=listen) as a:
            expected = conn.reason or "the peer knows nothing of the connection any more"
            if not conn.lost:  # else something of it was on its way anyhow
                conn._native.ping()
                conn.flush()
            with trio.fail_after(3):
                await recorder.next(Disconnected)
            assert conn.lost
            assert conn.reason == expected
            await b.connect(a.addrs[0])


async def test_nobody_else_can_say_so():
    async with quic() as a, quic() as b:
        await b.connect(a.addrs[0])
        recorder = Recorder(b)
        conn = muxed(b, a)
        cid = next(cid for cid, found in endpoint(a)._by_cid.items() if found is muxed(a, b))
        at, heard = endpoint(a).socket.address, conn._heard
        forged = Resets(b"another's", str(at[:2])).answer(b"\x40" + cid + bytes(40))
        for _ in range(100):
            endpoint(b)._deliver(forged, len(forged), at, None, trio.current_time(), {})
        assert conn._heard == heard  # it says nothing of whether the peer is there
        await echo_pattern(b, a.peer_id, 1000)
        assert not recorder.of(Disconnected)


async def test_resets_are_few_and_short():
    async with quic() as a:
        sent = []
        endpoint(a).socket.send = lambda run, addr, local: sent.append(run) or True
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
            stranger.bind(("127.0.0.1", 0))
            for size in range(10, 100):
                stranger.sendto(b"\x40" + bytes(size - 1), endpoint(a).socket.address)
            await eventually(lambda: sent)
            await trio.sleep(0.1)
        assert all(len(data) <= 42 for run in sent for data in run)
        assert len(sent) < 80


async def test_a_flood_of_strangers_costs_little_where_many_are_connected():
    async with quic() as a:
        found = endpoint(a)

        class Many(set):
            def __iter__(self):
                raise AssertionError("looked at every connection for one datagram")

        found.connections = Many(found.connections)
        found.accept = lambda conn: None
        first = first_datagram()
        started = time.process_time()
        for index in range(1000):
            data = first[:6] + index.to_bytes(8, "big") + first[14:]
            found._deliver(data, len(data), (f"127.0.{index // 250}.{index % 250}", 9), None, trio.current_time(), {})
        assert time.process_time() - started < 2
        found.connections = set(found._cids)
