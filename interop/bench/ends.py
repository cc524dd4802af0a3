"""One end of a benchmark, a process of its own: `python -m interop.bench.ends vouch`, `... vouch-stock` or `... stock`.

`vouch-stock` is our node on py-libp2p's Noise and Yamux (`upgrade = "stock"`), `stock` py-libp2p's own host.

It speaks lines as the Go peer does (`interop/peer.py`), so that one harness drives all:

    connect MULTIADDR   dials: {"total_ms", "admission_ms"}, the latter only where there is an admission
    identify PEER       waits until the peer of the current connection has been identified, so that this work isn't
                        done in the next dial's time
    disconnect PEER     closes every connection to it
    perf PEER UP DOWN   moves as many bytes each way on one stream: {"upload_s", "download_s"}; our nodes only
    ping PEER N         as many pings on one stream: {"rtt_us"}; our nodes only

`total_ms` is the time of `Node.connect`, or of stock py-libp2p's `Swarm.dial_addr`. `admission_ms` runs from when the
connection is secured and multiplexed (`Connection.opened_at`) to its event `Admitted`. It ends with its input.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Literal

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from interop.peer import Message
from node.config import Config
from node.events import Admitted, Disconnected, Event
from node.identity import Identity
from node.node import Node, parse_peer_addr
from protocols.perf import PERF, measure

LISTEN = "/ip4/127.0.0.1/tcp/0"
IDENTIFY_TIMEOUT = 5.0
IDENTIFY_POLL = 0.002

Command = Callable[..., Awaitable[Message]]
End = Callable[[], AbstractAsyncContextManager[dict[str, Command]]]


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


@asynccontextmanager
async def vouch(upgrade: Literal["fast", "stock"] = "fast") -> AsyncIterator[dict[str, Command]]:
    """A node of ours. Without Kademlia, like the Go peer, so that nothing goes on between dials."""
    admitted_at: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, Admitted):
            admitted_at[event.peer] = trio.current_time()
        elif isinstance(event, Disconnected):
            say(event="disconnected", peer=event.peer)

    async def connect(addr: str) -> Message:
        started = trio.current_time()
        connection = await node.connect(addr)
        ended = trio.current_time()
        return {
            "total_ms": (ended - started) * 1000,
            "admission_ms": (admitted_at[connection.peer] - connection.opened_at) * 1000,
        }

    async def identify(peer: str) -> Message:
        await until(lambda: peer in node.identify.known)
        return {"peer": peer}

    async def disconnect(peer: str) -> Message:
        await node.disconnect(peer)
        return {"peer": peer}

    async def perf(peer: str, upload: str, download: str) -> Message:
        result = await measure(node, peer, upload=int(upload), download=int(download))
        return {"upload_s": result.upload_seconds, "download_s": result.download_seconds}

    async def ping(peer: str, count: str) -> Message:
        return {"rtt_us": [rtt * 1e6 for rtt in await node.ping(peer, int(count))]}

    config = Config(listen=(LISTEN,), dht="off", upgrade=upgrade)
    node = Node(config, identity=Identity.generate(), protocols=[PERF])
    node.events.subscribe(note)
    async with node:
        say(event="listening", peer=node.peer_id, addrs=node.addrs, pid=os.getpid())
        yield {"connect": connect, "identify": identify, "disconnect": disconnect, "perf": perf, "ping": ping}


@asynccontextmanager
async def stock() -> AsyncIterator[dict[str, Command]]:
    """py-libp2p's own host, on Noise and Yamux as ours is. Admits anybody."""
    host = _stock_host()
    network = host.get_network()

    async def connect(addr: str) -> Message:
        peer_id, multiaddr = parse_peer_addr(addr)
        started = trio.current_time()
        await network.dial_addr(multiaddr, peer_id)
        return {"total_ms": (trio.current_time() - started) * 1000}

    async def identify(peer: str) -> Message:
        peer_id = ID.from_base58(peer)
        await until(lambda: bool(_protocols(host, peer_id)))
        return {"peer": peer}

    async def disconnect(peer: str) -> Message:
        await network.close_peer(ID.from_base58(peer))
        return {"peer": peer}

    network.register_notifee(_TellDisconnected(host))
    async with host.run([Multiaddr(LISTEN)]):
        peer_id = str(host.get_id())
        addrs = [str(addr).partition("/p2p/")[0] for addr in host.get_addrs()]
        say(event="listening", peer=peer_id, addrs=[f"{addr}/p2p/{peer_id}" for addr in addrs])
        yield {"connect": connect, "identify": identify, "disconnect": disconnect}


class _TellDisconnected(INotifee):
    """Says when a connection has ended, and forgets that its peer was identified."""

    def __init__(self, host: IHost) -> None:
        self._host = host

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        peer_id = conn.muxed_conn.peer_id
        self._host.get_peerstore().clear_protocol_data(peer_id)
        say(event="disconnected", peer=str(peer_id))

    async def connected(self, network: INetwork, conn: INetConn) -> None: ...

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...


def _stock_host() -> IHost:
    keys = create_new_key_pair()
    noise = Noise(keys, noise_privkey=create_new_x25519_key_pair().private_key)
    return new_host(key_pair=keys, sec_opt={NOISE_ID: noise}, muxer_preference="YAMUX")


def _protocols(host: IHost, peer_id: ID) -> list[str]:
    try:
        return list(host.get_peerstore().get_protocols(peer_id))
    except Exception:  # py-libp2p's store raises several kinds for a peer that it doesn't know
        return []


async def until(done: Callable[[], bool]) -> None:
    """Waits until it is done. Raises TooSlowError."""
    with trio.fail_after(IDENTIFY_TIMEOUT):
        while not done():  # noqa: ASYNC110 - py-libp2p tells nobody
            await trio.sleep(IDENTIFY_POLL)


async def main(end: End) -> None:
    """Serves one end's commands until the end of the input."""
    async with end() as commands, trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        buffer = b""
        async for data in stdin:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                name, *arguments = line.decode().split()
                try:
                    say(reply=name, ok=True, **await commands[name](*arguments))
                except Exception as error:  # the harness decides what a failure means
                    say(reply=name, ok=False, error=repr(error))


ENDS: dict[str, End] = {"vouch": vouch, "vouch-stock": partial(vouch, "stock"), "stock": stock}

if __name__ == "__main__":
    # what py-libp2p says of connections that end is not of interest, and writing it would be measured
    logging.disable(logging.CRITICAL)
    trio.run(main, ENDS[sys.argv[1]])
