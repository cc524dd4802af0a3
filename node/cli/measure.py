"""`vouch measure propagation`: real nodes on this machine, and how long messages take to each of them.

    N processes of `vouch run` --> links between them (`propagation.links`) --> meshes --> M publishes, R a second
                                          every node's deliveries, over its control socket --> Spread --> result

Times are read inside the nodes, on the machine's monotonic clock, which all processes share: what the measuring itself
costs isn't in them, but for the CPU it takes. Progress goes to standard error. Exit status 1 if a message didn't arrive
everywhere.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from node.api.client import Client
from node.cli.processes import EndedError, Nodes, noted_signals, raise_noted
from node.cli.propagation import Propagation, Spread, links, markdown
from node.errors import UsageError, VouchError

MAX_NODES = 64
MAX_MESSAGES = 100_000
MIN_SIZE = 16  # a number, and some random bytes, so that no two are the same
MAX_PAYLOAD = 1_040_384
TOPIC = "propagation"
STARTS_AT_ONCE = 4
START_TIMEOUT = 60.0  # seconds for one node to answer
MESH_TIMEOUT = 15.0
SETTLE_TIMEOUT = 10.0  # for the last deliveries; gossip repairs within three heartbeats
MESH_LOW = 5  # a mesh is formed once it has so many links, or all there are
HEARTBEAT = 1.0
POLL = 0.1
FLAGS = ("--topic", TOPIC, "--dht", "off", "--pool", "off", "--log-level", "warning")

Report = Callable[[str], None]


def propagation(args: argparse.Namespace) -> int:
    """Measures, and tells the result."""
    if not 2 <= args.nodes <= MAX_NODES:
        raise UsageError(f"--nodes: expected at least 2 and at most {MAX_NODES}, got {args.nodes}")
    if not MIN_SIZE <= args.size <= MAX_PAYLOAD:
        raise UsageError(f"--size: expected {MIN_SIZE} to {MAX_PAYLOAD} bytes, got {args.size}")
    if args.messages > MAX_MESSAGES:
        raise UsageError(f"--messages: expected at most {MAX_MESSAGES}, got {args.messages}")
    if args.out is not None:
        _make_folder(args.out)
    result, spread = measure(
        args.nodes,
        args.messages,
        args.size,
        rate=args.rate,
        seed=args.seed,
        full_mesh=args.full_mesh,
        report=lambda text: print(f"vouch: {text}", file=sys.stderr, flush=True),
    )
    print(json.dumps(result.as_dict()) if args.json else markdown(result), flush=True)
    if args.out is not None:
        write(args.out, result, spread.delays())
    if result.coverage < 1:
        print(f"vouch: error: expected every message everywhere, got {result.coverage:.2%}", file=sys.stderr)
        return 1
    return 0


def measure(
    nodes: int,
    messages: int,
    size: int,
    *,
    rate: float,
    seed: int,
    full_mesh: bool = False,
    report: Report = lambda _text: None,
) -> tuple[Propagation, Spread]:
    """Starts the nodes, measures, and ends them, whatever happens. Raises VouchError."""
    pairs = links(nodes, seed, full_mesh=full_mesh)
    with noted_signals() as noted, tempfile.TemporaryDirectory(prefix="vouch-measure-") as folder:
        network = _Network(Nodes(Path(folder), MAX_NODES), lambda: raise_noted(noted))
        try:
            report(f"starting {nodes} nodes")
            network.start(nodes)
            report(f"linking them, {len(pairs)} links")
            network.link(pairs)
            with network.listening() as spread:
                network.await_meshes(pairs)
                quiet = network.totals()
                network.rest(2 * HEARTBEAT)  # the meshes come to rest; and what nodes cost that only wait is seen
                before = network.totals()
                network.publish(spread, messages, size, rate, random.Random(seed), report)
                network.settle(spread, messages * (nodes - 1))
                after = network.totals()
        except EndedError as error:
            print(error.log, file=sys.stderr)
            raise
        finally:
            network.nodes.stop()
    idle = (before.cpu_ns - quiet.cpu_ns) / (before.at - quiet.at)
    result = spread.summary(
        nodes=nodes,
        links=len(pairs),
        messages=messages,
        size=size,
        rate=rate,
        seed=seed,
        duplicates=after.duplicates - before.duplicates,
        received=after.received - before.received,
        cpu_ns=max(0, round(after.cpu_ns - before.cpu_ns - idle * (after.at - before.at))),
    )
    return result, spread


class _Totals(NamedTuple):
    """Sums over all nodes: copies that came again, bytes of pubsub received, nanoseconds of CPU; and when."""

    at: float
    duplicates: int
    received: int
    cpu_ns: int


class _Network:
    """The nodes while they are measured, numbered from 0. `check` raises if we are to end."""

    def __init__(self, nodes: Nodes, check: Callable[[], None]) -> None:
        self.nodes = nodes
        self._check = check
        self._peers: dict[int, str] = {}
        self._clients: dict[int, Client] = {}

    def start(self, count: int) -> None:
        """Starts the nodes, STARTS_AT_ONCE at a time, and waits for their answers."""
        starting: dict[int, float] = {}
        while len(self._peers) < count:
            while len(starting) < STARTS_AT_ONCE and len(self.nodes.processes) < count:
                number = len(self.nodes.processes)
                self.nodes.start(number, *FLAGS)
                starting[number] = time.monotonic() + START_TIMEOUT
            for number, give_up in list(starting.items()):
                status = self.nodes.status(number)
                if status is not None:
                    self._peers[number] = status["peer_id"]
                    del starting[number]
                elif time.monotonic() > give_up:
                    raise VouchError(f"node {number} didn't start within {START_TIMEOUT:g} s")
            self._pause()

    def link(self, pairs: Sequence[tuple[int, int]]) -> None:
        with ExitStack() as stack:
            clients = {number: stack.enter_context(self.nodes.client(number)) for number in self._peers}
            for number, other in pairs:
                self._check()
                clients[number].call("connect", address=self.nodes.addrs[other])

    @contextmanager
    def listening(self) -> Iterator[Spread]:
        """What the nodes deliver from now on, and clients to ask them by."""
        spread, lock = Spread(), threading.Lock()
        with ExitStack() as stack:
            self._clients = {number: stack.enter_context(self.nodes.client(number)) for number in self._peers}
            for number in self._peers:
                client = self.nodes.client(number)
                joined = threading.Event()
                thread = threading.Thread(
                    target=_listen, args=(client, self._peers[number], spread, lock, joined), daemon=True
                )
                stack.callback(thread.join)
                stack.callback(client.shut)
                thread.start()
                if not joined.wait(START_TIMEOUT):
                    raise VouchError(f"node {number} didn't join {TOPIC} within {START_TIMEOUT:g} s")
            yield spread

    def await_meshes(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Waits until the meshes have formed."""
        degree = {number: sum(number in pair for pair in pairs) for number in self._peers}
        wanted = {number: min(MESH_LOW, degree[number]) for number in self._peers}
        give_up = time.monotonic() + MESH_TIMEOUT
        while True:
            small = [number for number in wanted if self._mesh(number) < wanted[number]]
            if not small:
                break
            if time.monotonic() > give_up:
                raise VouchError(f"the meshes of nodes {small} have few links after {MESH_TIMEOUT:g} s")
            self._pause()

    def publish(
        self, spread: Spread, messages: int, size: int, rate: float, rng: random.Random, report: Report
    ) -> None:
        """Publishes at a steady rate, each message at a node drawn by lot."""
        began = reported = time.monotonic()
        for number in range(messages):
            while (left := began + number / rate - time.monotonic()) > 0:
                self._check()
                time.sleep(min(left, POLL))
            payload = (number.to_bytes(8, "big") + os.urandom(8)).ljust(size, b".")
            node = rng.randrange(len(self._peers))
            answer = self._clients[node].call("publish", topic=TOPIC, payload=base64.b64encode(payload).decode())
            spread.sent(answer["message_id"], self._peers[node], answer["published_ns"])
            if time.monotonic() - reported > 5:
                reported = time.monotonic()
                report(f"published {number + 1} of {messages}")

    def settle(self, spread: Spread, expected: int) -> None:
        """Waits until everything has arrived, or it has had its time."""
        give_up = time.monotonic() + SETTLE_TIMEOUT
        while spread.deliveries < expected and time.monotonic() < give_up:
            self._pause()
            for number in self._peers:
                self.nodes.check(number)

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._pause()

    def totals(self) -> _Totals:
        states = [client.call("gossip") for client in self._clients.values()]
        sums = (sum(state[name] for state in states) for name in ("duplicates", "bytes_received", "cpu_ns"))
        return _Totals(time.monotonic(), *sums)

    def _mesh(self, number: int) -> int:
        topics = self._clients[number].call("gossip")["topics"]
        return sum(len(topic["mesh"]) for topic in topics if topic["topic"] == TOPIC)

    def _pause(self) -> None:
        self._check()
        time.sleep(POLL)


def _listen(client: Client, peer: str, spread: Spread, lock: threading.Lock, joined: threading.Event) -> None:
    """One node's deliveries, until the client is shut."""
    with client:
        try:
            for item in client.stream("subscribe", topic=TOPIC, payload=False):
                if item["event"] == "message":
                    with lock:
                        spread.came(item["message_id"], peer, item["forwarder"], item["received_ns"])
                joined.set()
        except VouchError:
            pass  # shut, or the node is gone, which the main thread sees


def write(folder: Path, result: Propagation, delays: Sequence[float]) -> None:
    """The result as propagation.json, .md, and .png where matplotlib is. Raises UsageError."""
    try:
        (folder / "propagation.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
        (folder / "propagation.md").write_text(markdown(result) + "\n")
        if not _draw(folder / "propagation.png", result, delays):
            print("vouch: matplotlib isn't installed: no PNG (it is in the extra `bench`)", file=sys.stderr)
    except OSError as error:
        raise UsageError(f"--out {folder}: expected to write there, got: {error.strerror}") from error


def _draw(file: Path, result: Propagation, delays: Sequence[float]) -> bool:
    """The delays as a histogram, and the part of deliveries that came within each. False without matplotlib."""
    try:
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(7.0, 4.0), layout="constrained")
    except ImportError:
        return False
    axes = figure.add_subplot()
    milliseconds = [delay * 1000 for delay in delays]
    axes.hist(milliseconds, bins=40, color="#a9b4bd")
    axes.set_xlabel("ms from publish to delivery")
    axes.set_ylabel("deliveries")
    axes.set_xlim(left=0)
    within = axes.twinx()
    within.plot(milliseconds, [(at + 1) / len(delays) for at in range(len(delays))], color="#2a6f97")
    within.set_ylim(0, 1.02)
    within.set_ylabel("part that came within")
    axes.set_title(f"{result.nodes} nodes, {result.messages} messages of {result.size} bytes", fontsize=10)
    figure.savefig(file, format="png", dpi=110)
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: expected a folder, got: {error.strerror}") from error
