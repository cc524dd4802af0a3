"""The pattern and its clients, against servers that do as they should and servers that don't, in memory."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from interop.rawbytes import BYTES, CHUNK, PERIOD, RESET, Pattern, echo_pattern, reset_mine, was_reset
from protocols import Protocol, ProtocolError
from tests.memnet import MemNet

LENGTH = 3 * CHUNK + 5


@given(k=st.integers(0, 2000), length=st.integers(0, LENGTH), offset=st.integers(0, LENGTH), size=st.integers(0, 300))
def test_pattern_is_the_formula(k, length, offset, size):
    expected = bytes((i * 31 + (i >> 8) * 17 + k) & 0xFF for i in range(offset, min(offset + size, length)))
    assert Pattern(k, length).at(offset, size) == expected
    Pattern(k, length).check(offset, expected)


def test_what_differs_is_told():
    pattern = Pattern(1, LENGTH)
    block = bytearray(pattern.at(PERIOD))
    block[70] ^= 1
    with pytest.raises(ProtocolError, match=f"at offset {PERIOD + 70}"):
        pattern.check(PERIOD, bytes(block))
    with pytest.raises(ProtocolError, match="got more"):
        pattern.check(LENGTH, b"\0")


async def test_clients_and_servers(autojump_clock):
    async with MemNet() as net:
        ours, theirs = net.node("10.0.0.1"), net.node("10.0.0.2", [BYTES, RESET])
        await ours.connect(theirs)
        await echo_pattern(ours, theirs.peer_id, LENGTH, streams=3)
        await reset_mine(ours, theirs.peer_id)
        await was_reset(ours, theirs.peer_id)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], f"got {LENGTH - 1} and the end"),
        (lambda data: data + b"\0", "got more"),
        (lambda data: bytes(len(data)), "at offset 1"),
    ],
)
async def test_echo_that_is_wrong(autojump_clock, change, said):
    wrong = Protocol(BYTES.id, max_frame=None)

    @wrong.serve
    async def serve(stream):
        await stream.send(change(b"".join([data async for data in stream])))

    async with MemNet() as net:
        ours, theirs = net.node("10.0.0.1"), net.node("10.0.0.2", [wrong])
        await ours.connect(theirs)
        with pytest.raises(ProtocolError, match=said):
            await echo_pattern(ours, theirs.peer_id, LENGTH)


async def test_echo_without_an_end(autojump_clock):
    silent = Protocol(BYTES.id, max_frame=None)

    @silent.serve
    async def serve(stream):
        await stream.send(await stream.receive_exactly(LENGTH))
        await trio.sleep_forever()

    async with MemNet() as net:
        ours, theirs = net.node("10.0.0.1"), net.node("10.0.0.2", [silent])
        await ours.connect(theirs)
        with pytest.raises(ProtocolError, match=f"expected more, got {LENGTH} of {LENGTH} bytes, then nothing"):
            await echo_pattern(ours, theirs.peer_id, LENGTH)


async def test_end_is_no_reset(autojump_clock):
    polite = Protocol(RESET.id, max_frame=None)

    @polite.serve
    async def serve(stream):
        await stream.receive_exactly(1)

    async with MemNet() as net:
        ours, theirs = net.node("10.0.0.1"), net.node("10.0.0.2", [polite])
        await ours.connect(theirs)
        with pytest.raises(ProtocolError, match="expected a reset"):
            await was_reset(ours, theirs.peer_id)
