"""Many peers against one listener, in one process: `python -m interop.bench.crowd`.

It speaks lines as the other peers do (`interop/process.py`):

    join ADDR COUNT WIDTH   connects COUNT times, WIDTH at a time, each time as a peer of its own:
                            {"connected", "identified", "seconds"}; not ok, naming the first fault, if any didn't join
    leave                   closes what is still connected: {"left", "lost"}; lost are those that the listener closed

A member is a connection and no more: TCP, Noise and Yamux are the node's own parts, there is no node around them. It
shakes hands if the listener does, asks it for identify once, and answers identify and ping; nothing else.

    dialled -> upgraded -> admitted -> identify asked and answered: joined -> leave, or lost

The listener has read a member's identify when it closes that stream, which is waited for; a listener that doesn't ask
within IDENTIFY_TIMEOUT has an unidentified member. `seconds` is wall time from the first dial until the last member has
joined; identities are made before.

The listener's limits are the caller's. One of ours takes COUNT members, all from one address, with `max_connections`,
`max_inbound` and `max_connections_per_ip` at COUNT or more, `max_half_open` and `max_half_open_per_ip` at WIDTH or
more, and the system's limit of open files above COUNT. The crowd is of the network NETWORK_ID, or of the one that
`--network-id` names.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import resource
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio
from libp2p.crypto.keys import KeyPair
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from interop.peer import Message
from node.config import Config
from node.errors import VouchError
from node.host import make_upgrader
from node.identify import IDENTIFY_ID, MAX_MESSAGE, PROTOCOL_VERSION
from node.identity import Identity
from node.names import parse_peer_addr
from node.transport import Tcp
from node.upgrade.multistream import NotAvailableError, respond, select
from protocols.framing import FrameDecoder, encode_frame
from protocols.handshake.engine import Handshake, Role, Rules
from protocols.handshake.wire import MAX_FRAME, PROTOCOL_ID, Hello
from protocols.ping import PING, SIZE

CONFIG = Config()
NETWORK_ID = CONFIG.network_id
CLIENT_VERSION = "vouch-crowd/0.1.0"
# seconds for one member to be dialled and admitted, and for the listener to have read its identify after that
JOIN_TIMEOUT = 30.0
IDENTIFY_TIMEOUT = 10.0
LEAVE_TIMEOUT = 10.0
# files that are open beside the members' sockets
SPARE_FILES = 64

Muxed = Any  # py-libp2p's muxers and their streams, whose types say nothing of what ours add


class Member:
    """One peer: its identity, made here and not while the clock runs, and its one connection."""

    def __init__(self, identity: Identity, addr: Multiaddr, listener: ID, hello: Hello) -> None:
        keys = identity.key_pair()
        self.failure = ""
        self.identified = False
        self.joined = trio.Event()
        self.ended = trio.Event()
        self._addr = addr
        self._listener = listener
        self._hello = hello
        self._upgrader = make_upgrader(CONFIG, keys)
        self._identify = encode_frame(_identify(keys, addr), MAX_MESSAGE)
        self._asked = trio.Event()
        self._muxed: Muxed = None

    async def run(self) -> None:
        """Its whole life; lets no exception out. `joined` is set in the end, with `failure` saying why it isn't so."""
        raw: Any = None
        try:
            with trio.fail_after(JOIN_TIMEOUT):
                raw = await Tcp().dial(self._addr)
                secured = await self._upgrader.upgrade_security(raw, True, self._listener)
                self._muxed = await self._upgrader.upgrade_connection(secured, self._listener)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_muxer, nursery.cancel_scope)
                nursery.start_soon(self._answer_streams, nursery)
                await self._join()
                self.joined.set()
        except Exception as error:  # whatever went wrong, wherever: it is told to who runs the crowd
            self._fail(error)
        finally:
            if raw is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await raw.close()
            if not self.joined.is_set():
                self.failure = self.failure or "the listener closed the connection"
            self.joined.set()
            self.ended.set()

    async def leave(self) -> None:
        """Closes its connection and waits for its end."""
        if self._muxed is not None:
            await self._muxed.close()
        await self.ended.wait()

    def _fail(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not self.joined.is_set():
            self.failure = f"{type(error).__name__}: {error}"

    async def _run_muxer(self, scope: trio.CancelScope) -> None:
        await self._muxed.start()
        scope.cancel()

    async def _join(self) -> None:
        with trio.fail_after(JOIN_TIMEOUT):
            await self._muxed.event_started.wait()
            await self._shake_hands()
            self._muxed.admitted()
            await self._ask_identify()
        with trio.move_on_after(IDENTIFY_TIMEOUT):
            await self._asked.wait()
            self.identified = True

    async def _shake_hands(self) -> None:
        stream = await self._muxed.open_stream()
        handshake = Handshake(Role.INITIATOR, Rules(self._hello))
        try:
            await select(stream, [PROTOCOL_ID])
        except NotAvailableError:
            await stream.reset()
            return
        await stream.write(handshake.hello())
        while handshake.receive(await _read(stream, MAX_FRAME)) is None:
            pass
        await stream.close()

    async def _ask_identify(self) -> None:
        stream = await self._muxed.open_stream()
        await select(stream, [IDENTIFY_ID])
        decoder = FrameDecoder(MAX_MESSAGE)
        frames: list[bytes] = []
        while not frames:
            data = await _read(stream, MAX_MESSAGE)
            if not data:
                raise VouchError("expected an Identify message from the listener, got the end")
            frames = decoder.feed(data)
        Identify().ParseFromString(frames[0])
        await stream.close()

    async def _answer_streams(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await self._muxed.accept_stream()
            except Exception:  # the connection's end, which _run_muxer is about to say
                return
            nursery.start_soon(self._answer, stream)

    async def _answer(self, stream: Muxed) -> None:
        try:
            if await respond(stream, _answers) == PING.id:
                await _echo(stream)
            else:
                await stream.write(self._identify)
                await stream.close_write()
                while await _read(stream, 1):
                    pass
                self._asked.set()
            await stream.close()
        except Exception:  # however a stream breaks, that is no fault of the crowd's; the listener may try again
            await stream.reset()


async def _answers(proposal: str) -> bool:
    return proposal in (IDENTIFY_ID, PING.id)


async def _echo(stream: Muxed) -> None:
    while data := await _read(stream, SIZE):
        await stream.write(data)


async def _read(stream: Muxed, count: int) -> bytes:
    """Some bytes, b"" at the end."""
    try:
        data: bytes = await stream.read(count)
    except EOFError:
        return b""
    return data


def _identify(keys: KeyPair, observed: Multiaddr) -> bytes:
    """A member's Identify message. It listens nowhere, and signs a record that says so."""
    record = PeerRecord(ID.from_pubkey(keys.public_key), [])
    message: bytes = Identify(
        protocol_version=PROTOCOL_VERSION,
        agent_version=CLIENT_VERSION,
        public_key=keys.public_key.serialize(),
        protocols=[IDENTIFY_ID, PING.id, PROTOCOL_ID],
        observed_addr=observed.to_bytes(),
        signedPeerRecord=seal_record(record, keys.private_key).marshal_envelope(),
    ).SerializeToString()
    return message


class Crowd:
    """The members that are connected, and the commands."""

    def __init__(self, network_id: str, nursery: trio.Nursery) -> None:
        self._hello = Hello(CLIENT_VERSION, network_id.encode())
        self._nursery = nursery
        self._members: list[Member] = []

    async def join(self, addr: str, count: str, width: str) -> Message:
        """The command `join`."""
        listener, _ = parse_peer_addr(addr)
        _allow_files(len(self._members) + int(count))
        bare = Multiaddr(addr.partition("/p2p/")[0])
        waiting: deque[Member] = deque()
        for _ in range(int(count)):
            waiting.append(Member(Identity.generate(), bare, listener, self._hello))
            await trio.lowlevel.checkpoint()
        members = list(waiting)
        gc.collect()
        gc.freeze()  # what is there now stays: the collector needn't look at it again

        async def lane() -> None:
            while waiting:
                member = waiting.popleft()
                self._nursery.start_soon(member.run)
                await member.joined.wait()

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(int(width)):
                nursery.start_soon(lane)
        seconds = trio.current_time() - started
        joined = [member for member in members if not member.failure]
        self._members += joined
        reply: Message = {
            "connected": len(joined),
            "identified": sum(member.identified for member in joined),
            "seconds": seconds,
        }
        if len(joined) < len(members):
            failure = next(member.failure for member in members if member.failure)
            reply |= {"ok": False, "error": f"{len(joined)} of {len(members)} joined; the first that didn't: {failure}"}
        return reply

    async def leave(self) -> Message:
        """The command `leave`."""
        going, self._members = self._members, []
        connected = [member for member in going if not member.ended.is_set()]
        with trio.move_on_after(LEAVE_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for member in connected:
                    nursery.start_soon(member.leave)
        return {"left": len(connected), "lost": len(going) - len(connected)}


def _allow_files(count: int) -> None:
    """Raises the process's limit of open files as far as is needed. Raises VouchError if the system has less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise VouchError(f"expected to open {wanted} files, and the system's limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


async def _lines() -> AsyncIterator[str]:
    buffer = b""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        async for data in stdin:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield line.decode()


async def main(network_id: str) -> None:
    """Serves commands until the end of the input."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(network_id, nursery)
        commands: dict[str, Callable[..., Awaitable[Message]]] = {"join": crowd.join, "leave": crowd.leave}
        say(event="listening", peer="", addrs=[], pid=os.getpid())
        async for line in _lines():
            name, *arguments = line.split()
            try:
                say(**({"reply": name, "ok": True} | await commands[name](*arguments)))
            except Exception as error:  # the caller decides what a failure means
                say(reply=name, ok=False, error=repr(error))
        await crowd.leave()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="interop.bench.crowd", description="Many peers against one listener.")
    parser.add_argument("--network-id", default=NETWORK_ID, help="whose members they are (default: %(default)s)")
    # what py-libp2p says of connections that end is not of interest, and writing it takes time
    logging.disable(logging.CRITICAL)
    trio.run(main, parser.parse_args().network_id)
