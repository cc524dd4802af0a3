"""The members of the network as the check sees them: nodes and peers of other languages, each by its control.

Who knows whom. Two are connected when a node says so, for itself or as the other end. Where neither end can be asked
for its connections (peers of other languages among themselves), one knows the other if it is in its routing table,
which holds whom it has heard of with an address that was worth keeping.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from interop.peer import Peer, PeerError
from node.api.client import Client
from node.errors import VouchError

CALL_TIMEOUT = 20.0
SOCKET = "control.sock"
# where everybody listens
PORT = 4001


@dataclass
class View:
    """What one member says: whom it is connected with, and whom it knows besides."""

    peer_id: str
    connected: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)


class NodeMember:
    """A vouch node, by the control socket in its folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.socket = folder / SOCKET

    async def call(self, call: str, **params: Any) -> dict[str, Any]:
        """Raises VouchError, NoNodeError if it doesn't run."""

        def ask() -> dict[str, Any]:
            with Client(self.socket, timeout=CALL_TIMEOUT) as client:
                return client.call(call, **params)

        return await trio.to_thread.run_sync(ask)

    async def addr(self) -> str:
        """Where other containers reach it."""
        addrs: list[str] = (await self.call("status"))["addrs"]
        return next(addr for addr in addrs if not addr.startswith(("/ip4/127.", "/ip6/::1/")))

    async def view(self) -> View:
        view = View((await self.call("status"))["peer_id"])
        view.connected = {row["peer"] for row in (await self.call("peers"))["peers"]}
        view.known = {row["peer"] for row in (await self.call("addressbook"))["peers"] if row.get("addrs")}
        return view

    async def rejected(self) -> int:
        """Messages that it has rejected since its start."""
        return int((await self.call("gossip"))["verdicts"].get("reject", 0))


class PeerMember:
    """A peer of another language, driven through its `--control`."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name = name
        self.peer = peer

    async def addr(self) -> str:
        """Where other containers reach it: it may only tell its own loopback."""
        return f"/dns4/{self.name}/tcp/{PORT}/p2p/{self.peer.peer_id}"

    async def view(self) -> View:
        table = await self.peer.call("table")
        return View(self.peer.peer_id, known=set(table["peers"]))

    async def refresh(self) -> None:
        """Fills its routing table now rather than at the next of its regular refreshes."""
        await self.peer.call("bootstrap", check=False)


Member = NodeMember | PeerMember


async def views(members: Iterable[Member]) -> dict[str, View | str]:
    """What each says, by name; for one that doesn't answer, why."""
    answers: dict[str, View | str] = {}

    async def ask(member: Member) -> None:
        try:
            answers[member.name] = await member.view()
        except (VouchError, PeerError, OSError) as error:
            answers[member.name] = str(error)

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(partial(ask, member))
    return answers


def unknown(answers: dict[str, View | str], peers: set[str], *, book: bool) -> list[str]:
    """What is missing before every member knows every other, as sentences.

    `peers`: the names of those that aren't nodes. `book`: among nodes an entry in the address book will do; else they
    must be connected.
    """
    missing = [f"{name} doesn't answer: {why}" for name, why in answers.items() if isinstance(why, str)]
    there = {name: view for name, view in answers.items() if isinstance(view, View)}
    for name, view in there.items():
        for other, its in there.items():
            if other == name:
                continue
            connected = its.peer_id in view.connected
            if name in peers:
                # it can't say whom it is connected with; the node at the other end can
                connected = view.peer_id in its.connected
            knows = connected or (other in peers and name in peers and its.peer_id in view.known)
            if not knows and book:
                knows = its.peer_id in view.known
            if not knows:
                missing.append(f"{name} doesn't know {other}")
    return missing
