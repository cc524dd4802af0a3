"""The control socket: its calls on a real node, and what it takes from clients that don't behave."""

from __future__ import annotations

import json
import socket
import time
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from node import Config, Identity, Node
from node.api import control, functions
from node.api.client import Client, NoNodeError
from node.api.control import MAX_LINE
from node.datadir import socket_address
from node.errors import BackoffError, DialError, NotConnectedError, RefusedError, TooSlowError, UsageError, VouchError
from tests.nodes import eventually

# nothing here takes a second; past this a test hangs
DEADLINE = 20.0
NETWORK = "control-tests"
STRANGER = Identity.generate().peer_id


@asynccontextmanager
async def node_at(data_dir, **more):
    """A node on loopback."""
    settings = {"network_id": NETWORK, "listen": ("/ip4/127.0.0.1/tcp/0",), "data_dir": data_dir, "pool": "off"}
    settings |= more
    async with Node(Config(**settings), identity=Identity.generate()) as node:
        yield node


@asynccontextmanager
async def serving(node):
    """The node's control socket, until the block ends."""
    node.config.data_dir.mkdir(parents=True, exist_ok=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, node)
        yield node
        nursery.cancel_scope.cancel()


@pytest.fixture
async def node(tmp_path):
    async with node_at(tmp_path / "data") as made, serving(made):
        yield made


@pytest.fixture
async def other(tmp_path):
    async with node_at(tmp_path / "other") as made:
        yield made


async def ask(node, name, **params):
    """One call by a client of its own, as the commands make it."""

    def call():
        with Client(node.config.control_socket, timeout=DEADLINE) as client:
            return client.call(name, **params)

    return await trio.to_thread.run_sync(call)


class Raw:
    """A client that sends whatever it likes."""

    def __init__(self, stream):
        self.stream = stream
        self._buffer = b""

    async def send(self, data):
        await self.stream.send_all(data)

    async def answer(self):
        """The next line, or None at the end."""
        while b"\n" not in self._buffer:
            with trio.fail_after(DEADLINE):
                data = await self.stream.receive_some()
            if not data:
                assert self._buffer == b""
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    async def ask(self, call, number=1, **params):
        await self.send(json.dumps({"id": number, "call": call, "params": params}).encode() + b"\n")
        return await self.answer()


@asynccontextmanager
async def raw_client(node):
    async with await trio.open_unix_socket(node.config.control_socket) as stream:
        yield Raw(stream)


@pytest.fixture
def call_as(monkeypatch):
    """Adds a call without parameters for the test."""

    def add(name, function):
        async def call(_node, _params):
            return await function()

        monkeypatch.setitem(functions.CALLS, name, functions.Call(call, functions.Nothing))

    return add


# the calls


async def test_status_of_a_node_alone(node):
    status = await ask(node, "status")
    assert status["peer_id"] == node.peer_id
    assert status["network_id"] == NETWORK
    assert status["client_version"] == node.config.client_version
    assert status["addrs"] == node.addrs
    assert status["addrs"][0].endswith("/p2p/" + node.peer_id)
    assert 0 <= status["uptime"] < DEADLINE
    assert (status["peers"], status["inbound"], status["outbound"]) == (0, 0, 0)
    assert status["routing_table"] == []
    assert node.config.kademlia_protocol in status["protocols"]
    assert status["limits"] == {
        "max_connections": {"used": 0, "limit": 256},
        "max_inbound": {"used": 0, "limit": 192},
        "max_half_open": {"used": 0, "limit": 32},
        "max_control_clients": {"used": 1, "limit": 16},
    }
    assert await ask(node, "peers") == {"peers": []}


async def test_connect_peers_status_disconnect(node, other):
    address = other.addrs[0]
    connected = await ask(node, "connect", address=address)
    assert connected["peer"] == other.peer_id
    assert connected["addr"] == address
    assert connected["direction"] == "outbound"
    assert connected["already"] is False
    assert 0 < connected["seconds"] < DEADLINE
    assert (await ask(node, "connect", address=address))["already"] is True

    await eventually(lambda: other.peer_id in node.identify.known)
    (peer,) = (await ask(node, "peers"))["peers"]
    assert (peer["peer"], peer["addr"], peer["direction"]) == (other.peer_id, address, "outbound")
    assert peer["client_version"] == peer["agent"] == other.config.client_version
    assert 0 <= peer["connected_for"] < DEADLINE

    await eventually(lambda: node.dht.table() == [other.peer_id])
    status = await ask(node, "status")
    assert (status["peers"], status["inbound"], status["outbound"]) == (1, 0, 1)
    assert status["routing_table"] == [other.peer_id]
    assert status["limits"]["max_connections"]["used"] == 1

    assert await ask(node, "disconnect", peer=other.peer_id) == {}
    assert await ask(node, "peers") == {"peers": []}
    await eventually(lambda: other.connected_peers() == [])


async def test_an_inbound_peer_is_shown_as_such(node, other):
    await other.connect(node.addrs[0])
    await eventually(lambda: node.connected_peers() == [other.peer_id])
    (peer,) = (await ask(node, "peers"))["peers"]
    assert peer["direction"] == "inbound"
    status = await ask(node, "status")
    assert (status["peers"], status["inbound"], status["outbound"]) == (1, 1, 0)


async def test_ping_by_address_and_by_peer_id(node, other):
    answer = await ask(node, "ping", target=other.addrs[0])
    assert (answer["peer"], answer["lost"], answer["error"]) == (other.peer_id, 0, "")
    assert len(answer["rtts"]) == 1
    answer = await ask(node, "ping", target=other.peer_id, count=3, interval=0.01)
    assert len(answer["rtts"]) == 3
    assert all(0 < rtt < DEADLINE for rtt in answer["rtts"])


async def test_find_peer(node, other):
    await ask(node, "connect", address=other.addrs[0])
    await eventually(lambda: other.peer_id in node.identify.known)
    found = await ask(node, "find_peer", peer=other.peer_id)
    assert found["peer"] == other.peer_id
    plain = other.addrs[0].removesuffix("/p2p/" + other.peer_id)
    assert plain in {addr.removesuffix("/p2p/" + other.peer_id) for addr in found["addrs"]}
    assert await ask(node, "find_peer", peer=STRANGER) == {"peer": STRANGER, "addrs": []}


# errors arrive as what they are


async def test_errors_keep_their_class_and_text(node):
    with pytest.raises(NotConnectedError) as error:
        await ask(node, "ping", target=STRANGER)
    assert str(error.value) == f"there is no connection to {STRANGER}: give its address, or `vouch connect` first"
    with pytest.raises(NotConnectedError, match=f"there is no connection to {STRANGER}"):
        await ask(node, "disconnect", peer=STRANGER)
    with pytest.raises(UsageError, match=r"expected an address such as .*, got 'nonsense'"):
        await ask(node, "connect", address="nonsense")
    with pytest.raises(UsageError, match=r"expected a peer ID such as .*, got 'no-one'"):
        await ask(node, "ping", target="no-one")
    with pytest.raises(DialError, match="is this node itself"):
        await ask(node, "connect", address=node.addrs[0])


async def test_nobody_listens_there(node):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and is nobody else's
        address = f"/ip4/127.0.0.1/tcp/{bound.getsockname()[1]}/p2p/{STRANGER}"
        with pytest.raises(DialError, match=f"{STRANGER} can't be reached: "):
            await ask(node, "connect", address=address)


async def test_another_network_refuses_and_is_left_alone(node, tmp_path):
    async with node_at(tmp_path / "other", network_id="another") as other:
        with pytest.raises(RefusedError, match=other.peer_id):
            await ask(node, "connect", address=other.addrs[0])
        with pytest.raises(BackoffError, match=r"refused .*lately"):
            await ask(node, "connect", address=other.addrs[0])


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "ping: Object missing required field `target`"),
        ({"target": 7}, r"ping: Expected `str`, got `int` - at `\$.target`"),
        ({"target": STRANGER, "count": "3"}, r"ping: Expected `int`, got `str` - at `\$.count`"),
        ({"target": STRANGER, "often": 3}, "ping: Object contains unknown field `often`"),
        (
            {"target": STRANGER, "count": 0},
            "expected at least one ping, and 30 s at most in all, got 0 that are 0 s apart",
        ),
        ({"target": STRANGER, "count": 30_001}, "expected at least one ping, and 30 s at most in all"),
        ({"target": STRANGER, "interval": -1.0}, "expected at least one ping, and 30 s at most in all"),
        ({"target": STRANGER, "interval": 31}, "expected at least one ping, and 30 s at most in all"),
    ],
)
async def test_bad_parameters(node, params, text):
    with pytest.raises(UsageError, match=text):
        await ask(node, "ping", **params)


async def test_unknown_call(node):
    with pytest.raises(UsageError) as error:
        await ask(node, "halt")
    assert str(error.value) == (
        "expected one of the calls add_peer, addressbook, addressbook_import, ban, bans, config, connect, "
        "dht_find_providers, dht_get, dht_provide, dht_put, dht_withdraw, disconnect, discover, events, find_peer, "
        "gossip, loglevel, mesh, metrics, metrics_snapshot, peer, peers, perf, ping, protect_peer, publish, ready, "
        "registrations, remove_peer, set_loglevel, status, subscribe, topics, unban, unprotect_peer, "
        "verdict, got 'halt'"
    )


async def test_find_peer_without_a_hash_table(tmp_path):
    async with node_at(tmp_path, dht="off") as node, serving(node):
        with pytest.raises(UsageError, match='this node runs with "off"'):
            await ask(node, "find_peer", peer=STRANGER)


# clients that don't behave


@pytest.mark.parametrize(
    "line",
    [
        b"status",
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"id": 1}',
        b'{"id": "one", "call": "status"}',
        b'{"id": 1, "call": "status", "params": {}, "more": 1}',
        b'{"id": 1, "call": "status"} {"id": 2, "call": "status"}',
        b"\xff\xfe",
        b"GET / HTTP/1.1\r",
        b'{"id": 1, "call": "\xff"}',
        b'{"id": 1, "call": "status", "params": ' + b"[" * 30_000,
    ],
)
async def test_a_line_that_is_no_request(node, line):
    async with raw_client(node) as client:
        await client.send(line + b"\n")
        answer = await client.answer()
        assert (answer["id"], answer["error"]["kind"]) == (0, "UsageError")
        assert answer["error"]["message"].startswith('expected {"id": N, "call": NAME, "params": {...}}: ')
        assert "result" in await client.ask("status")  # the same connection still serves
    assert (await ask(node, "status"))["peer_id"] == node.peer_id


@pytest.mark.parametrize("params", [b"null", b"[]", b"7", b'"text"'])
async def test_parameters_that_are_no_object(node, params):
    async with raw_client(node) as client:
        await client.send(b'{"id": 5, "call": "status", "params": ' + params + b"}\n")
        answer = await client.answer()
        assert (answer["id"], answer["error"]["kind"]) == (5, "UsageError")


async def test_parameters_may_be_left_out(node):
    async with raw_client(node) as client:
        await client.send(b'{"id": 5, "call": "peers"}\n')
        assert await client.answer() == {"id": 5, "result": {"peers": []}}


async def test_requests_at_once_and_in_pieces_are_answered_in_order(node):
    requests = b"".join(b'{"id": %d, "call": "peers"}\n' % number for number in range(20))
    async with raw_client(node) as client:
        await client.send(requests[:100])
        await client.send(requests[100:])
        assert [(await client.answer())["id"] for _ in range(20)] == list(range(20))


async def test_a_long_line_is_answered(node):
    name = "x" * (MAX_LINE - 100)
    async with raw_client(node) as client:
        answer = await client.ask(name)
        assert answer["error"]["kind"] == "UsageError"
        assert "result" in await client.ask("status")


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_that_is_too_long_ends_the_client(node, end):
    line = b'{"id": 1, "call": "peers", "params": {}}' + b" " * MAX_LINE
    async with raw_client(node) as client:
        await client.send(line + end)
        answer = await client.answer()
        assert answer == {
            "id": 0,
            "error": {"kind": "UsageError", "message": f"expected a request of at most {MAX_LINE} bytes on one line"},
        }
        with suppress(trio.BrokenResourceError):  # that is how a close looks that leaves bytes of ours unread
            assert await client.answer() is None
    assert (await ask(node, "status"))["peer_id"] == node.peer_id


async def test_more_clients_than_allowed(tmp_path):
    async with node_at(tmp_path, max_control_clients=2) as node, serving(node):
        async with raw_client(node) as first, raw_client(node) as second:
            assert "result" in await first.ask("peers")
            assert "result" in await second.ask("peers")
            with pytest.raises(VouchError, match="there are 2 clients, and max_control_clients is 2"):
                await ask(node, "peers")
            assert "result" in await first.ask("peers")  # those within are served on

        with trio.fail_after(DEADLINE):
            while True:  # the node has yet to see that they are gone
                with suppress(VouchError):
                    await ask(node, "peers")
                    break
                await trio.sleep(0.005)


async def test_a_client_that_goes_away_in_the_middle_of_a_call(node, call_as):
    called, go_on, done = trio.Event(), trio.Event(), trio.Event()

    async def slow():
        called.set()
        await go_on.wait()
        done.set()
        return {"text": "x" * 1_000_000}  # more than the socket takes without a reader

    call_as("slow", slow)
    async with raw_client(node) as client:
        await client.send(b'{"id": 1, "call": "slow"}\n')
        await called.wait()
    assert (await ask(node, "peers")) == {"peers": []}  # one client's slow call isn't the others'
    go_on.set()
    await done.wait()
    assert (await ask(node, "peers")) == {"peers": []}


async def test_a_client_that_goes_away_without_reading(node):
    async with raw_client(node) as client:
        await client.send(b'{"id": 1, "call": "status"}\n' * 1000)
    async with raw_client(node) as client:
        await client.send(b'{"id": 1, "ca')
    assert (await ask(node, "peers")) == {"peers": []}


async def test_a_call_that_fails_inside(node, call_as, caplog):
    async def broken():
        raise ZeroDivisionError("one over none")

    call_as("broken", broken)
    async with raw_client(node) as client:
        answer = await client.ask("broken", 3)
        assert answer["id"] == 3
        assert answer["error"]["kind"] == "VouchError"
        assert answer["error"]["message"].startswith("broken failed inside the node, see its log: ")
        assert "one over none" in answer["error"]["message"]
        assert "result" in await client.ask("status")
    assert [record.levelname for record in caplog.records if record.name == "vouch.control"] == ["ERROR"]
    with pytest.raises(VouchError, match="broken failed inside the node"):
        await ask(node, "broken")


async def test_a_call_whose_result_is_no_json(node, call_as):
    async def odd():
        return object()

    call_as("odd", odd)
    with pytest.raises(VouchError, match="odd failed inside the node"):
        await ask(node, "odd")
    assert (await ask(node, "peers")) == {"peers": []}


async def test_a_node_that_does_not_answer_in_time(node, call_as):
    call_as("never", trio.sleep_forever)

    def call():
        with Client(node.config.control_socket, timeout=0.05) as client:
            began = time.monotonic()
            with pytest.raises(VouchError, match=r"the node didn't answer 'never' within 0\.05 s"):
                client.call("never")
            return time.monotonic() - began

    assert await trio.to_thread.run_sync(call) < DEADLINE


async def test_a_call_that_never_ends_is_ended(node, call_as, monkeypatch):
    call_as("never", trio.sleep_forever)
    monkeypatch.setattr(functions, "CALL_TIMEOUT", 0.05)
    with pytest.raises(TooSlowError, match=r"expected never within 0\.05 s"):
        await ask(node, "never")


# the socket


async def test_only_its_owner_may_use_it(node):
    path = node.config.control_socket
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_it_is_gone_when_the_node_stops(tmp_path):
    async with node_at(tmp_path) as node:
        async with serving(node):
            assert node.config.control_socket.exists()
        assert not node.config.control_socket.exists()
        with pytest.raises(NoNodeError) as error:
            await ask(node, "status")
        assert str(error.value) == (
            f"no node is running with the data directory {tmp_path}: "
            "start one with `vouch run`, or name another with --data-dir"
        )


async def test_a_client_is_told_when_the_node_stops(tmp_path):
    async with node_at(tmp_path) as node:
        async with serving(node):
            client = await trio.to_thread.run_sync(Client, node.config.control_socket)
            await trio.to_thread.run_sync(client.call, "status")
        with pytest.raises(VouchError, match="the node closed the control socket"):
            await trio.to_thread.run_sync(client.call, "status")
        client.close()


@pytest.mark.parametrize("left", ["socket", "file"])
async def test_what_a_killed_node_left_is_replaced(tmp_path, left):
    async with node_at(tmp_path) as node:
        path = node.config.control_socket
        if left == "file":
            path.write_text("not a socket")
        else:
            with socket.socket(socket.AF_UNIX) as dead, socket_address(path) as address:
                dead.bind(address)
        with pytest.raises(NoNodeError):
            await ask(node, "status")
        async with serving(node):
            assert (await ask(node, "status"))["peer_id"] == node.peer_id


async def test_a_data_directory_with_a_long_path(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    async with node_at(folder) as node, serving(node):
        path = node.config.control_socket
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await ask(node, "status"))["peer_id"] == node.peer_id
    assert not path.exists()


async def test_a_socket_that_cannot_be_made(tmp_path):
    async with node_at(tmp_path / "not-there") as node:
        with pytest.raises(UsageError, match=r"can't make the control socket .*: No such file or directory"):
            await control.serve(node)
