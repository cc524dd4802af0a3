"""Dialling by name: /dns, /dns4 and /dns6 before the port. The names are the test's own, nobody else is asked."""

from __future__ import annotations

import socket

import pytest
import trio

from node.errors import DialError
from tests.nodes import eventually, running


class Names:
    """A resolver of host names from a table."""

    def __init__(self, **names):
        self.names = names

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        kinds = {host: socket.AF_INET6 if ":" in host else socket.AF_INET for host in self.names.get(host.decode(), ())}
        found = [(kind, type, 6, "", (host, port or 0)) for host, kind in kinds.items() if family in (0, kind)]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return found

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
def names():
    table = Names()

    def use(**names):
        trio.socket.set_custom_hostname_resolver(table)
        table.names = names

    return use


@pytest.mark.parametrize("kind", ["dns", "dns4"])
async def test_a_name_is_dialled_by_the_next_of_its_addresses_too(kind, names):
    names(there=["127.0.0.3", "::1", "127.0.0.1"])
    async with running() as here, running() as there:
        port = there.addrs[0].split("/")[4]
        connection = await here.connect(f"/{kind}/there/tcp/{port}/p2p/{there.peer_id}")
        assert connection.peer == there.peer_id


@pytest.mark.parametrize("name", ["missing", "there"])
async def test_a_name_without_such_an_address_is_an_error(name, names):
    names(there=["127.0.0.1"])
    async with running() as here, running() as there:
        port = there.addrs[0].split("/")[4]
        with pytest.raises(DialError, match=f"/dns6/{name}/.*: no such name"):
            await here.connect(f"/dns6/{name}/tcp/{port}/p2p/{there.peer_id}")


async def test_a_ban_of_an_address_ends_what_was_dialled_by_a_name_that_leads_there(names):
    names(there=["127.0.0.1"])
    async with running() as here, running() as there:
        port = there.addrs[0].split("/")[4]
        await here.connect(f"/dns4/there/tcp/{port}/p2p/{there.peer_id}")
        await here.peers.ban("127.0.0.1", "a test")
        await eventually(lambda: not here.connected_peers())
