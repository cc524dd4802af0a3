"""`python -m interop.lab.bench [--rtt MS] [--rate MBIT] ...`: how fast peers move data over a long line.

    --rtt MS        round trip of the line (default 40)
    --rate MBIT     what it carries in each direction, Mbit/s (default 100); 0: as much as the machine can shape
    --loss PERCENT  frames lost in each direction (default 0)
    --mib N         MiB for each transfer (default 32)
    --repeats N     rounds, each with every pairing (default 3)
    --peers A,B     contenders: vouch, go, and tcp, a bare socket (default all)
    --json          one JSON object for each figure, in place of a table in Markdown

Of two hosts in namespaces the dialler's is at the end of the long line. Each pairing (dialler-listener) has a new
connection in each round, and they take turns. On it a stream of /perf/1.0.0 carries the data up, from dialler to
listener, then another one carries as much down: each begins with the first window of its own, so that the growth of
windows is in the figure. MB/s are 10^6 bytes of payload. The bare socket sends for as long as the data would take at
the line's rate. Exit status: 0, or 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from interop.bench.stage import PAIRINGS, available, pairings_of
from interop.lab.network import Host, Lab
from interop.peer import Peer, PeerError

MIB = 1 << 20
CONTENDERS = ("vouch", "go", "tcp")
CALL_TIMEOUT = 120.0
PROBE = [sys.executable, "-I", str(Path(__file__).with_name("probe.py"))]
PROBE_PORT = "4001"
UNSHAPED = 1e9  # bit/s taken for the bare socket's time where no rate is told

Figures = dict[tuple[str, str], list[float]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interop.lab.bench", description="Transfers over a long line.")
    parser.add_argument("--rtt", metavar="MS", type=float, default=40.0)
    parser.add_argument("--rate", metavar="MBIT", type=float, default=100.0)
    parser.add_argument("--loss", metavar="PERCENT", type=float, default=0.0)
    parser.add_argument("--mib", metavar="N", type=int, default=32)
    parser.add_argument("--repeats", metavar="N", type=int, default=3)
    parser.add_argument("--peers", metavar="A,B", default=",".join(CONTENDERS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    peers = args.peers.split(",")
    if unknown := set(peers) - set(CONTENDERS):
        parser.error(f"expected some of {', '.join(CONTENDERS)}, got {', '.join(sorted(unknown))}")
    if args.mib < 1 or args.repeats < 1:
        parser.error("expected at least one MiB and one round")
    shape: dict[str, Any] = {"delay": args.rtt / 2000, "loss": args.loss / 100}
    if args.rate:
        shape["rate"] = args.rate * 1e6
    there = available([name for name in peers if name != "tcp"], _say)
    names = [*(name for name in pairings_of(there) if set(PAIRINGS[name]) <= set(there)), *(["tcp"] * ("tcp" in peers))]
    failures: list[str] = []
    figures = trio.run(measure, names, shape, args.mib * MIB, args.repeats, failures)
    if args.json:
        for (name, way), values in figures.items():
            print(json.dumps({"pairing": name, "line": way, "MB/s": statistics.median(values), "samples": values}))
    else:
        print(table(figures, f"{args.rtt:g} ms, {args.rate:g} Mbit/s, {args.loss:g} % loss, {args.mib} MiB"))
    return 1 if failures else 0


async def measure(
    names: Sequence[str], shape: dict[str, Any], amount: int, repeats: int, failures: list[str]
) -> Figures:
    """MB/s for each pairing, "up" and "down"; what fails is said, kept and left out from then on."""
    figures: Figures = {}
    left = list(names)
    async with Lab() as lab, AsyncExitStack() as stack:
        hosts = await lab.host("far", **shape), await lab.host("near")
        wanted = dict.fromkeys(
            (end, host) for name in names if name != "tcp" for end, host in zip(PAIRINGS[name], hosts, strict=True)
        )
        ends = {key: await stack.enter_async_context(_end(*key)) for key in wanted}
        for number in range(repeats):
            for name in list(left):
                try:
                    if name == "tcp":
                        up, down = await _bare(hosts, amount * 8 / shape.get("rate", UNSHAPED))
                    else:
                        dialler, listener = (ends[key] for key in zip(PAIRINGS[name], hosts, strict=True))
                        up, down = await _perf(dialler, listener, amount)
                except PeerError as error:
                    failures.append(f"{name}: {error}")
                    _say(failures[-1])
                    left.remove(name)
                    continue
                _say(f"{number + 1}/{repeats} {name}: up {up:.1f}, down {down:.1f} MB/s")
                for way, value in (("up", up), ("down", down)):
                    figures.setdefault((name, way), []).append(round(value, 2))
    return figures


async def _perf(dialler: Peer, listener: Peer, amount: int) -> tuple[float, float]:
    """On a connection of its own, which has everything to learn about the line."""
    await dialler.call("connect", listener.addr)
    rates = []
    for moved in ((amount, 0), (0, amount)):
        reply = await dialler.call("perf", listener.peer_id, *map(str, moved), timeout=CALL_TIMEOUT)
        await listener.event("perf", received=moved[0], sent=moved[1])
        rates.append(amount / 1e6 / reply["seconds"])
    await dialler.call("disconnect", listener.peer_id)
    await dialler.event("disconnected", peer=listener.peer_id)
    await listener.event("disconnected", peer=dialler.peer_id)
    return rates[0], rates[1]


def _end(end: str, host: Host) -> Peer:
    listen = ("--listen", f"/ip4/{host.addr}/tcp/0")
    if end == "go":
        return Peer.go("--timeout", f"{CALL_TIMEOUT:g}s", *listen).within(host.enter)
    return Peer.program("interop.bench.ends", end, *listen).within(host.enter)


async def _bare(hosts: Sequence[Host], seconds: float) -> tuple[float, float]:
    rates = []
    for sender, taker in (hosts, hosts[::-1]):
        async with _taking(taker) as lines:
            await sender.run([*PROBE, "send", taker.addr, PROBE_PORT, f"{seconds:.3f}"], timeout=CALL_TIMEOUT)
            took = json.loads(await anext(lines))
            rates.append(took["bytes"] / 1e6 / took["seconds"])
    return rates[0], rates[1]


@asynccontextmanager
async def _taking(host: Host) -> AsyncIterator[AsyncIterator[bytes]]:
    """The probe's server: the lines it says from then on."""
    process = await trio.lowlevel.open_process(
        [*host.enter, *PROBE, "serve", PROBE_PORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        await anext(process.stdout)
        yield process.stdout
    await process.wait()


def table(figures: Figures, title: str) -> str:
    """Medians with the least and the most, in Markdown."""
    rows = [f"| {title}: MB/s | up | down |", "|---|---|---|"]
    for name in dict.fromkeys(name for name, _ in figures):
        cells = [figures[name, way] for way in ("up", "down")]
        shown = [f"{statistics.median(cell):.1f} ({min(cell):.1f} to {max(cell):.1f})" for cell in cells]
        rows.append(f"| {name} | {shown[0]} | {shown[1]} |")
    return "\n".join(rows)


def _say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
