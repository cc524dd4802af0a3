"""Clients of the HTTP API that send anything, in any pieces, and go at any time: none leaves anything behind."""

from __future__ import annotations

import random
from contextlib import suppress

import trio

from node.api.http import connection, stream
from node.api.http.token import read_token
from tests.apiserver import node_at, raw, serving
from tests.nodes import eventually

PATHS = ["/health", "/v1/node", "/v1/events", "/v1/publish", "/v1/peers/x", "/", "*", "//", "/%00", "/v1/bans?target=x"]
CLIENTS = 300
AT_ONCE = 20


def requests(rng, token):
    """Some requests behind each other, some of them spoiled."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        method = rng.choice(["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"])
        path = rng.choice(
            [
                "/health",
                "/v1/node",
                "/v1/events",
                "/v1/publish",
                "/v1/peers/x",
                "/",
                "*",
                "//",
                "/%00",
                "/v1/bans?target=x",
            ]
        )
        body = rng.randbytes(rng.choice([0, 1, 100, 200_000]))
        headers = ["Host: localhost", rng.choice(["X: y", "Connection: close", "Upgrade: h2c", "Upgrade: websocket"])]
        headers.append(rng.choice([f"Authorization: Bearer {token}", "Authorization: x", "Y: z"]))
        headers.append(rng.choice(["Content-Type: application/json", "Expect: 100-continue", "Y: z"]))
        if rng.random() < 0.3:
            headers.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n" % (len(body), body) * rng.randint(0, 3) + b"0\r\n\r\n"
        elif body or rng.random() < 0.5:
            headers.append(f"Content-Length: {len(body) + rng.choice([0, 0, 0, -1, 1])}")
        parts.append(f"{method} {path} HTTP/1.{rng.choice('1110')}\r\n".encode())
        parts.append("\r\n".join(headers).encode() + b"\r\n\r\n" + body)
    data = bytearray(b"".join(parts))
    for _ in range(rng.choice([0, 0, 0, 1, 5])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


async def one(server, seed, token):
    rng = random.Random(seed)
    data = requests(rng, token)
    with suppress(OSError, trio.BrokenResourceError):
        async with await raw(server) as connected:
            at = 0
            with trio.move_on_after(2):  # who sends on while it is told events isn't read, and goes when it likes
                while at < len(data) and rng.random() > 0.05:
                    size = rng.choice([1, 10, 1000, 65536, len(data)])
                    await connected.send_all(data[at : at + size])
                    at += size
            if rng.random() < 0.5:
                with trio.move_on_after(rng.choice([0.01, 0.5])):
                    answer = await connected.receive_some(65536)
                    assert b"Traceback" not in answer
                    assert not answer or answer.startswith(b"HTTP/1.1 ")
                    assert answer[9:12] != b"500"
            if rng.random() < 0.3:
                await connected.send_eof()
                await trio.sleep(0.01)


async def test_no_client_leaves_anything(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.5)
    monkeypatch.setattr(connection, "LINGER", 0.3)
    monkeypatch.setattr(stream, "PING", 0.2)
    async with node_at(tmp_path / "data", max_api_rate=10_000.0) as node, serving(node) as server:
        token, limiter = read_token(node.config.data_dir), trio.CapacityLimiter(AT_ONCE)

        async def limited(seed):
            async with limiter:
                await one(server, seed, token)

        before = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            for seed in range(CLIENTS):
                nursery.start_soon(limited, seed)
        await eventually(lambda: not server.connections.used, timeout=12)
        assert not server.api.listeners.used
        assert server.api.requests > CLIENTS / 2
        await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= before + 1)
        async with await raw(server) as connected:
            await connected.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await connected.receive_some(4096)).startswith(b"HTTP/1.1 200 ")
    assert "api_failed" not in caplog.text
    assert "api_connection_failed" not in caplog.text
