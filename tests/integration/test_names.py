"""Dialling by name: /dns, /dns4 and /dns6 before the port."""

from __future__ import annotations

import pytest

from node.errors import DialError
from tests.nodes import running


@pytest.mark.parametrize("kind", ["dns", "dns4"])
async def test_a_name_is_dialled(kind):
    async with running() as here, running() as there:
        port = there.addrs[0].split("/")[4]
        connection = await here.connect(f"/{kind}/localhost/tcp/{port}/p2p/{there.peer_id}")
        assert connection.peer == there.peer_id


async def test_what_is_no_name_is_an_error():
    """Refused before anybody is asked: tests send to loopback only."""
    async with running() as here:
        with pytest.raises(DialError, match=r"can't be reached: /dns6/a\.\.b/"):
            await here.connect("/dns6/a..b/tcp/1/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo")
