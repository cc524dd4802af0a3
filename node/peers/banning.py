"""Bans, carried out: kept in the address book, enforced on the connections that there are, told to whoever listens.

What comes later is refused by the swarm, before a handshake is spent on it: `Banning.reason` is what it asks.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from libp2p.peer.id import ID

from node.errors import UsageError, VouchError
from node.events import Banned, Unbanned
from node.log import get_logger
from node.names import parse_peer_id
from node.peers.addressbook import AddressBook
from node.peers.bans import parse_target
from node.peers.choice import host
from node.swarm import Swarm

log = get_logger("peers")


class Banning:
    """`spared`: peers that aren't banned for faults, whatever they do."""

    def __init__(self, swarm: Swarm, book: AddressBook, *, spared: Callable[[str], bool]) -> None:
        self._swarm, self._book = swarm, book
        self._spared = spared

    async def ban(self, target: str, reason: str, *, seconds: float | None) -> None:
        """See `Peers.ban`."""
        target = parse_target(target)
        if target.isalnum():  # no address, which has dots or colons
            parse_peer_id(target)
        if seconds is not None and not seconds > 0:
            raise UsageError(f"expected a ban of more than 0 seconds, got {seconds:g}")
        if target == str(self._swarm.self_id):
            raise UsageError(f"{target}: that is this node itself")
        try:
            await self._book.ban(target, reason, seconds=seconds)
        finally:
            await self._enforce()
        self._swarm.events.emit(Banned(target, reason, seconds))

    async def unban(self, target: str) -> bool:
        """See `Peers.unban`."""
        target = parse_target(target)
        known = await self._book.unban(target)
        if known:
            self._swarm.events.emit(Unbanned(target))
        return known

    async def for_faults(self, peer: str, reason: str, seconds: float) -> None:
        """Bans a connected peer that broke rules too often."""
        if self._swarm.connection(ID.from_base58(peer)) is None or self._spared(peer):
            return
        try:
            await self.ban(peer, f"broke rules too often, at last: {reason}", seconds=seconds)
        except VouchError as error:
            log.warning("not_banned", peer=peer, error=str(error))

    def reason(self, peer: str | None, ip: str | None) -> str | None:
        """Why a peer or an IP address is banned, if it is."""
        ban = self._book.ban_of(peer=peer, ip=ip)
        return None if ban is None else f"{ban.target} is banned: {ban.reason}"

    async def _enforce(self) -> None:
        """Closes every connection, admitted or not, to whom is banned."""
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.running():
                if self.reason(connection.peer, host(str(connection.addr))) is not None:
                    nursery.start_soon(connection.close, "banned")
