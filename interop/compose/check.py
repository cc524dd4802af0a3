"""Whether the network of docker-compose.yml is one: `python -m interop.compose.check`, in a container beside it.

    known      every member knows every other. Up to CONNECTED_UP_TO members, connected (a node's pool looks for twice
               as many); above, nodes may only have each other in their address book
    gossip     a message that is published at the first of --peers has reached all others: nodes have accepted it,
               peers have delivered it
    rejected   one that every validator rejects has been rejected by every node, and delivered by none. A Go peer of
               the check's own publishes it: who publishes such messages is soon heard by nobody, so each run needs a
               new one. Peers of other languages are told to reject meanwhile; nodes have docker/verdict

Members are the nodes of --nodes, any other node that answers in --state, and --peers (NAME:PORT of a `--control`).
Exit status 0: all of it holds. 1: something didn't within --within seconds; standard error says what. 2: bad arguments.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import trio

from interop.compose.members import SOCKET, Member, NodeMember, PeerMember, unknown, views
from interop.peer import Peer, PeerError
from node.api.client import Client, NoNodeError
from node.errors import VouchError
from node.tasks import TaskStatus

STEPS = ("known", "gossip", "rejected")
CONNECTED_UP_TO = 20
POLL = 0.5
# a message that hasn't reached all by then is followed by another: gossip promises it only while the mesh is whole
RESEND = 4.0
# for a rejected message to turn up where it mustn't, after all nodes have judged it
QUIET = 2.0


class CheckError(Exception):
    """What didn't hold."""


class Check:
    """One run. `within`: seconds for each step."""

    def __init__(self, nodes: list[NodeMember], peers: list[PeerMember], topic: str, network_id: str) -> None:
        self.nodes = nodes
        self.peers = peers
        self.topic = topic
        self.network_id = network_id
        self._heard: dict[bytes, set[str]] = defaultdict(set)  # names, by SHA-256 of the payload

    @property
    def members(self) -> list[Member]:
        return [*self.nodes, *self.peers]

    async def known(self, within: float) -> str:
        """Every member knows every other."""
        book = len(self.members) > CONNECTED_UP_TO
        missing = ["nobody answered in time"]
        with trio.move_on_after(within):
            while True:
                missing = unknown(await views(self.members), {peer.name for peer in self.peers}, book=book)
                if not missing:
                    how = "connected or in the address book" if book else "connected"
                    return f"{len(self.members)} members, each knows the other {len(self.members) - 1} ({how})"
                async with trio.open_nursery() as nursery:
                    for peer in self.peers:
                        nursery.start_soon(peer.refresh)
                    await trio.sleep(POLL)
        raise CheckError("; ".join(missing))

    async def gossip(self, within: float) -> str:
        """A message of the first peer's reaches all others."""
        publisher = self.peers[0]
        everybody = {member.name for member in self.members} - {publisher.name}
        started = time.monotonic()
        best: set[str] = set()
        sent: list[bytes] = []
        async with self._listening("accept"):
            deadline = trio.current_time() + within
            resend = 0.0
            while trio.current_time() < deadline:
                if trio.current_time() >= resend:
                    resend = trio.current_time() + RESEND
                    sent.append(f"good {time.time_ns()}".encode())
                    await self._publish(publisher.peer, sent[-1])
                # an earlier one may still arrive, when meshes are whole again
                best = max((self._who(payload) for payload in sent), key=len)
                if best >= everybody:
                    took = time.monotonic() - started
                    return f"a message of {publisher.name}'s reached all {len(best)} others ({took:.1f} s)"
                await trio.sleep(0.05)
        missing = ", ".join(sorted(everybody - best))
        raise CheckError(f"no message of {publisher.name}'s reached all others: {missing} had none that the rest had")

    async def rejected(self, within: float) -> str:
        """A message that validators reject reaches nobody."""
        payload = f"bad {time.time_ns()}".encode()
        flags = ("--network-id", self.network_id, "--pubsub", "unsigned", "--flood-publish", "on")
        async with self._listening("reject"), Peer.go(*flags, "--listen", "/ip4/0.0.0.0/tcp/0") as liar:
            before = {node.name: await node.rejected() for node in self.nodes}
            await liar.call("subscribe", self.topic)
            for member in self.members:
                await liar.call("connect", await member.addr())
            left = set(before)
            with trio.move_on_after(within):
                # until it knows who listens, it publishes to nobody; the same bytes aren't published twice
                await self._somebody(liar)
                await self._publish(liar, payload)
                while left:
                    left = {n.name for n in self.nodes if n.name in left and await n.rejected() <= before[n.name]}
                    await trio.sleep(POLL if left else QUIET)
            if left:
                raise CheckError(f"nobody published what {', '.join(sorted(left))} should have rejected")
        reached = self._who(payload)
        if reached:
            raise CheckError(f"the message that is to be rejected reached {', '.join(sorted(reached))}")
        return f"a message that is rejected was so by {len(before)} nodes, and reached none of {len(self.members)}"

    async def _somebody(self, peer: Peer) -> None:
        """Waits until that peer knows who listens, and a little for the rest of them."""
        while True:
            await trio.sleep(POLL)
            if (await peer.call("mesh", self.topic))["peers"]:
                await trio.sleep(POLL)
                return

    def _who(self, payload: bytes) -> set[str]:
        """Whom that payload has reached. Peers know its hash as part of a message, so both are looked for."""
        return set(self._heard[hashlib.sha256(payload).digest()])

    async def _publish(self, peer: Peer, payload: bytes) -> None:
        """Publishes at a peer of another language, signed as the network's messages are."""
        text = base64.b64encode(payload).decode()
        signed = (await peer.call("compose", "ed25519", self.topic, text))["data"]
        self._aliases[hashlib.sha256(base64.b64decode(signed)).hexdigest()] = hashlib.sha256(payload).digest()
        await peer.call("publish-bytes", self.topic, signed)

    @asynccontextmanager
    async def _listening(self, verdict: str) -> AsyncIterator[None]:
        """Hears what is delivered everywhere, with that verdict at the peers, which afterwards accept again."""
        self._heard.clear()
        self._aliases: dict[str, bytes] = {}
        clients = [Client(node.socket) for node in self.nodes]
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            try:
                for node, client in zip(self.nodes, clients, strict=True):
                    await nursery.start(self._hear_node, node, client)
                for member in self.peers:
                    await member.peer.call("subscribe", self.topic, check=False)  # it may be since an earlier step
                    await member.peer.call("validate", self.topic, verdict)
                    nursery.start_soon(self._hear_peer, member)
                yield
            except Exception as error:  # the block's own: raised as it is, not in a group
                failure = error
            finally:
                for client in clients:
                    client.shut()
                with trio.CancelScope(shield=True), suppress(PeerError):
                    for member in self.peers:
                        await member.peer.call("validate", self.topic, "accept", check=False, timeout=5)
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _hear_node(
        self, node: NodeMember, client: Client, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED
    ) -> None:
        def hear() -> None:
            try:
                with closing(client.stream("subscribe", topic=self.topic)) as items:
                    for item in items:
                        if item["event"] == "subscribed":
                            trio.from_thread.run_sync(task_status.started)
                        elif item["event"] == "message":
                            payload = base64.b64decode(item["payload"])
                            trio.from_thread.run_sync(self._heard[hashlib.sha256(payload).digest()].add, node.name)
            except VouchError:
                pass  # shut, or it stopped: then it hears nothing, which the check tells

        with client:
            await trio.to_thread.run_sync(hear, limiter=trio.CapacityLimiter(1))

    async def _hear_peer(self, member: PeerMember) -> None:
        while True:
            event = await member.peer.event("gossip", topic=self.topic, timeout=3600)
            # its own publishing may be told after the message has come back
            self._heard[self._aliases.get(event["sha256"], b"")].add(member.name)


async def run(args: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        state = Path(args.state)
        peers: list[PeerMember] = []
        for name, address in args.peers:
            peer = await stack.enter_async_context(Peer.program("interop.compose.line", address))
            peers.append(PeerMember(name, peer))
        nodes = [NodeMember(name, state / name) for name in _names(state, args.nodes)]
        check = Check(nodes, peers, args.topic, args.network_id)
        for step in args.only or STEPS:
            try:
                print(f"{step}: {await getattr(check, step)(args.within)}", flush=True)
            except (CheckError, VouchError, PeerError) as error:
                print(f"{step}: FAILED within {args.within:g} s: {error}", file=sys.stderr, flush=True)
                return 1
    return 0


def _names(state: Path, named: list[str]) -> list[str]:
    """Those that were named, and whoever else answers: other folders were left by containers that are gone."""
    found = sorted(path.parent.name for path in state.glob(f"*/{SOCKET}") if path.parent.name not in named)
    names = list(named)
    for name in found:
        with suppress(NoNodeError):
            Client(state / name / SOCKET).close()
            names.append(name)
    return names


def _peer(text: str) -> tuple[str, str]:
    name, _, port = text.rpartition(":")
    if not name or not port.isdigit():
        raise argparse.ArgumentTypeError(f"expected NAME:PORT, got {text!r}")
    return name, text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="interop.compose.check", description="Is the network one?", allow_abbrev=False
    )
    parser.add_argument("--state", required=True, metavar="FOLDER", help="where each node has its data directory")
    parser.add_argument("--network-id", required=True, metavar="ID")
    parser.add_argument("--topic", required=True, metavar="NAME", help="what the nodes decide on by docker/verdict")
    parser.add_argument("--nodes", required=True, type=lambda text: text.split(","), metavar="NAME,…")
    parser.add_argument(
        "--peers", required=True, type=lambda text: [_peer(one) for one in text.split(",")], metavar="NAME:PORT,…"
    )
    parser.add_argument("--only", action="append", choices=STEPS, help="repeatable; all of them without it")
    parser.add_argument("--within", type=float, default=60.0, metavar="SECONDS", help="for each step")
    return trio.run(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
