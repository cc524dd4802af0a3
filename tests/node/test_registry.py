"""The registry: every bound of a protocol, and handlers whose failures stay their own."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import trio

import node.registry
from node.errors import LimitError, UsageError
from node.registry import ENTRY_POINT_GROUP, Registry, StreamLimitError, installed_protocols
from protocols import EndOfStream, Protocol, ProtocolError, Stream, StreamReset
from tests.memnet import MemNet, MemNode, PipeBytes

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(latency=0.02) as net:
        yield net


def protocol(name: str = "/x/1.0.0", handler=None, **bounds) -> Protocol:
    async def nothing(stream):
        pass

    return Protocol(name, handler=handler or nothing, **bounds)


async def pair(net: MemNet, *protocols: Protocol) -> tuple[MemNode, MemNode]:
    a, b = net.node(A), net.node(B, protocols)
    await a.connect(b)
    return a, b


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# what is answered


def test_protocols_are_answered_from_adding_to_removing():
    one, two = protocol("/one"), protocol("/two")
    registry = Registry([one])
    registry.add(two)
    assert registry.ids() == ["/one", "/two"]
    assert registry.get("/two") is two
    for _ in range(2):
        registry.remove("/one")
    assert registry.ids() == ["/two"]
    assert registry.get("/one") is registry.open("peer", "/one") is None


def test_a_protocol_needs_a_handler_and_an_id_of_its_own():
    with pytest.raises(UsageError, match=r"/x has no handler: name one with @protocol\.serve"):
        Registry([Protocol("/x")])
    with pytest.raises(UsageError, match=r"two protocols have the ID /x/1\.0\.0"):
        Registry([protocol(), protocol()])


# streams for each peer


def test_streams_for_each_peer_and_protocol_are_bounded_exactly():
    registry = Registry([protocol("/x", streams_per_peer=2), protocol("/y", streams_per_peer=1)])
    slots = [registry.open("a", "/x") for _ in range(2)]
    with pytest.raises(StreamLimitError, match=r"^a .*2 streams of /x") as caught:
        registry.open("a", "/x")
    assert isinstance(caught.value, LimitError)
    assert registry.refused == {"/x": 1}
    assert registry.open("a", "/y")
    assert registry.open("b", "/x")
    for _ in range(3):
        slots[0].release()
    assert registry.streams("a", "/x") == 1
    registry.open("a", "/x")
    assert registry.streams("a", "/x") == 2


def test_slots_leave_nothing_behind():
    registry = Registry([protocol()])
    for number in range(100):
        slot = registry.open(f"peer{number}", "/x/1.0.0")
        slot.release()
        assert registry.streams(f"peer{number}", "/x/1.0.0") == 0
    assert not registry._open


def test_a_slot_of_a_protocol_that_was_removed_is_freed_too():
    registry = Registry([protocol()])
    slot = registry.open("a", "/x/1.0.0")
    registry.remove("/x/1.0.0")
    slot.release()
    assert registry.streams("a", "/x/1.0.0") == 0


# handlers


async def test_a_handler_that_returns_closes_its_stream_and_frees_its_slot(net, autojump_clock):
    async def greet(stream: Stream) -> None:
        assert stream.peer == a.peer_id
        await stream.send(b"hello")

    a, b = await pair(net, protocol(handler=greet, streams_per_peer=1))
    for _ in range(3):
        async with a.stream(b.peer_id, protocol()) as stream:
            assert await stream.receive() == b"hello"
            with pytest.raises(EndOfStream):
                await stream.receive()
    assert not b.registry._open


@pytest.mark.parametrize("failure", [ZeroDivisionError("by nought"), ExceptionGroup("many", [KeyError("k")])])
async def test_a_handler_that_raises_resets_its_stream_harms_no_other_and_is_logged_once(
    net, autojump_clock, caplog, failure
):
    async def fail(stream: Stream) -> None:
        if await stream.receive() == b"fail":
            raise failure
        async for frame in stream:
            await stream.send(frame)

    echo = protocol(handler=fail)
    a, b = await pair(net, echo)
    async with a.stream(b.peer_id, echo) as good, a.stream(b.peer_id, echo) as bad:
        await good.send(b"begin")
        await bad.send(b"fail")
        with pytest.raises(StreamReset):
            await bad.receive()
        await good.send(b"still here")
        assert await good.receive() == b"still here"
        assert b.registry.streams(a.peer_id, echo.id) == 1
    assert b.registry.failed == {echo.id: 1}
    (record,) = errors(caplog)
    assert (record.name, record.levelname) == ("vouch.registry", "ERROR")
    assert record.msg["event"] == "handler_failed"
    assert record.msg["peer"] == a.peer_id
    assert record.msg["protocol"] == echo.id
    assert type(failure).__name__ in record.msg["exception"]


@pytest.mark.parametrize(
    "failure",
    [ProtocolError("bad frame"), StreamReset("gone"), ExceptionGroup("both", [ProtocolError("x"), EndOfStream("y")])],
)
async def test_a_peers_fault_is_no_failure_of_the_handler(net, autojump_clock, caplog, failure):
    async def fail(stream: Stream) -> None:
        raise failure

    a, b = await pair(net, protocol(handler=fail))
    async with a.stream(b.peer_id, protocol()) as stream:
        with pytest.raises(StreamReset):
            await stream.receive()
    assert not b.registry.failed
    assert not errors(caplog)
    assert not b.registry._open


async def test_a_group_with_one_fault_of_the_handlers_is_the_handlers(net, autojump_clock, caplog):
    async def fail(stream: Stream) -> None:
        raise ExceptionGroup("both", [ProtocolError("x"), ZeroDivisionError()])

    a, b = await pair(net, protocol(handler=fail))
    async with a.stream(b.peer_id, protocol()):
        await trio.sleep(1)
    assert b.registry.failed == {"/x/1.0.0": 1}
    assert len(errors(caplog)) == 1


async def test_a_cancelled_handler_frees_its_slot(net, autojump_clock):
    async def stay(stream: Stream) -> None:
        await trio.sleep_forever()

    registry = Registry([protocol(handler=stay)])
    slot = registry.open("a", "/x/1.0.0")
    with trio.move_on_after(1):
        await registry.run(slot, PipeBytes(net.pipe(A, B)[0]))
    assert registry.streams("a", "/x/1.0.0") == 0


async def test_frame_bounds_and_time_hold_whatever_the_handler_does(net, autojump_clock):
    async def take(stream: Stream) -> None:
        async for _ in stream:
            pass

    bounded = protocol(handler=take, max_frame=10, timeout=5)
    unbounded = Protocol(bounded.id, max_frame=1000)
    a, b = await pair(net, bounded)
    async with a.stream(b.peer_id, unbounded) as stream:
        await stream.send(bytes(11))
        with pytest.raises(StreamReset):
            await stream.receive()
    started = trio.current_time()
    async with a.stream(b.peer_id, unbounded) as stream:
        with pytest.raises(StreamReset):
            await stream.receive()
    assert trio.current_time() - started == pytest.approx(5, abs=0.1)
    assert not b.registry.failed


# rate


async def frames_taken(seconds: float, *streams: Stream) -> None:
    with trio.move_on_after(seconds):
        while True:
            for stream in streams:
                await stream.send(b"x")
            await trio.sleep(0.01)


async def test_a_peers_rate_is_shared_by_its_streams_and_not_with_other_peers(net, autojump_clock):
    taken: dict[str, int] = {}

    async def count(stream: Stream) -> None:
        async for _ in stream:
            taken[stream.peer] = taken.get(stream.peer, 0) + 1

    limited = protocol(handler=count, rate=10, burst=5)
    a, b = await pair(net, limited)
    c = net.node(C)
    await c.connect(b)
    async with (
        a.stream(b.peer_id, limited) as one,
        a.stream(b.peer_id, limited) as two,
        c.stream(b.peer_id, limited) as three,
        trio.open_nursery() as nursery,
    ):
        started = trio.current_time()
        nursery.start_soon(frames_taken, 10, one, two)
        nursery.start_soon(frames_taken, 10, three)
        await trio.sleep(10)
        assert trio.current_time() - started == pytest.approx(10)
        assert taken[a.peer_id] == pytest.approx(105, abs=2)
        assert taken[c.peer_id] == pytest.approx(105, abs=2)


async def test_a_new_stream_brings_no_new_burst_until_the_peer_is_forgotten(net, autojump_clock):
    times: list[float] = []

    async def note(stream: Stream) -> None:
        async for _ in stream:
            times.append(trio.current_time())

    limited = protocol(handler=note, rate=0.1, burst=1, timeout=None)
    a, b = await pair(net, limited)

    async def send_one() -> float:
        async with a.stream(b.peer_id, limited) as stream:
            started = trio.current_time()
            await stream.send(b"x")
            await stream.send_eof()
            with pytest.raises(EndOfStream):
                await stream.receive()
        return times[-1] - started

    assert await send_one() == pytest.approx(0.02)
    assert await send_one() == pytest.approx(10, abs=0.1)
    b.registry.forget("somebody else")
    assert await send_one() == pytest.approx(10, abs=0.1)
    b.registry.forget(a.peer_id)
    assert not b.registry._buckets
    assert await send_one() == pytest.approx(0.02)


def test_a_burst_that_lets_no_frame_through_is_refused_at_declaration():
    with pytest.raises(ValueError, match="burst"):
        Protocol("/x", rate=10, burst=0.5)


# installed packages

ONE, TWO = protocol("/one"), protocol("/two")
SEVERAL = [ONE, TWO]
MIXED = [ONE, "not one"]
NO_PROTOCOL = object()


@pytest.fixture
def installed(monkeypatch):
    """Makes the given objects of this module (or any other text) the entry points of the group."""

    def install(*values: str) -> None:
        points = [
            EntryPoint(name=f"p{number}", value=value, group=ENTRY_POINT_GROUP) for number, value in enumerate(values)
        ]
        points.append(EntryPoint(name="other", value="nowhere:X", group="console_scripts"))
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **params: EntryPoints(points).select(**params))
        monkeypatch.setattr(node.registry, "entry_points", lambda **params: EntryPoints(points).select(**params))

    return install


def test_installed_protocols_are_one_or_several_for_each_package(installed):
    installed()
    assert installed_protocols() == []
    installed(f"{__name__}:ONE", f"{__name__}:SEVERAL")
    assert [found.id for found in installed_protocols()] == ["/one", "/one", "/two"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (f"{__name__}:NO_PROTOCOL", "to be a Protocol, got object"),
        (f"{__name__}:MIXED", "to be a Protocol, got (str|list)"),
        ("no_such_package_at_all:X", "protocol 'p0' of package .* can't be loaded: No module"),
        (f"{__name__}:NO_SUCH_NAME", "can't be loaded: .*NO_SUCH_NAME"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(installed, value, text):
    installed(value)
    with pytest.raises(UsageError, match=text):
        installed_protocols()
