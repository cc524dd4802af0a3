"""Raw connection → secured → multiplexed, each chosen by our multistream or, the muxer, within the security handshake.

Nothing weaker is offered: no plaintext, no secio. The deadline over the whole upgrade is the caller's, and so is
closing the connection when it fails; whatever a stranger sends ends in an exception here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from libp2p.abc import IMuxedConn, IRawConnection, ISecureConn, ISecureTransport
from libp2p.peer.id import ID
from libp2p.transport.upgrader import TransportUpgrader

from node.upgrade import multistream
from protocols import ProtocolError

Muxer = Callable[[ISecureConn, ID], IMuxedConn]


class Upgrader(TransportUpgrader):
    """Stands where py-libp2p's `TransportUpgrader` would."""

    def __init__(self, security: Mapping[str, ISecureTransport], muxers: Mapping[str, Muxer]) -> None:
        super().__init__({}, {})
        self._security = dict(security)
        self._muxers = dict(muxers)

    async def upgrade_security(
        self, raw_conn: IRawConnection, is_initiator: bool, peer_id: ID | None = None
    ) -> ISecureConn:
        """Secures the connection; as initiator with `peer_id`, and with nobody else."""
        protocol = await _agree(raw_conn, list(self._security), is_initiator)
        transport = self._security[protocol]
        if not is_initiator:
            secured = await transport.secure_inbound(raw_conn)
        elif peer_id is None:
            raise ValueError("an initiator names the peer that it wants")
        else:
            secured = await transport.secure_outbound(raw_conn, peer_id)
            if secured.get_remote_peer() != peer_id:
                raise ProtocolError(f"expected peer {peer_id}, got {secured.get_remote_peer()}")
        secured.negotiated_security_protocol = protocol  # type: ignore[attr-defined]
        return secured

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Puts a muxer on the secured connection; it isn't started yet."""
        protocol: Any = getattr(conn, "early_muxer", None)  # agreed on in the security handshake already
        if protocol not in self._muxers:
            protocol = await _agree(conn, list(self._muxers), conn.is_initiator)
        muxed = self._muxers[protocol](conn, peer_id)
        muxed.negotiated_muxer_protocol = protocol  # type: ignore[attr-defined]
        return muxed


async def _agree(conn: multistream.ReadWriter, offered: list[str], is_initiator: bool) -> str:
    if is_initiator:
        return await multistream.select(conn, offered)

    async def accept(proposal: str) -> bool:
        return proposal in offered

    return await multistream.respond(conn, accept)
