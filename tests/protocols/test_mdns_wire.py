"""mDNS packets: what Go and Rust send and want, and any bytes."""

from __future__ import annotations

import random

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zeroconf import DNSIncoming, DNSOutgoing, DNSPointer, DNSText

from protocols.mdns import wire
from protocols.mdns.wire import Found, Known, Query

SERVICE = "_p2p._udp.local"
PRIVATE = "_p2p-0123456789abcdef._udp.local"
PEER = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
OTHER = "12D3KooWJWEKvSFbben74C7H4YtKjhPMTDxd7gP7zxWSUEeF27st"
ADDRS = ("/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1")
NAME = "a" * 40


def response(answers=(), additionals=(), flags=0x8400):
    out = DNSOutgoing(flags)
    for record in answers:
        out.add_answer_at_time(record, 0)
    for record in additionals:
        out.add_additional_answer(record)
    return out.packets()[0]


def pointer(to, service=SERVICE, ttl=120):
    return DNSPointer(f"{service}.", 12, 1, ttl, to)


def text(name, *strings):
    return DNSText(name, 16, 0x8001, 120, b"".join(bytes([len(one)]) + one for one in strings))


def dnsaddr(addr, peer=PEER):
    return f"dnsaddr={addr}/p2p/{peer}".encode()


@pytest.mark.parametrize("service", [SERVICE, PRIVATE])
def test_what_is_asked_and_told_is_understood(service):
    (asked,) = wire.query(service)
    assert wire.decode(asked, service) == Query(peers=True)
    told = wire.answer(service, NAME, PEER, ADDRS, 120)
    assert wire.decode(told, service) == [Found(PEER, ADDRS, 120, f"{NAME}.{service}.")]


def test_another_codec_reads_the_same():
    """The records that go-libp2p and rust-libp2p look for, as dnspython sees them."""
    message = dns.message.from_wire(wire.answer(SERVICE, NAME, PEER, ADDRS, 120))
    (answer,) = message.answer
    assert answer.to_text() == f"{SERVICE}. 120 IN PTR {NAME}.{SERVICE}."
    kinds = {(str(records.name), dns.rdatatype.to_text(records.rdtype)) for records in message.additional}
    assert kinds == {
        (f"{NAME}.{SERVICE}.", "TXT"),
        (f"{NAME}.{SERVICE}.", "SRV"),
        (f"{NAME}.local.", "A"),
        (f"{NAME}.local.", "AAAA"),
    }
    (txt,) = [records for records in message.additional if records.rdtype == dns.rdatatype.TXT]
    assert list(txt[0].strings) == [dnsaddr(addr) for addr in ADDRS]
    assert message.id == 0


def test_networks_dont_hear_each_other():
    for mine, theirs in ((SERVICE, PRIVATE), (PRIVATE, SERVICE)):
        assert wire.decode(wire.query(theirs)[0], mine) is None
        assert wire.decode(wire.answer(theirs, NAME, PEER, ADDRS, 120), mine) is None


def test_names_are_compared_without_case():
    told = wire.answer("_P2P._UDP.local", NAME.upper(), PEER, ADDRS, 120)
    assert wire.decode(told, SERVICE)[0].peer == PEER


def test_an_answer_as_rust_gives_it():
    """One label for a name, a record for each address."""
    told = response([pointer("Zx81.")], [text("zX81.", dnsaddr(addr)) for addr in ADDRS])
    assert wire.decode(told, SERVICE) == [Found(PEER, ADDRS, 120, "Zx81.")]


def test_a_name_has_one_peer():
    strings = [
        b"version=1",
        b"dnsaddr=/ip4/192.0.2.9/tcp/1",
        *map(dnsaddr, ADDRS),
        dnsaddr("/ip4/192.0.2.2/tcp/1", OTHER),
    ]
    told = response([pointer("n.")], [text("n.", *strings), text("m.", dnsaddr("/ip4/192.0.2.3/tcp/1"))])
    assert wire.decode(told, SERVICE) == [Found(PEER, ADDRS, 120, "n.")]


def test_bounds_on_what_is_heard():
    many = [f"/ip4/192.0.2.{number}/tcp/4001" for number in range(1, 60)]
    told = response(
        [pointer("n.")], [text("n.", dnsaddr(addr)) for addr in many[:10]] + [text("n.", *map(dnsaddr, many[10:15]))]
    )
    assert len(wire.decode(told, SERVICE)[0].addrs) <= wire.MAX_ADDRS
    packet = bytearray(told)
    packet[6:8] = (wire.MAX_RECORDS + 1).to_bytes(2, "big")
    assert wire.decode(bytes(packet), SERVICE) is None
    assert wire.decode(told + bytes(wire.MAX_PACKET), SERVICE) is None
    assert wire.decode(told[:11], SERVICE) is None


def test_an_answer_fits_one_packet():
    many = [
        f"/ip6/2001:db8:1111:2222:3333:4444:5555:{number:x}/udp/40001/quic-v1/webtransport" for number in range(100)
    ]
    told = wire.answer(PRIVATE, "a" * 63, PEER, many, 120)
    assert len(told) <= wire.MAX_ANSWER
    addrs = wire.decode(told, PRIVATE)[0].addrs
    assert len(addrs) >= 6
    assert list(addrs) == many[: len(addrs)]


def test_an_address_that_fits_no_string_is_left_out():
    long = "/dns4/" + "a" * 250 + "/tcp/1"
    assert wire.decode(wire.answer(SERVICE, NAME, PEER, [ADDRS[0]], 120), SERVICE)[0].addrs == ADDRS[:1]
    assert wire._answer(SERVICE, NAME, PEER, [long, ADDRS[0]], 120) == wire._answer(
        SERVICE, NAME, PEER, [ADDRS[0]], 120
    )


def test_known_answers():
    known = [Known(f"{NAME}.{SERVICE}.", 90.0), Known("zx81.", 30.0)]
    (asked,) = wire.query(SERVICE, known)
    assert wire.decode(asked, SERVICE) == Query(peers=True, known=tuple(known))
    many = [Known(f"{number}.{SERVICE}.", 90.0) for number in range(100)]
    assert len(wire.decode(wire.query(SERVICE, many)[0], SERVICE).known) == wire.MAX_KNOWN
    odd = [Known(name, 1.0) for name in ("", ".", "a" * 64 + ".", "\ufffd.", "a." * 200, "a..b.")]
    assert wire.decode(wire.query(SERVICE, odd)[0], SERVICE) == Query(peers=True)


def test_looking_around():
    asked = wire.query(wire.META_SERVICE)[0]
    assert wire.decode(asked, SERVICE) == Query(peers=False, services=True)
    (answer,) = DNSIncoming(wire.services(PRIVATE, 120)).answers()
    assert (answer.name, answer.alias) == (f"{wire.META_SERVICE}.", f"{PRIVATE}.")


def test_other_kinds_of_packets_say_nothing():
    told = wire.answer(SERVICE, NAME, PEER, ADDRS, 120)
    for flags in (0x8401 | 2, 0x8400 | 0x2800):  # an error, another opcode
        assert wire.decode(told[:2] + flags.to_bytes(2, "big") + told[4:], SERVICE) is None
    assert wire.decode(response([pointer("n.")]), SERVICE) is None  # a name, and nothing of who it is


@settings(max_examples=300)
@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_something_or_nothing(data, ours):
    if ours:  # past the first look
        data = data[:4] + b"\0\1\0\2\0\0\0\3" + b"\x04_p2p\x04_udp\x05local\0" + data
    check(wire.decode(data, SERVICE))


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_any_spoiled_packet_is_something_or_nothing(seed, changes):
    rng = random.Random(seed)
    packet = bytearray(
        rng.choice([wire.answer(SERVICE, NAME, PEER, ADDRS, 120), wire.query(SERVICE, [Known("n.", 9)])[0]])
    )
    for _ in range(changes):
        packet[rng.randrange(len(packet))] = rng.randrange(256)
    check(wire.decode(bytes(packet[: rng.randrange(len(packet) + 1)]), SERVICE))


def check(said):
    if isinstance(said, list):
        assert said
        for found in said:
            assert 32 <= len(found.peer) <= 128
            assert 1 <= len(found.addrs) <= wire.MAX_ADDRS
            assert all(addr.startswith("/") and addr.isascii() and " " not in addr for addr in found.addrs)
            assert found.ttl >= 0
        wire.query(SERVICE, [Known(found.name, found.ttl) for found in said])  # whatever they are called
    else:
        assert said is None or isinstance(said, Query)
        if said:
            wire.query(SERVICE, said.known)
