"""The table of benchmarks: what each is called, measures, in which pairings, how much and how often.

A benchmark is one measurement that gives a value for one line or several; a line is what is reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from interop.bench import measures
from interop.bench.gossip import Gossiping, gossip
from interop.bench.measures import MIB, Crowding, Sample
from interop.bench.stage import Stage

A = TypeVar("A")


@dataclass(frozen=True)
class Line:
    """One value of a benchmark: its name, its unit, and whether more of it is better."""

    name: str
    unit: str
    more_is_better: bool = True

    @property
    def better(self) -> str:
        """In words."""
        return "more is better" if self.more_is_better else "less is better"


@dataclass(frozen=True, kw_only=True)
class Benchmark(Generic[A]):
    """One row of the table. `amounts` and `repeats` are for the whole measurement and for a quick one.

    `crowded`: a crowd of so many joins the listeners. That is done first, and without a round to warm up, since it is
    about what an unused listener needs. `warms_up`: whether there is a round before those that count.
    """

    name: str
    about: str
    lines: tuple[Line, ...]
    pairings: tuple[str, ...]
    amounts: tuple[A, A]
    repeats: tuple[int, int]
    measure: Callable[[Stage, str, A], Awaitable[Sample]]
    show: Callable[[A], str] = str
    crowded: Callable[[A], int] | None = None
    warms_up: bool = True

    def amount(self, quick: bool) -> A:
        return self.amounts[quick]

    def times(self, quick: bool) -> int:
        return self.repeats[quick]


ALIKE = ("vouch", "vouch-stock", "stock", "go", "rust", "js")
MIXED = ("vouch-go", "go-vouch", "vouch-rust", "rust-vouch", "vouch-js", "js-vouch")
OVER_QUIC = ("vouch-quic", "go-quic", "vouch-go-quic", "go-vouch-quic")
# py-libp2p only sends: what it receives it loses the end of, every few transfers
STOCK_SENDS = {True: ("stock-go-quic",), False: ("go-stock-quic",)}
# those whose peers have the commands; rust and js have no echo
ECHOING = ("vouch", "vouch-stock", "stock", "go")


def _mebibytes(amount: int) -> str:
    return f"{amount / MIB:g} MiB"


def _bulk(
    name: str,
    about: str,
    measure: Callable[[Stage, str, int], Awaitable[Sample]],
    pairings: tuple[str, ...] = ALIKE + MIXED,
    amounts: tuple[int, int] = (256 * MIB, 48 * MIB),
) -> Benchmark[int]:
    return Benchmark(
        name=name,
        about=about,
        lines=(Line(name, "MB/s"), Line(f"{name}-cpu", "MB/CPU-s")),
        pairings=pairings,
        amounts=amounts,
        repeats=(7, 3),
        measure=measure,
        show=_mebibytes,
    )


def _counted(command: str, about: str, at_once: int, amounts: tuple[int, int]) -> Benchmark[int]:
    name = f"{command}-{at_once}"
    return Benchmark(
        name=name,
        about=about,
        lines=(Line(name, f"{command}/s"),),
        pairings=ECHOING,
        amounts=amounts,
        repeats=(7, 3),
        measure=partial(measures.counted, command=command, at_once=at_once),
        show=lambda amount: f"{amount} {command}",
    )


def _one_way(up: bool, streams: int) -> Benchmark[int]:
    name = ("bulk-up" if up else "bulk-down") + (f"-{streams}" if streams > 1 else "")
    way = "from dialler to listener" if up else "from listener to dialler"
    over = f"{streams} streams" if streams > 1 else "one stream"
    about = f"bytes {way} over {over} of `/perf/1.0.0`"
    return _bulk(name, about, partial(measures.bulk, line=name, up=up, streams=streams))


def _over_quic(up: bool) -> Benchmark[int]:
    name = "quic-up" if up else "quic-down"
    way = "from dialler to listener" if up else "from listener to dialler"
    return _bulk(
        name,
        f"bytes {way} over one stream of `/perf/1.0.0`, over QUIC",
        partial(measures.bulk, line=name, up=up),
        OVER_QUIC + STOCK_SENDS[up],
        (64 * MIB, 16 * MIB),  # py-libp2p takes its time
    )


BENCHMARKS: tuple[Benchmark[Any], ...] = (
    Benchmark(
        name="dial",
        about="a dial until the peer is admitted (stock, rust and js admit everybody), and of it the admission: ours "
        "from secured and multiplexed to admitted, go's from opening the handshake's stream to admitted",
        lines=(Line("dial", "ms", False), Line("admission", "ms", False)),
        pairings=(*ALIKE, "vouch-go", "go-vouch"),
        amounts=(1, 1),
        repeats=(50, 10),
        measure=measures.dial,
        show=lambda _: "one dial",
    ),
    _one_way(up=True, streams=1),
    _one_way(up=False, streams=1),
    _one_way(up=True, streams=8),
    _one_way(up=False, streams=8),
    _over_quic(up=True),
    _over_quic(up=False),
    _bulk("bulk-both", "bytes up on one stream and as many down on another, at once", measures.bulk_both),
    Benchmark(
        name="ping",
        about="the round trip of 32 bytes on an open stream, in tcp on a bare socket",
        lines=(Line("ping-p50", "us", False), Line("ping-p99", "us", False)),
        pairings=(*ALIKE, "tcp"),
        amounts=(1000, 300),
        repeats=(9, 5),
        measure=measures.ping,
        show=lambda amount: f"{amount} pings",
    ),
    _counted("streams", "streams opened, used for 32 bytes there and back, and closed, one by one", 1, (500, 200)),
    _counted("streams", "the same, 16 at a time", 16, (2000, 500)),
    _counted("requests", "requests of 128 bytes over one stream, each answered before the next", 1, (2000, 500)),
    _counted("requests", "the same over 16 streams at once", 16, (10_000, 2000)),
    Benchmark(
        name="signed-requests",
        about="messages of 128 bytes asked and answered on one connection, 64 in flight, signed and checked on both "
        "sides, then the same unsigned, and what one signature and its check cost; stock has plain requests over one "
        "stream, one after the other",
        lines=(
            Line("signed-requests", "requests/s"),
            Line("unsigned-requests", "requests/s"),
            Line("signature", "us", False),
        ),
        pairings=("vouch", "vouch-stock", "stock"),
        amounts=(5000, 1000),
        repeats=(7, 3),
        measure=partial(measures.messages, width=64),
        show=lambda amount: f"{amount} messages",
    ),
    Benchmark(
        name="connections",
        about="what connections cost the one that is dialled: how many are made in a second (admitted and identified "
        "both ways), its CPU time for each, its memory for each idle one, its CPU time with 100 idle ones, and a ping "
        "beside so many idle ones",
        lines=(
            Line("connections", "connections/s"),
            Line("connection-cpu", "ms", False),
            Line("connection-memory", "kB", False),
            Line("idle-cpu", "% of a core", False),
            *(Line(f"ping-at-{count}", "us", False) for count in (0, 10, 100, 200, 1000)),
        ),
        pairings=("vouch", "stock", "go"),
        amounts=(Crowding((10, 100, 1000), 100, 40.0, 1.0), Crowding((10, 100, 200), 100, 3.0, 0.3)),
        repeats=(3, 1),
        measure=measures.connections,
        crowded=lambda crowding: crowding.most,
        warms_up=False,
    ),
    Benchmark(
        name="gossip",
        about="messages of 1 KiB, signed and checked, at the highest rate at which everything still arrives: from one "
        "process to another, and among ten nodes in one process, all connected, each publishing in turn; with the "
        "delay from publishing to delivery there, and the CPU time for each delivery",
        lines=(
            Line("gossip-messages", "messages/s"),
            Line("gossip-deliveries", "deliveries/s"),
            Line("gossip-p50", "ms", False),
            Line("gossip-p99", "ms", False),
            Line("gossip-cpu", "us", False),
        ),
        pairings=("vouch", "stock", "go"),
        amounts=(Gossiping(2.0, 1.15), Gossiping(0.5, 1.5)),
        repeats=(5, 1),
        measure=gossip,
        warms_up=False,
    ),
)
