"""multistream-select: the line decoder by any bytes, the two sides against each other and against worse peers."""

from __future__ import annotations

import contextlib

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p.io.trio import TrioTCPStream

from node.upgrade.multistream import (
    HEADER,
    MAX_LINE,
    MAX_PROPOSALS,
    LineDecoder,
    NegotiationError,
    NotAvailableError,
    encode_line,
    read_line,
    respond,
    select,
)
from protocols import ProtocolError
from protocols.framing import encode_uvarint
from tests.memnet import MemNet, PipeEnd

LATENCY = 0.02


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(latency=LATENCY) as net:
        yield net


def pair(net: MemNet) -> tuple[TrioTCPStream, TrioTCPStream]:
    a, b = net.pipe("10.0.0.1", "10.0.0.2")
    return TrioTCPStream(a), TrioTCPStream(b)


def against_bytes(net: MemNet) -> tuple[PipeEnd, TrioTCPStream]:
    a, b = net.pipe("10.0.0.1", "10.0.0.2")
    return a, TrioTCPStream(b)


def supports(*protocols: str):
    async def accept(proposal: str) -> bool:
        return proposal in protocols

    return accept


def lines(*texts: str) -> bytes:
    return b"".join(map(encode_line, texts))


async def received(end: PipeEnd, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await end.receive_some(count - len(data))
    return data


def decode(data: bytes, sizes: list[int]) -> tuple[str | None, int, int]:
    """The line, how many bytes it took, and the most that was ever asked for; `sizes` cuts what is handed over."""
    decoder, position, most = LineDecoder(), 0, 0
    while position < len(data):
        most = max(most, decoder.wanted)
        size = sizes.pop() if sizes else len(data)
        chunk = data[position : position + max(1, min(size, decoder.wanted))]
        position += len(chunk)
        line = decoder.feed(chunk)
        if line is not None:
            return line, position, most
    return None, position, most


# lines


def test_lines_are_the_specs():
    assert encode_line(HEADER) == b"\x13/multistream/1.0.0\n"
    assert encode_line("na") == b"\x03na\n"
    assert encode_line("") == b"\x01\n"


def test_the_bound_of_a_line_is_exact():
    assert decode(encode_line("x" * (MAX_LINE - 1)), [])[0] == "x" * (MAX_LINE - 1)
    with pytest.raises(ValueError, match="at most 1024 bytes, not 1025"):
        encode_line("x" * MAX_LINE)


@pytest.mark.parametrize("length", [0, MAX_LINE + 1, 2**29, 2**62])
def test_a_length_out_of_bounds_is_refused_before_the_payload(length):
    with pytest.raises(NegotiationError, match=f"1 to 1024 bytes, got one of {length}"):
        decode(encode_uvarint(length), [])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x03na ", "end in a newline"),
        (b"\x01x", "end in a newline"),
        (b"\x03\xff\xfe\n", "UTF-8"),
        (b"\x83\x00na\n", "shortest form"),
        (b"\xff" * 10, "at most 9 bytes"),
    ],
)
def test_what_is_no_line_is_the_peers_fault(data, text):
    with pytest.raises(ProtocolError, match=text):
        decode(data, [])


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.binary(), st.lists(st.integers(1, 300)))
def test_a_line_round_trips_in_any_split_and_nothing_past_it_is_read(text, behind, sizes):
    line = encode_line(text)
    assert decode(line + behind, sizes)[:2] == (text, len(line))


@given(st.binary(), st.lists(st.integers(1, 300)))
def test_any_bytes_are_a_line_or_a_protocol_error_and_the_split_does_not_change_which(data, sizes):
    def outcome(sizes):
        try:
            return decode(data, sizes)[:2]
        except ProtocolError as error:
            return str(error)

    assert outcome(list(sizes)) == outcome([]) == outcome([1] * len(data))


@given(st.binary(max_size=2000))
def test_a_decoder_never_asks_for_more_than_a_line(data):
    with contextlib.suppress(ProtocolError):
        assert decode(data, [])[2] <= MAX_LINE


# the two sides


async def agree(net: MemNet, offered: list[str], known: list[str]) -> tuple[object, object]:
    ours, theirs = pair(net)
    results: dict[str, object] = {}

    async def note(name, negotiation, stream):
        try:
            results[name] = await negotiation
        except NegotiationError as error:
            results[name] = error
            await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "select", select(ours, offered), ours)
        nursery.start_soon(note, "respond", respond(theirs, supports(*known)), theirs)
    return results["select"], results["respond"]


async def test_the_first_common_protocol_of_the_initiators_order_is_agreed_on(net, autojump_clock):
    assert await agree(net, ["/a", "/b", "/c"], ["/c", "/b"]) == ("/b", "/b")


async def test_the_first_proposal_takes_one_round_trip_and_each_other_one_more(net, autojump_clock):
    for offered, trips in ((["/a"], 1), (["/x", "/y", "/a"], 3)):
        started = trio.current_time()
        ours, theirs = pair(net)
        net.nursery.start_soon(respond, theirs, supports("/a"))
        assert await select(ours, offered) == "/a"
        assert trio.current_time() - started == pytest.approx(trips * 2 * LATENCY)


async def test_nothing_in_common_is_not_available(net, autojump_clock):
    selected, responded = await agree(net, ["/a", "/b"], ["/c"])
    assert isinstance(selected, NotAvailableError)
    assert "/a, /b" in str(selected)
    assert "ended the negotiation" in str(responded)


async def test_what_follows_the_negotiation_is_left_in_the_stream(net, autojump_clock):
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, "/a") + b"the protocol's own")
    assert await respond(stream, supports("/a")) == "/a"
    assert await stream.read(100) == b"the protocol's own"
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, "/a") + b"the answer")
    assert await select(stream, ["/a"]) == "/a"
    assert await stream.read(100) == b"the answer"


async def test_a_header_that_comes_byte_by_byte_is_a_header(net, autojump_clock):
    raw, stream = against_bytes(net)

    async def trickle():
        for byte in lines(HEADER, "/a"):
            await raw.send_all(bytes([byte]))
            await trio.sleep(0.1)

    net.nursery.start_soon(trickle)
    assert await respond(stream, supports("/a")) == "/a"


async def test_another_header_is_refused_by_both(net, autojump_clock):
    for other in ("/multistream/2.0.0", "/multistream/1.0.0 ", "na"):
        for negotiate in (lambda s: select(s, ["/a"]), lambda s: respond(s, supports("/a"))):
            raw, stream = against_bytes(net)
            await raw.send_all(lines(other, "/a"))
            with pytest.raises(NegotiationError, match=r"expected '/multistream/1.0.0', got"):
                await negotiate(stream)


async def test_an_answer_that_is_neither_the_proposal_nor_na_is_refused(net, autojump_clock):
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, "/b"))
    with pytest.raises(NegotiationError, match="expected /a or 'na', got '/b'") as caught:
        await select(stream, ["/a", "/b"])
    assert not isinstance(caught.value, NotAvailableError)


async def test_an_end_in_the_middle_is_the_negotiations_end(net, autojump_clock):
    whole = lines(HEADER, "/a")
    for length in range(len(whole)):
        raw, stream = against_bytes(net)
        await raw.send_all(whole[:length])
        await raw.send_eof()
        with pytest.raises(NegotiationError, match="ended the negotiation"):
            await respond(stream, supports("/a"))


async def test_proposals_are_bounded_and_the_last_one_still_counts(net, autojump_clock):
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, *(["/x"] * MAX_PROPOSALS), "/a"))
    with pytest.raises(NegotiationError, match="within 32 proposals"):
        await respond(stream, supports("/a"))
    assert await received(raw, len(lines(HEADER)) + MAX_PROPOSALS * 4) == lines(HEADER, *["na"] * MAX_PROPOSALS)
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, *(["/x"] * (MAX_PROPOSALS - 1)), "/a"))
    assert await respond(stream, supports("/a")) == "/a"


async def test_what_only_looks_like_a_protocol_is_na(net, autojump_clock):
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, "ls", "", "/a\n", " /a", HEADER, "na", "/a"))
    assert await respond(stream, supports("/a")) == "/a"
    assert await read_line(TrioTCPStream(raw)) == HEADER


async def test_a_length_of_half_a_gigabyte_ends_the_negotiation_at_once(net, autojump_clock):
    raw, stream = against_bytes(net)
    await raw.send_all(encode_uvarint(2**29))
    with pytest.raises(NegotiationError, match="536870912"):
        await respond(stream, supports("/a"))
    assert trio.current_time() == pytest.approx(LATENCY)


async def test_the_responder_greets_first_so_that_peers_that_wait_for_it_go_on(net, autojump_clock):
    raw, stream = against_bytes(net)
    net.nursery.start_soon(respond, stream, supports("/a"))
    assert await received(raw, 20) == lines(HEADER)
    await raw.send_all(lines(HEADER, "/a"))
    assert await received(raw, 4) == lines("/a")


async def test_a_greeting_that_is_withheld_is_withheld_and_so_is_the_answer(net, autojump_clock):
    raw, stream = against_bytes(net)
    may_greet, may_answer = trio.Event(), trio.Event()

    async def accept(_proposal: str) -> bool:
        await may_answer.wait()
        return True

    net.nursery.start_soon(respond, stream, accept, may_greet.wait)
    await raw.send_all(lines(HEADER, "/a"))
    for event, answer in ((may_greet, lines(HEADER)), (may_answer, lines("/a"))):
        with trio.move_on_after(100) as scope:
            await raw.receive_some()
        assert scope.cancelled_caught
        event.set()
        assert await received(raw, len(answer)) == answer


async def test_what_accept_raises_ends_the_negotiation(net, autojump_clock):
    raw, stream = against_bytes(net)
    await raw.send_all(lines(HEADER, "/a"))

    async def accept(_proposal: str) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await respond(stream, accept)
