"""How each benchmark measures: one function each, which measures once in one pairing and gives a value for each line.

Values are in the lines' units (`interop.bench.benchmarks`). Raises PeerError.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from interop.bench.cost import Spent, cpu_seconds, private_bytes
from interop.bench.stage import Pair, Stage
from interop.peer import PeerError

MB = 1_000_000
KB = 1_000
MIB = 1 << 20
# seconds in which both sides let go of what belonged to a connection, before the next dial is measured
SETTLE = 0.03

Values = dict[str, float]


@dataclass(frozen=True)
class Sample:
    """One measurement: its values by line, and what it has cost."""

    values: Values
    spent: Spent


async def dial(stage: Stage, pairing: str, _: int) -> Sample:
    """A dial until the peer is admitted, and of it the admission."""
    pair = stage.pair(pairing)
    await pair.disconnect()
    await trio.sleep(SETTLE)
    pair.spent = Spent()
    reply = await pair.call("connect", pair.listener.addr)
    pair.connected = True
    if reply.get("already"):
        raise PeerError(f"{pairing}: expected a new connection, the last one is still there", reply)
    try:
        await pair.identified()
    except PeerError as error:
        # go opens identify before it is admitted, so that the stream is held; unanswered after admission, it was lost
        raise PeerError(
            f"{pairing}: identify wasn't answered after admission, a held stream was lost: {error}"
        ) from error
    values = {"dial": reply["total_ms"]}
    if "admission_ms" in reply:
        values["admission"] = reply["admission_ms"]
    return Sample(values, pair.spent)


async def bulk(stage: Stage, pairing: str, amount: int, *, line: str, up: bool, streams: int = 1) -> Sample:
    """`amount` bytes in all, one way."""
    pair = await _connected(stage, pairing)
    each = amount // streams
    moved = (each, 0) if up else (0, each)
    reply = await pair.call("perf", pair.listener.peer_id, *moved, streams)
    await pair.check_perf(*[moved] * streams)
    # of one stream only its own direction, so that turning round isn't counted
    seconds = reply["seconds"] if streams > 1 else reply["upload_s" if up else "download_s"]
    return _bulk_sample(line, each * streams, seconds, pair.spent)


async def bulk_both(stage: Stage, pairing: str, amount: int) -> Sample:
    """`amount` bytes in all, half of them each way."""
    pair = await _connected(stage, pairing)
    each = amount // 2
    reply = await pair.call("both", pair.listener.peer_id, each)
    await pair.check_perf((each, 0), (0, each))
    return _bulk_sample("bulk-both", 2 * each, reply["seconds"], pair.spent)


async def ping(stage: Stage, pairing: str, count: int) -> Sample:
    """`count` pings on one stream."""
    pair = await _connected(stage, pairing)
    times = await _ping(pair, count)
    return Sample({"ping-p50": statistics.median(times), "ping-p99": percentile(times, 0.99)}, pair.spent)


async def counted(stage: Stage, pairing: str, count: int, *, command: str, at_once: int) -> Sample:
    """`count` streams or requests (the commands), so many at once."""
    pair = await _connected(stage, pairing)
    reply = await pair.call(command, pair.listener.peer_id, count, at_once)
    return Sample({f"{command}-{at_once}": count / reply["seconds"]}, pair.spent)


async def messages(stage: Stage, pairing: str, count: int, *, width: int) -> Sample:
    """`count` messages asked and answered over one stream, so many under way: signed, then unsigned.

    Who has no such messages is measured with plain requests over one stream, one after the other, as its users have
    them: the yardstick of both.
    """
    pair = await _connected(stage, pairing)
    peer = pair.listener.peer_id
    if pairing == "stock":
        rate = count / (await pair.call("requests", peer, count, 1))["seconds"]
        return Sample({"signed-requests": rate, "unsigned-requests": rate}, pair.spent)
    signed = await pair.call("messages", peer, "signed", count, width)
    unsigned = await pair.call("messages", peer, "unsigned", count, width)
    values = {
        "signed-requests": count / signed["seconds"],
        "unsigned-requests": count / unsigned["seconds"],
        "signature": signed["signature_us"],
    }
    return Sample(values, pair.spent)


@dataclass(frozen=True)
class Crowding:
    """How a crowd joins: to these numbers of connections one after the other, `width` at a time.

    At `idle_at` connections the listener's CPU time is watched for `idle` seconds. At each number, and before the
    first, an end that is connected besides pings `pings` times.
    """

    counts: tuple[int, ...]
    idle_at: int
    idle: float
    calm: float  # seconds in which the listener comes to rest when some have joined
    width: int = 16
    pings: int = 300

    @property
    def most(self) -> int:
        """How many connections the listener has to take at once, to spare."""
        return self.counts[-1] + self.width

    def __str__(self) -> str:
        return f"{self.counts[-1]} connections"


async def connections(stage: Stage, pairing: str, crowding: Crowding) -> Sample:
    """What connections cost the one that was dialled. Rates are of the last and largest step, memory is from the first
    step on, so that what is only needed once isn't counted."""
    values: Values = {}
    async with stage.crowded(pairing) as (crowd, beside):
        pid = crowd.listener.pid
        values["ping-at-0"] = statistics.median(await _ping(beside, crowding.pings))
        there, base = 0, 0
        for count in crowding.counts:
            crowd.spent = Spent()
            joined = await crowd.call("join", crowd.listener.addr, count - there, crowding.width)
            for what in ("connected", "identified"):
                if joined.get(what, count - there) != count - there:
                    raise PeerError(f"{pairing}: expected {count - there} members {what}, got {joined[what]}", joined)
            joining, there = count - there, count
            await trio.sleep(crowding.calm)
            base = base or private_bytes(pid)
            values[f"ping-at-{count}"] = statistics.median(await _ping(beside, crowding.pings))
            if count == crowding.idle_at:
                before = cpu_seconds(pid)
                await trio.sleep(crowding.idle)
                values["idle-cpu"] = (cpu_seconds(pid) - before) / crowding.idle * 100
        values["connections"] = joining / joined["seconds"]
        values["connection-cpu"] = crowd.spent.listener / joining * 1000
        values["connection-memory"] = (private_bytes(pid) - base) / (there - crowding.counts[0]) / KB
        spent = crowd.spent
        crowd.spent = Spent()
        await crowd.call("leave")
    return Sample(values, spent)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share doesn't exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


async def _connected(stage: Stage, pairing: str) -> Pair:
    pair = stage.pair(pairing)
    await pair.connect()
    pair.spent = Spent()
    return pair


async def _ping(pair: Pair, count: int) -> list[float]:
    times: list[float] = (await pair.call("ping", pair.listener.peer_id, count))["rtt_us"]
    if len(times) != count:
        raise PeerError(f"{pair.name}: expected {count} pings, got {len(times)}")
    return times


def _bulk_sample(line: str, moved: int, seconds: float, spent: Spent) -> Sample:
    return Sample({line: moved / MB / seconds, f"{line}-cpu": moved / MB / (spent.busier or math.nan)}, spent)
