"""py-libp2p 0.8.1 on Yamux: a stream that the peer resets reads as if it had ended properly (StreamEOF).

Two of its own hosts in one process. Status 0: the defect is there.
"""

from __future__ import annotations

import sys

import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

PROTOCOL = TProtocol("/reset-me/1.0.0")
LISTEN = Multiaddr("/ip4/127.0.0.1/tcp/0")


async def reset(stream: INetStream) -> None:
    """Takes a byte and resets the stream."""
    await stream.read(1)
    await stream.reset()


async def main() -> int:
    serving, asking = new_host(muxer_preference="YAMUX"), new_host(muxer_preference="YAMUX")
    serving.set_stream_handler(PROTOCOL, reset)
    async with serving.run([LISTEN]), asking.run([LISTEN]):
        addr = Multiaddr(str(serving.get_addrs()[0]).partition("/p2p/")[0])
        await asking.connect(PeerInfo(serving.get_id(), [addr]))
        stream = await asking.new_stream(serving.get_id(), [PROTOCOL])
        await stream.write(b"x")
        with trio.fail_after(10):
            try:
                data = await stream.read(1)
            except StreamEOF:
                print("the stream was reset, and read as ended properly")
                return 0
            except StreamReset:
                print("the stream was reset, and read so: no defect")
                return 1
        print(f"expected a reset, got {data!r}")
        return 0 if data == b"" else 1


if __name__ == "__main__":
    sys.exit(trio.run(main))
