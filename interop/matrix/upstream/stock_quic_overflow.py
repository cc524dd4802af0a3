"""py-libp2p 0.8.1 over QUIC: what a stream's reader hasn't taken yet is dropped beyond 2 MiB, with nothing said of it.

Two of its own hosts in one process: one sends 8 MiB, the other waits a second before it reads. QUIC's flow control
would hold the sender back, but py-libp2p takes all from it, and drops what its buffer has no room for; an end that
comes then is dropped too. Status 0: the defect is there, the reader got other bytes than were sent, or never their end.
"""

from __future__ import annotations

import sys

import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

PROTOCOL = TProtocol("/slow-reader/1.0.0")
LISTEN = Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1")
CHUNK = 16 * 1024
CHUNKS = 512
PAUSE = 1.0
TIMEOUT = 20.0


def chunk(number: int) -> bytes:
    """Different from those beside it."""
    return bytes((number % 251,)) * CHUNK


async def main() -> int:
    serving, asking = new_host(enable_quic=True), new_host(enable_quic=True)
    received = bytearray()
    done = trio.Event()

    async def take(stream: INetStream) -> None:
        await trio.sleep(PAUSE)
        try:
            while data := bytes(await stream.read(CHUNK)):
                received.extend(data)
        except StreamEOF:
            pass
        done.set()

    serving.set_stream_handler(PROTOCOL, take)
    wanted = b"".join(map(chunk, range(CHUNKS)))
    async with serving.run([LISTEN]), asking.run([LISTEN]):
        addr = Multiaddr(str(serving.get_addrs()[0]).partition("/p2p/")[0])
        await asking.connect(PeerInfo(serving.get_id(), [addr]))
        stream = await asking.new_stream(serving.get_id(), [PROTOCOL])
        with trio.move_on_after(TIMEOUT):
            for number in range(CHUNKS):
                await stream.write(chunk(number))
            await stream.close_write()  # type: ignore[attr-defined]  # its streams have it, their interface doesn't
            with trio.move_on_after(TIMEOUT / 4):
                await done.wait()
    if received == wanted and done.is_set():
        print("the reader got all bytes as they were, and their end")
        return 1
    same = next(
        (at for at, (one, other) in enumerate(zip(received, wanted, strict=False)) if one != other), len(received)
    )
    print(f"{len(received)} of {len(wanted)} bytes, right up to {same}; {'a proper' if done.is_set() else 'no'} end")
    return 0


if __name__ == "__main__":
    sys.exit(trio.run(main))
