"""What the Python ends share of the commands perf, both, streams and requests: how the work is spread over tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

import trio

from interop.peer import Message
from protocols.perf import Result

ECHO_ID = "/vouch/echo/1.0.0"
MAX_FRAME = 64 * 1024
STREAM_PAYLOAD = bytes(range(32))
REQUEST_PAYLOAD = bytes(range(128))
# streams that the other end may have open: what is measured at once, and those whose end is just being dealt with
STREAMS_PER_PEER = 256

Ask = Callable[[bytes], Awaitable[bytes]]  # a frame on an open echo stream -> the frame that comes back


async def together(transfers: Sequence[Callable[[], Awaitable[Result]]]) -> Message:
    """Runs them at once; the reply of perf."""
    results: list[Result] = []

    async def run(transfer: Callable[[], Awaitable[Result]]) -> None:
        results.append(await transfer())

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for transfer in transfers:
            nursery.start_soon(run, transfer)
    return {
        "upload_s": max(result.upload_seconds for result in results),
        "download_s": max(result.download_seconds for result in results),
        "seconds": trio.current_time() - started,
    }


async def repeat(work: Callable[[], Awaitable[None]], count: int, width: int) -> Message:
    """Does the work `count` times, `width` at a time; the reply of streams."""
    return await _spread([work] * width, count)


async def ask(asks: Sequence[Ask], count: int) -> Message:
    """`count` requests, each stream asking its next when it has its answer; the reply of requests."""

    def request(ask: Ask) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            check_echo(await ask(REQUEST_PAYLOAD), REQUEST_PAYLOAD)

        return work

    return await _spread([request(ask) for ask in asks], count)


async def _spread(workers: Sequence[Callable[[], Awaitable[None]]], count: int) -> Message:
    left: Iterator[int] = iter(range(count))

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        for _ in left:
            await work()

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(run, worker)
    return {"seconds": trio.current_time() - started}


def check_echo(got: bytes, sent: bytes) -> None:
    """Raises ValueError unless the same came back."""
    if got != sent:
        raise ValueError(f"expected the {len(sent)} bytes sent to come back, got {len(got)} others")
