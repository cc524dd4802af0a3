"""The HTTP API on real sockets: its connections, what goes on telling, TLS, and its end."""

from __future__ import annotations

import json
import socket
import ssl

import pytest
import trio
import trio.testing

from node import Config
from node.api.feed import Feed
from node.api.http import app, connection, serve, stream
from node.api.http.token import read_token
from node.api.verdicts import undecided
from node.errors import UsageError
from tests import certificates
from tests.apiserver import client, listening, node_at, raw, rest, serving
from tests.nodes import eventually

TOPIC = "blocks"


@pytest.fixture
async def node(tmp_path):
    async with node_at(tmp_path / "data") as made:
        yield made


@pytest.fixture
async def server(node):
    async with serving(node) as made:
        yield made


@pytest.fixture
async def asking(server):
    async with client(server) as made:
        yield made


@pytest.fixture
async def other(tmp_path):
    async with node_at(tmp_path / "other") as made:
        yield made


def status(answer):
    """The status of a raw answer, and the error in it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def test_requests_on_one_connection(server, asking):
    for _ in range(5):
        answer = (await asking.get("/v1/node")).json()
        assert answer["api"] == server.url
        assert answer["limits"]["max_api_connections"] == {"used": 1, "limit": 128}
        assert answer["limits"]["max_api_listeners"] == {"used": 0, "limit": 32}
    assert (await asking.get("/health")).json() == {"status": "ok"}
    assert "server" not in (await asking.get("/health")).headers
    await asking.aclose()
    await eventually(lambda: not server.connections.used)


# what goes on telling


async def test_events_have_numbers_to_come_back_with(server, node, other):
    async with listening(server, "/v1/events?kinds=admitted,disconnected") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        await other.connect(node.addrs[0])
        number, name, item = await events.next()
        assert (name, item["event"], item["fields"]["peer"]) == ("admitted", "admitted", other.peer_id)
    await eventually(lambda: not server.api.listeners.used)
    await other.disconnect(node.peer_id)
    await eventually(lambda: not node.connected_peers())
    async with listening(server, "/v1/events", Last_Event_ID=number) as events:
        names = []
        while "disconnected" not in names:
            names.append((await events.next())[1])
        assert "admitted" not in names  # that was told


async def test_a_listener_that_comes_back_late_is_told_what_it_missed(server, node, monkeypatch):
    feed = Feed(node.events, kept=3)
    monkeypatch.setattr(app, "feed_of", lambda _node: feed)
    for number in range(5):
        await node.peers.ban(f"192.0.2.{number}", "because")
    async with listening(server, "/v1/events", Last_Event_ID=f"{feed.start}-0") as events:
        assert (await events.next())[1:] == ("missed", {"count": 2, "event": "missed"})
        assert [(await events.next())[2]["fields"]["target"][:9] for _ in range(3)] == [
            f"192.0.2.{n}" for n in (2, 3, 4)
        ]
    async with listening(server, "/v1/events", Last_Event_ID="another-0") as events:
        await node.peers.ban("192.0.2.9", "because")
        assert (await events.next())[2]["fields"]["target"].startswith("192.0.2.9")


async def test_a_listener_is_told_the_end(server, node):
    async with listening(server, "/v1/events") as events:
        node.events.close()
        assert await events.frame() == ["retry: 2000"]
        with pytest.raises(AssertionError, match="EndOfMessage"):
            await events.frame()


async def test_an_idle_listener_is_pinged(server, monkeypatch):
    monkeypatch.setattr(stream, "PING", 0.05)
    async with listening(server, "/v1/events") as events:
        assert [await events.frame() for _ in range(2)] == [["retry: 2000"], [": ping"]]


async def heard(other):
    await eventually(lambda: other.gossip.engine.peers(TOPIC))


async def test_a_topic_and_its_verdicts(server, asking, node, other):
    await other.connect(node.addrs[0])
    async with listening(server, f"/v1/subscribe?topic={TOPIC}&decide=true") as messages:
        assert (await messages.next())[1:] == ("subscribed", {"event": "subscribed", "topic": TOPIC, "relays": False})
        await heard(other)
        await other.gossip.publish(TOPIC, b"hello", type=7)
        number, name, item = await messages.next()
        assert (number, name, item["payload"], item["type"]) == ("2", "message", "aGVsbG8=", 7)
        answer = await asking.post(f"/v1/verdicts/{item['verdict_id']}", json={"verdict": "accept"})
        assert answer.json() == {"id": item["verdict_id"], "counted": True}
        assert (await asking.post(f"/v1/verdicts/{item['verdict_id']}", json={"verdict": "accept"})).status_code == 404
        await other.gossip.publish(TOPIC, b"again")
        await messages.next()
        # who decides is here: nobody else may
        refused = await asking.get(f"/v1/subscribe?topic={TOPIC}&decide=true")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "usage")
    # gone with a message undecided: it is ignored
    await eventually(lambda: sum(node.gossip.stats.verdicts.values()) == 2)
    given = {kind.value: count for kind, count in node.gossip.stats.verdicts.items() if count}
    assert given == {"accept": 1, "ignore": 1}
    assert len(undecided(node)) == 0
    await eventually(lambda: TOPIC not in node.gossip.engine.topics)


async def test_who_listens_only(server, node, other):
    await other.connect(node.addrs[0])
    async with listening(server, f"/v1/subscribe?topic={TOPIC}&payload=false") as messages:
        assert (await messages.next())[2]["relays"]
        await heard(other)
        await other.gossip.publish(TOPIC, b"hello")
        item = (await messages.next())[2]
        assert (item["size"], item["payload"]) == (5, "")
        assert "verdict_id" not in item


async def test_a_topic_that_is_none(asking):
    answer = await asking.get("/v1/subscribe?topic=a+b")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")


# clients that don't behave


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5 + b"\r\n\r\n", (400, "bad_request")),
        (b"GET / HTTP/1.1\r\n\r\n", (400, "bad_request")),  # HTTP/1.1 has a Host
        (b"GET / HTTP/1.0\r\n\r\n", (403, "wrong_host")),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", (403, "wrong_host")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400, "bad_request")),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, (431, "headers_too_large")),
        (b"GET /" + b"x" * 20_000, (431, "headers_too_large")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (403, "wrong_host")),
        (b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", (400, "bad_request")),
        (b"GET /nothing\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, "bad_request")),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (404, "no_route")),
    ],
)
async def test_what_is_no_request(server, data, answer):
    connected = await raw(server)
    async with connected:
        await connected.send_all(data)
        got = await rest_until_idle(connected)
        assert b"Traceback" not in got
        assert status(got) == answer
    await eventually(lambda: not server.connections.used)


async def rest_until_idle(connected):
    """What comes until the end, or until no more does."""
    data = b""
    with trio.move_on_after(4):
        while part := await connected.receive_some(65536):
            data += part
            if b"\r\n\r\n" in data and data.endswith(b"}"):
                break
    return data


@pytest.mark.parametrize(
    "headers",
    [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAA",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    ],
)
async def test_there_is_nothing_but_http_1(server, headers):
    connected = await raw(server)
    async with connected:
        await connected.send_all(f"GET /health HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode())
        assert (await rest_until_idle(connected)).startswith(b"HTTP/1.1 200 ")
        await connected.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await rest_until_idle(connected)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HTTP/1.1\r\nHost: local", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
async def test_who_sends_no_request_in_time_is_dropped(node, monkeypatch, sent):
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.3)
    async with serving(node) as server:
        connected = await raw(server)
        async with connected:
            await connected.send_all(sent)
            await rest(connected)
        await eventually(lambda: not server.connections.used)


@pytest.mark.parametrize("length", ["Content-Length: 10485760", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("token", [True, False])
async def test_a_body_of_10_mib_is_refused_and_the_answer_arrives(server, node, length, token):
    authorization = f"Authorization: Bearer {read_token(node.config.data_dir)}\r\n" if token else ""
    part = b"x" * 65536
    if "chunked" in length:
        part = b"10000\r\n" + part + b"\r\n"
    connected = await raw(server)
    async with connected:
        head = (
            f"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{authorization}{length}"
        )
        await connected.send_all(f"{head}\r\n\r\n".encode())
        for _ in range(160):  # all of it, before the answer is looked at
            await connected.send_all(part)
        assert status(await rest_until_idle(connected)) == ((413, "too_large") if token else (401, "no_token"))
    await eventually(lambda: not server.connections.used)


async def test_a_listener_that_does_not_read_is_dropped(node, monkeypatch):
    monkeypatch.setattr(connection, "SEND_TIMEOUT", 0.5)
    async with serving(node) as server:
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with stuck:
            stuck.connect((server.address.host, server.address.port))
            stuck.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await eventually(lambda: server.api.listeners.used == 1)
            reason = "x" * 60_000
            for number in range(200):
                await node.peers.ban(f"192.0.2.{number}", reason)
            await eventually(lambda: not server.connections.used)
            assert not server.api.listeners.used


async def test_the_end_waits_for_no_listener(node):
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with stuck, trio.fail_after(10):
        async with serving(node) as server:
            stuck.connect((server.address.host, server.address.port))
            stuck.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await eventually(lambda: server.api.listeners.used == 1)
            for number in range(200):
                await node.peers.ban(f"192.0.2.{number}", "x" * 60_000)
        assert node.api_url == ""


def authorization(node):
    return f"Authorization: Bearer {read_token(node.config.data_dir)}\r\n\r\n".encode()


async def raw_kept(server, held):
    """One more connection, once it has been looked at."""
    held.append(await raw(server))
    await trio.testing.wait_all_tasks_blocked(0.02)
    return held[-1]


async def test_listeners_and_connections_are_bounded_and_counted(tmp_path):
    async with node_at(tmp_path / "data", max_api_listeners=2, max_api_connections=4) as node, serving(node) as server:
        held = []
        async with client(server) as asking:
            async with listening(server, "/v1/events"), listening(server, "/v1/events"):
                answer = await asking.get("/v1/events")
                assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many")
                assert "max_api_listeners" in answer.json()["error"]["message"]
                assert server.api.listeners.refused == 1
                # of the four places two listen, and those that wait for their clients give way to others
                for _ in range(10):
                    await raw_kept(server, held)
                assert server.connections.used == 4
                assert (await asking.get("/health")).status_code == 200
                assert server.connections.refused == 0
                # two whose requests are under way
                body = b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n" + authorization(node)
                for _ in range(2):
                    await (await raw_kept(server, held)).send_all(body)
                await eventually(lambda: all(one.waits_since is None for one in server._open))
                refused = [await rest_until_idle(await raw_kept(server, held)) for _ in range(3)]
                assert [status(one) for one in refused] == [(429, "too_many")] * 3
                for one in held:
                    await one.aclose()
            await eventually(lambda: server.connections.used <= 1)
            assert (await asking.get("/health")).status_code == 200
        assert server.connections.refused == 3


async def test_a_fault_in_a_connection_ends_that_one_alone(server, asking, monkeypatch, caplog):
    async def fails(_self):
        raise ZeroDivisionError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(connection.Connection, "run", fails)
        async with await raw(server) as broken:
            assert await rest(broken) == b""
    assert (await asking.get("/health")).status_code == 200
    assert "a fault" in caplog.text


# TLS, and where it listens


async def test_tls(tmp_path):
    files = certificates.make(tmp_path)
    settings = {"api_cert": files.own, "api_token": "always"}
    async with node_at(tmp_path / "data", **settings) as node, serving(node) as server:
        assert server.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(files.roots))
        async with client(server, verify=context) as asking, client(server, token=False, verify=context) as stranger:
            assert (await asking.get("/v1/node")).json()["peer_id"] == node.peer_id
            assert (await stranger.get("/health")).status_code == 200
            assert (await stranger.get("/v1/node")).status_code == 401
            async with listening(server, "/v1/events", tls=context) as events:
                await node.peers.ban("192.0.2.1", "because")
                assert (await events.next())[1] == "banned"
            answer = await asking.post("/v1/publish", content=b"x" * (10 << 20))
            assert answer.status_code == 413
        async with await raw(server) as plain:  # no TLS
            await plain.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP" not in await rest(plain)


async def test_who_does_not_finish_tls_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "TLS_TIMEOUT", 0.3)
    files = certificates.make(tmp_path)
    async with node_at(tmp_path / "data", api_cert=files.own) as node, serving(node) as server:
        async with await raw(server) as silent:
            await rest(silent)
        await eventually(lambda: not server.connections.used)


@pytest.mark.parametrize("api", ["0.0.0.0:0", "[::]:0", "192.0.2.1:4780"])
def test_beyond_this_machine_there_is_tls(tmp_path, api):
    with pytest.raises(UsageError, match="expected an address of this machine alone such as"):
        Config(data_dir=tmp_path, api=api)
    Config(data_dir=tmp_path, api=api, api_cert=tmp_path / "cert.pem")


async def test_beyond_this_machine_reading_needs_the_token(tmp_path):
    files = certificates.make(tmp_path)
    async with node_at(tmp_path / "data", api="0.0.0.0:0", api_cert=files.own) as node, serving(node) as server:
        assert server.url == f"https://127.0.0.1:{server.address.port}/"
        context = ssl.create_default_context(cafile=str(files.roots))
        async with client(server, token=False, verify=context) as stranger:
            assert (await stranger.get("/v1/node")).status_code == 401
            assert (await stranger.get("/health")).status_code == 200


async def test_a_certificate_that_is_none(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    async with node_at(tmp_path / "data", api_cert=tmp_path / "cert.pem") as node:
        with pytest.raises(UsageError, match="api_cert: expected a certificate and its key"):
            serve.Server(node)


async def test_a_port_that_is_taken(node, server, tmp_path):
    async with node_at(tmp_path / "second", api=str(server.address)) as second:
        with pytest.raises(UsageError, match=f"api: can't listen on {server.address}: Address already in use"):
            serve.Server(second)
        async with serving(second, asked=False) as instead:
            assert instead.address.port not in (0, server.address.port)
            async with client(instead) as asking:
                assert (await asking.get("/v1/node")).json()["peer_id"] == second.peer_id


@pytest.mark.parametrize("path", ["/v1/events", "/v1/node"])
async def test_who_asks_for_more_and_goes_leaves_nothing(server, monkeypatch, path):
    monkeypatch.setattr(stream, "PING", 0.1)
    for count in (1, 2, 50):
        async with await raw(server) as connected:
            await connected.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * count)
            await connected.receive_some(100)
        await eventually(lambda: not server.connections.used)
    assert server.api.listeners.used == 0
