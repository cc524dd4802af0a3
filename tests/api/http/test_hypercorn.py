"""What Hypercorn's own shell on trio does, which is why `node/api/http/connection.py` has one of ours.

When an update makes one of these fail, its fault is gone, and so may ours be.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial

import trio
import trio.lowlevel
from hypercorn.config import Config
from hypercorn.trio import serve


@asynccontextmanager
async def stock(app):
    """Hypercorn as it is; its address, and how to stop it. It gets a second to end."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.2
    stop = trio.Event()
    start = partial(serve, app, config, shutdown_trigger=stop.wait)
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(start)
        yield ("127.0.0.1", int(url.rpartition(":")[2])), nursery
        stop.set()


def only_http(scope):
    """Hypercorn takes an error for an app without a lifespan."""
    if scope["type"] != "http":
        raise RuntimeError("expected a request of HTTP")


async def endless(scope, receive, send):
    """Sends as much as the client takes."""
    only_http(scope)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})


async def test_stock_cannot_be_cancelled_while_a_listener_does_not_read():
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with stock(endless) as (address, nursery):
        stuck.connect(address)
        stuck.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.sleep(0.3)  # until its send waits
        ended = trio.Event()

        async def lets_go_at_last():
            with trio.CancelScope(shield=True):
                await trio.sleep(1.0)
                assert not ended.is_set()
                stuck.close()

        nursery.start_soon(lets_go_at_last)
        await trio.lowlevel.checkpoint()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began > 0.9  # it took as long as the client liked


async def test_stock_switches_to_http_2_when_asked():
    async def answers(scope, receive, send):
        only_http(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with stock(answers) as (address, nursery):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            )
            assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101 ")
        nursery.cancel_scope.cancel()
