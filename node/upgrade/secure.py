"""Noise on a connection: the shell around `noise`, in the shapes that py-libp2p gives a security transport.

Reads take what the socket has, and open all messages in it at once; a write seals as many messages as it needs and
sends them together. One reader and one writer at a time, which is what a muxer is.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from libp2p.abc import IRawConnection, ISecureConn, ISecureTransport
from libp2p.connection_types import ConnectionType
from libp2p.crypto.keys import KeyPair, PrivateKey, PublicKey
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.upgrade.noise import Handshake, Local, Session
from protocols import ProtocolError


class NoiseTransport(ISecureTransport):
    """Secures connections as one identity. `muxers`, best first, are told in the handshake and spare a round trip."""

    def __init__(self, key_pair: KeyPair, muxers: Sequence[str] = (), prologue: bytes = b"") -> None:
        self.peer_id = ID.from_pubkey(key_pair.public_key)
        self.private_key = key_pair.private_key
        self.muxers = tuple(muxers)
        self.prologue = prologue
        # one static key for the transport's life: the signature that proves it is made once
        self.local = Local.of(X25519PrivateKey.generate(), key_pair.private_key, muxers)

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        return await self._secure(conn, initiator=False)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        return await self._secure(conn, initiator=True, wanted=peer_id)

    async def _secure(self, conn: IRawConnection, *, initiator: bool, wanted: ID | None = None) -> SecureConn:
        handshake = Handshake(initiator=initiator, local=self.local, prologue=self.prologue)
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
        assert handshake.session is not None
        return SecureConn(conn, handshake.session, self, initiator=initiator)


class SecureConn(ISecureConn):
    """A secured connection."""

    def __init__(self, raw: IRawConnection, session: Session, transport: NoiseTransport, *, initiator: bool) -> None:
        self.is_initiator = initiator
        self.session = session
        self._raw = raw
        self._transport = transport
        self._remote_peer = ID.from_pubkey(session.remote_key)
        self._unread = b""
        self._at = 0
        # the initiator's order decides, as in the other implementations
        first, second = (transport.muxers, session.muxers) if initiator else (session.muxers, transport.muxers)
        self.early_muxer = next((name for name in first if name in second), None)

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes; without `n` all that has come. b"" at the end. Raises ProtocolError."""
        if self._at == len(self._unread):
            plaintext = b""
            while not plaintext:
                data = await self._raw.read()
                if not data:
                    return b""
                plaintext = self.session.open(data)
            if n is None or n >= len(plaintext):
                return plaintext
            self._unread, self._at = plaintext, 0
        end = len(self._unread) if n is None else min(len(self._unread), self._at + n)
        data = self._unread[self._at : end]
        self._at = end
        return data

    async def write(self, data: bytes) -> None:
        """Seals and sends all of `data`."""
        await self._raw.write(self.session.seal(data))

    async def close(self) -> None:
        await self._raw.close()

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
