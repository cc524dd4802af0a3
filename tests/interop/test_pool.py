"""The pool beside peers in other languages: it tests the address of who dials us, by a connection that ends before a
Hello, and the first connection goes on.
"""

from __future__ import annotations

import pytest

from node.events import Admitted, Disconnected
from tests.interop.messaging import START

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]


@pytest.mark.parametrize("name", START)
async def test_who_dialled_us_is_tested_and_stays(here, built, eventually, name):
    built(name)
    async with here(pool="on", dht="off") as local, START[name]() as other:
        await other.call("connect", local.addr)
        await local.event(Admitted, peer=other.peer_id)
        await eventually(lambda: local.node.peers.pool.counts["test", "ok"] == 1, "its address has worked")
        assert len(await local.node.ping(other.peer_id, 2)) == 2
        assert len((await other.call("ping", local.peer_id, "2"))["rtt_us"]) == 2
        assert not local.seen(Disconnected)
        assert len(local.seen(Admitted)) == len(other.seen("admitted")) == 1
