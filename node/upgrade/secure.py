"""A secured connection: the shell around `noise` and `tls`, in the shapes that py-libp2p gives a security transport.

A read takes what the socket has and opens every message in it; what is sent together is sealed together and goes to
the socket in one call. The buffers for it are the transport's: an idle connection holds none, one whose socket is full
holds one of `BATCH` messages until `flush` has sent the rest.

One reader and one writer at a time, which is what a muxer is.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from contextlib import suppress

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from libp2p.abc import IRawConnection, ISecureConn, ISecureTransport
from libp2p.connection_types import ConnectionType
from libp2p.crypto.keys import KeyPair, PrivateKey, PublicKey
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.upgrade import noise, tls
from node.upgrade.noise import LENGTH, MAX_MESSAGE, MAX_PLAINTEXT
from protocols import ProtocolError

# messages that are sealed together and sent in one call: the calls cost more than the copies, docs/performance.md
BATCH = 16
SPARE_BUFFERS = 1
_SEALED = BATCH * (LENGTH.size + MAX_MESSAGE + tls.OVERHEAD) + tls.SPARE
_READ = 256 * 1024
_HANDSHAKE_READ = 16 * 1024


class Session(typing.Protocol):
    """What a handshake ends in: it seals what we send and opens what comes."""

    remote_key: PublicKey
    ended: bool  # whether the peer said that nothing more comes

    def seal(self, messages: Sequence[bytes | memoryview], into: memoryview) -> int:
        """Writes the messages, sealed, one behind the other; the bytes written."""

    def open(self, data: memoryview) -> tuple[list[bytes], int]:
        """The plaintexts of what `data` starts with, and how many of its bytes they were. Raises ProtocolError."""

    def end(self) -> bytes:
        """What tells the peer that nothing more comes, if there is such a thing."""


class SecureTransport(ISecureTransport):
    """Secures connections as one identity. What the handshake is, the subclasses say."""

    def __init__(self, key_pair: KeyPair) -> None:
        self.peer_id = ID.from_pubkey(key_pair.public_key)
        self.private_key = key_pair.private_key
        self.received = _buffer(_READ + LENGTH.size + MAX_MESSAGE)
        self.reader: SecureConn | None = None  # whose bytes are in `received`
        self._sealed: list[memoryview] = []

    def take_buffer(self) -> memoryview:
        """A buffer for a batch of sealed messages; to be given back."""
        return self._sealed.pop() if self._sealed else _buffer(_SEALED)

    def give_buffer(self, buffer: memoryview) -> None:
        if len(self._sealed) < SPARE_BUFFERS:
            self._sealed.append(buffer)

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        return await self._secure(conn, initiator=False)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        return await self._secure(conn, initiator=True, wanted=peer_id)

    async def _secure(self, conn: IRawConnection, *, initiator: bool, wanted: ID | None = None) -> SecureConn:
        raise NotImplementedError


class NoiseTransport(SecureTransport):
    """Noise. `muxers`, best first, are told in the handshake and spare a round trip."""

    def __init__(self, key_pair: KeyPair, muxers: Sequence[str] = (), prologue: bytes = b"") -> None:
        super().__init__(key_pair)
        self.muxers = tuple(muxers)
        self.prologue = prologue
        # one static key for the transport's life: the signature that proves it is made once
        self.local = noise.Local.of(X25519PrivateKey.generate(), key_pair.private_key, muxers)

    async def _secure(self, conn: IRawConnection, *, initiator: bool, wanted: ID | None = None) -> SecureConn:
        handshake = noise.Handshake(initiator=initiator, local=self.local, prologue=self.prologue)
        ours = initiator
        for _ in range(3):
            if ours:
                message = handshake.write()
                await conn.write(len(message).to_bytes(2, "big") + message)
            else:
                handshake.read(await _exactly(conn, int.from_bytes(await _exactly(conn, 2), "big")))
                if wanted is not None and handshake.remote_key is not None:
                    _expect(handshake.remote_key, wanted)  # before our own identity goes out, in the third message
            ours = not ours
        session = handshake.session
        assert session is not None
        # the initiator's order decides, as in the other implementations
        first, second = (self.muxers, session.muxers) if initiator else (session.muxers, self.muxers)
        muxer = next((name for name in first if name in second), None)
        return SecureConn(conn, session, self, initiator=initiator, muxer=muxer)


class TlsTransport(SecureTransport):
    """TLS 1.3. `muxers`, best first, are told in the handshake and spare a round trip."""

    def __init__(self, key_pair: KeyPair, muxers: Sequence[str] = ()) -> None:
        super().__init__(key_pair)
        self.local = tls.Local(key_pair, muxers)

    async def _secure(self, conn: IRawConnection, *, initiator: bool, wanted: ID | None = None) -> SecureConn:
        handshake = tls.Handshake(initiator=initiator, local=self.local, wanted=wanted)
        while True:
            ours = handshake.output()
            if ours:
                await conn.write(ours)
            if handshake.session is not None:
                secured = SecureConn(conn, handshake.session, self, initiator=initiator, muxer=handshake.session.muxer)
                secured.open_rest()
                return secured
            theirs = await conn.read(_HANDSHAKE_READ)
            if not theirs:
                raise ConnectionClosedError("the peer ended the TLS handshake")
            try:
                handshake.receive(theirs)
            except ProtocolError:
                alert = handshake.output()
                if alert:
                    await conn.write(alert)
                raise


class SecureConn(ISecureConn):
    """A secured connection."""

    def __init__(
        self,
        raw: IRawConnection,
        session: Session,
        transport: SecureTransport,
        *,
        initiator: bool,
        muxer: str | None = None,
    ) -> None:
        self.is_initiator = initiator
        self.session = session
        self._raw = raw
        self._link: Link = _link(raw)
        self._transport = transport
        self._remote_peer = ID.from_pubkey(session.remote_key)
        self._incomplete = b""  # the beginning of a message, while `received` is another connection's
        self._start = self._end = 0  # where it is in `received`
        self._buffer: memoryview | None = None  # kept while the socket is full, with what it didn't take
        self._unsent = memoryview(b"")
        self._unread = b""
        self._closed = False
        self.early_muxer = muxer  # agreed on in the handshake

    def open_rest(self) -> None:
        """Takes what came behind the handshake, where the session has it already."""
        messages, _ = self.session.open(memoryview(b""))
        self._unread = b"".join(messages)

    async def receive(self) -> list[bytes]:
        """The messages that have come, at least one; [] at the end. Raises ProtocolError."""
        if self._unread:
            messages, self._unread = [self._unread], b""
            return messages
        while not self.session.ended:
            await self._link.wait_readable()
            buffer = self._claim_buffer()
            at = self._end
            count = self._link.receive_nowait(buffer[at : at + _READ])
            if count is None:
                continue
            if not count:
                return []
            messages, used = self.session.open(buffer[: at + count])
            self._start, self._end = used, at + count
            if messages:
                return messages
        return []

    def _claim_buffer(self) -> memoryview:
        """The transport's buffer, with the beginning of a message that we have in front, up to `_end`."""
        buffer, other = self._transport.received, self._transport.reader
        if other is self:
            rest = self._end - self._start
            if self._start:
                buffer[:rest] = buffer[self._start : self._end]
        else:
            if other is not None:
                other._leave_buffer()
            self._transport.reader = self
            rest = len(self._incomplete)
            buffer[:rest] = self._incomplete
            self._incomplete = b""
        self._start, self._end = 0, rest
        return buffer

    def _leave_buffer(self) -> None:
        self._incomplete = bytes(self._transport.received[self._start : self._end])
        self._start = self._end = 0
        self._transport.reader = None

    def send_nowait(self, messages: Sequence[bytes | memoryview]) -> bool:
        """Seals up to `BATCH` messages and sends them. False if some of it waits for `flush`, which must come first."""
        assert not self._unsent, "what was sent before waits for flush"
        buffer = self._transport.take_buffer()
        end = self.session.seal(messages, buffer)
        sent = self._link.send_nowait(buffer[:end])
        if sent == end:
            self._transport.give_buffer(buffer)
            return True
        self._buffer, self._unsent = buffer, buffer[sent:end]
        return False

    async def flush(self) -> bool:
        """Waits until some of what was sent has gone to the system; whether all has. Safe to cancel."""
        if self._unsent:
            await self._link.wait_writable(self._unsent)
            self._unsent = self._unsent[self._link.send_nowait(self._unsent) :]
        if self._unsent:
            return False
        if self._buffer is not None:
            self._transport.give_buffer(self._buffer)
            self._buffer = None
        return True

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes; without `n` all that has come. b"" at the end. Raises ProtocolError."""
        data = self._unread
        while not data:
            messages = await self.receive()
            if not messages:
                return b""
            data = b"".join(messages)
        self._unread = b"" if n is None else data[n:]
        return data if n is None else data[:n]

    async def write(self, data: bytes) -> None:
        """Seals and sends all of `data`."""
        for start in range(0, len(data), MAX_PLAINTEXT):
            sent = self.send_nowait([data[start : start + MAX_PLAINTEXT]])
            while not sent:
                sent = await self.flush()

    async def close(self) -> None:
        if self._transport.reader is self:
            self._leave_buffer()
        if not self._closed:
            self._closed = True
            with suppress(OSError, trio.ClosedResourceError, ProtocolError):
                self._say_end()
        await self._raw.close()

    def _say_end(self) -> None:
        last = self.session.end() if not self._unsent else b""
        if last:
            self._link.send_nowait(memoryview(last))

    def get_local_peer(self) -> ID:
        return self._transport.peer_id

    def get_local_private_key(self) -> PrivateKey:
        return self._transport.private_key

    def get_remote_peer(self) -> ID:
        return self._remote_peer

    def get_remote_public_key(self) -> PublicKey:
        return self.session.remote_key

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._raw.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self._raw.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self._raw.get_connection_type()


def _buffer(size: int) -> memoryview:
    # all of it is touched at once: what a node takes doesn't creep up for hours with the size of its transfers
    return memoryview(bytearray(size))


def _expect(key: PublicKey, wanted: ID) -> None:
    got = ID.from_pubkey(key)
    if got != wanted:
        raise ProtocolError(f"expected peer {wanted}, got {got}")


async def _exactly(conn: IRawConnection, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await conn.read(count - len(data))
        if not more:
            raise ConnectionClosedError("the peer ended the Noise handshake")
        data += more
    return data


class Link(typing.Protocol):
    """What carries the messages: the `link` of a stream that has one, or `_Plain` around whatever else there is."""

    async def wait_readable(self) -> None: ...

    def receive_nowait(self, into: memoryview) -> int | None:
        """The bytes received; None if there are none yet, 0 at the end."""

    async def wait_writable(self, data: memoryview) -> None: ...

    def send_nowait(self, data: memoryview) -> int:
        """How many of the bytes were taken, perhaps none. Those that weren't are offered again, before any others."""


def _link(raw: IRawConnection) -> Link:
    link: Link | None = getattr(getattr(raw, "stream", None), "link", None)
    return _Plain(raw) if link is None else link


class _Plain:
    """A connection that only reads and writes: each wait does the work, and the call after it says what came of it."""

    def __init__(self, raw: IRawConnection) -> None:
        self._raw = raw
        self._data: bytes | None = None
        self._sent = 0

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._data is None:
            self._data = await self._raw.read()

    def receive_nowait(self, into: memoryview) -> int | None:
        if self._data is None:
            return None
        count = min(len(self._data), len(into))
        into[:count] = self._data[:count]
        self._data = self._data[count:] or None if self._data else self._data
        return count

    async def wait_writable(self, data: memoryview) -> None:
        await self._raw.write(bytes(data))
        self._sent = len(data)

    def send_nowait(self, data: memoryview) -> int:
        sent, self._sent = self._sent, 0
        return sent
