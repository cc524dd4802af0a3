"""What Prometheus asks of interop/compose/scrape.py, on a real node's control socket."""

from __future__ import annotations

import threading

import httpx
import pytest
import trio

from interop.compose.scrape import server
from node.api import control
from node.config import Config
from node.identity import Identity
from node.metrics import Metrics
from node.node import Node


@pytest.fixture
def scrape(tmp_path):
    made = server(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


async def get(url: str) -> httpx.Response:
    return await trio.to_thread.run_sync(lambda: httpx.get(url, timeout=10))


async def test_a_node_is_found_and_tells_its_metrics(tmp_path, scrape):
    assert (await get(f"{scrape}/targets")).json() == []
    config = Config(data_dir=tmp_path / "node1", listen=("/ip4/127.0.0.1/tcp/0",), pool="off", dht="off")
    config.data_dir.mkdir()
    node = Node(config, identity=Identity.generate())
    Metrics(node)
    async with node, trio.open_nursery() as nursery:
        await nursery.start(control.serve, node)
        assert (await get(f"{scrape}/targets")).json() == [{"targets": ["node1"]}]
        answer = await get(f"{scrape}/metrics?node=node1")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "\nvouch_uptime_seconds " in answer.text
        assert 'vouch_bound_used{bound="max_control_clients"} 1\n' in answer.text
        nursery.cancel_scope.cancel()
    assert (await get(f"{scrape}/metrics?node=node1")).status_code == 503


@pytest.mark.parametrize("path", ["/", "/metrics", "/metrics?node=../node1", "/metrics?node=", "/metrics?node=a/b"])
async def test_nothing_else_is_answered(path, scrape):
    assert (await get(scrape + path)).status_code == 404
