"""Noise's shell: connections that share one transport's buffers, on real sockets and in any split."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from libp2p.network.connection.raw_connection import RawConnection

from node.identity import Identity
from node.tcp_stream import BufferedTcpStream
from node.upgrade.noise import MAX_PLAINTEXT
from node.upgrade.secure import BATCH, SPARE_BUFFERS, NoiseTransport, SecureConn
from protocols import ProtocolError

CONNECTIONS = 5


@dataclass
class Ends:
    """A connection: `here` is on the transport that is tested, `there` on the peers'; the sockets under them."""

    here: SecureConn
    there: SecureConn
    socket: trio.SocketStream
    peer: trio.SocketStream

    def seal(self, *messages: bytes) -> bytes:
        """What the peer would send; the test sends it, in its own pieces."""
        buffer = memoryview(bytearray(sum(len(message) + 18 for message in messages)))
        return bytes(buffer[: self.there.session.seal(messages, buffer)])


@asynccontextmanager
async def connections(count: int = CONNECTIONS) -> AsyncIterator[list[Ends]]:
    """Secured TCP connections between two transports, every other one dialled from the tested side."""
    ours, theirs = (NoiseTransport(Identity.generate().key_pair()) for _ in range(2))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    made: list[Ends] = []
    for number in range(count):
        dialled = await trio.open_tcp_stream("127.0.0.1", port)
        answered = await listener.accept()
        sides = [(ours, dialled), (theirs, answered)] if number % 2 else [(theirs, dialled), (ours, answered)]
        secured: dict[NoiseTransport, SecureConn] = {}

        async def secure(first: bool, secured=secured, sides=sides) -> None:
            transport, stream = sides[not first]
            raw = RawConnection(BufferedTcpStream(stream), first)
            if first:
                secured[transport] = await transport.secure_outbound(raw, sides[1][0].peer_id)  # type: ignore[assignment]
            else:
                secured[transport] = await transport.secure_inbound(raw)  # type: ignore[assignment]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(secure, True)
            nursery.start_soon(secure, False)
        sockets = dict(sides)
        made.append(Ends(secured[ours], secured[theirs], sockets[ours], sockets[theirs]))
    await listener.aclose()
    try:
        yield made
    finally:
        for ends in made:
            await ends.here.close()
            await ends.there.close()


def pieces(data: bytes, rng: random.Random, most: int) -> list[bytes]:
    """The bytes in random pieces of up to `most`."""
    cut = []
    while data:
        size = rng.randint(1, most)
        cut.append(data[:size])
        data = data[size:]
    return cut


# what comes in


@pytest.mark.parametrize("seed", range(6))
async def test_interleaved_pieces_of_many_connections_come_to_each_as_they_were_sent(seed):
    """Each connection's bytes in random pieces, in any order; all are read by tasks of their own."""
    rng = random.Random(seed)
    async with connections() as made, trio.open_nursery() as nursery:
        wanted: list[bytes] = []
        got = [bytearray() for _ in made]
        queue: list[tuple[Ends, bytes]] = []
        left = []
        for number, ends in enumerate(made):
            sizes = [rng.choice([0, 1, 20, 3000, 30_000, MAX_PLAINTEXT]) for _ in range(6)]
            messages = [bytes([65 + number]) * (size // 2) + rng.randbytes(size - size // 2) for size in sizes]
            wanted.append(b"".join(messages))
            left.append((ends, pieces(ends.seal(*messages), rng, rng.choice([300, 5000, 100_000]))[::-1]))
        while left:
            pick = rng.choice(left)
            queue.append((pick[0], pick[1].pop()))
            left = [each for each in left if each[1]]

        async def read(number: int) -> None:
            while len(got[number]) < len(wanted[number]):
                for message in await made[number].here.receive():
                    got[number] += message

        for number in range(len(made)):
            nursery.start_soon(read, number)
        with trio.fail_after(10):
            for ends, piece in queue:
                await ends.peer.send_all(piece)
                if rng.random() < 0.3:
                    await trio.testing.wait_all_tasks_blocked()
    assert [bytes(each) for each in got] == wanted


async def test_two_connections_that_stop_at_every_byte():
    """Each claims the buffer from the other in the middle of a length, a message, or between two."""
    async with connections(2) as made:
        whole = 2 * (2 + 16) + 5
        for cut in range(1, whole):
            wires = [ends.seal(bytes([65 + number]) * 5, b"") for number, ends in enumerate(made)]
            got: list[list[bytes]] = [[], []]

            async def read(number: int, got=got) -> None:
                while len(got[number]) < 2:
                    got[number] += await made[number].here.receive()

            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    for number in range(2):
                        nursery.start_soon(read, number)
                    for start, stop in ((0, cut), (cut, whole)):
                        for ends, wire in zip(made, wires, strict=True):
                            await ends.peer.send_all(wire[start:stop])
                            await trio.testing.wait_all_tasks_blocked(0.0005)
            assert got == [[b"AAAAA", b""], [b"BBBBB", b""]]


async def test_a_cancelled_receive_and_a_closed_neighbour_spoil_no_beginning():
    async with connections(3) as made:
        first, second, third = made
        wire = first.seal(b"first" * 1000)
        await first.peer.send_all(wire[:2000])
        with trio.move_on_after(0.02):
            await first.here.receive()
        await second.peer.send_all(second.seal(b"second")[:-1])
        with trio.move_on_after(0.02):
            await second.here.receive()
        await second.here.close()  # while the buffer is its own
        await third.peer.send_all(third.seal(b"third"))
        assert await third.here.receive() == [b"third"]
        await first.peer.send_all(wire[2000:])
        assert await first.here.receive() == [b"first" * 1000]


async def test_a_message_that_does_not_decrypt_is_its_connections_fault_alone():
    async with connections(2) as made:
        wire = made[0].seal(b"whole")
        await made[0].peer.send_all(wire[:3])
        with trio.move_on_after(0.02):
            await made[0].here.receive()
        await made[1].peer.send_all(b"\x00\x20" + bytes(32))
        with pytest.raises(ProtocolError, match="doesn't decrypt"):
            await made[1].here.receive()
        await made[0].peer.send_all(wire[3:])
        assert await made[0].here.receive() == [b"whole"]


async def test_what_is_left_of_the_handshakes_reads_comes_first():
    """The peer's first messages may come together with the end of its handshake."""
    async with connections(1) as made:
        ends = made[0]
        raw = ends.here._link
        assert isinstance(raw, BufferedTcpStream)
        wire = ends.seal(b"early", b"also early", b"late" * 100)
        raw._unread, raw._at = wire[:40], 0
        await ends.peer.send_all(wire[40:])
        messages: list[bytes] = []
        while len(messages) < 3:
            messages += await ends.here.receive()
        assert messages == [b"early", b"also early", b"late" * 100]


# what goes out


async def fill(conn: SecureConn, text: bytes) -> bytes:
    """Sends until the socket takes no more: all that was sent."""
    sent = b""
    while True:
        sent += text * BATCH
        if not conn.send_nowait([text] * BATCH):
            return sent


async def finish(conn: SecureConn) -> None:
    """Sends the rest."""
    while not await conn.flush():
        pass


async def take(conn: SecureConn, into: bytearray, count: int) -> None:
    while len(into) < count:
        for message in await conn.receive():
            into += message


async def test_a_full_socket_keeps_its_buffer_others_go_on_and_it_is_given_back():
    async with connections() as made:
        spare = made[0].here._transport._sealed
        full, others = made[:3], made[3:]
        sent = [await fill(ends.here, bytes([number]) * 60_000) for number, ends in enumerate(full)]
        buffers = [ends.here._buffer for ends in full]
        assert all(buffer is not None for buffer in buffers)
        assert len({id(buffer) for buffer in buffers}) == len(full), "each has its own"
        assert all(all(one is not each for each in spare) for one in buffers)
        with pytest.raises(AssertionError, match="waits for flush"):
            full[0].here.send_nowait([b"more"])
        with trio.move_on_after(0.02) as waited:
            await full[0].here.flush()
        assert waited.cancelled_caught
        for number in range(100):
            for ends in others:
                text = b"%d" % number * 1000
                assert ends.here.send_nowait([text])
                got = bytearray()
                await take(ends.there, got, len(text))
                assert got == text
        assert all(ends.here._buffer is None for ends in others)

        received = [bytearray() for _ in full]
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for ends, into, text in zip(full, received, sent, strict=True):
                    nursery.start_soon(finish, ends.here)
                    nursery.start_soon(take, ends.there, into, len(text))
        assert received == sent
        assert all(ends.here._buffer is None and not ends.here._unsent for ends in made)
        assert 0 < len(spare) <= SPARE_BUFFERS
        assert len({id(buffer) for buffer in spare}) == len(spare), "none was given back twice"


async def test_full_sockets_that_die_leave_no_buffer_to_two_connections():
    async with connections() as made:
        for ends in made[:3]:
            await fill(ends.here, bytes(60_000))
            await ends.peer.aclose()
        for ends in made[:3]:
            with pytest.raises(OSError):
                await finish(ends.here)
            await ends.here.close()
        spare = made[0].here._transport._sealed
        kept = [ends.here._buffer for ends in made[:3]]
        assert all(all(one is not each for each in spare) for one in kept)
        assert made[3].here.send_nowait([b"unharmed"])
        assert await made[3].there.receive() == [b"unharmed"]


@pytest.mark.parametrize("seed", range(4))
async def test_random_batches_to_slow_and_fast_readers_arrive_whole(seed):
    rng = random.Random(seed)
    async with connections() as made:
        got = [bytearray() for _ in made]
        wanted = [rng.randbytes(1000) * 1200 for _ in made]

        async def send(number: int) -> None:
            left, conn = memoryview(wanted[number]), made[number].here
            while left:
                batch = []
                for _ in range(rng.randint(1, BATCH)):
                    size = rng.choice([1, 100, 20_000, MAX_PLAINTEXT])
                    batch.append(left[:size])
                    left = left[size:]
                done = conn.send_nowait(batch)
                while not done:
                    with trio.move_on_after(rng.random() * 0.001):
                        done = await conn.flush()
                if rng.random() < 0.2:
                    await trio.lowlevel.checkpoint()

        async def receive(number: int) -> None:
            while len(got[number]) < len(wanted[number]):
                await trio.sleep(rng.random() * 0.004 * (number % 2))
                for message in await made[number].there.receive():
                    got[number] += message

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for number in range(len(made)):
                    nursery.start_soon(send, number)
                    nursery.start_soon(receive, number)
        assert [bytes(each) for each in got] == wanted
        assert all(ends.here._buffer is None for ends in made)
