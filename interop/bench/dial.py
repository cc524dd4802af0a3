"""How long a dial takes, and of it the admission, over loopback, each end in a process of its own.

    pairing    dialler   listener
    vouch      vouch     vouch
    vouch-go   vouch     go
    go-vouch   go        vouch
    go         go        go
    stock      stock     stock      py-libp2p's own host, `dial_addr`, no admission

Each round dials once in every pairing, so that whatever the machine does meanwhile hits them all alike. Before the
next dial both sides have identified each other, and both have noticed the end of the connection. Round 0 isn't counted.

dial        the whole dial until the peer is admitted, as the dialler sees it
admission   vouch: from secured and multiplexed to admitted; go: from opening the handshake's stream to admitted

Checked on the way, in go-vouch: go opens identify by itself before it is admitted, so that stream is held; if it isn't
answered after admission, a held stream was lost, and the benchmark fails.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass, field

import trio

from interop.bench import report
from interop.build import RECIPES, BuildError
from interop.peer import Peer, PeerError

DIALS = {
    "vouch": ("vouch", "vouch"),
    "vouch-go": ("vouch", "go"),
    "go-vouch": ("go", "vouch"),
    "go": ("go", "go"),
    "stock": ("stock", "stock"),
}
ENDS = ("vouch", "go", "stock")
# ms, for the pairings with an end of ours
BARS = {"dial": 30.0, "admission": 6.0}
# seconds in which both sides let go of what belonged to a connection, before the next dial is measured
SETTLE = 0.03


@dataclass
class Results:
    """Milliseconds by pairing, and how many held streams were lost of how many."""

    times: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {name: defaultdict(list) for name in BARS})
    held: int = 0
    lost: int = 0

    def medians(self, benchmark: str) -> dict[str, float]:
        """The median of each pairing that was measured."""
        return {name: report.Summary.of(values).median for name, values in self.times[benchmark].items()}


def run(ends: Sequence[str], repeats: int, *, as_json: bool) -> int:
    """Measures, prints, and gives the exit status."""
    ends = [end for end in ends if _available(end)]
    pairings = {name: pair for name, pair in DIALS.items() if set(pair) <= set(ends)}
    if not pairings:
        print("dial: nothing is left to measure", file=sys.stderr)
        return 1
    try:
        results = trio.run(_measure, pairings, repeats)
    except PeerError as error:
        print(f"dial: {error}", file=sys.stderr)
        return 1
    for benchmark in BARS:
        medians = results.medians(benchmark)
        if not medians:
            continue
        print(report.json_line(benchmark, "ms", medians) if as_json else _text(benchmark, results, repeats))
    if results.held:
        text = f"held streams lost in go-vouch: {results.lost} of {results.held}"
        print(text, file=sys.stderr if as_json else sys.stdout)
    return 1 if results.lost else 0


def _available(end: str) -> bool:
    if end not in RECIPES:
        return True
    try:
        with redirect_stdout(sys.stderr):
            RECIPES[end].build()
    except BuildError as error:
        gone = [name for name, pair in DIALS.items() if end in pair]
        print(f"left out: {', '.join(gone)} ({error})", file=sys.stderr)
        return False
    return True


def _peer(end: str) -> Peer:
    return Peer.go() if end == "go" else Peer.program("interop.bench.ends", end)


async def _measure(pairings: dict[str, tuple[str, str]], repeats: int) -> Results:
    results = Results()
    async with AsyncExitStack() as stack:
        # one process for each end and role: what dials in two pairings is the same process in both
        diallers = {end: await stack.enter_async_context(_peer(end)) for end, _ in dict.fromkeys(pairings.values())}
        listeners = {end: await stack.enter_async_context(_peer(end)) for _, end in dict.fromkeys(pairings.values())}
        for number in range(repeats + 1):
            for name, (dialling, listening) in pairings.items():
                measured = Results() if number == 0 else results
                await _dial(name, diallers[dialling], listeners[listening], measured)
    return results


async def _dial(name: str, dialler: Peer, listener: Peer, results: Results) -> None:
    reply = await dialler.call("connect", listener.addr)
    if reply.get("already"):
        raise PeerError(f"{name}: expected a new connection, the last one is still there", reply)
    results.times["dial"][name].append(reply["total_ms"])
    if "admission_ms" in reply:
        results.times["admission"][name].append(reply["admission_ms"])
    identified = await dialler.call("identify", listener.peer_id, check=False)
    if name == "go-vouch":
        results.held += 1
        results.lost += not identified["ok"]
    await listener.call("identify", dialler.peer_id, check=False)
    await dialler.call("disconnect", listener.peer_id)
    await dialler.event("disconnected", peer=listener.peer_id)
    await listener.event("disconnected", peer=dialler.peer_id)
    await trio.sleep(SETTLE)


def _text(benchmark: str, results: Results, repeats: int) -> str:
    rows = []
    for name, values in results.times[benchmark].items():
        summary = report.Summary.of(values)
        rows.append((name, *(f"{value:.2f}" for value in (summary.median, summary.low, summary.p90))))
    head = (f"{benchmark}, ms, {repeats} times", "median", "min", "p90")
    ours = {name: median for name, median in results.medians(benchmark).items() if "vouch" in DIALS[name]}
    text = report.table(head, rows) + "\n"
    return text + report.verdict(benchmark, BARS[benchmark], "ms", ours) + "\n" if ours else text
