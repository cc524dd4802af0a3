"""A process that speaks lines: one JSON object a line, both ways, as `interop/go/main.go` says.

It prints {"event": "listening", "peer": ID, "addrs": [...]} first, {"reply": COMMAND, "ok": true, ...} for each line
that it reads, in order, and events as they happen.

    starting --listening--> running --block ends--> asked to stop --END_TIMEOUT--> killed
                               \\--ends by itself--> every wait raises PeerError with what it wrote to standard error

Standard output is read all the time, or the process would stall: the last MAX_EVENTS events are kept. It never outlives
the block. What a reply means is left to the caller.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import Any, Self

import trio

ROOT = Path(__file__).parents[1]
START_TIMEOUT = 30.0
CALL_TIMEOUT = 30.0
EVENT_TIMEOUT = 15.0
END_TIMEOUT = 5.0
LAST_WORDS = 1.0
MAX_EVENTS = 4096
MAX_LINE = 8 << 20
MAX_STDERR = 64 << 10

Message = dict[str, Any]


class PeerError(Exception):
    """A command that failed, an event that didn't come, or a process that ended. `reply` is the peer's, if there is."""

    def __init__(self, text: str, reply: Message | None = None) -> None:
        super().__init__(text)
        self.reply = reply or {}


class LineProcess:
    """One such process.

    `events` holds the last events, oldest first, and is only for looking. `pid` is its process; `versions` of the
    libraries that it is made of, where it tells them.
    """

    def __init__(self, name: str, command: Sequence[str], *, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.peer_id = ""
        self.pid = 0
        self.addrs: list[str] = []
        self.versions: Message = {}
        self.events: deque[Message] = deque(maxlen=MAX_EVENTS)
        self._command = list(command)
        self._environ = dict(os.environ if environ is None else environ)
        self._fresh: deque[Message] = deque(maxlen=MAX_EVENTS)
        self._waiting: deque[_Answer] = deque()
        self._changed = trio.Event()
        self._send_lock = trio.Lock()
        self._stderr = bytearray()
        self._stderr_ended = trio.Event()
        self._gone = False
        self._stopping = False
        self._process: trio.Process | None = None
        self._life: AbstractAsyncContextManager[None] | None = None

    def within(self, enter: Sequence[str]) -> Self:
        """The same, to be started by a command that goes before its own, as `Host.enter` of the lab does."""
        self._command[:0] = enter
        return self

    @property
    def addr(self) -> str:
        """Its first address, complete with /p2p/PEERID."""
        return self.addrs[0]

    async def call(self, command: str, *args: str, check: bool = True, timeout: float = CALL_TIMEOUT) -> Message:
        """Runs one command; its reply. Raises PeerError when it takes too long and, with `check`, if it isn't ok."""
        with self._within(timeout, f"a reply to {command!r}"):
            reply = await self._ask(command, args)
        if check and not reply.get("ok"):
            raise PeerError(f"{self.name}: {command} failed: {reply.get('error', reply)}", reply)
        return reply

    async def event(self, name: str, *, timeout: float = EVENT_TIMEOUT, **fields: Any) -> Message:
        """The oldest event with that name and those fields which no call has returned yet, else the next one to come.

        So it doesn't matter whether an event comes before or after somebody waits for it, and the second of two alike
        is had by asking twice. Raises PeerError naming what came instead.
        """
        wanted = {"event": name, **fields}
        with self._within(timeout, f"the event {wanted}"):
            while True:
                for event in self._fresh:
                    if wanted.items() <= event.items():
                        self._fresh.remove(event)
                        return event
                await self._change()

    def seen(self, name: str, **fields: Any) -> list[Message]:
        """The events of that name and fields so far; `event` isn't affected."""
        wanted = {"event": name, **fields}
        return [event for event in self.events if wanted.items() <= event.items()]

    def forget(self) -> None:
        """Drops the events so far: for a process that begins anew."""
        self.events.clear()
        self._fresh.clear()

    async def __aenter__(self) -> Self:
        self._life = self._running()
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._life is not None
        return await self._life.__aexit__(kind, error, trace)

    # its life

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            try:
                self._process = await self._open()
                assert self._process.stdout is not None
                assert self._process.stderr is not None
                self.pid = self._process.pid
                nursery.start_soon(self._read, self._process.stdout)
                nursery.start_soon(self._keep_stderr, self._process.stderr)
                await self._started()
                yield
            except Exception as error:  # the block's own, or a start that failed: raised as it is, not in a group
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    await self._end()
                nursery.cancel_scope.cancel()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                await trio.aclose_forcefully(pipe)
        if failure is not None:
            if self._stderr and self._stderr_text() not in str(failure):
                failure.add_note(f"{self.name} wrote to standard error:\n{self._stderr_text()}")
            raise failure
        if self._gone and not self._stopping:
            raise PeerError(self._obituary())

    async def _open(self) -> trio.Process:
        try:
            return await trio.lowlevel.open_process(
                self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT, env=self._environ
            )
        except OSError as error:
            raise PeerError(f"{self.name}: can't start {self._command[0]}: {error.strerror}") from error

    async def _started(self) -> None:
        listening = await self.event("listening", timeout=START_TIMEOUT)
        self.peer_id, self.addrs = listening["peer"], listening["addrs"]
        self.versions = listening.get("versions", {})
        self.pid = listening.get("pid", self.pid)  # its own word: what was started may only be a wrapper

    async def _end(self) -> None:
        """Asks the process to stop, waits, and kills it if that takes too long."""
        process = self._process
        if process is None:
            return
        self._stopping = not self._gone and process.poll() is None
        with trio.move_on_after(END_TIMEOUT):
            if self._stopping:
                await self._ask_to_stop(process)
            await process.wait()
        if process.poll() is None:
            process.kill()
            await process.wait()
        # what it said last is read by then, or lost with a grandchild that holds the pipe
        with trio.move_on_after(LAST_WORDS):
            while not self._gone:
                await self._changed.wait()

    async def _ask_to_stop(self, process: trio.Process) -> None:
        assert process.stdin is not None
        await process.stdin.aclose()  # the end of its input is its sign

    # what it says

    async def _read(self, stdout: trio.abc.ReceiveStream) -> None:
        try:
            async for line in _lines(stdout):
                self._take(line)
        except ValueError as error:
            self._stderr += f"(not a line of JSON on standard output: {error})".encode()
        with trio.move_on_after(LAST_WORDS):
            await self._stderr_ended.wait()
            assert self._process is not None
            await self._process.wait()
        self._gone = True
        for answer in self._waiting:
            answer.ready.set()
        self._tell()

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        if "reply" in message:
            if self._waiting:
                answer = self._waiting.popleft()
                answer.reply = message
                answer.ready.set()
        elif "event" in message:
            self._add(message)

    def _add(self, event: Message) -> None:
        self.events.append(event)
        self._fresh.append(event)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _keep_stderr(self, stderr: trio.abc.ReceiveStream) -> None:
        async for data in stderr:
            self._stderr += data
            del self._stderr[:-MAX_STDERR]
        self._stderr_ended.set()

    async def _ask(self, command: str, args: Sequence[str]) -> Message:
        assert self._process is not None
        assert self._process.stdin is not None
        answer = _Answer()
        async with self._send_lock:
            if self._gone:
                raise PeerError(self._obituary())
            # it stays in line when its caller gives up, and takes the reply that comes late
            self._waiting.append(answer)
            try:
                await self._process.stdin.send_all(" ".join((command, *args)).encode() + b"\n")
            except trio.BrokenResourceError:
                pass  # it has ended; the end of its output says so too, with what it had to say
            except trio.Cancelled:
                self._process.kill()  # half a command is in the pipe: nothing after it would be understood
                raise
        await answer.ready.wait()
        if answer.reply is None:
            raise PeerError(self._obituary())
        return answer.reply

    async def _change(self) -> None:
        if self._gone:
            raise PeerError(self._obituary())
        await self._changed.wait()

    @contextmanager
    def _within(self, seconds: float, what: str) -> Iterator[None]:
        try:
            with trio.fail_after(seconds):
                yield
        except trio.TooSlowError:
            raise PeerError(
                f"{self.name}: expected {what} within {seconds:g} s; its last events: {list(self.events)[-5:]}"
            ) from None

    def _obituary(self) -> str:
        status = self._process.poll() if self._process is not None else None
        text = self._stderr_text() or "(nothing)"
        return f"{self.name} has ended by itself with status {status}; it wrote to standard error:\n{text}"

    def _stderr_text(self) -> str:
        return self._stderr.decode(errors="replace").strip()


class _Answer:
    """The place in line of one command."""

    def __init__(self) -> None:
        self.reply: Message | None = None
        self.ready = trio.Event()


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """The stream's lines. Raises ValueError for one over the bound."""
    buffer = bytearray()
    async for data in stream:
        buffer += data
        *lines, rest = bytes(buffer).split(b"\n") if b"\n" in data else (bytes(buffer),)
        if lines:
            buffer = bytearray(rest)
        if len(buffer) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        for line in lines:
            yield line
