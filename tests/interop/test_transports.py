"""Transports and security, a Python node and each peer in another language: connected, pinged, echoed, half-closed,
reset, admitted and refused.

A peer joins by a row in OTHERS. It takes `--listen MULTIADDR` and `--security noise|tls`.
"""

from __future__ import annotations

import pytest
import trio

from interop.peer import Peer
from interop.rawbytes import BYTES, Pattern, echo_pattern, receive_pattern, reset_mine, send_pattern, was_reset
from node.events import Admitted, Refused
from tests.interop.streaming import connected

MIB = 1 << 20
TCP = "/ip4/127.0.0.1/tcp/0"

OTHERS = {"go": Peer.go, "js": Peer.js, "rust": Peer.rust}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.usefixtures("no_traceback"),
    pytest.mark.parametrize("name", OTHERS),
]

over_each = pytest.mark.parametrize("listen", [TCP, f"{TCP}/ws"], ids=["tcp", "ws"])
with_each = pytest.mark.parametrize("security", ["noise", "tls"])
both_ways = pytest.mark.parametrize("dialler", ["python", "other"])


@pytest.fixture
def joined(here, built):
    """`async with joined(name, listen, security) as (local, other)`: connected, over just that."""

    def join(name, listen, security, dialler, *flags, **settings):
        built(name)
        started = OTHERS[name]("--timeout=20s", "--listen", listen, "--security", security, *flags)
        return connected(here, started, dialler=dialler, listen=(listen,), security=security, **settings)

    return join


@over_each
@with_each
@both_ways
async def test_streams_do_what_they_should(joined, name, listen, security, dialler):
    with trio.fail_after(40):
        async with joined(name, listen, security, dialler, "--handshake=false", admission="open") as (local, other):
            assert len((await other.call("ping", local.peer_id, "3"))["rtt_us"]) == 3
            await local.node.ping(other.peer_id)
            await echo_pattern(local.node, other.peer_id, 10 * MIB)
            await other.call("echo", local.peer_id, str(10 * MIB), "1")
            await other.call("echo", local.peer_id, "1000", "100")
            async with local.node.stream(other.peer_id, BYTES) as stream:
                pattern = Pattern(3, 200_000)
                await send_pattern(stream, pattern)  # and its end, before a byte is read
                await receive_pattern(stream, pattern)
            await reset_mine(local.node, other.peer_id)
            await was_reset(local.node, other.peer_id)
            await other.call("reset", local.peer_id)
            await other.call("was-reset", local.peer_id)


# under Noise it is tested with Rust and JavaScript by test_admission.py, and with Go by test_go.py


@over_each
@both_ways
async def test_admission_under_tls(joined, here, name, listen, dialler):
    async with joined(name, listen, "tls", dialler) as (local, other):
        await other.event("admitted", peer=local.peer_id)
        await echo_pattern(local.node, other.peer_id, 1000)
    stranger = OTHERS[name]("--listen", listen, "--security", "tls", "--network-id", "elsewhere")
    async with here(listen=(listen,), security="tls", dht="off") as local, stranger as other:
        if dialler == "python":
            with pytest.raises(Exception, match="another network"):
                await local.node.connect(other.addr)
        else:
            assert not (await other.call("connect", local.addr, check=False))["ok"]
        assert (await local.event(Refused, peer=other.peer_id)).reason
        assert not local.seen(Admitted)


@with_each
@both_ways
async def test_no_security_in_common(here, built, name, security, dialler):
    built(name)
    theirs = "tls" if security == "noise" else "noise"
    started = OTHERS[name]("--listen", TCP, "--security", theirs)
    async with here(listen=(TCP,), security=security, dht="off") as local, started as other:
        if dialler == "python":
            with pytest.raises(Exception, match="supports none of"):
                await local.node.connect(other.addr)
        else:
            assert not (await other.call("connect", local.addr, check=False))["ok"]
