"""A peer in a process of its own, driven from here.

async with Peer.go("--network-id", "harbour") as peer:      # started and listening; ended at the block's end
    await peer.call("connect", addr)                        # its reply, or PeerError
    await peer.event("admitted", peer=node.peer_id)

How they are started; `process` is how they live. `Peer.python` is `vouch run`: its JSON log lines are its events, and
its control socket takes the commands, made to look the same.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import trio

from interop.build import RECIPES
from interop.process import CALL_TIMEOUT, EVENT_TIMEOUT, ROOT, START_TIMEOUT, LineProcess, Message, PeerError
from node.api.client import Client, NoNodeError
from node.errors import VouchError

__all__ = ["EVENT_TIMEOUT", "ROOT", "Message", "Peer", "PeerError"]

# `vouch run` logs nothing between its start and the opening of its control socket
SOCKET_POLL = 0.02
# before a multihash in hex: base16, CIDv1, raw bytes
RAW_CID = "f0155"


class Peer(LineProcess):
    """One peer: that of another language, or any program that speaks as it does."""

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
        with Client(self._socket, timeout=CALL_TIMEOUT) as client:
            return client.call(name, **params)


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
