"""qh3 with what is added to it, without a socket. These fail when a new version of it isn't what we build on."""

from __future__ import annotations

import importlib.metadata
import inspect
import ssl

import aioquic.quic.configuration as aioquic
import pytest
from aioquic.quic.connection import QuicConnection as AioquicConnection
from aioquic.quic.events import HandshakeCompleted
from hypothesis import given, settings
from hypothesis import strategies as st
from qh3 import tls
from qh3._hazmat import Buffer, QuicConnectionCore
from qh3.quic.connection import QuicConnection
from qh3.quic.packet import encode_quic_version_negotiation
from qh3.quic.tls_bridge import QuicTlsBridge

from node.identity import Identity
from node.quic import configurations, native
from node.quic.configurations import Configurations, Limits
from node.quic.guard import QuicError
from node.quic.mutual import Client, Server
from node.quic.native import Native
from node.quic.packets import parse_initial
from node.upgrade.certificate import make_credentials, peer_key
from protocols import ProtocolError

HERE, THERE = ("127.0.0.1", 1111), ("127.0.0.1", 2222)
IDENTITIES = [Identity.generate() for _ in range(2)]
CONFIGURATIONS = [Configurations(make_credentials(identity.key_pair()), Limits(streams=7)) for identity in IDENTITIES]


class Pair:
    """A client and a server with a perfect link between them, in simulated time."""

    def __init__(self, *, verify_client=peer_key, verify_server=peer_key, first=None) -> None:
        self.now = 100.0
        self.events: dict[str, list] = {"client": [], "server": []}
        self.client = Native.client(CONFIGURATIONS[0], lambda chain: verify_server(chain), self.events["client"].append)
        self.client.start(THERE, self.now)
        data, _ = self.client.next_datagram(self.now)
        found = parse_initial(data)
        self.server = Native.server(
            CONFIGURATIONS[1], lambda chain: verify_client(chain), self.events["server"].append, found.destination, None
        )
        self.server.receive(first or data, len(first or data), HERE, self.now)

    def run(self, seconds: float = 0.2) -> Pair:
        end = self.now + seconds
        while self.now < end:
            for one, other, addr in ((self.client, self.server, HERE), (self.server, self.client, THERE)):
                while (found := one.next_datagram(self.now)) is not None:
                    other.receive(found[0], len(found[0]), addr, self.now)
                if one.overdue:
                    one.catch_up()
            self.now += 0.005
            for one in (self.client, self.server):
                if one.deadline is not None and one.deadline <= self.now:
                    one.tick(self.now)
        return self

    def of(self, side, kind):
        return [event for event in self.events[side] if event[0] == kind]


def test_qh3_is_the_version_that_was_looked_at():
    assert importlib.metadata.version("qh3") == "2.1.0", "look at node/quic/native.py and mutual.py with the new one"


def test_what_is_relied_on_is_there():
    for owner, names in {
        QuicConnection: ("_create_core", "_create_tls", "_drain_core", "_drain_tls", "_require_core", "connect"),
        QuicTlsBridge: ("serialize_transport_parameters", "receive_crypto"),
        tls.Context: ("_process_certificate", "_server_handle_hello", "_server_handle_finished", "handle_message"),
        QuicConnectionCore: (
            "poll_transmit",
            "receive_gro_buffer",
            "get_send_buffer_size",
            "stream_limits",
            "state",
            "apply_peer_transport_parameters",
            "pto_count",
            "pto_total",
            "loss_total",
            "congestion_window",
            "bytes_in_flight",
            "active_path",
        ),
    }.items():
        for name in names:
            assert hasattr(owner, name), f"{owner.__name__}.{name}"
    assert list(inspect.signature(tls.Context._server_handle_hello).parameters) == [
        "self", "input_buf", "initial_buf", "handshake_buf", "onertt_buf",
    ]  # fmt: skip
    # the client's Finished is worked out when it comes, and not before
    assert "if not self._alps_negotiated" in inspect.getsource(tls.Context._server_handle_hello)
    # and our certificate is looked at within the message that the request goes before
    assert inspect.getsource(tls.Context._server_handle_hello).count("self.certificate]") == 1


def test_both_sides_know_the_other():
    seen = []
    verify = lambda chain: seen.append(peer_key(chain).serialize())  # noqa: E731
    pair = Pair(verify_client=verify, verify_server=verify).run()
    assert pair.of("client", "established")
    assert pair.of("server", "established")
    assert seen == [identity.key_pair().public_key.serialize() for identity in reversed(IDENTITIES)]
    assert isinstance(pair.client._tls.tls, Client)
    assert isinstance(pair.server._tls.tls, Server)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_certificate_that_is_refused_ends_the_handshake_on_both_sides(side):
    def refuse(chain):
        raise ProtocolError("not this one")

    pair = Pair(**{f"verify_{side}": refuse}).run()
    other = "server" if side == "client" else "client"
    assert not pair.of(other, "established")
    assert "not this one" in str(pair.events[other])
    assert pair.of(side, "peer_closed")


def test_a_server_is_not_established_before_it_knows_the_client():
    order = []
    pair = Pair(verify_client=lambda chain: order.append("verified"))
    take = pair.server._take
    pair.server._take = lambda event: (order.append(event[0]), take(event))
    pair.run()
    assert order.index("verified") < order.index("established")


def without_certificate(pair: Pair):
    pair.client._tls.tls.certificate = None
    pair.client._tls.tls.certificate_private_key = None


def with_another_key(pair: Pair):
    pair.client._tls.tls.certificate_private_key = CONFIGURATIONS[1].client.private_key


@pytest.mark.parametrize("spoil", [without_certificate, with_another_key])
def test_a_client_without_its_certificate_or_key_is_refused(spoil):
    pair = Pair()
    spoil(pair)
    pair.run()
    assert not pair.of("server", "established")
    assert pair.of("server", "ended")


def test_another_application_is_refused(monkeypatch):
    monkeypatch.setattr(configurations, "ALPN", "h3")
    other = Configurations(make_credentials(IDENTITIES[0].key_pair()), Limits())
    monkeypatch.setitem(globals(), "CONFIGURATIONS", [other, CONFIGURATIONS[1]])
    pair = Pair().run()
    assert not pair.of("server", "established")
    assert not pair.of("client", "established")
    assert "ALPN" in str(pair.of("server", "ended"))


def test_limits_are_ours():
    pair = Pair().run()
    opened = 0
    while pair.client.may_open():
        pair.client.send(pair.client.open(), b"x")
        opened += 1
    assert opened == 7
    pair.run()
    assert len(pair.of("server", "stream_data")) == 7


def test_no_credit_is_given_for_what_is_not_taken():
    pair = Pair().run()
    number = pair.client.open()
    pair.server.paused = True
    pair.client.send(number, bytes(16 << 20))
    pair.run(3)
    assert not pair.of("server", "stream_data")
    left = pair.client.unsent(number)
    assert left >= (16 << 20) - Limits().stream_window
    pair.run(1)
    assert pair.client.unsent(number) == left
    pair.server.drain()
    pair.run(5)
    assert sum(len(event[2]) for event in pair.of("server", "stream_data")) == 16 << 20


def test_a_close_is_told_to_one_that_takes_nothing():
    pair = Pair().run()
    pair.client.send(pair.client.open(), bytes(100_000))
    pair.server.paused = True
    pair.run()
    pair.client.shut(0, "enough")
    pair.run(1)
    assert pair.of("server", "ended")
    assert pair.of("server", "connection_terminated")


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_message_without_end_is_refused_on_both_sides(side):
    """A certificate of megabytes, and what came of it copied with each part."""
    pair = Pair()
    context = getattr(pair, side)._tls.tls
    buffers = {epoch: Buffer(capacity=4096) for epoch in tls.Epoch}
    epoch = tls.Epoch.HANDSHAKE if side == "server" else tls.Epoch.INITIAL
    context.handle_message(b"\x0b\xff\xff\xff" + bytes(30_000), buffers, epoch)
    with pytest.raises(tls.Alert):
        context.handle_message(bytes(3000), buffers, epoch)
    assert len(context._receive_buffer) <= 32 * 1024


def test_a_server_of_other_versions_ends_a_dial_at_once():
    events = []
    client = Native.client(CONFIGURATIONS[0], peer_key, events.append)
    client.start(THERE, 100.0)
    first, _ = client.next_datagram(100.0)
    there = 6 + first[5]
    target, source = first[6:there], first[there + 1 : there + 1 + first[there]]
    answer = encode_quic_version_negotiation(target, source, [0x6B3343CF])
    client.receive(answer, len(answer), THERE, 100.1)
    assert [event[0] for event in events] == ["ended", "connection_terminated"]


def test_a_path_that_has_become_narrow_keeps_streams_and_credit():
    pair = Pair().run(1)
    pair.client.send(pair.client.open(), bytes(4 << 20))
    pair.run(2)
    before = pair.client._core.stream_limits
    for _ in range(native.NARROW_AFTER + 1):
        pair.client.ping()
        pair.client.next_datagram(pair.now)
        pair.now = pair.client.deadline
        pair.client.tick(pair.now)
    assert pair.client._is_narrow
    assert pair.client._core.stream_limits == before
    while pair.client.next_datagram(pair.now) is not None:
        pass  # lost
    number = pair.client.open()
    pair.client.send(number, bytes(3 << 20))
    pair.run(5)
    assert sum(len(event[2]) for event in pair.of("server", "stream_data") if event[1] == number) == 3 << 20


@settings(max_examples=50)
@given(st.data())
def test_spoiled_first_datagrams_end_in_one_kind_of_error(data):
    client = Native.client(CONFIGURATIONS[0], peer_key, lambda event: None)
    client.start(THERE, 100.0)
    first, _ = client.next_datagram(100.0)
    at = data.draw(st.integers(0, len(first) - 1))
    spoiled = first[:at] + bytes([first[at] ^ data.draw(st.integers(1, 255))]) + first[at + 1 :]
    server = Native.server(CONFIGURATIONS[1], peer_key, lambda event: None, b"D" * 8, None)
    try:
        server.receive(spoiled, len(spoiled), HERE, 100.0)
        while server.next_datagram(100.0) is not None:
            pass
    except QuicError:
        pass


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8))
def test_any_flight_of_a_client_ends_in_an_alert_or_waits(messages):
    pair = Pair()
    context = pair.server._tls.tls
    buffers = {epoch: Buffer(capacity=4096) for epoch in tls.Epoch}
    for message in messages:
        try:
            context.handle_message(message, buffers, tls.Epoch.HANDSHAKE)
        except (tls.Alert, ValueError, IndexError):
            return  # what these become is up to Native
    assert context.state == tls.State.SERVER_EXPECT_FINISHED


def test_a_client_that_fills_its_datagrams_up_behind_their_packets():
    """aioquic does, and the bytes count all the same: three times of them may be sent before its address is proven."""
    configuration = aioquic.QuicConfiguration(alpn_protocols=["libp2p"], verify_mode=ssl.CERT_NONE)
    client = AioquicConnection(configuration=configuration)
    client.connect(THERE, now=100.0)
    ((data, _),) = client.datagrams_to_send(now=100.0)
    assert data.endswith(bytes(200)), "aioquic doesn't do it any more"
    events = []
    server = Native.server(CONFIGURATIONS[1], peer_key, events.append, parse_initial(data).destination, None)
    server.receive(data, len(data), HERE, 100.0)
    answer = []
    while (found := server.next_datagram(100.0)) is not None:
        answer.append(found[0])
    for datagram in answer:
        client.receive_datagram(datagram, THERE, now=100.1)
    assert any(isinstance(event, HandshakeCompleted) for event in iter(client.next_event, None))


def test_what_waits_while_nothing_is_taken_is_bounded_in_number_too(monkeypatch):
    monkeypatch.setattr(native, "MAX_EVENTS", 200)
    pair = Pair().run()
    streams = [pair.client.open() for _ in range(2)]
    pair.server.paused = True
    for k in range(300):
        pair.client.send(streams[k % 2], b"x")
        pair.run(0.005)
        if pair.of("server", "protocol_error"):
            break
    assert 190 < k < 210
    assert "at most 200 frames" in pair.of("server", "protocol_error")[0][3]
    assert not pair.of("client", "protocol_error")


def test_what_is_taken_is_not_counted(monkeypatch):
    monkeypatch.setattr(native, "MAX_EVENTS", 50)
    pair = Pair().run()
    streams = [pair.client.open() for _ in range(2)]
    for k in range(300):
        pair.server.paused = k % 3 == 0
        if not pair.server.paused:
            pair.server.drain()
        pair.client.send(streams[k % 2], b"x")
        pair.run(0.005)
    assert not pair.of("server", "protocol_error")
