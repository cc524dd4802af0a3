"""A peer that speaks Yamux frames by hand, to say what no library would say.

    RawPeer.dial(addr)   TCP, Noise, "/yamux/1.0.0" agreed; from there on frames, each way, one by one

`frames` records all that the other side sends below the muxer, in order; `ended` is set when it closes. The reader runs
in the nursery that the caller gives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import trio
from libp2p.abc import ISecureConn
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from node.identity import Identity
from node.upgrade import multistream
from protocols.framing import encode_frame
from protocols.handshake.wire import PROTOCOL_ID, Hello

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
HEADER = struct.Struct(">BBHLL")


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes = b""


async def open_tcp(addr: str, source: str = "127.0.0.1") -> trio.SocketStream:
    """A TCP connection to a multiaddr, from the given loopback address."""
    parsed = Multiaddr(addr)
    host, port = parsed.value_for_protocol("ip4"), int(str(parsed.value_for_protocol("tcp")))
    return await trio.open_tcp_stream(str(host), port, local_address=source)


async def secure(stream: trio.SocketStream, addr: str, identity: Identity) -> ISecureConn:
    """Noise as initiator with the peer that `addr` names."""
    raw = RawConnection(TrioTCPStream(stream), True)
    await multistream.select(raw, ["/noise"])
    noise = Noise(identity.key_pair(), noise_privkey=create_new_key_pair().private_key)
    return await noise.secure_outbound(raw, ID.from_base58(addr.rpartition("/p2p/")[2]))


class RawPeer:
    """One connection as initiator, by frames."""

    def __init__(self, conn: ISecureConn, identity: Identity) -> None:
        self.conn = conn
        self.identity = identity
        self.frames: list[Frame] = []
        self.ended = trio.Event()
        self._changed = trio.Event()
        self._next = 1
        self._parsed: dict[int, int] = {}

    @classmethod
    async def dial(cls, addr: str, nursery: trio.Nursery, *, source: str = "127.0.0.1") -> RawPeer:
        identity = Identity.generate()
        conn = await secure(await open_tcp(addr, source), addr, identity)
        await multistream.select(conn, ["/yamux/1.0.0"])
        peer = cls(conn, identity)
        nursery.start_soon(peer._read)
        return peer

    async def _read(self) -> None:
        try:
            while True:
                _, kind, flags, stream, length = HEADER.unpack(await self._exactly(HEADER.size))
                payload = await self._exactly(length) if kind == DATA else b""
                self.frames.append(Frame(kind, flags, stream, length, payload))
                self._wake()
        except Exception:  # however the other side ends the connection, for a test it has ended
            self.ended.set()
            self._wake()
        finally:
            with trio.CancelScope(shield=True):
                await self.conn.close()

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await self.conn.read(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], object], timeout: float = 15.0) -> None:
        """Waits until `condition` holds, which is looked at whenever a frame has come or the connection has ended."""
        with trio.fail_after(timeout):
            while not condition():
                await self._changed.wait()

    async def send(self, kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> None:
        """One frame; `length` where it isn't the payload's."""
        header = HEADER.pack(0, kind, flags, stream, len(payload) if length is None else length)
        await self.conn.write(header + payload)

    async def open(self) -> int:
        """A new stream's number."""
        number, self._next = self._next, self._next + 2
        await self.send(WINDOW_UPDATE, SYN, number)
        return number

    async def data(self, stream: int, payload: bytes) -> None:
        """Payload in frames of at most 32 KiB."""
        for start in range(0, len(payload), 32768):
            await self.send(DATA, 0, stream, payload[start : start + 32768])

    def received(self, stream: int) -> bytes:
        """All payload that has come on a stream."""
        return b"".join(frame.payload for frame in self.frames if frame.stream == stream and frame.kind == DATA)

    def reset(self, stream: int) -> bool:
        """Whether the other side has reset a stream."""
        return any(frame.stream == stream and frame.flags & RST for frame in self.frames)

    async def propose(self, stream: int, protocol: str) -> None:
        """The multistream header and a proposal."""
        await self.data(stream, multistream.encode_line(multistream.HEADER) + multistream.encode_line(protocol))

    async def agreed(self, stream: int, protocol: str) -> None:
        """Waits until the other side has agreed to a proposal."""
        wanted = multistream.encode_line(multistream.HEADER) + multistream.encode_line(protocol)
        await self.until(lambda: self.received(stream).startswith(wanted) or self.ended.is_set())
        assert self.received(stream).startswith(wanted), f"{protocol} wasn't agreed on"

    async def shake(self, network_id: bytes, version: str = "raw/1.0.0") -> int:
        """The initiator's whole side of the handshake up to its Hello; the stream's number."""
        stream = await self.open()
        await self.propose(stream, PROTOCOL_ID)
        await self.agreed(stream, PROTOCOL_ID)
        await self.data(stream, encode_frame(Hello(version, network_id).encode(), 256))
        return stream

    async def admitted(self, stream: int) -> None:
        """Waits for the other side's Hello on the handshake's stream, and closes ours."""
        before = len(multistream.encode_line(multistream.HEADER) + multistream.encode_line(PROTOCOL_ID))
        await self.until(lambda: len(self.received(stream)) > before or self.ended.is_set())
        assert not self.ended.is_set(), "the connection was ended before admission"
        await self.send(WINDOW_UPDATE, FIN, stream)

    async def close(self) -> None:
        await self.conn.close()
