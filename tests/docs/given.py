"""What pieces of programs on the pages are run with, and what a reader does in a browser meanwhile."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from node import Config, Identity, Node
from tests.dashboard import chromium
from tests.docs.reading import Block
from tests.docs.terminals import Terminals


def in_the_dashboard(terminals: Terminals, block: Block) -> None:
    """Opens the URL that `vouch open` has printed, listens to the topic, runs the block, and sees what was published."""
    program = chromium.find()
    if program is None:
        reason = f"the page was followed up to the dashboard, and there is none of {', '.join(chromium.NAMES)}"
        if os.environ.get("INTEROP") == "require" or os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    url = re.findall(r"http://127\.0\.0\.1:\d+/#token=\S+", terminals.transcript)[-1]
    [(said, topic)] = re.findall(r'^\$ echo "([^"]+)" \| vouch publish (\w+)', block.text, re.MULTILINE)
    trio.run(_see, program, url, topic, said, terminals, block)


async def _see(program: str, url: str, topic: str, said: str, terminals: Terminals, block: Block) -> None:
    async with chromium.chromium(program) as browser, browser.page() as page:
        await page.open(url)
        await page.until("document.querySelectorAll('#peers tbody tr').length === 1")
        await page.click("#publish-topic")
        await page.type(topic)
        await page.click("#listen")
        # the other node knows of it once it is in this one's mesh
        await page.until("document.querySelectorAll('#graph .dot.k-mesh, #graph .dot.k-peer').length >= 1")
        await page.until("document.querySelector('#listen').textContent === 'Stop'")
        await trio.sleep(1)
        await trio.to_thread.run_sync(terminals.run, block)
        await page.until(f"document.querySelector('#messages').textContent.includes({json.dumps(said)})")
        assert page.errors == []
        assert all(one.startswith((url.partition("#")[0], "data:")) for one in page.requests)


# pieces of programs


@asynccontextmanager
async def a_node() -> AsyncIterator[dict[str, Any]]:
    """`node`, and `peer` that it is connected with."""
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), pool="off")
    async with (
        Node(config, identity=Identity.generate()) as node,
        Node(config, identity=Identity.generate()) as other,
    ):
        await node.connect(other.addrs[0])
        yield {"node": node, "peer": other.peer_id, "other": other}
