"""What the swarm asks of any transport and its connections, whatever they are, and what their errors say."""

from __future__ import annotations

import typing
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IRawConnection, ITransport
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.log import get_logger

CLOSE_TIMEOUT = 1.0

log = get_logger("swarm")


@typing.runtime_checkable
class Unopened(typing.Protocol):
    """A connection with something to do once it has its place: QUIC secures itself, WebSocket begins as HTTP."""

    async def handshake(self) -> None:
        """Does it. Raises ProtocolError."""


@typing.runtime_checkable
class DialsPeers(typing.Protocol):
    """A transport whose connections are secured when they are made."""

    async def dial_peer(self, maddr: Multiaddr, peer: ID) -> IMuxedConn:
        """A connection with that peer, and with nobody else."""


async def dial(transport: ITransport, addr: Multiaddr, peer_id: ID) -> IRawConnection | IMuxedConn:
    """What that transport makes of the address. Raises whatever it raises."""
    if isinstance(transport, DialsPeers):
        return await transport.dial_peer(addr, peer_id)
    return await transport.dial(addr)


def remote_addr(muxed: IMuxedConn, listener: Multiaddr) -> Multiaddr:
    """The remote address of an inbound connection."""
    addresses = muxed.get_transport_addresses()
    return addresses[0] if addresses else listener


def innermost(error: BaseException) -> str:
    """What really went wrong, under py-libp2p's wrapping and trio's."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


async def close_quietly(closable: Any) -> None:
    """Closes it, within `CLOSE_TIMEOUT`, whatever state it is in."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
        try:
            await closable.close()
        except Exception as error:  # closing what is broken may fail in any way, and then it is closed
            log.debug("close_failed", error=repr(error))
