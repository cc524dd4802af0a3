"""A network of hosts on this machine: namespaces on one bridge, some of them behind NATs. For root, on Linux.

async with Lab() as lab:
    a = await lab.host("a", delay=0.02, loss=0.01, rate=100e6)   # its line; a.addr is 10.77.0.1
    b = await lab.host("b", addrs=("10.77.0.9", "fd77::9"))      # a line that does nothing
    home = await lab.nat("home", kind="symmetric")               # a router; c is 192.168.1.2 behind it
    c = await lab.host("c", behind=home)
    peer = Peer.python("--listen", f"/ip4/{a.addr}/tcp/0").within(a.enter)
    await lab.partition({a}, {b, home})                          # c goes with home
    await lab.heal()

A line's figures count in each direction: two hosts with a delay of 10 ms each are 20 ms apart, 40 there and back. The
kernel shapes where it can (`tc netem`), else the lab's keeper does, in user space: `Lab.way`. No route leads out of the
lab or in, and everything goes with it at its end, what still runs in its hosts too. Errors are LabError.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Literal, TypeVar

from interop.lab.line import Shape
from interop.lab.netns import Keeper, LabError, Namespace, has_netem, why_no_nat, why_no_shapes

PREFIXES = {4: 24, 6: 64}
NETWORK = "10.77.0"
HOME = "192.168"
MAX_HOSTS = 253
BRIDGE = "br0"
# frames that a TAP device keeps until the keeper has read them; the line's own queue is what bounds
TAP_QUEUE = 4096
NOBODY = "02:00:00:00:00:00"
# a home's router answers nobody from outside: an early probe's answer would take the port that is to be opened
ROUTER = """
echo 1 > /proc/sys/net/ipv4/ip_forward
iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE {random}
iptables -A INPUT -i eth0 -j DROP
iptables -A FORWARD -i eth0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A FORWARD -i eth0 -j DROP
"""

Way = Literal["netem", "tap"]
NatKind = Literal["cone", "symmetric"]
# with "cone" a port that is free stays the same, whoever is written to; with "symmetric" each destination has its own
_NAT_FLAGS: dict[str, str] = {"cone": "", "symmetric": "--random-fully"}


@dataclass(frozen=True, eq=False)
class Host(Namespace):
    """One host, with `eth0` on its network. `enter` goes before a command that is to run there."""

    name: str
    addrs: tuple[str, ...]
    behind: Nat | None
    port: str  # its place on the bridge
    line: int | None = None  # in the keeper

    @property
    def addr(self) -> str:
        """Its first address."""
        if not self.addrs:
            raise LabError(f"{self.name} has no address")
        return self.addrs[0]


@dataclass(frozen=True, eq=False)
class Nat(Host):
    """A home's router: `addr` is its own outside, hosts behind it are in `network`."""

    network: str = ""
    members: count[int] = field(default_factory=lambda: count(2), repr=False)


Made = TypeVar("Made", bound=Host)


class Lab:
    """One network. `seed` is for what is lost; `way` is how lines are shaped, by default the kernel's where it can."""

    def __init__(self, *, seed: int = 1, way: Way | None = None) -> None:
        self.hosts: dict[str, Host] = {}
        self.way: Way = way or ("netem" if has_netem() else "tap")
        self._keeper = Keeper()
        self._seed = seed
        self._switch = Namespace("", "")
        self._numbers = count(1)
        self._homes = count(1)
        self._bridges = 1
        self._cut: list[tuple[Host, str]] = []

    @property
    def keeper_pid(self) -> int:
        """The process that everything goes with."""
        return self._keeper.pid

    async def __aenter__(self) -> Lab:
        await self._keeper.__aenter__()
        try:
            self._switch = await self._keeper.namespace()
            await self._switch.ip(f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up")
        except BaseException:
            await self._keeper.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._keeper.__aexit__(kind, error, trace)

    async def host(
        self,
        name: str = "",
        *,
        addrs: Iterable[str] | None = None,
        behind: Nat | None = None,
        **shape: Any,
    ) -> Host:
        """One more host, with these addresses (IPv4 in a /24, IPv6 in a /64); None: the next free one.

        `shape` is its line's: `delay`, `loss`, `rate`, `queue` as `Shape` says. A host that is to be shaped later says
        so with `delay=0`: one without any is joined by the kernel alone.
        """
        number = self._next()
        if addrs is None:
            addrs = (f"{NETWORK}.{number}",) if behind is None else (f"{behind.network}.{next(behind.members)}",)
        host = await self._join(Host, name or f"h{number}", number, tuple(addrs), behind, shape)
        if behind is not None:
            await host.ip(f"route add default via {behind.network}.1")
        return host

    async def nat(self, name: str = "", *, kind: NatKind = "cone", **shape: Any) -> Nat:
        """One more home, whose hosts reach the network through one address. `shape` is its line's."""
        if (reason := why_no_nat()) is not None:
            raise LabError(reason)
        number = self._next()
        network = f"{HOME}.{next(self._homes)}"
        made = await self._join(
            Nat, name or f"nat{number}", number, (f"{NETWORK}.{number}",), None, shape, network=network
        )
        await made.ip(
            f"link add {BRIDGE} type bridge",
            f"address add {network}.1/{PREFIXES[4]} dev {BRIDGE}",
            f"link set {BRIDGE} up",
        )
        await made.run(["sh", "-ec", ROUTER.format(random=_NAT_FLAGS[kind])])
        return made

    async def add_addr(self, host: Host, addr: str) -> None:
        """One more address for a host."""
        await host.ip(_address(addr))

    async def shape(self, host: Host, **shape: Any) -> None:
        """Gives a host's line another shape. It must have had one from the start."""
        if host.line is not None:
            await self._keeper.shape(host.line, asdict(Shape(**shape)))
        elif self.way == "netem":
            await self._netem(host, Shape(**shape))
        else:
            raise LabError(f"{host.name} was made without a shape: give it delay=0 to change it later")

    async def counts(self, host: Host) -> dict[str, list[int]]:
        """Frames that its line has "passed", "lost" and "dropped" (the queue was full), from the host and to it.

        Only of lines shaped in user space.
        """
        if host.line is None:
            raise LabError(f"{host.name}'s line isn't shaped in user space")
        return await self._keeper.counts(host.line)

    # what breaks

    async def partition(self, *groups: Iterable[Host | str]) -> None:
        """From now on only hosts of one group reach each other; those not named are one more group. No host notices but
        by its silence. Those behind a NAT go with it. Takes the place of the partition before."""
        ports = [{self._port(host) for host in group} for group in groups]
        named = [port for group in ports for port in group]
        if len(named) != len(set(named)):
            raise LabError("expected each host in one group at most")
        everybody = {host.port for host in self.hosts.values() if host.behind is None}
        await self._separate([everybody - set(named), *ports])

    async def cut(self, host: Host | str, other: Host | str | None = None) -> None:
        """Pulls the host's cable or, with `other`, cuts those two off from each other (both in the same network)."""
        if other is None:
            host = self._host(host)
            place = self._switch if host.behind is None else host.behind
            await place.ip(f"link set {host.port} nomaster")
            return
        pair = self._host(host), self._host(other)
        if pair[0].behind is not pair[1].behind:
            raise LabError(f"{pair[0].name} and {pair[1].name} aren't on one network: cut their NATs")
        for one, there in (pair, pair[::-1]):
            # whatever is for the other goes to nobody; silently, unlike a route that leads nowhere
            for addr in there.addrs:
                await one.ip(f"neighbour replace {addr} lladdr {NOBODY} dev eth0 nud permanent")
                self._cut.append((one, addr))

    async def heal(self) -> None:
        """Undoes all partitions and cuts."""
        await self._separate([{host.port for host in self.hosts.values() if host.behind is None}])
        for host in self.hosts.values():
            if host.behind is not None:
                await host.behind.ip(f"link set {host.port} master {BRIDGE}")
        for host, addr in self._cut:
            await host.ip(f"neighbour del {addr} dev eth0")
        self._cut.clear()

    async def _separate(self, groups: list[set[str]]) -> None:
        lines = []
        for number, group in enumerate(groups):
            bridge = f"br{number}"
            if number == self._bridges:
                lines += [f"link add {bridge} type bridge", f"link set {bridge} up"]
                self._bridges += 1
            lines += [f"link set {port} master {bridge}" for port in sorted(group)]
        if lines:
            await self._switch.ip(*lines)

    # how it is put together

    def _next(self) -> int:
        number = next(self._numbers)
        if number > MAX_HOSTS:
            raise LabError(f"expected at most {MAX_HOSTS} hosts")
        return number

    def _host(self, host: Host | str) -> Host:
        name = host if isinstance(host, str) else host.name
        if name not in self.hosts:
            raise LabError(f"expected one of {', '.join(self.hosts)}, got {name!r}")
        return self.hosts[name]

    def _port(self, host: Host | str) -> str:
        found = self._host(host)
        return found.port if found.behind is None else found.behind.port

    async def _join(
        self,
        make: Callable[..., Made],
        name: str,
        number: int,
        addrs: tuple[str, ...],
        behind: Nat | None,
        shape: dict[str, Any],
        **more: Any,
    ) -> Made:
        if name in self.hosts:
            raise LabError(f"there is a host {name!r} already")
        wanted = Shape(**shape)
        if shape and (reason := why_no_shapes()) is not None:
            raise LabError(reason)
        place = self._switch if behind is None else behind
        space, port, line = await self._keeper.namespace(), f"port{number}", None
        if shape and self.way == "tap":
            seed = self._seed * 1000 + number
            line = await self._keeper.line(((space, "eth0"), (place, port)), asdict(wanted), seed)
            await place.ip(f"link set {port} txqueuelen {TAP_QUEUE} master {BRIDGE} up")
            await space.ip(f"link set eth0 txqueuelen {TAP_QUEUE}")
        else:
            await place.ip(
                f"link add {port} type veth peer name eth0 netns {space.path}", f"link set {port} master {BRIDGE} up"
            )
        host = make(space.path, space.mark, name, addrs, behind, port, line, **more)
        self.hosts[name] = host
        await host.ip(*map(_address, addrs), "link set eth0 up")
        if shape and self.way == "netem":
            # frames are lost and wait one by one, as they would on a wire
            await host.ip("link set eth0 gso_max_segs 1")
            await place.ip(f"link set {port} gso_max_segs 1")
            await self._netem(host, wanted)
        return host

    async def _netem(self, host: Host, shape: Shape) -> None:
        place = self._switch if host.behind is None else host.behind
        for space, device in ((host, "eth0"), (place, host.port)):
            await space.run(netem_command(device, shape))


def netem_command(device: str, shape: Shape) -> list[str]:
    """What gives a device that shape, where the kernel can."""
    return ["tc", "qdisc", "replace", "dev", device, "root", "netem", *shape.netem()]


def _address(addr: str) -> str:
    version = ipaddress.ip_address(addr).version
    # nobody else can have it: no second of waiting to find out
    flags = " nodad" if version == 6 else ""
    return f"address add {addr}/{PREFIXES[version]} dev eth0{flags}"
