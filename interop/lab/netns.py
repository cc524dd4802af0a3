"""Hosts of their own on one link, on this machine: network namespaces joined by a bridge. For root, on Linux.

async with Lab() as lab:                        # a bridge, in a namespace of its own
    a = await lab.host("10.77.0.1")             # or fd77::1, or both: another namespace, with eth0 on the bridge
    await a.run(["ping", "-c", "1", "10.77.0.2"])
    peer = Peer.python("--mdns", "on", ...).within(a.enter)

A namespace has no name; it lives while a process holds it, and that process ends when its input does: however a run
ends, killed or not, nothing of it stays. The machine's own namespace isn't touched, no route leads out of the lab or
in. What still runs in a host when the lab ends is left to who started it.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from types import TracebackType

import trio

PREFIXES = {4: 24, 6: 64}
START_TIMEOUT = 10.0
RUN_TIMEOUT = 30.0
BRIDGE = "br0"
_TOOLS = ("ip", "unshare", "nsenter")
_READY = b"ready\n"


class LabError(Exception):
    """A command of the lab's failed; the text is what it wrote."""


@cache
def why_not() -> str | None:
    """Why there can be no lab here; None if there can."""
    if sys.platform != "linux":
        return f"network namespaces need Linux, this is {sys.platform}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"the lab needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    made = "ip link add t0 type veth peer name t1 && ip link add t2 type bridge"
    done = subprocess.run(["unshare", "--net", "sh", "-c", made], capture_output=True, text=True, check=False)
    return f"no network namespaces here: {done.stderr.strip()}" if done.returncode else None


@dataclass(frozen=True)
class Host:
    """One host. `enter` goes before a command that is to run there."""

    addrs: tuple[str, ...]
    pid: int

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")

    async def run(self, command: Sequence[str], *, timeout: float = RUN_TIMEOUT) -> str:
        """Runs a command there; what it printed. Raises LabError with what it wrote, TooSlowError."""
        with trio.fail_after(timeout):
            done = await trio.run_process(
                [*self.enter, *command], capture_stdout=True, capture_stderr=True, check=False
            )
        if done.returncode:
            raise LabError(f"{' '.join(command)}: status {done.returncode}, {done.stderr.decode().strip()}")
        return done.stdout.decode()


class Lab:
    """One bridge and the hosts on it."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self._stack = AsyncExitStack()
        self._switch = Host((), 0)

    async def __aenter__(self) -> Lab:
        async with AsyncExitStack() as stack:
            self._stack = stack
            self._switch = await self._namespace(())
            await self._switch.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
            await self._switch.run(["ip", "link", "set", BRIDGE, "up"])
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self._stack.aclose()

    async def host(self, *addrs: str) -> Host:
        """One more host on the bridge, with these addresses (IPv4 in a /24, IPv6 in a /64) on its `eth0`.

        Raises LabError.
        """
        host = await self._namespace(addrs)
        port = f"port{len(self.hosts)}"
        self.hosts.append(host)
        link = ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
        await self._switch.run(link)
        await self._switch.run(["ip", "link", "set", port, "master", BRIDGE, "up"])
        await host.run(["ip", "link", "set", "lo", "up"])
        for addr in addrs:
            await self.add_addr(host, addr)
        await host.run(["ip", "link", "set", "eth0", "up"])
        return host

    async def add_addr(self, host: Host, addr: str) -> None:
        """One more address for a host. Raises LabError."""
        version = ipaddress.ip_address(addr).version
        # nobody else can have it: no second of waiting to find out
        flags = ["nodad"] if version == 6 else []
        await host.run(["ip", "address", "add", f"{addr}/{PREFIXES[version]}", "dev", "eth0", *flags])

    async def _namespace(self, addrs: tuple[str, ...]) -> Host:
        holder = await trio.lowlevel.open_process(
            ["unshare", "--net", "sh", "-c", f"printf '{_READY.decode().strip()}\\n'; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._stack.push_async_callback(_end, holder)
        assert holder.stdout is not None
        with trio.fail_after(START_TIMEOUT):
            if await holder.stdout.receive_some(len(_READY)) != _READY:
                raise LabError(f"expected a network namespace, got none: {why_not() or 'unshare failed'}")
        return Host(addrs, holder.pid)


async def _end(holder: trio.Process) -> None:
    holder.kill()
    for pipe in (holder.stdin, holder.stdout):
        assert pipe is not None
        await pipe.aclose()
    await holder.wait()
