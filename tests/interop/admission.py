"""Two that meet, as the tests of the Rust and the JavaScript peer have it: let in, refused, strangers to each other."""

from __future__ import annotations

import pytest

from node.errors import RefusedError
from node.events import Admitted


async def join(dialler, local, other, version=""):
    """Connects the two; the node's event `Admitted`. `version` is told in the handshake, if there is one."""
    if dialler == "python":
        await local.node.connect(other.addr)
    else:
        assert (await other.call("connect", local.addr))["total_ms"] > 0
    admitted = await local.event(Admitted, peer=other.peer_id)
    assert admitted.client_version == version
    assert admitted.direction == ("outbound" if dialler == "python" else "inbound")
    return admitted


async def fail_to_join(dialler, local, other):
    """Connects the two, which is expected to end in a refusal by either."""
    if dialler == "python":
        with pytest.raises(RefusedError):
            await local.node.connect(other.addr)
    else:
        reply = await other.call("connect", local.addr, check=False)
        assert (reply["ok"], reply["stage"]) == (False, "admission"), reply


async def assert_strangers(local, other, eventually):
    """Neither is connected with the other any more, and neither has learnt anything of the other."""
    await other.event("disconnected", peer=local.peer_id)
    await eventually(lambda: local.node.swarm.limits.total == 0, "no connection is left on the Python side")
    assert local.node.connected_peers() == []
    assert other.peer_id not in local.node.identify.known
    assert (await other.call("peers"))["peers"] == []
    assert not other.seen("identified")
