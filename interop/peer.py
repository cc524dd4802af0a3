"""A peer in a process of its own, driven from here.

async with Peer.go("--network-id", "harbour") as peer:      # started and listening; ended at the block's end
    await peer.call("connect", addr)                        # its reply, or PeerError
    await peer.event("admitted", peer=node.peer_id)

A peer prints one JSON object a line (`interop/go/main.go`): {"event": "listening", "peer": ID, "addrs": [...]} first,
{"reply": COMMAND, "ok": true, ...} for each line that it reads, in order, and events as they happen. `Peer.python`
is `vouch run`: its JSON log lines are its events, and its control socket takes the commands, made to look the same.

    starting --listening--> running --block ends--> asked to stop --END_TIMEOUT--> killed
                               \\--ends by itself--> every wait raises PeerError with what it wrote to standard error

Standard output is read all the time, or the peer would stall: the last MAX_EVENTS events are kept. The process never
outlives the block. What a reply means is left to the caller.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import Any

import trio

from interop.build import RECIPES
from node.api.client import Client, NoNodeError
from node.errors import VouchError

ROOT = Path(__file__).parents[1]
START_TIMEOUT = 30.0
CALL_TIMEOUT = 30.0
EVENT_TIMEOUT = 15.0
END_TIMEOUT = 5.0
LAST_WORDS = 1.0
# `vouch run` logs nothing between its start and the opening of its control socket
SOCKET_POLL = 0.02
MAX_EVENTS = 4096
MAX_LINE = 8 << 20
MAX_STDERR = 64 << 10
# before a multihash in hex: base16, CIDv1, raw bytes
RAW_CID = "f0155"

Message = dict[str, Any]


class PeerError(Exception):
    """A command that failed, an event that didn't come, or a process that ended. `reply` is the peer's, if there is."""

    def __init__(self, text: str, reply: Message | None = None) -> None:
        super().__init__(text)
        self.reply = reply or {}


class Peer:
    """One process that speaks lines: the Go peer, or any program that speaks as it does.

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

    @classmethod
    def go(cls, *flags: str) -> Peer:
        """The Go peer, which must have been built. Its flags: interop/go/main.go."""
        return cls("go peer", [str(RECIPES["go"].binary), *flags])

    @classmethod
    def js(cls, *flags: str) -> Peer:
        """The JavaScript peer, which must have been built. Its flags: interop/js/main.js."""
        return cls("js peer", [str(RECIPES["js"].binary), *flags])

    @classmethod
    def rust(cls, *flags: str) -> Peer:
        """The Rust peer, which must have been built. Its flags: interop/rust/src/options.rs."""
        return cls("rust peer", [str(RECIPES["rust"].binary), *flags])

    @classmethod
    def program(cls, module: str, *args: str, environ: Mapping[str, str] | None = None) -> Peer:
        """A Python program that speaks lines as the Go peer does."""
        return cls(" ".join((module, *args)), [sys.executable, "-m", module, *args], environ=environ)

    @classmethod
    def python(cls, *flags: str) -> Peer:
        """`vouch run` with those flags, on loopback and in a data directory of its own."""
        return _VouchRun(*flags)

    def within(self, enter: Sequence[str]) -> Peer:
        """The same peer, to be started by a command that goes before its own, as `Host.enter` of the lab does."""
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

    async def __aenter__(self) -> Peer:
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


class _VouchRun(Peer):
    """`vouch run`. Commands: connect, disconnect, peers, ping, table, status; find-peer, put, get, provide,
    find-providers.
    """

    def __init__(self, *flags: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vouch-")
        data_dir = Path(self._folder.name)
        self._socket = data_dir / "control.sock"
        listens = any(flag.partition("=")[0] == "--listen" for flag in flags)
        listen = () if listens else ("--listen", "/ip4/127.0.0.1/tcp/0")
        command = [sys.executable, "-m", "node", "run", "--log-format", "json", "--data-dir", str(data_dir)]
        # the settings are the flags' and nobody else's
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VOUCH_")}
        super().__init__("vouch run", [*command, *listen, *flags], environ=environ)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await super().__aexit__(kind, error, trace)
        finally:
            self._folder.cleanup()

    async def _started(self) -> None:
        self.peer_id = (await self.event("started", timeout=START_TIMEOUT))["peer"]
        with self._within(START_TIMEOUT, "its control socket"):
            while not self.addrs:
                try:
                    self.addrs = (await self._ask("status", ()))["addrs"]
                except NoNodeError:
                    with trio.move_on_after(SOCKET_POLL):
                        await self._change()

    async def _ask_to_stop(self, process: trio.Process) -> None:
        process.send_signal(signal.SIGTERM)

    async def _ask(self, command: str, args: Sequence[str]) -> Message:
        call, params = _control_call(command, args)
        try:
            # a new connection for each call: one that was given up half way can't confuse the next
            result = await trio.to_thread.run_sync(
                partial(self._call, call, params),
                abandon_on_cancel=True,  # type: ignore[call-arg]  # trio-typing's stubs are older than it
            )
        except NoNodeError as error:
            if not self.addrs:
                raise
            raise PeerError(f"{self.name}: {error}") from error
        except VouchError as error:
            return {"reply": command, "ok": False, "error": str(error), "kind": type(error).__name__}
        return {"reply": command, "ok": True, **_like_the_others(command, result)}

    def _call(self, name: str, params: Message) -> Message:
        with Client(self._socket) as client:
            return client.call(name, timeout=CALL_TIMEOUT, **params)


def _control_call(command: str, args: Sequence[str]) -> tuple[str, Message]:
    """A command in the control socket's words."""
    match command, *args:
        case "connect", addr:
            return "connect", {"address": addr}
        case "disconnect", peer:
            return "disconnect", {"peer": peer}
        case "ping", peer:
            return "ping", {"target": peer}
        case "ping", peer, count:
            return "ping", {"target": peer, "count": int(count)}
        case "find-peer", peer:
            return "find_peer", {"peer": peer}
        case "put", key, value:
            return "dht_put", {"key": key, "value": value}
        case "get", key:
            return "dht_get", {"key": key}
        case "provide", multihash:
            return "dht_provide", {"cid": RAW_CID + multihash}
        case "find-providers", multihash:
            return "dht_find_providers", {"cid": RAW_CID + multihash}
        case "find-providers", multihash, limit:
            return "dht_find_providers", {"cid": RAW_CID + multihash, "limit": int(limit)}
        case "peers", *none if not none:
            return "peers", {}
        case "table" | "status", *none if not none:
            return "status", {}
    raise PeerError(f"vouch run has no command {' '.join((command, *args))!r}")


def _like_the_others(command: str, result: Message) -> Message:
    """A result with the fields of the other peers' replies."""
    match command:
        case "connect":
            return {**result, "total_ms": result["seconds"] * 1000}
        case "ping":
            return {**result, "ok": not result["lost"], "rtt_us": [rtt * 1e6 for rtt in result["rtts"]]}
        case "find-peer":
            return {**result, "found": bool(result["addrs"])}
        case "put" | "provide":
            return {"stored": result["peers"]}
        case "table":
            return {"peers": result["routing_table"]}
        case "peers":
            return {"peers": [{**peer, "admitted": True} for peer in result["peers"]]}
    return result


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
