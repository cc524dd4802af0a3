"""py-libp2p's own host as an end, on Noise and Yamux as ours is. Admits anybody.

The handlers and clients are what somebody writes who uses py-libp2p: streams are read 64 KiB at a time, and frames are
cut from what was read. Transfers are written in the blocks of py-libp2p's own perf service, 64 KiB; with 256 KiB it
moves about a third more for each CPU-second. A handler keeps its exceptions to itself: one that raises stops that host.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio
from libp2p.abc import IHost, INetConn, INetStream, INetwork, INotifee
from libp2p.custom_types import TProtocol
from libp2p.host.ping import ID as PING_ID
from libp2p.host.ping import PING_LENGTH
from libp2p.io.utils import read_exactly
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.perf import WRITE_BLOCK_SIZE
from multiaddr import Multiaddr

from interop.bench.ends.gossip import gossip_commands
from interop.bench.ends.gossip_stock import stock_gossip
from interop.bench.ends.lines import LISTEN, LISTEN_QUIC, Command, say, say_listening, until
from interop.bench.ends.load import ECHO_ID, MAX_FRAME, STREAM_PAYLOAD, ask, check_echo, repeat, together
from interop.bench.ends.stock_host import make_host
from interop.peer import Message
from node.names import parse_peer_addr
from protocols.framing import FrameDecoder, encode_frame
from protocols.perf import COUNT_BYTES, PERF, Result

BLOCK = bytes(WRITE_BLOCK_SIZE)
READ_SIZE = 64 * 1024


@asynccontextmanager
async def stock(connections: int | None = None, *, over_quic: bool = False) -> AsyncIterator[dict[str, Command]]:
    """A host, and what it can be told to do."""
    host = make_host(connections, LISTEN_QUIC if over_quic else None)
    network = host.get_network()
    network.register_notifee(TellDisconnected(host))
    host.set_stream_handler(TProtocol(PERF.id), partial(contained, answer_perf))
    host.set_stream_handler(TProtocol(ECHO_ID), partial(contained, answer_echo))
    commands = Commands(host)
    async with host.run([Multiaddr(LISTEN_QUIC if over_quic else LISTEN)]), gossip_commands(stock_gossip) as gossip:
        peer_id = str(host.get_id())
        addrs = [str(addr).partition("/p2p/")[0] for addr in host.get_addrs()]
        say_listening(peer_id, [f"{addr}/p2p/{peer_id}" for addr in addrs])
        names = ("connect", "identify", "disconnect", "ping", "perf", "both", "streams", "requests")
        yield {name: getattr(commands, name) for name in names} | gossip


class Commands:
    """The commands of `interop.bench.ends`."""

    def __init__(self, host: IHost) -> None:
        self._host = host

    async def connect(self, addr: str) -> Message:
        peer_id, multiaddr = parse_peer_addr(addr)
        started = trio.current_time()
        await self._host.get_network().dial_addr(multiaddr, peer_id)
        return {"total_ms": (trio.current_time() - started) * 1000}

    async def identify(self, peer: str) -> Message:
        peer_id = ID.from_base58(peer)
        await until(lambda: bool(_protocols(self._host, peer_id)))
        return {"peer": peer}

    async def disconnect(self, peer: str) -> Message:
        await self._host.get_network().close_peer(ID.from_base58(peer))
        return {"peer": peer}

    async def ping(self, peer: str, count: str) -> Message:
        # its PingService gives whole milliseconds
        times = []
        async with self._stream(peer, PING_ID) as stream:
            for _ in range(int(count)):
                payload = os.urandom(PING_LENGTH)
                started = trio.current_time()
                await stream.write(payload)
                echoed = await read_exactly(stream, PING_LENGTH)
                times.append((trio.current_time() - started) * 1e6)
                check_echo(echoed, payload)
        return {"rtt_us": times}

    async def perf(self, peer: str, upload: str, download: str, streams: str = "1") -> Message:
        return await self._transfers(peer, [(int(upload), int(download))] * int(streams))

    async def both(self, peer: str, amount: str) -> Message:
        return await self._transfers(peer, [(int(amount), 0), (0, int(amount))])

    async def _transfers(self, peer: str, amounts: list[tuple[int, int]]) -> Message:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(self._stream(peer, PERF.id)) for _ in amounts]
            return await together(
                [
                    partial(_transfer, stream, upload, download)
                    for stream, (upload, download) in zip(opened, amounts, strict=True)
                ]
            )

    async def streams(self, peer: str, count: str, width: str) -> Message:
        async def one() -> None:
            async with self._stream(peer, ECHO_ID) as stream:
                check_echo(await _Frames(stream).ask(STREAM_PAYLOAD), STREAM_PAYLOAD)

        return await repeat(one, int(count), int(width))

    async def requests(self, peer: str, count: str, streams: str) -> Message:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(self._stream(peer, ECHO_ID)) for _ in range(int(streams))]
            return await ask([_Frames(stream).ask for stream in opened], int(count))

    @asynccontextmanager
    async def _stream(self, peer: str, protocol: str) -> AsyncIterator[INetStream]:
        stream = await self._host.new_stream(ID.from_base58(peer), [TProtocol(protocol)])
        try:
            yield stream
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise
        await stream.close()


class _Frames:
    """The frames of an echo stream."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(MAX_FRAME)

    async def ask(self, payload: bytes) -> bytes:
        await self._stream.write(encode_frame(payload, MAX_FRAME))
        while data := await _read(self._stream):
            if frames := self._decoder.feed(data):
                return frames[0]  # there is one: only one was asked for
        raise EOFError("expected a frame, got the end")


async def _transfer(stream: INetStream, upload: int, download: int) -> Result:
    """The client of `/perf/1.0.0`, as `protocols.perf.measure_on`."""
    started = trio.current_time()
    await stream.write(download.to_bytes(COUNT_BYTES, "big"))
    await _write(stream, upload)
    await stream.close_write()  # type: ignore[attr-defined]  # its streams have it, their interface doesn't
    data = await _read(stream)
    turned = trio.current_time()
    received = len(data)
    while data:
        data = await _read(stream)
        received += len(data)
    if received != download:
        raise EOFError(f"expected the {download} bytes asked for, got {received}")
    return Result(upload, download, turned - started, trio.current_time() - turned)


async def answer_perf(stream: INetStream) -> None:
    asked = int.from_bytes(await read_exactly(stream, COUNT_BYTES), "big")
    received = 0
    while data := await _read(stream):
        received += len(data)
    await _write(stream, asked)
    say(event="perf", peer=str(stream.muxed_conn.peer_id), received=received, sent=asked)


async def answer_echo(stream: INetStream) -> None:
    decoder = FrameDecoder(MAX_FRAME)
    while data := await _read(stream):
        for frame in decoder.feed(data):
            await stream.write(encode_frame(frame, MAX_FRAME))


async def contained(handler: Callable[[INetStream], Awaitable[None]], stream: INetStream) -> None:
    try:
        await handler(stream)
        await stream.close()
    except Exception:  # a stream that breaks is noticed by the client, which is the one that measures
        await stream.reset()


async def _read(stream: INetStream) -> bytes:
    """The next bytes, b"" at the end."""
    try:
        return bytes(await stream.read(READ_SIZE))
    except StreamEOF:
        return b""


async def _write(stream: INetStream, count: int) -> None:
    for _ in range(count // len(BLOCK)):
        await stream.write(BLOCK)
    if rest := count % len(BLOCK):
        await stream.write(BLOCK[:rest])


class TellDisconnected(INotifee):
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


def _protocols(host: IHost, peer_id: ID) -> list[str]:
    try:
        return list(host.get_peerstore().get_protocols(peer_id))
    except Exception:  # py-libp2p's store raises several kinds for a peer that it doesn't know
        return []
