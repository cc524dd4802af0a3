"""The upgrade path over py-libp2p's WebSocket: the same Noise and Yamux, on a link that only reads and writes."""

from __future__ import annotations

import trio
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.transport.websocket.transport import WebsocketTransport

from interop.rawbytes import BYTES, RESET, echo_pattern, reset_mine, was_reset
from node.config import Config
from node.identity import Identity
from node.node import Node
from node.upgrade.muxer import Muxer

MIB = 1 << 20


def node() -> Node:
    # its own upgrader is never asked: the swarm has ours
    transport = WebsocketTransport(TransportUpgrader({}, {}))
    config = Config(listen=("/ip4/127.0.0.1/tcp/0/ws",), dht="off")
    return Node(config, identity=Identity.generate(), protocols=[BYTES, RESET], transports=[transport])


async def test_bytes_and_resets_go_over_a_websocket_both_ways():
    with trio.fail_after(30):
        async with node() as a, node() as b:
            connection = await b.connect(a.addrs[0])
            assert isinstance(connection.muxed_conn, Muxer)
            for here, there in ((a, b), (b, a)):
                await echo_pattern(here, there.peer_id, 8 * MIB)
                await echo_pattern(here, there.peer_id, 1000, streams=50)
                await reset_mine(here, there.peer_id)
                await was_reset(here, there.peer_id)
            await b.disconnect(a.peer_id)
            while a.connected_peers():  # noqa: ASYNC110 - bounded above; the other side learns of it by the socket
                await trio.sleep(0.01)
