"""`python -m interop.lab [--hosts N] [--delay MS] ... [--on HOST] [-- COMMAND ...]`: a small network to look at.

Hosts are named a, b, c ... and have 10.77.0.1, .2, .3 ...; with --nat each is behind a router of its own, but for a.
The command runs on one of them, else a shell does. In its words {a}, {b} ... stand for the hosts' addresses; its
environment has them as $a, $b ... Its exit status is the lab's.

    python -m interop.lab --delay 10 -- python interop/lab/probe.py ping {b} 7       # b answers on UDP port 7
    python -m interop.lab --hosts 4 --loss 1 --rate 100                              # a shell on a
    python -m interop.lab --hosts 3 --nat symmetric --on b -- python interop/lab/probe.py seen {a}:7

Every host but those behind NATs runs `probe.py serve 7`: it answers on UDP, and takes what comes over TCP. Other hosts
are entered with the commands that are written at the start. While it runs, lines on the file that $LAB names change the
network:

    echo partition a,b c,d > $LAB       echo cut a b > $LAB       echo heal > $LAB
    echo shape b delay=50 loss=1 rate=10 > $LAB
"""

from __future__ import annotations

import argparse
import os
import shlex
import string
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from interop.lab.netns import LabError
from interop.lab.network import Host, Lab, NatKind
from node.tasks import TaskStatus

MAX_HOSTS = len(string.ascii_lowercase)
PROBE = str(Path(__file__).with_name("probe.py"))
PROBE_PORT = "7"


def main(argv: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    first, _, more = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="interop.lab",
        usage="python -m interop.lab [options] [-- COMMAND ...]",
        description=first.rpartition(": ")[2].capitalize(),
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hosts", metavar="N", type=int, default=2, help="how many (default 2)")
    parser.add_argument("--delay", metavar="MS", type=float, help="milliseconds on each host's line, each way")
    parser.add_argument("--loss", metavar="PERCENT", type=float, help="frames that each line loses, each way")
    parser.add_argument("--rate", metavar="MBIT", type=float, help="Mbit/s of each line, each way")
    parser.add_argument("--nat", choices=["cone", "symmetric"], help="every host but a is behind such a router")
    parser.add_argument("--on", metavar="HOST", default="a", help="where the command runs (default a)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="for what is lost (default 1)")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what runs there (default: a shell)")
    args = parser.parse_args(argv)
    if not 1 <= args.hosts <= MAX_HOSTS:
        parser.error(f"expected 1 to {MAX_HOSTS} hosts")
    if args.on not in string.ascii_lowercase[: args.hosts]:
        parser.error(f"expected --on to name one of {', '.join(string.ascii_lowercase[: args.hosts])}")
    given = {name: getattr(args, name) for name in ("delay", "loss", "rate") if getattr(args, name) is not None}
    try:
        return trio.run(run, args.hosts, shape_of(given), args.nat, args.on, args.seed, args.command)
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2


def shape_of(figures: dict[str, float]) -> dict[str, Any]:
    """A shape from milliseconds, percent and Mbit/s. Raises ValueError."""
    units = {"delay": 1e-3, "loss": 1e-2, "rate": 1e6}
    if unknown := figures.keys() - units.keys():
        raise ValueError(f"expected delay, loss or rate, got {', '.join(sorted(unknown))}")
    return {name: value * units[name] for name, value in figures.items()}


async def run(
    hosts: int, shape: dict[str, Any], nat: NatKind | None, on: str, seed: int, command: Sequence[str]
) -> int:
    """Builds the network and runs the command in it; its exit status."""
    async with Lab(seed=seed) as lab, trio.open_nursery() as nursery:
        made: dict[str, Host] = {}
        for name in string.ascii_lowercase[:hosts]:
            # the host's line is the long one, its home's own does nothing
            if nat is not None and name != "a":
                home = await lab.nat(f"{name}-nat", kind=nat)
                made[name] = await lab.host(name, behind=home, **shape)
            else:
                made[name] = await lab.host(name, **({"delay": 0.0} | shape))
                await nursery.start(_serve, made[name])
        addrs = {name: host.addr for name, host in made.items()}
        if not command:
            for name, host in made.items():
                print(f"lab: {name} is {host.addr}: {shlex.join(host.enter)} COMMAND", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="lab-") as folder:
            control = Path(folder) / "control"
            os.mkfifo(control)
            nursery.start_soon(_changes, lab, control)
            words = [_filled(word, addrs) for word in command] or [os.environ.get("SHELL", "sh")]
            done = await trio.run_process(
                [*made[on].enter, *words],
                stdin=None,
                check=False,
                env={**os.environ, **addrs, "LAB": str(control)},
            )
        nursery.cancel_scope.cancel()
    return done.returncode


def _filled(word: str, addrs: dict[str, str]) -> str:
    for name, addr in addrs.items():
        word = word.replace(f"{{{name}}}", addr)
    return word


async def _serve(host: Host, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    """The probe's server, until the lab ends."""
    process = await trio.lowlevel.open_process(
        [*host.enter, sys.executable, "-I", PROBE, "serve", PROBE_PORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    async with process.stdout:
        await process.stdout.receive_some()
        task_status.started()
        async for _ in process.stdout:
            pass  # what it counts is for tests


async def _changes(lab: Lab, control: Path) -> None:
    """Does what the lines say. The file is open for writing too, so that it never ends."""
    descriptor = os.open(control, os.O_RDWR | os.O_NONBLOCK)
    async with trio.lowlevel.FdStream(descriptor) as stream:
        rest = b""
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    await change(lab, line.decode().split())
                except (LabError, ValueError) as error:
                    print(f"lab: {error}", file=sys.stderr)


async def change(lab: Lab, words: Sequence[str]) -> None:
    """One change of the network: partition, cut, heal or shape, as the module says. Raises LabError, ValueError."""
    match words:
        case ["partition", *groups] if groups:
            await lab.partition(*[group.split(",") for group in groups])
        case ["cut", host]:
            await lab.cut(host)
        case ["cut", host, other]:
            await lab.cut(host, other)
        case ["heal"]:
            await lab.heal()
        case ["shape", host, *figures] if host in lab.hosts:
            pairs: dict[str, Any] = dict(figure.split("=", 1) for figure in figures)
            await lab.shape(lab.hosts[host], **shape_of({name: float(value) for name, value in pairs.items()}))
        case _:
            raise ValueError(f"expected partition, cut, heal or shape of a host, got {' '.join(words)!r}")


if __name__ == "__main__":
    sys.exit(main())
